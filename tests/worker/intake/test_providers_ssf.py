"""Security event tokens: RISC, CAEP, SCIM Events, control of the stream; today's form and older."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from models.events import AccountEvent, dedup_key
from tests.worker.intake.messages import fixture, read, said, summary
from worker.intake.providers import Effect, Unreadable, parser
from worker.intake.providers.ssf import parse

RISC = "https://schemas.openid.net/secevent/risc/event-type/"
CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
SSF = "https://schemas.openid.net/secevent/ssf/event-type/"
SCIM = "urn:ietf:params:scim:event:"
ISSUER = "https://login.acme.example"
TOKEN = {"iss": ISSUER, "jti": "j-1", "iat": 1795162500, "aud": "keys"}
HEADER = {"alg": "RS256", "typ": "secevent+jwt"}
EMAIL = {"format": "email", "email": "ada@example.com"}


def token(type: str = RISC + "account-disabled", content: Any = None, **claims: Any) -> Any:
    return {**TOKEN, "sub_id": EMAIL, "events": {type: content or {}}, **claims}


def results(message: Any) -> list[str]:
    return said(read(parse, message))


def one(message: Any) -> AccountEvent:
    [event] = parse({}, json.dumps(message).encode())
    assert isinstance(event, AccountEvent)
    return event


def part(value: Any) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


def jwt(claims: Any, header: Any = None) -> bytes:
    return b".".join([part(HEADER if header is None else header), part(claims), b"c2ln"])


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("ssf-account-disabled", "disabled transition iss_sub:u-42 opaque:u-42"),
        ("ssf-account-enabled-legacy", "enabled transition iss_sub:u-42 opaque:u-42"),
        ("ssf-identifier-changed", "identity_changed transition email:ada@example.com"),
        ("ssf-stream-paused", "none hint"),
        ("ssf-poll", "deleted transition phone_number:+491511234567 email:ada@example.com"),
        ("ssf-scim-deactivate", "disabled transition opaque:u-42 external_id:hr-7"),
    ],
)
def test_what_a_token_means(name: str, meaning: str) -> None:
    assert results(fixture(name)) == [meaning]
    if "sets" not in fixture(name):
        assert results(jwt(fixture(name))) == [meaning]
        assert results(json.dumps(jwt(fixture(name)).decode()).encode()) == [meaning]


@pytest.mark.parametrize(
    ("type", "content", "meaning"),
    [
        (RISC + "account-disabled", {"reason": "hijacking"}, "compromised transition"),
        (RISC + "account-disabled", {"reason": "bulk-account"}, "disabled transition"),
        (RISC + "account-purged", {}, "deleted transition"),
        (RISC + "account-credential-change-required", {}, "compromised transition"),
        (RISC + "credential-compromise", {"credential_type": "password"}, "compromised transition"),
        (RISC + "identifier-recycled", {}, "identity_changed transition"),
        (RISC.replace("https", "http") + "account-disabled", {}, "disabled transition"),
        ("https://schemas.login.gov/secevent/risc/event-type/authorization-fraud-detected", {},
         "compromised transition"),
        ("https://schemas.login.gov/secevent/risc/event-type/identity-fraud-detected", {},
         "compromised transition"),
        ("https://idp.example/secevent/risc/event-type/account-disabled", {},
         "disabled transition"),
        (RISC + "account-disabled", None, "disabled transition"),
        (RISC + "account-disabled/", {}, "disabled transition"),
        (RISC.replace("risc", "RISC") + "Account-Purged", {}, "deleted transition"),
        (RISC + "account-disabled", "text", "disabled transition"),
        (SCIM + "prov:delete", {}, "deleted transition"),
    ],
)  # fmt: skip
def test_the_types(type: str, content: Any, meaning: str) -> None:
    message = token(events={type: content})
    assert results(message) == [f"{meaning} email:ada@example.com"]


@pytest.mark.parametrize(
    "type",
    [
        *(RISC + name for name in (
            "opt-in", "opt-out-initiated", "recovery-activated", "recovery-information-changed",
            "sessions-revoked")),
        *(CAEP + name for name in (
            "session-revoked", "session-established", "session-presented", "credential-change",
            "token-claims-change", "assurance-level-change", "device-compliance-change",
            "risk-level-change")),
        SSF + "verification",
        "https://schemas.openid.net/secevent/oauth/event-type/tokens-revoked",
        "https://schemas.okta.com/secevent/okta/event-type/user-risk-change",
        "https://schemas.login.gov/secevent/risc/event-type/mfa-limit-account-locked",
        SCIM + "feed:remove", SCIM + "feed:add", SCIM + "sig:pwdReset", SCIM + "misc:asyncresp",
        SCIM + "prov:create:notice",
    ],
)  # fmt: skip
def test_what_has_no_effect(type: str) -> None:
    assert results(token(type)) == ["none"]


SCIM_USER = {"format": "scim", "uri": "https://scim.acme.example/v2/Users/u%2D42"}
PATCH = {"Operations": [{"op": "Replace", "path": "active", "value": "False"}]}


@pytest.mark.parametrize(
    ("event", "content", "meaning"),
    [
        ("prov:deactivate", {}, "disabled transition opaque:u-42"),
        ("prov:activate", {}, "enabled state opaque:u-42"),
        ("prov:delete", {}, "deleted transition opaque:u-42"),
        ("prov:patch:full", {"data": PATCH}, "disabled transition opaque:u-42"),
        ("prov:put:full", {"data": {"active": True}}, "enabled state opaque:u-42"),
        ("prov:put:full", {"data": {"displayName": "Ada"}}, "none"),
        ("prov:create:full", {"data": {"active": True}}, "none"),
        ("prov:create:full", {"data": {"active": False}}, "disabled state opaque:u-42"),
        ("prov:patch:notice", {"attributes": ["emails", "active"]}, "none hint"),
        ("prov:patch:notice", {"attributes": ["emails"]}, "none"),
    ],
)
@pytest.mark.parametrize(
    "prefix", [SCIM, SCIM.replace("scim", "SCIM"), "urn:ietf:params:event:SCIM:"]
)
def test_scim_events(prefix: str, event: str, content: Any, meaning: str) -> None:
    assert results(token(prefix + event, content, sub_id=SCIM_USER)) == [meaning]
    group = {"format": "scim", "uri": "/Groups/g-1"}
    assert results(token(prefix + event, content, sub_id=group)) == ["none"]


@pytest.mark.parametrize(
    ("identifier", "meaning"),
    [
        ({"format": "iss_sub", "iss": ISSUER + "/", "sub": "u"}, "iss_sub:u opaque:u"),
        ({"format": "iss_sub", "iss": "https://other.example", "sub": "u"}, "iss_sub:u"),
        ({"subject_type": "iss-sub", "iss": ISSUER, "sub": "u"}, "iss_sub:u opaque:u"),
        ({"subject_type": "iss_sub", "iss": ISSUER, "sub": "u"}, "iss_sub:u opaque:u"),
        ({"subject_type": "http://schemas.openid.net/secevent/risc/subject-type/iss-sub",
          "iss": ISSUER, "sub": "u"}, "iss_sub:u opaque:u"),
        ({"subject_type": "id_token_claims", "iss": ISSUER, "sub": "u", "email": "A@b.example"},
         "iss_sub:u opaque:u email:a@b.example"),
        ({"iss": ISSUER, "sub": "u"}, "iss_sub:u opaque:u"),
        ({"format": "opaque", "id": 42}, "opaque:42"),
        ({"format": "phone_number", "phone_number": "0049 (151) 123-45.67"},
         "phone_number:+491511234567"),
        ({"subject_type": "phone", "phone": "+1 206 5550100"}, "phone_number:+12065550100"),
        ({"format": "account", "uri": "acct:Ada@Example.COM"}, "uri:acct:Ada@example.com"),
        ({"format": "uri", "uri": "HTTPS://Acme.example/Users/Ada"},
         "uri:https://acme.example/Users/Ada"),
        ({"format": "did", "url": "did:example:123"}, "uri:did:example:123"),
        ({"format": "email", "email": "ada@b\u00fccher.example"},
         "email:ada@xn--bcher-kva.example"),
        ({"format": "aliases", "identifiers": [{"format": "email", "email": "no"}, EMAIL,
                                               {"format": "opaque", "id": "x"}]},
         "email:ada@example.com opaque:x"),
        ({"format": "complex", "user": EMAIL, "session": {"format": "opaque", "id": "s"}},
         "email:ada@example.com"),
        ({"user": EMAIL}, "email:ada@example.com"),
        ({"format": "complex", "tenant": {"format": "opaque", "id": "acme"}}, "tenant:acme"),
    ],
)  # fmt: skip
def test_subjects(identifier: Any, meaning: str) -> None:
    assert results(token(sub_id=identifier)) == [f"disabled transition {meaning}"]
    inside = token(content={"subject": identifier}, sub_id=None)
    assert results(inside) == [f"disabled transition {meaning}"]


@pytest.mark.parametrize(
    ("identifier", "code"),
    [
        (None, "missing_account"),
        ("ada@example.com", "missing_account"),
        ({}, "missing_account"),
        ({"format": "email"}, "missing_account"),
        ({"format": "email", "email": "a@b.example,c@d.example"}, "bad_account"),
        ({"format": "email", "email": ["a@b.example"]}, "wrong_type"),
        ({"format": "phone_number", "phone_number": "12"}, "bad_account"),
        ({"format": "iss_sub", "sub": "u"}, "missing_account"),
        ({"format": "session", "id": "s"}, "missing_account"),
        ({"format": "jwt_id", "iss": ISSUER, "jti": "x"}, "missing_account"),
        ({"format": "complex", "device": {"format": "opaque", "id": "d"}}, "missing_account"),
        ({"format": "complex", "tenant": {"format": "opaque", "id": "t"},
          "group": {"format": "opaque", "id": "g"}}, "missing_account"),
        ({"format": "aliases", "identifiers": []}, "missing_account"),
        ({"format": "quantum", "id": "x"}, "bad_account"),
        ({"format": "scim", "uri": "/Groups/g"}, "missing_account"),
    ],
)  # fmt: skip
def test_subjects_that_are_nobody(identifier: Any, code: str) -> None:
    assert results(token(sub_id=identifier)) == [code]


def test_a_session_is_nobody_but_its_event_has_no_effect_anyhow() -> None:
    assert results(token(CAEP + "session-revoked", sub_id={"format": "opaque", "id": "s"})) == [
        "none"
    ]


@pytest.mark.parametrize(
    ("claims", "content", "second"),
    [
        ({}, {}, 1795162500),
        ({"toe": 1795162400}, {}, 1795162400),
        ({"toe": 1795162400}, {"event_timestamp": 1795162300}, 1795162300),
        ({}, {"event_timestamp": 1795162300000}, 1795162300),
        ({}, {"event_timestamp": "2026-11-20T08:11:40Z"}, 1795162300),
        ({}, {"occurred_at": 1790000000}, 1790000000),
        ({"iat": 1795162500123}, {}, 1795162500.123),
    ],
)
def test_the_time_of_the_event_counts_before_that_of_the_token(
    claims: Any, content: Any, second: float
) -> None:
    found = one(token(content=content, **claims)).occurred_at
    assert found == datetime.fromtimestamp(second, UTC)


def test_a_token_of_several_events_is_several_events() -> None:
    message = token()
    message["events"] = {RISC + "account-disabled": {}, CAEP + "session-revoked": {},
                         RISC + "account-purged": {}, "urn:x": {}}  # fmt: skip
    found = parse({}, json.dumps(message).encode())
    ids = [event.event_id for event in found if isinstance(event, AccountEvent)]
    assert ids == [f"j-1#{RISC}account-disabled", "j-1", f"j-1#{RISC}account-purged"]
    assert isinstance(found[3], Unreadable)
    assert found[3].code == "unknown_type"


@pytest.mark.parametrize("audience", ["keys", ["keys", "other"], [], None, 5])
def test_the_audience_is_not_the_adapters(audience: Any) -> None:
    assert results(token(aud=audience)) == ["disabled transition email:ada@example.com"]


def test_without_a_jti_the_content_is_the_key() -> None:
    message = token()
    del message["jti"]
    assert dedup_key(one(message), "1-0").startswith("content:")


def test_new_identifiers() -> None:
    changed = one(fixture("ssf-identifier-changed"))
    assert changed.new_subject is not None
    assert changed.new_subject.value == "ada.king@example.com"
    phone = token(RISC + "identifier-changed", {"new-value": "+49 151 7654321"},
                  sub_id={"format": "phone_number", "phone_number": "+491511234567"})  # fmt: skip
    assert one(phone).new_subject is not None
    assert one(token(RISC + "identifier-changed")).new_subject is None
    assert (
        one(token(RISC + "identifier-recycled", {"new-value": "x@y.example"})).new_subject is None
    )
    bad = token(RISC + "identifier-changed", {"new-value": "no address"})
    assert results(bad) == ["bad_account"]


IDS = {"format": "iss_sub", "iss": ISSUER, "sub": "u-42"}


@pytest.mark.parametrize("type", ["identifier-changed", "identifier-recycled"])
@pytest.mark.parametrize(
    ("identifier", "meaning"),
    [
        # The id beside an address is no address: it stays its account's, whatever is said of that.
        ({**IDS, "email": "ada@example.com"}, "identity_changed transition email:ada@example.com"),
        ({"format": "aliases", "identifiers": [IDS, EMAIL]},
         "identity_changed transition email:ada@example.com"),
        ({"format": "account", "uri": "acct:ada@example.com"},
         "identity_changed transition uri:acct:ada@example.com"),
        (IDS, "none hint"),
        ({"format": "opaque", "id": "u-42"}, "none hint"),
    ],
)  # fmt: skip
def test_only_a_name_can_change_hands(type: str, identifier: Any, meaning: str) -> None:
    event = one(token(RISC + type, {"new-value": "x@y.example"}, sub_id=identifier))
    assert summary(event).split(" opaque:")[0].split(" iss_sub:")[0] == meaning
    has_new = type == "identifier-changed" and "email" in meaning
    assert (event.new_subject is not None) == has_new


@pytest.mark.parametrize(
    ("type", "claims", "meaning"),
    [
        ("prov:deactivate", {"sub_id": {"uri": "/Users/u-42"}}, "disabled transition opaque:u-42"),
        ("prov:deactivate", {"sub_id": {"format": "uri", "uri": "https://a.example/v2/Users/u-42"}},
         "disabled transition opaque:u-42"),
        ("prov:delete", {"sub_id": None, "sub": "https://a.example/v2/Users/u-42"},
         "deleted transition opaque:u-42"),
        ("prov:delete", {"sub_id": None, "sub": "https://a.example/v2/Groups/g-1"}, "none"),
        ("prov:delete", {"sub_id": {"uri": "/Groups/g-1"}}, "none"),
        ("prov:delete", {"sub_id": {"format": "opaque", "id": "u-42"}},
         "deleted transition opaque:u-42"),
    ],
)  # fmt: skip
def test_the_user_of_a_scim_event_is_the_id_at_the_end(
    type: str, claims: Any, meaning: str
) -> None:
    assert results(token(SCIM + type, **claims)) == [meaning]


@pytest.mark.parametrize(
    ("claims", "content", "time"),
    [
        ({"iat": 0}, {}, None),
        ({"iat": 0, "toe": 1795162501}, {"event_timestamp": 0}, 1795162501),
        ({"iat": 1795162500}, {"event_timestamp": 0}, 1795162500),
    ],
)
def test_zero_is_a_time_that_was_never_set(claims: Any, content: Any, time: int | None) -> None:
    found = one(token(content=content, **claims)).occurred_at
    assert found == (time and datetime.fromtimestamp(time, UTC))


def test_the_stream_of_an_older_draft_can_stand_still_too() -> None:
    older = SSF.replace("/ssf/", "/sse/") + "stream-updated"
    assert results(token(older, {"status": "paused"})) == ["none hint"]


@pytest.mark.parametrize(
    ("content", "meaning", "reason"),
    [
        ({"status": "paused", "reason": "Internal error"}, "none hint", "paused: Internal error"),
        ({"status": "disabled"}, "none hint", "disabled"),
        ({}, "none hint", None),
        ({"status": "enabled"}, "none", None),
    ],
)
def test_a_stream_that_stands_still_is_for_a_person(
    content: Any, meaning: str, reason: str | None
) -> None:
    event = one(token(SSF + "stream-updated", content, sub_id={"format": "opaque", "id": "s"}))
    assert (summary(event), event.reason) == (meaning, reason)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (token("https://vendor.example/account-disabled"), "unknown_type"),
        (token("account-disabled"), "unknown_type"),
        (token(""), "missing_type"),
        (token("t" * 600), "too_long"),
        ({**TOKEN, "events": {}}, "missing_type"),
        ({**TOKEN, "events": [RISC]}, "missing_type"),
        (token(iat=-5), "bad_timestamp"),
        (token(content={"event_timestamp": "yesterday"}), "bad_timestamp"),
        (token(jti={}), "wrong_type"),
        (b"a.b.c", "not_json"),
        (b"....", "bad_jwt"),
        (b"YWJj.YWJj.YWJj.YWJj.YWJj", "bad_jwt"),
        (jwt(token(), {"typ": "secevent+jwt"}), "bad_jwt"),
        (jwt([token()]), "not_an_object"),
        (jwt(token(), []), "not_an_object"),
        ({"sets": {"a": "no token"}}, "not_an_object"),
    ],
)
def test_what_is_refused(message: Any, code: str) -> None:
    assert results(message) == [code]


def test_a_source_may_give_a_type_another_meaning() -> None:
    own = "https://vendor.example/event-type/offboarded"
    actions = {
        own: Effect.model_validate("disabled"),
        CAEP + "session-revoked": Effect.model_validate("compromised"),
        RISC + "credential-compromise": Effect.model_validate("none"),
        RISC + "account-purged": Effect.model_validate({"state": "kind", "disabled": ["soft"]}),
    }
    read = parser("ssf", actions=actions)

    def meaning(type: str, content: Any = None) -> str:
        [event] = read({}, json.dumps(token(type, content)).encode())
        assert isinstance(event, AccountEvent)
        return event.action

    assert meaning(own) == "disabled"
    assert meaning(CAEP + "session-revoked") == "compromised"
    assert meaning(RISC + "credential-compromise") == "none"
    assert meaning(RISC + "account-purged", {"kind": "soft"}) == "disabled"
    assert meaning(RISC + "account-purged") == "none"
    assert meaning(RISC + "account-disabled") == "disabled"
