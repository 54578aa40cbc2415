"""Where the embedded servers keep their data, and who owns which part of it."""

import hashlib
import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.errors import Misconfigured

from .account import Account, server_account

PROJECT: Final = Path(__file__).resolve().parents[2]
LONGEST_SOCKET_DIRECTORY: Final = 80  # bytes; the whole path of a socket may have 103 (macOS)


@dataclass(frozen=True)
class Home:
    """A data directory and the account that its servers run as (None: the caller's own)."""

    path: Path
    account: Account | None = None

    @property
    def mark(self) -> str:
        """Eight hex digits that tell this place from others on the machine."""
        return hashlib.sha256(os.fsencode(self.path)).hexdigest()[:8]

    @property
    def secrets(self) -> Path:
        return self.path / "secrets"

    @property
    def sockets(self) -> Path:
        """The directory of PostgreSQL's socket: short, and without a comma (that divides hosts)."""
        inside = self.path / "run"
        fits = len(os.fsencode(inside)) <= LONGEST_SOCKET_DIRECTORY and "," not in str(inside)
        # Should somebody else have made the other one: `server_directory` looks at its owner.
        return inside if fits else Path(f"/tmp/keyturn-{self.mark}")  # nosec B108

    def make(self) -> None:
        """Make the directory. Raises Misconfigured where it cannot be used."""
        try:
            self.path.mkdir(mode=0o711 if self.account else 0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Misconfigured(
                f"cannot make the data directory {self.path} ({error.strerror}): set "
                "KEYTURN_DATA_DIR to a directory that you may write to"
            ) from None
        _check_owner(self.path, os.geteuid())
        if self.account and not self.account.reaches(self.path):
            raise Misconfigured(
                f"the servers run as {self.account.name!r}, who cannot enter {self.path}: set "
                "KEYTURN_DATA_DIR to a directory that everybody may enter (mode 711), all its "
                "parents included"
            )

    def own_directory(self, name: str) -> Path:
        """A directory in here (mode 0700) for the caller only: the servers cannot look into it."""
        return _private_directory(self.path / name, None)

    def server_directory(self, path: Path) -> Path:
        """`path` as a directory (mode 0700) that belongs to the servers' account."""
        return _private_directory(path, self.account)


def find_home(configured: Path | None = None) -> Home:
    """The place of the embedded servers' data; nothing is made.

    It is `configured` (KEYTURN_DATA_DIR), else `.keyturn` in the project, or where root's servers
    cannot get there (a private home), a directory of the project's own in /var/lib.
    Raises Misconfigured where root has nobody to run the servers as.
    """
    account = server_account()
    path = configured.absolute() if configured else _default_path(account)
    return Home(path, _earlier_account(path, account))


def _default_path(account: Account | None) -> Path:
    project = PROJECT if (PROJECT / "pyproject.toml").is_file() else Path.cwd()
    local = project / ".keyturn"
    if account is None or account.reaches(project):
        return local
    return Path(f"/var/lib/keyturn-{Home(local).mark}")


def _earlier_account(path: Path, account: Account | None) -> Account | None:
    """The owner of data that is there already: a `postgres` added later must not take over."""
    try:
        owner = (path / "postgres").stat()
        if account is None or owner.st_uid == 0:
            return account
        return Account(pwd.getpwuid(owner.st_uid).pw_name, owner.st_uid, owner.st_gid)
    except (OSError, KeyError):
        return account


def _private_directory(path: Path, account: Account | None) -> Path:
    owner = account.uid if account else os.geteuid()
    if not path.is_dir():
        path.mkdir(mode=0o700)
        if account:
            os.chown(path, account.uid, account.gid)
    _check_owner(path, owner)
    path.chmod(0o700)
    return path


def _check_owner(path: Path, owner: int) -> None:
    if path.is_symlink() or path.stat().st_uid != owner:
        raise Misconfigured(
            f"{path} belongs to another user (id {path.lstat().st_uid}, not {owner}): run Keyturn "
            "as the user who started it first, or set KEYTURN_DATA_DIR to a new directory"
        )
