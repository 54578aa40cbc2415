"""Account events from RabbitMQ: by queues of our own, committed, rung for, then acknowledged."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog
from amqp.exceptions import AMQPError  # type: ignore[import-untyped]

from models.base import Database, is_server_trouble
from models.inbox import Received
from tasks.running import noted
from worker.intake.accept import Producer, accept, read, refused
from worker.intake.amqp_delivery import Delivery, Names
from worker.intake.amqp_frames import connect
from worker.intake.amqp_queues import DEAD, Queue, tell_of_set_aside
from worker.intake.providers import Unreadable
from worker.intake.verification import KeysUnavailable

log = structlog.get_logger()

BATCH: Final = 500
"""Messages that are stored at once, of one source."""
BATCH_BYTES: Final = 16 * 1024 * 1024
MEMBERS: Final = 1000
"""Events of them in one transaction."""

WAIT: Final = 1.0
"""Seconds between two looks at the clock while nothing comes."""
SHORT: Final = 0.01
"""Seconds in which what follows must come to be stored together with what came before."""
KEYS_PAUSE: Final = 15.0
"""Seconds until a message whose key could not be had is tried again; it stays unacknowledged."""
CHECK_EVERY: Final = 60.0
MEND_EVERY: Final = 10.0
"""Seconds between two looks at the queues and what they are bound to; the second while one of them
is not as it should be."""


class AmqpIntake:
    """Reads the queues of all sources that name an exchange, by one connection.

    Delivery is at least once: a message is acknowledged after its row has committed, and what
    comes twice is stored once. Nothing is ever given back to be delivered at once again: what
    must wait (for the database, for a key) waits here, unacknowledged.
    """

    def __init__(
        self,
        url: str,
        database: Database,
        queues: Sequence[Queue],
        beat: Callable[[], None] = lambda: None,
        mend_every: float = MEND_EVERY,
    ) -> None:
        """`beat` is called in every round."""
        self._url = url
        self._database = database
        self._queues = queues
        self._beat = beat
        self._mend_every = mend_every

    def run(self, stopped: Callable[[], bool]) -> None:
        """Read until `stopped`. Servers that do not answer are waited for; nothing is lost."""
        pause = 0.1
        while not stopped():
            began = time.monotonic()
            try:
                self._connected(stopped)
            except Exception as error:
                if time.monotonic() - began > CHECK_EVERY:
                    pause = 0.1
                log.warning(
                    "intake_waits", transport="amqp", error=type(error).__name__, seconds=pause
                )
                if not isinstance(error, AMQPError | OSError) and not is_server_trouble(error):
                    log.exception("alarm", alarm="intake_failed")
                time.sleep(pause)
                pause = min(pause * 2, 5.0)

    def _connected(self, stopped: Callable[[], bool]) -> None:
        connection = connect(self._url)
        try:
            session = _Session(connection, self._database, self._queues, self._mend_every)
            while not stopped():
                session.round(self._beat)
        finally:
            for queue in self._queues:
                queue.left()
            with suppress(Exception):  # a farewell that hangs or fails costs nothing
                connection.close() if stopped() else connection.collect()


class _Session:
    """One connection, from its start to its end; what is unacknowledged then comes again."""

    def __init__(
        self, connection: Any, database: Database, queues: Sequence[Queue], mend_every: float
    ) -> None:
        self._connection = connection
        self._database = database
        self._queues = queues
        self._mend_every = mend_every
        self._next_check = 0.0
        self._names = Names(database)
        self._waiting: dict[Queue, list[Delivery]] = {queue: [] for queue in queues}
        self._came, self._bytes = 0, 0
        self._pause = 0.1
        self._paused_until = 0.0

    def round(self, beat: Callable[[], None]) -> None:
        """See to the queues, read what there is, store it. Raises what ends the connection."""
        self._check()
        self._read()
        self._connection.heartbeat_tick()
        if time.monotonic() < self._paused_until:
            return
        try:
            for queue, waiting in self._waiting.items():
                self._store(queue, waiting)
            beat()
            self._pause = 0.1
        except Exception as error:
            if not is_server_trouble(error):
                raise
            log.warning(
                "intake_waits", transport="amqp", error=type(error).__name__, seconds=self._pause
            )
            self._paused_until = time.monotonic() + self._pause
            self._pause = min(self._pause * 2, 5.0)

    def _check(self) -> None:
        if time.monotonic() < self._next_check:
            return
        good = [queue.join(self._connection, self._take) for queue in self._queues]
        tell_of_set_aside(self._connection)
        pause = CHECK_EVERY if all(good) else self._mend_every
        self._next_check = time.monotonic() + pause

    def _take(self, queue: Queue, message: Any) -> None:
        delivery = Delivery(message)
        self._waiting[queue].append(delivery)
        self._came += 1
        self._bytes += delivery.size

    def _read(self) -> None:
        """All that there is, up to a batch; waits a second at most for the first."""
        self._came, self._bytes = 0, 0
        wait = WAIT if time.monotonic() >= self._paused_until else self._pause
        while self._came < BATCH and self._bytes < BATCH_BYTES:
            try:
                self._connection.drain_events(timeout=wait)
            except TimeoutError:
                return
            wait = SHORT
            if any(queue.cancelled for queue in self._queues):
                self._next_check = 0.0
                return

    def _store(self, queue: Queue, waiting: list[Delivery]) -> None:
        """Commit what can be read now, and acknowledge it. Raises what the database failed at."""
        now = time.monotonic()
        due = [one for one in waiting if one.not_before <= now]
        self._names.give(queue.producer.name, due)
        readable = [one for one in due if _is_read(queue.producer, one)]
        for batch in _batches(readable):
            done = self._accepted(queue.producer, batch)
            for one in batch:
                if one in done:
                    one.acknowledge()
                else:
                    one.set_aside()
                waiting.remove(one)

    def _accepted(self, producer: Producer, batch: Sequence[Delivery]) -> Sequence[Delivery]:
        """Those of a batch that are stored; others cannot be, whatever the reason."""
        try:
            self._accept(producer, [item for one in batch for item in one.received or ()])
            return batch
        except Exception as error:
            if is_server_trouble(error):
                raise
            if len(batch) == 1:
                log.error(
                    "alarm",
                    alarm="event_set_aside",
                    source=producer.name,
                    error=type(error).__name__,
                    queue=DEAD,
                )
                return []
        return [one for each in batch for one in self._accepted(producer, [each])]

    def _accept(self, producer: Producer, received: Sequence[Received]) -> None:
        for start in range(0, len(received), MEMBERS):
            with noted("intake.accept"):
                counts = accept(self._database, producer, received[start : start + MEMBERS])
            log.info("intake", transport="amqp", source=producer.name, **counts)


def _is_read(producer: Producer, delivery: Delivery) -> bool:
    """Read a message once; one whose key cannot be had now is put off, and holds up no other."""
    if delivery.received is None:
        headers = delivery.headers
        try:
            body = delivery.body()
            found = read(producer, delivery.name, headers, body, arrived=delivery.arrived)
        except Unreadable as error:
            found = [refused(producer, delivery.name, headers, delivery.raw, error)]
        except KeysUnavailable:
            delivery.not_before = time.monotonic() + KEYS_PAUSE
            return False
        delivery.received = found
    return True


def _batches(readable: Sequence[Delivery]) -> Iterator[list[Delivery]]:
    """Parts of about MEMBERS events; a message with a batch of its own stays whole."""
    batch: list[Delivery] = []
    members = 0
    for one in readable:
        batch.append(one)
        members += len(one.received or ())
        if members >= MEMBERS:
            yield batch
            batch, members = [], 0
    if batch:
        yield batch
