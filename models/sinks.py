"""Where a new key goes by itself: what a sink is given, and what became of giving it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable
from uuid import UUID

from .key_text import Secret


@dataclass(frozen=True, kw_only=True)
class HandOver:
    """What there is to know of a new key, but its text. Times are UTC.

    `rotation_id` is the same at every attempt, and of no other new key: a sink tells by it what it
    has taken already. `family_id` stays the same over all rotations of a key. `public_key` is the
    account's, a JSON Web Key (RFC 7517), if it has one.
    """

    rotation_id: UUID
    family_id: UUID
    account_id: UUID
    account: str
    key_id: UUID
    key_name: str
    key_hint: str
    expires_at: datetime
    old_key_id: UUID
    old_expires_at: datetime
    public_key: Mapping[str, str] | None


@dataclass(frozen=True, kw_only=True)
class Told:
    """An outgoing message that is committed together with the receipt."""

    channel: str
    kind: str
    payload: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one attempt.

    `taken`: the sink has the key; `receipt` says where. `retry`: it may work later, or nobody knows
    whether it was taken. `failed`: another attempt would end the same before a person did
    something; `error` says what. Neither text ever carries the key's, nor what a far side said.
    """

    state: Literal["taken", "retry", "failed"]
    receipt: str = ""
    error: str | None = None
    messages: Sequence[Told] = ()


class Sink(Protocol):
    """A way by which new keys get to where they are needed."""

    def deliver(self, hand_over: HandOver, secret: Secret) -> Outcome:
        """Try once. The same rotation delivered twice leaves what one delivery does."""
        ...


@runtime_checkable
class Promoting(Sink, Protocol):
    """A sink that keeps the new key beside the old one until the rotation is confirmed."""

    def promote(self, hand_over: HandOver) -> Outcome:
        """Put the delivered key in the old one's place; done before, it stays as it is."""
        ...
