"""Signed messages on their way from a real stream to an account cut off, or to a refusal."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from models.base import Database
from models.errors import Refused
from models.operator import Operator
from tests.eventually import eventually
from tests.worker.intake import proofs
from tests.worker.intake.proofs import OTHER, SECRET, Answers, Site, answering, hexed
from tests.worker.intake.streams import done, reasons, states, stored
from tests.world import World
from worker.intake import accept
from worker.intake.stream import GROUP, StreamIntake
from worker.intake.verification import public_keys
from worker.settings import Settings
from worker.streams import connect

STREAM = "in"
BODY = b'{"type": "account.disabled", "account": "ada@example.com", "id": "42"}'
SET = {
    "iss": "https://idp.example.com/",
    "aud": "https://keys.example.com",
    "jti": "set-1",
    "iat": 1795423200,
    "sub_id": {"format": "email", "email": "ada@example.com"},
    "events": {
        "https://schemas.openid.net/secevent/risc/event-type/account-disabled": {
            "reason": "hijacking"
        }
    },
}


@contextmanager
def intake(url: str, database: Database, settings: Settings, **more: Any) -> Iterator[None]:
    """An intake of the one source, in a thread of its own."""
    stop = threading.Event()
    with connect(url) as client:
        sources = {STREAM: accept.source(settings, "idp")}
        made = StreamIntake(client, database, sources, "one", **more)
        thread = threading.Thread(target=made.run, args=(stop.is_set,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(20)
            assert not thread.is_alive()


def relayed(body: bytes, **headers: str) -> dict[Any, Any]:
    """A stream's entry with a webhook in a relay's envelope."""
    raw = base64.b64encode(body).decode()
    return {"body": json.dumps({"headers": headers, "body_b64": raw})}


def by_workos(secret: str, body: bytes, at: float | None = None) -> dict[Any, Any]:
    time_ms = int((time.time() if at is None else at) * 1000)
    signature = hexed(secret, f"{time_ms}.".encode() + body)
    return relayed(body, **{"WorkOS-Signature": f"t={time_ms}, v1={signature}"})


@pytest.fixture
def operator(database_url: str, secrets_dir: Path) -> Iterator[Operator]:
    with Operator(database_url, secrets_dir=secrets_dir, actor="ada") as made:
        yield made


def test_a_signed_webhook_cuts_an_account_off_and_a_forged_one_does_not(
    idp: Site, redis: Redis, broker_url: str, database: Database, operator: Operator
) -> None:
    idp.secret(1, SECRET)
    settings = idp.settings('scheme = "workos"')
    world = World(database)
    world.account()
    _, text = world.key()
    redis.xadd(STREAM, by_workos(OTHER, BODY))
    redis.xadd(STREAM, {"body": BODY, "headers": "{}"})
    redis.xadd(STREAM, {"type": "account.disabled", "account": "ada@example.com"})
    redis.xadd(STREAM, by_workos(SECRET, BODY, at=time.time() - 3600))
    redis.xadd(STREAM, {"body": b'{"headers": {}, "body_b64": "?"}'})
    with intake(broker_url, database, settings):
        eventually(lambda: done(redis, STREAM))
    world.apply()
    assert states(database) == {"rejected": 5}
    assert world.verify(text).valid
    with pytest.raises(Refused) as refusal:
        accept.replay(operator, settings, operator.events(state="rejected")[0].id)
    assert refusal.value.code == "bad_envelope"
    assert [reason.split(";")[0].split(" (")[0] for reason in reasons(database)] == [
        "unverified: the signature is wrong: the message was altered, or signed with another "
        "secret",
        "unverified: the header workos-signature is missing: have the relay pass it on, or correct "
        "its name in the source's proof",
        "no_body: the entry has no field `body`: XADD STREAM * body '{...}'",
        "unverified: the signature is older than 5m",
        "bad_envelope: the relay's envelope cannot be opened: `body_b64` is not base64",
    ]
    redis.xadd(STREAM, by_workos(SECRET, BODY))
    with intake(broker_url, database, settings):
        eventually(lambda: stored(database)[-1] == "42")
    world.apply()
    assert world.verify(text).reason == "account_held"


def test_a_replay_is_verified_by_the_secrets_of_now(
    idp: Site, redis: Redis, broker_url: str, database: Database, operator: Operator
) -> None:
    idp.secret(1, SECRET)
    settings = idp.settings('scheme = "workos"')
    redis.xadd(STREAM, by_workos(OTHER, BODY, at=time.time() - 3600))
    with intake(broker_url, database, settings):
        eventually(lambda: done(redis, STREAM))
    [refused] = operator.events(state="rejected")
    with pytest.raises(Refused, match="still refused: the signature is wrong") as refusal:
        accept.replay(operator, settings, refused.id)
    assert refusal.value.code == "unverified"
    idp.secret(2, OTHER)  # what the producer had signed with, and nobody had told us
    assert accept.replay(operator, settings, refused.id) == ["received"]
    assert states(database) == {"done": 1, "received": 1}


def test_what_was_proven_and_not_understood_is_proven_still(
    idp: Site, redis: Redis, broker_url: str, database: Database, operator: Operator
) -> None:
    """One member of a signed batch is kept alone, so its signature could not be made out again."""
    idp.secret(1, SECRET)
    settings = idp.settings('scheme = "keycloak"', "keycloak")
    common = {"resourceType": "USER", "resourcePath": "users/1", "time": 1795423200000}
    batch = json.dumps(
        [common | {"id": "1", "operationType": "DELETE"}, common | {"operationType": "UNHEARD"}]
    ).encode()
    redis.xadd(STREAM, relayed(batch, **{"X-Keycloak-Signature": hexed(SECRET, batch)}))
    with intake(broker_url, database, settings):
        eventually(lambda: done(redis, STREAM))
    [refused] = operator.events(state="rejected")
    assert "unknown_type" in str(refused.reason)
    idp.secret(1, OTHER)
    with pytest.raises(Refused) as refusal:
        accept.replay(operator, settings, refused.id)
    assert refusal.value.code == "unknown_type"


def test_a_secret_header_is_not_in_the_inbox(
    idp: Site, redis: Redis, broker_url: str, database: Database, operator: Operator
) -> None:
    idp.secret(1, SECRET)
    settings = idp.settings('scheme = "okta"', "okta")
    redis.xadd(STREAM, relayed(b'{"no": "event"}', Authorization=SECRET))
    redis.xadd(STREAM, relayed(b"{}", Authorization=OTHER))
    with intake(broker_url, database, settings):
        eventually(lambda: done(redis, STREAM))
    with database.begin() as tx:
        kept = tx.execute("SELECT row_to_json(i)::text FROM keyturn.inbox i").scalars().all()
    assert len(kept) == 2
    assert not [row for row in kept if SECRET in row or OTHER in row]
    [unproven] = [one for one in operator.events() if "unverified" in str(one.reason)]
    idp.secret(2, OTHER)
    with pytest.raises(Refused) as refusal:
        accept.replay(operator, settings, unproven.id)
    assert refusal.value.code != "unverified"  # proven by the fingerprint; but it is no event


def test_a_security_event_token_compromises_an_account(
    idp: Site, redis: Redis, broker_url: str, database: Database, keys: Answers
) -> None:
    world = World(database)
    world.account()
    _, text = world.key()
    settings = sets(idp, keys)
    header = {"typ": "secevent+jwt", "alg": "RS256", "kid": "one"}
    redis.xadd(STREAM, relayed(proofs.token(header, SET, proofs.OTHER_RSA)))
    today = SET | {"iat": int(time.time()) + 1}  # later than the link of the mail address
    redis.xadd(STREAM, relayed(proofs.token(header, today, proofs.RSA)))
    with intake(broker_url, database, settings):
        eventually(lambda: done(redis, STREAM))
    world.apply()
    assert states(database) == {"rejected": 1, "done": 1}
    assert world.verify(text).reason == "account_held"
    assert keys.paths == ["/keys"]


def test_a_token_waits_for_keys_that_cannot_be_had_and_stops_nobody(
    idp: Site,
    redis: Redis,
    broker_url: str,
    database: Database,
    keys: Answers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(public_keys, "RETRY", 0.2)
    keys.status = 503
    header = {"typ": "secevent+jwt", "alg": "RS256", "kid": "one"}
    redis.xadd(STREAM, relayed(proofs.token(header, SET, proofs.RSA)))
    redis.xadd(STREAM, {"body": "no token"})
    with intake(broker_url, database, sets(idp, keys), dead_after=0.6):
        eventually(lambda: states(database) == {"rejected": 1})
        eventually(lambda: len(keys.paths) > 2)
        waiting: Any = redis.xpending(STREAM, GROUP)
        assert (waiting["pending"], redis.xlen(STREAM)) == (1, 1)
        keys.status = 200
        eventually(lambda: states(database) == {"rejected": 1, "received": 1})
        eventually(lambda: done(redis, STREAM))


@pytest.fixture
def keys() -> Iterator[Answers]:
    with answering() as made:
        made.body = json.dumps({"keys": [proofs.rsa_jwk(proofs.RSA)]}).encode()
        yield made


def sets(idp: Site, keys: Answers) -> Settings:
    proof = f'scheme = "jws"\nkeys = "{keys.url}"\nissuer = "{SET["iss"]}"\n'
    return idp.settings(f'{proof}audience = ["{SET["aud"]}"]', "ssf")
