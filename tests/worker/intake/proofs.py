"""Sources with a proof, their secrets and keys, and messages that are signed by hand."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from worker.intake import verification
from worker.intake.verification import Message, Unverified, Verifier
from worker.settings import Settings, load_settings

SECRET = "0123456789abcdef-first"
OTHER = "fedcba9876543210-second"
NOW = datetime(2026, 11, 23, 8, 40, tzinfo=UTC)


class Site:
    """A `keyturn.toml` with one source, and the directory of its secrets."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place = place
        self.secrets = place / "secrets"
        self.secrets.mkdir(mode=0o700)
        monkeypatch.setenv("KEYTURN_SECRETS_DIR", str(self.secrets))
        monkeypatch.setenv("KEYTURN_CONFIG", str(place / "keyturn.toml"))

    def settings(self, proof: str, provider: str = "native") -> Settings:
        """The settings with the members of `[sources.idp.proof]`."""
        text = (
            f'[sources.idp]\nprovider = "{provider}"\nstream = "in"\n[sources.idp.proof]\n{proof}'
        )
        (self.place / "keyturn.toml").write_text(text, "utf-8")
        return load_settings()

    def verifier(self, proof: str) -> Verifier:
        return verification.verifier(self.settings(proof), "idp")

    def secret(self, number: int, text: str) -> Path:
        path = self.secrets / f"source-idp-{number}"
        path.unlink(missing_ok=True)
        path.touch(0o600)
        path.write_text(text + "\n")
        return path

    def keys(self, document: object, name: str = "keys.json") -> str:
        """A file of public keys; its path in quotes, as TOML has it."""
        path = self.place / name
        path.write_text(json.dumps(document))
        path.chmod(0o644)
        return json.dumps(str(path))


def why(verify: Verifier, headers: Mapping[str, str], body: bytes, **more: Any) -> str | None:
    """Why a message is refused; None if it is not."""
    try:
        verify(Message(headers, body, **more))
    except Unverified as error:
        return error.message
    return None


def hexed(secret: str, signed: bytes, digest: str = "sha256") -> str:
    return hmac.new(secret.encode(), signed, getattr(hashlib, digest)).hexdigest()


# --- tokens, signed without the library that verifies them


def b64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def number(value: int, size: int | None = None) -> str:
    return b64url(value.to_bytes(size or (value.bit_length() + 7) // 8))


RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def rsa_jwk(key: rsa.RSAPrivateKey, kid: str = "one", **more: str) -> dict[str, str]:
    public = key.public_key().public_numbers()
    return {"kty": "RSA", "kid": kid, "n": number(public.n), "e": number(public.e), **more}


def ec_jwk(key: ec.EllipticCurvePrivateKey, kid: str = "ec") -> dict[str, str]:
    public = key.public_key().public_numbers()
    return {
        "kty": "EC",
        "crv": "P-256",
        "kid": kid,
        "x": number(public.x, 32),
        "y": number(public.y, 32),
    }


def ed_jwk(key: ed25519.Ed25519PrivateKey, kid: str = "ed") -> dict[str, str]:
    raw = key.public_key().public_bytes_raw()
    return {"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": b64url(raw)}


def token(header: Mapping[str, object], claims: object, key: Any) -> bytes:
    """A compact JWS by hand; `key` a private key, bytes of a shared secret, or None for `none`."""
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    signed = f"{b64url(json.dumps(header).encode())}.{b64url(payload)}".encode()
    return signed + b"." + b64url(_signature(header, signed, key)).encode()


def _signature(header: Mapping[str, object], signed: bytes, key: Any) -> bytes:
    match key:
        case None:
            return b""
        case bytes():
            return hmac.digest(key, signed, "sha256")
        case ed25519.Ed25519PrivateKey():
            return key.sign(signed)
        case ec.EllipticCurvePrivateKey():
            r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(SHA256())))
            return r.to_bytes(32) + s.to_bytes(32)
    if str(header.get("alg")).startswith("PS"):
        pss = padding.PSS(padding.MGF1(SHA256()), 32)
        return bytes(key.sign(signed, pss, SHA256()))
    return bytes(key.sign(signed, padding.PKCS1v15(), SHA256()))


class Answers(ThreadingHTTPServer):
    """A web server on this machine that counts the requests."""

    status = 200
    body: bytes = b"{}"
    location: str | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/keys"


class _Handler(BaseHTTPRequestHandler):
    server: Answers

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def answering() -> Iterator[Answers]:
    with Answers() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)
