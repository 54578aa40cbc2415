"""What owners are told about rotations; never a key's text.

What a run has to say of several rotations of one account is one message. Rotations of a plan or the
schedule come to the same turns by the hundred, over minutes: their messages wait for a while, and
the first that leaves takes the others with it (`rotation_letters`).
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Final, TypeAlias
from uuid import UUID

from . import outbox
from .base import Tx
from .rotation_rules import FAILED, HAND_OVER_FAILED, UNREADABLE, Rotation

ISSUED, CONFIRMED, ENDING = "rotation.issued", "rotation.confirmed", "rotation.ending"
STUCK, RETIRED = "rotation.blocked", "rotation.retired"
REPLACED, WITHDRAWN = "rotation.completed", "rotation.cancelled"

GATHERED: Final = timedelta(hours=1)
"""How long a message about a rotation of a plan or the schedule waits for others of its kind."""

AT_ONCE: Final = (RETIRED,)
"""The kinds that never wait: something has just stopped working."""

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

MOST_NAMED: Final = 100
"""Rotations that one message names; it counts all of them."""

Told: TypeAlias = dict[str, Any]
"""One rotation as a message names it."""


def mail(
    tx: Tx, rotation: Rotation, verb: str, *, priority: int = outbox.NORMAL, **more: object
) -> None:
    """Tell the owner about one rotation by itself: which two keys, and `more`."""
    payload = {"account": rotation.account, **_named(rotation), **more}
    kind = f"rotation.{verb}"
    outbox.add(tx, outbox.MAIL, kind, payload, account_id=rotation.account_id, priority=priority)


def add(tx: Tx, kind: str, rotation: Rotation, **more: object) -> None:
    """Tell the owner what a rotation has come to; sent with others that came to the same."""
    _add(tx, kind, [rotation], [_named(rotation) | more])


def tell(tx: Tx, moved: Iterable[tuple[Rotation, Rotation]]) -> None:
    """Tell owners of rotations, as they were and are: which were confirmed, which end soon."""
    letters = defaultdict[tuple[str, UUID, UUID | None, bool], list[Rotation]](list)
    for was, now in moved:
        if now.state != "draining":
            continue
        of = (now.account_id, now.operation_id, _one_of_many(now))
        if was.confirmed_at is None:
            letters[CONFIRMED, *of].append(now)
        if was.warned_for != now.warned_for:
            letters[ENDING, *of].append(now)
    for (kind, *_), rotations in letters.items():
        _add(tx, kind, rotations, [_named(one) | used(one) for one in rotations])


def tell_blocked(tx: Tx, rotation: Rotation, code: str) -> None:
    """Tell the owner why a rotation waits for a person; once, though it may go and come again."""
    told = tx.row(
        """
        SELECT FROM keyturn.outbox
        WHERE account_id = :account AND kind = 'rotation.blocked' AND state <> 'skipped'
          AND payload->'rotations' @> CAST(:told AS jsonb)
        """,
        account=rotation.account_id,
        told=json.dumps([{"rotation_id": str(rotation.id), "code": code}]),
    )
    if told is None:
        more = used(rotation) if rotation.retire_at else {}
        add(tx, STUCK, rotation, code=code, reason=BLOCKED[code], **more)


def _add(tx: Tx, kind: str, rotations: Sequence[Rotation], told: Sequence[Told]) -> None:
    first = rotations[0]
    gathers = _one_of_many(first) and kind not in AT_ONCE
    payload = {
        **told[0],  # as workers of the release before know such a message: about one
        "account": first.account,
        "operation_id": first.operation_id and str(first.operation_id),
        "gathers": gathers,
        "total": len(told),
        "rotations": list(told[:MOST_NAMED]),
    }
    wait = GATHERED if gathers else outbox.NO_WAIT
    outbox.add(tx, outbox.MAIL, kind, payload, account_id=first.account_id, wait=wait)


def _one_of_many(rotation: Rotation) -> bool:
    return rotation.reason in ("operation", "scheduled")


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
