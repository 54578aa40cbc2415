"""What every adapter refuses, whatever the provider: the same codes everywhere."""

import json
import time

import pytest

from worker.intake.providers import PROVIDERS, Unreadable, parse
from worker.intake.providers.reading import MAX_BODY, MAX_DEPTH, MAX_MEMBERS, json_value

ANY = sorted(PROVIDERS)


def refusal(provider: str, body: bytes) -> Unreadable:
    with pytest.raises(Unreadable) as raised:
        parse(provider, {}, body)
    return raised.value


@pytest.mark.parametrize("provider", ANY)
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "empty_body"),
        (b" \r\n\t", "empty_body"),
        (b"hello", "not_json"),
        (b"{", "not_json"),
        (b'{"type": "account.disabled"} and more', "not_json"),
        (b'{"type": NaN}', "not_json"),
        (b'{"type": -Infinity}', "not_json"),
        (b'{"type": 1e999}', "number_too_large"),
        (b'{"type": "\xff"}', "not_json"),
        (b'{"type": "line\nbreak"}', "not_json"),
        ('{"type": "x"}'.encode("utf-16"), "not_json"),
        (b"null", "not_an_object"),
        (b"42", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b'{"a": 1, "a": 1}', "duplicate_members"),
        (b'{"deep": {"enabled": false, "enabled": true}}', "duplicate_members"),
        (b"{}", "missing_type"),
        pytest.param(b'{"type": ' + b"9" * 5_000 + b"}", "number_too_large", id="digits"),
        pytest.param(b"[" * 10_000 + b"]" * 10_000, "too_deep", id="arrays"),
        pytest.param(b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "too_deep", id="objects"),
        pytest.param(b"[" * 10_000, "too_deep", id="unclosed"),
        pytest.param(b'"' + b" " * MAX_BODY + b'"', "too_large", id="large"),
    ],
)
def test_a_body_that_is_no_event(provider: str, body: bytes, code: str) -> None:
    found = refusal(provider, body)
    assert found.code == code
    assert len(found.message) < 300
    assert found.message.isprintable()


def test_ten_megabytes_are_refused_without_a_look_inside() -> None:
    body = b"[" * 10 * 1024 * 1024
    started = time.process_time()
    assert refusal("native", body).code == "too_large"
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize(
    "pattern", [b"[]", b'"\\"', b'"', b"\\", b'"[', b'{"":', b"[{", b'\\"', b"1,"]
)
def test_no_megabyte_takes_long(pattern: bytes) -> None:
    """Some patterns make careless scanners quadratic: hours instead of a fraction of a second."""
    body = pattern * (MAX_BODY // len(pattern))
    started = time.process_time()
    refusal("native", body)
    assert time.process_time() - started < 5


def test_the_largest_and_the_deepest_are_read() -> None:
    filler = MAX_BODY - len(b'{"a":""}')
    assert json_value(b'{"a":"' + b"[" * filler + b'"}') == {"a": "[" * filler}
    assert json_value(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(Unreadable):
        json_value(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))


@pytest.mark.parametrize("text", ["[" * 200, '\\"' + "[{" * 200, "\\\\", '\\"'])
def test_brackets_inside_strings_are_not_nesting(text: str) -> None:
    body = b'{"a":"' + text.encode() + b'"}'
    assert list(json_value(body)) == ["a"]


def test_a_byte_order_mark_is_no_harm() -> None:
    assert json_value(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


@pytest.mark.parametrize("provider", ["okta", "keycloak"])
@pytest.mark.parametrize(
    ("count", "code"), [(0, "no_events"), (MAX_MEMBERS + 1, "too_many_events")]
)
def test_a_batch_has_limits(provider: str, count: int, code: str) -> None:
    found = refusal(provider, json.dumps([{}] * count).encode())
    assert found.code == code
    assert code != "too_many_events" or str(MAX_MEMBERS) in found.message


def test_an_unknown_provider_is_refused_with_the_known_ones() -> None:
    found = refusal("otka", b"{}")
    assert found.code == "unknown_provider"
    assert "okta" in found.message


def test_a_refusal_does_not_repeat_values() -> None:
    body = json.dumps({"type": "account.disabled", "account": "canary@x@y", "at": "canary"})
    assert "canary" not in str(refusal("native", body.encode()))
