"""A signature on the curve P-256, made with one of several keys that the producer publishes."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from worker.intake.verification.message import Message, Unverified
from worker.intake.verification.public_keys import PublicKeys
from worker.setting_proofs import EcdsaProof

MAX_KEYS: Final = 100

Listed = Mapping[str, ec.EllipticCurvePublicKey]


class EcdsaVerifier:
    """ECDSA with SHA-256 over the body; the headers name the key, and hold the signature."""

    hidden: frozenset[str] = frozenset()

    def __init__(self, proof: EcdsaProof, source: str) -> None:
        """Raises Misconfigured where a file of keys cannot be used."""
        self._proof = proof
        self._keys = PublicKeys(source, proof.keys, listed_keys)

    def __call__(self, message: Message) -> None:
        key_id = message.header(self._proof.key_id_header)
        given = message.header(self._proof.header)
        try:
            signature = base64.b64decode(given, validate=True)
        except (binascii.Error, ValueError):
            raise Unverified(f"the header {self._proof.header} is not base64") from None
        key = self._keys.find(lambda keys: keys.get(key_id))
        try:
            key.verify(signature, message.body, ec.ECDSA(SHA256()))
        except InvalidSignature:
            raise Unverified("the signature is wrong: the message was altered") from None


def listed_keys(raw: bytes) -> Listed:
    """The keys of a list as GitHub publishes it (`public_keys`), by their names.

    Those that are none of P-256 are left out; ValueError where none is left.
    """
    document: Any = json.loads(raw)
    listed = document.get("public_keys") if isinstance(document, dict) else None
    found: dict[str, ec.EllipticCurvePublicKey] = {}
    for entry in listed[:MAX_KEYS] if isinstance(listed, list) else ():
        key = _key(entry)
        if key is not None:
            found[entry["key_identifier"]] = key
    if not found:
        raise ValueError("it lists no `public_keys` on P-256")
    return found


def _key(entry: object) -> ec.EllipticCurvePublicKey | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("key_identifier"), str):
        return None
    try:
        key = load_pem_public_key(str(entry.get("key")).encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    is_p256 = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    return key if is_p256 and isinstance(key, ec.EllipticCurvePublicKey) else None
