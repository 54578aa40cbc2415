"""Which keys may be sealed to, and how they are kept."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from models import outbox, public_keys
from models.errors import Refused
from models.policy import Policy
from tests.models.scene import MINUTE, OWNER, START, Scene
from worker.channels.messages import mail

# RFC 7638, section 3.1: a key, and its thumbprint.
EXAMPLE = {
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSo"
    "c_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_"
    "FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4v"
    "MQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    "e": "AQAB",
    "alg": "RSA-OAEP-256",
}
THUMBPRINT = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
EC = {
    "kty": "EC",
    "crv": "P-256",
    "x": "weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ",
    "y": "e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck",
}


def pem(key: Any) -> str:
    made: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return made.decode()


def refusal(text: str) -> Refused:
    with pytest.raises(Refused) as caught:
        public_keys.read(text)
    return caught.value


def test_a_key_is_named_by_its_thumbprint_or_by_its_own_name() -> None:
    assert public_keys.read(json.dumps(EXAMPLE))["kid"] == THUMBPRINT
    assert public_keys.read(json.dumps({**EXAMPLE, "kid": "mine"}))["kid"] == "mine"


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        X25519PrivateKey.generate(),
    ],
    ids=["RSA", "P-256", "P-384", "P-521", "X25519"],
)
def test_both_forms_are_the_same_key(key: Any) -> None:
    jwk = public_keys.read(pem(key))
    assert public_keys.read(json.dumps(jwk)) == jwk
    assert not {"d", "p", "q"} & jwk.keys()


def test_only_what_makes_the_key_is_kept() -> None:
    jwk = public_keys.read(json.dumps({**EC, "use": "enc", "x5c": ["..."], "note": "hello"}))
    assert jwk.keys() == {"kty", "crv", "x", "y", "kid"}


def test_private_keys_are_refused_in_every_form() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        text = key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()
        assert refusal(text).code == "public_key_private"
    for members in ({"d": "AA"}, {"p": "AA"}, {"kty": "oct", "k": "AA"}):
        told = refusal(json.dumps({**EC, **members}))
        assert told.code == "public_key_private"
        assert "remove all members but" in told.message


def low_order() -> str:
    """A point with which everybody agrees on the same secret."""
    x = base64.urlsafe_b64encode(bytes(32)).decode().rstrip("=")
    return json.dumps({"kty": "OKP", "crv": "X25519", "x": x})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no public key in PEM"),
        ("hello", "no public key in PEM"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "no public key in PEM"),
        ("-----BEGIN CERTIFICATE-----", "openssl x509 -in FILE -noout -pubkey"),
        (pem(rsa.generate_private_key(65537, 1024)), "an RSA key of 1024 bits"),
        (pem(ed25519.Ed25519PrivateKey.generate()), "only sign"),
        (pem(dsa.generate_private_key(2048)), "only sign"),
        (pem(ec.generate_private_key(ec.SECP256K1())), "a key on secp256k1"),
        ("{", "begins like JSON, and is none"),
        ("{" * 10_000, "begins like JSON, and is none"),
        ('{"keys": []}', "a set of keys: give one"),
        ("{}", "keys of this kind are not accepted"),
        (json.dumps({**EC, "crv": "secp256k1"}), "keys of this kind are not accepted"),
        (json.dumps({**EC, "use": "sig"}), "its `use` is not `enc`"),
        (json.dumps({**EC, "alg": "ES256"}), "its `alg` is not ECDH-ES+A256KW"),
        (json.dumps({**EXAMPLE, "alg": "RSA1_5"}), "its `alg` is not RSA-OAEP-256"),
        (json.dumps({**EC, "kid": 7}), "its `kid` is no text"),
        (json.dumps({**EC, "kid": "a\nb"}), "its `kid` is no text"),
        (json.dumps({**EC, "y": EC["x"]}), "do not make a public key"),
        (json.dumps({**EC, "x": "!"}), "do not make a public key"),
        (json.dumps({"kty": "EC", "crv": "P-256"}), "do not make a public key"),
        (json.dumps({**EXAMPLE, "e": "Ag"}), "do not make a public key"),
        (low_order(), "keeps no secret"),
        ("x" * 20_000, "too long"),
    ],
    ids=map(str, range(24)),
)
def test_what_cannot_be_sealed_to_is_refused(text: str, said: str) -> None:
    told = refusal(text)
    assert told.code == "public_key_invalid"
    assert said in told.message
    assert "what is accepted: RSA of 2048" in told.message


def test_a_key_is_registered_and_removed_with_its_audit(scene: Scene) -> None:
    jwk = public_keys.read(json.dumps(EXAMPLE))
    for given, changed in ((jwk, True), (jwk, False), (None, True), (None, False)):
        with scene.database.begin() as tx:
            assert public_keys.register(tx, scene.owner, given, actor="op") is changed
            assert public_keys.of_account(tx, scene.owner) == given
        scene.later(MINUTE)
    registered, removed = scene.mails("account.public_key")
    assert registered == {
        "account": OWNER,
        "kid": jwk["kid"],
        "thumbprint": THUMBPRINT,
        "before": None,
        "by": "op",
        "at": START.isoformat(),
    }
    assert (removed["kid"], removed["thumbprint"], removed["before"]) == (None, None, THUMBPRINT)
    rows = scene.sql(
        "SELECT actor, before, after FROM keyturn.audit WHERE action = 'account.public_key'"
        " ORDER BY id"
    )
    assert [tuple(row.values()) for row in rows] == [
        ("op", None, THUMBPRINT),
        ("op", THUMBPRINT, None),
    ]


def test_whose_public_key_is_replaced_is_told_before_all_other_mail(scene: Scene) -> None:
    """A thief who registers a key of their own gets the next new key: the owner hears of it."""
    for key in (EXAMPLE, EC):
        with scene.database.begin() as tx:
            jwk = public_keys.read(json.dumps(key))
            assert public_keys.register(tx, scene.owner, jwk, actor="eve")
        scene.later(MINUTE)
    scene.request(scene.key())
    with scene.database.begin() as tx:
        leased = outbox.lease(tx, "mail", Policy(deliver_batch=2)).messages
    assert [message.kind for message in leased] == ["account.public_key"] * 2
    made = mail(leased[1], "keyturn@example.com")
    assert (made["To"], made["Subject"]) == (OWNER, "Your public key was replaced")
    assert THUMBPRINT in made.get_content()
    assert "Changed by eve" in made.get_content()
