"""New keys as files of a directory, such as a volume that consumers watch."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from models.errors import Misconfigured
from models.key_text import Secret
from models.sinks import HandOver, Outcome
from worker.sink_names import Unnameable, named

MODE: Final = 0o600
_PASSING: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EAGAIN, errno.EINTR})
_PASSING_TOO: Final = frozenset({errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE})
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Unsafe(Exception):
    """The directory is not one to put keys in. Says why, and how to mend it."""


class File:
    """One file for each key, replaced as a whole: who reads it sees the old text or the new one.

    The file has mode 0600. Links are replaced and never followed. The directory is made if it is
    missing. Raises Misconfigured if others may write to it.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._opened():
                pass
        except Unsafe as error:
            raise Misconfigured(str(error)) from None
        except OSError as error:
            raise Misconfigured(
                f"new keys cannot be put into {directory} ({error.strerror}): make it a directory "
                "that the user who runs Keyturn may write to, and nobody else"
            ) from None

    def deliver(self, hand_over: HandOver, secret: Secret) -> Outcome:
        try:
            name = named(self._name, hand_over)
            with self._opened() as directory:
                if _content(directory, name) != secret.reveal().encode():
                    _replace(directory, name, f".{hand_over.rotation_id}", secret)
        except (Unnameable, Unsafe) as error:
            return Outcome(state="failed", error=str(error))
        except OSError as error:
            why = f"the file could not be written ({error.strerror})"
            passing = error.errno in _PASSING | _PASSING_TOO
            return Outcome(state="retry" if passing else "failed", error=why)
        return Outcome(state="taken", receipt=f"file {self._directory / name}")

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The directory, held open: what is done by it is done there, wherever its path leads."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            opened = os.open(self._directory, flags)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise Unsafe(f"{self._directory} is no directory, but a link or a file") from None
            raise
        try:
            status = os.fstat(opened)
            if status.st_uid not in (os.geteuid(), 0):
                raise Unsafe(f"{self._directory} belongs to another user: give it to this one")
            if status.st_mode & _OTHERS_WRITE:
                raise Unsafe(
                    f"{self._directory} lets others change its files: run "
                    f"`chmod go-w {self._directory}`, or name a directory in it"
                )
            yield opened
        finally:
            os.close(opened)


def _content(directory: int, name: str) -> bytes | None:
    """What is there, if it is a plain file that is closed to others."""
    try:
        opened = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory
        )
    except OSError:
        return None
    try:
        status = os.fstat(opened)
        plain = stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == MODE
        return os.read(opened, 4096) if plain and status.st_uid == os.geteuid() else None
    finally:
        os.close(opened)


def _replace(directory: int, name: str, draft: str, secret: Secret) -> None:
    """Write a draft, and put it in the place of what has this name, surviving a power cut."""
    with suppress(FileNotFoundError):
        os.unlink(draft, dir_fd=directory)  # of a worker that died here
    opened = os.open(draft, _NEW, MODE, dir_fd=directory)
    try:
        try:
            os.fchmod(opened, MODE)  # whatever the umask
            _write(opened, secret.reveal().encode())
            os.fsync(opened)
        finally:
            os.close(opened)
        os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with suppress(OSError):
            os.unlink(draft, dir_fd=directory)
        raise
    os.fsync(directory)


def _write(opened: int, content: bytes) -> None:
    while content:
        content = content[os.write(opened, content) :]
