"""Rotations move on, and new keys get to where they are needed."""

from contextlib import suppress

from models import hand_overs, rotations
from models.base import Step, is_server_trouble
from models.hand_overs import Leased
from models.sinks import Outcome, Promoting

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


@flow(hand_overs.FLOW)
def hand_over(run: Runtime) -> int:
    """Give each new key that is due to its sink, outside of any transaction.

    A sink that failed rests until the next run: while one hangs, the others go on.
    """
    resting: set[str] = set()
    return run.until_finished(lambda: _one(run, resting), hand_overs.FLOW)


def _one(run: Runtime, resting: set[str]) -> Step:
    rotation_id = run.database.run(lambda tx: hand_overs.due(tx, resting))
    if rotation_id is None:
        return Step(0, finished=True)
    leased = run.database.run(lambda tx: hand_overs.lease(tx, rotation_id, run.policy))
    if leased is None:
        return Step(0, finished=False)
    outcome = _tried(run, leased)
    if outcome.state == "retry":
        resting.add(leased.sink)
    return Step(_settled(run, leased, outcome), finished=False)


def _tried(run: Runtime, leased: Leased) -> Outcome:
    sink = run.sinks.get(leased.sink)
    if sink is None:
        why = f"the settings name no sink {leased.sink!r}: add it, or claim the key by hand"
        return Outcome(state="failed", error=why)
    try:
        return hand_overs.attempt(sink, leased, run.keyring.sealer)
    except Exception as error:  # its text might hold what the far side was told
        return Outcome(state="retry", error=f"the sink failed: {type(error).__name__}")


def _settled(run: Runtime, leased: Leased, outcome: Outcome) -> int:
    promotes = isinstance(run.sinks.get(leased.sink), Promoting)
    try:
        return run.database.run(
            lambda tx: hand_overs.settle(tx, leased, outcome, run.policy, promotes=promotes)
        )
    except Exception as error:
        if is_server_trouble(error):
            with suppress(Exception):
                run.database.run(lambda tx: hand_overs.give_back(tx, leased))
        raise
