"""PostgreSQL and Valkey without an installation: `make run` starts them, commands find them."""

from .home import Home, find_home
from .process import EmbeddedFailed
from .state import Embedded, running

__all__ = ["Embedded", "EmbeddedFailed", "Home", "find_home", "running"]
