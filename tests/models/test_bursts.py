"""A source that cuts many accounts is told of once, however many batches and processes see it."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from freezegun import freeze_time

from models import bursts
from models.base import Database
from models.events import Action
from models.policy import Policy
from tests.world import EPOCH, World, event

ALARM = "source_cuts_many"


@pytest.fixture
def alarms() -> list[dict[str, Any]]:
    return []


class Site:
    """Accounts that sources cut; each batch is applied by a process of its own."""

    def __init__(self, url: str, policy: Policy, alarms: list[dict[str, Any]]) -> None:
        self.url, self.policy, self.alarms = url, policy, alarms
        self.deliveries = 0

    def process(self) -> World:
        database = Database(self.url, clock=lambda: datetime.now(UTC), on_alarm=self.alarms.append)
        return World(database, self.policy)

    def cut(self, numbers: Iterable[int], source: str = "okta") -> None:
        """Accounts are disabled, two in a batch."""
        emails = [f"user{number}@example.com" for number in numbers]
        for start in range(0, len(emails), 2):
            world = self.process()
            world.deliveries = self.deliveries
            for email in emails[start : start + 2]:
                world.account(email)
                world.receive(event(Action.DISABLED, email), source=source)
            world.apply()
            self.deliveries = world.deliveries
            world.database.close()

    @property
    def told(self) -> list[str]:
        """The sources of which an alarm told, in order."""
        assert {alarm["alarm"] for alarm in self.alarms} <= {ALARM}
        return [alarm["source"] for alarm in self.alarms]


@pytest.fixture
def site(database_url: str, alarms: list[dict[str, Any]]) -> Site:
    return Site(database_url, Policy(burst_accounts=3), alarms)


def test_a_burst_has_one_alarm_in_each_window_for_each_source(site: Site) -> None:
    window = site.policy.burst_window
    with freeze_time(EPOCH) as clock:
        site.cut(range(10, 20))
        clock.tick(window / 2)
        site.cut(range(20, 30))
        assert site.told == ["okta"]
        site.cut(range(30, 36), source="hr")
        assert site.told == ["okta", "hr"]
        clock.tick(window / 2)
        site.cut(range(40, 50))
        assert site.told == ["okta", "hr", "okta"]
        clock.tick(2 * window)
        site.cut(range(50, 53))
        assert len(site.told) == 3


def test_the_audit_says_that_there_was_one(site: Site) -> None:
    site.cut(range(10, 20))
    world = site.process()
    with world.database.begin() as tx:
        found = tx.rows("SELECT actor, why FROM keyturn.audit WHERE action = 'source.cut_many'")
    assert [dict(row) for row in found] == [
        {"actor": "source:okta", "why": "more than 3 accounts in 600 s"}
    ]


def test_of_two_batches_at_once_one_tells_and_another_where_that_fails(site: Site) -> None:
    site.policy = Policy(burst_accounts=1_000)
    site.cut(range(10, 20))
    site.policy = Policy(burst_accounts=3)
    world = site.process()
    with suppress(ZeroDivisionError), world.database.begin() as first:
        bursts.watch(first, ["okta"], world.policy)
        with world.database.begin() as second:
            bursts.watch(second, ["okta"], world.policy)
        assert (len(first.alarms), len(second.alarms)) == (1, 0)
        raise ZeroDivisionError
    assert site.told == []
    with world.database.begin() as again:
        bursts.watch(again, ["okta"], world.policy)
    assert site.told == ["okta"]
