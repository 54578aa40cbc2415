"""What keeps the rest going: lost rings are rung again, promises checked, old rows leave."""

from collections.abc import Callable
from functools import partial

from models import (
    audit_seal,
    deletions,
    inbox,
    invariants,
    operations,
    resealing,
    schedule_runs,
    source_silence,
)
from models.base import Step, Tx
from models.policy import Policy

from .runtime import Runtime, flow

Forget = Callable[[Tx, Policy], int]


@flow("upkeep.ring_due")
def ring_due(run: Runtime) -> int:
    """Ring for every flow whose time has come: what a lost ring announced is found by that."""
    due = run.database.run(lambda tx: schedule_runs.due(tx, run.schedule))
    run.ring(due)
    return len(due)


@flow("upkeep.check_invariants")
def check_invariants(run: Runtime) -> int:
    """Check the promises where something may have changed; returns how many are broken."""
    tolerance = invariants.Tolerance.of(run.schedule)
    broken = invariants.check(run.database, run.policy, tolerance=tolerance)
    for one in broken:
        run.alarm("invariant_broken", invariant=one.name, count=one.count, rows=one.rows)
    return len(broken)


@flow("upkeep.seal_audit")
def seal_audit(run: Runtime) -> int:
    """Seal what was added to the audit, in batches; returns how many entries."""
    return run.batches(lambda tx: audit_seal.step(tx, run.policy), "upkeep.seal_audit")


@flow("upkeep.reseal")
def reseal(run: Runtime) -> int:
    """Seal what waits under an older key-encryption key anew, under the current one."""
    after = resealing.FIRST

    def batch() -> Step:
        nonlocal after
        step = run.database.run(lambda tx: resealing.step(tx, run.keyring.sealer, after))
        for rotation in step.broken:
            run.alarm("sealed_secret_broken", rotation=str(rotation))
        after = step.after
        return step

    return run.until_finished(batch, "upkeep.reseal")


@flow(source_silence.FLOW)
def watch_sources(run: Runtime) -> int:
    """Tell of sources that have been silent for longer than is normal; returns how many anew."""
    return run.database.run(lambda tx: source_silence.watch(tx, run.policy.silent_after))


@flow("upkeep.retention", destructive=True)
def retention(run: Runtime) -> int:
    """Remove rows that have served their time."""

    def batch(forget: Forget) -> Step:
        removed = run.database.run(lambda tx: forget(tx, run.policy))
        return Step(removed, finished=removed == 0)

    return sum(
        run.until_finished(partial(batch, forget), "upkeep.retention")
        for forget in (inbox.forget, deletions.forget_sent, operations.forget, deletions.purge)
    )
