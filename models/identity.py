"""Identifiers of rows."""

import secrets
import time
from uuid import UUID


def new_id() -> UUID:
    """A new UUID of version 7 (RFC 9562, section 5.7): later ids sort later, so indexes stay dense.

    The time in it is this machine's and only a hint: lists show the newest first by it, a look at
    what is new begins some minutes earlier; nothing is dated by it.
    """
    milliseconds = time.time_ns() // 1_000_000
    random = secrets.randbits(74)
    return UUID(
        int=(milliseconds & (1 << 48) - 1) << 80
        | 0x7 << 76
        | (random >> 62) << 64
        | 0b10 << 62
        | random & (1 << 62) - 1
    )
