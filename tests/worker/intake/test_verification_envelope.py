"""The relay's envelope, and that nothing but a refusal comes out of whatever comes in."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.inbox import Received, Rejection
from tests.worker.intake import proofs
from tests.worker.intake.proofs import NOW, SECRET, Site, hexed, token
from worker.intake import accept, verification
from worker.intake.accept import Producer, read
from worker.intake.providers import Unreadable
from worker.intake.verification import opened

BODY = b'{"type": "account.disabled", "account": "ada@example.com", "id": "42"}'
LONELY = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def envelope(body: bytes = BODY, /, **headers: Any) -> bytes:
    return json.dumps({"headers": headers, "body_b64": base64.b64encode(body).decode()}).encode()


def test_an_envelope_is_opened_and_its_headers_are_the_only_ones() -> None:
    raw = b"\xff\x00 bytes of any kind \r\n"
    found = opened({"x-outer": "1"}, b" \n" + envelope(raw, **{"X-One": "a", "Y": ["b", "c"]}))
    assert found == ({"x-one": "a", "y": "b, c"}, raw)


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        b'"body_b64"',
        b'{"body_b64": "AAAA"}',
        b'{"headers": {}, "body_b64": "AAAA", "more": 1}',
        b'[{"headers": {}, "body_b64": "AAAA"}]',
        b'{"headers": {}, "body_b64": "AAAA"',
        b'{"body_b64"' + b'{"a":[' * 100_000,
        b"",
    ],
)
def test_what_is_no_envelope_stays_as_it_is(body: bytes) -> None:
    assert opened({"a": "b"}, body) == ({"a": "b"}, body)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b'{"headers": {}, "body_b64": "A"}', "is not base64"),
        (b'{"headers": {}, "body_b64": "AA-_"}', "is not base64"),
        (b'{"headers": {}, "body_b64": "AAAA\\n"}', "is not base64"),
        (b'{"headers": {}, "body_b64": "\\u00e9"}', "is not base64"),
        (b'{"headers": {}, "body_b64": null}', "must be a text"),
        (b'{"headers": [], "body_b64": ""}', "must be an object"),
        (b'{"headers": {"a": 1}, "body_b64": ""}', "must be a text, or a list of texts"),
        (b'{"headers": {"a": []}, "body_b64": ""}', "must be a text, or a list of texts"),
        (b'{"headers": {"a": "1", "A": "2"}, "body_b64": ""}', "names a header twice"),
        (b'{"headers": {"a": "1", "a": "2"}, "body_b64": ""}', "a member twice"),
        (envelope(BODY, **{f"h{number}": "" for number in range(201)}), "up to 200"),
        (envelope(b"x" * 2_000_000), "over 2097152 bytes"),
    ],
)
def test_a_broken_envelope_is_refused_with_the_reason(body: bytes, fault: str) -> None:
    with pytest.raises(Unreadable, match=fault):
        opened({}, body)
    [one] = read(Producer("idp", "native"), "1-0", {"Authorization": SECRET}, body)
    assert isinstance(one.content, Rejection)
    assert one.content.code in ("bad_envelope", "too_large")
    assert SECRET not in str(one.headers)


# --- on the way into the inbox


def producer(idp: Site, proof: str, provider: str = "native") -> Producer:
    return accept.source(idp.settings(proof, provider), "idp")


def test_what_is_proven_is_read(idp: Site) -> None:
    idp.secret(1, SECRET)
    source = producer(idp, 'scheme = "keycloak"')
    signature = hexed(SECRET, BODY)
    [direct] = read(source, "1-0", {"X-Keycloak-Signature": signature}, BODY)
    [relayed] = read(source, "1-0", {}, envelope(BODY, **{"X-KEYCLOAK-Signature": [signature]}))
    assert not isinstance(direct.content, Rejection)
    assert direct.content == relayed.content


def test_a_time_is_held_against_the_id_of_a_streams_entry(idp: Site) -> None:
    idp.secret(1, SECRET)
    source = producer(idp, 'scheme = "zitadel"')
    at = int(NOW.timestamp())
    fields = {
        b"body": BODY,
        b"headers": json.dumps(
            {"ZITADEL-Signature": f"t={at},v1=" + hexed(SECRET, f"{at}.".encode() + BODY)}
        ).encode(),
    }
    [one] = accept.read_entry(source, f"{at * 1000 + 299_000}-0", fields)
    assert not isinstance(one.content, Rejection)
    [late] = accept.read_entry(source, f"{at * 1000 + 301_000}-0", fields)
    assert isinstance(late.content, Rejection)
    assert "older than 5m" in late.content.message


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, BODY),
        ({"x-keycloak-signature": "00"}, BODY),
        ({"keyturn-proven": "yes"}, BODY),
        ({" Keyturn-Proven ": "yes"}, BODY),
        ({}, envelope(BODY, **{"Keyturn-Proven": "yes"})),
    ],
)
def test_what_is_not_proven_is_kept_and_not_read(
    idp: Site, headers: dict[str, str], body: bytes
) -> None:
    idp.secret(1, SECRET)
    [one] = read(producer(idp, 'scheme = "keycloak"'), "1-0", headers, body)
    assert one.content == Rejection("unverified", one.content.message)  # type: ignore[union-attr]
    assert one.body == BODY
    assert "keyturn-proven" not in str(one.headers).lower()


def test_fields_of_an_entry_are_no_signed_message(idp: Site) -> None:
    idp.secret(1, SECRET)
    source = producer(idp, 'scheme = "okta"')
    fields = {b"type": b"account.disabled", b"account": b"ada@example.com"}
    [one] = accept.read_entry(source, "1-0", fields)
    assert isinstance(one.content, Rejection)


def test_no_secret_is_kept(idp: Site) -> None:
    idp.secret(1, SECRET)
    source = producer(idp, 'scheme = "header"\nheader = "X-Hush"')
    headers = {"x-hush": SECRET, "authorization": "Basic hush", "Cookie": "hush"}
    for body in (BODY, b"not readable"):
        [one] = read(source, "1-0", headers, body)
        assert SECRET not in str(one)
        assert not any("hush" in value for value in one.headers.values())
    [unproven] = read(source, "1-0", headers | {"x-hush": "hush-hush"}, BODY)
    assert "hush-hush" not in str(unproven)


def test_a_leak_report_that_is_not_proven_keeps_no_live_key(idp: Site) -> None:
    keys = idp.keys({"keys": [proofs.rsa_jwk(proofs.RSA)]})
    source = producer(idp, f'scheme = "fusionauth"\nkeys = {keys}', "github")
    report = b'[{"token": "kt_live_0123456789", "type": "key", "url": "https://example.com"}]'
    for body in (report, report[:-1]):
        [one] = read(source, "1-0", {"x-fusionauth-signature-jwt": "a.b.c"}, body)
        assert isinstance(one.content, Rejection)
        assert b"kt_live" not in one.body


def test_a_fault_in_what_may_be_kept_stops_nothing(
    idp: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise UnicodeError

    monkeypatch.setattr(accept, "kept", broken)
    [one] = read(Producer("idp", "github"), "1-0", {}, b'[{"token": "kt_live"}]')
    assert one.body == b""


def test_the_alarm_about_unproven_messages_is_rare(
    idp: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    idp.secret(1, SECRET)
    source = producer(idp, 'scheme = "okta"')
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(verification, "_told", {})
    monkeypatch.setattr(verification.log, "error", lambda _, **facts: told.append(facts))
    for number in range(50):
        read(source, f"1-{number}", {}, BODY)
    assert [(one["alarm"], one["source"], one["more"]) for one in told] == [
        ("event_unverified", "idp", 0)
    ]
    monkeypatch.setattr(verification, "TELL_EVERY", 0.0)
    read(source, "2-0", {}, BODY)
    assert told[1]["more"] == 49


def test_a_verifiers_own_fault_lets_nothing_through(
    idp: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    idp.secret(1, SECRET)

    def broken(_: object) -> None:
        raise ZeroDivisionError

    source = Producer("idp", "native", verifier=_Verifier(broken))
    [one] = read(source, "1-0", {}, BODY)
    assert isinstance(one.content, Rejection)
    assert one.content.code == "unverified"


class _Verifier:
    hidden: frozenset[str] = frozenset()

    def __init__(self, verify: Callable[[Any], None]) -> None:
        self._verify = verify

    def __call__(self, message: Any) -> None:
        self._verify(message)


# --- whatever comes in

JWKS = {"keys": [proofs.rsa_jwk(proofs.RSA), proofs.ed_jwk(proofs.ED)]}
NAMES = st.sampled_from(
    [
        "x-hub-signature-256", "workos-signature", "zitadel-signature", "gitguardian-signature",
        "timestamp", "webhook-id", "webhook-timestamp", "webhook-signature", "svix-id",
        "svix-timestamp", "svix-signature", "authorization", "x-fusionauth-signature-jwt",
        "x-keycloak-signature", "x-gitlab-token",
    ]
)  # fmt: skip
VALUES = st.text(max_size=40) | st.sampled_from(
    [
        "t=1,v1=00", "t=,v1=", "t=9" + "9" * 15 + ",v1=00", "t=nan,v1=00", "t=1e400,v1=1",
        "v1,AAAA", "v1", ",", "1795423200", "9" * 11, "sha256=", "sha256=" + "0" * 64, "\0",
        "\ud800",
        "2026-11-23T08:40:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "a.b.c",
        "eyJhbGciOiJIUzI1NiJ9.e30.AA", "eyJhbGciOiJub25lIn0.e30.", "Bearer ", "W10.W10.W10",
    ]
)  # fmt: skip
BODIES = (
    st.binary(max_size=60)
    | st.sampled_from([BODY, envelope(), b"a.b.c", b"e30.e30.e30", b"W10.e30.AA", b"\xff"])
    | st.recursive(
        st.none() | st.text(max_size=5) | st.integers(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=6,
    ).map(lambda header: token({"alg": "RS256", "x": header}, header, None))
    | st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jku", "jwk", "x5c"]),
        st.none() | st.text(max_size=5) | st.sampled_from(["RS256", "none", [], {}, 1, True]),
    ).map(lambda header: token(header, {}, None))
)
SCHEMES = [
    "github", "workos", "zitadel", "gitguardian", "keycloak", "okta", "gitlab", "auth0", "svix",
    "fusionauth", "fusionauth-keys", "jws",
]  # fmt: skip


@pytest.mark.parametrize("scheme", SCHEMES)
def test_nothing_comes_out_but_a_refusal(
    idp: Site, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """A forger knows no secret, so whatever is sent, none of it may be believed."""
    idp.secret(1, "whsec_" + base64.b64encode(b"0123456789abcdef-first").decode())
    keys = f"keys = {idp.keys(JWKS)}\n"
    proof = {
        "jws": f'scheme = "jws"\n{keys}issuer = "i"\naudience = ["a"]',
        "fusionauth-keys": f'scheme = "fusionauth"\n{keys}',
    }.get(scheme, f'scheme = "{scheme}"')
    source = producer(idp, proof)
    alarms: list[str] = []
    monkeypatch.setattr(accept.log, "error", lambda _, **facts: alarms.append(facts["alarm"]))

    @settings(max_examples=60, deadline=None, suppress_health_check=LONELY, database=None)
    @given(headers=st.dictionaries(NAMES, VALUES, max_size=4), body=BODIES)
    def search(headers: dict[str, str], body: bytes) -> None:
        found: list[Received] = read(source, "1795423200000-0", headers, body)
        [one] = found
        assert isinstance(one.content, Rejection)
        assert one.content.code in ("unverified", "bad_envelope")
        one.content.message.encode()

    search()
    assert alarms == []  # verifier_failed
