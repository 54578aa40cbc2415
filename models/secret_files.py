"""Peppers and key-encryption keys in files named `<name>-<version>`, such as `pepper-1`.

A file whose name ends in `.next` is understood already, and nothing new is made with it: so a
version reaches every machine before the first row names it. Renamed, it is current.
"""

import base64
import binascii
import os
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from .errors import Misconfigured

NAMES: Final = ("pepper", "kek")
SECRET_LENGTH: Final = 32  # bytes; the least, and what `make` makes
LARGEST_FILE: Final = 4096  # bytes: many times what a secret needs
_VERSION = re.compile(r"([1-9][0-9]{0,8})(\.next)?")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Versions:
    """All versions of one secret that are at hand; what is new is made with `current`."""

    by_version: Mapping[int, bytes] = field(repr=False)
    current: int


def read_versioned(directory: Path, name: str) -> Versions:
    """The secrets of all files `<name>-<version>` in `directory`; the highest one is current.

    A file holds base64 of 32 or more bytes (what `openssl rand -base64 32` writes), or else 32 or
    more bytes that are taken as they are; white space at the ends of a text does not count.
    Raises Misconfigured, naming the file, if there is none but of `.next`, or one is misnamed,
    there twice, unreadable, short, empty, another user's, or open to group or others; and if others
    may write to the directory.
    """
    found: dict[int, bytes] = {}
    usable = []
    for path in _listed(directory, name):
        version, is_next = _version(path, name)
        if version in found:
            raise Misconfigured(f"{path} is there twice, with and without .next: remove one")
        found[version] = _secret(path)
        if not is_next:
            usable.append(version)
    if found and not usable:
        first = directory / f"{name}-{min(found)}"
        raise Misconfigured(f"{first}.next is not in use yet: rename it to {first}")
    if not found:
        path = directory / f"{name}-1"
        raise Misconfigured(f"{path} is missing: make it with {_recipe(path)}")
    return Versions(found, max(usable))


def lacking(directory: Path) -> list[str]:
    """Those of NAMES of which there is no file at all, whatever its state."""
    return [name for name in NAMES if not any(directory.glob(f"{name}-*"))]


def make(directory: Path, name: str) -> Path:
    """Make a secret of 32 random bytes (mode 0600): the first as `-1`, a later one as `.next`.

    What is there is never touched. Raises Misconfigured where it cannot be written.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        versions = [_version(path, name)[0] for path in _listed(directory, name)]
        ending = f"{max(versions) + 1}.next" if versions else "1"
        path = directory / f"{name}-{ending}"
        _write_new(path, base64.b64encode(secrets.token_bytes(SECRET_LENGTH)) + b"\n")
    except OSError as error:
        raise Misconfigured(
            f"cannot make a {name} in {directory} ({error.strerror}): make the directory writable "
            "for the user that runs this, and for nobody else"
        ) from None
    return path


def following(directory: Path, name: str) -> Path | None:
    """The newest file that ends in `.next`, understood and not used yet; None if there is none.

    Raises Misconfigured as `read_versioned` does.
    """
    found = read_versioned(directory, name)
    newest = max(found.by_version)
    return directory / f"{name}-{newest}.next" if newest > found.current else None


def use(path: Path) -> Path:
    """Rename a file that ends in `.next`: it is current from then on. Its new path.

    Raises Misconfigured where that cannot be done.
    """
    current = path.with_name(path.name.removesuffix(".next"))
    try:
        path.rename(current)
    except OSError as error:
        raise Misconfigured(
            f"cannot rename {path} to {current} ({error.strerror}): make the directory writable "
            "for the user that runs this, and for nobody else"
        ) from None
    return current


def mark(directory: Path) -> object:
    """Something that changes with the directory's files. Raises OSError."""
    with os.scandir(directory) as entries:
        stats = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    return sorted(
        (name, each.st_ino, each.st_size, each.st_mtime_ns, each.st_mode, each.st_uid)
        for name, each in stats
    )


def _listed(directory: Path, name: str) -> list[Path]:
    try:
        found = sorted(path for path in directory.iterdir() if path.name.startswith(f"{name}-"))
        check_directory(directory)
    except OSError as error:
        raise Misconfigured(
            f"cannot list {directory} ({error.strerror}): make the directory of the secrets, "
            "readable for the user that runs Keyturn"
        ) from None
    return found


def check_directory(directory: Path) -> None:
    """Raises Misconfigured where others may put files into it; OSError where it is none."""
    status = directory.stat()
    _check_owner(directory, status)
    if status.st_mode & _OTHERS_WRITE:
        raise Misconfigured(
            f"{directory} lets others put files into it: run `chmod go-w {directory}`"
        )


def _version(path: Path, name: str) -> tuple[int, bool]:
    match = _VERSION.fullmatch(path.name.removeprefix(f"{name}-"))
    if not match:
        raise Misconfigured(
            f"{path} has no version: name it {name}-1, {name}-2 and so on, or move it elsewhere"
        )
    return int(match[1]), match[2] is not None


def _secret(path: Path) -> bytes:
    content = read_private(path)
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


def read_private(path: Path) -> bytes:
    """The content of a file that nobody else can read or write; else raises Misconfigured.

    A link is followed: what it leads to is looked at, by the descriptor that is read.
    """
    try:
        # Without O_NONBLOCK a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _check_private(path, os.fstat(descriptor))
            return os.read(descriptor, LARGEST_FILE)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Misconfigured(
            f"cannot read {path} ({error.strerror}): make it a file of the user that runs Keyturn"
        ) from None


def open_private(path: Path) -> BinaryIO:
    """A file of any size that nobody else can read or write, opened; else raises Misconfigured."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _check_closed(path, os.fstat(descriptor))
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        raise Misconfigured(
            f"cannot read {path} ({error.strerror}): make it a file of the user that runs Keyturn"
        ) from None
    return os.fdopen(descriptor, "rb")


def _check_closed(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Misconfigured(f"{path} is not a file: move it elsewhere")
    _check_owner(path, status)
    if status.st_mode & _OTHERS:
        raise Misconfigured(f"{path} is open to group or others: run `chmod 600 {path}`")


def _check_private(path: Path, status: os.stat_result) -> None:
    _check_closed(path, status)
    if status.st_size > LARGEST_FILE:
        raise Misconfigured(
            f"{path} is larger than {LARGEST_FILE} bytes: make it with {_recipe(path)}"
        )


def _check_owner(path: Path, status: os.stat_result) -> None:
    """Whoever owns a file can read and replace it, whatever its mode: us, or root, who may all."""
    if status.st_uid not in (os.geteuid(), 0):
        raise Misconfigured(
            f"{path} belongs to another user (id {status.st_uid}): run "
            f"`chown {os.geteuid()} {path}`, or run Keyturn as its owner"
        )


def _write_new(path: Path, content: bytes) -> None:
    """Put a file in place, whole or not at all, and never in the place of another."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(new, path)
    finally:
        new.unlink(missing_ok=True)


def _decoded(text: bytes) -> bytes | None:
    try:
        decoded = base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error:
        return None
    return decoded if len(decoded) >= SECRET_LENGTH else None


def _recipe(path: Path) -> str:
    return f"`(umask 077; openssl rand -base64 {SECRET_LENGTH} > {path})`"
