"""Mappings of users: what is wrong with one is said when it is loaded, and none breaks a worker."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from models.errors import Misconfigured
from models.events import AccountEvent
from tests.worker.intake.messages import read, said
from tests.worker.intake.test_providers_fuzz import VALUES, check, places
from worker.intake.providers import ProviderMapping, Unreadable, parser
from worker.intake.providers.mapping import checked, from_toml
from worker.setting_tables import Source

DOCUMENT = Path(__file__).parents[3] / "docs" / "adding-a-provider.md"
TOML = """
type = "kind"
[[account]]
value = "user.id"
[types]
gone = "disabled"
"""


def fenced(language: str) -> list[str]:
    """The blocks of the document in a language."""
    blocks = DOCUMENT.read_text("utf-8").split(f"```{language}\n")[1:]
    return [block.partition("```")[0] for block in blocks]


def results(mapping: ProviderMapping, message: Any, **headers: str) -> list[str]:
    return said(read(mapping.parse, message, headers))


def test_the_example_of_the_document_works() -> None:
    """Its mapping reads its message, and the events are those that it shows."""
    [mapping] = fenced("toml")[:1]
    message, shown = fenced("json")[:2]
    found = from_toml(mapping, "example.toml").parse({}, message.encode())
    events = [json.loads(one.model_dump_json()) for one in found if isinstance(one, AccountEvent)]
    assert events == json.loads(shown)


def test_the_example_for_keyturn_toml_works() -> None:
    import tomllib

    settings_file = tomllib.loads(fenced("toml")[1])
    source = Source.model_validate(settings_file["sources"]["hr"])
    [event] = source.parser()({}, fenced("json")[2].encode())
    assert isinstance(event, AccountEvent)
    assert event.action == "disabled"


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"type": None}, "type: Field required"),
        ({"type": ""}, "an expression is due"),
        ({"type": 5}, "an expression is due"),
        ({"type": "a.["}, "not JMESPath"),
        ({"type": "user-id"}, "double quotes"),
        ({"type": "a" * 3000}, "longer than 2000"),
        ({"type": "(" * 900 + "a" + ")" * 900}, "type: "),
        ({"type": "length_(a)"}, "no function length_()"),
        ({"type": "join(a)"}, "takes 2 arguments, not 1"),
        ({"type": "a || [b, c.join('x')]"}, "takes 2 arguments"),
        ({"tpye": "kind"}, "tpye"),
        ({"types": {}}, "types"),
        ({"types": {"gone": "disbled"}}, "unknown action: write one of disabled"),
        ({"types": {"gone": {"state": "a"}}}, "needs the values"),
        ({"types": {"gone": {}}}, "either an action, or a state"),
        ({"types": {"gone": {"action": "disabled", "state": "a"}}}, "either an action"),
        ({"types": {"gone": {"state": "a", "disabled": "no"}}}, "a list of the state's values"),
        ({"types": {"gone": {"action": "disabled", "new": {"value": "a"}}}}, "has a new name"),
        ({"types": {"gone": "key_leaked"}}, "needs a digest"),
        ({"account": []}, "there is no account"),
        ({"account": [{"format": "opaque"}]}, "value"),
        ({"account": [{"value": "a", "format": "name"}]}, "an unknown format: write one of email"),
        ({"account": "user.id"}, "account: write a list of tables"),
        ({"account": {"value": "user.id"}}, "account: write a list of tables"),
        ({"account": [{"value": "a", "format": "iss_sub"}]}, "iss_sub needs an issuer"),
        ({"types": ["gone"]}, "types: write a table"),
        ({"types": {"gone": {"state": "a", "disabled": [1.5]}}}, "texts, whole numbers, true and"),
        (
            {"types": {"gone": {"state": "a", "disabled": ["no"], "enabled": ["ok", "NO"]}}},
            "'no' cannot mean disabled and enabled",
        ),
        (
            {"types": {"gone": {"state": "a", "disabled": ["no"], "certainty": "transition"}}},
            "remove certainty",
        ),
        ({"types": {"gone": {"action": "disabled", "disabled": ["no"]}}}, "only a state has"),
        ({"types": {"gone": {"action": "disabled", "changed": "a"}}}, "only a state has"),
        # What looks like a value is the name of a member, and so never equal to anything.
        ({"success": "ok == true"}, "true after == is the name of a member"),
        ({"success": "a && (ok != False)"}, "like `false`"),
        ({"success": 'ok == "yes"'}, '"yes" after == is the name of a member'),
        ({"members": '[?kind == "user"]'}, "single quotes"),
        ({"success": "n == 1"}, "numbers, true and false into backticks"),
        ({"time_unit": "days"}, "time_unit"),
        ({"other": "park"}, "other"),
    ],
)
def test_what_is_wrong_is_said_when_it_is_loaded(changes: dict[str, Any], fault: str) -> None:
    mapping = {"type": "kind", "types": {"gone": "disabled"}, "account": [{"value": "user.id"}]}
    wrong = {name: value for name, value in {**mapping, **changes}.items() if value is not None}
    with pytest.raises(Misconfigured) as raised:
        checked(wrong, "mine")
    assert fault in str(raised.value)


@pytest.mark.parametrize(
    "condition", ["ok == `true`", "ok == 'true'", 'a == @."the-name"', "ok != null", '"x-y" == a']
)
def test_a_condition_that_is_meant(condition: str) -> None:
    from_toml(f"success = {json.dumps(condition)}\n{TOML}", "x")


def test_a_file_is_refused_with_all_of_its_faults() -> None:
    with pytest.raises(Misconfigured) as raised:
        from_toml('type = "a["\n[types]\nx = "y"\n', "mine.toml")
    assert "mine.toml" in str(raised.value)
    assert str(raised.value).count("\n") == 2
    with pytest.raises(Misconfigured, match="not TOML"):
        from_toml("type =", "mine.toml")


@pytest.mark.parametrize(
    ("more", "message", "meaning"),
    [
        ("", {"kind": "gone", "user": {"id": 7}}, ["disabled transition opaque:7"]),
        ("", {"kind": "else", "user": {"id": 7}}, ["none"]),
        ("", {"kind": "gone", "user": {}}, ["missing_account"]),
        ("", {"kind": "gone", "user": {"id": {}}}, ["wrong_type"]),
        ("", {"kind": None}, ["missing_type"]),
        ("", {"kind": ["gone"]}, ["wrong_type"]),
        ('other = "refused"', {"kind": "else"}, ["unknown_type"]),
        ('success = "ok"', {"kind": "gone", "ok": False, "user": {"id": 7}}, ["none"]),
        ('success = "ok"', {"kind": "gone", "user": {"id": 7}}, ["none"]),
        ('success = "ok"', {"kind": "gone", "ok": "False", "user": {"id": 7}}, ["none"]),
        ('success = "ok"', {"kind": "gone", "ok": 0, "user": {"id": 7}}, ["none"]),
        ('success = "ok"', {"kind": "gone", "ok": "true", "user": {"id": 7}},
         ["disabled transition opaque:7"]),
        ('success = "length(ok)"', {"kind": "gone", "user": {"id": 7}}, ["wrong_type"]),
        ('members = "all"', {"all": [{"kind": "gone", "user": {"id": 7}}, 5]},
         ["disabled transition opaque:7", "not_an_object"]),
        ('members = "all"', {"kind": "gone", "user": {"id": 7}}, ["disabled transition opaque:7"]),
        ('members = "all"', {"all": []}, ["no_events"]),
        ('accounts = "users"', {"kind": "gone", "users": []}, ["missing_account"]),
        ('time = "at"\ntime_unit = "seconds"',
         {"kind": "gone", "user": {"id": 7}, "at": 1795162500000}, ["bad_timestamp"]),
        ('time = "at"\ntime_unit = "milliseconds"',
         {"kind": "gone", "user": {"id": 7}, "at": 1795162500}, ["bad_timestamp"]),
        ('time = "at"\ntime_unit = "iso"',
         {"kind": "gone", "user": {"id": 7}, "at": 1795162500}, ["bad_timestamp"]),
        ('sequence = "n"', {"kind": "gone", "user": {"id": 7}, "n": -1}, ["bad_sequence"]),
    ],
)  # fmt: skip
def test_how_a_mapping_reads(more: str, message: Any, meaning: list[str]) -> None:
    assert results(from_toml(f"{more}\n{TOML}", "x"), message) == meaning


def test_several_accounts_are_several_events() -> None:
    mapping = from_toml(
        'type = "kind"\nid = "id"\naccounts = "users"\n'
        '[[account]]\nvalue = "id"\n[types]\ngone = "disabled"',
        "x",
    )
    users = [{"id": "a"}, {"id": "b"}, {"id": "a"}, {"name": "nobody"}]
    found = mapping.parse({}, json.dumps({"kind": "gone", "id": 9, "users": users}).encode())
    assert [event.event_id for event in found if isinstance(event, AccountEvent)] == ["9#a", "9#b"]


def test_the_parts_of_a_member_do_not_take_each_other_down() -> None:
    mapping = from_toml(
        'parts = "changes"\ntype = "_part.kind"\nid = ["id", "_part.n"]\n'
        '[[account]]\nvalue = "_part.user"\n[types]\ngone = "disabled"',
        "x",
    )
    changes = [{"kind": "gone", "user": "a", "n": 1}, {"kind": "gone", "n": 2}, 5]
    message = {"id": "m", "changes": changes}
    assert results(mapping, message) == ["disabled transition opaque:a", "missing_account",
                                         "missing_type"]  # fmt: skip
    refused = mapping.parse({}, json.dumps(message).encode())[1]
    assert isinstance(refused, Unreadable)
    assert json.loads(refused.member or b"") == message


def test_our_own_functions() -> None:
    mapping = from_toml(
        'type = "from_json(from_base64(packed)).kind || lower(kind)"\n'
        '[[account]]\nvalue = "segments(path)[1]"\n[types]\ngone = "disabled"',
        "x",
    )
    for message in (
        {"packed": "eyJraW5kIjogImdvbmUifQ==", "path": "/users/a%2Fb?x"},
        {"kind": "GONE", "path": "users/a%2Fb/"},
        {"packed": "%%", "kind": "Gone", "path": "users/a%2Fb"},
        {"packed": "bm8=", "kind": "gone", "path": "users/a%2Fb"},
    ):
        assert results(mapping, message) == ["disabled transition opaque:a/b"]
    assert results(mapping, {"packed": 5, "kind": 5, "path": 5}) == ["missing_type"]


def test_a_leak_is_reported_by_its_digest() -> None:
    mapping = from_toml('type = "kind"\ndigest = "sha"\n[types]\nleak = "key_leaked"', "x")
    [event] = mapping.parse({}, json.dumps({"kind": "leak", "sha": "AB" * 32}).encode())
    assert isinstance(event, AccountEvent)
    assert event.key_digest == "ab" * 32
    assert results(mapping, {"kind": "leak", "sha": "text"}) == ["bad_digest"]
    assert results(mapping, {"kind": "leak"}) == ["missing_digest"]


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ({"provider": "mapped"}, "needs a table `mapping`"),
        ({"provider": "okta", "mapping": {"type": "a", "types": {"a": "none"}}}, "remove it"),
        ({"provider": "keycloak", "actions": {"x": "disabled"}}, "no types to give a meaning to"),
        ({"provider": "gitlab", "actions": {"x": "disbled"}}, "unknown action"),
        ({"provider": "gitguardian", "actions": {"x": "disabled"}}, "there is no account"),
        ({"provider": "nosuch"}, "unknown provider: write one of auth0"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused(source: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Source.model_validate({"stream": "s", **source})
    assert fault in str(raised.value)


def test_a_blocked_user_of_gitlab_is_an_option() -> None:
    body = json.dumps(
        {"event_name": "user_failed_login", "state": "blocked", "user_id": 42}
    ).encode()
    actions = {"user_failed_login.blocked": "disabled"}
    opted_in = Source.model_validate({"provider": "gitlab", "stream": "s", "actions": actions})
    [event] = opted_in.parser()({}, body)
    assert isinstance(event, AccountEvent)
    assert event.action == "disabled"
    [plain] = parser("gitlab")({}, body)
    assert isinstance(plain, AccountEvent)
    assert plain.action == "none"


def test_github_with_other_actions_still_reads_alerts() -> None:
    actions = {"installation.deleted": "disabled"}
    read = Source.model_validate({"provider": "github", "stream": "s", "actions": actions}).parser()
    message = {"action": "deleted", "installation": {"account": {"id": 7}}}
    [event] = read({"X-GitHub-Event": "installation"}, json.dumps(message).encode())
    assert isinstance(event, AccountEvent)
    assert (event.action, event.subject and event.subject.format) == ("disabled", "tenant")
    [alert] = read({}, b'[{"token": "x", "type": "t"}]')
    assert isinstance(alert, AccountEvent)
    assert alert.action == "key_leaked"


WHOLE = from_toml(
    'members = "all"\nparts = "parts"\ntype = "kind"\nsuccess = "ok"\naccounts = "users"\n'
    'id = ["id", "part.id"]\ntime = "at"\nsequence = "n"\nreason = "why"\nactor = "who"\n'
    '[[account]]\nvalue = "id"\n[[account]]\nformat = "email"\nvalue = "mail"\n'
    '[[account]]\nformat = "iss_sub"\nvalue = "sub"\nissuer = "iss"\n'
    '[types]\ngone = "disabled"\n[types.changed]\nstate = "state"\ndisabled = [true]\n'
    '[types.named]\naction = "identity_changed"\nnew = {value = "new"}',
    "x",
)
MESSAGE = {"kind": "gone", "ok": True, "id": "1", "at": 1795162500, "n": 5, "why": "w", "who": "a",
           "iss": "https://i", "state": True, "new": "x",
           "users": [{"id": "u", "mail": "a@b.example", "sub": "s"}]}  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_type_at_each_mapped_place(data: st.DataObject) -> None:
    message = json.loads(json.dumps({**MESSAGE, "kind": data.draw(
        st.sampled_from(["gone", "changed", "named"]))}))  # fmt: skip
    for _ in range(data.draw(st.integers(1, 3))):
        container, name = data.draw(st.sampled_from(places(message)))
        container[name] = data.draw(VALUES)
        if not places(message):
            break
    check(lambda: WHOLE.parse({}, json.dumps(message).encode()))
