"""The secrets that a producer shares with us, in files that only we can read."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Final

import structlog

from models import secret_files
from models.errors import Misconfigured

log = structlog.get_logger()

LEAST: Final = 16  # bytes; what producers make up is longer
LOOK_EVERY: Final = 5.0  # seconds between two looks at whether the files have changed


class SharedSecrets:
    """All secrets of one source that are good now; threads may share it.

    They are `source-NAME-1`, `source-NAME-2` and so on in the directory, or the files named. Files
    that come, go or change are noticed within seconds, so a secret is replaced while everything
    runs. What cannot be used then is logged, and the secrets stay as they were read before.
    """

    def __init__(self, source: str, directory: Path, files: Sequence[Path] = ()) -> None:
        """Reads them; Misconfigured where there is none, or one is short or open to others."""
        self.source = source
        self._directory = directory
        self._named = [directory / path for path in files]
        self._pattern = re.compile(rf"source-{re.escape(source)}-[1-9][0-9]{{0,8}}")
        self._mark = self._look()
        self._secrets = self._read()
        self._look_at = time.monotonic() + LOOK_EVERY
        self._looking = Lock()

    def __repr__(self) -> str:
        return f"<SharedSecrets of {self.source}>"

    def all(self) -> tuple[bytes, ...]:
        """The secrets, at least one."""
        if time.monotonic() >= self._look_at and self._looking.acquire(blocking=False):
            try:
                self._look_at = time.monotonic() + LOOK_EVERY
                self._renew()
            finally:
                self._looking.release()
        return self._secrets

    def _renew(self) -> None:
        try:
            mark = self._look()  # before reading: a later change shows
            if mark == self._mark:
                return
            self._secrets = self._read()
            self._mark = mark
        except (Misconfigured, OSError) as error:
            log.warning("source_secrets_unusable", source=self.source, error=str(error))

    def _paths(self) -> list[Path]:
        if self._named:
            return self._named
        try:
            found = sorted(self._directory.iterdir())
        except OSError as error:
            raise Misconfigured(
                f"cannot list {self._directory} ({error.strerror}), where the secrets of source "
                f"{self.source} should be"
            ) from None
        return [path for path in found if self._pattern.fullmatch(path.name)]

    def _look(self) -> object:
        stats = [(path, path.stat()) for path in self._paths() if path.exists()]
        return [(path, each.st_ino, each.st_size, each.st_mtime_ns) for path, each in stats]

    def _read(self) -> tuple[bytes, ...]:
        paths = self._paths()
        if not paths:
            path = self._directory / f"source-{self.source}-1"
            raise Misconfigured(
                f"source {self.source} has no secret: put the one that its producer shares with "
                f"you into {path} (`(umask 077; cat > {path})`)"
            )
        if not self._named:
            secret_files.check_directory(self._directory)
        return tuple(self._secret(path) for path in paths)

    def _secret(self, path: Path) -> bytes:
        secret = secret_files.read_private(path).strip()
        if len(secret) < LEAST:
            raise Misconfigured(
                f"{path} is too short: a secret shared with a producer has {LEAST} characters or "
                "more; have the producer use a longer one"
            )
        return secret
