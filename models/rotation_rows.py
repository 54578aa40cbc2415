"""Reads rotations, each with all that is decided from."""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from .base import Tx
from .errors import NotFound
from .holds import CONCERNS, JOINED, SINCE
from .predicate import HELD, WORKS
from .roles import GRANTED
from .rotation_rules import Rotation
from .sealing import Sealed
from .statements import Row

_COLUMNS = f"""
    r.id, r.account_id, a.email AS account, {HELD} AS account_held, r.family_id, r.state,
        r.reason, r.operation_id,
        coalesce(o.rotation_policy, a.rotation_policy, ro.rotation_policy) AS policy_name,
        o.name, o.role, r.old_key_id, o.hint AS old_hint, o.status AS old_status,
        o.expires_at AS old_expires_at, o.deleted_at AS old_deleted_at,
        ou.last_used_at AS old_last_used_at, host(ou.last_ip) AS old_last_ip,
        coalesce(ou.uses, 0) - r.old_uses_before AS old_uses,
        coalesce(r.undone_at, r.confirmed_at, r.issued_at) AS uses_since,
        EXISTS (SELECT FROM keyturn.holds h WHERE h.key_id = o.id AND h.kind = 'compromised'
                AND h.placed_at IS NOT NULL AND h.lifted_at IS NULL) AS old_compromised,
        r.new_key_id, k.hint AS new_hint, k.status AS new_status, k.expires_at AS new_expires_at,
        k.deleted_at AS new_deleted_at, ku.first_used_at AS new_first_used_at,
        ({WORKS}) AS new_works,
        EXISTS (SELECT FROM keyturn.api_keys f JOIN keyturn.key_uses fu ON fu.key_id = f.id
                WHERE f.family_id = r.family_id AND fu.last_used_at >= r.issued_at) AS family_used,
        r.requested_by, r.idempotency_key, r.issued_at, r.sealed_until AS claim_until,
        r.sealed IS NOT NULL AS claimable, r.claimed_at, r.confirmed_at, r.confirmed_by,
        r.sink, r.claimed_by,
        EXISTS (SELECT FROM keyturn.hand_overs x WHERE x.rotation_id = r.id AND x.state = 'failed'
                AND (x.delivered_at IS NOT NULL OR r.claimed_at IS NULL)) AS hand_over_failed,
        r.retire_at, r.paused_at, r.resumed_at,
        CASE WHEN ah.held_from IS NOT NULL
             THEN greatest(ah.held_from, r.resumed_at, r.issued_at) END AS held_from,
        greatest(ah.held_until, CASE WHEN a.tenant_since > r.paused_at THEN a.tenant_since END)
            AS held_until,
        r.retired_at, r.undo_until, r.undone_at, r.ended_at, r.cancel_reason, r.reissued_as,
        r.blocked_reason, r.warned_for, r.next_check_at
"""
_FROM = f"""
    FROM {{rotations}} r
    JOIN keyturn.accounts a ON a.id = r.account_id
    JOIN keyturn.api_keys o ON o.id = r.old_key_id
    JOIN {{new_keys}} k ON k.id = r.new_key_id
    JOIN keyturn.roles ro ON ro.name = o.role
    LEFT JOIN keyturn.key_uses ou ON ou.key_id = o.id
    LEFT JOIN {{new_uses}} ku ON ku.key_id = k.id
    LEFT JOIN LATERAL (
        SELECT min({SINCE}) AS held_from, max(h.lifted_at) AS held_until
        FROM keyturn.holds h
        WHERE {CONCERNS} AND h.placed_at IS NOT NULL
          AND (h.lifted_at IS NULL
               OR h.lifted_at > greatest({JOINED}, coalesce(r.resumed_at, r.issued_at)))
    ) ah ON true
"""
_TABLES = _FROM.format(
    rotations="keyturn.rotations", new_keys="keyturn.api_keys", new_uses="keyturn.key_uses"
)
_SELECT = f"SELECT {_COLUMNS} {_TABLES}"
_FROM_NEW = _FROM.format(rotations="begun", new_keys="issued", new_uses="used")
BEGUN: Final = f"SELECT {_COLUMNS} {_FROM_NEW}"
"""The rotation that a statement inserts (`begun`) with its successor (`issued`, and `used`)."""

_OFFERED = f"""
    SELECT {_COLUMNS}, r.sealed, r.sealed_kek, {GRANTED} AS role_allowed, :now AS now {_TABLES}
"""
_NEWEST = """
    r.reissued_as IS NULL ORDER BY r.ended_at IS NULL DESC, r.issued_at DESC, r.id DESC LIMIT 1
"""
"""One that is under way comes first, whatever the clock said when those before it were issued."""


@dataclass(frozen=True)
class Offered:
    """A rotation, and what is to be handed over: `sealed`, while it is there. `role_allowed` says
    whether it would be given to a key of the account now.
    """

    rotation: Rotation
    sealed: Sealed | None
    role_allowed: bool


def select(tx: Tx, where: str, **params: Any) -> list[Rotation]:
    """The rotations `r` for which a condition holds; it may go on with ORDER BY and LIMIT."""
    return [Rotation(**row) for row in tx.rows(f"{_SELECT} WHERE {where}", **params)]


def offered(tx: Tx, key_id: UUID) -> Offered | None:
    """What the holder of an old key is offered: the rotation under way, or else its newest; None
    where there is none.
    """
    row = tx.row(f"{_OFFERED} WHERE r.old_key_id = :key AND {_NEWEST}", key=key_id)
    return None if row is None else _offered(tx, row)


def offer_of(tx: Tx, rotation_id: UUID) -> Offered:
    """What one rotation, that is known to be there, offers."""
    row = tx.row(f"{_OFFERED} WHERE r.id = :id", id=rotation_id)
    assert row is not None
    return _offered(tx, row)


def _offered(tx: Tx, row: Row) -> Offered:
    facts = dict(row)
    box, kek = facts.pop("sealed"), facts.pop("sealed_kek")
    allowed = facts.pop("role_allowed")
    tx.learn(facts.pop("now"))
    return Offered(Rotation(**facts), None if box is None else Sealed(kek, box), allowed)


def one(tx: Tx, rotation_id: UUID) -> Rotation:
    """A rotation that is known to be there, read anew."""
    return select(tx, "r.id = :id", id=rotation_id)[0]


def find(tx: Tx, name: str) -> Rotation:
    """The rotation of an id; NotFound (`rotation_unknown`) if there is none."""
    try:
        found = select(tx, "r.id = :id", id=UUID(name))
    except ValueError:
        found = []
    if not found:
        raise NotFound(
            "rotation_unknown", f"there is no rotation {name!r}; `keyturn rotations list` shows all"
        )
    return found[0]


def listed(
    tx: Tx, *, state: str | None = None, account_id: UUID | None = None, limit: int = 1000
) -> list[Rotation]:
    """Rotations, the newest first; of one state or account."""
    conditions, params = ["true"], dict[str, object]()
    if state is not None:
        conditions.append("r.state = :state")
        params["state"] = state
    if account_id is not None:
        conditions.append("r.account_id = :account")
        params["account"] = account_id
    where = f"{' AND '.join(conditions)} ORDER BY r.id DESC LIMIT :limit"
    return select(tx, where, limit=limit, **params)
