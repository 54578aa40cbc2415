"""Proofs by a shared secret: known answers of the documentation, and every way to fail."""

import base64
import hashlib
import hmac
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from models.errors import Misconfigured
from tests.eventually import eventually
from tests.worker.intake.proofs import NOW, OTHER, SECRET, Site, hexed, why
from worker.intake.verification import shared_secrets
from worker.intake.verification.message import fingerprint
from worker.intake.verification.window import AHEAD

BODY = b'{"type": "account.disabled", "account": "ada@example.com", "id": "42"}'
AGE = timedelta(minutes=5)

# --- what the producers publish


def test_the_example_of_github(idp: Site) -> None:
    idp.secret(1, "It's a Secret to Everybody")
    due = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    verify = idp.verifier('scheme = "github"')
    assert why(verify, {"x-hub-signature-256": f"sha256={due}"}, b"Hello, World!") is None
    assert why(verify, {"x-hub-signature-256": f"sha256={due.upper()}"}, b"Hello, World!") is None
    assert "the signature is wrong" in str(
        why(verify, {"x-hub-signature-256": f"sha256={due}"}, b"Hello, World?")
    )


@pytest.mark.parametrize("family", ["webhook", "svix"])
@pytest.mark.parametrize(
    ("secret", "identity", "at", "body", "signature"),
    [
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1614265330,
            b'{"test": 2432232314}',
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        (
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1649367553,
            b'{"email":"test@example.com","username":"test_user"}',
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        ),
    ],
)
def test_the_examples_of_standard_webhooks(
    idp: Site, family: str, secret: str, identity: str, at: int, body: bytes, signature: str
) -> None:
    idp.secret(1, secret)
    verify = idp.verifier('scheme = "standard-webhooks"')
    came = datetime.fromtimestamp(at, UTC)
    headers = {
        f"{family}-id": identity,
        f"{family}-timestamp": str(at),
        f"{family}-signature": f"v1a,AAAA v1,AAAA {signature} v2,AAAA",
    }
    assert why(verify, headers, body, arrived=came) is None
    assert why(verify, headers, body + b" ", arrived=came)
    for name in headers:
        assert "is missing" in str(why(verify, headers | {name: ""}, body, arrived=came))
        assert why(verify, headers | {name: "1"}, body, arrived=came)
    assert "no number of seconds" in str(
        why(verify, headers | {f"{family}-timestamp": f"0{at}"}, body, arrived=came)
    )
    assert "older than 5m" in str(why(verify, headers, body, arrived=came + AGE * 2))


# --- each preset, signed by hand as its producer documents it

MILLISECONDS = str(int(NOW.timestamp() * 1000))
SECONDS = str(int(NOW.timestamp()))
SIGNED = {
    "github": {"x-hub-signature-256": "sha256=" + hexed(SECRET, BODY)},
    "keycloak": {"x-keycloak-signature": hexed(SECRET, BODY)},
    "workos": {
        "workos-signature": f"t={MILLISECONDS}, v1="
        + hexed(SECRET, MILLISECONDS.encode() + b"." + BODY)
    },
    "zitadel": {
        "zitadel-signature": f"t={SECONDS},v1=00ff,v1="
        + hexed(SECRET, SECONDS.encode() + b"." + BODY)
    },
    "gitguardian": {
        "gitguardian-signature": "sha256=" + hexed(SECONDS + SECRET, BODY),
        "timestamp": SECONDS,
    },
    "wso2": {"x-wso2-event-signature": "sha256=" + hexed(SECRET, BODY)},
    "okta": {"authorization": SECRET},
    "gitlab": {"x-gitlab-token": SECRET},
    "auth0": {"authorization": f"Bearer {SECRET}"},
}


@pytest.mark.parametrize("scheme", SIGNED)
def test_each_preset(idp: Site, scheme: str) -> None:
    idp.secret(1, SECRET)
    verify = idp.verifier(f'scheme = "{scheme}"')
    headers = SIGNED[scheme]
    assert why(verify, headers, BODY, arrived=NOW) is None
    for name, value in headers.items():
        assert f"{name} is missing" in str(why(verify, {**headers, name: " "}, BODY))
        for wrong in (value[:-1], value + "0", "\ud800", "t=,v1=", "x" * 5000, value[::-1]):
            assert why(verify, {**headers, name: wrong}, BODY, arrived=NOW), wrong
    if scheme not in ("okta", "gitlab", "auth0"):
        assert "altered" in str(why(verify, headers, BODY + b"\n", arrived=NOW))
    idp.secret(1, OTHER)
    assert why(idp.verifier(f'scheme = "{scheme}"'), headers, BODY, arrived=NOW)


@pytest.mark.parametrize("scheme", ["workos", "zitadel", "gitguardian"])
def test_a_time_is_signed_with_the_rest(idp: Site, scheme: str) -> None:
    idp.secret(1, SECRET)
    verify = idp.verifier(f'scheme = "{scheme}"')
    headers = {
        name: value.replace(SECONDS, str(int(SECONDS) + 1))
        for name, value in SIGNED[scheme].items()
    }
    assert "the signature is wrong" in str(why(verify, headers, BODY, arrived=NOW))


def test_two_times_in_one_header_are_none(idp: Site) -> None:
    idp.secret(1, SECRET)
    [(name, value)] = SIGNED["zitadel"].items()
    verify = idp.verifier('scheme = "zitadel"')
    assert "two times" in str(why(verify, {name: f"t=1,{value}"}, BODY, arrived=NOW))


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("encoding", ["hex", "base64"])
def test_a_signature_of_ones_own(idp: Site, digest: str, encoding: str) -> None:
    idp.secret(1, SECRET)
    raw = hmac.digest(SECRET.encode(), b"v0:" + SECONDS.encode() + b":" + BODY, digest)
    written = raw.hex() if encoding == "hex" else base64.b64encode(raw).decode()
    verify = idp.verifier(
        f'scheme = "hmac"\nheader = "X-Sig"\ndigest = "{digest}"\nencoding = "{encoding}"\n'
        'prefix = "v0="\nsigned = "v0:{timestamp}:{body}"\ntimestamp_header = "X-Time"\n'
    )
    headers = {"x-sig": f"v0={written}", "x-time": SECONDS}
    assert why(verify, headers, BODY, arrived=NOW) is None
    assert why(verify, headers | {"x-sig": written}, BODY, arrived=NOW) == (
        "the header x-sig does not begin with 'v0='"
    )
    assert why(verify, headers | {"x-time": "yesterday"}, BODY, arrived=NOW)


@pytest.mark.parametrize(
    ("members", "written"),
    [
        ("", base64.b64encode(hmac.digest(SECRET.encode(), BODY, "sha256")).decode()),
        ("", hmac.digest(SECRET.encode(), BODY, "sha512").hex()),
        ("", hexed(SECRET, BODY)[:-1]),
        ('encoding = "base64"', hexed(SECRET, BODY)),
        ('digest = "sha512"', hexed(SECRET, BODY)),
    ],
)
def test_a_signature_written_otherwise_is_not_called_wrong(
    idp: Site, members: str, written: str
) -> None:
    idp.secret(1, SECRET)
    verify = idp.verifier(f'scheme = "hmac"\nheader = "X-Sig"\n{members}')
    told = str(why(verify, {"x-sig": written}, BODY))
    assert "correct `digest` or `encoding`" in told
    assert "the signature is wrong" in str(
        why(idp.verifier('scheme = "keycloak"'), {"x-keycloak-signature": "0" * 64}, BODY)
    )


def test_a_body_that_looks_like_a_template_is_signed_as_it_is(idp: Site) -> None:
    idp.secret(1, SECRET)
    body = b"{body}{timestamp}{secret}"
    verify = idp.verifier('scheme = "keycloak"')
    assert why(verify, {"x-keycloak-signature": hexed(SECRET, body)}, body) is None


# --- the time window


@pytest.mark.parametrize(
    ("late", "refused"),
    [
        (AGE, False),
        (AGE + timedelta(milliseconds=1), True),
        (-AHEAD, False),
        (-AHEAD - timedelta(milliseconds=1), True),
    ],
)
def test_the_window_at_its_edges(idp: Site, late: timedelta, refused: bool) -> None:
    idp.secret(1, SECRET)
    verify = idp.verifier('scheme = "zitadel"')
    assert bool(why(verify, SIGNED["zitadel"], BODY, arrived=NOW + late)) is refused
    assert why(verify, SIGNED["zitadel"], BODY, arrived=NOW + late, replayed=True) is None
    anyway = idp.verifier('scheme = "zitadel"\nmax_age = "0s"')
    assert why(anyway, SIGNED["zitadel"], BODY, arrived=NOW + late) is None


def test_a_message_that_waited_is_judged_by_when_it_came(idp: Site) -> None:
    """Signed long ago, by now: it lay on the queue while intake was down."""
    idp.secret(1, SECRET)
    old = str(int(time.time()) - 3600)
    headers = {"zitadel-signature": f"t={old},v1=" + hexed(SECRET, f"{old}.".encode() + BODY)}
    came = datetime.fromtimestamp(int(old) + 1, UTC)
    verify = idp.verifier('scheme = "zitadel"')
    assert why(verify, headers, BODY, arrived=came) is None
    assert why(verify, headers, BODY) is None  # nobody knows when it came
    strict = idp.verifier('scheme = "zitadel"\nmax_age = "30m"')
    assert why(strict, headers, BODY, arrived=came) is None
    assert "older than 30m" in str(why(strict, headers, BODY))


@pytest.mark.parametrize(
    "text",
    [SECONDS, SECONDS + ".25", MILLISECONDS, NOW.isoformat(), "2026-11-23T09:40:00.123+01:00"],
)
def test_times_as_producers_write_them(idp: Site, text: str) -> None:
    idp.secret(1, SECRET)
    headers = {
        "gitguardian-signature": "sha256=" + hexed(text + SECRET, BODY),
        "timestamp": text,
    }
    assert why(idp.verifier('scheme = "gitguardian"'), headers, BODY, arrived=NOW) is None


# --- the secrets


def test_an_old_and_a_new_secret_are_good_at_once(idp: Site) -> None:
    idp.secret(1, SECRET)
    idp.secret(2, OTHER)
    verify = idp.verifier('scheme = "keycloak"')
    for secret in (SECRET, OTHER):
        assert why(verify, {"x-keycloak-signature": hexed(secret, BODY)}, BODY) is None


def test_secrets_are_replaced_while_it_runs(idp: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_secrets, "LOOK_EVERY", 0.0)
    first = idp.secret(1, SECRET)
    verify = idp.verifier('scheme = "keycloak"')

    def good(secret: str) -> bool:
        return why(verify, {"x-keycloak-signature": hexed(secret, BODY)}, BODY) is None

    assert good(SECRET)
    assert not good(OTHER)
    second = idp.secret(2, OTHER)
    eventually(lambda: good(OTHER))
    assert good(SECRET)
    first.unlink()
    eventually(lambda: not good(SECRET))
    assert good(OTHER)
    second.unlink()  # all gone by mistake: what was read stays
    assert good(OTHER)
    idp.secret(1, "short")
    assert good(OTHER)
    assert not good("short")


def test_secrets_in_files_named(idp: Site) -> None:
    named = idp.place / "token"
    named.touch(0o600)
    named.write_text(SECRET)
    beside = idp.secrets / "webhook"
    beside.touch(0o600)
    beside.write_text(OTHER)
    verify = idp.verifier(f'scheme = "gitlab"\nsecret_files = ["{named}", "webhook"]')
    assert why(verify, {"x-gitlab-token": SECRET}, BODY) is None
    assert why(verify, {"x-gitlab-token": OTHER}, BODY) is None


def _readable(path: Path) -> None:
    path.chmod(0o640)


def _gone(path: Path) -> None:
    path.unlink()


def _short(path: Path) -> None:
    path.write_text("0123456789abcde")


def _directory_open(path: Path) -> None:
    path.parent.chmod(0o777)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (_readable, "is open to group or others: run `chmod 600"),
        (_gone, "source idp has no secret: put the one that its producer shares"),
        (_short, "is too short: a secret shared with a producer has 16 characters or more"),
        (_directory_open, "lets others put files into it: run `chmod go-w"),
        (_pipe, "is not a file"),
    ],
)
def test_unusable_secrets_are_refused_at_the_start(idp: Site, spoil: object, fault: str) -> None:
    path = idp.secret(1, SECRET)
    assert callable(spoil)
    spoil(path)
    with pytest.raises(Misconfigured, match=fault) as refusal:
        idp.verifier('scheme = "okta"')
    assert "0123456789abcde" not in str(refusal.value)


def test_a_secret_of_another_source_is_not_ours(idp: Site) -> None:
    idp.secret(1, SECRET)
    (idp.secrets / "source-idp-eu-1").touch(0o600)  # that of the source idp-eu, still empty
    (idp.secrets / "source-idp-1~").touch(0o600)
    idp.verifier('scheme = "okta"')


def test_a_secret_shows_nowhere(idp: Site) -> None:
    idp.secret(1, "not base64, but hush-hush")
    with pytest.raises(
        Misconfigured, match="a secret of source idp is none of Standard Webhooks"
    ) as refusal:
        idp.verifier('scheme = "svix"')
    verify = idp.verifier('scheme = "okta"')
    message = why(verify, {"authorization": "hush-guess"}, BODY)
    assert "does not hold the secret of this source" in str(message)
    assert "hush" not in f"{refusal.value} {message} {verify!r} {vars(verify)}"


def test_a_kept_fingerprint_is_good_for_a_replay_alone(idp: Site) -> None:
    """Who reads the inbox cannot send what it holds."""
    idp.secret(1, SECRET)
    verify = idp.verifier('scheme = "auth0"')
    stored = {"authorization": fingerprint(f"Bearer {SECRET}")}
    assert SECRET not in stored["authorization"]
    assert hashlib.sha256(f"Bearer {SECRET}".encode()).hexdigest() in stored["authorization"]
    assert why(verify, stored, BODY, replayed=True) is None
    assert why(verify, stored, BODY)
