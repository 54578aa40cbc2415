"""Bulk operations go on."""

import time
from datetime import timedelta

from models import operation_steps
from models.base import Step

from .runtime import Runtime, flow

STAY = timedelta(seconds=5)
"""How long a run goes on, or waits for its next key, before it leaves its thread to others."""


@flow("operations.advance", exclusive=False, destructive=True)
def advance(run: Runtime) -> int:
    """Rotate the next keys of every operation, at the pace that all workers keep together."""
    return run.until_finished(_Turns(run).take, "operations.advance", longest=STAY)


class _Turns:
    """One run's turns. It waits once for a key; where it would wait again, another is at work."""

    def __init__(self, run: Runtime) -> None:
        self._run = run
        self._waited = False

    def take(self) -> Step:
        """Rotate one key, or wait for its time."""
        turn = self._run.database.run(lambda tx: operation_steps.turn(tx, self._run.policy))
        if turn.pause and not self._waited and turn.pause <= STAY:
            self._waited = True
            time.sleep(turn.pause.total_seconds())
            return Step(0, finished=False)
        if turn.claimed is None:
            return Step(int(turn.moved), finished=not turn.moved)
        self._waited = False
        done = _issue(self._run, turn.claimed)
        return Step(int(done), finished=not done)


def _issue(run: Runtime, claimed: operation_steps.Claimed) -> bool:
    return operation_steps.issue(
        run.database,
        claimed,
        policy=run.policy,
        sealer=run.keyring.sealer,
        peppers=run.keyring.peppers,
    )
