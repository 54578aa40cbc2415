"""`python -m worker.first_secrets`: the first pepper and key-encryption key of an installation.

Run after `keyturn migrate`. Safe to repeat: what is there is never touched, and nothing is made
for a database that has keys already. Keys under a lost pepper are dead, and a new pepper in its
place would only hide why.
"""

import sys
from pathlib import Path

from models.errors import Misconfigured
from models.operator import Operator
from models.secret_files import lacking, make
from worker import setup
from worker.settings import load_settings


def make_first_secrets(operator: Operator, directory: Path) -> list[Path]:
    """Make what is missing of `pepper-1` and `kek-1` (mode 0600); returns what was made.

    Raises Misconfigured where something is missing and the database has keys, and where the
    directory cannot be written.
    """
    missing = lacking(directory)
    if missing and operator.keys(limit=1):
        names = " and ".join(f"{name}-1" for name in missing)
        raise Misconfigured(
            f"{names} are missing in {directory}, but the database has keys that were made with "
            "them: put the files back from your backup"
        )
    return [make(directory, name) for name in missing]


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
