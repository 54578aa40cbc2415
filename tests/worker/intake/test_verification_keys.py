"""Proofs by public keys: known answers of the standards, and the tricks that are known."""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from models.errors import Misconfigured
from tests.worker.intake import proofs
from tests.worker.intake.proofs import OTHER, SECRET, Site, answering, b64url, token, why
from worker.intake.verification import Verifier
from worker.intake.verification.jws import key_set, read_token

ISSUER, AUDIENCE = "https://idp.example.com/", "https://keys.example.com"
SET = {"typ": "secevent+jwt", "alg": "RS256", "kid": "one"}
CLAIMS = {
    "iss": ISSUER,
    "aud": [AUDIENCE],
    "iat": 1520364019,
    "jti": "1",
    "events": {"https://schemas.openid.net/secevent/risc/event-type/account-disabled": {}},
}
JWKS = {
    "keys": [
        proofs.rsa_jwk(proofs.RSA, "one"),
        proofs.ec_jwk(proofs.P256),
        proofs.ed_jwk(proofs.ED),
    ]
}


def jws(idp: Site, keys: str, more: str = "") -> Verifier:
    return idp.verifier(
        f'scheme = "jws"\nkeys = {keys}\nissuer = "{ISSUER}"\naudience = ["{AUDIENCE}"]\n{more}'
    )


@pytest.fixture
def verify(idp: Site) -> Verifier:
    return jws(idp, idp.keys(JWKS))


def signed(key: Any = proofs.RSA, claims: object = CLAIMS, **header: object) -> bytes:
    return token(
        {name: one for name, one in (SET | header).items() if one is not None}, claims, key
    )


# --- what the standards publish

RFC7515_RSA = {
    "kty": "RSA",
    "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt"
    "0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rex"
    "MdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK"
    "-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    "e": "AQAB",
}
RFC7515_A2 = (
    b"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvb"
    b"S9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh"
    b"-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArL"
    b"IARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCn"
    b"vWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
)
RFC7515_EC = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
RFC7515_A3 = (
    b"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvb"
    b"S9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTU"
    b"JqPP3-Kg6NU1Q"
)


@pytest.mark.parametrize(
    ("key", "text"), [(RFC7515_RSA, RFC7515_A2), (RFC7515_EC, RFC7515_A3)], ids=["RS256", "ES256"]
)
def test_the_examples_of_rfc_7515(key: Mapping[str, str], text: bytes) -> None:
    keys = key_set(json.dumps({"keys": [key]}).encode())
    claims = read_token(text, ["RS256", "ES256"]).check(keys)
    assert claims["iss"] == "joe"


def test_the_example_of_rfc_8037() -> None:
    key = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    text = (
        b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvM"
        b"g3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    )
    found = read_token(text, ["EdDSA"])
    with pytest.raises(Exception, match="no JSON"):  # signed right, by an example that is no token
        found.check(key_set(json.dumps({"keys": [key]}).encode()))
    with pytest.raises(Exception, match="signature is wrong"):
        found.check(key_set(json.dumps({"keys": [proofs.ed_jwk(proofs.ED)]}).encode()))


GITHUB_KEY_ID = "90a421169f0a406205f1563a953312f0be898d3c7b6c06b681aa86a874555f4a"
GITHUB_PEM = (
    "-----BEGIN PUBLIC KEY-----\n"
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE9MJJHnMfn2+H4xL4YaPDA4RpJqUq\n"
    "kCmRCBnYERxZanmcpzQSXs1X/AljlKkbJ8qpVIW4clayyef9gWhFbNHWAA==\n"
    "-----END PUBLIC KEY-----\n"
)
GITHUB_SIGNATURE = (
    "MEUCIQDKZokqnCjrRtw0tni+2Ltvl/uiMJ1EGumEsp1BsNr32AIgQY1YXD2nlj+XNfGK4rBfkMJ1JDOQcYXxa2sY8FNk"
    "rKc="
)
GITHUB_BODY = b'[{"token":"some_token","type":"some_type","url":"some_url"}]'
GITHUB_KEYS = {
    "public_keys": [
        {"key_identifier": GITHUB_KEY_ID, "key": GITHUB_PEM, "is_current": False},
        {"key_identifier": "broken", "key": "-----BEGIN PUBLIC KEY-----\nnothing"},
        {"key_identifier": 7},
        "nothing",
    ]
}
GITHUB = {
    "github-public-key-identifier": GITHUB_KEY_ID,
    "github-public-key-signature": GITHUB_SIGNATURE,
}


def test_the_example_of_github_secret_scanning(idp: Site) -> None:
    keys = idp.keys(GITHUB_KEYS)
    verify = idp.verifier(f'scheme = "github-secret-scanning"\nkeys = {keys}')
    assert why(verify, GITHUB, GITHUB_BODY) is None
    assert "altered" in str(why(verify, GITHUB, GITHUB_BODY + b" "))
    for name in GITHUB:
        assert f"{name} is missing" in str(why(verify, {**GITHUB, name: ""}, GITHUB_BODY))
    for unknown in ("broken", "7", "../" + GITHUB_KEY_ID):
        headers = GITHUB | {"github-public-key-identifier": unknown}
        assert "its producer does not list" in str(why(verify, headers, GITHUB_BODY))
    for wrong in ("!", "AAAA", base64.b64encode(b"x" * 70).decode(), "\ud800"):
        assert why(verify, GITHUB | {"github-public-key-signature": wrong}, GITHUB_BODY)


def test_another_key_of_the_list_is_not_the_one_named(idp: Site) -> None:
    pem = proofs.P256.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    listed = [*GITHUB_KEYS["public_keys"], {"key_identifier": "two", "key": pem.decode()}]
    keys = idp.keys({"public_keys": listed})
    verify = idp.verifier(f'scheme = "github-secret-scanning"\nkeys = {keys}')
    mine = base64.b64encode(proofs.P256.sign(b"[]", ec.ECDSA(SHA256()))).decode()
    headers = {"github-public-key-identifier": "two", "github-public-key-signature": mine}
    assert why(verify, headers, b"[]") is None
    assert why(verify, headers | {"github-public-key-identifier": GITHUB_KEY_ID}, b"[]")


# --- tokens


@pytest.mark.parametrize(
    ("key", "header"),
    [
        (proofs.RSA, {}),
        (proofs.RSA, {"alg": "PS256"}),
        (proofs.P256, {"alg": "ES256", "kid": "ec"}),
        (proofs.ED, {"alg": "EdDSA", "kid": "ed"}),
        (proofs.ED, {"alg": "Ed25519", "kid": "ed"}),
        (proofs.P256, {"alg": "ES256", "kid": None}),
        (proofs.RSA, {"typ": "application/SECEVENT+jwt"}),
        (proofs.RSA, {"jku": "https://evil.example.com/", "x5c": ["MII"], "private": {"a": [1]}}),
    ],
)
def test_a_token_that_is_right(verify: Verifier, key: Any, header: dict[str, object]) -> None:
    assert why(verify, {}, signed(key, **header)) is None
    assert why(verify, {}, b"\n" + signed(key, **header) + b"\r\n") is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (signed(proofs.OTHER_RSA), "signature is wrong"),
        (signed(proofs.ED), "signature is wrong"),
        (signed(None, alg="none"), "an algorithm that this source does not allow"),
        (signed(None, alg="None"), "an algorithm that this source does not allow"),
        (signed(b"secret", alg="HS256"), "an algorithm that this source does not allow"),
        (signed(alg="RS384"), "an algorithm that this source does not allow"),
        (signed(proofs.P256, alg="RS256"), "signature is wrong"),
        (signed(proofs.RSA, alg="ES256"), "signature is wrong"),
        (signed(kid="two"), "its producer does not list"),
        (signed(kid="../../../../dev/null"), "its producer does not list"),
        (signed(kid="one\0"), "its producer does not list"),
        (signed(kid=["one"]), "no signed token"),
        (signed(typ="JWT"), "`typ` is not secevent+jwt"),
        (signed(typ=None), "`typ` is not secevent+jwt"),
        (signed(typ=["secevent+jwt"]), "no signed token"),
        (signed(crit=["exp"], exp=1), "no signed token"),
        (signed(crit=["b64"], b64=False), "extension"),
        (signed(alg=None), "no signed token"),
        (signed(alg=["RS256"]), "no signed token"),
        (signed(claims=CLAIMS | {"iss": ISSUER + "x"}), "`iss` is not"),
        (signed(claims=CLAIMS | {"iss": [ISSUER]}), "`iss` is not"),
        (signed(claims={**CLAIMS, "iss": None}), "`iss` is not"),
        (signed(claims=CLAIMS | {"aud": "https://other.example.com"}), "`aud` names none"),
        (signed(claims=CLAIMS | {"aud": []}), "`aud` names none"),
        (signed(claims=CLAIMS | {"aud": [[AUDIENCE]]}), "`aud` names none"),
        (signed(claims=CLAIMS | {"aud": {AUDIENCE: 1}}), "`aud` names none"),
        (signed(claims={**CLAIMS, "aud": None}), "`aud` names none"),
        (signed(claims=[CLAIMS]), "no JSON object"),
        (signed(claims=b"{"), "no JSON"),
        (signed(claims=b'{"iss": "a", "iss": "b"}'), "the same member twice"),
        (signed()[:-3], "signature is wrong"),
        (signed().rsplit(b".", 1)[0] + b".", "signature is wrong"),
        (signed().replace(b".", b".AAAA", 1), "signature is wrong"),
        (signed() + b"." + signed(), "no signed token"),
        (b"..", "no signed token"),
        (b"", "no signed token"),
        (json.dumps(CLAIMS).encode(), "no signed token"),
    ],
)
def test_a_token_that_is_wrong(verify: Verifier, text: bytes, fault: str) -> None:
    assert fault in str(why(verify, {}, text))


def test_a_public_key_is_no_shared_secret(idp: Site, verify: Verifier) -> None:
    """The well-known confusion: HS256 with the PEM of the public key as its secret."""
    pem = proofs.RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert "does not allow" in str(why(verify, {}, signed(pem, alg="HS256")))
    oct_key = {"kty": "oct", "kid": "one", "k": b64url(b"secret" * 8)}
    with pytest.raises(Misconfigured, match="no `keys` that can verify"):
        jws(idp, idp.keys({"keys": [oct_key]}))


def test_no_place_that_a_token_names_is_asked(idp: Site, verify: Verifier) -> None:
    with answering() as server:
        server.body = json.dumps({"keys": [proofs.rsa_jwk(proofs.OTHER_RSA)]}).encode()
        for name in ("jku", "x5u"):
            assert why(verify, {}, signed(proofs.OTHER_RSA, **{name: server.url}))
            assert why(verify, {}, signed(proofs.OTHER_RSA, kid="new", **{name: server.url}))
        own = proofs.rsa_jwk(proofs.OTHER_RSA)
        assert why(verify, {}, signed(proofs.OTHER_RSA, jwk=own, kid="new"))
        assert server.paths == []


@pytest.mark.parametrize(
    "entry",
    [
        proofs.rsa_jwk(rsa.generate_private_key(65537, 1024), "weak"),
        proofs.rsa_jwk(proofs.OTHER_RSA, "enc", use="enc"),
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
        {"kty": "RSA", "kid": "half", "n": proofs.rsa_jwk(proofs.RSA)["n"]},
        {"kty": "EC", "crv": "secp256k1", "kid": "k1", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-256", "kid": "off", "x": "AA", "y": "AA"},
        {"kty": ["RSA"]},
        None,
    ],
)
def test_keys_that_do_not_count_are_passed_over(entry: object) -> None:
    found = key_set(json.dumps({"keys": [entry, proofs.rsa_jwk(proofs.RSA)]}).encode())
    assert [one.kid for one in found] == ["one"]
    with pytest.raises(ValueError, match="no `keys`"):
        key_set(json.dumps({"keys": [entry]}).encode())


def test_a_key_signs_by_its_own_algorithm_only(idp: Site) -> None:
    verify = jws(idp, idp.keys({"keys": [proofs.rsa_jwk(proofs.RSA, alg="PS256")]}))
    assert why(verify, {}, signed(alg="PS256")) is None
    assert why(verify, {}, signed(alg="RS256"))


def test_a_key_without_a_name_may_be_the_one_that_is_named(idp: Site) -> None:
    nameless = {**proofs.rsa_jwk(proofs.RSA), "use": None}
    del nameless["kid"]
    verify = jws(idp, idp.keys({"keys": [nameless]}))
    assert why(verify, {}, signed(kid="whatever")) is None
    assert "signature is wrong" in str(why(verify, {}, signed(proofs.OTHER_RSA, kid="whatever")))
    # One that has this name goes before it.
    both = jws(idp, idp.keys({"keys": [nameless, proofs.rsa_jwk(proofs.OTHER_RSA, "two")]}))
    assert "signature is wrong" in str(why(both, {}, signed(kid="two")))


def test_any_type_where_the_source_says_so(idp: Site) -> None:
    verify = jws(idp, idp.keys(JWKS), 'typ = "any"')
    assert why(verify, {}, signed(typ=None)) is None


def test_no_age_is_asked_of_a_token(verify: Verifier) -> None:
    """SETs have no `exp`, and one that says that it has ended is still what happened."""
    assert why(verify, {}, signed(claims=CLAIMS | {"exp": 1, "iat": 1})) is None


# --- FusionAuth


def fusionauth(body: bytes, key: Any, **header: object) -> dict[str, str]:
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    text = token({"alg": "RS256", **header}, {"request_body_sha256": digest}, key)
    return {"x-fusionauth-signature-jwt": text.decode()}


def test_fusionauth_by_a_key_pair(idp: Site) -> None:
    verify = idp.verifier(f'scheme = "fusionauth"\nkeys = {idp.keys(JWKS)}')
    good = fusionauth(b"{}", proofs.RSA)
    assert why(verify, good, b"{}") is None
    assert "another body" in str(why(verify, good, b"{ }"))
    assert why(verify, fusionauth(b"{}", proofs.OTHER_RSA), b"{}")
    assert why(verify, fusionauth(b"{}", SECRET.encode(), alg="HS256"), b"{}")
    assert why(verify, {}, b"{}")
    for claims in ({}, {"request_body_sha256": None}, {"request_body_sha256": "\ud800"}):
        text = token({"alg": "RS256"}, claims, proofs.RSA).decode()
        assert "another body" in str(why(verify, {"x-fusionauth-signature-jwt": text}, b"{}"))


def test_fusionauth_by_a_secret(idp: Site) -> None:
    idp.secret(1, OTHER)
    idp.secret(2, SECRET)
    verify = idp.verifier('scheme = "fusionauth"')
    assert why(verify, fusionauth(b"{}", SECRET.encode(), alg="HS256"), b"{}") is None
    assert why(verify, fusionauth(b"{}", b"another secret, also long", alg="HS256"), b"{}")
    assert why(verify, fusionauth(b"{}", proofs.RSA), b"{}")
