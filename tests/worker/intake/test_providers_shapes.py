"""The same event in every other shape in which its producer, or a cloud's bus, sends it."""

import json
from typing import Any
from urllib.parse import quote_plus

import pytest

from models.events import AccountEvent
from tests.worker.intake.messages import changed, event, fixture, told
from worker.intake.providers import Unreadable, parse
from worker.intake.providers.guess import provider_of

STREAM, LOG = changed("auth0-stream-updated", a0tenant="acme"), fixture("auth0-log-blocked")
AUDITS, NOTICE = fixture("entra-graph-audits")["value"], fixture("entra-change-notification")
OKTA, WORKOS = fixture("okta-log-unsuspend"), fixture("workos-user-deleted")
GRACE = "opaque:00uUSERexample000042 email:grace@example.com"
AUTH0 = "opaque:auth0|42 email:ada@example.com"
ADA = "opaque:oid-42 email:ada@acme.example"


def eventbridge(detail: Any) -> Any:
    return {"version": "0", "id": "eb-1", "detail-type": "x", "source": "x", "detail": detail}


def audit(**members: Any) -> Any:
    return {**AUDITS[0], **members}


def target(**members: Any) -> Any:
    return audit(targetResources=[{"id": "oid-42", **members}])


def updated(new_value: Any) -> Any:
    properties = [{"displayName": "AccountEnabled", "newValue": new_value}]
    user = {"id": "oid-42", "type": "User", "modifiedProperties": properties}
    return audit(activityDisplayName="Update user", targetResources=[user])


def notice(**members: Any) -> Any:
    return {"value": [{**NOTICE["value"][0], **members}]}


SHAPES: list[tuple[str, str, Any, list[str]]] = [
    ("auth0", "stream by EventBridge", eventbridge(STREAM), [f"disabled state {AUTH0}"]),
    ("auth0", "stream by the events API", {"offset": "o", "event": STREAM},
     [f"disabled state {AUTH0}"]),
    ("auth0", "log by EventBridge", eventbridge(LOG), [f"disabled transition {AUTH0}"]),
    ("auth0", "log by Event Grid", [{"id": "g", "subject": "x", "data": LOG}],
     [f"disabled transition {AUTH0}"]),
    ("auth0", "object of a log stream", {"logs": [LOG, LOG]},
     [f"disabled transition {AUTH0}"] * 2),
    ("auth0", "page of the log", {"start": 0, "logs": [LOG["data"], LOG["data"]]},
     [f"disabled transition {AUTH0}"] * 2),
    ("okta", "one target without a list", {**OKTA, "target": OKTA["target"][0]},
     [f"enabled transition {GRACE}"]),
    ("okta", "small letters",
     {**OKTA, "target": [{**OKTA["target"][0], "type": "user"}], "outcome": {"result": "success"}},
     [f"enabled transition {GRACE}"]),
    ("entra", "one target without a list", audit(targetResources=AUDITS[0]["targetResources"][0]),
     [f"disabled transition {ADA}"]),
    ("entra", "small letters", target(type="user"), ["disabled transition opaque:oid-42"]),
    ("entra", "a target without its type", target(userPrincipalName="ada@acme.example"),
     [f"disabled transition {ADA}"]),
    ("entra", "a boolean, not its text", updated(False), ["disabled state opaque:oid-42"]),
    ("entra", "a text in a text", updated('"False"'), ["disabled state opaque:oid-42"]),
    ("entra", "a text", updated("true"), ["enabled state opaque:oid-42"]),
    ("entra", "a list of a text", updated('["false"]'), ["disabled state opaque:oid-42"]),
    ("workos", "without its object", {**WORKOS, "id": "event_1"},
     ["deleted transition opaque:directory_user_42 email:ada@example.com"]),
    ("workos", "a time without its zone", {**WORKOS, "created_at": "2026-11-20 08:40:00.093"},
     ["deleted transition opaque:directory_user_42 email:ada@example.com"]),
    ("workos", "page", {"object": "list", "data": [{**WORKOS, "object": "event"}]},
     ["deleted transition opaque:directory_user_42 email:ada@example.com"]),
    ("wso2", "only the name that was the address",
     changed("wso2-user-deleted",
             **{"events__https://schemas.identity.wso2.org/events/user/event-type/userDeleted":
                {"user": {"id": "ws-42", "claims": [
                    {"uri": "http://wso2.org/claims/username", "value": "ada@example.com"}]}}}),
     ["deleted transition opaque:ws-42 email:ada@example.com"]),
    ("gitguardian", "regression",
     changed("gitguardian-incident", action="incident_regression"), ["none hint"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("provider", "shape", "message", "meaning"),
    SHAPES,
    ids=[f"{provider}: {shape}" for provider, shape, *_ in SHAPES],
)
def test_another_shape_means_the_same(
    provider: str, shape: str, message: Any, meaning: list[str]
) -> None:
    assert told(provider, message) == meaning
    found = provider_of({}, json.dumps(message).encode())
    assert found is not None, shape
    assert found[0] == provider


NOTHING: list[tuple[str, str, Any]] = [
    ("auth0", "a test of the stream", {**STREAM, "a0purpose": "test"}),
    ("auth0", "a test by EventBridge", eventbridge({**STREAM, "a0purpose": "test"})),
    ("auth0", "refused by the API",
     changed("auth0-log-blocked", data__details__response__statusCode=404)),
    ("entra", "somebody's mail", notice(resource="Users/oid-42/Messages/m-1", resourceData={
        "@odata.type": "#Microsoft.Graph.Message", "id": "m-1"})),
    ("entra", "somebody's mail, without its type",
     notice(resource="users/oid-42/messages/m-1", resourceData={"id": "m-1"})),
    ("entra", "a device", {**audit(activityDisplayName="Disable device"),
                           "targetResources": [{"id": "d", "type": "Device"}]}),
    ("okta", "put off", {**OKTA, "outcome": {"result": "DEFERRED"}}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("provider", "shape", "message"),
    NOTHING,
    ids=[f"{provider}: {shape}" for provider, shape, _ in NOTHING],
)
def test_what_happened_to_nobody(provider: str, shape: str, message: Any) -> None:
    assert told(provider, message) == ["none"], shape


def test_an_account_whose_name_is_hidden_is_not_called_by_the_stars() -> None:
    for hidden in ("***", "HIDDEN_DUE_TO_SECURITY_REASONS"):
        places = {"detail__requestParameters__username": hidden}
        record = changed("cognito-eventbridge-disable", **places)
        assert told("cognito", record) == ["disabled transition opaque:0b7f3c1e-sub-42"]
        record["detail"]["additionalEventData"] = None
        assert told("cognito", record) == ["missing_account"]


@pytest.mark.parametrize("at", [1795162500, 1795162500000, "1795162500.0", "2026-11-20T08:15:00Z"])
@pytest.mark.parametrize(
    ("provider", "name", "place"),
    [
        ("clerk", "clerk-user-updated", "timestamp"),
        ("cognito", "cognito-eventbridge-disable", "detail__eventTime"),
        ("fusionauth", "fusionauth-user-delete", "event__createInstant"),
        ("onelogin", "onelogin-batch", "0__event_timestamp"),
        ("wso2", "wso2-user-deleted", "iat"),
    ],
)
def test_a_time_in_another_unit_is_still_that_time(
    provider: str, name: str, place: str, at: Any
) -> None:
    """A producer that changes its unit must not have its events refused."""
    found = event(provider, changed(name, **{place: at})).occurred_at
    assert found is not None
    assert found.isoformat() == "2026-11-20T08:15:00+00:00"


# --- JSON Lines, which Auth0's log streams and OneLogin's webhooks can send


def lines(*members: Any) -> bytes:
    return b"\r\n".join(m if isinstance(m, bytes) else json.dumps(m).encode() for m in members)


def test_json_lines_are_a_batch() -> None:
    body = lines(LOG, fixture("auth0-log-blocked")["data"], b"") + b"\n\n"
    found = parse("auth0", {}, body)
    assert [one.action for one in found if isinstance(one, AccountEvent)] == ["disabled"] * 2
    assert provider_of({}, body) == ("auth0", "it has the members of auth0's events")


def test_a_bad_line_does_not_take_the_good_ones_with_it() -> None:
    first, bad, last = parse("auth0", {}, lines(LOG, b'{"log_id": NaN}', LOG))
    assert isinstance(first, AccountEvent)
    assert isinstance(last, AccountEvent)
    assert isinstance(bad, Unreadable)
    assert (bad.code, bad.member) == ("not_json", b'{"log_id": NaN}')


def test_too_many_lines_are_refused() -> None:
    with pytest.raises(Unreadable, match="over 1000 events"):
        parse("auth0", {}, b"{}\n" * 1001)


@pytest.mark.parametrize("body", [b"{}\nand more", b"{}\n[]", b'{"a":\n{}} {}', b"{}{}"])
def test_what_is_no_json_lines_is_no_json(body: bytes) -> None:
    with pytest.raises(Unreadable, match="not JSON"):
        parse("auth0", {}, body)


@pytest.mark.parametrize("indent", [0, 1, 4])
def test_one_value_on_many_lines_is_one_value(indent: int) -> None:
    body = json.dumps(LOG, indent=indent).encode()
    assert len(parse("auth0", {}, body)) == 1


# --- GitHub's webhooks as a form, which is how they come unless their settings say JSON


def test_a_webhook_of_github_as_a_form() -> None:
    blocked = {**fixture("github-org-block"), "note": 'a+b & "ä" %'}
    body = b"payload=" + quote_plus(json.dumps(blocked, ensure_ascii=False)).encode()
    headers = {"X-GitHub-Event": "org_block", "X-GitHub-Delivery": "d-1"}
    [found] = parse("github", headers, body)
    assert isinstance(found, AccountEvent)
    assert (found.action, found.event_id) == ("disabled", "d-1")
    assert found.subject is not None
    assert found.subject.value == "42"


@pytest.mark.parametrize("body", [b"payload=", b"payload=%7B", b"payload=%FF", b"payload=%"])
def test_a_broken_form_is_refused(body: bytes) -> None:
    with pytest.raises(Unreadable) as raised:
        parse("github", {}, body)
    assert raised.value.code in ("empty_body", "not_json")
