"""Account events become holds."""

from models import account_events
from models.base import Step

from .runtime import Runtime, flow


@flow("accounts.apply_events", exclusive=False)
def apply_events(run: Runtime) -> int:
    """Apply every due account event. From each batch's commit on, `verify` refuses what it cut."""

    def batch() -> Step:
        claimed = run.database.run(lambda tx: account_events.claim(tx, run.policy))
        states = account_events.apply_claimed(
            run.database, claimed, run.policy, run.keyring.peppers
        )
        for state in ("parked", "failed"):
            if states[state]:
                run.alarm(f"events_{state}", count=states[state])
        return Step(len(claimed), finished=not claimed)

    return run.until_finished(batch, "accounts.apply_events")
