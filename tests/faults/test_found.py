"""What the matrix found, each reduced to the smallest thing that shows it."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import event as hooks

from models import account_events, inbox
from models.events import AccountEvent, Action
from tests.faults.flows import FLOWS
from tests.faults.points import Broken
from tests.faults.site import POLICY, Site
from tests.world import ADA, EPOCH, event
from worker.intake import accept


@pytest.fixture
def site(database_url: str) -> Iterator[Site]:
    made = Site(database_url)
    yield made
    made.close()


def test_an_error_at_a_steps_savepoint_is_not_taken_for_an_error_of_the_step(site: Site) -> None:
    """It undoes nothing by itself: what the step wrote stood, and was marked as failed as well."""
    FLOWS["rotation_unclaimed"].prepare(site)
    failures = [Broken("once")]

    def fail(*_: object) -> None:
        if failures:
            raise failures.pop()

    hooks.listen(site.database.engine, "release_savepoint", fail)
    with pytest.raises(Broken):
        site.run("rotations.advance")
    assert site.operator.rotations()[0].state == "issued"
    site.recover()
    [rotation] = site.operator.rotations()
    assert (rotation.state, rotation.blocked_reason) == ("cancelled", None)


@pytest.mark.parametrize(
    "entry",
    [
        {b"type": b"account.disabled", b"account": ADA.encode(), b"id": b"1"},
        {b"body": b'{"type": "account.disabled", "account": "ada@example.com", "id": "1"}'},
    ],
)
def test_an_event_that_could_not_be_stored_is_kept_to_be_replayed(
    site: Site, entry: dict[bytes, bytes]
) -> None:
    """It was acknowledged: a bug that hits its storing must not cost the event."""
    failures = [Broken("once")]

    def fail(*_: object) -> None:
        if failures:
            raise failures.pop()

    hooks.listen(site.database.engine, "before_cursor_execute", fail)
    native = accept.Producer("native", "native")
    received = accept.read_entry(native, "1-0", entry)
    accept.accept(site.database, native, received)
    [rejected] = site.operator.events(state="rejected")
    headers, body = site.database.run(lambda tx: inbox.stored_message(tx, rejected.id))
    [again] = accept.read(native, "replay", headers, body)
    assert isinstance(again.content, AccountEvent), again.content


def test_an_event_overtaken_while_its_worker_is_dead_ends_access_as_it_would(site: Site) -> None:
    """The one way in which a crash shows in the end: what is older by then has no effect."""
    site.account(ADA)
    key = site.key("build", ADA)
    site.receive("okta", ("1", event(Action.DISABLED, at=EPOCH)))
    site.database.run(lambda tx: account_events.claim(tx, POLICY))  # its worker dies
    site.receive("okta", ("2", event(Action.ENABLED, at=EPOCH + timedelta(seconds=1))))
    site.run("accounts.apply_events")
    site.recover()
    assert [one.state for one in site.operator.events()] == ["done", "stale"]
    assert site.operator.key(key).status == "active"
