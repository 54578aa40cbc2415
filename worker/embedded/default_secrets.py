"""The secrets of an installation that nobody has given any: made once, at the first start."""

import base64
import secrets
from pathlib import Path
from typing import Final

from .home import Home
from .process import write_private

NAMES: Final = ("pepper-1", "kek-1")


def make_default_secrets(home: Home) -> Path:
    """The directory of the secrets, with a pepper and a key-encryption key of 32 random bytes.

    Nothing is made for a database that is there already: keys under a lost pepper are dead, and a
    new one in its place would only hide why.
    """
    directory = home.own_directory("secrets")
    if not (home.path / "postgres").exists():
        for name in NAMES:
            if not list(directory.glob(f"{name.partition('-')[0]}-*")):
                text = base64.b64encode(secrets.token_bytes(32)).decode()
                write_private(directory / name, f"{text}\n")
    return directory
