"""What is done to the running installation: each fault begins, lasts, and ends."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from tests.chaos import mailbox, proxy
from tests.chaos.delivery import Far
from tests.chaos.rabbitmq import RabbitMQ
from tests.chaos.site import WORKERS, Broker, Site
from worker.embedded.valkey import Valkey

Act = Callable[[], None]


@dataclass
class Fault:
    """One that was done. Times are of `time.time()`; `recovery` is in seconds, None for never."""

    kind: str
    target: str
    began: float
    ended: float
    recovery: float | None = None

    @property
    def name(self) -> str:
        return f"{self.kind} {self.target}".strip()


@dataclass(frozen=True)
class Kind:
    """A sort of fault: what it does to whom, and for how many seconds (none: it is a moment)."""

    kind: str
    target: str
    begin: Callable[["Faults"], None]
    end: Callable[["Faults"], None] = lambda faults: None
    lasts: tuple[float, float] = (0.0, 0.0)
    brokers: tuple[Broker, ...] = ("valkey", "rabbitmq")

    @property
    def name(self) -> str:
        return f"{self.kind} {self.target}".strip()


class Faults:
    """Does faults to a site, one after the other, and writes them down."""

    def __init__(self, site: Site, far: Far) -> None:
        self.site = site
        self.far = far
        self.done: list[Fault] = []
        self._stopped: list[int] = []

    def do(self, kind: Kind, seconds: float) -> Fault:
        """Begin it, let it last, end it. Whatever happens, it is ended."""
        fault = Fault(kind.kind, kind.target, time.time(), time.time())
        try:
            kind.begin(self)
            time.sleep(seconds)
        finally:
            kind.end(self)
            fault.ended = time.time()
            self.done.append(fault)
        return fault

    def kill(self, names: Sequence[str]) -> None:
        for name in names:
            self._signal(self.site.pid(name), signal.SIGKILL)

    def restart(self, name: str) -> None:
        self._signal(self.site.pid(name), signal.SIGTERM)

    def stop(self, name: str) -> None:
        pid = self.site.pid(name)
        self._stopped.append(pid)
        self._signal(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        while self._stopped:
            self._signal(self._stopped.pop(), signal.SIGCONT)

    def restart_broker(self) -> None:
        self.site.server.stop()
        self.site.start_broker()

    def kill_broker(self) -> None:
        server = self.site.server
        if isinstance(server, RabbitMQ):
            server.stop(signal.SIGKILL)
        elif isinstance(server, Valkey) and server.running:
            self._signal(server.running.identity.pid, signal.SIGKILL)
            server.running.popen.wait()
        self.site.start_broker()

    def restart_postgres(self) -> None:
        self.site.postgres.stop()
        self.site.postgres.start()

    def crash_postgres(self) -> None:
        """An immediate shutdown: it starts again with the recovery of a crash."""
        running = self.site.postgres.running
        assert running is not None
        self._signal(running.identity.pid, signal.SIGQUIT)
        running.popen.wait()
        self.site.postgres.start()

    def terminate_sessions(self) -> None:
        with self.site.postgres.connect() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )

    def _signal(self, pid: int, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # it died of the fault before: its successor is to come
            os.kill(pid, number)


def kinds(broker: Broker) -> list[Kind]:
    """All sorts of faults that can be done to an installation on this broker."""
    every = [*_of_processes(), *_of_servers(), *_of_networks(), *_of_mail()]
    return [kind for kind in every if broker in kind.brokers]


def _of_processes() -> Iterator[Kind]:
    for name in (*WORKERS[:1], "intake", "beat"):
        yield Kind("SIGKILL", name, lambda f, name=name: f.kill([name]))  # type: ignore[misc]
        yield Kind(
            "SIGSTOP",
            name,
            lambda f, name=name: f.stop(name),  # type: ignore[misc]
            lambda f: f.go_on(),
            (4, 12),
        )
        yield Kind("restart", name, lambda f, name=name: f.restart(name))  # type: ignore[misc]
    yield Kind("SIGKILL", "all workers", lambda f: f.kill(WORKERS))


def _of_servers() -> Iterator[Kind]:
    yield Kind("restart", "broker", lambda f: f.restart_broker())
    yield Kind("crash", "broker", lambda f: f.kill_broker())
    yield Kind("FLUSHALL", "", lambda f: f.far.flush(), brokers=("valkey",))
    yield Kind("restart", "PostgreSQL", lambda f: f.restart_postgres())
    yield Kind("crash", "PostgreSQL", lambda f: f.crash_postgres())
    yield Kind("terminate", "all sessions", lambda f: f.terminate_sessions())


_LASTS: Final[Mapping[proxy.Mood, tuple[float, float]]] = {
    proxy.Mood.DELAY: (5, 10),
    proxy.Mood.RESET: (0.2, 4),
    proxy.Mood.BLACK_HOLE: (4, 12),
}
DELAY: Final = 0.3
"""Seconds that a piece waits at most in a slow proxy."""


def _of_networks() -> Iterator[Kind]:
    for mood, lasts in _LASTS.items():
        yield Kind(
            mood.value,
            "to the broker",
            lambda f, mood=mood: f.site.broker_proxy.set(mood, DELAY),  # type: ignore[misc]
            lambda f: f.site.broker_proxy.set(proxy.Mood.PASS),
            lasts,
        )
        yield Kind(
            mood.value,
            "to PostgreSQL",
            lambda f, mood=mood: f.site.database_proxy.set(mood, DELAY),  # type: ignore[misc]
            lambda f: f.site.database_proxy.set(proxy.Mood.PASS),
            lasts,
        )


def _of_mail() -> Iterator[Kind]:
    for mood in mailbox.Mood:
        if mood is not mailbox.Mood.WELL:
            yield Kind(
                "mail server",
                mood.value,
                lambda f, mood=mood: setattr(f.site.mailbox, "mood", mood),  # type: ignore[misc]
                lambda f: setattr(f.site.mailbox, "mood", mailbox.Mood.WELL),
                (5, 12),
            )


def schedule(broker: Broker, seed: int, only: str = "") -> Iterator[tuple[float, Kind, float]]:
    """For ever: a pause in seconds, a fault, how long it lasts. Every kind comes in its turn.

    With `only`, these are the kinds whose name has that in it.
    """
    draw = random.Random(f"{seed}/faults")
    while True:
        deck = [kind for kind in kinds(broker) if only in kind.name]
        draw.shuffle(deck)
        for kind in deck:
            yield draw.uniform(0.3, 2.5), kind, draw.uniform(*kind.lasts)
