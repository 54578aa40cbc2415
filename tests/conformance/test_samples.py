"""Payloads of real producers, kept outside of this repository, mean what we say they mean.

`SAMPLES` names the directory. `expectations.json` says for each file which provider sends it and
which events it holds; `null` stands for a provider that has no adapter yet.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from models.events import AccountEvent
from worker.intake.providers import PROVIDERS, Result, Unreadable, parse

EXPECTATIONS: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("expectations.json").read_bytes()
)
READ_NOW = sorted(name for name, said in EXPECTATIONS.items() if said["events"] is not None)


@pytest.fixture(scope="module")
def samples() -> Path:
    named = os.environ.get("SAMPLES")
    if not named:
        pytest.skip("SAMPLES does not name a directory of samples")
    directory = Path(named)
    assert directory.is_dir(), f"SAMPLES={named} is no directory; name the one with the samples"
    return directory


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
        "subject": subject and f"{subject.format}:{subject.value}",
        "aliases": subject and [f"{alias.format}:{alias.value}" for alias in subject.aliases],
        "event_id": event.event_id,
        "occurred_at": event.occurred_at and event.occurred_at.isoformat(),
        "sequence": event.sequence,
        "raw_type": event.raw_type,
    }


@pytest.mark.parametrize("name", READ_NOW)
def test_a_sample_means_what_we_expect(samples: Path, name: str) -> None:
    expected = EXPECTATIONS[name]
    try:
        results = parse(expected["provider"], {}, (samples / name).read_bytes())
    except Unreadable as refusal:
        results = [refusal]
    assert [summary(result) for result in results] == expected["events"]


def test_every_sample_has_an_expectation(samples: Path) -> None:
    unknown = {path.name for path in samples.iterdir() if path.is_file()} - {"SOURCES.md"}
    assert sorted(unknown - set(EXPECTATIONS)) == [], "say in expectations.json what they mean"


def test_no_provider_that_we_read_is_left_without_expectations() -> None:
    """An adapter that arrives brings the expectations of its samples with it."""
    left = [
        name
        for name, said in EXPECTATIONS.items()
        if said["provider"] in PROVIDERS and said["events"] is None
    ]
    assert left == []


def test_the_expectations_cover_both_providers_with_samples() -> None:
    assert {EXPECTATIONS[name]["provider"] for name in READ_NOW} >= {"okta", "keycloak"}
