"""The text of an API key: how it is made, recognised, hidden and stored (rule 1.1).

A text is `<prefix>_<27 random characters><6 characters of checksum>`, both in base62. The checksum
is the CRC-32 of all that stands before it. It is there for typing errors and for scanners that
search code for keys; it keeps nobody from forging a text, and the look-up of the digest does.
"""

import hashlib
import hmac
import re
import secrets
import string
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn, final

from .errors import Misconfigured

SCHEME_HMAC: Final = "hmac-sha256"
"""Stored digest is HMAC-SHA-256(pepper, SHA-256(text)): every key that Keyturn minted."""

SCHEME_SHA256: Final = "sha256"
"""Stored digest is a bare SHA-256(text), as another system kept it."""

ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
ENTROPY_LENGTH: Final = 27  # 62**27 is a little over 2**160, the least that rule 1.1 allows
CHECKSUM_LENGTH: Final = 6  # 62**6 is over 2**32, so that every CRC-32 fits
PREFIX_LIMIT: Final = 24
HINT_LENGTH: Final = 4
PEPPER_LENGTH: Final = 32  # the least, in bytes: RFC 2104 wants no key shorter than its hash
VERSION_LIMIT: Final = 32_767  # of peppers and key-encryption keys: rows keep 16 bits of it

_PREFIX = re.compile(rf"[a-z][a-z0-9_]{{0,{PREFIX_LIMIT - 1}}}")
_KEY = re.compile(rf"({_PREFIX.pattern})_[0-9A-Za-z]{{{ENTROPY_LENGTH + CHECKSUM_LENGTH}}}")
_LONGEST_INPUT = 256  # a key has at most 58 characters; the rest is for surrounding white space
_FOREIGN = re.compile(r"[!-~]{16,1024}")
_LONGEST_FOREIGN = 1024 + _LONGEST_INPUT

# Three look-ups make six digits: `parse` runs on every request that a product serves.
_PAIRS = [high + low for high in ALPHABET for low in ALPHABET]
_SQUARE = len(_PAIRS)


class NotPickled:
    """Refuses to be pickled or copied, so that secrets do not reach queues, caches and dumps."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} is never pickled or copied: pass it on as it is")

    def __getstate__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} has no state to take: pass it on as it is")


@final
class Secret(NotPickled):
    """A text that shows itself only when asked by `reveal`.

    `repr`, `str` and formatting give its hint at most, so that logs and tracebacks stay clean.
    Secrets compare in constant time and cannot be keys of a dict or members of a set.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself: for the one moment when its holder is shown it, or it is hashed."""
        return self._text

    def __repr__(self) -> str:
        # Four characters of a short text would be much of it.
        short = len(self._text) < 4 * HINT_LENGTH
        return "<secret>" if short else f"<secret ...{hint(self._text)}>"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_encoded(self._text), _encoded(other._text))


@final
class Peppers(NotPickled):
    """The secrets that are mixed into every digest, by version; new digests use the current one.

    Raises Misconfigured if there is none, a version is not in 1 to 32767, a pepper has fewer
    than 32 bytes, or the current one is not among them.
    """

    __slots__ = ("_by_version", "current")

    def __init__(self, by_version: Mapping[int, bytes], current: int | None = None) -> None:
        """`current` is the highest version, unless another one is named."""
        if not by_version:
            raise Misconfigured("there is no pepper: give at least one, as version 1")
        for version, pepper in by_version.items():
            _check_pepper(version, pepper)
        self.current: int = max(by_version) if current is None else current
        ordered = sorted(by_version, key=lambda version: (version != self.current, -version))
        self._by_version = {version: bytes(by_version[version]) for version in ordered}
        _ = self[self.current]

    @property
    def versions(self) -> tuple[int, ...]:
        """All versions at hand, the current one first."""
        return tuple(self._by_version)

    def __getitem__(self, version: int) -> bytes:
        """The pepper of a version; raises Misconfigured if it is not at hand."""
        try:
            return self._by_version[version]
        except KeyError:
            raise Misconfigured(
                f"pepper {version} is missing: bring its file back, stored keys still need it"
            ) from None

    def __repr__(self) -> str:
        return f"<Peppers {', '.join(map(str, self.versions))}>"


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """A text that has the form and the checksum of a key. Whether such a key exists is open."""

    prefix: str
    secret: Secret


def check_prefix(prefix: str) -> str:
    """Gives `prefix` back if keys may begin with it; raises Misconfigured if not."""
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        raise Misconfigured(
            "the prefix of keys is not usable: write a small letter, then small letters, digits "
            f"or underscores, at most {PREFIX_LIMIT} characters, such as kt_live"
        )
    return prefix


def check_version(version: int) -> int:
    """Gives `version` back if a pepper or key-encryption key may have it; or Misconfigured."""
    if (
        isinstance(version, bool)
        or not isinstance(version, int)
        or not 0 < version <= VERSION_LIMIT
    ):
        raise Misconfigured(
            f"the version of a secret is not usable: use whole numbers from 1 to {VERSION_LIMIT}"
        )
    return version


def mint(prefix: str) -> Secret:
    """A new key text, from the operating system's randomness. Raises Misconfigured by prefix."""
    entropy = "".join(secrets.choice(ALPHABET) for _ in range(ENTROPY_LENGTH))
    body = f"{check_prefix(prefix)}_{entropy}"
    return Secret(body + _checksum(body))


def parse(text: object, prefix: str | None = None) -> ParsedKey | None:
    """The key that `text` holds, or None if it cannot be one; needs no look-up, never raises.

    White space around the text is forgiven, nothing else is. With `prefix`, keys that begin with
    another one are no keys.
    """
    if not isinstance(text, str) or len(text) > _LONGEST_INPUT:
        return None
    stripped = text.strip()
    found = _KEY.fullmatch(stripped)
    if found is None or (prefix is not None and found[1] != prefix):
        return None
    if stripped[-CHECKSUM_LENGTH:] != _checksum(stripped[:-CHECKSUM_LENGTH]):
        return None
    return ParsedKey(found[1], Secret(stripped))


def foreign(text: object, prefix: str) -> Secret | None:
    """The text of a key that another system made, or None if it cannot be one; never raises.

    Such a key is 16 to 1,024 visible ASCII characters and does not begin with our own `prefix`:
    what does is a key of ours with a typo, or one of ours. White space around it is forgiven.
    """
    if not isinstance(text, str) or len(text) > _LONGEST_FOREIGN:
        return None
    stripped = text.strip()
    if not _FOREIGN.fullmatch(stripped) or stripped.startswith(f"{prefix}_"):
        return None
    return Secret(stripped)


def read(text: object, prefix: str) -> Secret | None:
    """The text of a key of ours or of another system's; None if it can be neither."""
    parsed = parse(text)
    return parsed.secret if parsed else foreign(text, prefix)


def hint(text: str) -> str:
    """The last 4 characters, by which people tell keys apart. They are checksum, not entropy."""
    return text[-HINT_LENGTH:]


def digest(text: str, pepper: bytes) -> bytes:
    """The 32 bytes that are stored for a key text (scheme `hmac-sha256`)."""
    return digest_of_hash(hashlib.sha256(_encoded(text)).digest(), pepper)


def digest_of_hash(sha256: bytes, pepper: bytes) -> bytes:
    """The same for one who knows only SHA-256(text): an import, or a report of a leaked hash."""
    return hmac.digest(pepper, sha256, "sha256")


def digests(text: str, peppers: Peppers) -> list[bytes]:
    """The digests of a text under all peppers, the current one first: one of them is stored."""
    sha256 = hashlib.sha256(_encoded(text)).digest()
    return [digest_of_hash(sha256, peppers[version]) for version in peppers.versions]


def _checksum(body: str) -> str:
    crc = zlib.crc32(body.encode("ascii"))
    rest, low = divmod(crc, _SQUARE)
    high, middle = divmod(rest, _SQUARE)
    return _PAIRS[high] + _PAIRS[middle] + _PAIRS[low]


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # any text a caller may pass has a digest


def _check_pepper(version: int, pepper: bytes) -> None:
    check_version(version)
    if not isinstance(pepper, (bytes, bytearray)) or len(pepper) < PEPPER_LENGTH:
        raise Misconfigured(
            f"pepper {version} is too short: it needs {PEPPER_LENGTH} bytes or more, "
            f"make one with `openssl rand -base64 {PEPPER_LENGTH}`"
        )
