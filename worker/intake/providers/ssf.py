"""Shared Signals: RISC, CAEP and SCIM Events as security event tokens (RFC 8417).

A token comes as a compact JWS (decoded here, verified elsewhere), as decoded JSON, or as the
`sets` of a poll (RFC 8936). The subject is in `sub_id`, or, from older transmitters, inside the
event. CAEP tells of sessions and of devices: it says nothing about disabled accounts.
"""

import re
from collections.abc import Mapping
from typing import Any

from models.events import AccountEvent, Action, Certainty, Subject

from . import jws, reading, scim_active, subjects, values
from .mapping import Effect
from .reading import Result, Unreadable

ACTIONS = {
    "account-disabled": Action.DISABLED,
    "account-enabled": Action.ENABLED,
    "account-purged": Action.DELETED,
    "account-credential-change-required": Action.COMPROMISED,
    "credential-compromise": Action.COMPROMISED,
    "identifier-changed": Action.IDENTITY_CHANGED,
    "identifier-recycled": Action.IDENTITY_CHANGED,
    # Of login.gov.
    "authorization-fraud-detected": Action.COMPROMISED,
    "identity-fraud-detected": Action.COMPROMISED,
}
"""Events of RISC by their names, whoever's `.../secevent/risc/event-type/` they are in."""

_RISC = re.compile(r"https?://[^/]+/secevent/risc/event-type/([a-z-]+)/?", re.IGNORECASE)
_STREAM_UPDATED = re.compile(
    r"https?://schemas\.openid\.net/secevent/(?:ssf|sse)/event-type/stream-updated"
)
_WITHOUT_EFFECT = re.compile(
    r"https?://(schemas\.openid\.net|schemas\.login\.gov|schemas\.okta\.com)/secevent/.+"
    r"|https://accounts\.google\.com/risc/.+"
)
_SCIM = re.compile(r"urn:ietf:params:(?:scim:event|event:scim):([a-z:]+)", re.IGNORECASE)
_OWN_IDS = ("iss_sub", "opaque", "external_id", "account")
_MEND = "send the security event token unchanged"


def parse(
    headers: Mapping[str, str], body: bytes, actions: Mapping[str, Effect] | None = None
) -> list[Result]:
    """The events of one token, of an array of tokens, or of an answer to a poll."""
    message = body if jws.is_compact(body) else reading.json_value(body)

    def read(token: Any) -> list[Result]:
        return _token(token, actions or {})

    if isinstance(message, list):
        return reading.each(message, read)
    if isinstance(message, dict) and isinstance(message.get("sets"), dict):
        return reading.each(list(message["sets"].values()), read)
    return read(message)


def is_token(message: Any) -> bool:
    """Whether a JSON object is a decoded security event token."""
    return isinstance(message, dict) and isinstance(message.get("events"), dict) and (
        "jti" in message or "iss" in message
    )  # fmt: skip


def _token(token: Any, actions: Mapping[str, Effect]) -> list[Result]:
    if isinstance(token, str) and jws.is_compact(token.encode("utf-8", "replace")):
        token = token.encode()
    claims = jws.claims(token) if isinstance(token, bytes) else reading.an_object(token)
    events = claims.get("events")
    if not isinstance(events, dict) or not events:
        raise Unreadable("missing_type", f"there is no event in events; {_MEND}")
    if len(events) > reading.MAX_MEMBERS:
        raise Unreadable("too_many_events", f"the token has over {reading.MAX_MEMBERS} events")
    one_by_one = [{**claims, "events": {type: content}} for type, content in events.items()]
    if len(one_by_one) == 1:
        return [_event(claims, next(iter(events)), actions)]
    return reading.each(
        one_by_one, lambda alone: [_event(alone, next(iter(alone["events"])), actions, shared=True)]
    )


def _event(
    claims: Mapping[str, Any], type: str, actions: Mapping[str, Effect], *, shared: bool = False
) -> AccountEvent:
    raw_type = values.needed_text(type, "event type", "missing_type", _MEND)
    content = claims["events"][type]
    content = content if isinstance(content, dict) else {}
    jti, time = claims.get("jti"), _time(claims, content)
    action, certainty = _effect(raw_type, claims, content, actions)
    reason = _reason(content)
    if action is Action.NONE and certainty is not Certainty.HINT:
        return values.without_effect(raw_type, jti, time)
    event_id = values.text(jti, "jti")
    if shared and event_id is not None:
        event_id = values.text(f"{event_id}#{raw_type}", "jti")
    subject = None if action is Action.NONE else _subject(raw_type, claims, content)
    if action is Action.IDENTITY_CHANGED and subject is not None:
        subject = _address(subject)
        if subject is None:
            action, certainty = scim_active.UNCLEAR
    return AccountEvent(
        action=action,
        certainty=certainty,
        subject=subject,
        new_subject=_new_subject(raw_type, subject, content),
        occurred_at=values.instant(time, "the event's time"),
        event_id=event_id,
        raw_type=raw_type,
        reason=reason,
        actor=values.note(content.get("initiating_entity")),
    )


def _effect(
    raw_type: str,
    claims: Mapping[str, Any],
    content: Mapping[str, Any],
    actions: Mapping[str, Effect],
) -> scim_active.Effect:
    if raw_type in actions:
        return actions[raw_type]({**content, "_claims": dict(claims)})
    if match := _SCIM.fullmatch(raw_type):
        return _scim_effect(match[1].lower(), claims, content)
    if (action := ACTIONS.get(_risc_name(raw_type))) is not None:
        return action, Certainty.TRANSITION
    if _STREAM_UPDATED.fullmatch(raw_type):
        # Nothing about anybody, but as long as it stands, nobody's events arrive: a person's task.
        stands = content.get("status") == "enabled"
        return scim_active.NO_EFFECT if stands else scim_active.UNCLEAR
    if _WITHOUT_EFFECT.fullmatch(raw_type):
        return scim_active.NO_EFFECT
    raise Unreadable(
        "unknown_type",
        f"the event type {values.quoted(raw_type)} is unknown; give it a meaning in the source's "
        "actions, or replay it with a version of Keyturn that knows it",
    )


def _risc_name(raw_type: str) -> str:
    """What RISC calls this type of event; empty where it is none of RISC's."""
    match = _RISC.fullmatch(raw_type)
    return match[1].lower() if match else ""


def _scim_effect(
    event: str, claims: Mapping[str, Any], content: Mapping[str, Any]
) -> scim_active.Effect:
    """Feeds, groups and signals have none: leaving a feed is not the end of an account."""
    kind, _ = subjects.scim_path(values.member(_scim_identifier(claims), "uri"))
    if kind == "groups":
        return scim_active.NO_EFFECT
    data = content.get("data")
    resource = data if isinstance(data, dict) else {}
    match event:
        case "prov:deactivate":
            return Action.DISABLED, Certainty.TRANSITION
        case "prov:activate":
            return Action.ENABLED, Certainty.STATE
        case "prov:delete":
            return Action.DELETED, Certainty.TRANSITION
        case "prov:patch:full":
            return scim_active.of_patch(resource)
        case "prov:put:full":
            return scim_active.of_resource(resource)
        case "prov:create:full":
            return scim_active.of_resource(resource, created=True)
        case "prov:patch:notice" | "prov:put:notice":
            return scim_active.of_names(content.get("attributes"))
    return scim_active.NO_EFFECT


def _time(claims: Mapping[str, Any], content: Mapping[str, Any]) -> Any:
    """When it happened, as well as the token says: it may have been issued much later."""
    times = (content.get("event_timestamp"), content.get("occurred_at"), claims.get("toe"),
             claims.get("iat"))  # fmt: skip
    # Zero is what a time is that was never set.
    return next((time for time in times if time), None)


def _reason(content: Mapping[str, Any]) -> str | None:
    status, reason = values.note(content.get("status")), values.note(content.get("reason"))
    if reason is None:
        told = content.get("reason_admin") or content.get("reason-admin")
        texts = told.values() if isinstance(told, dict) else (told,)
        reason = next((note for note in map(values.note, texts) if note), None)
    return values.note(": ".join(part for part in (status, reason) if part))


def _subject(raw_type: str, claims: Mapping[str, Any], content: Mapping[str, Any]) -> Subject:
    issuer = claims.get("iss") if isinstance(claims.get("iss"), str) else None
    identifier = _scim_identifier(claims) if _SCIM.fullmatch(raw_type) else claims.get("sub_id")
    if identifier is None:
        identifier = content.get("subject")
    if identifier is None and claims.get("sub") is not None:
        identifier = {"format": "iss_sub", "iss": issuer, "sub": claims["sub"]}
    return subjects.of_identifier(identifier, issuer)


def _scim_identifier(claims: Mapping[str, Any]) -> Any:
    """The subject of a SCIM Event, where its `uri`, or the URL in `sub`, is that of a resource."""
    identifier = claims.get("sub_id")
    uri = claims.get("sub") if identifier is None else values.member(identifier, "uri")
    if subjects.scim_path(uri)[1] is None:
        return identifier
    known = identifier if isinstance(identifier, Mapping) else {}
    return {**known, "format": "scim", "uri": uri}


def _address(subject: Subject) -> Subject | None:
    """The name that can change hands: RISC means an address or a number, never the id beside it."""
    names = (subject.model_copy(update={"aliases": ()}), *subject.aliases)
    return next((name for name in names if name.format not in _OWN_IDS), None)


def _new_subject(
    raw_type: str, subject: Subject | None, content: Mapping[str, Any]
) -> Subject | None:
    """The new value of the same identifier, where it has one and says it."""
    value = content.get("new-value", content.get("new_value"))
    if subject is None or value is None or _risc_name(raw_type) != "identifier-changed":
        return None
    if isinstance(value, dict):
        return subjects.of_identifier(value)
    if subject.format not in ("email", "phone_number"):
        return None
    return subjects.named(subject.format, value)
