"""What is proven: a message as it came in, and the two ways in which that can fail."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from models.errors import Refused

HIDDEN: Final = frozenset({"authorization", "proxy-authorization", "cookie", "x-gitlab-token"})
"""Headers that hold secrets whoever sends them; only their fingerprints are kept."""


class Unverified(Refused):
    """A message that is not proven to be its producer's; nothing of it may be applied."""

    def __init__(self, message: str) -> None:
        super().__init__("unverified", message)


class KeysUnavailable(Exception):
    """The key that could prove a message cannot be had now: keep the message, and try again.

    The next answer is had within about a minute, if the place of the keys answers.
    """


@dataclass(frozen=True)
class Message:
    """Raw bytes with their headers, whose names are in small letters."""

    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    arrived: datetime | None = None
    """When it reached the broker; None where the transport does not say."""

    replayed: bool = False
    """It comes from the inbox, so that its hidden headers are fingerprints, and an operator vouches
    for its age."""

    def header(self, name: str) -> str:
        """A header's value; Unverified where there is none."""
        found = self.headers.get(name, "").strip()
        if not found:
            raise Unverified(
                f"the header {name} is missing: have the relay pass it on, or correct its name in "
                "the source's proof"
            )
        return found


class Verifier(Protocol):
    """Says whether a message is its producer's. Threads may share it."""

    @property
    def hidden(self) -> frozenset[str]:
        """Headers that hold a secret as it is, beside `HIDDEN`."""

    def __call__(self, message: Message) -> None:
        """Raises Unverified with the reason, or KeysUnavailable."""


def fingerprint(value: str) -> str:
    """What is kept of a header that holds a secret; enough to verify it again."""
    return "sha256:" + hashlib.sha256(value.encode("utf-8", "replace")).hexdigest()


def without_secrets(headers: Mapping[str, str], hidden: frozenset[str]) -> dict[str, str]:
    """The headers with fingerprints in place of what is hidden."""
    return {
        name: fingerprint(value.strip()) if name in hidden | HIDDEN else value
        for name, value in headers.items()
    }
