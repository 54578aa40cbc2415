"""A worker that reads nothing from its broker ends itself, whatever the reason; others go on."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from kombu import Queue

from tasks import running
from tests.eventually import eventually
from tests.flows.processes import Running, environment, left_alone
from worker.hearing import DEAF_AFTER, EAR, Hearing
from worker.watchdog import STUCK, Watchdog

EVERY: Final = timedelta(seconds=5)
PATIENT: Final = DEAF_AFTER // EVERY + 1
"""Questions without an answer after which a process is deaf."""


class Told(list[str]):
    """Messages to ears."""

    def __call__(self, ear: Queue) -> None:
        self.append(ear.name)


@pytest.fixture
def hearing() -> Hearing:
    made = Hearing()
    made.places = 2
    made.ask(Told(), EVERY)
    return made


def ask(hearing: Hearing, times: int = PATIENT, send: Any = None) -> Told:
    told = Told()
    for _ in range(times):
        hearing.ask(send or told, EVERY)
    return told


def test_who_does_not_hear_itself_is_deaf_in_time(hearing: Hearing) -> None:
    ask(hearing, PATIENT - 1)
    assert not hearing.deaf
    assert ask(hearing, 1) == [hearing.ear.name]
    assert hearing.deaf
    assert timedelta(seconds=90) >= PATIENT * EVERY


def test_nothing_is_sent_where_messages_come_anyway(hearing: Hearing) -> None:
    for _ in range(2 * PATIENT):
        hearing.heard()
        assert ask(hearing, 1) == []
    assert not hearing.deaf


def test_an_answer_makes_good_all_that_were_lost(hearing: Hearing) -> None:
    """FLUSHALL takes messages to an ear as well."""
    ask(hearing, PATIENT - 1)
    hearing.heard()
    ask(hearing, PATIENT)
    assert not hearing.deaf


def test_a_broker_that_is_away_makes_nobody_deaf(hearing: Hearing) -> None:
    def away(_: Queue) -> None:
        raise ConnectionError

    ask(hearing, PATIENT - 1)
    ask(hearing, 10 * PATIENT, away)
    assert not hearing.deaf
    ask(hearing, PATIENT - 1)
    assert not hearing.deaf


def test_who_has_all_hands_full_need_not_listen(
    hearing: Hearing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_running", {1: ("a", 0.0), 2: ("b", 0.0)})
    assert ask(hearing, 10 * PATIENT) == []
    assert not hearing.deaf
    monkeypatch.setattr(running, "_running", {1: ("a", 0.0)})
    ask(hearing, PATIENT)
    assert hearing.deaf


def test_before_there_is_a_consumer_nothing_is_asked() -> None:
    hearing = Hearing()
    assert ask(hearing, 2 * PATIENT) == []
    assert not hearing.deaf


def test_the_watchdog_ends_a_deaf_process(hearing: Hearing) -> None:
    ended: list[int] = []
    watchdog = Watchdog(DEAF_AFTER, ended.append, lambda: hearing.deaf)
    watchdog.look()
    assert ended == []
    ask(hearing)
    watchdog.look()
    assert ended == [STUCK]


_WORKER: Final = """
import sys
from datetime import timedelta
from kombu.message import Message
from worker import hearing
from worker.bell import Bell

hearing.DEAF_AFTER = timedelta(seconds=4)
ack, kept = Message.ack, sys.argv.pop(1)
if kept == "silence":
    Bell.__call__ = lambda self, flows: None

def leak(self, multiple=False):
    own = hearing.own.is_own(self)
    if kept in ("none", "silence") or (kept == "rings" and own):
        ack(self, multiple)

Message.ack = leak
from celery.__main__ import main
main()
"""
"""A worker that keeps places in its window: those of rings, of all messages, or of none. One in
silence has nobody who rings."""


def worker(env: Mapping[str, str], log: Path, keeps: str) -> Running:
    command = ("-A", "worker.main", "worker", "-P", "threads", "-c", "2", "-n", f"{log.stem}@%h")
    return left_alone(["-c", _WORKER, keeps, *command], env, log)


def test_a_worker_for_which_nobody_rings_hears_itself(
    database_url: str, secrets_dir: Path, tmp_path: Path, either_url: str
) -> None:
    log = tmp_path / "quiet.log"
    env = environment(database_url, either_url, secrets_dir, KEYTURN_LOG_LEVEL="debug")
    with worker(env, log, "silence") as process:
        eventually(lambda: log.read_text().count('"heard_itself"') >= 3, within=60)
        assert process.poll() is None


@pytest.mark.parametrize("keeps", ["rings", "all"])
def test_of_two_workers_the_deaf_one_ends_and_the_other_goes_on(
    database_url: str, secrets_dir: Path, tmp_path: Path, either_url: str, keeps: str
) -> None:
    """Their window is filled, as lost acknowledgements once did it; no beat runs."""
    env = environment(database_url, either_url, secrets_dir, KEYTURN_LOG_LEVEL="debug")
    deaf, well = tmp_path / "deaf.log", tmp_path / "well.log"
    with worker(env, well, "none") as other, worker(env, deaf, keeps) as process:
        assert process.wait(60) == STUCK, deaf.read_text()
        assert '"alarm": "worker_deaf"' in deaf.read_text()
        assert other.poll() is None, well.read_text()
        assert "ear_not_reached" not in well.read_text()


def test_what_nobody_hears_any_more_does_not_stay(broker_url: str) -> None:
    from redis import Redis

    from worker.app import make_app
    from worker.hearing import sender
    from worker.settings import Settings

    hearing = Hearing()
    with make_app(Settings(broker_url=broker_url)) as app:
        sender(app)(hearing.ear)
    with Redis.from_url(broker_url) as client:
        (kept,) = client.keys(f"{EAR}*")
        assert kept.decode() == hearing.ear.name
        assert 0 < client.pttl(kept) <= 300_000
        client.delete(kept)
