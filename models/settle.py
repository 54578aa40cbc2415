"""One statement settles: it sets `status` wherever it differs from the truth, with audit and pages.

Cascade, restore, expiry and retirement differ only in which keys they look at.
"""

from collections.abc import Sequence
from uuid import UUID

from .base import Step, Tx
from .policy import Policy
from .predicate import HELD, STATUS

_VERB = """
    CASE after WHEN 'active' THEN 'enabled' WHEN 'retired' THEN 'rotated' ELSE after END
"""
# `place` is where the locked row lies: no plan that reads the whole table is needed to find it
# again, and nobody can move it while we hold its lock.
_DIFFERENCE = f"""
    k.ctid AS place, k.status AS before, {STATUS} AS after,
    CASE WHEN a.held THEN 'account_held' WHEN {HELD} THEN 'tenant_held' ELSE :why END AS why
"""
_SETTLE = f"""
WITH due AS ({{due}}), changed AS (
    UPDATE keyturn.api_keys k SET status = due.after, version = k.version + 1
    FROM due WHERE k.ctid = ANY(ARRAY(SELECT place FROM due)) AND k.ctid = due.place
    RETURNING k.id, k.account_id, k.version, due.before, due.after, due.why
), audited AS (
    INSERT INTO keyturn.audit
        (at, actor, action, account_id, key_id, version, before, after, why)
    SELECT :now, :actor, 'key.' || {_VERB}, account_id, id, version, before, after,
           CASE after WHEN 'expired' THEN 'validity_ended' WHEN 'active' THEN NULL ELSE why END
    FROM changed
), numbered AS (
    SELECT id, account_id, after,
           (row_number() OVER (PARTITION BY account_id, after ORDER BY id) - 1) / :page AS page
    FROM changed
), paged AS (
    INSERT INTO keyturn.outbox
        (id, channel, kind, priority, account_id, payload, created_at, due_at)
    SELECT gen_random_uuid(), 'events', 'key.' || {_VERB}, 5, account_id,
           jsonb_build_object('account_id', account_id, 'key_ids', jsonb_agg(id ORDER BY id)),
           :now, :now
    FROM numbered GROUP BY account_id, after, page
)
SELECT count(*) FROM changed
"""
_KEYS = _SETTLE.format(
    due=f"""
    SELECT {_DIFFERENCE}
    FROM keyturn.api_keys k JOIN keyturn.accounts a ON a.id = k.account_id
    WHERE k.id = ANY(:ids) AND k.status <> {STATUS}
    FOR NO KEY UPDATE OF k
    """
)
# Only these two statuses can differ because of a hold of the account or its tenant. They are found
# by index, one account after the other, so that no batch reads again what those before it settled.
_ACCOUNTS = _SETTLE.format(
    due=f"""
    SELECT differing.* FROM keyturn.accounts a CROSS JOIN LATERAL (
        SELECT {_DIFFERENCE} FROM keyturn.api_keys k
        WHERE k.account_id = a.id AND k.status = CASE WHEN {HELD} THEN 'active' ELSE 'disabled' END
          AND k.status <> {STATUS}
        LIMIT :batch FOR NO KEY UPDATE
    ) differing
    WHERE a.id = ANY(:ids) LIMIT :batch
    """
)
# A key past its end is `expired`, whatever its account's holds say. So the account is not asked:
# joined, it made a sweep that finds nothing read all accounts, as the planner takes keys that
# expired long ago for due ones. `batch` is written into the text: where the planner does not know
# the limit it takes the plan for any limit for a dearer one, and plans each run anew.
_DUE = _SETTLE.format(
    due="""
    SELECT k.ctid AS place, k.status AS before, 'expired' AS after, CAST(NULL AS text) AS why
    FROM keyturn.api_keys k
    WHERE k.expires_at <= :now AND k.status NOT IN ('expired', 'deleted') AND k.deleted_at IS NULL
    ORDER BY k.expires_at LIMIT :batch FOR NO KEY UPDATE SKIP LOCKED
    """
)


def keys(tx: Tx, ids: Sequence[UUID], *, actor: str, why: str | None, policy: Policy) -> int:
    """Settle some keys in the transaction that changed them; their accounts are locked already."""
    return _run(tx, _KEYS, policy, ids=list(ids), actor=actor, why=why)


def accounts(tx: Tx, policy: Policy, *, account_id: UUID | None = None) -> Step:
    """Settle one batch of keys of accounts whose hold changed.

    The accounts' rows are locked first, so that what is written is the present truth: a cascade
    that resumes after a re-enable does no harm. An account is finished when a plain look at its
    keys, under that lock, finds none that differs.
    """
    only = "" if account_id is None else "AND id = :account"
    claimed = tx.execute(
        f"""
        SELECT id FROM keyturn.accounts WHERE unsettled {only}
        ORDER BY id LIMIT 500 FOR NO KEY UPDATE {"SKIP LOCKED" if account_id is None else ""}
        """,
        **({} if account_id is None else {"account": account_id}),
    )
    ids = list(claimed.scalars())
    if not ids:
        return Step(0, finished=True)
    batch = policy.settle_batch
    changed = _run(tx, _ACCOUNTS, policy, ids=ids, actor="keyturn", why="key_held", batch=batch)
    if changed < batch:
        tx.execute("UPDATE keyturn.accounts SET unsettled = false WHERE id = ANY(:ids)", ids=ids)
    return Step(changed, finished=False)


MEMBERS = 500
"""Accounts of a tenant that one transaction locks."""
_FIRST = UUID(int=0)


def tenants(tx: Tx, policy: Policy) -> Step:
    """Settle one batch of keys of the members of a tenant whose hold changed, in their order.

    Its row is locked, then those of its members, as far as this batch goes. Who joins or leaves
    meanwhile is settled as an account of its own (`accounts`).
    """
    tenant = tx.row(
        """
        SELECT id, settled_to FROM keyturn.tenants WHERE unsettled
        ORDER BY id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
        """
    )
    if tenant is None:
        return Step(0, finished=True)
    locked = tx.execute(
        """
        SELECT id FROM keyturn.accounts WHERE tenant_id = :tenant AND id > :after
        ORDER BY id LIMIT :members FOR NO KEY UPDATE
        """,
        tenant=tenant["id"],
        after=tenant["settled_to"] or _FIRST,
        members=MEMBERS,
    )
    ids = list(locked.scalars())
    batch = policy.settle_batch
    changed = _run(tx, _ACCOUNTS, policy, ids=ids, actor="keyturn", why="key_held", batch=batch)
    if changed < batch:
        tx.execute(
            "UPDATE keyturn.tenants SET unsettled = :more, settled_to = :last WHERE id = :tenant",
            tenant=tenant["id"],
            more=len(ids) == MEMBERS,
            last=ids[-1] if len(ids) == MEMBERS else None,
        )
    return Step(changed, finished=False)


def due(tx: Tx, policy: Policy) -> Step:
    """Settle one batch of keys whose validity has ended, by time; locked ones wait for the next."""
    sweep = _DUE.replace(":batch", str(int(policy.settle_batch)))
    changed = _run(tx, sweep, policy, actor="keyturn")
    return Step(changed, finished=changed < policy.settle_batch)


def _run(tx: Tx, sql: str, policy: Policy, **params: object) -> int:
    changed: int = tx.scalar(sql, page=policy.page_keys, **params)
    if changed:
        tx.ring("outbox.deliver")
    return changed


def count_active(tx: Tx) -> int:
    """How many keys are active: a count over all of them, for rare use."""
    active: int = tx.scalar("SELECT count(*) FROM keyturn.api_keys WHERE status = 'active'")
    return active
