"""A channel that an operator has switched off."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.messages import Delivery, Outgoing


@dataclass(frozen=True)
class Off:
    """Sends nothing, and says so of each message: none waits for a channel that never comes."""

    why: str

    def send(self, messages: Sequence[Outgoing]) -> Sequence[Delivery]:
        return [Delivery(id=message.id, state="failed", error=self.why) for message in messages]
