"""Keys follow their accounts' holds, and time."""

from models import deletions, settle

from .runtime import Runtime, flow


@flow("keys.settle", exclusive=False)
def settle_held(run: Runtime) -> int:
    """Set the status of keys whose account or tenant was held or released, in batches."""
    settled = run.batches(lambda tx: settle.accounts(tx, run.policy), "keys.settle")
    return settled + run.batches(lambda tx: settle.tenants(tx, run.policy), "keys.settle")


@flow("keys.expire_due", exclusive=False, destructive=True)
def expire_due(run: Runtime) -> int:
    """Mark keys whose validity has ended; `verify` has refused them since that moment."""
    expired = run.batches(lambda tx: settle.due(tx, run.policy), "keys.expire_due")
    if expired > run.policy.expiry_alarm_min:
        left = run.database.run(settle.count_active)
        if expired > run.policy.expiry_alarm_share * (expired + left):
            run.alarm("many_keys_expired", expired=expired, left=left)
    return expired


@flow("keys.delete_due", destructive=True)
def delete_due(run: Runtime) -> int:
    """Delete the keys of accounts that were deleted long enough ago."""
    return run.batches(lambda tx: deletions.step(tx, run.policy), "keys.delete_due")
