"""How a `keyturn` command in another terminal finds the servers that `keyturn up` started."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from models.errors import Misconfigured

from .home import Home, find_home
from .process import Identity, write_private

_FILE: Final = "state.json"


@dataclass(frozen=True)
class Embedded:
    """What a running `keyturn up` works with. The URLs may hold passwords."""

    data_dir: Path
    database_url: str
    broker_url: str
    secrets_dir: Path


def running(data_dir: Path | None = None) -> Embedded | None:
    """What runs on `data_dir` (KEYTURN_DATA_DIR, or else the default place) now, or None.

    Raises Misconfigured where it belongs to another user.
    """
    try:
        path = find_home(data_dir).path
        content = json.loads((path / _FILE).read_text())
        alive = all(Identity(**process).alive() for process in content["processes"])
    except PermissionError:
        raise Misconfigured(
            f"the servers with their data in {path} belong to another user: run this command as "
            "the user who started them, or set KEYTURN_DATABASE_URL and KEYTURN_BROKER_URL"
        ) from None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    urls = (content["database_url"], content["broker_url"])
    return Embedded(path, *urls, Path(content["secrets_dir"])) if alive else None


def announce(embedded: Embedded, processes: Sequence[Identity]) -> None:
    """Let `running` answer with this for as long as all of `processes` run."""
    content = {name: str(value) for name, value in asdict(embedded).items()}
    listed = [asdict(process) for process in processes]
    write_private(embedded.data_dir / _FILE, json.dumps({**content, "processes": listed}))


def withdraw(home: Home) -> None:
    """Take the announcement back."""
    (home.path / _FILE).unlink(missing_ok=True)
