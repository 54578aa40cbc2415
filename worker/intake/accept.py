"""From a producer's raw message to committed inbox rows, whatever the transport."""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import structlog

from models import inbox
from models.base import Database, Tx, is_server_trouble
from models.errors import Refused
from models.inbox import Received, Rejection, Source
from models.operator import Operator
from worker.intake.providers import Result, Unreadable, native, parse
from worker.settings import Settings

log = structlog.get_logger()

Fields = Mapping[bytes, bytes]

PAUSE: Final = 2.0
KEPT: Final = 60.0
"""Seconds between two tries of a task that finds no database, and until it gives its message back.
RabbitMQ 4 sets a message aside after 20 times; so a database may be away for 20 minutes."""

_NOT_STORED: Final = "not_stored"


def source(settings: Settings, name: str) -> Source:
    """A source by its name in the settings; Refused as `source_unknown`."""
    found = settings.sources.get(name)
    if found is None:
        names = ", ".join(settings.sources)
        raise Refused("source_unknown", f"no source {name!r} in the settings; they name: {names}")
    return Source(name, found.provider, found.trust)


def read(
    provider: str, delivery_id: str, headers: Mapping[str, str], body: bytes
) -> list[Received]:
    """The members of one message, each an event or the reason why it could not be read."""
    results = _results(provider, lambda: parse(provider, headers, body))
    only = len(results) == 1
    return [
        Received(
            delivery_id if only else f"{delivery_id}/{number}",
            Rejection(one.code, one.message) if isinstance(one, Unreadable) else one,
            headers,
            (one.member or body) if isinstance(one, Unreadable) else body,
        )
        for number, one in enumerate(results)
    ]


def _results(provider: str, parsed: Callable[[], list[Result]]) -> list[Result]:
    """What an adapter makes of a message; its own fault must not stop what comes behind."""
    try:
        return parsed()
    except Unreadable as error:
        return [error]
    except Exception as error:
        log.error("alarm", alarm="adapter_failed", provider=provider, error=type(error).__name__)
        return [Unreadable("adapter_failed", "this message could not be read; please report it")]


def read_entry(provider: str, entry_id: str, fields: Fields) -> list[Received]:
    """The members of one stream entry.

    The message is the field `body` (with `headers`, a JSON object, beside it), or the only field
    there is. A native event may also be written as fields of its own.
    """
    if provider == "native" and b"type" in fields:
        return _read_fields(entry_id, fields)
    body = fields.get(b"body")
    if body is None and len(fields) == 1:
        body = next(iter(fields.values()))
    if body is None:
        return [_no_body(entry_id, fields)]
    return read(provider, entry_id, _headers(fields.get(b"headers")), body)


def _read_fields(entry_id: str, fields: Fields) -> list[Received]:
    kept = json.dumps({_text(name): _text(value) for name, value in fields.items()}).encode()
    [result] = _results("native", lambda: native.from_fields(fields))
    content = Rejection(result.code, result.message) if isinstance(result, Unreadable) else result
    return [Received(entry_id, content, {}, kept)]


def _no_body(entry_id: str, fields: Fields) -> Received:
    kept = json.dumps({_text(name): _text(value) for name, value in fields.items()}).encode()
    why = Rejection("no_body", "the entry has no field `body`: XADD STREAM * body '{...}'")
    return Received(entry_id, why, {}, kept)


def _headers(raw: bytes | None) -> dict[str, str]:
    try:
        found = json.loads(raw or b"{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {_clean(str(name).lower()): _clean(str(value)) for name, value in found.items()}


def _text(raw: bytes) -> str:
    return _clean(raw.decode("utf-8", "replace"))


def _clean(text: str) -> str:
    """What PostgreSQL's JSON can hold: no NUL, no lone surrogate."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def accept(database: Database, source: Source, received: Sequence[Received]) -> Counter[str]:
    """Commit a batch of members; where that fails, in halves, down to the one at fault.

    A member that cannot be stored alone is stored as rejected, with its message. Raises only what
    the server failed at: the transport must then keep the messages.
    """
    try:
        return database.run(lambda tx: inbox.accept(tx, source, received))
    except Exception as error:
        if is_server_trouble(error):
            raise
        if len(received) > 1:
            middle = len(received) // 2
            first = accept(database, source, received[:middle])
            return first + accept(database, source, received[middle:])
        log.error("alarm", alarm="event_not_stored", error=type(error).__name__)
        [one] = received
        if isinstance(one.content, Rejection) and one.content.code == _NOT_STORED:
            raise
        why = Rejection(_NOT_STORED, f"{type(error).__name__} while it was stored")
        return accept(database, source, [Received(one.delivery_id, why, {}, one.body)])


def accept_task(
    database: Database,
    settings: Settings,
    message_id: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Counter[str]:
    """Store the event of an `account.event` task: one JSON object, or its members as keywords.

    The source is `native`. On Redis a producer's message can be lost before it gets here. Waits for
    a database that is away, and raises what it failed at only after a minute.
    """
    event = args[0] if len(args) == 1 and not kwargs else [*args, kwargs] if args else kwargs
    received = read("native", f"task:{message_id}", {}, json.dumps(event, default=_json).encode())
    counts = _accept_patiently(database, source(settings, "native"), received)
    log.info("intake", transport="task", source="native", **counts)
    return counts


def _accept_patiently(
    database: Database, source: Source, received: Sequence[Received]
) -> Counter[str]:
    until = time.monotonic() + KEPT
    while True:
        try:
            return accept(database, source, received)
        except Exception as error:
            if not is_server_trouble(error) or time.monotonic() > until:
                raise
            log.warning("event_waits", error=type(error).__name__, seconds=PAUSE)
        time.sleep(PAUSE)


def _json(value: object) -> str:
    """What a Celery producer in Python may send beside JSON: times, UUIDs, decimals, bytes."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def replay(operator: Operator, settings: Settings, event_id: int) -> list[str]:
    """Look at a finished or stuck event again; returns the states in which it starts anew.

    A rejected message is read again by its source's provider; what is still unreadable is Refused
    with the reason. A parked or waiting event is applied by the rules as they stand now. Either
    way its source must be trusted with it as the settings stand now.
    """
    database = operator.database
    event = operator.event(event_id)
    trusted = source(settings, event.source)
    if event.state != "rejected":
        database.run(lambda tx: inbox.requeue(tx, event_id, trusted))
        return ["received"]
    headers, body = database.run(lambda tx: inbox.stored_message(tx, event_id))
    found = read(event.provider, f"replay:{event_id}", headers, body)
    for one in found:
        if isinstance(one.content, Rejection):
            raise Refused(one.content.code, f"still unreadable: {one.content.message}")

    def write(tx: Tx) -> list[str]:
        counts = inbox.accept(tx, trusted, found)
        inbox.replaced(tx, event_id, actor=operator.actor)
        return sorted(counts.elements())

    return database.run(write)
