"""Rotations move on."""

from models import rotations

from .runtime import Runtime, flow


@flow("rotations.advance", destructive=True)
def advance(run: Runtime) -> int:
    """Confirm, retire, complete or cancel every rotation for which it is time."""
    return run.batches(lambda tx: rotations.advance(tx, run.policy), "rotations.advance")
