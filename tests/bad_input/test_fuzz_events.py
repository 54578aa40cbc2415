"""Any entry of any stream ends as rows of the inbox: the intake goes on, and nothing is lost."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.inbox import Rejection
from tests.bad_input.inlet import Inlet, examples, outcome
from tests.worker.intake.streams import IN, KEYCLOAK, OKTA
from tests.worker.intake.test_providers_fuzz import HEADERS as MESSAGE_HEADERS
from tests.worker.intake.test_providers_fuzz import VALUES, WORDS, spoiled_messages
from worker.intake.accept import Producer, read, read_entry
from worker.intake.providers import PROVIDERS
from worker.intake.providers.native import FIELDS

STREAMS = {"native": IN, "okta": OKTA, "keycloak": KEYCLOAK}
LONELY = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]

TEXTS = st.binary(max_size=30) | WORDS.map(lambda word: word.encode(errors="surrogatepass"))
HEADERS = st.binary(max_size=20) | VALUES.map(lambda value: json.dumps(value).encode())
NAMES = st.sampled_from([b"body", b"headers", *[name.encode() for name in FIELDS]]) | st.binary(
    max_size=4
)


def bodies(provider: str) -> st.SearchStrategy[bytes]:
    return (
        spoiled_messages(provider)
        | st.binary(max_size=60)
        | VALUES.map(lambda value: json.dumps(value).encode())
    )


def entries(provider: str) -> st.SearchStrategy[dict[bytes, bytes]]:
    return (
        st.fixed_dictionaries({b"body": bodies(provider)}, optional={b"headers": HEADERS})
        | st.dictionaries(NAMES, TEXTS, min_size=1, max_size=6)
        | st.fixed_dictionaries(
            {b"type": st.just(b"account.disabled") | TEXTS, b"account": TEXTS},
            optional={b"id": TEXTS, b"at": TEXTS, b"sequence": TEXTS, b"digest": TEXTS},
        )
    )


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
@settings(max_examples=examples(150), deadline=None, suppress_health_check=LONELY)
@given(data=st.data())
def test_any_message_is_read_or_refused(provider: str, data: st.DataObject) -> None:
    producer = Producer(provider, provider)
    found = read(producer, "1-0", data.draw(MESSAGE_HEADERS), data.draw(bodies(provider)))
    found += read_entry(producer, "1-0", data.draw(entries(provider)))
    assert len(found) >= 2
    faults = [one.content.code for one in found if isinstance(one.content, Rejection)]
    assert "adapter_failed" not in faults


@pytest.mark.parametrize("provider", sorted(STREAMS))
def test_any_entry_becomes_a_row(inlet: Inlet, provider: str) -> None:
    """Each is sent under an id of its own, so that none is a repetition of another."""

    @settings(max_examples=examples(60), deadline=None, database=None, suppress_health_check=LONELY)
    @given(sent=st.lists(entries(provider), min_size=1, max_size=5))
    def search(sent: list[dict[Any, Any]]) -> None:
        with inlet.database.begin() as tx:
            tx.execute("TRUNCATE keyturn.inbox, keyturn.inbox_keys")
        rows = inlet.take(STREAMS[provider], *sent)
        with inlet.database.begin() as tx:
            known = tx.scalar("SELECT count(*) FROM keyturn.inbox_keys")
        producer = Producer(provider, provider)
        expected = sum(len(read_entry(producer, "1-0", one)) for one in sent)
        assert 1 <= len(rows) <= expected
        assert known == len(rows)
        assert not [one for one in outcome(rows) if "adapter_failed" in one or "not_stored" in one]

    search()
