"""Okta: event hooks (`data.events[]`), one LogEvent, or a page of the System Log (an array).

The account is the target of type User: its id, and its login where that is an e-mail address.
The actor is the administrator and never the subject.

Only changes of a user's life have an effect. `user.account.lock` has none: it is a pause after
failed sign-ins, which anybody who knows a login can cause, and Okta lifts it by itself.
Activation says that the account may be used now, so it lifts a hold that Okta itself placed.
"""

from collections.abc import Mapping
from typing import Any

from models.events import AccountEvent, Action, Subject

from . import reading, values
from .reading import Result, Unreadable

ACTIONS = {
    "user.lifecycle.deactivate": Action.DISABLED,
    "user.lifecycle.suspend": Action.DISABLED,
    "user.lifecycle.unsuspend": Action.ENABLED,
    "user.lifecycle.activate": Action.ENABLED,
    "user.lifecycle.reactivate": Action.ENABLED,
    "user.lifecycle.delete.initiated": Action.DELETED,
    "user.lifecycle.delete.completed": Action.DELETED,
}


def parse(headers: Mapping[str, str], body: bytes) -> list[Result]:
    """The events of a hook's delivery, of a single LogEvent, or of a page of LogEvents."""
    message = reading.json_value(body)
    if isinstance(message, list):
        return reading.each(message, _log_event)
    events = values.member(reading.an_object(message).get("data"), "events")
    if isinstance(events, list):
        return reading.each(events, _log_event)
    return _log_event(message)


def _log_event(raw: Any) -> list[Result]:
    event = reading.an_object(raw)
    raw_type = values.needed_text(
        event.get("eventType"), "eventType", "missing_type", "send Okta's LogEvent unchanged"
    )
    action = ACTIONS.get(raw_type)
    if action is None or not _succeeded(event):
        return [values.without_effect(raw_type, event.get("uuid"), event.get("published"))]
    subjects = _users(event)
    event_id = values.text(event.get("uuid"), "uuid")
    return [
        AccountEvent(
            action=action,
            subject=subject,
            occurred_at=values.instant(event.get("published"), "published"),
            event_id=_own_id(event_id, subject) if len(subjects) > 1 else event_id,
            raw_type=raw_type,
            reason=values.note(values.member(event.get("outcome"), "reason")),
            actor=values.note(values.member(event.get("actor"), "alternateId")),
        )
        for subject in subjects
    ]


def _succeeded(event: Mapping[str, Any]) -> bool:
    """Hooks that were shortened on their way carry no outcome: Okta sends what happened."""
    result = values.member(event.get("outcome"), "result")
    return result is None or result == "SUCCESS"


def _users(event: Mapping[str, Any]) -> list[Subject]:
    """Every user among the targets, once each, in their order."""
    targets = event.get("target")
    users: dict[str, Subject] = {}
    for target in targets if isinstance(targets, list) else []:
        if values.member(target, "type") == "User":
            value = values.text(target.get("id"), "target.id")
            if value is not None:
                aliases = values.email_alias(target.get("alternateId"))
                users.setdefault(value, Subject(format="opaque", value=value, aliases=aliases))
    if not users:
        raise Unreadable(
            "missing_account",
            "no target of type User has an id; send Okta's LogEvent with its targets",
        )
    return list(users.values())


def _own_id(event_id: str | None, subject: Subject) -> str | None:
    """One LogEvent about several users becomes an event for each.

    Each needs an id of its own, or all but the first would be dropped as repetitions.
    """
    return None if event_id is None else values.text(f"{event_id}#{subject.value}", "uuid")
