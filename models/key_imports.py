"""Keys that a product has given out already, brought in by the SHA-256 of their texts.

They are stored as every other key, under the pepper (rule 1.1): who reads the table cannot tell
which text of a list it may be. Their texts may have any shape that `key_text.foreign` allows.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from . import accounts, holds, notices, settle
from .accounts import Identity
from .base import Tx
from .creation import LONGEST_VALIDITY, SHORTEST_VALIDITY
from .holds import CONCERNS
from .identity import new_id
from .imports import Outcome, refused
from .key_text import SCHEME_HMAC, Peppers, digest_of_hash
from .policy import Policy
from .rehearsal import Rehearsal
from .roles import Role, known

JOB = "keys.import"
"""The row of `schedule_runs` that says whether keys of another system's shape were imported."""

END_CUT = "end_cut"
"""The code of a key that was imported with an earlier end than it had."""


@dataclass(frozen=True)
class KeyRow:
    """One key as a line names it. `foreign`: its text has not, or may not have, our own shape.

    `expires_at` None: the line does not say when it ends. `hint` is up to 4 characters.
    """

    line: int
    sha256: bytes
    account: Identity
    role: str | None
    name: str = "imported"
    hint: str = ""
    created_at: datetime | None = None
    expires_at: datetime | None = None
    allowed_ips: tuple[str, ...] = ()
    foreign: bool = True


def batch(
    tx: Tx,
    rows: Sequence[KeyRow],
    *,
    expires_in: timedelta | None,
    rehearsal: Rehearsal | None,
    actor: str,
    peppers: Peppers,
    policy: Policy,
) -> list[Outcome]:
    """Import some keys in one transaction.

    With a `rehearsal` nothing is written; what it heard of in earlier batches counts as there.
    The accounts' rows are taken first: the keys of one that is held are stopped in the same
    transaction (rule 3.3). A key that is there is left as it is, whatever became of it.
    `expires_in` is the life, from now on, of keys without an end. None lives longer than 25 weeks
    from now: a later end is cut. No outgoing event says that a key was imported.
    Refused lines: `role_missing`, `role_not_allowed`, `user_unknown`, `account_deleted`,
    `digest_taken`, `created_in_future`, `end_missing`, `key_ended`.
    """
    links = accounts.resolve(tx, {row.account for row in rows})
    owners = {name: link.account_id for name, link in links.items()}
    if rehearsal is None:
        holds.lock_accounts(tx, owners.values())
    outcomes: dict[int, Outcome] = {}
    new: dict[bytes, dict[str, Any]] = {}
    judge = _Judge(tx, set(owners.values()), expires_in)
    there = _there(tx, rows, peppers)
    if rehearsal is not None:
        told = rehearsal.recall("key", {row.sha256.hex() for row in rows})
        there |= {bytes.fromhex(digest): UUID(account) for digest, account in told.items()}
    for row in rows:
        owner = owners.get(row.account)
        holder = there.get(row.sha256)
        made = None if holder is not None else judge.key(row, owner)
        if isinstance(made, dict):
            there[row.sha256] = made["account"]
            digest = digest_of_hash(row.sha256, peppers[peppers.current])
            new[row.sha256] = {**made, "digest": digest.hex()}
            outcomes[row.line] = Outcome(row.line, "created", made["code"])
        else:
            outcomes[row.line] = made or _found(row, holder, owner)
    if rehearsal is not None:
        rehearsal.remember("key", {digest.hex(): key["account"] for digest, key in new.items()})
    elif new:
        foreign = any(row.foreign for row in rows if row.sha256 in new)
        _write(tx, list(new.values()), foreign, actor, peppers.current, policy)
    return [outcomes[row.line] for row in rows]


class _Judge:
    """Says of lines what key they make, or what is wrong with them."""

    def __init__(self, tx: Tx, owners: set[UUID], expires_in: timedelta | None) -> None:
        self._now = tx.now()
        self._expires_in = expires_in
        self._roles = {role.name: role for role in known(tx)}
        found = tx.rows(
            f"""
            SELECT a.id, a.role, EXISTS (
                SELECT FROM keyturn.holds h WHERE {CONCERNS} AND h.kind = 'deleted'
                  AND h.placed_at IS NOT NULL AND h.lifted_at IS NULL) AS deleted
            FROM keyturn.accounts a WHERE a.id = ANY(:ids)
            """,
            ids=list(owners),
        )
        self._accounts = {row["id"]: row for row in found}

    def key(self, row: KeyRow, owner: UUID | None) -> dict[str, Any] | Outcome:
        """The key that a line makes, without its digest; or why it makes none."""
        if owner is None:
            return refused(
                row, "user_unknown", "no account has this e-mail address or id: import it first"
            )
        if self._accounts[owner]["deleted"]:
            return refused(
                row, "account_deleted", "its source deleted its account: lift that hold first"
            )
        if row.role is None:
            return refused(
                row, "role_missing", "its role is missing: fill the column, or give --role"
            )
        own = self._roles[self._accounts[owner]["role"]]
        if (role := self._roles.get(row.role)) is None or not _grants(own, role):
            return refused(
                row,
                "role_not_allowed",
                "its role cannot be given to a key of this account, whose own role is "
                f"{own.name!r}: name one that is known, grantable and no wider",
            )
        life = self._life(row)
        return life if isinstance(life, Outcome) else self._made(row, owner, *life)

    def _life(self, row: KeyRow) -> tuple[datetime, datetime] | Outcome:
        """When it was created, as far as its life keeps to 25 weeks, and when it ends."""
        now, end = self._now, row.expires_at
        if row.created_at is not None and row.created_at > now:
            return refused(
                row, "created_in_future", "created_at is to come: check the year, and the zone"
            )
        if end is None and self._expires_in is None:
            return refused(
                row,
                "end_missing",
                "it has no end, and every key has one: fill expires_at, or give --expires-in",
            )
        end = min(end or now + (self._expires_in or LONGEST_VALIDITY), now + LONGEST_VALIDITY)
        if end < now + SHORTEST_VALIDITY:
            return refused(row, "key_ended", "its end has come: leave it out, or give it another")
        return max(row.created_at or now, end - LONGEST_VALIDITY), end

    def _made(
        self, row: KeyRow, owner: UUID, created_at: datetime, expires_at: datetime
    ) -> dict[str, Any]:
        cut = row.expires_at is not None and expires_at < row.expires_at
        return {
            "id": new_id(),
            "account": owner,
            "name": row.name,
            "role": row.role,
            "hint": row.hint,
            "ips": list(row.allowed_ips) or None,
            "created_at": created_at,
            "expires_at": expires_at,
            "why": _why(row, cut=cut),
            "code": END_CUT if cut else "",
            "old": created_at < self._now,
        }


def _grants(own: Role, role: Role) -> bool:
    return role.grantable and frozenset(own.permissions).issuperset(role.permissions)


def _why(row: KeyRow, *, cut: bool) -> str:
    said = ["imported"]
    if row.created_at is not None:
        said.append(f"created {row.created_at.isoformat()}")
    if cut and row.expires_at is not None:
        said.append(f"its end was {row.expires_at.isoformat()}")
    return ", ".join(said)


def _found(row: KeyRow, holder: UUID | None, owner: UUID | None) -> Outcome:
    if holder == owner:
        return Outcome(row.line, "unchanged")
    return refused(
        row,
        "digest_taken",
        f"a key of another account ({holder}) has this digest: a key has one account",
    )


def _there(tx: Tx, rows: Sequence[KeyRow], peppers: Peppers) -> dict[bytes, UUID]:
    """The accounts of those of these keys that are stored, by the SHA-256 of their texts."""
    stored = {row.sha256: row.sha256 for row in rows} | {
        digest_of_hash(row.sha256, peppers[version]): row.sha256
        for row in rows
        for version in peppers.versions
    }
    found = tx.rows(
        "SELECT digest, account_id FROM keyturn.api_keys WHERE digest = ANY(:digests)",
        digests=list(stored),
    )
    return {stored[bytes(row["digest"])]: row["account_id"] for row in found}


def _write(
    tx: Tx,
    keys: Sequence[Mapping[str, Any]],
    foreign: bool,
    actor: str,
    pepper: int,
    policy: Policy,
) -> None:
    # Two imports of the same keys at once: the second waits here, and its batch is tried in halves.
    tx.execute(
        _ADD,
        rows=json.dumps(keys, default=_plain),
        actor=actor,
        scheme=SCHEME_HMAC,
        pepper=pepper,
    )
    ids = [key["id"] for key in keys]
    settle.keys(tx, ids, actor=actor, why="key_held", policy=policy)
    if old := [key["id"] for key in keys if key["old"]]:
        notices.plan_keys(tx, old, policy)
    if foreign:
        _remember_foreign(tx)


_ADD = """
WITH r AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
        id uuid, account uuid, name text, role text, digest text, hint text, ips jsonb,
        created_at timestamptz, expires_at timestamptz, why text)
), added AS (
    INSERT INTO keyturn.api_keys (id, account_id, name, created_by, role, digest, scheme, pepper,
        hint, allowed_ips, family_id, created_at, expires_at)
    SELECT id, account, name, :actor, role, decode(digest, 'hex'), :scheme, :pepper, hint,
           CASE WHEN jsonb_typeof(ips) = 'array'
                THEN ARRAY(SELECT jsonb_array_elements_text(ips)) END,
           id, created_at, expires_at
    FROM r
), used AS (
    INSERT INTO keyturn.key_uses (key_id) SELECT id FROM r
)
INSERT INTO keyturn.audit (at, actor, action, account_id, key_id, version, after, why)
SELECT :now, :actor, 'key.created', account, id, 1, 'active', why FROM r
"""


def _remember_foreign(tx: Tx) -> None:
    if not has_foreign(tx):
        tx.execute(
            """
            INSERT INTO keyturn.schedule_runs (job, mark) VALUES (:job, '{"foreign": "yes"}')
            ON CONFLICT (job) DO NOTHING
            """,
            job=JOB,
        )


def has_foreign(tx: Tx) -> bool:
    """Whether keys were imported whose texts may have another shape than ours."""
    found: bool = tx.scalar(
        "SELECT EXISTS (SELECT FROM keyturn.schedule_runs WHERE job = :job)", job=JOB
    )
    return found


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
