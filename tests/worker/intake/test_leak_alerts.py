"""Reports of leaked keys: hashed on arrival, and never kept, whatever becomes of the message."""

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import inbox
from models.base import Database
from models.events import AccountEvent
from worker.intake.providers import Unreadable, kept, parse

TOKEN = "acme_CANARY00000000000000000000000001"
DIGEST = hashlib.sha256(TOKEN.encode()).hexdigest()
ALERT = {"token": TOKEN, "type": "acme_api_key", "url": "https://github.com/a/b/c.py"}


def read(message: Any, **headers: str) -> list[AccountEvent | Unreadable]:
    try:
        return parse("github", headers, json.dumps(message).encode())
    except Unreadable as refusal:
        return [refusal]


def test_an_alert_is_the_digest_of_its_token() -> None:
    [event] = read([ALERT])
    assert isinstance(event, AccountEvent)
    assert (event.action, event.key_digest, event.reason) == ("key_leaked", DIGEST, ALERT["url"])
    assert event.raw_type == "acme_api_key"
    assert event.subject is None
    assert TOKEN not in event.model_dump_json()


def test_the_same_token_in_the_same_place_is_the_same_alert() -> None:
    ids = {
        event.event_id
        for message in ([ALERT], [{**ALERT, "source": "commit"}], ALERT, [{**ALERT, "url": ""}])
        for event in read(message)
        if isinstance(event, AccountEvent)
    }
    assert len(ids) == 2


def test_the_members_of_a_batch_succeed_one_by_one() -> None:
    batch = [ALERT, {"type": "x"}, 5, {**ALERT, "token": 7}, {**ALERT, "type": None}, ALERT]
    codes = [one.code if isinstance(one, Unreadable) else "event" for one in read(batch)]
    assert codes == [
        "event", "missing_digest", "not_an_object", "missing_digest", "missing_type", "event",
    ]  # fmt: skip


def test_an_address_that_repeats_the_token_is_left_out() -> None:
    [event] = read([{**ALERT, "url": f"https://example.com/?key={TOKEN}"}])
    assert isinstance(event, AccountEvent)
    assert event.reason is None


BAD: list[tuple[str, bytes]] = [
    ("github", json.dumps([{**ALERT, "type": None}]).encode()),
    ("github", json.dumps([{"secret": TOKEN, "type": "x"}]).encode()),
    ("github", json.dumps([TOKEN]).encode()),
    ("github", json.dumps({"alerts": [ALERT]}).encode()),
    ("github", json.dumps({TOKEN: "x"}).encode()),
    ("github", json.dumps([{**ALERT, "type": TOKEN, "url": TOKEN, "token": 1}]).encode()),
    ("github", json.dumps([ALERT]).encode()[:-1]),
    ("github", b"[" + json.dumps(ALERT).encode() + b"] and more"),
    ("github", json.dumps([ALERT]).encode("utf-16")),
    ("github", f'[{{"token": "{TOKEN}", "token": "{TOKEN}"}}]'.encode()),
    ("github", TOKEN.encode()),
    ("gitguardian", json.dumps({"action": 5.5, "secret": TOKEN, "token": TOKEN}).encode()),
    ("gitguardian", json.dumps({"match": {"value": TOKEN}}).encode()[:-1]),
    ("cloudevents", json.dumps({"specversion": "1.0", "type": "x", "data": [ALERT]}).encode()),
    ("cloudevents", json.dumps({"specversion": "9", "type": "x", "data": ALERT}).encode()),
    ("cloudevents", json.dumps(
        {"specversion": "9", "type": "x",
         "data_base64": base64.b64encode(json.dumps([ALERT]).encode()).decode()}).encode()),
]  # fmt: skip


@pytest.mark.parametrize(("provider", "body"), BAD)
@pytest.mark.parametrize("headers", [{}, {"x-github-event": "secret_scanning_alert"}])
def test_nothing_that_is_kept_holds_the_token(
    provider: str, body: bytes, headers: dict[str, str]
) -> None:
    remains = kept(provider, body)
    for spelling in (TOKEN.encode(), base64.b64encode(TOKEN.encode()), TOKEN.encode("utf-16-le")):
        assert spelling not in remains
    try:
        found = parse(provider, headers, body)
    except Unreadable as refusal:
        found = [refusal]
    for one in found:
        assert TOKEN not in str(one)
        if isinstance(one, Unreadable):
            assert TOKEN.encode() not in kept(provider, one.member or body)


def test_what_was_kept_can_be_read_again() -> None:
    remains = kept("github", json.dumps([ALERT]).encode())
    [event] = parse("github", {}, remains)
    assert isinstance(event, AccountEvent)
    assert event.key_digest == DIGEST


def test_half_a_surrogate_pair_is_no_reason_to_stop() -> None:
    assert kept("github", rb'{"\ud800token": 1, "token": "\ud800"}').startswith(b"{")


def test_other_messages_are_kept_as_they_are() -> None:
    webhook = json.dumps({"action": "suspend", "installation": {"id": 7}}).encode()
    assert kept("github", webhook) == webhook
    assert kept("okta", b"{bad") == b"{bad"
    envelope = json.dumps({"specversion": "1.0", "type": "x", "data": {"a": 1}}).encode()
    assert kept("cloudevents", envelope) == envelope


SCALARS = st.none() | st.booleans() | st.integers() | st.just(TOKEN) | st.just(f"x {TOKEN} y")
ANY = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["token", "type", "url", "secret", "source", "action", TOKEN]), inner
        )
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(ANY, st.integers(0, 400), st.sampled_from(["github", "gitguardian"]))
def test_wherever_the_token_stands(value: Any, length: int, provider: str) -> None:
    body = json.dumps(value).encode()
    assert TOKEN.encode() not in kept(provider, body)
    assert TOKEN.encode() not in kept(provider, body[:length])


def test_no_row_of_the_inbox_and_no_line_of_the_log_holds_it(
    database: Database, capfd: pytest.CaptureFixture[str]
) -> None:
    from worker.intake import accept

    producer = accept.Producer("github", "github")
    for number, body in enumerate([json.dumps([ALERT]).encode(), *[body for _, body in BAD[:11]]]):
        received = accept.read(producer, f"{number}-0", {}, body)
        fields = {b"payload": body, b"token": TOKEN.encode()}
        received += accept.read_entry(producer, f"{number}-1", fields)
        accept.accept(database, producer, received)
    with database.begin() as tx:
        rows = tx.rows("SELECT to_jsonb(i) - 'body' AS row, body FROM keyturn.inbox i")
        assert len(inbox.listed(tx)) == len(rows)
    assert len(rows) > 20
    for row in rows:
        assert TOKEN not in json.dumps(row["row"])
        assert TOKEN.encode() not in bytes(row["body"] or b"")
    shown = capfd.readouterr()
    assert TOKEN not in shown.out + shown.err
