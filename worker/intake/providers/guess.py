"""Which provider sends such a message: for people who try one out, and for envelopes."""

from collections.abc import Mapping
from typing import Any

from . import cloudevents, http_text, jws, leak_alerts, mapping, native, reading, ssf, subjects
from .reading import Unreadable

_HEADERS = {
    "x-github-event": "github",
    "github-public-key-signature": "github",
    "x-gitlab-event": "gitlab",
    "workos-signature": "workos",
    "zitadel-signature": "zitadel",
    "gitguardian-signature": "gitguardian",
    "x-fusionauth-signature-jwt": "fusionauth",
    "x-keycloak-signature": "keycloak",
    "x-wso2-event-signature": "wso2",
}


def provider_of(headers: Mapping[str, str], body: bytes) -> tuple[str, str] | None:
    """The provider and what gives it away; None where nothing does."""
    if jws.is_compact(body):
        return "ssf", "it is a compact JWS"
    if cloudevents.is_binary(headers):
        return "cloudevents", "it has the headers of a CloudEvent"
    for name, provider in _HEADERS.items():
        if name in headers:
            return provider, f"it has the header {name}"
    if http_text.parsed(body) is not None:
        return "scim", "it is the text of an HTTP request"
    found = _by_content(headers, _first(body))
    if found is None and subjects.scim_path(headers.get(":path"))[0] in ("users", "groups"):
        return "scim", "its path is that of a SCIM resource"
    return found


def _first(body: bytes) -> Any:
    """The JSON value of a body, or of its first line; None where there is none."""
    try:
        return reading.json_value((reading.json_lines(body) or [body])[0])
    except Unreadable:
        return None


def mapped(headers: Mapping[str, str], message: Any) -> str | None:
    """The first of the shipped mappings that recognises a message."""
    found = (n for n, one in mapping.shipped().items() if one.recognises(headers, message))
    return next(found, None)


def _by_content(headers: Mapping[str, str], message: Any) -> tuple[str, str] | None:
    first = next(iter(message), None) if isinstance(message, list) else message
    if not isinstance(first, dict):
        return None
    name = mapped(headers, message)
    if name is not None:
        return name, f"it has the members of {name}'s events"
    for holds, provider, why in (
        (cloudevents.is_structured(first), "cloudevents", "it has specversion and type"),
        (ssf.is_token(first), "ssf", "it has jti or iss, and events by their types"),
        (isinstance(first.get("sets"), dict), "ssf", "it has sets, as the answer to a poll"),
        (_is_scim(first), "scim", "it has SCIM's schemas or Operations"),
        (_is_keycloak(first), "keycloak", "it has a realm and the type of a resource or event"),
        (leak_alerts.is_alert(first), "github", "it has a token with its type"),
        (str(first.get("type")) in native.ACTIONS, "native", "its type is one of ours"),
    ):
        if holds:
            return provider, why
    return None


def _is_scim(message: Mapping[str, Any]) -> bool:
    given = message.get("schemas")
    schemas = given if isinstance(given, list) else []
    relayed = isinstance(message.get("method"), str) and ("path" in message or "url" in message)
    return relayed or any(isinstance(one, str) and "scim:" in one.lower() for one in schemas)


def _is_keycloak(message: Mapping[str, Any]) -> bool:
    about_resource = "operationType" in message and "resourcePath" in message
    return about_resource or ("realmId" in message and "type" in message)
