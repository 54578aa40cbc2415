"""Whom the embedded servers run as: PostgreSQL refuses root, and Valkey does not need it."""

import os
import pwd
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from models.errors import Misconfigured

PREFERRED: Final = ("postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """A user of this machine without rights of its own."""

    name: str
    uid: int
    gid: int

    def arguments(self) -> dict[str, Any]:
        """What makes `subprocess` drop to this account, supplementary groups included."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def reaches(self, path: Path) -> bool:
        """Whether this account may enter the directory, or run the file, at `path`."""
        command = ["/bin/sh", "-c", 'test -x "$1"', "sh", str(path)]
        return subprocess.run(command, cwd="/", check=False, **self.arguments()).returncode == 0


def server_account() -> Account | None:
    """Whom to drop to: None for an ordinary user, whose servers run as that user.

    Raises Misconfigured where root may not change its user, as in some containers.
    """
    if os.geteuid() != 0:
        return None
    account = _first_known()
    try:
        account.reaches(Path("/"))
    except (OSError, subprocess.SubprocessError) as error:
        raise Misconfigured(
            f"root may not run the embedded servers as {account.name!r} here ({error}): run "
            "Keyturn as an ordinary user, or set KEYTURN_DATABASE_URL and KEYTURN_BROKER_URL to "
            "servers of your own"
        ) from None
    return account


def _first_known() -> Account:
    for name in PREFERRED:
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            if entry.pw_uid != 0:
                return Account(name, entry.pw_uid, entry.pw_gid)
    raise Misconfigured(
        f"root cannot run PostgreSQL and this machine has no user {' or '.join(PREFERRED)}: add "
        "one (`useradd --system postgres`), or run Keyturn as an ordinary user"
    )
