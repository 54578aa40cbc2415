"""What follows when others know a key, and when a stopped one is tried."""

from models import compromise, refused_uses
from models.base import Step

from .runtime import Runtime, flow


@flow(compromise.FLOW)
def follow(run: Runtime) -> int:
    """Withdraw what was handed out for keys that others know, and issue what they asked for."""

    def batch() -> Step:
        keyring = run.keyring
        return compromise.follow_due(run.database, run.policy, keyring.sealer, keyring.peppers)

    return run.until_finished(batch, compromise.FLOW)


@flow("keys.tell_refused")
def tell_refused(run: Runtime) -> int:
    """Tell owners and operators that stopped keys are tried: at most once a day."""
    return run.batches(lambda tx: refused_uses.tell(tx, run.policy), "keys.tell_refused")
