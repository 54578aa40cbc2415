"""Which rotation policy a key or an account follows, where an operator chose one."""

from uuid import UUID

from . import accounts, api_keys, audit, holds
from .base import Tx
from .errors import Refused
from .policy import Policy
from .rotation_schedule import JOB, PLANNING


def for_key(tx: Tx, key_id: str, name: str | None, *, actor: str, policy: Policy) -> bool:
    """Let a key follow the policy of a name; None: that of its account or role.

    False where it did before. Refused as `key_unknown`, `key_deleted`, `policy_unknown`. Keys that
    succeed it follow the same one.
    """
    _check(name, policy)
    _alone(tx)
    key = api_keys.locked(tx, key_id)
    if key.deleted_at is not None:
        raise Refused("key_deleted", f"key {key.id} was deleted: it follows no policy any more")
    changed = tx.count(
        "UPDATE keyturn.api_keys SET rotation_policy = :name"
        " WHERE id = :id AND rotation_policy IS DISTINCT FROM :name",
        id=key.id,
        name=name,
    )
    if changed:
        audit.record(
            tx,
            actor,
            "key.policy_chosen",
            account_id=key.account_id,
            key_id=key.id,
            why=_why(name),
        )
        tx.execute(f"{_PLAN_ANEW} WHERE id = :id {_ON_CONFLICT}", id=key.id)
        tx.ring(JOB)
    return bool(changed)


def for_account(tx: Tx, account: str, name: str | None, *, actor: str, policy: Policy) -> bool:
    """Let the keys of an account follow the policy of a name; None: those of their roles.

    A key for which one was chosen itself goes on following that. False where nothing changed.
    Refused as `user_unknown`, `policy_unknown`.
    """
    _check(name, policy)
    _alone(tx)
    account_id = accounts.find(tx, account).id
    holds.lock_accounts(tx, [account_id])
    changed = tx.count(
        "UPDATE keyturn.accounts SET rotation_policy = :name"
        " WHERE id = :id AND rotation_policy IS DISTINCT FROM :name",
        id=account_id,
        name=name,
    )
    if changed:
        audit.record(tx, actor, "account.policy_chosen", account_id=account_id, why=_why(name))
        tx.execute(f"{_PLAN_ANEW} WHERE account_id = :id AND {_LIVE} {_ON_CONFLICT}", id=account_id)
        tx.ring(JOB)
    return bool(changed)


def of_account(tx: Tx, account_id: UUID) -> str | None:
    """The policy that was chosen for an account."""
    name: str | None = tx.scalar(
        "SELECT rotation_policy FROM keyturn.accounts WHERE id = :id", id=account_id
    )
    return name


_LIVE = "rotation_policy IS NULL AND status NOT IN ('expired', 'retired', 'deleted')"
# Due at once: the next look plans it, by what holds then.
_PLAN_ANEW = """
    INSERT INTO keyturn.rotation_schedule AS s (key_id, policy, rotate_at, next_at)
    SELECT id, coalesce(rotation_policy, ''), :now, to_timestamp(0) FROM keyturn.api_keys
"""
_ON_CONFLICT = """
    ON CONFLICT (key_id) DO UPDATE SET rotate_at = excluded.rotate_at,
        next_at = excluded.next_at, reason = NULL
    WHERE s.rotation_id IS NULL
"""


def _check(name: str | None, policy: Policy) -> None:
    if name is not None and name not in policy.rotation_policies:
        known = ", ".join(sorted(policy.rotation_policies))
        raise Refused(
            "policy_unknown",
            f"there is no rotation policy {name!r}; choose one of: {known}, or add a table "
            f"[rotation_policies.{name}] to keyturn.toml",
        )


def _alone(tx: Tx) -> None:
    # Whoever plans a page reads choices first: without this it might write what was chosen before.
    tx.execute("SELECT pg_advisory_xact_lock(:planning)", planning=PLANNING)


def _why(name: str | None) -> str:
    return "none" if name is None else name
