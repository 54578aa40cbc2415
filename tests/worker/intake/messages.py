"""Messages of producers: the fixtures, changed ones, and what an adapter says about them."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

from models.events import AccountEvent
from worker.intake.providers import Parser, Result, Unreadable, parse

FIXTURES = Path(__file__).parents[2] / "fixtures" / "events"


def fixture(name: str) -> Any:
    return json.loads((FIXTURES / f"{name}.json").read_bytes())


def changed(name: str, **places: Any) -> Any:
    """A fixture with other values at some places, such as event__user__active."""
    message = deepcopy(fixture(name))
    for place, value in places.items():
        *way, last = (int(step) if step.isdigit() else step for step in place.split("__"))
        inner = message
        for step in way:
            inner = inner[step]
        inner[last] = value
    return message


def summary(event: AccountEvent) -> str:
    """The event as `action certainty format:value alias...`."""
    subject = event.subject
    names = [] if subject is None else [subject, *subject.aliases]
    words = [event.action.value, *([event.certainty.value] if event.action != "none" else [])]
    words += ["hint"] if event.certainty == "hint" else []
    return " ".join([*words, *(f"{one.format}:{one.value}" for one in names)])


def as_headers(given: dict[str, str]) -> dict[str, str]:
    """Keywords as headers: `svix_id` is svix-id."""
    return {name.replace("_", "-"): value for name, value in given.items()}


def read(parser: Parser, message: Any, headers: dict[str, str] | None = None) -> list[Result]:
    """What an adapter makes of a message, or of bytes; a refusal of the whole is a result."""
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    try:
        return parser(headers or {}, body)
    except Unreadable as refusal:
        return [refusal]


def said(results: list[Result]) -> list[str]:
    """Each event by its summary, each refusal by its code."""
    return [one.code if isinstance(one, Unreadable) else summary(one) for one in results]


def told(provider: str, message: Any, **headers: str) -> list[str]:
    """What a provider's adapter says about a message."""
    return said(read(lambda *one: parse(provider, *one), message, as_headers(headers)))


def event(provider: str, message: Any, **headers: str) -> AccountEvent:
    """The first event of a message."""
    first = parse(provider, as_headers(headers), json.dumps(message).encode())[0]
    assert isinstance(first, AccountEvent)
    return first
