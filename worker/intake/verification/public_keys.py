"""A producer's public keys, from a file or a URL, kept and renewed."""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Final, Generic, TypeVar

import structlog

from models.errors import Misconfigured
from worker.intake.verification.fetching import LARGEST, FetchFailed, fetch
from worker.intake.verification.message import KeysUnavailable, Unverified

log = structlog.get_logger()

Keys = TypeVar("Keys")
Found = TypeVar("Found")

KEPT: Final = 3600.0
"""Seconds after which keys of a URL are fetched anew, so that one withdrawn is refused in time."""

RETRY: Final = 60.0
"""Seconds between two requests, whatever messages ask for."""

FRESH: Final = 5.0
"""Seconds for which an answer counts as today's: who is not in it is unknown."""

LOOK_EVERY: Final = 5.0  # seconds between two looks at a file
LOOK_AGAIN: Final = 1.0  # and where a key is not in it


class PublicKeys(Generic[Keys]):
    """The keys at one place. While it cannot be read, those had before stay in use."""

    def __init__(self, source: str, place: str, parse: Callable[[bytes], Keys]) -> None:
        """`parse` makes keys of what stands there, or raises ValueError.

        Reads a file, Misconfigured where it cannot be used; a URL is fetched when a message needs
        it.
        """
        self._source = source
        self._place = place
        self._parse = parse
        self._is_url = "://" in place
        self._path = Path(place).expanduser().absolute()
        self._keys: Keys | None = None
        self._tried = self._had = float("-inf")
        self._lock = Lock()
        if not self._is_url:
            self._keys = self._read()
            self._tried = self._had = time.monotonic()

    def find(self, look: Callable[[Keys], Found | None]) -> Found:
        """What `look` finds among the keys, which are renewed where it finds nothing.

        Unverified where it is not there; KeysUnavailable where nobody can say that yet.
        """
        with self._lock:
            self._renew(KEPT if self._is_url else LOOK_EVERY)
            found = None if self._keys is None else look(self._keys)
            if found is None:
                self._renew(RETRY if self._is_url else LOOK_AGAIN)
                found = None if self._keys is None else look(self._keys)
            if found is not None:
                return found
            if time.monotonic() - self._had > FRESH:
                raise KeysUnavailable(f"the keys of source {self._source} cannot be had yet")
        raise Unverified("it is signed with a key that its producer does not list")

    def _renew(self, after: float) -> None:
        """Read them again if they are older, but never more often than once in RETRY."""
        now = time.monotonic()
        if now - self._had < after or (self._is_url and now - self._tried < RETRY):
            return
        self._tried = now
        try:
            self._keys = self._read()
            self._had = time.monotonic()
        except (FetchFailed, Misconfigured) as error:
            log.error("alarm", alarm="source_keys_unusable", source=self._source, error=str(error))

    def _read(self) -> Keys:
        raw = fetch(self._place) if self._is_url else _file(self._path, self._source)
        try:
            return self._parse(raw)
        except (ValueError, RecursionError) as error:
            why = f"{self._place} does not hold the public keys that are due: {error}"
            raise (FetchFailed(why) if self._is_url else Misconfigured(why)) from None


def _file(path: Path, source: str) -> bytes:
    """A file that nobody else may write; others may read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise Misconfigured(f"{path} is not a file: name that of the public keys")
            if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o022:
                raise Misconfigured(
                    f"{path} can be written by others, who could put their own keys there: give it "
                    "to the user that runs Keyturn, and run `chmod go-w` on it"
                )
            if status.st_size > LARGEST:
                raise Misconfigured(f"{path} is larger than {LARGEST} bytes: no public keys are")
            with os.fdopen(os.dup(descriptor), "rb") as file:
                return file.read(LARGEST)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Misconfigured(
            f"cannot read the public keys of source {source} in {path} ({error.strerror}): correct "
            "the path in its proof"
        ) from None
