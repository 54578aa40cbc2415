"""A mail server with moods: it takes mails, refuses them, hangs, hangs up, takes and denies it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from enum import StrEnum
from typing import Final

from tests.worker.channels.mail_server import DISCONNECT, HANG, Script, mail_server


class Mood(StrEnum):
    """How the server answers."""

    WELL = "well"
    HANGS = "hangs"
    LATER = "4xx"
    NEVER = "5xx"
    HANGS_UP = "hangs up"
    LIES = "lies"
    """It takes the mail, and hangs up instead of saying so."""


_ANSWERS: Final[Mapping[tuple[Mood, str], str]] = {
    (Mood.HANGS, "RCPT"): HANG,
    (Mood.LATER, "RCPT"): "451 come back later",
    (Mood.NEVER, "DATA"): "554 we never take this",
    (Mood.HANGS_UP, "RCPT"): DISCONNECT,
    (Mood.LIES, "DATA"): DISCONNECT,
}


@dataclass(frozen=True)
class Mail:
    """One mail that the server has, and when it got it: in seconds since the epoch."""

    at: float
    to: str
    message_id: str
    subject: str
    raw: bytes


class Mailbox(Mapping[tuple[str, str], str]):
    """What the server answers now, as the script of `mail_server` asks for it, and what it has."""

    def __init__(self) -> None:
        self.mood = Mood.WELL
        self.url = ""
        self.refused: set[str] = set()
        """Recipients to whom it said that it will never take a mail of theirs."""
        self._times: list[float] = []
        self._script = Script()

    def __getitem__(self, asked: tuple[str, str]) -> str:
        step, recipient = asked
        answer = _ANSWERS.get((self.mood, step))
        if step == "DATA" and answer in (None, DISCONNECT):
            self._times.append(time.time())  # the script takes it with the next breath
        if answer is None:
            raise KeyError(asked)
        if answer.startswith("5"):
            self.refused.add(recipient)
        return answer

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        return True  # empty or not, it is the script

    def mails(self) -> list[Mail]:
        """All that was taken, in its order."""
        return [
            _mail(at, taken.recipients[0], taken.content)
            for at, taken in zip(list(self._times), list(self._script.taken), strict=False)
        ]

    @contextmanager
    def running(self, password: str) -> Iterator["Mailbox"]:
        """Serve until the block ends, to whoever has the password."""
        with mail_server(self, login=("keyturn", password)) as script:
            self._script = script
            self.url = f"smtp://keyturn:{password}@127.0.0.1:{script.port}"
            yield self


def _mail(at: float, to: str, raw: bytes) -> Mail:
    message = message_from_bytes(raw)
    return Mail(at, to, str(message["Message-ID"]), str(message["Subject"]), raw)
