"""A source that says nothing for longer than is normal for it is told of, once for each silence."""

from datetime import timedelta

import pytest

from models import inbox, source_silence, status
from models.base import Database
from models.events import Action
from models.inbox import Received, Rejection, Source
from tests.world import EPOCH, World, event

HOUR = timedelta(hours=1)
NORMAL = {"okta": 2 * HOUR, "hr": 24 * HOUR}


class Watched(World):
    """A world with a clock that the test sets."""

    now = EPOCH

    def __init__(self, url: str) -> None:
        super().__init__(Database(url, clock=lambda: self.now))
        self.alarms: list[dict[str, object]] = []
        self.database.on_alarm = self.alarms.append

    def look(self, after: timedelta) -> list[object]:
        """Time passes; then the sources that are told of."""
        self.now += after
        self.alarms.clear()
        for _ in range(2):  # a second worker, or a run that is repeated
            self.database.run(lambda tx: source_silence.watch(tx, NORMAL))
        assert all(one["alarm"] == "source_silent" for one in self.alarms)
        return [one["source"] for one in self.alarms]

    def silent(self) -> dict[str, float]:
        with self.database.begin() as tx:
            return dict(status.read(tx).silent_sources)


@pytest.fixture
def world(database_url: str) -> Watched:
    return Watched(database_url)


def test_one_alarm_for_each_silence(world: Watched) -> None:
    world.receive(event(Action.DISABLED))
    assert world.look(2 * HOUR) == []
    assert world.look(HOUR) == ["okta"]
    assert world.silent() == {"okta": pytest.approx(3 * 3600, abs=1)}
    assert world.look(HOUR) == []
    world.receive(event(Action.ENABLED))
    assert world.silent() == {}
    assert world.look(HOUR) == []
    assert world.look(2 * HOUR) == ["okta"]


def test_a_silence_that_is_found_late_is_another_one(world: Watched) -> None:
    """Nobody looked for days: the source spoke meanwhile, and fell silent again."""
    world.receive(event(Action.DISABLED))
    assert world.look(3 * HOUR) == ["okta"]
    world.now += HOUR
    world.receive(event(Action.ENABLED))
    assert world.look(5 * HOUR) == ["okta"]


def test_what_was_never_heard_is_silent_since_the_first_look(world: Watched) -> None:
    assert world.look(timedelta(0)) == []
    assert world.look(3 * HOUR) == ["okta"]
    assert world.look(30 * HOUR) == ["hr"]
    assert set(world.silent()) == {"okta", "hr"}


def test_even_what_cannot_be_read_is_a_message(world: Watched) -> None:
    assert world.look(timedelta(0)) == []
    world.now += 3 * HOUR
    bad = Received("1", Rejection("not_json", "no"), {}, b"{")
    world.database.run(lambda tx: inbox.accept(tx, Source("okta", "okta"), [bad]))
    assert world.look(HOUR) == []


def test_rows_that_have_left_do_not_make_it_older(world: Watched) -> None:
    world.receive(event(Action.DISABLED))
    assert world.look(HOUR) == []
    with world.database.begin() as tx:
        tx.execute("DELETE FROM keyturn.inbox")
    assert world.look(HOUR) == []
    assert world.look(HOUR) == ["okta"]


def test_who_is_not_watched_any_more_is_forgotten(world: Watched) -> None:
    assert world.look(timedelta(0)) == []
    assert world.look(3 * HOUR) == ["okta"]
    world.database.run(lambda tx: source_silence.watch(tx, {}))
    assert world.silent() == {}
