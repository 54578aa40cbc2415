"""Keycloak admin events, as its REST interface and the plugins for RabbitMQ and NATS send them.

The account is the id in `resourcePath`, never `authDetails`, which names the administrator. An
UPDATE says how the user stands after some change, so it reports a state. How the user stands is
in `representation`, a JSON string that is only there where the realm records it ("Include
representation"); without it an UPDATE is a hint that something may have changed. Today's Keycloak
says in `details` that `enabled` has changed, from what to what: that is a transition.

Of the events of users themselves two end an account: its deletion by its owner, and the lasting
lock after failed sign-ins, with which Keycloak itself sets `enabled` to false.
"""

import re
from collections.abc import Mapping
from typing import Any

from models.events import AccountEvent, Action, Certainty, Subject

from . import reading, values
from .reading import Result, Unreadable

_MEND = "send Keycloak's admin event unchanged"
_ONE_WORD = re.compile(r"(?:admin\.)?user-(create|update|delete|action)", re.IGNORECASE)
_OWN = {
    "DELETE_ACCOUNT": Action.DELETED,
    "USER_DISABLED_BY_PERMANENT_LOCKOUT": Action.DISABLED,
}


def parse(headers: Mapping[str, str], body: bytes) -> list[Result]:
    """The event of one message, or the events of a page of the REST interface (an array)."""
    message = reading.json_value(body)
    if isinstance(message, list):
        return reading.each(message, _admin_event)
    return _admin_event(message)


def _admin_event(raw: Any) -> list[Result]:
    event = reading.an_object(raw)
    raw_type = _type(event)
    resource, _, operation = raw_type.partition(".")
    # Zero is what Java programs send for a time that was never set.
    time = event.get("time") or None
    own = _OWN.get(raw_type.removeprefix("access."))
    if own is not None and not event.get("error"):
        return [_of_user(event, raw_type, own, time)]
    user_id, is_part = _user_path(event.get("resourcePath"))
    failed = event.get("error") or operation.endswith("_ERROR")
    if resource != "USER" or failed or is_part:
        return [values.without_effect(raw_type, _id(event), time)]
    account = values.needed_text(user_id, "users/{id} in resourcePath", "missing_account", _MEND)
    user = _representation(event.get("representation"))
    action, certainty = _effect(operation, user, event.get("details"))
    return [
        AccountEvent(
            action=action,
            certainty=certainty,
            subject=Subject(format="opaque", value=account, aliases=_aliases(user)),
            occurred_at=values.instant(time, "time"),
            event_id=values.text(_id(event), "id"),
            raw_type=raw_type,
            actor=values.note(values.member(event.get("authDetails"), "userId")),
        )
    ]


def _of_user(event: Mapping[str, Any], raw_type: str, action: Action, time: Any) -> AccountEvent:
    """A user's own event: here `userId` is the account."""
    user_id = event.get("userId") or values.member(event.get("authDetails"), "userId")
    account = values.needed_text(user_id, "userId", "missing_account", _MEND)
    return AccountEvent(
        action=action,
        subject=Subject(format="opaque", value=account),
        occurred_at=values.instant(time, "time"),
        event_id=values.text(_id(event), "id"),
        raw_type=raw_type,
    )


def _id(event: Mapping[str, Any]) -> Any:
    """The plugin that sends webhooks (p2-inc) calls it `uid`."""
    return event.get("uid") or event.get("id")


def _type(event: Mapping[str, Any]) -> str:
    """Resource and operation, as in `USER.UPDATE`.

    Some bridges put both into one word, `user-update`; a user's own events (LOGIN and so on) have
    a type of their own and no operation.
    """
    operation = values.text(event.get("operationType"), "operationType")
    if operation is None:
        own_type = values.needed_text(event.get("type"), "operationType", "missing_type", _MEND)
        match = _ONE_WORD.fullmatch(own_type)
        return f"USER.{match[1].upper()}" if match else own_type
    resource = values.needed_text(
        event.get("resourceType") or event.get("resourceTypeAsString"),
        "resourceType",
        "missing_type",
        _MEND,
    )
    both = f"{resource}.{operation}".upper()
    return values.needed_text(both, "operationType", "missing_type", _MEND)


def _user_path(path: Any) -> tuple[str | None, bool]:
    """The user's id in `users/{id}`, whatever stands before it, and whether more stands after it.

    More after it is something of the user's (its roles, groups, password), not the user.
    """
    segments = path.split("/") if isinstance(path, str) else []
    for place, segment in enumerate(segments[:-1]):
        # A realm may itself be named "users".
        if segment == "users" and (place == 0 or segments[place - 1] != "realms"):
            return segments[place + 1], any(segments[place + 2 :])
    return None, False


def _representation(value: Any) -> Mapping[str, Any]:
    """The user as the event shows it; empty where it is missing or no JSON object."""
    if isinstance(value, str):
        try:
            value = reading.json_value(value.encode("utf-8", "replace"))
        except Unreadable:
            return {}
    return value if isinstance(value, dict) else {}


def _truth(value: Any) -> bool | None:
    """A boolean, also where it is a text; None for anything else."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def _effect(operation: str, user: Mapping[str, Any], details: Any) -> tuple[Action, Certainty]:
    before = _truth(values.member(details, "previous_enabled"))
    after = _truth(values.member(details, "updated_enabled"))
    if operation == "UPDATE" and {before, after} == {True, False}:
        return (Action.ENABLED if after else Action.DISABLED), Certainty.TRANSITION
    match operation, _truth(user.get("enabled")):
        case "DELETE", _:
            return Action.DELETED, Certainty.TRANSITION
        case "CREATE" | "UPDATE", False:
            return Action.DISABLED, Certainty.STATE
        case "UPDATE", True:
            return Action.ENABLED, Certainty.STATE
        case "UPDATE", _:
            # The user was changed and nobody says how: it may have been disabled.
            return Action.NONE, Certainty.HINT
        case "CREATE" | "ACTION", _:
            return Action.NONE, Certainty.TRANSITION
    raise Unreadable(
        "unknown_type",
        f"the operationType {values.quoted(operation)} is unknown; "
        "replay the event with a version of Keyturn that knows it",
    )


def _aliases(user: Mapping[str, Any]) -> tuple[Subject, ...]:
    email = values.email_alias(user.get("email"))
    username = values.email_alias(user.get("username"))
    return email if email == username else email + username
