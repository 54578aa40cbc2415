"""Compressed messages, unpacked up to a bound: a kilobyte can hold a gigabyte.

Celery producers may compress (`compression="gzip"`); kombu would unpack whatever comes, whole.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any, Final, NoReturn

from kombu import compression

LARGEST: Final = 4 * 1024 * 1024
"""Bytes of a message when unpacked; an event has at most a quarter of it."""

_LZMA_MEMORY: Final = 64 * 1024 * 1024

_KNOWN: Final[dict[str, Callable[[], Any]]] = {
    "application/x-gzip": zlib.decompressobj,
    "application/x-bz2": bz2.BZ2Decompressor,
    "application/x-lzma": lambda: lzma.LZMADecompressor(memlimit=_LZMA_MEMORY),
}


def bound() -> None:
    """Take kombu's way of unpacking messages out of use in this process, in favour of ours."""
    for kind in compression.encoders():
        encode, _ = compression.get_encoder(kind)
        compression.register(encode, _bounded(_KNOWN[kind]) if kind in _KNOWN else _refuse, kind)


def _bounded(start: Callable[[], Any]) -> Callable[[bytes], bytes]:
    def unpack(body: bytes) -> bytes:
        whole: bytes = start().decompress(body, LARGEST + 1)
        if len(whole) > LARGEST:
            raise ValueError(f"unpacked, the message has over {LARGEST} bytes")
        return whole

    return unpack


def _refuse(body: bytes) -> NoReturn:
    raise ValueError("messages may be compressed by gzip, bzip2 or lzma only")
