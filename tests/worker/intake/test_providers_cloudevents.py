"""CloudEvents around our own types and around every other format, in all three modes."""

import base64
import json
from typing import Any

import pytest

from models.events import AccountEvent
from tests.worker.intake import messages
from tests.worker.intake.messages import fixture, summary
from tests.worker.intake.test_providers_ssf import jwt, token
from worker.intake.providers import PROVIDERS, Result, parse
from worker.intake.providers.guess import provider_of


def read(message: Any, **headers: str) -> list[Result]:
    return messages.read(PROVIDERS["cloudevents"], message, messages.as_headers(headers))


def results(message: Any, **headers: str) -> list[str]:
    return messages.said(read(message, **headers))


def envelope(data: Any = None, **attributes: Any) -> Any:
    made = {"specversion": "1.0", "type": "com.acme.relay", "source": "/relay", "id": "ce-9",
            "time": "2026-11-20T10:00:00Z", "data": data, **attributes}  # fmt: skip
    return {name: value for name, value in made.items() if value is not None}


def test_our_own_type_structured_and_binary() -> None:
    assert results(fixture("cloudevents-native")) == ["disabled transition email:ada@example.com"]
    [event] = read(
        b'{"account": "ada@example.com", "reason": "left"}',
        ce_specversion="1.0", ce_type="account.disabled", ce_source="/hr", ce_id="ce%2D1",
        ce_time="2026-11-20T08:00:00Z",
    )  # fmt: skip
    assert isinstance(event, AccountEvent)
    assert (event.action, event.event_id, event.reason) == ("disabled", "ce-1", "left")
    assert event.occurred_at is not None
    bare = results(b"", ce_specversion="1.0", ce_type="account.deleted", ce_id="2",
                   ce_subject="ada@example.com")  # fmt: skip
    assert bare == ["deleted transition email:ada@example.com"]


def test_what_is_a_cloudevent_already_in_binary_mode() -> None:
    message = fixture("auth0-stream-updated")
    binary = {f"ce_{name}": str(message[name]) for name in ("type", "source", "id", "time")}
    assert results(message["data"], ce_specversion="1.0", **binary) == results(message)
    [event] = read(message["data"], ce_specversion="1.0", **binary)
    assert isinstance(event, AccountEvent)
    assert (event.action, event.event_id) == ("disabled", message["id"])


def test_kafka_and_amqp_name_their_headers_otherwise() -> None:
    for prefix in ("ce_", "cloudEvents:", "cloudEvents_"):
        headers = {f"{prefix}specversion": "1.0", f"{prefix}type": "account.disabled"}
        [event] = parse("cloudevents", headers, b'{"account": "emp-7"}')
        assert isinstance(event, AccountEvent)
        assert event.action == "disabled"


@pytest.mark.parametrize("subject", ["users/42", "/realms/acme/users/42", "Users/42/Groups"])
@pytest.mark.parametrize(
    ("name", "action"), [("okta-log-unsuspend", "enabled"), ("keycloak-user-delete", "deleted")]
)
def test_a_subject_that_is_a_path_makes_no_request_of_what_is_inside(
    name: str, action: str, subject: str
) -> None:
    [event] = read(envelope(fixture(name), subject=subject))
    assert isinstance(event, AccountEvent)
    assert event.action == action


@pytest.mark.parametrize("path", ["/hooks/users", "/events"])
def test_the_request_that_brings_an_envelope_is_not_the_one_inside(path: str) -> None:
    """As a webhook an envelope is POSTed to some path of ours, whatever it is about."""
    off = {"Operations": [{"op": "replace", "path": "active", "value": False}]}
    message = envelope(off, subject="/scim/v2/Users/u-42")
    request = {":method": "POST", ":path": path}
    body = json.dumps(message).encode()
    [structured] = parse("cloudevents", request, body)
    named = {f"ce-{name}": value for name, value in message.items() if name != "data"}
    [binary] = parse("cloudevents", {**request, **named}, json.dumps(off).encode())
    for event in (structured, binary):
        assert isinstance(event, AccountEvent)
        assert summary(event) == "disabled transition opaque:u-42"
    assert provider_of({**request, **named}, b"{}") == (
        "cloudevents",
        "it has the headers of a CloudEvent",
    )
    assert provider_of(request, json.dumps(fixture("okta-log-unsuspend")).encode()) == (
        "okta",
        "it has the members of okta's events",
    )


def test_a_users_notification_by_event_grid() -> None:
    [notice] = fixture("entra-change-notification")["value"]
    message = envelope(notice, type="Microsoft.Graph.UserUpdated", subject="Users/oid-42")
    assert results(message) == ["none hint opaque:oid-42"]
    del message["data"]
    headers = {f"ce_{name}": value for name, value in message.items()}
    assert results(notice, **headers) == ["none hint opaque:oid-42"]


INSIDE = [
    ("keycloak-user-delete", "deleted"),
    ("okta-log-unsuspend", "enabled"),
    ("ssf-account-disabled", "disabled"),
    ("scim-patch-enveloped", "disabled"),
    ("scim-put-user", "disabled"),
    ("entra-graph-audits", "disabled"),
    ("entra-change-notification", "none"),
    ("google-workspace-rename", "identity_changed"),
    ("workos-user-updated", "disabled"),
    ("clerk-user-updated", "disabled"),
    ("fusionauth-user-delete", "deleted"),
    ("zitadel-user-deactivated", "disabled"),
    ("wso2-user-deleted", "deleted"),
    ("onelogin-batch", "disabled"),
    ("github-org-block", "disabled"),
    ("gitlab-user-destroy", "deleted"),
    ("gitguardian-incident", "none"),
    ("cognito-eventbridge-disable", "disabled"),
    ("auth0-log-blocked", "disabled"),
]


@pytest.mark.parametrize(("name", "action"), INSIDE)
def test_other_formats_inside(name: str, action: str) -> None:
    data = fixture(name)
    text = json.dumps(data)
    binary = {"ce_specversion": "1.0", "ce_type": "x", "ce_id": "1", "ce_source": "/r"}
    for found in (
        read(envelope(data)),
        read(envelope(text)),
        read(envelope(None, data_base64=base64.b64encode(text.encode()).decode())),
        read(text.encode(), content_type="application/json", **binary),
    ):
        assert isinstance(found[0], AccountEvent)
        assert found[0].action == action


def test_a_signed_token_inside() -> None:
    signed = jwt(token())
    assert results(envelope(signed.decode())) == ["disabled transition email:ada@example.com"]
    assert results(signed, ce_specversion="1.0", ce_type="x") == [
        "disabled transition email:ada@example.com"
    ]


def test_a_producer_whose_own_form_is_a_cloudevent() -> None:
    assert results(fixture("auth0-stream-updated")) == [
        "disabled state opaque:auth0|42 email:ada@example.com"
    ]


def test_a_batch_is_read_one_by_one() -> None:
    batch = [*fixture("cloudevents-batch"), 7, envelope({"unknown": 1}), envelope(specversion="2")]
    assert results(batch) == [
        "enabled transition opaque:emp-7", "disabled transition opaque:u-42", "not_an_object",
        "unknown_type", "unknown_version",
    ]  # fmt: skip


def test_the_envelope_fills_in_what_is_missing() -> None:
    [inner] = read(envelope({**fixture("keycloak-user-delete"), "id": None, "time": None}))
    assert isinstance(inner, AccountEvent)
    assert inner.event_id == "/relay#ce-9"
    assert inner.occurred_at is not None
    [own] = read(envelope(fixture("fusionauth-user-delete")))
    assert isinstance(own, AccountEvent)
    assert own.event_id == "fa-1"
    several = read(envelope(fixture("scim-bulk")))
    ids = [one.event_id for one in several if isinstance(one, AccountEvent)]
    assert ids == ["/relay#ce-9#0", "/relay#ce-9#1", "/relay#ce-9#2"]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (envelope(), "unknown_type"),
        (envelope(type=None), "missing_type"),
        (envelope("text"), "unknown_type"),
        (envelope({}), "unknown_type"),
        (envelope(envelope({})), "unknown_type"),
        (envelope(None, data_base64="%%%"), "not_json"),
        (envelope(None, data_base64=5), "not_json"),
        (envelope(None, specversion=None), "unknown_version"),
        (envelope({"account": ""}, type="account.disabled"), "missing_account"),
        (envelope("{", type="account.disabled"), "not_json"),
        (envelope([1], type="account.disabled"), "not_an_object"),
        (envelope({**{"event": 5}, "data": {}}), "unknown_type"),
    ],
)
def test_what_is_refused(message: Any, code: str) -> None:
    assert results(message) == [code]
