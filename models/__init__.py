"""Keyturn's domain, and the library that products import as `keyturn`."""

from .api_keys import ApiKey
from .client import Client, NewKey
from .creation import TimeUnit
from .errors import Misconfigured, NotFound, Refused
from .key_text import Secret
from .keyring import Keyring
from .policy import Policy
from .recording import Rejected, Reported, Use
from .rotations import Claimed, Rotation
from .verification import REASONS, Verdict

__all__ = [
    "REASONS",
    "ApiKey",
    "Claimed",
    "Client",
    "Keyring",
    "Misconfigured",
    "NewKey",
    "NotFound",
    "Policy",
    "Refused",
    "Rejected",
    "Reported",
    "Rotation",
    "Secret",
    "TimeUnit",
    "Use",
    "Verdict",
]
