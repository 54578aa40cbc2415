"""Packages that only some sinks need: loaded at the first use, looked for at the start."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from models.errors import Misconfigured


def needed(package: str, extra: str) -> None:
    """Raises Misconfigured where a package is not installed, and says which extra has it."""
    if find_spec(package) is None:
        raise Misconfigured(
            f"a sink of kind {extra} needs the package {package}: install the extras, by "
            f"`make install EXTRAS=1` or `pip install 'keyturn-worker[{extra}]'`"
        )


def loaded(module: str) -> Any:
    """A module of such a package; these ship no types."""
    return import_module(module)
