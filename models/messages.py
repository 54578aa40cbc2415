"""What Keyturn tells the world: one outgoing message, and what became of sending it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """One row of the outbox, read again at sending.

    `id` is the same at every attempt; channels derive the message's public id from it, so that a
    receiver can drop a repetition. `created_at` is UTC. `recipient` is one e-mail address, or None
    where the channel needs none.
    """

    id: UUID
    kind: str
    account_id: UUID | None
    payload: Mapping[str, object]
    recipient: str | None
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What became of the message `id`.

    `sent`: the receiver took it. `retry`: it may work later, or nobody knows whether it was
    taken. `failed`: another attempt would end the same. `error` says why not; it never carries
    the message's text.
    """

    id: UUID
    state: Literal["sent", "retry", "failed"]
    error: str | None = None


class Channel(Protocol):
    """A way out of Keyturn."""

    def send(self, messages: Sequence[Outgoing]) -> Sequence[Delivery]:
        """Try each message once. One result per message, in their order.

        Never raises for the fault of one message or of the far side.
        """
        ...
