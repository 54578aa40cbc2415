"""Bad account events, each as a real entry of a stream, through the intake into the inbox.

Nothing is lost: whatever comes becomes a row, or is a repetition of one that is there.
"""

import gzip
import itertools
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models import inbox
from models.events import Subject
from tests.bad_input.inlet import Inlet, outcome
from tests.worker.intake.streams import IN, KEYCLOAK, OKTA

_numbers = itertools.count(1)
CYRILLIC = "\u0430da@example.com"  # its first letter is not Latin


def native(**members: Any) -> dict[str, Any]:
    """An event as a JSON body; a member that is None is left out."""
    event = {"type": "account.disabled", "account": "nobody@example.com", **members}
    given = {name: value for name, value in event.items() if value is not None}
    return {"body": json.dumps(given)}


def fields(**members: Any) -> dict[str, Any]:
    """An event as fields of the entry."""
    return {"type": "account.disabled", "account": "nobody@example.com", **members}


def raw(body: bytes) -> dict[str, bytes]:
    return {"body": body}


def okta(**members: Any) -> dict[str, Any]:
    event = {
        "uuid": f"okta-{next(_numbers)}",
        "eventType": "user.lifecycle.suspend",
        "published": "2026-11-20T08:15:00.000Z",
        "target": [{"type": "User", "id": "00u-nobody", "alternateId": "x@example.com"}],
    }
    return {"body": json.dumps(event | members)}


def keycloak(**members: Any) -> dict[str, Any]:
    event = {
        "id": f"keycloak-{next(_numbers)}",
        "time": 1795167000123,
        "operationType": "UPDATE",
        "resourceType": "USER",
        "resourcePath": "users/nobody",
        "representation": '{"enabled": false}',
    }
    return {"body": json.dumps(event | members)}


GOOD = b'{"type": "account.disabled", "account": "nobody@example.com", "n": %s}'

BODIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty_body"),
    "blank": (b" \r\n\t ", "empty_body"),
    "no JSON": (b"account.disabled nobody@example.com", "not_json"),
    "XML": (b"<event/>", "not_json"),
    "form": (b"type=account.disabled&account=nobody", "not_json"),
    "single quotes": (b"{'type': 'account.disabled'}", "not_json"),
    "array": (b"[]", "not_an_object"),
    "array of events": (b"[" + GOOD % b"1" + b"]", "not_an_object"),
    "number": (b"42", "not_an_object"),
    "text": (b'"account.disabled"', "not_an_object"),
    "true": (b"true", "not_an_object"),
    "null": (b"null", "not_an_object"),
    "trailing garbage": (GOOD % b"1" + b" and more", "not_json"),
    "two objects": (GOOD % b"1" + GOOD % b"2", "not_json"),
    "trailing NUL": (GOOD % b"1" + b"\0", "not_json"),
    "trailing comma": (b'{"type": "account.disabled",}', "not_json"),
    "comment": (b"{} // a comment", "not_json"),
    "duplicate members": (b'{"type": 1, "type": 1}', "duplicate_members"),
    "duplicate by an escape": (b'{"type": 1, "t\\u0079pe": 1}', "duplicate_members"),
    "duplicate below": (GOOD % b'{"a": 1, "a": 2}', "duplicate_members"),
    "NaN": (GOOD % b"NaN", "not_json"),
    "Infinity": (GOOD % b"Infinity", "not_json"),
    "-Infinity": (GOOD % b"-Infinity", "not_json"),
    "1e400": (GOOD % b"1e400", "number_too_large"),
    "5,000 digits": (GOOD % (b"9" * 5000), "number_too_large"),
    "leading zero": (GOOD % b"007", "not_json"),
    "hexadecimal": (GOOD % b"0x10", "not_json"),
    "10 MB": (b'{"type": "' + b"x" * 10_000_000 + b'"}', "too_large"),
    "10 MB of brackets": (b"[" * 10_000_000, "too_large"),
    "nesting of 10,000": (b"[" * 10_000 + b"]" * 10_000, "too_deep"),
    "nesting of 10,000 objects": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "too_deep"),
    "nesting below an event": (GOOD % (b"[" * 100 + b"]" * 100), "too_deep"),
    "UTF-16": ('{"type": "x"}'.encode("utf-16"), "not_json"),
    "UTF-16, no mark": ('{"type": "x"}'.encode("utf-16-le"), "not_json"),
    "UTF-32": ('{"type": "x"}'.encode("utf-32"), "not_json"),
    "Latin-1": ('{"type": "é"}'.encode("latin-1"), "not_json"),
    "overlong UTF-8": (b'{"type": "\xc0\xae"}', "not_json"),
    "surrogate in UTF-8": (b'{"type": "\xed\xa0\x80"}', "not_json"),
    "gzip": (gzip.compress(GOOD % b"1"), "not_json"),
    "binary": (bytes(range(256)), "not_json"),
    "pickle": (b"\x80\x04}\x94.", "not_json"),
    "two byte order marks": (b"\xef\xbb\xbf\xef\xbb\xbf" + GOOD % b"1", "not_json"),
}


@pytest.mark.parametrize(
    ("stream", "name"),
    [
        (stream, name)
        for stream in (IN, OKTA, KEYCLOAK)
        for name in BODIES
        if stream == IN or "array" not in name  # elsewhere that is a batch
    ],
)
def test_a_body_that_is_no_event_is_kept_as_rejected(inlet: Inlet, stream: str, name: str) -> None:
    body, code = BODIES[name]
    [row] = inlet.take(stream, raw(body))
    assert outcome([row]) == [f"rejected: {code}"]
    assert inlet.kept(row) == body


MEMBERS: dict[str, tuple[dict[Any, Any], str]] = {
    "no type": (native(type=None), "missing_type"),
    "empty type": (native(type=""), "missing_type"),
    "a list of types": (native(type=["account.disabled"]), "wrong_type"),
    "unknown type": (native(type="account.exploded"), "unknown_type"),
    "type in capitals": (native(type="ACCOUNT.DISABLED"), "unknown_type"),
    "type with a space": (native(type="account.disabled "), "unknown_type"),
    "type with a look-alike": (native(type="\u0430ccount.disabled"), "unknown_type"),
    "type steers a terminal": (native(type="\x1b[2J\u202e"), "unknown_type"),
    "no account": (native(account=None), "missing_account"),
    "empty account": (native(account=""), "missing_account"),
    "blank account": (native(account=" \t"), "missing_account"),
    "account true": (native(account=True), "wrong_type"),
    "account a fraction": (native(account=1.5), "wrong_type"),
    "account a list": (native(account=["ada@example.com"]), "wrong_type"),
    "account an object": (native(account={"id": "ada"}), "wrong_type"),
    "account of 513 characters": (native(account="x" * 513), "too_long"),
    "account with a NUL": (native(account="ada\0"), "bad_characters"),
    "account half a surrogate": (native(account="\ud800"), "bad_characters"),
    "two addresses": (native(account="a@example.com,b@example.com"), "bad_account"),
    "address with a line": (native(account="a@example.com\r\nBcc: b@c.d"), "bad_account"),
    "display name": (native(account="Ada <ada@example.com>"), "bad_account"),
    "address without a host": (native(account="ada@"), "bad_account"),
    "two signs": (native(account="ada@b@example.com"), "bad_account"),
    "id true": (native(id=True), "wrong_type"),
    "id a fraction": (native(id=4.2), "wrong_type"),
    "id a list": (native(id=[1]), "wrong_type"),
    "id an object": (native(id={}), "wrong_type"),
    "id of 513 characters": (native(id="x" * 513), "too_long"),
    "id with a NUL": (native(id="4\u00002"), "bad_characters"),
    "id half a surrogate": (native(id="\udfff"), "bad_characters"),
    "naive time": (native(at="2026-11-23T08:40:00"), "bad_timestamp"),
    "day": (native(at="2026-11-23"), "bad_timestamp"),
    "day as a number": (native(at=20261123), "bad_timestamp"),
    "30 February": (native(at="2026-02-30T00:00:00Z"), "bad_timestamp"),
    "hour 24": (native(at="2026-11-23T24:00:01Z"), "bad_timestamp"),
    "leap second": (native(at="2016-12-31T23:59:60Z"), "bad_timestamp"),
    "year 1": (native(at="0001-01-01T00:00:00Z"), "bad_timestamp"),
    "year 1, west": (native(at="0001-01-01T00:00:00+23:59"), "bad_timestamp"),
    "year 9999": (native(at="9999-12-31T23:59:59Z"), "bad_timestamp"),
    "year 9999, east": (native(at="9999-12-31T23:59:59-23:59"), "bad_timestamp"),
    "year 10000": (native(at="10000-01-01T00:00:00Z"), "bad_timestamp"),
    "before 1970": (native(at="1969-12-31T23:59:59Z"), "bad_timestamp"),
    "offset +25:00": (native(at="2026-11-23T08:40:00+25:00"), "bad_timestamp"),
    "offset +24:00": (native(at="2026-11-23T08:40:00+24:00"), "bad_timestamp"),
    "offset by name": (native(at="2026-11-23T08:40:00 CET"), "bad_timestamp"),
    "RFC 2822": (native(at="Mon, 23 Nov 2026 08:40:00 +0000"), "bad_timestamp"),
    "Arabic digits": (native(at="\u0662\u0660\u0662\u0666-11-23T08:40:00Z"), "bad_timestamp"),
    "microseconds since 1970": (native(at=1795162500000000), "bad_timestamp"),
    "zero": (native(at=0), "bad_timestamp"),
    "negative": (native(at=-1795162500), "bad_timestamp"),
    "1e10": (native(at="1e10"), "bad_timestamp"),
    "huge": (native(at=10**300), "bad_timestamp"),
    "time true": (native(at=True), "bad_timestamp"),
    "time a list": (native(at=[2026, 11, 23]), "bad_timestamp"),
    "sequence -1": (native(sequence=-1), "bad_sequence"),
    "sequence 1.0": (native(sequence=1.0), "wrong_type"),
    "sequence 1e3": (native(sequence=1e3), "wrong_type"),
    "sequence '1.0'": (native(sequence="1.0"), "bad_sequence"),
    "sequence 2**63": (native(sequence=2**63), "bad_sequence"),
    "sequence 2**64": (native(sequence=2**64), "bad_sequence"),
    "sequence of 400 digits": (native(sequence=int("9" * 400)), "bad_sequence"),
    "sequence '+1'": (native(sequence="+1"), "bad_sequence"),
    "sequence '1_000'": (native(sequence="1_000"), "bad_sequence"),
    "sequence ' 1'": (native(sequence=" 1"), "bad_sequence"),
    "sequence Arabic": (native(sequence="\u0661"), "bad_sequence"),
    "sequence true": (native(sequence=True), "wrong_type"),
    "CloudEvents 0.3": (native(specversion="0.3"), "unknown_version"),
    "CloudEvents 1": (native(specversion=1), "unknown_version"),
    "CloudEvent, data a text": (native(specversion="1.0", data="x"), "not_an_object"),
    "CloudEvent, data a list": (native(specversion="1.0", data=[]), "not_an_object"),
    "fields: account not UTF-8": (fields(account=b"\xff\xfe"), "not_utf8"),
    "fields: account empty": (fields(account=""), "missing_account"),
    "fields: account a NUL": (fields(account=b"a\0"), "bad_characters"),
    "fields: id a surrogate": (fields(id=b"\xed\xa0\x80"), "not_utf8"),
    "fields: sequence -1": (fields(sequence=-1), "bad_sequence"),
    "fields: sequence 1.0": (fields(sequence="1.0"), "bad_sequence"),
    "fields: naive time": (fields(at="2026-11-23T08:40:00"), "bad_timestamp"),
    "fields: type empty": (fields(type=""), "missing_type"),
    "fields: 10 MB": (fields(note=b"x" * 10_000_000), "too_large"),
    "no body": ({"a": "1", "b": "2"}, "no_body"),
    "names that are no text": ({b"\xff": b"\0", b"\0": b"\xff"}, "no_body"),
    "an empty name": ({"": " "}, "empty_body"),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_that_is_wrong(inlet: Inlet, name: str) -> None:
    entry, code = MEMBERS[name]
    [row] = inlet.take(IN, entry)
    assert outcome([row]) == [f"rejected: {code}"]
    assert row.reason is not None
    assert row.reason.isprintable()
    assert inlet.kept(row)


OF_PROVIDERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "okta: no type": (OKTA, okta(eventType=None), "rejected: missing_type"),
    "okta: no target": (OKTA, okta(target=[]), "rejected: missing_account"),
    "okta: target a group": (OKTA, okta(target=[{"type": "UserGroup", "id": "x"}]),
                             "rejected: missing_account"),
    "okta: target a text": (OKTA, okta(target="00u1"), "rejected: missing_account"),
    "okta: target's id an object": (OKTA, okta(target=[{"type": "User", "id": {}}]),
                                    "rejected: wrong_type"),
    "okta: naive time": (OKTA, okta(published="2026-11-20T08:15:00"), "rejected: bad_timestamp"),
    "okta: uuid a list": (OKTA, okta(uuid=[1]), "rejected: wrong_type"),
    "okta: unknown type": (OKTA, okta(eventType="user.lifecycle.exploded"), "ignored"),
    "okta: failed": (OKTA, okta(outcome={"result": "FAILURE"}), "ignored"),
    "okta: outcome a list": (OKTA, okta(outcome=["FAILURE"]), "received"),
    "okta: a batch of none": (OKTA, raw(b"[]"), "rejected: no_events"),
    "okta: a hook of none": (OKTA, raw(b'{"data": {"events": []}}'), "rejected: no_events"),
    "keycloak: no operation": (KEYCLOAK, keycloak(operationType=None), "rejected: missing_type"),
    "keycloak: unknown operation": (KEYCLOAK, keycloak(operationType="X"),
                                    "rejected: unknown_type"),
    "keycloak: no path": (KEYCLOAK, keycloak(resourcePath=None), "rejected: missing_account"),
    "keycloak: path upwards": (KEYCLOAK, keycloak(resourcePath="users/../nobody"), "ignored"),
    "keycloak: path a list": (KEYCLOAK, keycloak(resourcePath=["users", "x"]),
                              "rejected: missing_account"),
    "keycloak: no representation": (KEYCLOAK, keycloak(representation=None), "parked: hint"),
    "keycloak: deep representation": (KEYCLOAK, keycloak(representation="[" * 10_000),
                                      "parked: hint"),
    "keycloak: enabled a text": (KEYCLOAK, keycloak(representation='{"enabled": "false"}'),
                                 "received"),
    "keycloak: enabled a word": (KEYCLOAK, keycloak(representation='{"enabled": "off"}'),
                                 "parked: hint"),
    "keycloak: twice enabled": (
        KEYCLOAK, keycloak(representation='{"enabled": false, "enabled": true}'), "parked: hint"),
    "keycloak: time in seconds": (KEYCLOAK, keycloak(time=1795167000), "received"),
    "keycloak: time a text": (KEYCLOAK, keycloak(time="soon"), "rejected: bad_timestamp"),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_PROVIDERS)
def test_a_providers_event_that_is_wrong(inlet: Inlet, name: str) -> None:
    stream, entry, expected = OF_PROVIDERS[name]
    assert outcome(inlet.take(stream, entry)) == [expected]


TAKEN: dict[str, dict[Any, Any]] = {
    "a byte order mark": raw(b"\xef\xbb\xbf" + GOOD % b"1"),
    "no event id": native(),
    "null": native(id="n-1") | {"headers": "null"},
    "event id an integer": native(id=42),
    "event id of 400 digits": native(id=int("9" * 400)),
    "event id zero": native(id=0),
    "account a number": native(account=42, id="t-1"),
    "account a huge number": native(account=2**200, id="t-2"),
    "account upwards": native(account="../../etc/passwd", id="t-3"),
    "account SQL": native(account="'; DROP TABLE keyturn.inbox; --", id="t-4"),
    "account a star": native(account="*", id="t-5"),
    "account a percent sign": native(account="%", id="t-6"),
    "account right to left": native(account="\u202eada", id="t-7"),
    "account invisible": native(account="ada\u200b", id="t-8"),
    "id SQL": native(id="'); DELETE FROM keyturn.inbox; --"),
    "id with lines": native(id="1\r\n2"),
    "sequence '12'": native(sequence="12", id="t-9"),
    "sequence 0": native(sequence=0, id="t-10"),
    "sequence 2**63 - 1": native(sequence=2**63 - 1, id="t-11"),
    "milliseconds": native(at=1795162500000, id="t-12"),
    "seconds": native(at="1795162500.5", id="t-13"),
    "extra members": native(id="t-14", extra={"nul": "\0", "half": "\ud800", "n": [1e308, {}]}),
    "reason of 1 MB": native(id="t-15", reason="x" * 900_000),
    "reason a list": native(id="t-16", reason=["\ud800"]),
    "actor with NUL": native(id="t-17", actor="a\0b\ud800"),
    "empty members": native(id="", at=" ", sequence="", reason="", actor=""),
    "fields: unknown, not UTF-8": {**fields(id="t-18"), b"\xff": b"\xff\0"},
    "fields: a name of 5 MB": {**fields(id="t-25"), "x" * 5_000_000: "1"},
    "fields: reason not UTF-8": fields(id="t-19", reason=b"\xff"),
    "headers no JSON": native(id="t-20") | {"headers": b"\xff{"},
    "headers a list": native(id="t-21") | {"headers": "[1]"},
    "headers with NUL": native(id="t-22") | {"headers": json.dumps({"a\0": "\ud800"})},
    "headers deep": native(id="t-23") | {"headers": "[" * 100_000},
    "headers of 5,000 digits": native(id="t-24") | {"headers": '{"a": ' + "9" * 5000 + "}"},
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_odd_but_clear_is_taken(inlet: Inlet, name: str) -> None:
    [row] = inlet.take(IN, TAKEN[name])
    assert row.state == "received"


def test_a_hundred_thousand_events_in_one_batch_name_the_limit(inlet: Inlet) -> None:
    for stream in (OKTA, KEYCLOAK):
        [row] = inlet.take(stream, raw(b"[" + b"{}," * 99_999 + b"{}]"))
        assert outcome([row]) == ["rejected: too_many_events"]
        assert "1000" in (row.reason or "")


def test_names_match_exactly_or_not_at_all(inlet: Inlet) -> None:
    """No pattern, path, case fold or look-alike of an account's name is the account."""
    inlet.world.account("ada@example.com")
    _, text = inlet.world.key("ada@example.com")
    near = [CYRILLIC, "ada@example.com.", "ada+x@example.com", "a.da@example.com",
            "ada@\u0435xample.com", "*@example.com", "%", "ada@example.co",
            "ada@xn--example.com", "../ada", "ada", "ada@\u202eexample.com",
            "ada\u200b@example.com", "ada\u202e"]  # fmt: skip
    rows = inlet.take(IN, *[native(account=name, id=f"near-{name}") for name in near])
    assert len(rows) == len(near)
    inlet.world.apply()
    assert inlet.world.verify(text).valid
    inlet.take(IN, native(account=" ADA@Example.COM ", id="exact"))
    inlet.world.apply()
    assert inlet.world.verify(text).reason == "account_held"


HOUR = timedelta(hours=1)
DISABLED, ENABLED = "account.disabled", "account.enabled"

# What is sent about an account in turn (times from now on), the states in which it ends, and
# whether its key works.
HISTORIES: dict[str, tuple[Sequence[Mapping[str, Any]], list[str], bool]] = {
    "the same twice": (
        [{"id": "1"}, {"id": "1"}], ["done"], False),
    "the same twice, by content": (
        [{"at": -HOUR}, {"at": -HOUR}], ["done"], False),
    "same id, other content": (
        [{"id": "1", "type": ENABLED}, {"id": "1", "type": DISABLED}],
        ["done", "parked: conflict"], False),
    "same id, other content, to restore": (
        [{"id": "1"}, {"id": "1", "type": ENABLED}], ["done", "parked: conflict"], False),
    "same id as number and text": (
        [{"id": 7}, {"id": "7"}], ["done"], False),
    "a disable from the future": (
        [{"at": 24 * HOUR}], ["done"], False),
    "an enable from the future": (
        [{"id": "1"}, {"type": ENABLED, "at": 24 * HOUR}],
        ["done", "parked: from_the_future"], False),
    "an enable after a disable from the future": (
        [{"at": 24 * HOUR}, {"type": ENABLED, "at": timedelta(minutes=1)}],
        ["done", "done"], True),
    "an older time": (
        [{"type": ENABLED, "at": -HOUR}, {"at": -2 * HOUR}], ["done", "stale"], True),
    "an older sequence": (
        [{"sequence": 5}, {"type": ENABLED, "sequence": 4}], ["done", "stale"], False),
    "disabled, then disabled": (
        [{"id": "1"}, {"id": "2"}], ["done", "done"], False),
    "enabled, never disabled": (
        [{"type": ENABLED}], ["done"], True),
    "compromised, then enabled": (
        [{"type": "account.compromised"}, {"type": ENABLED}], ["done", "done"], False),
    "hijacking, then enabled": (
        [{"reason": " Hijacking "}, {"type": ENABLED}], ["done", "done"], False),
    "deleted, then enabled": (
        [{"type": "account.deleted"}, {"type": ENABLED}], ["done", "done"], False),
}  # fmt: skip


@pytest.mark.parametrize("name", HISTORIES)
def test_what_contradicts_itself(inlet: Inlet, name: str) -> None:
    sent, states, works = HISTORIES[name]
    number = next(_numbers)
    account, email = f"employee-{number}", f"history-{number}@example.com"
    inlet.world.account(email, Subject(format="opaque", issuer="native", value=account))
    _, text = inlet.world.key(email)
    now = datetime.now(UTC)
    for event in sent:
        members = {
            name: (now + value).isoformat() if isinstance(value, timedelta) else value
            for name, value in event.items()
        }
        if "id" in members:
            members["id"] = members["id"] if name.endswith("text") else f"{number}-{members['id']}"
        inlet.take(IN, native(account=account, **members))
        inlet.world.apply()
    with inlet.database.begin() as tx:
        account_id = tx.scalar("SELECT id FROM keyturn.accounts WHERE email = :e", e=email)
        mine = [
            row for row in reversed(inbox.listed(tx, limit=10_000)) if row.account_id == account_id
        ]
    assert outcome(mine) == states
    assert inlet.world.verify(text).valid is works


def test_a_second_disable_leaves_no_second_effect(inlet: Inlet) -> None:
    account = "twice@example.com"
    inlet.world.account(account)
    key, _ = inlet.world.key(account)
    for number in range(3):
        inlet.take(IN, native(account=account, id=f"twice-{number}"))
        inlet.world.apply()
        inlet.world.settle()
    with inlet.database.begin() as tx:
        actions = tx.rows(
            "SELECT action, count(*) AS n FROM keyturn.audit WHERE key_id = :key GROUP BY action",
            key=key,
        )
        placed = tx.scalar(
            "SELECT count(*) FROM keyturn.audit a JOIN keyturn.accounts c ON c.id = a.account_id"
            " WHERE c.email = :email AND a.action = 'hold.placed'",
            email=account,
        )
    assert {row["action"]: row["n"] for row in actions} == {"key.created": 1, "key.disabled": 1}
    assert placed == 1


def test_an_unknown_account_is_waited_for(inlet: Inlet) -> None:
    inlet.take(IN, native(account="later@example.com", id="later"))
    inlet.world.apply()
    inlet.world.account("later@example.com")
    with inlet.database.begin() as tx:
        assert tx.scalar("SELECT held FROM keyturn.accounts WHERE email = 'later@example.com'")


def test_a_second_name_that_is_no_address_does_not_stop_a_disable(inlet: Inlet) -> None:
    wrong = ["a@example.com\r\nBcc: b@example.com", "a@example.com,b@example.com", 7, None, {}]
    for name in wrong:
        user = {"type": "User", "id": "00u1", "alternateId": name}
        assert outcome(inlet.take(OKTA, okta(target=[user]))) == ["received"]
        shown = json.dumps({"enabled": False, "email": name, "username": name})
        assert outcome(inlet.take(KEYCLOAK, keycloak(representation=shown))) == ["received"]


def test_a_poison_event_holds_no_other_up(inlet: Inlet) -> None:
    """One row that the database refuses among hundreds: it alone is set aside."""
    poison = "poison-150"
    with inlet.database.begin() as tx:
        tx.execute(
            "ALTER TABLE keyturn.inbox ADD CONSTRAINT poison"
            f" CHECK (event_id IS DISTINCT FROM '{poison}') NOT VALID"
        )
    rows = inlet.take(IN, *[native(id=f"poison-{number}") for number in range(300)])
    with inlet.database.begin() as tx:
        tx.execute("ALTER TABLE keyturn.inbox DROP CONSTRAINT poison")
    assert [one for one in outcome(rows) if one != "received"] == ["rejected: not_stored"]
    assert len(rows) == 300
