import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from freezegun import freeze_time
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from models.events import (
    ORDERED,
    RESTRICTIVE,
    AccountEvent,
    Action,
    Certainty,
    KeyEvent,
    Subject,
    content_hash,
    dedup_key,
    outgoing,
)

ADA = Subject(format="email", value="ada@example.com")
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def event(**members: Any) -> AccountEvent:
    given_members = {"action": "disabled", "subject": ADA, "raw_type": "account.disabled"}
    return AccountEvent.model_validate({**given_members, **members})


def test_the_groups_of_actions() -> None:
    assert {"disabled", "deleted", "compromised", "key_leaked"} == RESTRICTIVE
    assert {"disabled", "enabled"} == ORDERED


@pytest.mark.parametrize("reason", ["hijacking", "Hijacking", " hijacking\n"])
def test_disabled_for_hijacking_is_compromised(reason: str) -> None:
    assert event(reason=reason).action is Action.COMPROMISED
    assert AccountEvent(
        action=Action.DISABLED, subject=ADA, raw_type="x", reason=reason
    ).action is Action.COMPROMISED  # fmt: skip


@pytest.mark.parametrize(
    ("action", "reason"),
    [("disabled", "bulk-account"), ("disabled", None), ("enabled", "hijacking")],
)
def test_no_other_reason_changes_the_action(action: str, reason: str | None) -> None:
    assert event(action=action, reason=reason).action == action


def test_an_event_is_frozen_and_refuses_members_it_does_not_know() -> None:
    with pytest.raises(ValidationError):
        event().action = Action.ENABLED  # type: ignore[misc]
    with pytest.raises(ValidationError):
        event(source="okta")


def test_times_become_utc_and_need_a_zone() -> None:
    berlin = timezone(timedelta(hours=1))
    found = event(occurred_at=datetime(2026, 11, 20, 13, tzinfo=berlin)).occurred_at
    assert found == NOON
    assert found is not None
    assert found.tzinfo is UTC
    with pytest.raises(ValidationError):
        event(occurred_at=datetime(2026, 11, 20, 13))  # noqa: DTZ001


def test_an_effect_needs_a_subject() -> None:
    with pytest.raises(ValidationError):
        event(subject=None)
    assert event(action="none", subject=None).subject is None


@pytest.mark.parametrize(
    "members",
    [
        {"event_id": "a\0b"},
        {"event_id": "\ud800"},
        {"event_id": ""},
        {"event_id": "x" * 513},
        {"reason": "a\0b"},
        {"reason": "x" * 501},
        {"sequence": 2**63},
        {"sequence": -1},
        {"raw_type": "a\0"},
        {"subject": {"format": "opaque", "value": "a\0b"}},
    ],
)
def test_what_the_database_cannot_hold_is_no_event(members: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        event(**members)


def test_an_event_survives_storage_as_json() -> None:
    original = event(
        subject=Subject(format="opaque", value="42", aliases=(ADA,)),
        occurred_at=NOON,
        sequence=2**63 - 1,
        event_id="7",
        certainty=Certainty.STATE,
    )
    assert AccountEvent.model_validate_json(original.model_dump_json()) == original


def test_events_can_be_made_while_a_test_holds_the_clock() -> None:
    with freeze_time("2030-01-01"):
        assert event(occurred_at=datetime.now(UTC)).occurred_at == datetime(2030, 1, 1, tzinfo=UTC)


def test_the_key_is_the_producers_id_else_the_timed_content_else_the_delivery() -> None:
    assert dedup_key(event(event_id="42", occurred_at=NOON), "1-0") == "id:42"
    timed = event(occurred_at=NOON)
    assert dedup_key(timed, "1-0") == f"content:{content_hash(timed).hex()}"
    assert dedup_key(timed, "2-0") == dedup_key(timed, "1-0")
    assert dedup_key(event(), "1-0") == "delivery:1-0"


def test_disable_enable_disable_without_ids_are_three_events() -> None:
    history = [event(), event(action="enabled"), event()]
    keys = {dedup_key(each, f"{number}-0") for number, each in enumerate(history)}
    assert len(keys) == 3


def test_a_producers_id_cannot_pass_for_another_kind_of_key() -> None:
    timed = event(occurred_at=NOON)
    forged = event(event_id=dedup_key(timed, ""))
    assert dedup_key(forged, "") != dedup_key(timed, "")


def test_the_longest_key_fits_an_index() -> None:
    key = dedup_key(event(event_id="\N{GRINNING FACE}" * 512), "")
    assert len(key.encode()) < 2704


def test_the_same_event_relayed_hashes_equal() -> None:
    berlin = timezone(timedelta(hours=1))
    aliases = (ADA, Subject(format="opaque", value="7"))
    first = event(
        subject=Subject(format="opaque", value="42", aliases=aliases),
        occurred_at=datetime(2026, 11, 20, 13, tzinfo=berlin),
        actor="hook",
    )
    second = event(
        subject=Subject(format="opaque", value="42", aliases=aliases[::-1]),
        occurred_at=NOON,
        actor=None,
    )
    assert content_hash(first) == content_hash(second)
    assert len(content_hash(first)) == 32


def test_the_hash_is_the_same_in_every_release() -> None:
    """Stored hashes tell a repetition from a conflict: a new release must not change them."""
    found = content_hash(event(occurred_at=NOON, event_id="42", sequence=1, reason="ümlaut"))
    assert found.hex() == "344aa1c45321b1166df081fd9918a36dbc72e60324d706cbd8919183b42d9bc6"


@pytest.mark.parametrize(
    "members",
    [
        {"action": "enabled"},
        {"certainty": "state"},
        {"subject": {"format": "opaque", "value": "ada@example.com"}},
        {"subject": {"format": "email", "value": "ada@example.org"}},
        {"subject": {"format": "email", "value": "ada@example.com", "issuer": "x"}},
        {"subject": {**ADA.model_dump(), "aliases": [ADA]}},
        {"occurred_at": NOON + timedelta(microseconds=1)},
        {"occurred_at": None},
        {"sequence": 2},
        {"event_id": "43"},
        {"raw_type": "account.enabled"},
        {"reason": "other"},
    ],
)
def test_whatever_has_meaning_changes_the_hash(members: dict[str, Any]) -> None:
    base = {"occurred_at": NOON, "sequence": 1, "event_id": "42", "reason": "left"}
    assert content_hash(event(**base)) != content_hash(event(**{**base, **members}))


@given(st.text(), st.text())
def test_different_ids_have_different_keys(one: str, other: str) -> None:
    try:
        first, second = event(event_id=one), event(event_id=other)
    except ValidationError:
        return
    assert (dedup_key(first, "1") == dedup_key(second, "1")) == (one == other)


def test_an_outgoing_event_is_a_cloudevent() -> None:
    made = outgoing(
        id="0199",
        type=KeyEvent.DISABLED,
        source="/keyturn",
        subject="account/1",
        time=NOON.astimezone(timezone(timedelta(hours=1))),
        data={"keys": ["k1"]},
    )
    assert json.loads(json.dumps(made)) == {
        "specversion": "1.0",
        "id": "0199",
        "type": "key.disabled",
        "source": "/keyturn",
        "subject": "account/1",
        "time": "2026-11-20T12:00:00.000000Z",
        "datacontenttype": "application/json",
        "data": {"keys": ["k1"]},
    }


def test_an_outgoing_event_needs_a_time_with_a_zone() -> None:
    with pytest.raises(ValueError, match="zone"):
        outgoing("1", KeyEvent.ISSUED, "/keyturn", "key/1", datetime(2026, 1, 1), {})  # noqa: DTZ001


def test_only_a_change_of_identity_has_a_new_subject() -> None:
    new = {"format": "email", "value": "ada.king@example.com"}
    changed = event(action="identity_changed", new_subject=new)
    assert changed.new_subject == Subject(**new)
    assert content_hash(changed) != content_hash(event(action="identity_changed"))
    with pytest.raises(ValidationError, match="only a change of identity"):
        event(new_subject=new)
