"""SCIM 2.0 and 1.1: the requests that a client sends to a product, relayed, and SCIM Events.

A request is its method, its path and its body. They come as headers (`:method` and `:path`, or
what a proxy noted), as the text of the request, or as a JSON object {method, path, body}. The
account is the id in the path, which is the product's own. Groups are not users.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.events import AccountEvent, Action, Certainty, Subject

from . import http_text, jws, reading, scim_active, ssf, subjects, values
from .reading import Result, Unreadable

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_USER_SCHEMAS = ("urn:ietf:params:scim:schemas:core:2.0:user", "urn:scim:schemas:core:1.0")
_PATCH_OP = "urn:ietf:params:scim:api:messages:2.0:patchop"
_BULK = ("urn:ietf:params:scim:api:messages:2.0:bulkrequest", "urn:scim:schemas:core:1.0:bulk")
_METHOD_NAMES = ("method", "httpmethod")
_METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class Request:
    """One request to a resource, as far as it is known."""

    method: str
    kind: str | None
    id: str | None
    body: Mapping[str, Any]


def parse(headers: Mapping[str, str], body: bytes) -> list[Result]:
    """The events of a request, of a bulk request (one by one), or of a SCIM Event's token."""
    if jws.is_compact(body):
        return ssf.parse(headers, body)
    if (whole := http_text.parsed(body)) is not None:
        headers, body = {**headers, **whole[0]}, whole[1]
    method, path = http_text.request_line(headers)
    if not body.strip() and method is not None and path is not None:
        return _request(method, path, {})
    message = reading.json_value(body)
    if isinstance(message, list):
        return reading.each(message, lambda one: _message(method, path, one))
    bodiless = message is None and method is not None and path is not None
    return _message(method, path, {} if bodiless else message)


def _message(method: str | None, path: str | None, message: Any) -> list[Result]:
    members = reading.an_object(message)
    if ssf.is_token(members):
        return ssf.parse({}, reading.as_json(members))
    small = scim_active.small(members)
    if any(isinstance(small.get(name), str) for name in _METHOD_NAMES):
        return _enveloped(small)
    operations = small.get("operations")
    bulk = isinstance(operations, list) and any(map(_is_request, operations))
    if isinstance(operations, list) and (bulk or _has_schema(small, *_BULK)):
        return reading.each(
            operations, lambda one: _enveloped(scim_active.small(reading.an_object(one)))
        )
    return _request(method or _guessed(members), path, members)


def _is_request(operation: Any) -> bool:
    return isinstance(operation, Mapping) and "method" in scim_active.small(operation)


def _enveloped(members: Mapping[str, Any]) -> list[Result]:
    """A request as an object, as bulk requests and relays write it; its names in small letters."""
    path = next((members[name] for name in ("path", "url", "uri") if name in members), None)
    content: Any = next((members[name] for name in ("data", "body") if members.get(name)), {})
    if isinstance(content, str):
        content = reading.json_value(content.encode("utf-8", "replace"))
    method = next((members[name] for name in _METHOD_NAMES if members.get(name)), None)
    if isinstance(headers := members.get("headers"), Mapping):
        method = scim_active.small(headers).get("x-http-method-override") or method
    if not isinstance(method, str) or (path is not None and not isinstance(path, str)):
        raise Unreadable("wrong_type", "method and path must be strings; send the request's own")
    return _request(method, path, reading.an_object(content))


def _guessed(members: Mapping[str, Any]) -> str:
    """Without a method: a PatchOp is a PATCH, and a user is how it stands."""
    if _has_schema(members, _PATCH_OP) or isinstance(members.get("Operations"), list):
        return "PATCH"
    if _has_schema(members, *_USER_SCHEMAS) or isinstance(members.get("userName"), str):
        return "PUT"
    raise Unreadable(
        "missing_type",
        "neither a method nor SCIM's schemas tell what this is; relay the request's line as the "
        "headers :method and :path",
    )


def _request(method: str, path: str | None, body: Mapping[str, Any]) -> list[Result]:
    verb = method.strip().upper()
    if verb not in _METHODS:
        raise Unreadable("unknown_type", f"the method {values.quoted(method)} is none of SCIM's")
    kind, id = subjects.scim_path(path)
    if path is None:
        kind, id = _of_body(body)
    request = Request(verb, kind, id, body)
    raw_type = values.needed_text(
        f"{verb} {(kind or 'users').capitalize()}"[:100], "method", "missing_type", "relay it"
    )
    if kind not in ("users", None):
        return [AccountEvent(action=Action.NONE, raw_type=raw_type)]
    action, certainty = _effect(request)
    if action is Action.NONE and certainty is not Certainty.HINT:
        return [AccountEvent(action=Action.NONE, raw_type=raw_type)]
    return [
        AccountEvent(
            action=action, certainty=certainty, subject=_subject(request), raw_type=raw_type
        )
    ]


def _effect(request: Request) -> scim_active.Effect:
    match request.method:
        case "DELETE":
            return Action.DELETED, Certainty.TRANSITION
        case "PATCH":
            return scim_active.of_patch(request.body)
        case "PUT":
            return scim_active.of_resource(request.body)
        case "POST":
            return scim_active.of_resource(request.body, created=True)
    return scim_active.NO_EFFECT


def _of_body(body: Mapping[str, Any]) -> tuple[str | None, str | None]:
    meta = body.get("meta")
    kind, id = subjects.scim_path(values.member(meta, "location"))
    named = values.member(meta, "resourceType")
    if isinstance(named, str):
        kind = f"{named.strip().lower()}s"
    return kind, values.text(body.get("id"), "id") or id


def _subject(request: Request) -> Subject:
    """The id in the path, then the names in the body.

    A product may use our own account ids as its users' ids: a UUID is tried as that as well.
    """
    found = []
    if request.id is not None:
        found.append(Subject(format="opaque", value=request.id))
        if _UUID.fullmatch(request.id):
            found.append(Subject(format="account", value=request.id.lower()))
    other = subjects.named("external_id", request.body.get("externalId"))
    found += [other] if other else []
    found += values.email_alias(request.body.get("userName"))
    if not found:
        raise Unreadable(
            "missing_account",
            "SCIM names the user in the request's path; relay the request's line as the headers "
            ":method and :path, like /Users/{id}",
        )
    return subjects.joined(found)


def _has_schema(members: Mapping[str, Any], *schemas: str) -> bool:
    given = members.get("schemas")
    named = (
        [one.lower() for one in given if isinstance(one, str)] if isinstance(given, list) else []
    )
    return any(one in schemas for one in named)
