import json
from datetime import UTC, datetime
from typing import Any

import pytest

from models.events import AccountEvent, Action, Certainty, Subject, dedup_key
from tests.worker.intake.messages import FIXTURES
from worker.intake.providers import Result, Unreadable
from worker.intake.providers.native import from_fields, parse
from worker.intake.providers.reading import MAX_BODY

BY_HAND = {b"type": b"account.disabled", b"account": b"ada@example.com", b"id": b"42"}


def only(results: list[Result]) -> AccountEvent:
    (event,) = results
    assert isinstance(event, AccountEvent)
    return event


def read(**members: Any) -> AccountEvent:
    plain = {"type": "account.disabled", "account": "ada@example.com", **members}
    return only(parse({}, json.dumps(plain).encode()))


def refusal(**members: Any) -> Unreadable:
    with pytest.raises(Unreadable) as raised:
        read(**members)
    return raised.value


def test_the_line_typed_by_hand() -> None:
    assert only(from_fields(BY_HAND)) == AccountEvent(
        action=Action.DISABLED,
        certainty=Certainty.TRANSITION,
        subject=Subject(format="email", value="ada@example.com"),
        event_id="42",
        raw_type="account.disabled",
    )


def test_the_same_event_by_fields_and_as_json_is_the_same() -> None:
    members = json.loads((FIXTURES / "native-disabled.json").read_bytes())
    fields = {name.encode(): str(value).encode() for name, value in members.items()}
    assert from_fields(fields) == [read(**members)]
    assert read(**members) == AccountEvent(
        action=Action.DISABLED,
        subject=Subject(format="email", value="ada@example.com"),
        occurred_at=datetime(2026, 11, 20, 8, 15, 0, 250_000, tzinfo=UTC),
        sequence=17,
        event_id="hr-2026-000017",
        raw_type="account.disabled",
        reason="left the company",
        actor="hr-sync",
    )


SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def test_a_leaked_key_is_named_by_the_digest_of_its_text() -> None:
    by_hand = {b"type": b"key.leaked", b"digest": SHA256.upper().encode(), b"id": b"7"}
    assert only(from_fields(by_hand)) == AccountEvent(
        action=Action.KEY_LEAKED, key_digest=SHA256, event_id="7", raw_type="key.leaked"
    )
    envelope = {"specversion": "1.0", "type": "key.leaked", "source": "/scan", "id": "7"}
    body = json.dumps({**envelope, "data": {"digest": SHA256}}).encode()
    assert only(parse({}, body)) == only(from_fields(by_hand))


@pytest.mark.parametrize(
    ("digest", "code"),
    [
        (None, "missing_digest"),
        ("", "missing_digest"),
        ("kt_theTextItself", "bad_digest"),
        (SHA256[:-1], "bad_digest"),
        (SHA256[:-1] + "g", "bad_digest"),
        (7, "bad_digest"),
    ],
)
def test_a_leaked_key_without_its_digest_is_refused(digest: Any, code: str) -> None:
    refused = refusal(type="key.leaked", digest=digest)
    assert refused.code == code
    assert "theTextItself" not in refused.message


def test_a_cloudevent_of_our_type() -> None:
    body = (FIXTURES / "native-cloudevent-enabled.json").read_bytes()
    assert only(parse({}, body)) == AccountEvent(
        action=Action.ENABLED,
        subject=Subject(format="email", value="grace@example.com"),
        occurred_at=datetime(2026, 11, 20, 10, tzinfo=UTC),
        sequence=18,
        event_id="7c1e0e6a-8d7e-4a51-9a2e-0f6a0f2f6f11",
        raw_type="account.enabled",
        reason="back from leave",
    )


def test_a_cloudevents_subject_is_the_account_where_data_names_none() -> None:
    envelope = {"specversion": "1.0", "type": "account.deleted", "id": "1", "subject": "u-42"}
    event = only(parse({}, json.dumps(envelope).encode()))
    assert event.subject == Subject(format="opaque", value="u-42")
    assert event.action is Action.DELETED


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"specversion": "0.3"}, "unknown_version"),
        ({"specversion": 1.0}, "unknown_version"),
        ({"specversion": "1.0", "data": "x"}, "not_an_object"),
        ({"specversion": "1.0", "type": "com.example.thing"}, "unknown_type"),
        ({"specversion": "1.0", "data": {}}, "missing_account"),
    ],
)
def test_a_cloudevent_that_is_none_of_ours(members: dict[str, Any], code: str) -> None:
    assert refusal(**members).code == code


@pytest.mark.parametrize("name", ["disabled", "enabled", "deleted", "compromised"])
def test_the_four_types(name: str) -> None:
    assert read(type=f"account.{name}").action == name


@pytest.mark.parametrize("name", ["disabled", "enabled", "deleted", "compromised"])
def test_the_same_of_a_tenant(name: str) -> None:
    event = read(type=f"tenant.{name}", tenant="Acme 7", sequence=3)
    assert event.action == name
    assert event.subject == Subject(format="tenant", value="Acme 7")
    by_hand = {b"type": f"tenant.{name}".encode(), b"tenant": b"Acme 7", b"sequence": b"3"}
    assert from_fields(by_hand) == [event]


def test_a_cloudevents_subject_is_the_tenant_where_data_names_none() -> None:
    envelope = {"specversion": "1.0", "type": "tenant.disabled", "id": "1", "subject": "acme"}
    acme, other = Subject(format="tenant", value="acme"), Subject(format="tenant", value="other")
    assert only(parse({}, json.dumps(envelope).encode())).subject == acme
    envelope["data"] = {"tenant": "other", "account": "ada@example.com"}  # type: ignore[assignment]
    assert only(parse({}, json.dumps(envelope).encode())).subject == other


def test_the_type_says_whether_a_tenant_is_meant() -> None:
    """What stands beside it, of the other kind, is for information: no account is a tenant."""
    assert read(tenant="acme") == read()
    for name, mend in (("tenant.disabled", "account.*"), ("account.disabled", "tenant.*")):
        given = {"account": "acme"} if name == "tenant.disabled" else {"tenant": "acme"}
        refused = refusal(**{"type": name, "account": None, **given})
        assert refused.code == f"missing_{name.partition('.')[0]}"
        assert mend in refused.message


@pytest.mark.parametrize(
    ("tenant", "code"),
    [
        (None, "missing_tenant"),
        (" ", "missing_tenant"),
        (True, "wrong_type"),
        ({"id": 1}, "wrong_type"),
        ("a\0b", "bad_characters"),
        ("x" * 513, "too_long"),
    ],
)
def test_what_names_no_tenant(tenant: Any, code: str) -> None:
    assert refusal(type="tenant.disabled", account=None, tenant=tenant).code == code


@pytest.mark.parametrize(
    ("type_", "code"),
    [
        ("tenant.suspended", "unknown_type"),
        ("account.suspended", "unknown_type"),
        ("Account.Disabled", "unknown_type"),
        ("account.disabled ", "unknown_type"),
        (None, "missing_type"),
        ("", "missing_type"),
        (["account.disabled"], "wrong_type"),
    ],
)
def test_other_types_are_refused(type_: Any, code: str) -> None:
    assert refusal(type=type_).code == code


def test_an_unknown_type_is_named_and_the_known_ones_too() -> None:
    message = refusal(type="account.paused\x1b[2J").message
    assert "account.paused" in message
    assert "account.disabled" in message
    assert "\x1b" not in message


def test_hijacking_is_a_compromise() -> None:
    assert read(reason="hijacking").action is Action.COMPROMISED


UUID = "0199A1B2-0000-7000-8000-00000000ABCD"


@pytest.mark.parametrize(
    ("account", "subject"),
    [
        (" Ada@Example.COM\n", Subject(format="email", value="ada@example.com")),
        ("user-42", Subject(format="opaque", value="user-42")),
        ("User-42", Subject(format="opaque", value="User-42")),
        (42, Subject(format="opaque", value="42")),
        (2**70, Subject(format="opaque", value=str(2**70))),
        ("../../etc/passwd", Subject(format="opaque", value="../../etc/passwd")),
        ("'; DROP TABLE x", Subject(format="opaque", value="'; DROP TABLE x")),
        ("u\u202e42", Subject(format="opaque", value="u\u202e42")),
        ("*", Subject(format="opaque", value="*")),
        (
            UUID,
            Subject(
                format="account",
                value=UUID.lower(),
                aliases=(Subject(format="opaque", value=UUID),),
            ),
        ),
        (UUID.replace("-", ""), Subject(format="opaque", value=UUID.replace("-", ""))),
    ],
)
def test_what_names_an_account(account: Any, subject: Subject) -> None:
    assert read(account=account).subject == subject


@pytest.mark.parametrize(
    ("account", "code"),
    [
        (None, "missing_account"),
        ("", "missing_account"),
        ("  ", "missing_account"),
        (True, "wrong_type"),
        (4.2, "wrong_type"),
        ({"email": "ada@example.com"}, "wrong_type"),
        ("ada@example.com,bob@example.com", "bad_account"),
        ("ada@example.com\r\nBcc: bob@example.com", "bad_account"),
        ("a\0b", "bad_characters"),
        ("\ud800", "bad_characters"),
        ("x" * 513, "too_long"),
    ],
)
def test_what_names_no_account(account: Any, code: str) -> None:
    assert refusal(account=account).code == code


@pytest.mark.parametrize(
    "at",
    [
        "2026-11-20T08:15:00Z",
        "2026-11-20t08:15:00z",
        "2026-11-20 08:15:00+00:00",
        "2026-11-20T09:15:00+01:00",
        "2026-11-20T09:15:00.000+0100",
        "2026-11-20T02:45:00.000000000-05:30",
        1795162500,
        1795162500.0,
        1795162500000,
        "1795162500",
        "1795162500.000",
        "1795162500000",
    ],
    ids=repr,
)
def test_a_time_with_its_zone_or_since_1970(at: Any) -> None:
    assert read(at=at).occurred_at == datetime(2026, 11, 20, 8, 15, tzinfo=UTC)


def test_a_time_keeps_its_microseconds() -> None:
    expected = datetime(2026, 11, 20, 8, 15, 0, 123_456, tzinfo=UTC)
    assert read(at="2026-11-20T08:15:00.123456789Z").occurred_at == expected
    assert read(at="1795162500.123456").occurred_at == expected
    assert read(at=1795162500.123456).occurred_at == expected


@pytest.mark.parametrize("at", [None, "", " "], ids=repr)
def test_a_time_may_be_left_out(at: Any) -> None:
    event = read(at=at)
    assert event.occurred_at is None
    assert dedup_key(event, "1-0").startswith("delivery:")


@pytest.mark.parametrize("at", ["2026-11-20T08:15:00", "2026-11-20 08:15:00.5"])
def test_a_time_without_a_zone_is_refused_and_told_so(at: str) -> None:
    found = refusal(at=at)
    assert found.code == "bad_timestamp"
    assert "zone" in found.message


@pytest.mark.parametrize(
    "at",
    [
        "yesterday",
        "2026-02-30T00:00:00Z",
        "2026-11-20T25:00:00Z",
        "2026-11-20T08:15:00+99:00",
        "2026-11-20",
        "20261120",
        "20261120081500",
        "0001-01-01T00:00:00Z",
        "0000-00-00T00:00:00Z",
        "9999-12-31T23:59:59-12:00",
        "1969-12-31T23:59:59Z",
        "\uff12026-11-20T08:15:00Z",
        0,
        -1,
        10**15,
        10**300,
        1e300,
        True,
        [2026],
        {},
    ],
    ids=repr,
)
def test_what_is_no_time(at: Any) -> None:
    assert refusal(at=at).code == "bad_timestamp"


@pytest.mark.parametrize(
    ("sequence", "number"),
    [(0, 0), (17, 17), ("17", 17), (2**63 - 1, 2**63 - 1), (None, None), ("", None)],
    ids=repr,
)
def test_a_sequence(sequence: Any, number: int | None) -> None:
    assert read(sequence=sequence).sequence == number


@pytest.mark.parametrize(
    ("sequence", "code"),
    [
        (-1, "bad_sequence"),
        (2**63, "bad_sequence"),
        ("1e3", "bad_sequence"),
        ("\u0661", "bad_sequence"),
        (1.5, "wrong_type"),
        (True, "wrong_type"),
    ],
)
def test_what_is_no_sequence(sequence: Any, code: str) -> None:
    assert refusal(sequence=sequence).code == code


@pytest.mark.parametrize(
    ("id_", "event_id"), [(42, "42"), ("42", "42"), (None, None), ("", None)], ids=repr
)
def test_an_id_may_be_a_number_or_missing(id_: Any, event_id: str | None) -> None:
    assert read(id=id_).event_id == event_id


@pytest.mark.parametrize(
    ("id_", "code"),
    [(True, "wrong_type"), ([1], "wrong_type"), ("a\0", "bad_characters"), ("x" * 513, "too_long")],
)
def test_what_is_no_id(id_: Any, code: str) -> None:
    assert refusal(id=id_).code == code


def test_information_never_costs_an_event() -> None:
    event = read(reason="x\0" + "\ud800" * 1000, actor={"id": 1})
    assert event.reason is not None
    assert len(event.reason) <= 500
    assert event.actor is None
    fields = {**BY_HAND, b"reason": b"\xff hijack", b"actor": b"\xff"}
    assert only(from_fields(fields)).reason == "\ufffd hijack"


def test_members_that_nobody_needs_may_be_anything() -> None:
    assert read(extra={"nul": "\0", "half": "\ud800", "big": 2**200}) == read()
    assert from_fields({**BY_HAND, b"\xff": b"\xff"}) == from_fields(BY_HAND)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "missing_type"),
        ({b"type": b"account.disabled"}, "missing_account"),
        ({**BY_HAND, b"account": b"\xff"}, "not_utf8"),
        ({**BY_HAND, b"type": b"\xff"}, "not_utf8"),
        ({**BY_HAND, b"id": b"a\0b"}, "bad_characters"),
        ({**BY_HAND, b"at": b"2026-11-20T08:15:00"}, "bad_timestamp"),
        ({**BY_HAND, b"extra": b"x" * (MAX_BODY + 1)}, "too_large"),
    ],
)
def test_fields_that_are_no_event(fields: dict[bytes, bytes], code: str) -> None:
    with pytest.raises(Unreadable) as raised:
        from_fields(fields)
    assert raised.value.code == code


def test_an_array_is_no_event() -> None:
    with pytest.raises(Unreadable) as raised:
        parse({}, b"[]")
    assert raised.value.code == "not_an_object"
