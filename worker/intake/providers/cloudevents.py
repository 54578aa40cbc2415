"""CloudEvents 1.0 around other formats: structured, binary (headers), and in batches.

The envelope's type may be one of our own; else what is inside is recognised by itself, as
`events parse --provider auto` does. The envelope's id and time count where the inside has none.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from models.events import AccountEvent

from . import native, reading, values
from .reading import Result, Unreadable

_PREFIXES = ("ce-", "ce_", "cloudevents:", "cloudevents_")
"""Of headers over HTTP, Kafka and AMQP."""

_VERSIONS = ("specversion", "spec_version")


def parse(headers: Mapping[str, str], body: bytes) -> list[Result]:
    """The events inside of one CloudEvent, or of each of a batch."""
    attributes = _attributes(headers)
    if "specversion" in attributes:
        return _event({**attributes, "data": body}, headers)
    message = reading.json_value(body)
    if isinstance(message, list):
        return reading.each(message, lambda one: _event(reading.an_object(one), headers))
    return _event(reading.an_object(message), headers)


def is_binary(headers: Mapping[str, str]) -> bool:
    """Whether the headers are the envelope."""
    return "specversion" in _attributes(headers)


def is_structured(message: Any) -> bool:
    """Whether a JSON object is an envelope."""
    return isinstance(message, dict) and "type" in message and any(v in message for v in _VERSIONS)


def _attributes(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        name[len(prefix) :]: unquote(value, errors="replace")
        for name, value in headers.items()
        for prefix in _PREFIXES
        if name.startswith(prefix)
    }


def _event(envelope: Mapping[str, Any], headers: Mapping[str, str]) -> list[Result]:
    type = values.needed_text(
        envelope.get("type"), "type", "missing_type", "send a CloudEvent with its type"
    )
    if next((envelope[name] for name in _VERSIONS if name in envelope), None) != "1.0":
        raise Unreadable("unknown_version", "specversion must be 1.0; send CloudEvents 1.0")
    if type in native.ACTIONS:
        return native.parse({}, reading.as_json(_ours(envelope)))
    results = _inside(envelope, headers, type)
    return [
        _completed(one, envelope, number if len(results) > 1 else None)
        for number, one in enumerate(results)
    ]


def _ours(envelope: Mapping[str, Any]) -> dict[str, Any]:
    data = _data(envelope)
    content = None if data is None or not data.strip() else reading.json_value(data)
    return {**envelope, "specversion": "1.0", "data": content, "data_base64": None}


def _inside(envelope: Mapping[str, Any], headers: Mapping[str, str], type: str) -> list[Result]:
    from . import PROVIDERS
    from .guess import mapped, provider_of

    whole = _with_content(envelope)
    name = None if "data" not in whole else mapped({}, whole)
    if name is not None:  # the producer's own form is a CloudEvent already
        return PROVIDERS[name]({}, reading.as_json(whole))
    data = _data(envelope)
    if data is None or not data.strip():
        raise Unreadable("unknown_type", f"the type {values.quoted(type)} is unknown and no data")
    inner = _inner_headers(envelope, headers)
    found = provider_of(inner, data)
    if found is None or found[0] == "cloudevents":
        raise Unreadable(
            "unknown_type",
            f"neither the type {values.quoted(type)} nor the data is known; send one of "
            f"{', '.join(native.ACTIONS)}, or the message of a provider that Keyturn reads",
        )
    return PROVIDERS[found[0]](inner, data)


def _with_content(envelope: Mapping[str, Any]) -> dict[str, Any]:
    """The envelope as in structured mode; without its data where they are no JSON."""
    whole = dict(envelope)
    if isinstance(whole.get("data"), bytes):
        try:
            whole["data"] = reading.json_value(whole["data"])
        except Unreadable:
            del whole["data"]
    return whole


def _inner_headers(envelope: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, str]:
    """Without the envelope's own. A subject that is a path says which resource is meant."""
    inner = {name: value for name, value in headers.items() if not name.startswith(_PREFIXES)}
    for name in ("content-type", ":method", ":path"):  # of the request that brought the envelope
        inner.pop(name, None)
    subject = envelope.get("subject")
    if isinstance(subject, str) and "/" in subject:
        inner[":path"] = subject
    return inner


def _data(envelope: Mapping[str, Any]) -> bytes | None:
    """What is inside, as bytes; None where there is nothing."""
    encoded = envelope.get("data_base64")
    if encoded is not None:
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise Unreadable("not_json", "data_base64 is no Base64; send it unchanged") from None
    data = envelope.get("data")
    if data is None or isinstance(data, bytes):
        return data
    return data.encode("utf-8", "replace") if isinstance(data, str) else reading.as_json(data)


def _completed(result: Result, envelope: Mapping[str, Any], number: int | None) -> Result:
    if isinstance(result, Unreadable):
        return result
    missing: dict[str, Any] = {}
    if result.event_id is None:
        missing["event_id"] = _id(envelope, number)
    if result.occurred_at is None:
        missing["occurred_at"] = values.instant(envelope.get("time"), "time")
    return AccountEvent.model_validate({**dict(result), **missing})


def _id(envelope: Mapping[str, Any], number: int | None) -> str | None:
    """Unique only together with the source."""
    id, source = values.text(envelope.get("id"), "id"), envelope.get("source")
    if id is None:
        return None
    place = "" if number is None else f"#{number}"
    return values.text(f"{source if isinstance(source, str) else ''}#{id}{place}", "id")
