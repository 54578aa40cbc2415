"""What was committed to be told is told."""

from functools import partial

from models import notices, outbox
from models.base import Step, Tx
from models.messages import Channel

from .runtime import Runtime, flow


@flow("outbox.deliver", exclusive=False)
def deliver(run: Runtime) -> int:
    """Send every due message of every channel, outside of any transaction."""
    return sum(
        run.until_finished(partial(_batch, run, name, channel), "outbox.deliver")
        for name, channel in run.channels.items()
    )


def _batch(run: Runtime, name: str, channel: Channel) -> Step:
    leased = run.database.run(lambda tx: outbox.lease(tx, name, run.policy))
    if not leased.messages:
        return Step(0, finished=True)
    messages, skipped = run.database.run(lambda tx: notices.refresh(tx, leased.messages))
    deliveries = list(channel.send(messages)) if messages else []
    failed = [delivery for delivery in deliveries if delivery.state == "failed"]
    if failed:
        run.alarm("delivery_failed", channel=name, count=len(failed), error=failed[0].error)

    def write(tx: Tx) -> int:
        outbox.skip(tx, leased, skipped)
        sent = outbox.settle(tx, leased, deliveries)
        notices.delivered(tx, deliveries)
        return sent

    return Step(run.database.run(write), finished=False)
