"""The secrets that the domain needs: peppers for digests and keys for sealing."""

import hashlib
import hmac
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final, Literal, final

from sqlalchemy import Engine, text

from . import secret_files
from .base import Tx
from .errors import Misconfigured
from .forks import begins_anew
from .key_text import NotPickled, Peppers
from .sealing import Sealer

LOOK_EVERY: Final = 5.0  # seconds between two looks at whether the files have changed

_log = logging.getLogger(__name__)


@final
class Keyring(NotPickled):
    """Peppers and key-encryption keys, each by version. Threads may share it."""

    def __init__(self, peppers: Peppers, sealer: Sealer) -> None:
        self._peppers = peppers
        self._sealer = sealer
        self._files: _Files | None = None

    @classmethod
    def from_directory(cls, directory: Path) -> "Keyring":
        """Read `pepper-N` and `kek-N`; Misconfigured as `secret_files.read_versioned` raises it.

        Files that come or are renamed later are noticed within seconds. One that is gone or spoilt
        stays in use as it was: no accident with the directory stops a process that works.
        """
        files = _Files(directory)
        keyring = cls(*files.read())
        keyring._files = files
        return keyring

    @classmethod
    def known_to(cls, engine: Engine) -> "Keyring":
        """Read them where the database says that they lie (`make run` sets that)."""
        with engine.connect() as connection:
            found = connection.scalar(text("SELECT current_setting('keyturn.secrets_dir', true)"))
        if not found:
            raise Misconfigured(
                "the peppers are missing: pass Client(..., secrets_dir=...) with the directory "
                "that the worker reads (KEYTURN_SECRETS_DIR; files pepper-1 and kek-1)"
            )
        return cls.from_directory(Path(found))

    @property
    def peppers(self) -> Peppers:
        """The peppers as they are now."""
        self._look()
        return self._peppers

    @property
    def sealer(self) -> Sealer:
        """The key-encryption keys as they are now."""
        self._look()
        return self._sealer

    def _look(self) -> None:
        if self._files is not None and (changed := self._files.changed()) is not None:
            self._peppers, self._sealer = changed

    def __repr__(self) -> str:
        return f"<Keyring {self._peppers!r} {self._sealer!r}>"


class _Files:
    """The files of a directory, and what was ever read from them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._found: dict[str, Mapping[int, bytes]] = {name: {} for name in secret_files.NAMES}
        self._mark: object = None
        self._look_at = 0.0
        self._looking = Lock()
        begins_anew(self)

    def forget_parent(self) -> None:
        """See models.forks."""
        self._looking = Lock()

    def read(self) -> tuple[Peppers, Sealer]:
        """Read all of them; what was read before keeps its content. Raises Misconfigured."""
        pepper, kek = (self._read(name) for name in secret_files.NAMES)
        made = (
            Peppers(pepper.by_version, pepper.current),
            Sealer(kek.by_version, kek.current),
        )
        self._found = {"pepper": pepper.by_version, "kek": kek.by_version}
        return made

    def changed(self) -> tuple[Peppers, Sealer] | None:
        """Read them where they have changed since; looks once in LOOK_EVERY, one thread at a time.

        What cannot be used is logged, and looked at again the next time.
        """
        if time.monotonic() < self._look_at or not self._looking.acquire(blocking=False):
            return None
        try:
            self._look_at = time.monotonic() + LOOK_EVERY
            mark = secret_files.mark(self._directory)  # before reading: a later change shows
            if mark == self._mark:
                return None
            made = self.read()
            self._mark = mark
            return made
        except (Misconfigured, OSError) as error:
            _log.warning("the secrets stay as they were read before: %s", error)
            return None
        finally:
            self._looking.release()

    def _read(self, name: str) -> secret_files.Versions:
        read = secret_files.read_versioned(self._directory, name)
        return secret_files.Versions({**read.by_version, **self._found[name]}, read.current)


Use = Literal["current", "next", "old", "missing"]


@dataclass(frozen=True)
class SecretVersion:
    """One version of a secret, and what needs it."""

    name: str
    use: Use
    fingerprint: str | None
    """Eight hex digits by which two machines compare what they have; None where it is missing."""

    named_by: int
    """How many keys that are not deleted, or sealed secrets, cannot do without it."""

    may_retire: bool


def versions(tx: Tx, directory: Path) -> list[SecretVersion]:
    """All versions that are in `directory` or named by rows. Raises Misconfigured."""
    found = []
    for name in secret_files.NAMES:
        read = secret_files.read_versioned(directory, name)
        named = _named(tx, name)
        for version in sorted({*read.by_version, *named}):
            secret = read.by_version.get(version)
            use = _use(version, read)
            count = named.get(version, 0)
            retires = use == "old" and not count
            shown = None if secret is None else fingerprint(secret)
            found.append(SecretVersion(f"{name}-{version}", use, shown, count, retires))
    return found


def missing(tx: Tx, keyring: Keyring) -> list[str]:
    """The versions that rows name and that are not at hand, such as `pepper-1`."""
    at_hand = {"pepper": keyring.peppers.versions, "kek": keyring.sealer.versions}
    return [
        f"{name}-{version}"
        for name in secret_files.NAMES
        for version in sorted(_named(tx, name))
        if version not in at_hand[name]
    ]


def fingerprint(secret: bytes) -> str:
    """What tells two secrets apart and gives neither away."""
    return hmac.new(secret, b"keyturn fingerprint", hashlib.sha256).hexdigest()[:8]


_NAMED: Final = {
    "pepper": """
        SELECT pepper AS version, count(*) AS rows FROM keyturn.api_keys
        WHERE deleted_at IS NULL AND pepper IS NOT NULL GROUP BY pepper
    """,
    "kek": """
        SELECT sealed_kek AS version, count(*) AS rows FROM keyturn.rotations
        WHERE sealed_kek IS NOT NULL GROUP BY sealed_kek
    """,
}


def _named(tx: Tx, name: str) -> dict[int, int]:
    return {row["version"]: row["rows"] for row in tx.rows(_NAMED[name])}


def _use(version: int, read: secret_files.Versions) -> Use:
    if version not in read.by_version:
        return "missing"
    if version == read.current:
        return "current"
    return "next" if version > read.current else "old"
