"""Signed tokens (JWS, RFC 7515): as the message itself, or beside it with the body's digest.

No token says where its keys are: `jku`, `x5u`, `jwk` and `x5c` in its header are not looked at.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key, OctKey

from worker.intake.providers.reading import MAX_BODY, Unreadable, json_value
from worker.intake.verification.message import Message, Unverified
from worker.intake.verification.public_keys import PublicKeys
from worker.intake.verification.shared_secrets import SharedSecrets
from worker.setting_proofs import FusionAuthProof, JwsProof

MAX_KEYS: Final = 100
LEAST_RSA: Final = 2048  # bits; less is not to be trusted (RFC 7518, 3.3)
SHARED: Final = ("HS256", "HS384", "HS512")

_KINDS: Final = {
    "RS": ("RSA", None),
    "PS": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
    "Ed25519": ("OKP", "Ed25519"),
    "HS": ("oct", None),
}
_WRONG: Final = "the token's signature is wrong: it was altered, or signed with another key"


@dataclass(frozen=True)
class NamedKey:
    """A key, and what it says of itself."""

    kid: str | None
    algorithm: str | None
    kind: tuple[str, str | None]
    key: Key

    def fits(self, algorithm: str) -> bool:
        """Whether a signature by `algorithm` can have been made with it."""
        wanted = _KINDS.get(algorithm) or _KINDS.get(algorithm[:2])
        return wanted == self.kind and self.algorithm in (None, algorithm)


@dataclass(frozen=True)
class Token:
    """A token whose signature has not been looked at yet."""

    content: jws.CompactSignature
    algorithm: str
    kid: str | None
    typ: str
    registry: jws.JWSRegistry

    def check(self, keys: Iterable[NamedKey]) -> dict[str, Any]:
        """Its claims; Unverified unless one of the keys has signed it."""
        if not any(self._signed_with(key.key) for key in keys if key.fits(self.algorithm)):
            raise Unverified(_WRONG)
        try:
            claims = json_value(self.content.payload)
        except Unreadable as error:
            raise Unverified(f"what the token signs is no JSON: {error.message}") from None
        if not isinstance(claims, dict):
            raise Unverified("what the token signs is no JSON object")
        return claims

    def _signed_with(self, key: Key) -> bool:
        try:
            return jws.validate_compact(self.content, key, registry=self.registry)
        except (JoseError, ValueError, TypeError):
            return False


def read_token(raw: bytes, algorithms: Sequence[str]) -> Token:
    """The parts of a compact JWS; Unverified where it is none, or by no algorithm of these."""
    registry = jws.JWSRegistry(algorithms=list(algorithms), strict_check_header=False)
    registry.max_header_length = 16 * 1024
    registry.max_payload_length = 2 * MAX_BODY
    registry.max_signature_length = 2048
    try:
        content = jws.extract_compact(raw, registry=registry)
        header = content.headers()
        registry.check_header(header)
    except (JoseError, ValueError, TypeError, RecursionError):
        raise Unverified("it is no signed token (JWS in its compact form)") from None
    if "crit" in header or "b64" in header:
        raise Unverified("the token asks for an extension (crit) that is not supported")
    algorithm = header["alg"]
    if algorithm not in algorithms:
        raise Unverified(
            "the token is signed by an algorithm that this source does not allow; "
            f"it allows {', '.join(algorithms)}"
        )
    kid, typ = header.get("kid"), str(header.get("typ") or "")
    return Token(content, algorithm, kid, typ.lower().removeprefix("application/"), registry)


class JwsVerifier:
    """The message is a token, signed by one of the issuer's keys, for us."""

    hidden: frozenset[str] = frozenset()

    def __init__(self, proof: JwsProof, source: str) -> None:
        """Raises Misconfigured where a file of keys cannot be used."""
        self._proof = proof
        self._keys = PublicKeys(source, proof.keys, key_set)

    def __call__(self, message: Message) -> None:
        token = read_token(message.body.strip(), self._proof.algorithms)
        if self._proof.typ != "any" and token.typ != self._proof.typ.lower():
            raise Unverified(
                f"the token's `typ` is not {self._proof.typ}: it is for something else"
            )
        claims = token.check(_candidates(self._keys, token))
        if claims.get("iss") != self._proof.issuer:
            raise Unverified(f"the token's `iss` is not {self._proof.issuer}")
        audience = claims.get("aud")
        named = audience if isinstance(audience, list) else [audience]
        if not any(one == ours for one in named for ours in self._proof.audience):
            raise Unverified("the token's `aud` names none of this source's audience: not for us")


class FusionAuthVerifier:
    """A token in a header signs the SHA-256 of the body."""

    hidden: frozenset[str] = frozenset()

    def __init__(self, proof: FusionAuthProof, source: str, secrets: SharedSecrets | None) -> None:
        """By key pairs, or else by `secrets`; Misconfigured where a file of keys is unusable."""
        self._proof = proof
        self._secrets = secrets
        self._keys = PublicKeys(source, proof.keys, key_set) if proof.keys else None

    def __call__(self, message: Message) -> None:
        raw = message.header(self._proof.header).encode("utf-8", "replace")
        if self._keys is not None:
            token = read_token(raw, self._proof.algorithms)
            claims = token.check(_candidates(self._keys, token))
        else:
            secrets = self._secrets.all() if self._secrets else ()
            claims = read_token(raw, SHARED).check(_shared(secret) for secret in secrets)
        due = base64.b64encode(hashlib.sha256(message.body).digest())
        given = str(claims.get("request_body_sha256", "")).encode("utf-8", "replace")
        if not hmac.compare_digest(given, due):
            raise Unverified("the token is about another body: the message was altered")


def _candidates(keys: PublicKeys[Sequence[NamedKey]], token: Token) -> Sequence[NamedKey]:
    """The keys that may have signed it: the one it names, or each that fits if it names none.

    A key without a name may be the one that is named.
    """

    def look(known: Sequence[NamedKey]) -> Sequence[NamedKey] | None:
        named = [one for one in known if token.kid is None or one.kid == token.kid]
        return named or [one for one in known if one.kid is None] or None

    return keys.find(look)


def _shared(secret: bytes) -> NamedKey:
    return NamedKey(None, None, _KINDS["HS"], OctKey.import_key(secret))


def key_set(raw: bytes) -> Sequence[NamedKey]:
    """The public keys of a JWKS (RFC 7517) that can verify; ValueError where there is none.

    Symmetric keys, weak ones and those for encryption are left out.
    """
    document: Any = json.loads(raw)
    listed = document.get("keys") if isinstance(document, dict) else None
    entries = listed[:MAX_KEYS] if isinstance(listed, list) else []
    found = [key for key in map(_named_key, entries) if key is not None]
    if not found:
        raise ValueError("it has no `keys` that can verify a signature")
    return found


def _named_key(entry: object) -> NamedKey | None:
    if not isinstance(entry, dict) or (entry.get("use") or "sig") != "sig":
        return None
    kind = (entry.get("kty"), entry.get("crv"))
    if kind not in _KINDS.values() or kind[0] == "oct" or not _strong(entry):
        return None
    kid, algorithm = entry.get("kid"), entry.get("alg")
    public = {name: entry[name] for name in ("kty", "crv", "n", "e", "x", "y") if name in entry}
    try:
        key = JWKRegistry.import_key(public)
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return NamedKey(
        kid if isinstance(kid, str) else None,
        algorithm if isinstance(algorithm, str) else None,
        (str(kind[0]), kind[1]),
        key,
    )


def _strong(entry: dict[str, Any]) -> bool:
    if entry.get("kty") != "RSA":
        return True
    modulus = str(entry.get("n", ""))
    try:
        number = base64.urlsafe_b64decode(modulus + "=" * (-len(modulus) % 4))
    except (binascii.Error, ValueError):
        return False
    return int.from_bytes(number).bit_length() >= LEAST_RSA
