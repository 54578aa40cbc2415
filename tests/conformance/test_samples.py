"""Payloads of real producers, kept outside of this repository, mean what we say they mean.

`SAMPLES` names the directory. `expectations.json` says for each file which provider sends it, with
which headers, and which events it holds, or why it is refused; where a result may surprise, `why`
explains it. `auto` stands for a file of no provider that we read.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from models.events import AccountEvent, Subject
from worker.intake.providers import MAPPED, NAMES, Result, Unreadable, http_text, parse
from worker.intake.providers.guess import provider_of

EXPECTATIONS: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("expectations.json").read_bytes()
)
NO_SAMPLE = {MAPPED, "native", "cloudevents", "onelogin", "cognito"}
"""Providers of which no real payload was found."""

READABLE = sorted(  # what is no JSON shows nothing of its provider
    name for name, said in EXPECTATIONS.items() if "not_json" not in json.dumps(said["events"])
)


@pytest.fixture(scope="module")
def samples() -> Path:
    named = os.environ.get("SAMPLES")
    if not named:
        pytest.skip("SAMPLES does not name a directory of samples")
    directory = Path(named)
    assert directory.is_dir(), f"SAMPLES={named} is no directory; name the one with the samples"
    return directory


def message(path: Path, headers: dict[str, str]) -> tuple[dict[str, str], bytes]:
    content = path.read_bytes()
    whole = http_text.parsed(content) if path.suffix == ".http" else None
    return (headers, content) if whole is None else ({**whole[0], **headers}, whole[1])


def results(provider: str, headers: dict[str, str], body: bytes) -> list[Result]:
    if provider == "auto":
        found = provider_of(headers, body)
        if found is None:
            return [Unreadable("not_recognised", "no provider sends this")]
        provider = found[0]
    try:
        return parse(provider, headers, body)
    except Unreadable as refusal:
        return [refusal]


def named(subject: Subject | None) -> str | None:
    if subject is None:
        return None
    return ":".join(filter(None, (subject.format, subject.issuer, subject.value)))


def summary(result: Result) -> dict[str, Any]:
    """The parts of an event that an expectation states; absent members are left out."""
    if isinstance(result, Unreadable):
        return {"refused": result.code}
    return {
        name: value
        for name, value in _parts(result).items()
        if value is not None and value != []
    }  # fmt: skip


def _parts(event: AccountEvent) -> dict[str, Any]:
    subject = event.subject
    return {
        "action": event.action.value,
        "certainty": event.certainty.value,
        "subject": named(subject),
        "aliases": subject and [named(alias) for alias in subject.aliases],
        "new_subject": named(event.new_subject),
        "key_digest": event.key_digest,
        "event_id": event.event_id,
        "occurred_at": event.occurred_at and event.occurred_at.isoformat(),
        "sequence": event.sequence,
        "raw_type": event.raw_type,
    }


@pytest.mark.parametrize("name", sorted(EXPECTATIONS))
def test_a_sample_means_what_we_expect(samples: Path, name: str) -> None:
    expected = EXPECTATIONS[name]
    headers, body = message(samples / name, expected.get("headers", {}))
    found = results(expected["provider"], headers, body)
    assert [summary(result) for result in found] == expected["events"]


@pytest.mark.parametrize("name", READABLE)
def test_the_provider_of_a_sample_is_guessed(samples: Path, name: str) -> None:
    """SCIM Events are security event tokens: either adapter reads them, to the same result."""
    expected = EXPECTATIONS[name]
    headers, body = message(samples / name, expected.get("headers", {}))
    found = results("auto", headers, body)
    assert [summary(result) for result in found] == expected["events"]


def test_no_account_of_a_sample_is_its_actor(samples: Path) -> None:
    for name, expected in EXPECTATIONS.items():
        headers, body = message(samples / name, expected.get("headers", {}))
        for event in results(expected["provider"], headers, body):
            if isinstance(event, AccountEvent) and event.actor and "***" not in event.actor:
                assert event.actor not in (named(event.subject) or ""), name


def test_every_sample_has_an_expectation(samples: Path) -> None:
    there = {path.name for path in samples.iterdir() if path.is_file()} - {"SOURCES.md"}
    assert sorted(there - set(EXPECTATIONS)) == [], "say in expectations.json what they mean"


def test_every_provider_has_an_expectation_or_no_sample() -> None:
    providers = {said["provider"] for said in EXPECTATIONS.values()}
    assert providers - {"auto"} == set(NAMES) - NO_SAMPLE


def test_what_is_refused_is_explained() -> None:
    silent = [
        name
        for name, said in EXPECTATIONS.items()
        if "refused" in json.dumps(said["events"]) and not said.get("why")
    ]
    assert silent == []
