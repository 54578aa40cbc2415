"""What owners are told about rotations; never a key's text.

A run names all rotations of one account that were confirmed, or are about to retire a key, in one
message each. What a message says is looked at once more just before it is sent.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from . import outbox
from .base import Tx
from .messages import Outgoing
from .rotation_rules import FAILED, HAND_OVER_FAILED, UNREADABLE, Rotation
from .tables import ROTATION_LIVE, ROTATION_OPEN

CONFIRMED, ENDING = "rotation.confirmed", "rotation.ending"

_TRUE_OF = {
    "rotation.issued": ROTATION_LIVE,
    CONFIRMED: ("draining", "retired"),
    ENDING: ("draining",),
    "rotation.blocked": ROTATION_OPEN,
}
"""The kinds that are sent only while their rotation is in one of some states."""

BLOCKED = {
    "old_key_in_use": "the old key is still in use, although the time for both keys is over",
    "uses_not_reported": "no use of either key was reported, so nobody can say that the old key"
    " is no longer needed",
    "successor_not_working": "the new key does not work at present",
    "successor_ends_first": "the new key ends before the old one",
    HAND_OVER_FAILED: "the new key did not get to the place where it was to be put",
    UNREADABLE: "the key-encryption key is missing under which the new key is sealed",
    FAILED: "a fault inside Keyturn, which operators find in the log",
}
"""Why a rotation waits for a person, by its `blocked_reason`."""

CANCELLED = {
    "unclaimed": "nobody fetched the new key in time",
    "account_held": "the account was disabled before the new key was fetched",
    "old_key_deleted": "the old key was deleted before the new one was fetched",
    "successor_deleted": "the new key was deleted",
    "reissued": "a newer one was issued in its place",
    "key_compromised": "the old key is known to others, so nobody may fetch a new one with it",
}
"""Why a rotation was cancelled, by its `cancel_reason`; an operator's reason is their own words."""

MOST_NAMED = 100
"""Rotations that one message names; it counts all of them."""


def mail(
    tx: Tx, rotation: Rotation, verb: str, *, priority: int = outbox.NORMAL, **more: object
) -> None:
    """Tell the owner about one rotation: which two keys, and `more`."""
    payload = {"account": rotation.account, **_named(rotation), **more}
    _add(tx, rotation, f"rotation.{verb}", payload, priority)


def tell(tx: Tx, moved: Iterable[tuple[Rotation, Rotation]]) -> None:
    """Tell owners of rotations, as they were and are: which were confirmed, which end soon."""
    letters = defaultdict[tuple[str, UUID], list[Rotation]](list)
    for was, now in moved:
        if now.state != "draining":
            continue
        if was.confirmed_at is None:
            letters[CONFIRMED, now.account_id].append(now)
        if was.warned_for != now.warned_for:
            letters[ENDING, now.account_id].append(now)
    for (kind, _), rotations in letters.items():
        payload = {
            "account": rotations[0].account,
            "total": len(rotations),
            "rotations": [_named(one) | used(one) for one in rotations[:MOST_NAMED]],
        }
        _add(tx, rotations[0], kind, payload, outbox.NORMAL)


def refresh(tx: Tx, messages: Sequence[Outgoing]) -> tuple[list[Outgoing], dict[UUID, str]]:
    """Read the truth again just before sending: what to send, and what to skip with why.

    A rotation that has meanwhile gone on, or was cancelled, leaves the message; one without
    rotations is skipped. Messages of other kinds pass as they are.
    """
    named = {message.id: _rotations(message) for message in messages if message.kind in _TRUE_OF}
    if not named:
        return list(messages), {}
    ids = [UUID(str(one["rotation_id"])) for rotations in named.values() for one in rotations]
    rows = tx.rows(
        "SELECT id, state, retire_at, blocked_reason FROM keyturn.rotations WHERE id = ANY(:ids)",
        ids=ids,
    )
    now = {str(row["id"]): row for row in rows}
    to_send, skipped = list[Outgoing](), dict[UUID, str]()
    for message in messages:
        rotations = named.get(message.id)
        if rotations is None:
            to_send.append(message)
            continue
        true = [one for one in rotations if _still(message.kind, one, now)]
        if not true:
            skipped[message.id] = "rotation_went_on"
        else:
            to_send.append(_with(message, true, len(rotations) - len(true)))
    return to_send, skipped


def _still(kind: str, told: dict[str, Any], now: dict[str, Any]) -> bool:
    row = now.get(str(told["rotation_id"]))
    if row is None or row["state"] not in _TRUE_OF[kind]:
        return False
    if kind == ENDING:
        return bool(row["retire_at"].isoformat() == told["retire_at"])
    return kind != "rotation.blocked" or row["blocked_reason"] == told["code"]


def _rotations(message: Outgoing) -> list[Any]:
    several: Any = message.payload.get("rotations")
    return [message.payload] if several is None else several


def _with(message: Outgoing, rotations: list[dict[str, Any]], gone: int) -> Outgoing:
    if not gone:
        return message
    total = int(str(message.payload["total"])) - gone
    payload = {**message.payload, "rotations": rotations, "total": total}
    return replace(message, payload=payload)


def _named(rotation: Rotation) -> dict[str, object]:
    return {
        "rotation_id": str(rotation.id),
        "key": {
            "id": str(rotation.old_key_id),
            "name": rotation.name,
            "hint": rotation.old_hint,
            "expires_at": rotation.old_expires_at.isoformat(),
        },
        "successor": {
            "id": str(rotation.new_key_id),
            "name": rotation.name,
            "hint": rotation.new_hint,
            "expires_at": rotation.new_expires_at.isoformat(),
        },
    }


def used(rotation: Rotation) -> dict[str, Any]:
    """When the old key of a rotation that was confirmed goes, and whether anything needs it."""
    assert rotation.retire_at is not None
    last = rotation.old_last_used_at
    return {
        "retire_at": rotation.retire_at.isoformat(),
        "last_used_at": last and last.isoformat(),
        "last_ip": rotation.old_last_ip,
        "uses": rotation.old_uses,
        "uses_since": rotation.uses_since.isoformat(),
    }


def _add(tx: Tx, of: Rotation, kind: str, payload: dict[str, object], priority: int) -> None:
    outbox.add(tx, outbox.MAIL, kind, payload, account_id=of.account_id, priority=priority)
