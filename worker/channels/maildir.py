"""Mails as files in a Maildir: the default of the embedded installation, and a fair archive."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from models.messages import Delivery, Outgoing

from .messages import Unsendable, mail


class Maildir:
    """The Maildir at `path`, made when it is first needed, readable for its owner only.

    A file is named after its message: sent again it stays one mail, read or unread. A mail that
    was removed in between comes back.
    """

    def __init__(self, path: Path, sender: str) -> None:
        self._path = path
        self._sender = sender

    def send(self, messages: Sequence[Outgoing]) -> Sequence[Delivery]:
        try:
            self._make()
            there = self._names()
        except OSError as error:
            return [self._retry(message, error) for message in messages]
        return [self._send_one(message, there) for message in messages]

    def _send_one(self, message: Outgoing, there: frozenset[str]) -> Delivery:
        name = f"{message.id}.keyturn"
        if name in there:
            return Delivery(id=message.id, state="sent")
        try:
            content = mail(message, self._sender)
            # A Maildir's lines end as the machine's do, and not as SMTP's.
            self._write(name, content.as_bytes(policy=content.policy.clone(linesep="\n")))
        except Unsendable as error:
            return Delivery(id=message.id, state="failed", error=str(error))
        except OSError as error:
            return self._retry(message, error)
        return Delivery(id=message.id, state="sent")

    def _write(self, name: str, content: bytes) -> None:
        """Make `new/name` appear with all its content, or not at all."""
        part = self._path / "tmp" / f"{name}.{os.getpid()}.{os.urandom(4).hex()}"
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # Another worker with the same message writes over it: one name, one mail.
            part.replace(self._path / "new" / name)
        finally:
            with suppress(FileNotFoundError):
                part.unlink()
        _sync(self._path / "new")

    def _make(self) -> None:
        for directory in (self._path, *(self._path / name for name in ("tmp", "new", "cur"))):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _names(self) -> frozenset[str]:
        """What is there; a reader adds flags behind a colon when it moves a mail to `cur`."""
        directories = (self._path / "new", self._path / "cur")
        return frozenset(name.partition(":")[0] for d in directories for name in os.listdir(d))

    def _retry(self, message: Outgoing, error: OSError) -> Delivery:
        why = f"cannot write to {self._path} ({error.strerror}): let Keyturn write there"
        return Delivery(id=message.id, state="retry", error=why)


def _sync(directory: Path) -> None:
    """Have a new name survive a loss of power."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
