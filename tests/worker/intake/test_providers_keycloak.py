import json
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest

from models.events import AccountEvent, Action, Certainty, Subject, dedup_key
from tests.worker.intake.messages import FIXTURES
from worker.intake.providers import Unreadable
from worker.intake.providers.keycloak import parse

USER_ID = "3f0c5e0a-7f4e-4f3b-9c5d-000000000042"
ENABLED = json.loads((FIXTURES / "keycloak-user-update-enabled.json").read_bytes())


def changed(**members: Any) -> dict[str, Any]:
    return {**deepcopy(ENABLED), **members}


def read(message: Any) -> AccountEvent:
    (event,) = parse({}, json.dumps(message).encode())
    assert isinstance(event, AccountEvent)
    return event


def refusal(message: Any) -> Unreadable:
    with pytest.raises(Unreadable) as raised:
        parse({}, json.dumps(message).encode())
    return raised.value


def test_a_user_who_is_disabled_now() -> None:
    (event,) = parse({}, (FIXTURES / "keycloak-user-update-disabled.json").read_bytes())
    assert event == AccountEvent(
        action=Action.DISABLED,
        certainty=Certainty.STATE,
        subject=Subject(
            format="opaque",
            value=USER_ID,
            aliases=(Subject(format="email", value="linus@example.com"),),
        ),
        occurred_at=datetime(2026, 11, 20, 9, 30, 0, 123_000, tzinfo=UTC),
        raw_type="USER.UPDATE",
        actor="9a1d7f52-2d0c-4b7e-8f1b-000000000001",
    )
    assert dedup_key(event, "1-0").startswith("content:")


def test_a_user_who_is_enabled_is_a_state_and_no_transition() -> None:
    event = read(ENABLED)
    assert (event.action, event.certainty) == (Action.ENABLED, Certainty.STATE)
    assert dedup_key(event, "1-0") == f"id:{ENABLED['id']}"


def test_a_deleted_user() -> None:
    (event,) = parse({}, (FIXTURES / "keycloak-user-delete.json").read_bytes())
    assert isinstance(event, AccountEvent)
    assert (event.action, event.certainty) == (Action.DELETED, Certainty.TRANSITION)
    assert event.subject == Subject(format="opaque", value=USER_ID)


@pytest.mark.parametrize(
    ("operation", "enabled", "action", "certainty"),
    [
        ("UPDATE", False, "disabled", "state"),
        ("UPDATE", True, "enabled", "state"),
        ("CREATE", False, "disabled", "state"),
        ("CREATE", True, "none", "transition"),
        ("DELETE", True, "deleted", "transition"),
        ("ACTION", False, "none", "transition"),
        ("UPDATE", "false", "disabled", "state"),
        ("UPDATE", "no", "none", "hint"),
        ("UPDATE", 0, "none", "hint"),
        ("UPDATE", None, "none", "hint"),
    ],
)
def test_what_an_operation_does(operation: str, enabled: Any, action: str, certainty: str) -> None:
    representation = json.dumps({"enabled": enabled})
    event = read(changed(operationType=operation, representation=representation))
    assert (event.action, event.certainty) == (action, certainty)


@pytest.mark.parametrize(
    ("before", "after", "meaning"),
    [
        ("true", "false", (Action.DISABLED, Certainty.TRANSITION)),
        ("false", "true", (Action.ENABLED, Certainty.TRANSITION)),
        (True, False, (Action.DISABLED, Certainty.TRANSITION)),
        # Else it is the representation that counts.
        ("true", "true", (Action.ENABLED, Certainty.STATE)),
        (None, "false", (Action.ENABLED, Certainty.STATE)),
        ("false", [], (Action.ENABLED, Certainty.STATE)),
    ],
)
def test_details_say_what_has_changed(before: Any, after: Any, meaning: Any) -> None:
    details = {"previous_enabled": before, "updated_enabled": after}
    event = read(changed(details=details))
    assert (event.action, event.certainty) == meaning
    if event.certainty is Certainty.TRANSITION:
        bare = read(changed(details=details, representation=None))
        assert (bare.action, bare.certainty) == meaning
    deleted = read(changed(details=details, operationType="DELETE"))
    assert deleted.action is Action.DELETED


def test_names_in_small_letters() -> None:
    representation = json.dumps({"enabled": False})
    event = read(changed(resourceType="user", operationType="update",
                         representation=representation))  # fmt: skip
    assert (event.action, event.raw_type) == (Action.DISABLED, "USER.UPDATE")


@pytest.mark.parametrize(
    "representation",
    [
        None,
        "",
        "representation details",
        "null",
        "[]",
        "{}",
        '{"enabled": false, "enabled": true}',
        '{"enabled": false',
        "[" * 10_000,
        "\ud800",
        5,
        [{"enabled": False}],
        {"user": {"enabled": False}},
    ],
)
def test_without_a_readable_user_an_update_is_only_a_hint(representation: Any) -> None:
    event = read(changed(representation=representation))
    assert (event.action, event.certainty) == (Action.NONE, Certainty.HINT)
    assert event.subject == Subject(format="opaque", value=USER_ID)


def test_a_bridge_may_have_unpacked_the_representation() -> None:
    assert read(changed(representation={"enabled": False})).action is Action.DISABLED


@pytest.mark.parametrize(
    "path",
    [
        f"users/{USER_ID}",
        f"/users/{USER_ID}",
        f"users/{USER_ID}/",
        f"admin/realms/example/users/{USER_ID}",
        f"admin/realms/users/users/{USER_ID}",
    ],
)
def test_the_account_is_in_the_path(path: str) -> None:
    found = read(changed(resourcePath=path, representation='{"id": "other", "enabled": false}'))
    assert found.subject == Subject(format="opaque", value=USER_ID)


@pytest.mark.parametrize(
    "part", ["role-mappings/realm", "groups/g1", "reset-password", "federated-identity/users/x"]
)
@pytest.mark.parametrize("operation", ["UPDATE", "DELETE", "CREATE", "ACTION"])
def test_a_part_of_a_user_is_not_the_user(part: str, operation: str) -> None:
    event = read(changed(resourcePath=f"users/{USER_ID}/{part}", operationType=operation))
    assert event.action is Action.NONE


@pytest.mark.parametrize(
    ("members", "action"),
    [
        ({"resourceType": "GROUP_MEMBERSHIP", "operationType": "DELETE"}, "none"),
        ({"resourceType": "REALM_ROLE_MAPPING", "operationType": "CREATE"}, "none"),
        ({"resourceType": "REALM", "resourcePath": None}, "none"),
        ({"resourceType": "CLIENT", "resourcePath": "clients/users"}, "none"),
        ({"resourceType": None, "resourceTypeAsString": "USER"}, "enabled"),
        ({"error": "user_not_found"}, "none"),
        ({"operationType": "UPDATE_ERROR"}, "none"),
        ({"error": ""}, "enabled"),
    ],
)
def test_other_resources_and_failures_have_no_effect(members: dict[str, Any], action: str) -> None:
    assert read(changed(**members)).action == action


@pytest.mark.parametrize("type_", ["LOGIN", "LOGIN_ERROR", "UPDATE_PROFILE", "user-login"])
def test_a_users_own_events_have_no_effect(type_: str) -> None:
    event = read({"type": type_, "realmId": "example", "userId": USER_ID, "time": 1795167000123})
    assert (event.action, event.raw_type) == (Action.NONE, type_)
    assert event.subject is None


@pytest.mark.parametrize(
    ("type_", "action"), [("user-update", "disabled"), ("USER-DELETE", "deleted")]
)
def test_a_bridge_may_put_the_operation_into_the_type(type_: str, action: str) -> None:
    message = {
        "type": type_,
        "resourcePath": f"admin/realms/example/users/{USER_ID}",
        "representation": '{"enabled": false}',
    }
    event = read(message)
    assert event.action == action
    assert dedup_key(event, "1-0") == "delivery:1-0"


def test_the_administrator_is_never_the_subject() -> None:
    event = read(ENABLED)
    assert event.actor == ENABLED["authDetails"]["userId"]
    assert str(event.actor) not in str(event.subject)
    assert refusal(changed(resourcePath=None)).code == "missing_account"


@pytest.mark.parametrize(
    ("email", "username", "aliases"),
    [
        ("A@example.com", "linus", ["a@example.com"]),
        ("a@example.com", "A@example.com", ["a@example.com"]),
        ("a@example.com", "b@example.com", ["a@example.com", "b@example.com"]),
        (None, "b@example.com", ["b@example.com"]),
        ("a@example.com,b@example.com", "linus", []),
        ("a@example.com\r\n,", 5, []),
    ],
)
def test_addresses_are_second_names(email: Any, username: Any, aliases: list[str]) -> None:
    user = {"enabled": False, "email": email, "username": username}
    event = read(changed(representation=json.dumps(user)))
    assert event.action is Action.DISABLED
    assert event.subject is not None
    assert [alias.value for alias in event.subject.aliases] == aliases


@pytest.mark.parametrize("time", [None, 0])
def test_a_time_that_was_never_set_is_none(time: Any) -> None:
    assert read(changed(time=time)).occurred_at is None


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"operationType": "MERGE"}, "unknown_type"),
        ({"operationType": None}, "missing_type"),
        ({"resourceType": None}, "missing_type"),
        ({"resourceType": "R" * 300, "operationType": "O" * 300}, "too_long"),
        ({"operationType": 5.5}, "wrong_type"),
        ({"resourcePath": "users/"}, "missing_account"),
        ({"resourcePath": "users"}, "missing_account"),
        ({"resourcePath": "realms/users/42"}, "missing_account"),
        ({"resourcePath": 5}, "missing_account"),
        ({"resourcePath": "users/a\0b"}, "bad_characters"),
        ({"time": "2026-11-20T09:30:00"}, "bad_timestamp"),
        ({"time": -5}, "bad_timestamp"),
        ({"id": {}}, "wrong_type"),
    ],
)
def test_what_is_refused(members: dict[str, Any], code: str) -> None:
    assert refusal(changed(**members)).code == code


def test_a_page_of_the_rest_interface_is_read_member_by_member() -> None:
    results = parse({}, json.dumps([ENABLED, changed(time=-5), ENABLED]).encode())
    kinds = [result.code if isinstance(result, Unreadable) else "event" for result in results]
    assert kinds == ["event", "bad_timestamp", "event"]


@pytest.mark.parametrize("prefix", ["", "access."])
def test_events_of_users_that_end_an_account(prefix: str) -> None:
    own = {"type": f"{prefix}DELETE_ACCOUNT", "userId": USER_ID, "time": 1795167000123}
    event = read(own)
    assert (event.action, event.subject) == ("deleted", Subject(format="opaque", value=USER_ID))
    locked = read({**own, "type": f"{prefix}USER_DISABLED_BY_PERMANENT_LOCKOUT", "uid": "e-1"})
    assert (locked.action, locked.event_id) == ("disabled", "e-1")
    assert read({**own, "error": "not_allowed"}).action is Action.NONE
    assert refusal({"type": f"{prefix}DELETE_ACCOUNT"}).code == "missing_account"


def test_webhooks_of_p2_inc() -> None:
    message = {
        "uid": "w-1",
        "time": 1795167000123,
        "realmId": "example",
        "type": "admin.USER-UPDATE",
        "authDetails": {"userId": "admin"},
        "resourcePath": f"users/{USER_ID}",
        "representation": '{"enabled": false}',
    }
    event = read(message)
    assert (event.action, event.event_id, event.raw_type) == ("disabled", "w-1", "USER.UPDATE")
    whole = {**message, "resourceType": "USER", "operationType": "UPDATE"}
    assert read(whole) == event
    assert read({**message, "type": "admin.REALM-UPDATE"}).action is Action.NONE
    assert read({**message, "type": "access.LOGIN"}).action is Action.NONE
