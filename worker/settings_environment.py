"""What is read of this process's environment beside the settings, for others."""

import os
from collections.abc import Mapping
from typing import Final

PLAIN: Final = ("PATH", "HOME", "LANG")


def plain_environment() -> Mapping[str, str]:
    """What any program needs. No setting is in it: those hold passwords of servers."""
    return {name: os.environ[name] for name in PLAIN if name in os.environ}


def variable_of(name: str) -> str:
    """A variable that an operator named, such as one with an address; empty where it is not set."""
    return os.environ.get(name, "").strip()
