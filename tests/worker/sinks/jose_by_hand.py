"""Opens compact JWE by RFC 7516 and RFC 7518, with primitives alone and no library for JOSE."""

import base64
import json
import struct
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | X25519PrivateKey
_CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}


def octets(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def header_of(token: str) -> dict[str, Any]:
    header = json.loads(octets(token.split(".")[0]))
    assert isinstance(header, dict)
    return header


def opened(token: str, key: Private) -> bytes:
    """The plaintext. Raises what the primitives raise for a token that is not for this key."""
    protected, wrapped, iv, content, tag = token.split(".")
    header = header_of(token)
    if header["alg"] == "RSA-OAEP-256":
        assert isinstance(key, rsa.RSAPrivateKey)
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        cek = key.decrypt(octets(wrapped), oaep)
    else:
        assert header["alg"] == "ECDH-ES+A256KW"
        agreed = _exchanged(key, header["epk"])
        cek = aes_key_unwrap(concat_kdf(agreed, "ECDH-ES+A256KW", 256), octets(wrapped))
    assert header["enc"] == "A256GCM"
    return gcm(cek, protected, iv, content, tag)


def gcm(cek: bytes, protected: str, iv: str, content: str, tag: str) -> bytes:
    """RFC 7516, section 5.2, steps 14 to 16."""
    return AESGCM(cek).decrypt(octets(iv), octets(content) + octets(tag), protected.encode())


def concat_kdf(
    agreed: bytes, algorithm: str, bits: int, *, apu: bytes = b"", apv: bytes = b""
) -> bytes:
    """RFC 7518, section 4.6.2, for keys of up to 256 bits: one round."""

    def sized(value: bytes) -> bytes:
        return struct.pack(">I", len(value)) + value

    info = sized(algorithm.encode()) + sized(apu) + sized(apv) + struct.pack(">I", bits)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(struct.pack(">I", 1) + agreed + info)
    return digest.finalize()[: bits // 8]


def _exchanged(key: Private, epk: dict[str, str]) -> bytes:
    if isinstance(key, X25519PrivateKey):
        assert epk["crv"] == "X25519"
        return key.exchange(X25519PublicKey.from_public_bytes(octets(epk["x"])))
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.exchange(ec.ECDH(), public(epk))


def public(jwk: dict[str, str]) -> ec.EllipticCurvePublicKey:
    """The point of a JSON Web Key."""
    x, y = (int.from_bytes(octets(jwk[name])) for name in ("x", "y"))
    return ec.EllipticCurvePublicNumbers(x, y, _CURVES[jwk["crv"]]).public_key()
