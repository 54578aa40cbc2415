"""`python -m worker.first_secrets`: the first pepper and key-encryption key of an installation.

Run after `keyturn migrate`. Safe to repeat: what is there is never touched, and nothing is made
for a database that has keys already. Keys under a lost pepper are dead, and a new pepper in its
place would only hide why.
"""

import base64
import secrets
import sys
from pathlib import Path

from models.errors import Misconfigured
from models.operator import Operator
from worker import setup
from worker.embedded.default_secrets import NAMES
from worker.embedded.process import write_private
from worker.settings import load_settings


def make_first_secrets(operator: Operator, directory: Path) -> list[Path]:
    """Make what is missing of `pepper-1` and `kek-1` (mode 0600); returns what was made.

    Raises Misconfigured where something is missing and the database has keys, and where the
    directory cannot be written.
    """
    missing = [name for name in NAMES if not _has_any(directory, name)]
    if missing and operator.keys(limit=1):
        raise Misconfigured(
            f"{' and '.join(missing)} are missing in {directory}, but the database has keys that "
            "were made with them: put the files back from your backup"
        )
    return [_make(directory / name) for name in missing]


def _has_any(directory: Path, name: str) -> bool:
    kind = name.partition("-")[0]
    return any(directory.glob(f"{kind}-*"))


def _make(path: Path) -> Path:
    text = base64.b64encode(secrets.token_bytes(32)).decode()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, f"{text}\n")
    except OSError as error:
        raise Misconfigured(
            f"cannot write {path} ({error.strerror}): make its directory writable for the user "
            "that runs this"
        ) from None
    return path


def main() -> None:
    """Make the secrets of this installation; ends with exit code 1 and a line where it may not."""
    try:
        settings = load_settings()
        with setup.operator(settings, "operator:first_secrets") as operator:
            made = make_first_secrets(operator, settings.secrets_dir)
    except Misconfigured as error:
        sys.exit(f"first_secrets: {error}")
    names = ", ".join(str(path) for path in made)
    sys.stdout.write(f"made {names}\n" if made else "the secrets are there already\n")


if __name__ == "__main__":
    main()
