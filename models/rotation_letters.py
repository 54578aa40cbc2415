"""Mails about rotations just before they are sent: put together, and looked at once more."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from . import outbox
from .base import Tx
from .messages import Outgoing
from .policy import Policy
from .rotation_mails import (
    CONFIRMED,
    ENDING,
    ISSUED,
    MOST_NAMED,
    REPLACED,
    RETIRED,
    STUCK,
    WITHDRAWN,
    Told,
)
from .rotation_policy import UNDECIDED, chosen
from .statements import Row
from .tables import ROTATION_LIVE, ROTATION_OPEN

JOINED: Final = "told_with_another"
"""What is written of a message whose rotations another one names."""

_TRUE_OF: Final[Mapping[str, Sequence[str]]] = {
    ISSUED: ROTATION_LIVE,
    CONFIRMED: ("draining", "retired"),
    ENDING: ("draining",),
    STUCK: ROTATION_OPEN,
}
"""The kinds that are sent only while their rotation is in one of some states."""

_KINDS: Final = (*_TRUE_OF, RETIRED, REPLACED, WITHDRAWN)
"""The kinds whose messages may name several rotations."""

_WAITING: Final = """
    WITH taken AS (
        SELECT o.id, g.first FROM unnest(CAST(:firsts AS uuid[]), CAST(:accounts AS uuid[]),
            CAST(:kinds AS text[]), CAST(:operations AS text[])) AS g (first, account, kind, plan)
        JOIN keyturn.outbox o ON o.account_id = g.account AND o.kind = g.kind
          AND o.payload->>'operation_id' IS NOT DISTINCT FROM g.plan
        WHERE o.channel = :mail AND o.state = 'waiting' AND o.priority = :priority
          AND o.due_at > :now AND o.attempts = 0 AND CAST(o.payload->>'gathers' AS boolean)
        FOR UPDATE OF o SKIP LOCKED
    )
    UPDATE keyturn.outbox o SET state = 'skipped', settled_at = :now, error = :joined
    FROM taken WHERE o.id = taken.id
    RETURNING taken.first, o.id, o.payload
"""


def refresh(
    tx: Tx, messages: Sequence[Outgoing], policy: Policy
) -> tuple[list[Outgoing], dict[UUID, str]]:
    """Read the truth again just before sending: what to send, and what to skip with why.

    Messages of one kind to one owner become one. A rotation that has meanwhile gone on, or was
    cancelled, leaves its message; one without rotations is skipped. Messages of other kinds pass as
    they are.
    """
    ours = [_of_several(message) for message in messages if message.kind in _KINDS]
    if not ours:
        return list(messages), {}
    letters, skipped = _joined(tx, ours)
    rows = _rows(tx, letters.values())
    to_send = list[Outgoing]()
    for message in messages:
        letter = letters.get(message.id)
        if letter is not None:
            true = [one for one in _named(letter) if _still(letter.kind, one, rows)]
            gone = len(_named(letter)) - len(true)
            if not true:
                skipped[letter.id] = "rotation_went_on"
            else:
                named = [_as_it_is(letter.kind, one, rows, policy) for one in true]
                to_send.append(_with(letter, named, _total(letter.payload) - gone))
        elif message.id not in skipped:
            to_send.append(message)
    return to_send, skipped


def _joined(tx: Tx, messages: Sequence[Outgoing]) -> tuple[dict[UUID, Outgoing], dict[UUID, str]]:
    """The first message of each kind, owner and plan, with what the others say; and the others.

    Both are written down at once: whoever dies after it, nothing is said twice.
    """
    groups = defaultdict[tuple[object, ...], list[Outgoing]](list)
    for one in sorted(messages, key=lambda message: message.id):  # in the order of their making
        said = one.payload
        groups[one.kind, one.account_id, said["operation_id"], said["gathers"]].append(one)
    firsts = [group[0] for group in groups.values()]
    waiting = _waiting(tx, [first for first in firsts if first.payload["gathers"]])
    letters, skipped = dict[UUID, Outgoing](), dict[UUID, str]()
    for first, *others in groups.values():
        payloads = [first.payload, *(one.payload for one in others), *waiting[first.id]]
        letters[first.id] = _put_together(first, payloads)
        skipped |= dict.fromkeys((one.id for one in others), JOINED)
    grown = [one for one in firsts if letters[one.id] is not one]
    if grown:
        _write(tx, [letters[one.id] for one in grown], list(skipped))
    return letters, skipped


def _waiting(tx: Tx, firsts: Sequence[Outgoing]) -> Mapping[UUID, list[Mapping[str, object]]]:
    """What messages say that wait for others of their kind, by the one that leaves first."""
    found = defaultdict[UUID, list[Mapping[str, object]]](list)
    if not firsts:
        return found
    rows = tx.rows(
        _WAITING,
        firsts=[one.id for one in firsts],
        accounts=[one.account_id for one in firsts],
        kinds=[one.kind for one in firsts],
        operations=[one.payload["operation_id"] for one in firsts],
        mail=outbox.MAIL,
        priority=outbox.NORMAL,
        joined=JOINED,
    )
    for row in sorted(rows, key=lambda row: str(row["id"])):  # in the order of their making
        found[row["first"]].append(row["payload"])
    return found


def _put_together(first: Outgoing, payloads: Sequence[Mapping[str, object]]) -> Outgoing:
    if len(payloads) == 1:
        return first
    named = [one for payload in payloads for one in _list(payload["rotations"])]
    return _with(first, named[:MOST_NAMED], sum(map(_total, payloads)))


def _write(tx: Tx, letters: Sequence[Outgoing], others: Sequence[UUID]) -> None:
    tx.execute(
        """
        UPDATE keyturn.outbox o SET
            payload = coalesce(w.payload, o.payload),
            state = CASE WHEN w.payload IS NULL THEN 'skipped' ELSE o.state END,
            settled_at = CASE WHEN w.payload IS NULL THEN :now END,
            error = CASE WHEN w.payload IS NULL THEN :joined END
        FROM unnest(CAST(:ids AS uuid[]), CAST(:payloads AS jsonb[])) AS w (id, payload)
        WHERE o.id = w.id AND o.state = 'waiting'
        """,
        ids=[*(one.id for one in letters), *others],
        payloads=[*(json.dumps(dict(one.payload)) for one in letters), *([None] * len(others))],
        joined=JOINED,
    )


def _rows(tx: Tx, letters: Iterable[Outgoing]) -> Mapping[str, Row]:
    """The rotations as they are now, of what is true of them for a time only."""
    ids = [
        UUID(str(one["rotation_id"]))
        for letter in letters
        if letter.kind in _TRUE_OF
        for one in _named(letter)
    ]
    if not ids:
        return {}
    rows = tx.rows(
        """
        SELECT r.id, r.state, r.retire_at, r.blocked_reason, r.sink,
            coalesce(k.rotation_policy, a.rotation_policy, o.rotation_policy) AS policy_name
        FROM keyturn.rotations r
        JOIN keyturn.api_keys k ON k.id = r.old_key_id
        JOIN keyturn.accounts a ON a.id = r.account_id
        JOIN keyturn.roles o ON o.name = k.role
        WHERE r.id = ANY(:ids)
        """,
        ids=ids,
    )
    return {str(row["id"]): row for row in rows}


def _still(kind: str, told: Told, rows: Mapping[str, Row]) -> bool:
    if kind not in _TRUE_OF:
        return True
    row = rows.get(str(told["rotation_id"]))
    if row is None or row["state"] not in _TRUE_OF[kind]:
        return False
    if kind == ENDING:
        return bool(row["retire_at"].isoformat() == told["retire_at"])
    return kind != STUCK or row["blocked_reason"] == told["code"]


def _as_it_is(kind: str, told: Told, rows: Mapping[str, Row], policy: Policy) -> Told:
    """What a message names, with the way by which a new key is handed over."""
    if kind != ISSUED:
        return told
    row = rows[str(told["rotation_id"])]
    sink = row["sink"]
    if sink == UNDECIDED:
        sink = chosen(policy.rotation_policies, row["policy_name"]).sink
    return told | {"sink": sink}


def _of_several(message: Outgoing) -> Outgoing:
    """A message of an earlier release named one rotation, and was about nothing else."""
    said = dict(message.payload)
    if "gathers" in said:
        return message
    alone = {"operation_id": None, "gathers": False, "total": 1, "rotations": [said]}
    return replace(message, payload={**alone, **said})


def _named(message: Outgoing) -> list[Told]:
    return _list(message.payload["rotations"])


def _list(value: Any) -> list[Told]:
    return list(value)


def _total(payload: Mapping[str, object]) -> int:
    return int(str(payload["total"]))


def _with(message: Outgoing, rotations: Sequence[Told], total: int) -> Outgoing:
    payload = {**message.payload, "rotations": list(rotations), "total": total}
    return replace(message, payload=payload)
