"""Account events become holds, by the rules of order, on a real PostgreSQL (rules 2 and 3)."""

import json
import random
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from freezegun import freeze_time

from models import account_events, accounts, deletions, holds, inbox, linking
from models.base import Database
from models.errors import Refused
from models.events import Action, Certainty, Subject
from models.identity import new_id
from models.inbox import Received, Rejection, Source
from tests.world import ADA, EPOCH, World, event

DISABLED, ENABLED = Action.DISABLED, Action.ENABLED
MINUTE = timedelta(minutes=1)


@pytest.fixture
def world(database_url: str) -> World:
    return World(Database(database_url))


@pytest.fixture
def frozen(database_url: str) -> World:
    return World(Database(database_url, clock=lambda: datetime.now(UTC)))


def held(world: World, email: str = ADA) -> bool:
    with world.database.begin() as tx:
        return accounts.find(tx, email).held


def test_a_disabled_account_is_refused_from_the_commit_and_settled_after(world: World) -> None:
    world.account()
    key, text = world.key()
    assert world.verify(text).valid
    world.receive(event(DISABLED))
    assert world.verify(text).valid  # intake only stores
    world.apply()
    assert world.verify(text).reason == "account_held"
    assert world.status(key) == "active"
    assert world.settle() == 1
    assert world.status(key) == "disabled"
    world.receive(event(ENABLED))
    world.apply()
    assert world.verify(text).valid
    world.settle()
    assert world.status(key) == "active"


def test_each_change_is_audited_once_with_dense_versions(world: World) -> None:
    world.account()
    key, _ = world.key()
    for action in (DISABLED, ENABLED, DISABLED):
        world.receive(event(action))
        world.apply()
        world.settle()
    with world.database.begin() as tx:
        rows = tx.rows(
            "SELECT version, before, after, why FROM keyturn.audit WHERE key_id = :key ORDER BY 1",
            key=key,
        )
        pages = tx.rows("SELECT kind, payload FROM keyturn.outbox ORDER BY created_at")
    assert [(row["version"], row["before"], row["after"]) for row in rows] == [
        (1, None, "active"),
        (2, "active", "disabled"),
        (3, "disabled", "active"),
        (4, "active", "disabled"),
    ]
    assert rows[1]["why"] == "account_held"
    assert [page["kind"] for page in pages] == [
        "key.issued",
        "key.disabled",
        "key.enabled",
        "key.disabled",
    ]
    assert pages[1]["payload"]["key_ids"] == [str(key)]


def test_disable_enable_disable_without_ids_are_three_events(world: World) -> None:
    world.account()
    counts = world.receive(event(DISABLED), event(ENABLED), event(DISABLED))
    assert counts["received"] == 3
    world.apply()
    assert world.states() == ["done", "done", "done"]
    assert held(world)


def test_disable_then_enable_in_one_batch_without_times_goes_as_it_came(world: World) -> None:
    world.account()
    world.receive(event(DISABLED), event(ENABLED))
    world.apply()
    assert not held(world)


def test_the_same_event_twice_has_one_effect(world: World) -> None:
    world.account()
    one = event(DISABLED, event_id="42")
    assert world.receive(one, one)["duplicate"] == 1
    assert world.receive(one) == {"duplicate": 1}
    world.apply()
    assert world.states() == ["done"]


@pytest.mark.parametrize(
    ("action", "holds_after"), [(DISABLED, True), (ENABLED, False)], ids=["disabled", "enabled"]
)
def test_same_id_other_content_is_a_conflict(
    world: World, action: Action, holds_after: bool
) -> None:
    world.account()
    other = ENABLED if action is DISABLED else DISABLED
    world.receive(event(other, event_id="42", email="bob@example.com"))
    assert world.receive(event(action, event_id="42")) == {"conflict": 1}
    assert world.receive(event(action, event_id="42")) == {"duplicate": 1}
    world.apply()
    assert world.states() == ["waiting_for_account", "parked"]
    assert held(world) is holds_after


def test_a_conflict_within_one_batch_is_found(world: World) -> None:
    world.account()
    counts = world.receive(event(ENABLED, event_id="42"), event(DISABLED, event_id="42"))
    assert counts == {"received": 1, "conflict": 1}
    world.apply()
    assert held(world)
    assert world.states() == ["done", "parked"]


def test_a_conflict_that_is_also_older_still_cuts_and_parks(world: World) -> None:
    """Rule 2.3 knows no exception by age: which of the two is true, nobody can tell."""
    world.account()
    now = datetime.now(UTC) + 2 * MINUTE
    world.receive(event(ENABLED, at=now, event_id="42"))
    world.apply()
    world.receive(event(DISABLED, at=now - MINUTE, event_id="42"))
    world.apply()
    assert world.states() == ["done", "parked"]
    assert held(world)
    world.receive(event(DISABLED, at=now - MINUTE, event_id="43"))
    world.receive(event(ENABLED, at=now + timedelta(seconds=1)))
    world.apply()
    assert world.states() == ["done", "parked", "stale", "done"]  # its age moved no mark
    assert not held(world)


def test_a_conflict_that_is_also_older_restores_nothing(world: World) -> None:
    world.account()
    now = datetime.now(UTC) + 2 * MINUTE
    world.receive(event(DISABLED, at=now, event_id="42"))
    world.apply()
    world.receive(event(ENABLED, at=now - MINUTE, event_id="42"))
    world.apply()
    assert world.states() == ["done", "stale"]
    assert held(world)


def test_an_older_event_is_stale(world: World) -> None:
    world.account()
    now = datetime.now(UTC) + MINUTE
    world.receive(event(DISABLED, at=now))
    world.apply()
    world.receive(event(ENABLED, at=now - timedelta(seconds=1)))
    world.apply()
    assert world.states() == ["done", "stale"]
    assert held(world)


def test_of_two_events_of_one_time_disabled_wins_in_either_order(world: World) -> None:
    now = datetime.now(UTC) + MINUTE
    for number, order in enumerate([(DISABLED, ENABLED), (ENABLED, DISABLED)]):
        email = f"user{number}@example.com"
        world.account(email)
        for action in order:
            world.receive(event(action, email, at=now))
            world.apply()
        assert held(world, email)


def test_sequences_order_before_times(world: World) -> None:
    world.account()
    now = datetime.now(UTC) + MINUTE
    world.receive(event(DISABLED, at=now, sequence=8))
    world.receive(event(ENABLED, at=now + MINUTE, sequence=7))
    world.apply()
    assert world.states() == ["done", "stale"]
    assert held(world)


def test_a_producer_that_counts_anew_may_cut_but_not_restore(frozen: World) -> None:
    with freeze_time(EPOCH) as clock:
        frozen.account()
        frozen.receive(event(ENABLED, at=EPOCH, sequence=900))
        frozen.apply()
        clock.tick(timedelta(minutes=10))
        later = EPOCH + timedelta(minutes=6)
        frozen.receive(event(DISABLED, at=later, sequence=1))
        frozen.apply()
        assert held(frozen)
        clock.tick(timedelta(minutes=10))
        frozen.receive(event(ENABLED, at=later + timedelta(minutes=6), sequence=0))
        frozen.apply()
        assert held(frozen)
        assert frozen.states() == ["done", "parked", "parked"]


def test_from_the_future_a_cut_applies_as_of_receipt_and_a_restore_parks(frozen: World) -> None:
    with freeze_time(EPOCH) as clock:
        frozen.account()
        frozen.receive(event(DISABLED, at=EPOCH + timedelta(days=365)))
        frozen.apply()
        assert held(frozen)
        clock.tick(60)
        frozen.receive(event(ENABLED, at=EPOCH + timedelta(days=365)))
        frozen.apply()
        assert held(frozen)
        frozen.receive(event(ENABLED, at=EPOCH + timedelta(seconds=30)))  # over the cut's receipt
        frozen.apply()
        assert not held(frozen)
        assert frozen.states() == ["done", "parked", "done"]


def test_lifting_one_source_lifts_nothing_else(world: World) -> None:
    account = world.account()
    world.receive(event(DISABLED), source="okta")
    world.receive(event(DISABLED), source="keycloak")
    world.apply()
    world.receive(event(ENABLED), source="okta")
    world.apply()
    assert held(world)
    with world.database.begin() as tx:
        assert [(h.source, h.kind) for h in holds.standing(tx, holds.on_account(account))] == [
            ("keycloak", "disabled")
        ]


@pytest.mark.parametrize("action", [Action.DELETED, Action.COMPROMISED])
def test_deleted_and_compromised_stand_until_an_operator_lifts_them(
    world: World, action: Action
) -> None:
    account = world.account()
    world.receive(event(action))
    world.receive(event(ENABLED))
    world.apply()
    assert held(world)
    with world.database.begin() as tx:
        [hold] = holds.standing(tx, holds.on_account(account))
    assert (hold.source, hold.kind) == ("okta", action.value)


def test_a_hint_parks_and_an_event_without_effect_is_kept_as_ignored(world: World) -> None:
    world.account()
    world.receive(event(DISABLED, certainty=Certainty.HINT), event(Action.NONE))
    world.apply()
    assert world.states() == ["parked", "ignored"]
    assert not held(world)


def test_a_source_may_only_do_what_it_is_trusted_with(world: World) -> None:
    world.account()
    source = Source("hr", "native", frozenset({DISABLED}))
    for number, action in enumerate((DISABLED, ENABLED)):
        one = Received(str(number), event(action), {}, b"")
        world.database.run(lambda tx, one=one: inbox.accept(tx, source, [one]))  # type: ignore[misc]
    world.apply()
    assert world.states() == ["done", "parked"]
    assert held(world)


def test_a_replay_asks_again_what_its_source_is_trusted_with(world: World) -> None:
    world.account()
    untrusted, trusted = Source("okta", "okta", frozenset({ENABLED})), Source("okta", "okta")
    one = Received("1", event(DISABLED), {}, b"")
    world.database.run(lambda tx: inbox.accept(tx, untrusted, [one]))
    with pytest.raises(Refused) as refused:
        world.database.run(lambda tx: inbox.requeue(tx, 1, untrusted))
    assert refused.value.code == "not_trusted"
    assert world.states() == ["parked"]
    world.database.run(lambda tx: inbox.requeue(tx, 1, trusted))
    world.apply()
    assert world.states() == ["done"]
    assert held(world)


def test_an_event_that_waits_is_not_replayed_once_its_source_lost_its_trust(world: World) -> None:
    world.receive(event(DISABLED))
    world.apply()
    with pytest.raises(Refused) as refused:
        world.database.run(lambda tx: inbox.requeue(tx, 1, Source("okta", "okta", frozenset())))
    assert refused.value.code == "not_trusted"
    assert world.states() == ["waiting_for_account"]


def test_a_hint_stays_one_when_it_is_replayed(world: World) -> None:
    world.account()
    world.receive(event(DISABLED, certainty=Certainty.HINT))
    with pytest.raises(Refused) as refused:
        world.database.run(lambda tx: inbox.requeue(tx, 1, Source("okta", "okta")))
    assert refused.value.code == "hint"
    assert world.states() == ["parked"]


def test_an_event_before_its_account_cuts_the_account_when_it_comes(world: World) -> None:
    opaque = Subject(format="opaque", issuer="okta", value="00u1")
    world.receive(event(DISABLED, subject=Subject(format="opaque", value="00u1")))
    world.apply()
    assert world.states() == ["waiting_for_account"]
    world.account(ADA, opaque)
    assert world.states() == ["done"]
    with pytest.raises(Refused) as refused:
        world.key()
    assert refused.value.code == "account_held"


def test_an_event_older_than_an_emails_link_cuts_and_parks_and_never_restores(
    world: World,
) -> None:
    world.receive(event(DISABLED), source="okta")
    world.receive(event(ENABLED), source="keycloak")
    world.apply()
    world.account()
    assert world.states() == ["parked", "parked"]
    assert held(world)


def test_a_later_link_brings_in_what_waited_for_it(world: World) -> None:
    account = world.account()
    subject = Subject(format="opaque", value="00u1")
    world.receive(event(DISABLED, subject=subject))
    world.apply()
    known = Subject(format="opaque", issuer="okta", value="00u1")
    world.database.run(
        lambda tx: linking.link(tx, account, known, actor="test", policy=world.policy)
    )
    assert held(world)
    assert world.states() == ["done"]


def test_an_alias_is_tried_where_the_first_name_is_unknown(world: World) -> None:
    world.account()
    alias = Subject(format="email", value=ADA)
    world.receive(event(DISABLED, subject=Subject(format="opaque", value="00u9", aliases=(alias,))))
    world.apply()
    assert held(world)


def test_a_rejected_message_keeps_its_body_and_is_stored_once(world: World) -> None:
    bad = Received("1-0", Rejection("not_json", "no JSON"), {"a": "b"}, b"\xff{")
    source = Source("okta", "okta")
    for _ in range(2):
        world.database.run(lambda tx: inbox.accept(tx, source, [bad]))
    with world.database.begin() as tx:
        [row] = inbox.listed(tx, state="rejected")
        assert row.reason == "not_json: no JSON"
        assert inbox.stored_message(tx, row.id) == ({"a": "b"}, b"\xff{")


def test_one_bad_row_does_not_roll_the_others_back(world: World) -> None:
    emails = [f"user{number}@example.com" for number in range(9)]
    for email in emails:
        world.account(email)
    world.receive(*(event(DISABLED, email) for email in emails))
    with world.database.begin() as tx:
        tx.execute(
            """
            CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE 'boom' USING ERRCODE = '22000'; END $$
            """
        )
        tx.execute(
            """
            CREATE TRIGGER fail BEFORE UPDATE ON keyturn.inbox FOR EACH ROW
            WHEN (NEW.state = 'done' AND NEW.id = 4) EXECUTE FUNCTION fail()
            """
        )
    applied = world.apply()
    assert applied == {"done": 8, "failed": 1}
    assert [held(world, email) for email in emails] == [n != 3 for n in range(9)]
    with world.database.begin() as tx:
        assert inbox.find(tx, 4).attempts == 1
        tx.execute("DROP TRIGGER fail ON keyturn.inbox")
        tx.execute("UPDATE keyturn.inbox SET next_attempt_at = now() WHERE state = 'received'")
    world.apply()
    assert held(world, emails[3])


def test_a_claim_is_one_workers_until_its_lease_ends(frozen: World) -> None:
    with freeze_time(EPOCH) as clock:
        frozen.account()
        frozen.receive(event(DISABLED))
        assert frozen.database.run(lambda tx: account_events.claim(tx, frozen.policy))
        assert frozen.apply() == {}
        clock.tick(frozen.policy.lease)
        assert frozen.apply() == {"done": 1}


def test_claims_take_turns_between_sources_and_cuts_go_first(world: World) -> None:
    world.policy = type(world.policy)(apply_batch=4)
    world.receive(*(event(ENABLED, f"u{n}@example.com") for n in range(10)), source="bulk")
    world.receive(*(event(DISABLED, f"u{n}@example.com") for n in range(10)), source="bulk")
    world.receive(event(DISABLED, "ada@example.com"), source="urgent")
    claimed = world.database.run(lambda tx: account_events.claim(tx, world.policy))
    taken = [(one.source, one.event.action) for one in claimed]
    assert taken.count(("urgent", DISABLED)) == 1
    assert taken.count(("bulk", DISABLED)) == 2  # its share of four places for two sources
    assert taken.count(("bulk", ENABLED)) == 1  # what is left over


def test_a_source_that_cuts_many_still_cuts_and_its_deletions_wait(world: World) -> None:
    world.policy = type(world.policy)(burst_accounts=3, deletion_delay=timedelta(0))
    for number in range(4):
        world.account(f"user{number}@example.com")
    world.receive(*(event(Action.DELETED, f"user{number}@example.com") for number in range(4)))
    alarms: list[dict[str, object]] = []
    world.database.on_alarm = alarms.append
    world.apply()
    assert alarms == [{"alarm": "source_cuts_many", "source": "okta", "more_than": 3}]
    assert all(held(world, f"user{number}@example.com") for number in range(4))
    with world.database.begin() as tx:
        assert tx.scalar("SELECT count(*) FROM keyturn.holds WHERE confirm") == 4


def test_a_burst_of_what_had_waited_for_its_accounts_is_one_too(world: World) -> None:
    world.policy = type(world.policy)(burst_accounts=1, deletion_delay=timedelta(0))
    alarms: list[dict[str, object]] = []
    world.database.on_alarm = alarms.append
    subjects = [Subject(format="opaque", issuer="okta", value=f"00u{n}") for n in range(2)]
    for subject in subjects:
        world.receive(event(Action.DELETED, subject=subject))
    world.apply()
    for number, subject in enumerate(subjects):
        assert alarms == []
        world.account(f"user{number}@example.com", subject)
    assert alarms == [{"alarm": "source_cuts_many", "source": "okta", "more_than": 1}]
    with world.database.begin() as tx:
        assert tx.scalar("SELECT count(*) FROM keyturn.holds WHERE confirm") == 2


def test_what_is_rolled_back_raises_no_alarm(world: World) -> None:
    alarms: list[dict[str, object]] = []
    world.database.on_alarm = alarms.append
    with suppress(ZeroDivisionError), world.database.begin() as tx:
        tx.alarm("told_too_early")
        raise ZeroDivisionError
    assert alarms == []


def test_a_confirmed_deletion_stays_confirmed_when_its_source_cuts_on(world: World) -> None:
    world.policy = type(world.policy)(burst_accounts=1)

    def waiting() -> list[str]:
        with world.database.begin() as tx:
            return deletions.unconfirmed(tx, "okta")

    emails = [f"user{number}@example.com" for number in range(3)]
    for email in emails:
        world.account(email)
    world.receive(*(event(Action.DELETED, email) for email in emails[:2]))
    world.apply()
    assert waiting() == emails[:2]
    world.database.run(lambda tx: deletions.confirm_source(tx, "okta", actor="op"))
    world.receive(event(Action.DELETED, emails[2]))
    world.apply()
    assert waiting() == emails[2:]
    with world.database.begin() as tx:
        first = accounts.find(tx, emails[0]).id
        cause = holds.Cause(source="okta", kind="deleted", actor="op")
        assert holds.lift(tx, holds.on_account(first), cause, world.policy)
    world.receive(event(Action.DELETED, emails[0]))
    world.apply()
    assert waiting() == [emails[0], emails[2]]  # a new deletion, which nobody has confirmed


def test_a_burst_writes_each_of_its_deletions_once(world: World) -> None:
    """Every batch of it wrote all of them again: 50,000 deletions stood still for minutes."""
    world.policy = type(world.policy)(burst_accounts=1)
    for number in range(3):
        world.account(f"user{number}@example.com")
        world.receive(event(Action.DELETED, f"user{number}@example.com"))
        world.apply()
        if number == 1:
            before = written(world)
    assert len(before) == 2
    assert set(before) < set(written(world))


def written(world: World) -> list[str]:
    """Where the row versions of holds lie that wait for an operator."""
    with world.database.begin() as tx:
        return list(
            tx.execute("SELECT CAST(ctid AS text) FROM keyturn.holds WHERE confirm").scalars()
        )


def test_no_key_slips_through_while_its_account_is_being_disabled(world: World) -> None:
    world.account()
    made: list[str] = []
    go = threading.Barrier(5)

    def create() -> None:
        go.wait()
        for _ in range(10):
            with suppress(Refused):
                made.append(world.key()[1])

    def disable() -> None:
        go.wait()
        world.receive(event(DISABLED))
        world.apply()

    threads = [threading.Thread(target=create) for _ in range(4)]
    threads.append(threading.Thread(target=disable))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    world.settle()
    assert held(world)
    assert not any(world.verify(text).valid for text in made)
    with world.database.begin() as tx:
        assert tx.scalar("SELECT count(*) FROM keyturn.api_keys WHERE status = 'active'") == 0


def test_a_thousand_histories_in_any_order_end_by_their_highest_sequence(world: World) -> None:
    """However the events of an account are shuffled, and wherever its batches are cut."""
    draw = random.Random(20261123)
    ends: dict[str, bool] = {}
    sent = []
    rows = []
    for number in range(1000):
        email = f"user{number}@example.com"
        actions = [draw.choice((DISABLED, ENABLED)) for _ in range(draw.randint(2, 6))]
        ends[email] = actions[-1] is DISABLED
        rows.append({"id": str(new_id()), "email": email})
        sent += [event(action, email, sequence=n) for n, action in enumerate(actions)]
    world.account("first@example.com")  # and with it the roles
    with world.database.begin() as tx:
        tx.execute(_ACCOUNTS, rows=json.dumps(rows))
    draw.shuffle(sent)
    world.policy = type(world.policy)(apply_batch=97)
    for start in range(0, len(sent), 500):
        world.receive(*sent[start : start + 500])
    while world.apply():
        pass
    with world.database.begin() as tx:
        found = {row["email"]: row["held"] for row in tx.rows("SELECT * FROM keyturn.accounts")}
    del found["first@example.com"]
    assert found == ends


_ACCOUNTS = """
WITH r AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (id uuid, email text)
), made AS (
    INSERT INTO keyturn.accounts (id, email, role, created_at)
    SELECT id, email, 'member', :now - interval '1 day' FROM r RETURNING id
)
INSERT INTO keyturn.account_identities (id, account_id, format, issuer, value, linked_at)
SELECT gen_random_uuid(), id, 'email', '', email, :now - interval '1 day' FROM r
"""
