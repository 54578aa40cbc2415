"""What was committed to be told is told."""

from collections.abc import Sequence
from functools import partial
from uuid import UUID

from models import notices, outbox, rotation_letters
from models.base import Step, Tx
from models.messages import Channel, Outgoing
from models.policy import Policy

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
    messages, skipped = run.database.run(lambda tx: _still_true(tx, leased.messages, run.policy))
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


def _still_true(
    tx: Tx, leased: Sequence[Outgoing], policy: Policy
) -> tuple[list[Outgoing], dict[UUID, str]]:
    """What to send of the messages, and which to skip with why, by what is known now."""
    messages, skipped = notices.refresh(tx, leased)
    messages, over = rotation_letters.refresh(tx, messages, policy)
    return messages, skipped | over
