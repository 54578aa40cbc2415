"""From a producer's raw message to committed inbox rows, whatever the transport."""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from models import inbox
from models.base import Database, Tx, is_server_trouble
from models.errors import Refused
from models.inbox import Received, Rejection, Source
from models.operator import Operator
from worker.intake import verification
from worker.intake.providers import Parser, Result, Unreadable, kept, native, parser
from worker.intake.verification import TRANSPORT, KeysUnavailable, Message, Unverified, Verifier
from worker.settings import Settings

log = structlog.get_logger()

Fields = Mapping[bytes, bytes]

PAUSE: Final = 2.0
KEPT: Final = 60.0
"""Seconds between two tries of a task that finds no database, and until it gives its message back.
RabbitMQ 4 sets a message aside after 20 times; so a database may be away for 20 minutes."""

_NOT_STORED: Final = "not_stored"
_OURS: Final = "keyturn-"
"""How headers begin that only Keyturn writes; what comes in under such a name is dropped."""

_PROVEN: Final = f"{_OURS}proven"
_WITHHELD: Final = f"{_OURS}withheld"


@dataclass(frozen=True)
class Producer(Source):
    """A source, and how its messages are proven and read."""

    verifier: Verifier = TRANSPORT
    parser: Parser | None = None
    """None: that of its provider."""


def source(settings: Settings, name: str) -> Producer:
    """A source by its name in the settings; Refused as `source_unknown`.

    Misconfigured where what it is proven by, its secrets or keys, cannot be used.
    """
    found = settings.sources.get(name)
    if found is None:
        names = ", ".join(settings.sources)
        raise Refused("source_unknown", f"no source {name!r} in the settings; they name: {names}")
    prove = verification.verifier(settings, name)
    return Producer(name, found.provider, found.trust, prove, found.parser())


def read(
    producer: Producer,
    delivery_id: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    arrived: datetime | None = None,
) -> list[Received]:
    """The members of one message, each an event or the reason why there is none.

    A relay's envelope is opened; then the raw bytes are proven, and only then read. `arrived` is
    when the message reached the broker, None where the transport does not say. Raises
    KeysUnavailable: then the transport must keep the message, and hand it over again later.
    """
    try:
        headers, body = verification.opened(headers, body)
    except Unreadable as error:
        return [refused(producer, delivery_id, headers, body, error)]
    return _proven(producer, delivery_id, Message(_cleaned(headers), body, arrived))


def refused(
    producer: Producer, delivery_id: str, headers: Mapping[str, str], body: bytes, why: Refused
) -> Received:
    """A message that was not proven, since its body could not be had at all."""
    outer = verification.without_secrets(_cleaned(headers), producer.verifier.hidden)
    return _rejected(producer, delivery_id, outer, body, why)


def _proven(producer: Producer, delivery_id: str, message: Message) -> list[Received]:
    headers = message.headers
    if not message.replayed:
        headers = verification.without_secrets(headers, producer.verifier.hidden)
    if producer.verifier is not TRANSPORT and _PROVEN not in headers:
        try:
            _check(producer, message)
        except Unverified as error:
            verification.tell(producer.name, error.message)
            return [_rejected(producer, delivery_id, headers, message.body, error)]
        headers = {**headers, _PROVEN: "yes"}
    return _members(producer, delivery_id, headers, message.body)


def _check(producer: Producer, message: Message) -> None:
    """What proves a message; its own fault must not let one through, nor stop those behind it."""
    try:
        producer.verifier(message)
    except KeysUnavailable:
        raise
    except Unverified:
        if _WITHHELD not in message.headers:
            raise
        raise Unverified(
            "its bytes were not kept as they came, since they may hold live secrets, so it cannot "
            "be proven any more; have its producer send it again"
        ) from None
    except Exception as error:
        log.error(
            "alarm", alarm="verifier_failed", source=producer.name, error=type(error).__name__
        )
        raise Unverified("it could not be verified; please report this") from None


def _rejected(
    producer: Producer, delivery_id: str, headers: Mapping[str, str], body: bytes, why: Refused
) -> Received:
    stored = _kept(producer.provider, body)
    marks = {} if stored == body else {_WITHHELD: "yes"}
    return Received(delivery_id, Rejection(why.code, why.message), {**headers, **marks}, stored)


def _members(
    producer: Producer, delivery_id: str, headers: Mapping[str, str], body: bytes
) -> list[Received]:
    results = _results(
        producer.provider, lambda: (producer.parser or parser(producer.provider))(headers, body)
    )
    only = len(results) == 1
    return [
        Received(
            delivery_id if only else f"{delivery_id}/{number}",
            Rejection(one.code, one.message) if isinstance(one, Unreadable) else one,
            headers,
            _kept(producer.provider, (one.member or body) if isinstance(one, Unreadable) else body),
        )
        for number, one in enumerate(results)
    ]


def _kept(provider: str, body: bytes) -> bytes:
    """What may be stored of a message; nothing of one at which that cannot be told."""
    try:
        return kept(provider, body)
    except Exception as error:
        log.error("alarm", alarm="adapter_failed", provider=provider, error=type(error).__name__)
        return b""


def _results(provider: str, parsed: Callable[[], list[Result]]) -> list[Result]:
    """What an adapter makes of a message; its own fault must not stop what comes behind."""
    try:
        return parsed()
    except Unreadable as error:
        return [error]
    except Exception as error:
        log.error("alarm", alarm="adapter_failed", provider=provider, error=type(error).__name__)
        return [Unreadable("adapter_failed", "this message could not be read; please report it")]


def read_entry(producer: Producer, entry_id: str, fields: Fields) -> list[Received]:
    """The members of one stream entry; raises as `read` does.

    The message is the field `body` (with `headers`, a JSON object, beside it), or the only field
    there is. A native event may also be written as fields of its own, where the stream proves it.
    """
    if producer.provider == "native" and b"type" in fields and producer.verifier is TRANSPORT:
        return _read_fields(entry_id, fields)
    body = fields.get(b"body")
    if body is None and len(fields) == 1:
        body = next(iter(fields.values()))
    if body is None:
        return [_no_body(producer.provider, entry_id, fields)]
    headers = _headers(fields.get(b"headers"))
    return read(producer, entry_id, headers, body, arrived=_arrived(entry_id))


def _arrived(entry_id: str) -> datetime | None:
    """When an entry was added, by the server's clock: its id begins with that."""
    try:
        return datetime.fromtimestamp(int(entry_id.partition("-")[0]) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _read_fields(entry_id: str, fields: Fields) -> list[Received]:
    kept = json.dumps({_text(name): _text(value) for name, value in fields.items()}).encode()
    [result] = _results("native", lambda: native.from_fields(fields))
    content = Rejection(result.code, result.message) if isinstance(result, Unreadable) else result
    return [Received(entry_id, content, {}, kept)]


def _no_body(provider: str, entry_id: str, fields: Fields) -> Received:
    whole = json.dumps({_text(name): _text(value) for name, value in fields.items()}).encode()
    why = Rejection("no_body", "the entry has no field `body`: XADD STREAM * body '{...}'")
    return Received(entry_id, why, {}, _kept(provider, whole))


def _headers(raw: bytes | None) -> dict[str, str]:
    try:
        found = json.loads(raw or b"{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(name): str(value) for name, value in found.items()}


def _cleaned(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers as they can be stored, by names in small letters, without any of our own."""
    cleaned = {_clean(name.strip().lower()): _clean(value) for name, value in headers.items()}
    return {name: value for name, value in cleaned.items() if not name.startswith(_OURS)}


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
        proven = {name: value for name, value in one.headers.items() if name == _PROVEN}
        return accept(database, source, [Received(one.delivery_id, why, proven, one.body)])


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
    body = json.dumps(event, default=_json).encode()
    producer = source(settings, "native")
    received = read(producer, f"task:{message_id}", {}, body)
    counts = _accept_patiently(database, producer, received)
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

    A rejected message is proven and read again: what was not proven when it came is held against
    the secrets of now, but not against the clock, since an operator vouches for its age. What is
    still unreadable is Refused with the reason. A parked or waiting event is applied by the rules
    as they stand now. Either way its source must be trusted with it as the settings stand now.
    """
    database = operator.database
    event = operator.event(event_id)
    trusted = source(settings, event.source)
    if event.state != "rejected":
        database.run(lambda tx: inbox.requeue(tx, event_id, trusted))
        return ["received"]
    headers, body = database.run(lambda tx: inbox.stored_message(tx, event_id))
    name = f"replay:{event_id}"
    try:
        if (event.reason or "").startswith("bad_envelope:"):  # it was never opened
            found = read(trusted, name, headers, body)
        else:
            found = _proven(trusted, name, Message(headers, body, replayed=True))
    except KeysUnavailable as error:
        raise Refused("keys_unavailable", f"{error}; the log says why") from None
    for one in found:
        if isinstance(one.content, Rejection):
            raise Refused(one.content.code, f"still refused: {one.content.message}")

    def write(tx: Tx) -> list[str]:
        counts = inbox.accept(tx, trusted, found)
        inbox.replaced(tx, event_id, actor=operator.actor)
        return sorted(counts.elements())

    return database.run(write)
