"""The public key of an account, to which its new keys can be sealed (RFC 7517, RFC 7518)."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from . import audit, holds, outbox
from .base import Tx
from .errors import Refused

RSA_LEAST: Final = 2048
"""Bits. RFC 7518, section 4.3 demands as many; shorter ones have been factored, or soon may be."""
RSA_MOST: Final = 8192  # bits; beyond, one encryption takes long enough to hold a worker up
LONGEST: Final = 16_384  # characters of a key in any form
ALGORITHMS: Final = {"RSA": "RSA-OAEP-256", "EC": "ECDH-ES+A256KW", "OKP": "ECDH-ES+A256KW"}
"""By the type of key, how a new key is sealed to it."""

_CURVES: Final[Mapping[str, ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_KEPT: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")
_ACCEPTED: Final = f"RSA of {RSA_LEAST} to {RSA_MOST} bits, EC on P-256, P-384 or P-521, or X25519"

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | X25519PublicKey
Jwk = dict[str, str]


def read(text: str) -> Jwk:
    """The public key of a text in PEM (SubjectPublicKeyInfo) or JSON (a JSON Web Key).

    The answer has what makes the key, and `kid`: its own, or its thumbprint (RFC 7638). Refused as
    `public_key_private` where a private key was given, and as `public_key_invalid`.
    """
    if len(text) > LONGEST:
        raise _invalid(f"the text is too long: a public key has at most {LONGEST} characters")
    if text.lstrip().startswith("{"):
        return _of_json(text)
    return _of_pem(text)


def _of_pem(text: str) -> Jwk:
    if "PRIVATE KEY" in text:
        raise _private("`openssl pkey -in FILE -pubout` prints its public half")
    if "BEGIN CERTIFICATE" in text:
        raise _invalid(
            "this is a certificate: give the key in it, `openssl x509 -in FILE -noout -pubkey`"
        )
    try:
        found = load_pem_public_key(text.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _invalid(
            "this is no public key in PEM (BEGIN PUBLIC KEY) and no JSON Web Key"
        ) from None
    if not isinstance(found, PublicKey):
        raise _invalid("keys of this kind only sign, nothing can be sealed to them")
    return _checked(found, None)


def _of_json(text: str) -> Jwk:
    try:
        jwk = json.loads(text)
    except (ValueError, RecursionError):
        raise _invalid("the text begins like JSON, and is none") from None
    if "keys" in jwk:
        raise _invalid("this is a set of keys: give one of them")
    if _PRIVATE & jwk.keys():
        raise _private("remove all members but kty, crv, x, y, n, e and kid")
    wanted = ALGORITHMS.get(str(jwk.get("kty")))
    if jwk.get("use", "enc") != "enc":
        raise _invalid("its `use` is not `enc`: it is not meant to seal to")
    if wanted is not None and jwk.get("alg", wanted) != wanted:
        raise _invalid(f"its `alg` is not {wanted}, which is what Keyturn seals with")
    kid = jwk.get("kid")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= 200 and kid.isprintable()):
        raise _invalid("its `kid` is no text of 1 to 200 printable characters")
    try:
        found = _loaded(jwk)
    except Refused:
        raise
    except (KeyError, ValueError, TypeError):
        raise _invalid("its members do not make a public key: is it whole?") from None
    return _checked(found, kid)


def _loaded(jwk: Mapping[str, Any]) -> PublicKey:
    match jwk.get("kty"), jwk.get("crv"):
        case "RSA", None:
            numbers = rsa.RSAPublicNumbers(_number(jwk["e"]), _number(jwk["n"]))
            return numbers.public_key()
        case "EC", str(curve) if curve in _CURVES:
            point = ec.EllipticCurvePublicNumbers(
                _number(jwk["x"]), _number(jwk["y"]), _CURVES[curve]
            )
            return point.public_key()
        case "OKP", "X25519":
            return X25519PublicKey.from_public_bytes(_bytes(jwk["x"]))
    raise _invalid(f"keys of this kind are not accepted: give {_ACCEPTED}")


def _checked(found: PublicKey, kid: str | None) -> Jwk:
    """The members of a key that is fit to be sealed to."""
    jwk: Jwk
    match found:
        case rsa.RSAPublicKey():
            if not RSA_LEAST <= found.key_size <= RSA_MOST:
                raise _invalid(
                    f"an RSA key of {found.key_size} bits: give one of {RSA_LEAST} to {RSA_MOST}"
                    " bits, as RFC 7518 demands and as is not yet known to be broken"
                )
            numbers = found.public_numbers()
            jwk = {"kty": "RSA", "n": _text_of(numbers.n), "e": _text_of(numbers.e)}
        case ec.EllipticCurvePublicKey():
            names = {type(curve): name for name, curve in _CURVES.items()}
            name = names.get(type(found.curve))
            if name is None:
                raise _invalid(f"a key on {found.curve.name}: give {_ACCEPTED}")
            point, length = found.public_numbers(), (found.key_size + 7) // 8
            x, y = _text_of(point.x, length), _text_of(point.y, length)
            jwk = {"kty": "EC", "crv": name, "x": x, "y": y}
        case X25519PublicKey():
            try:  # a point of small order gives everybody the same secret (RFC 7748, section 6.1)
                X25519PrivateKey.generate().exchange(found)
            except ValueError:
                raise _invalid("this X25519 key keeps no secret: make a new one") from None
            x = _text(found.public_bytes(Encoding.Raw, PublicFormat.Raw))
            jwk = {"kty": "OKP", "crv": "X25519", "x": x}
    return {**jwk, "kid": kid or thumbprint(jwk)}


def thumbprint(jwk: Mapping[str, str]) -> str:
    """What tells one public key from another (RFC 7638)."""
    members = {name: jwk[name] for name in ("kty", *_KEPT[jwk["kty"]])}
    written = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return _text(hashlib.sha256(written.encode()).digest())


def bits(jwk: Mapping[str, str]) -> int:
    """The length of an RSA key."""
    return _number(jwk["n"]).bit_length()


def of_account(tx: Tx, account_id: UUID) -> Jwk | None:
    """The public key of an account, if it has one."""
    found: Jwk | None = tx.scalar(
        "SELECT public_key FROM keyturn.accounts WHERE id = :id", id=account_id
    )
    return found


def register(tx: Tx, account_id: UUID, jwk: Jwk | None, *, actor: str) -> bool:
    """Seal new keys of an account to this key from now on, or to none; False where it was so.

    Its owner is told of each change.
    """
    holds.lock_accounts(tx, [account_id])
    before = of_account(tx, account_id)
    if before == jwk:
        return False
    tx.execute(
        "UPDATE keyturn.accounts SET public_key = CAST(:jwk AS jsonb) WHERE id = :id",
        id=account_id,
        jwk=None if jwk is None else json.dumps(jwk),
    )
    audit.record(
        tx,
        actor,
        "account.public_key",
        account_id=account_id,
        before=None if before is None else thumbprint(before),
        after=None if jwk is None else thumbprint(jwk),
    )
    _tell(tx, account_id, before, jwk, actor)
    return True


def _tell(tx: Tx, account_id: UUID, before: Jwk | None, now: Jwk | None, actor: str) -> None:
    """Tell the owner: who registers a key of their own gets the next new key."""
    payload = {
        "account": tx.scalar("SELECT email FROM keyturn.accounts WHERE id = :id", id=account_id),
        "kid": now and now["kid"],
        "thumbprint": now and thumbprint(now),
        "before": before and thumbprint(before),
        "by": actor,
        "at": tx.now().isoformat(),
    }
    outbox.add(
        tx,
        outbox.MAIL,
        "account.public_key",
        payload,
        account_id=account_id,
        priority=outbox.URGENT,
    )


def _number(value: str) -> int:
    return int.from_bytes(_bytes(value), "big")


def _bytes(value: str) -> bytes:
    if not _BASE64URL.fullmatch(value):
        raise ValueError("not base64url")
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))


def _text_of(number: int, length: int = 0) -> str:
    return _text(number.to_bytes(length or (number.bit_length() + 7) // 8, "big"))


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _private(mend: str) -> Refused:
    return Refused(
        "public_key_private",
        "this is a private key, or a shared one: nobody but its owner should have it, so make"
        f" another pair if it is kept elsewhere. Give the public key; {mend}",
    )


def _invalid(why: str) -> Refused:
    return Refused("public_key_invalid", f"{why}; what is accepted: {_ACCEPTED}")
