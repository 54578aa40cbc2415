"""Rotations move on."""

from models import rotations
from models.base import Step

from .runtime import Runtime, flow


@flow("rotations.advance", destructive=True)
def advance(run: Runtime) -> int:
    """Confirm, retire, complete or cancel every rotation for which it is time."""

    def batch() -> Step:
        step = run.database.run(lambda tx: rotations.advance(tx, run.policy))
        for one in step.attention:
            why = one.blocked_reason or one.cancel_reason
            run.alarm("rotation_needs_a_person", rotation=str(one.id), state=one.state, why=why)
        return step

    return run.until_finished(batch, "rotations.advance")
