"""Reads peppers and key-encryption keys from files named `<name>-<version>`, such as `pepper-1`."""

import base64
import binascii
import os
import re
import stat
from pathlib import Path
from typing import Final

from .errors import Misconfigured

SECRET_LENGTH: Final = 32  # the least, in bytes
LARGEST_FILE: Final = 4096  # bytes: many times what a secret needs
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read_versioned(directory: Path, name: str) -> dict[int, bytes]:
    """The secrets of all files `<name>-<version>` in `directory`, by version.

    A file holds base64 of 32 or more bytes (what `openssl rand -base64 32` writes), or else 32 or
    more bytes that are taken as they are; white space at the ends of a text does not count.
    Raises Misconfigured, naming the file, if there is none, or one is misnamed, unreadable, short,
    empty, or open to group or others.
    """
    try:
        found = sorted(path for path in directory.iterdir() if path.name.startswith(f"{name}-"))
    except OSError as error:
        raise Misconfigured(
            f"cannot list {directory} ({error.strerror}): make the directory of the secrets, "
            "readable for the user that runs Keyturn"
        ) from None
    if not found:
        path = directory / f"{name}-1"
        raise Misconfigured(f"{path} is missing: make it with {_recipe(path)}")
    return {_version(path, name): _secret(path) for path in found}


def _version(path: Path, name: str) -> int:
    version = path.name.removeprefix(f"{name}-")
    if not _VERSION.fullmatch(version):
        raise Misconfigured(
            f"{path} has no version: name it {name}-1, {name}-2 and so on, or move it elsewhere"
        )
    return int(version)


def _secret(path: Path) -> bytes:
    content = _read_private(path)
    if not content.isascii():
        secret = content  # bytes, not text: a byte that looks like a line's end belongs to it
    else:
        text = content.strip()
        secret = _decoded(text) or text
    if len(secret) < SECRET_LENGTH:
        fault = "too short" if secret else "empty"
        raise Misconfigured(
            f"{path} is {fault}: a secret has {SECRET_LENGTH} bytes or more, "
            f"make one with {_recipe(path)}"
        )
    return secret


def _read_private(path: Path) -> bytes:
    try:
        _check_private(path, path.stat())  # before it is opened: a pipe would wait for its writer
        return path.read_bytes()
    except OSError as error:
        raise Misconfigured(
            f"cannot read {path} ({error.strerror}): make it a file of the user that runs Keyturn"
        ) from None


def _check_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Misconfigured(f"{path} is not a file: move it elsewhere")
    if status.st_mode & _OTHERS:
        raise Misconfigured(f"{path} is open to group or others: run `chmod 600 {path}`")
    if status.st_size > LARGEST_FILE:
        raise Misconfigured(
            f"{path} is larger than {LARGEST_FILE} bytes: make it with {_recipe(path)}"
        )


def _decoded(text: bytes) -> bytes | None:
    try:
        decoded = base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error:
        return None
    return decoded if len(decoded) >= SECRET_LENGTH else None


def _recipe(path: Path) -> str:
    return f"`(umask 077; openssl rand -base64 {SECRET_LENGTH} > {path})`"
