import json
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest

from models.events import AccountEvent, Action, Certainty, Subject, dedup_key
from tests.worker.intake.messages import FIXTURES
from worker.intake.providers import PROVIDERS, Unreadable

parse = PROVIDERS["okta"]
LOG_EVENT = json.loads((FIXTURES / "okta-log-unsuspend.json").read_bytes())


def changed(**members: Any) -> dict[str, Any]:
    return {**deepcopy(LOG_EVENT), **members}


def read(message: Any) -> list[AccountEvent]:
    results = parse({}, json.dumps(message).encode())
    assert all(isinstance(result, AccountEvent) for result in results)
    return [result for result in results if isinstance(result, AccountEvent)]


def refusal(message: Any) -> Unreadable:
    with pytest.raises(Unreadable) as raised:
        parse({}, json.dumps(message).encode())
    return raised.value


def user(id_: Any, login: Any = "unknown") -> dict[str, Any]:
    return {"id": id_, "type": "User", "alternateId": login}


def test_a_hooks_delivery_is_read_member_by_member() -> None:
    suspended, deleted, session = parse(
        {}, (FIXTURES / "okta-hook-suspend-and-delete.json").read_bytes()
    )
    assert suspended == AccountEvent(
        action=Action.DISABLED,
        certainty=Certainty.TRANSITION,
        subject=Subject(
            format="opaque",
            value="00uUSERexample000042",
            aliases=(Subject(format="email", value="grace@example.com"),),
        ),
        occurred_at=datetime(2026, 11, 20, 9, 30, 1, 402_000, tzinfo=UTC),
        event_id="c2a3f3f0-c5f2-11f0-9c41-0242ac120002",
        raw_type="user.lifecycle.suspend",
        actor="admin@example.com",
    )
    assert isinstance(deleted, AccountEvent)
    assert deleted.action is Action.DELETED
    assert deleted.subject == Subject(format="opaque", value="00uUSERexample000043")
    assert isinstance(session, AccountEvent)
    assert session.action is Action.NONE


def test_a_single_event_a_page_and_a_hook_say_the_same() -> None:
    (single,) = read(LOG_EVENT)
    assert single.action is Action.ENABLED
    assert read([LOG_EVENT]) == [single]
    assert read({"data": {"events": [LOG_EVENT]}}) == [single]


@pytest.mark.parametrize(
    ("type_", "action"),
    [
        ("user.lifecycle.deactivate", "disabled"),
        ("user.lifecycle.suspend", "disabled"),
        ("user.lifecycle.unsuspend", "enabled"),
        ("user.lifecycle.activate", "enabled"),
        ("user.lifecycle.reactivate", "enabled"),
        ("user.lifecycle.delete.initiated", "deleted"),
        ("user.lifecycle.delete.completed", "deleted"),
        ("user.lifecycle.create", "none"),
        ("user.account.lock", "none"),
        ("user.account.unlock", "none"),
        ("user.account.update_profile", "none"),
        ("user.session.start", "none"),
        ("user.mfa.factor.deactivate", "none"),
        ("group.user_membership.remove", "none"),
        ("group.lifecycle.delete", "none"),
        ("device.lifecycle.suspend", "none"),
        ("application.lifecycle.deactivate", "none"),
        ("USER.LIFECYCLE.SUSPEND", "none"),
    ],
)
def test_what_a_type_does(type_: str, action: str) -> None:
    (event,) = read(changed(eventType=type_))
    assert (event.action, event.raw_type) == (action, type_)


@pytest.mark.parametrize(
    ("outcome", "action"),
    [
        (None, "disabled"),
        ({}, "disabled"),
        ({"result": None}, "disabled"),
        ({"result": "SUCCESS"}, "disabled"),
        ({"result": "FAILURE", "reason": "no permission"}, "none"),
        ({"result": "SKIPPED"}, "none"),
        ({"result": "UNKNOWN"}, "none"),
        ({"result": False}, "none"),
    ],
)
def test_only_what_succeeded_has_an_effect(outcome: Any, action: str) -> None:
    (event,) = read(changed(eventType="user.lifecycle.deactivate", outcome=outcome))
    assert event.action == action


def test_the_actor_is_never_the_subject() -> None:
    assert refusal(changed(target=[])).code == "missing_account"
    (event,) = read(changed(actor=user("00uSELF", "self@example.com")))
    assert "00uSELF" not in str(event.subject)


@pytest.mark.parametrize(
    "target",
    [
        None,
        [],
        {},
        "User",
        [None],
        [{"type": "UserGroup", "id": "g"}],
        [{"type": "AppUser", "id": "a"}],
        [{"type": "User"}],
        [user(None)],
        [user("")],
    ],
)
def test_without_a_user_among_the_targets_there_is_no_account(target: Any) -> None:
    assert refusal(changed(target=target)).code == "missing_account"


def test_an_address_with_a_line_break_or_two_addresses_does_not_stop_a_disable() -> None:
    for login in ("a@example.com\r\nBcc: b@example.com", "a@example.com,b@example.com", None, 7):
        (event,) = read(changed(eventType="user.lifecycle.suspend", target=[user("00u1", login)]))
        assert event.action is Action.DISABLED
        assert event.subject == Subject(format="opaque", value="00u1")


def test_several_users_are_an_event_each_with_ids_of_their_own() -> None:
    events = read(changed(target=[user("00u1"), user("00u2"), user("00u1")]))
    uuid = LOG_EVENT["uuid"]
    assert [event.event_id for event in events] == [f"{uuid}#00u1", f"{uuid}#00u2"]
    assert len({dedup_key(event, "1-0") for event in events}) == 2


def test_several_users_without_an_id_are_told_apart_by_content() -> None:
    events = read(changed(uuid=None, target=[user("00u1"), user("00u2")]))
    assert len({dedup_key(event, "1-0") for event in events}) == 2


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"published": "2026-11-20T09:30:01"}, "bad_timestamp"),
        ({"published": "soon"}, "bad_timestamp"),
        ({"uuid": True}, "wrong_type"),
        ({"uuid": "a\0b"}, "bad_characters"),
        ({"eventType": None}, "missing_type"),
        ({"eventType": {}}, "wrong_type"),
        ({"target": [user("a\0b")]}, "bad_characters"),
        ({"target": [user("x" * 513)]}, "too_long"),
    ],
)
def test_what_is_refused(members: dict[str, Any], code: str) -> None:
    assert refusal(changed(**members)).code == code


def test_an_event_without_effect_is_never_refused_for_its_parts() -> None:
    (event,) = read(changed(eventType="user.session.end", uuid=[], published="soon", target=5))
    assert event == AccountEvent(action=Action.NONE, raw_type="user.session.end")


def test_a_bad_member_does_not_take_the_good_ones_with_it() -> None:
    bad = changed(published="soon")
    results = parse({}, json.dumps({"data": {"events": [bad, LOG_EVENT, 5]}}).encode())
    first, second, third = results
    assert isinstance(first, Unreadable)
    assert isinstance(second, AccountEvent)
    assert isinstance(third, Unreadable)
    assert (first.code, third.code) == ("bad_timestamp", "not_an_object")
    assert first.member is not None
    assert json.loads(first.member) == bad
    assert refusal(json.loads(first.member)).code == "bad_timestamp"
