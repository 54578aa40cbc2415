"""The secrets of an installation that nobody has given any: made once, at the first start."""

from pathlib import Path

from models.secret_files import lacking, make

from .home import Home


def make_default_secrets(home: Home) -> Path:
    """The directory of the secrets, with a pepper and a key-encryption key of 32 random bytes.

    Nothing is made for a database that is there already: keys under a lost pepper are dead, and a
    new one in its place would only hide why.
    """
    directory = home.own_directory("secrets")
    if not (home.path / "postgres").exists():
        for name in lacking(directory):
            make(directory, name)
    return directory
