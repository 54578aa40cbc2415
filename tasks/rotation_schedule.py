"""Rotations that policies ask for are planned and started."""

from uuid import UUID

from models import rotation_schedule, rotation_starts
from models.base import Step

from .runtime import Runtime, flow


@flow(rotation_schedule.JOB, destructive=True)
def start_due(run: Runtime) -> int:
    """Start every rotation whose time has come, as many as a minute may have; plan what is new."""

    def batch() -> Step:
        looked = run.database.run(lambda tx: rotation_starts.look(tx, run.policy))
        changed = looked.changed + sum(_start(run, key_id) for key_id in looked.to_start)
        if changed:
            return Step(changed, finished=False)
        return run.database.run(lambda tx: rotation_schedule.plan(tx, run.policy))

    return run.until_finished(batch, rotation_schedule.JOB)


def _start(run: Runtime, key_id: UUID) -> bool:
    return rotation_starts.attempt(
        run.database,
        key_id,
        policy=run.policy,
        sealer=run.keyring.sealer,
        peppers=run.keyring.peppers,
    )
