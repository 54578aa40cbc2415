"""Seals the text of a successor key until its holder fetches it (rule 5.3).

AES-256-GCM (NIST SP 800-38D) under a versioned key-encryption key. A box opens only under the key
version, API key, account and rotation that it was sealed for: a row copied elsewhere stays shut.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .errors import Misconfigured
from .key_text import NotPickled, Secret, check_version

KEK_LENGTH: Final = 32  # bytes: AES-256
_NONCE_LENGTH = 12  # bytes: 96 bits, SP 800-38D section 8.2.2; good for 2**32 boxes of one key
_TAG_LENGTH = 16
_PURPOSE = b"keyturn sealed secret 1\0"


class UnknownKek(Misconfigured):
    """A box names a key-encryption key that is not at hand. Bring its file back, or wait for the
    box to end and start the rotation again.
    """


class BrokenSeal(Exception):
    """A box was altered, or sealed for another key, account or rotation. It cannot be mended:
    cancel the rotation and start a new one.
    """


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed secret as it is stored: the version of its key, then nonce, ciphertext and tag."""

    kek: int
    box: bytes = field(repr=False)


@final
class Sealer(NotPickled):
    """Seals and opens secrets; seals under the current version, opens under each at hand.

    Raises Misconfigured if there is no key, a version is not in 1 to 32767, a key does not have
    32 bytes, or the current one is not among them.
    """

    __slots__ = ("_ciphers", "current")

    def __init__(self, keys: Mapping[int, bytes], current: int | None = None) -> None:
        """`current` is the highest version, unless another one is named."""
        if not keys:
            raise Misconfigured("there is no key-encryption key: give at least one, as version 1")
        for version, key in keys.items():
            _check_kek(version, key)
        self._ciphers = {version: AESGCM(bytes(key)) for version, key in keys.items()}
        self.current: int = max(keys) if current is None else current
        if self.current not in self._ciphers:
            raise UnknownKek(f"key-encryption key {self.current} is missing: bring its file back")

    @property
    def versions(self) -> tuple[int, ...]:
        """All versions at hand, the current one first."""
        return tuple(sorted(self._ciphers, key=lambda one: (one != self.current, -one)))

    def seal(self, secret: Secret, *, key_id: UUID, account_id: UUID, rotation_id: UUID) -> Sealed:
        """The secret in a box for these three. The same secret never makes the same box twice."""
        bound = _bound(self.current, key_id, account_id, rotation_id)
        nonce = os.urandom(_NONCE_LENGTH)
        content = secret.reveal().encode()
        box = nonce + self._ciphers[self.current].encrypt(nonce, content, bound)
        return Sealed(self.current, box)

    def open(self, sealed: Sealed, *, key_id: UUID, account_id: UUID, rotation_id: UUID) -> Secret:
        """The secret in the box.

        Raises UnknownKek if its key is not at hand, BrokenSeal if it was altered or is not for
        these three.
        """
        cipher = self._ciphers.get(sealed.kek)
        if cipher is None:
            raise UnknownKek(
                f"key-encryption key {sealed.kek} is missing: bring its file back, or cancel the "
                "rotation and start a new one"
            )
        nonce, content = sealed.box[:_NONCE_LENGTH], sealed.box[_NONCE_LENGTH:]
        try:
            if len(content) < _TAG_LENGTH:
                raise InvalidTag
            bound = _bound(sealed.kek, key_id, account_id, rotation_id)
            return Secret(cipher.decrypt(nonce, content, bound).decode())
        except InvalidTag:
            raise BrokenSeal(
                f"the sealed secret of rotation {rotation_id} was altered or belongs elsewhere: "
                "cancel the rotation and start a new one"
            ) from None

    def __repr__(self) -> str:
        return f"<Sealer {', '.join(map(str, self.versions))}>"


def _bound(kek: int, *ids: UUID) -> bytes:
    # All parts have a fixed width, so that no two sets of ids give the same bytes.
    return _PURPOSE + kek.to_bytes(8, "big") + b"".join(each.bytes for each in ids)


def _check_kek(version: int, key: bytes) -> None:
    check_version(version)
    if not isinstance(key, (bytes, bytearray)) or len(key) != KEK_LENGTH:
        raise Misconfigured(
            f"key-encryption key {version} must have exactly {KEK_LENGTH} bytes: "
            f"make one with `openssl rand -base64 {KEK_LENGTH}`"
        )
