"""The sink of kind sealed: what leaves opens for the account's own key, and for nobody else."""

import email.policy
from datetime import UTC, datetime
from uuid import UUID

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from models import public_keys
from models.messages import Outgoing
from models.sinks import Outcome
from tests.worker.sinks.given import given, secret
from tests.worker.sinks.jose_by_hand import (
    Private,
    concat_kdf,
    gcm,
    header_of,
    octets,
    opened,
    public,
)
from worker.channels.messages import mail
from worker.sinks import Sealed

KINDS = ("RSA", "P-256", "P-384", "P-521", "X25519")


def made(kind: str) -> Private:
    curves = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
    if kind == "RSA":
        return rsa.generate_private_key(65537, 2048)
    return (
        X25519PrivateKey.generate() if kind == "X25519" else ec.generate_private_key(curves[kind])
    )


def registered(key: Private) -> dict[str, str]:
    """The public half as an account has it."""
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return public_keys.read(pem.decode())


def token_of(outcome: Outcome) -> str:
    [event] = [one for one in outcome.messages if one.channel == "events"]
    return str(event.payload["jwe"])


@pytest.mark.parametrize("kind", KINDS)
def test_it_opens_by_the_rfc_for_its_owner_alone(kind: str) -> None:
    key, text = made(kind), secret()
    jwk = registered(key)
    outcome = Sealed(["events"]).deliver(given(public_key=jwk), text)
    assert outcome.state == "taken"
    token = token_of(outcome)
    assert opened(token, key) == text.reveal().encode()
    header = header_of(token)
    assert header["alg"] == ("RSA-OAEP-256" if kind == "RSA" else "ECDH-ES+A256KW")
    assert (header["enc"], header["cty"], header["kid"]) == ("A256GCM", "text/plain", jwk["kid"])
    with pytest.raises((ValueError, InvalidTag, InvalidUnwrap)):
        opened(token, made(kind))
    protected, wrapped, iv, content, tag = token.split(".")
    with pytest.raises(InvalidTag):
        opened(".".join([protected, wrapped, iv, "A" + content[1:-1] + "A", tag]), key)


def test_the_same_key_is_never_sealed_alike() -> None:
    key, text = made("X25519"), secret()
    hand_over = given(public_key=registered(key))
    tokens = {token_of(Sealed(["events"]).deliver(hand_over, text)) for _ in range(3)}
    assert len(tokens) == 3


def test_a_mail_carries_it_whole_and_nothing_in_clear() -> None:
    key, text = rsa.generate_private_key(65537, 4096), secret()
    outcome = Sealed(["mail", "events"]).deliver(given(public_key=registered(key)), text)
    assert [(one.channel, one.kind) for one in outcome.messages] == [
        ("mail", "rotation.sealed"),
        ("events", "key.sealed"),
    ]
    made = mail(
        Outgoing(
            id=UUID(int=1),
            kind="rotation.sealed",
            account_id=UUID(int=2),
            payload=outcome.messages[0].payload,
            recipient="ada@example.com",
            created_at=datetime(2026, 11, 23, 9, tzinfo=UTC),
        ),
        "keys@example.com",
    )
    read = email.message_from_bytes(made.as_bytes(), policy=email.policy.default)
    body = read.get_content()
    assert all(len(line) <= 76 for line in body.splitlines())
    block = body.partition("-----BEGIN JWE-----")[2].partition("-----END JWE-----")[0]
    assert opened("".join(block.split()), key) == text.reveal().encode()
    for shown in (made.as_string(), repr(outcome), str(outcome.messages)):
        assert text.reveal()[3:30] not in shown


def test_without_a_public_key_it_says_how_to_register_one() -> None:
    outcome = Sealed(["mail"]).deliver(given(), secret())
    assert (outcome.state, outcome.messages) == ("failed", ())
    assert "keyturn accounts public-key ada@example.com FILE" in str(outcome.error)


def test_a_key_that_cannot_be_used_is_for_a_person() -> None:
    jwk = {**registered(made("P-256")), "x": "AAAA"}
    outcome = Sealed(["mail"]).deliver(given(public_key=jwk), secret())
    assert outcome.state == "failed"
    assert "register another one" in str(outcome.error)


# --- that what opens it here does so rightly


def test_the_key_derivation_is_that_of_the_rfc() -> None:
    """RFC 7518, appendix C."""
    epk = {
        "crv": "P-256",
        "x": "gI0GAILBdu7T53akrFmMyGcsF3n5dO7MmwNBHKW5SV0",
        "y": "SLW_xSffzlPWrHEVI30DHM_4egVwt3NQqeUD7nMFpps",
    }
    number = int.from_bytes(octets("VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw"))
    agreed = ec.derive_private_key(number, ec.SECP256R1()).exchange(ec.ECDH(), public(epk))
    derived = concat_kdf(agreed, "A128GCM", 128, apu=b"Alice", apv=b"Bob")
    assert derived == octets("VqqN6vgjbSBcIijNcacQGg")


def test_the_unwrapping_is_that_of_the_rfc() -> None:
    """RFC 3394, section 4.6."""
    wrapped = "28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21"
    kek, content = (
        bytes(range(32)),
        "00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F",
    )
    assert aes_key_unwrap(kek, bytes.fromhex(wrapped)) == bytes.fromhex(content)


def test_the_decryption_is_that_of_the_rfc() -> None:
    """RFC 7516, appendix A.1."""
    cek = bytes.fromhex("b1a1f480548fe1733fb403ff6b9ad4f68a076e5b702e22692f82cb2e7aea40fc")
    protected, iv = "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ", "48V1_ALb6US04U3b"
    content = "5eym8TW_c8SuK0ltJ3rpYIzOeDQz7TALvtu6UG9oMo4vpzs9tX_EFShS8iB7j6jiSdiwkIr3ajwQzaBtQD_A"
    plain = gcm(cek, protected, iv, content, "XFBoMYUZodetZdvTiFvSkQ")
    assert plain == b"The true sign of intelligence is not knowledge but imagination."
