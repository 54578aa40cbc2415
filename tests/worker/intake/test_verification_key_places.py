"""Where public keys come from: a file or a URL, kept, renewed, and never asked for too often."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.errors import Misconfigured
from tests.eventually import eventually
from tests.worker.intake import proofs
from tests.worker.intake.proofs import Answers, Site, answering, why
from tests.worker.intake.test_verification_keys import JWKS, jws, signed
from worker.intake.verification import KeysUnavailable, Message, public_keys


@pytest.fixture
def server() -> Iterator[Answers]:
    with answering() as made:
        made.body = json.dumps({"keys": [proofs.rsa_jwk(proofs.RSA)]}).encode()
        yield made


def rotated(*kids: str) -> bytes:
    return json.dumps({"keys": [proofs.rsa_jwk(proofs.RSA, kid) for kid in kids]}).encode()


def test_keys_are_fetched_once_and_kept(idp: Site, server: Answers) -> None:
    verify = jws(idp, f'"{server.url}"')
    assert server.paths == []
    for _ in range(5):
        assert why(verify, {}, signed()) is None
    assert server.paths == ["/keys"]


def test_an_unknown_key_makes_them_fetched_anew_but_not_for_each_message(
    idp: Site, server: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = jws(idp, f'"{server.url}"')
    for number in range(20):
        assert "does not list" in str(why(verify, {}, signed(kid=f"forged-{number}")))
    assert len(server.paths) == 1
    monkeypatch.setattr(public_keys, "FRESH", 0.0)
    server.body = rotated("one", "new")
    with pytest.raises(KeysUnavailable):  # it may be there by now: nobody can say yet
        verify(Message({}, signed(kid="new")))
    assert len(server.paths) == 1
    monkeypatch.setattr(public_keys, "RETRY", 0.0)
    assert why(verify, {}, signed(kid="new")) is None
    assert len(server.paths) == 2


def test_a_key_withdrawn_is_refused_once_the_keys_are_renewed(
    idp: Site, server: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = jws(idp, f'"{server.url}"')
    assert why(verify, {}, signed()) is None
    server.body = rotated("new")
    assert why(verify, {}, signed()) is None
    monkeypatch.setattr(public_keys, "KEPT", 0.0)
    monkeypatch.setattr(public_keys, "RETRY", 0.0)
    assert "does not list" in str(why(verify, {}, signed()))


@pytest.mark.parametrize(
    "change",
    [
        {"status": 500},
        {"status": 404},
        {"body": b"<html>"},
        {"body": b"{}"},
        {"body": b'{"keys": {}}'},
        {"body": b"[" * 100_000},
        {"body": b" " * 300_000 + json.dumps(JWKS).encode()},
        {"status": 302, "location": "https://elsewhere.example.com/"},
    ],
)
def test_while_keys_cannot_be_had_a_message_waits_and_those_known_stay(
    idp: Site, server: Answers, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    monkeypatch.setattr(public_keys, "RETRY", 0.0)
    monkeypatch.setattr(public_keys, "FRESH", 0.0)
    monkeypatch.setattr(public_keys, "KEPT", 0.0)
    good = server.status, server.body
    for name, value in change.items():
        setattr(server, name, value)
    verify = jws(idp, f'"{server.url}"')
    with pytest.raises(KeysUnavailable):
        verify(Message({}, signed()))
    server.status, server.body = good
    assert why(verify, {}, signed()) is None
    for name, value in change.items():
        setattr(server, name, value)
    assert why(verify, {}, signed()) is None
    with pytest.raises(KeysUnavailable):
        verify(Message({}, signed(kid="new")))


def test_no_redirect_is_followed(idp: Site, server: Answers) -> None:
    with answering() as elsewhere:
        elsewhere.body, server.status, server.location = server.body, 302, elsewhere.url
        verify = jws(idp, f'"{server.url}"')
        with pytest.raises(KeysUnavailable):
            verify(Message({}, signed()))
        assert elsewhere.paths == []


def test_a_place_that_is_away_is_not_asked_for_each_message(idp: Site) -> None:
    with answering() as server:
        server.status = 503
        verify = jws(idp, f'"{server.url}"')
        for _ in range(3):
            with pytest.raises(KeysUnavailable):
                verify(Message({}, signed()))
        assert len(server.paths) == 1
    gone = jws(idp, f'"{server.url}"')
    with pytest.raises(KeysUnavailable):
        gone(Message({}, signed()))


def test_a_file_of_keys_is_read_anew(idp: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_keys, "LOOK_AGAIN", 0.0)
    monkeypatch.setattr(public_keys, "LOOK_EVERY", 0.0)
    verify = jws(idp, idp.keys(JWKS))
    assert why(verify, {}, signed(kid="new"))
    idp.keys({"keys": [proofs.rsa_jwk(proofs.RSA, "new")]})
    eventually(lambda: why(verify, {}, signed(kid="new")) is None)
    assert why(verify, {}, signed(kid="one"))
    (idp.place / "keys.json").write_text("spoilt")
    assert why(verify, {}, signed(kid="new")) is None


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda path: path.chmod(0o666), "can be written by others"),
        (lambda path: path.unlink(), "cannot read the public keys"),
        (lambda path: path.write_text("{}"), "does not hold the public keys"),
        (lambda path: path.write_text("x" * 300_000), "is larger than"),
    ],
)
def test_an_unusable_file_of_keys_is_refused_at_the_start(
    idp: Site, spoil: Any, fault: str
) -> None:
    keys = idp.keys(JWKS)
    spoil(Path(json.loads(keys)))
    with pytest.raises(Misconfigured, match=fault):
        jws(idp, keys)


def test_a_file_that_is_missing_is_named_with_its_source_and_its_directory(
    idp: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path without a directory is in the working directory, which is not always the expected."""
    monkeypatch.chdir(idp.place)
    with pytest.raises(Misconfigured, match="of source idp in") as refusal:
        jws(idp, '"jwks.json"')
    assert str(idp.place / "jwks.json") in str(refusal.value)
