"""Whatever comes in, an adapter answers with events that can be stored, or with `Unreadable`."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.events import AccountEvent, content_hash, dedup_key
from tests.worker.intake.messages import FIXTURES
from worker.intake.providers import PROVIDERS, Result, Unreadable, parse
from worker.intake.providers.guess import provider_of
from worker.intake.providers.native import FIELDS, from_fields

WORDS = st.sampled_from(
    ["USER", "User", "UPDATE", "DELETE", "account.disabled", "user.lifecycle.suspend", "users/1",
     "a@b.c", "a@b,c@d", "2026-11-20T08:15:00Z", "0001-01-01T00:00:00+23:59", "1795162500", "\0",
     "\ud800", "", '{"enabled": false}', "[" * 2_000, "x" * 600, "hijacking", "\u0661", "False",
     "/Users/1", "active", "user", "aliases", "sub", "Operations", "events", "type", "complex",
     "https://schemas.openid.net/secevent/risc/event-type/account-disabled", "a.b.c", "[false]"]
)  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 2**63, 2**64, 10**300, 1e308, -0.0])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.text(st.characters(codec=None), max_size=5)
    | WORDS
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | WORDS, inner, max_size=4)
    ),
    max_leaves=8,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container of a document with a key or an index into it."""
    found: list[tuple[Any, Any]] = []
    names = list(value) if isinstance(value, dict) else range(len(value))
    for name in names:
        found.append((value, name))
        if isinstance(value[name], dict | list):
            found.extend(places(value[name]))
    return found


@st.composite
def spoiled_messages(draw: st.DrawFn, provider: str) -> bytes:
    """A real-shaped message with one to three members replaced or removed, or the bytes cut."""
    paths = sorted(FIXTURES.glob(f"{provider}-*.json"))
    document = json.loads(draw(st.sampled_from(paths)).read_bytes())
    for _ in range(draw(st.integers(1, 3))):
        spots = places(document)
        if spots:
            container, name = draw(st.sampled_from(spots))
            if isinstance(container, dict) and draw(st.booleans()):
                del container[name]
            else:
                container[name] = draw(VALUES)
    body = json.dumps(document).encode()
    return body[: draw(st.integers(0, len(body)))] if draw(st.integers(0, 9)) == 0 else body


HEADERS = st.dictionaries(
    st.sampled_from(
        [":method", ":path", "x-github-event", "svix-id", "ce-specversion", "ce-type", "ce-id",
         "ce-time", "ce-subject", "content-type", "idempotency-key", "X-Original-URI"]
    ),
    WORDS | st.sampled_from(["1.0", "PATCH", "DELETE", "/Users/%ff", "http://[", "installation"]),
    max_size=4,
)  # fmt: skip


def check(read: Callable[[], list[Result]]) -> None:
    try:
        results = read()
    except Unreadable as refusal:
        results = [refusal]
    assert results
    for result in results:
        if isinstance(result, Unreadable):
            assert result.code.isidentifier()
            assert result.message.isprintable()
            assert len(result.message) < 400
        else:
            check_storable(result)


def check_storable(event: AccountEvent) -> None:
    stored = event.model_dump_json()
    assert "\\u0000" not in stored
    assert AccountEvent.model_validate_json(stored) == event
    assert len(content_hash(event)) == 32
    assert len(dedup_key(event, "1700000000000-0").encode()) < 2704


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_the_fixtures_are_there_and_good(provider: str) -> None:
    paths = list(FIXTURES.glob(f"{provider}-*.json"))
    assert paths
    for path in paths:
        for result in parse(provider, {}, path.read_bytes()):
            assert isinstance(result, AccountEvent)
            check_storable(result)


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
@settings(max_examples=60, deadline=None)
@given(headers=HEADERS, body=st.binary(max_size=200))
@example(headers={}, body=b"\xef\xbb\xbf")
@example(headers={}, body=b"[" * 100_000)
@example(headers={}, body=b'{"a":1}\0')
@example(headers={}, body=b"{}\n" * 100_000)
@example(headers={}, body=b'{"type":1}\r\n{\xff}\n{\n}')
@example(headers={}, body=b"payload=" + b"%" * 100_000)
@example(headers={}, body=b"e30.e30." + b"A" * 100_000)
@example(headers={}, body=b"PATCH " + b"/" * 100_000)
@example(headers={}, body=b"# \n" * 100_000)
def test_any_bytes(provider: str, headers: dict[str, str], body: bytes) -> None:
    check(lambda: parse(provider, headers, body))


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
@settings(max_examples=60, deadline=None)
@given(headers=HEADERS, value=VALUES)
def test_any_json(provider: str, headers: dict[str, str], value: Any) -> None:
    check(lambda: parse(provider, headers, json.dumps(value).encode()))


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
@settings(max_examples=150, deadline=None)
@given(headers=st.just({}) | HEADERS, data=st.data())
def test_spoiled_messages(provider: str, headers: dict[str, str], data: st.DataObject) -> None:
    body = data.draw(spoiled_messages(provider))
    check(lambda: parse(provider, headers, body))


@settings(max_examples=300, deadline=None)
@given(headers=HEADERS, data=st.data(), provider=st.sampled_from(sorted(PROVIDERS)))
def test_a_guess_is_a_provider(headers: dict[str, str], data: st.DataObject, provider: str) -> None:
    body = data.draw(spoiled_messages(provider) | st.binary(max_size=60))
    found = provider_of(headers, body)
    assert found is None or found[0] in PROVIDERS


@settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([name.encode() for name in FIELDS]) | st.binary(max_size=5),
        st.binary(max_size=30) | WORDS.map(lambda word: word.encode(errors="replace")),
        max_size=8,
    )
)
def test_any_fields(fields: dict[bytes, bytes]) -> None:
    check(lambda: from_fields(fields))
