"""The ledger finds what is lost, doubled and wrong: each is done to a real database on purpose."""

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from models.base import Database
from models.events import Action
from tests.chaos import evidence
from tests.chaos.ledger import Account, Event, Evidence, Ledger, Posted, Told
from tests.world import World, event

ADA, BEN, CLEO = "ada@chaos.example", "ben@chaos.example", "cleo@chaos.example"
_TOLD = """
    SELECT id::text, kind, ARRAY(SELECT jsonb_array_elements_text(payload->'key_ids'))
    FROM keyturn.outbox WHERE channel = 'events'
"""


class Scene:
    """A database in which all went well, and the ledger of what was asked for."""

    def __init__(self, connection: psycopg.Connection, ledger: Ledger, url: str) -> None:
        self.connection = connection
        self.ledger = ledger
        self.world = World(Database(url))
        self.texts: dict[str, str] = {}

    def play(self) -> None:
        """Ada is disabled, Ben disabled and enabled, Cleo's events are shuffled; all come twice."""
        self._publish(ADA, True, ("disabled", 1))
        self._publish(BEN, True, ("disabled", 1), ("enabled", 2))
        self._publish(CLEO, False, ("disabled", 2), ("enabled", 1))

    def _publish(self, email: str, in_step: bool, *steps: tuple[str, int]) -> None:
        account = self.ledger.open(Account(email, "test", in_step=in_step))
        self.world.account(email)
        account.texts.append(self.world.key(email)[1])
        for action, sequence in steps:
            name = f"{email}/{sequence}"
            entered = self.ledger.enter(Event(name, email, action, sequence))
            said = event(Action(action), email, sequence=sequence, event_id=name)
            for delivery in ("first", "again"):
                self.world.receive(said, source="native")
                self.ledger.published(entered, 1.0, f"{name}/{delivery}")
            self.world.apply()
            self.world.settle()

    def evidence(self) -> Evidence:
        told = [Told(name, kind, tuple(keys), 0.0) for name, kind, keys in self.rows(_TOLD)]
        texts = [text for one in self.ledger.accounts.values() for text in one.texts]
        valid = {text: self.world.verify(text).valid for text in texts}
        return replace(evidence.gather(self.connection), told=told, valid=valid)

    def unmet(self) -> list[str]:
        return self.ledger.judge(self.evidence()).unmet

    def rows(self, sql: str) -> list[tuple[str, str, list[str]]]:
        return [(one[0], one[1], one[2]) for one in self.connection.execute(sql.encode())]

    def do(self, sql: str) -> None:
        self.connection.execute(sql.encode())


@pytest.fixture
def scene(database_url: str) -> Iterator[Scene]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        scene = Scene(connection, Ledger(), database_url)
        scene.play()
        assert scene.unmet() == []
        yield scene
        scene.world.database.close()


def test_a_lost_event(scene: Scene) -> None:
    scene.do(f"DELETE FROM keyturn.inbox WHERE event_id = '{ADA}/1'")
    found = scene.ledger.judge(scene.evidence())
    assert found.lost == [f"{ADA}/1: disabled of {ADA} (test)"]
    assert found.flushed == []


def test_an_event_that_a_flush_took_is_no_lost_one(scene: Scene) -> None:
    scene.do(f"DELETE FROM keyturn.inbox WHERE event_id = '{CLEO}/1'")
    scene.ledger.flush([f"{CLEO}/1/first"], [f"{CLEO}/1"])
    assert scene.ledger.judge(scene.evidence()).lost  # it was delivered again, outside of the flush
    scene.ledger.flush([f"{CLEO}/1/again"], [f"{CLEO}/1"])
    found = scene.ledger.judge(scene.evidence())
    assert found.unmet == []
    assert found.flushed == [f"{CLEO}/1: enabled of {CLEO} (test)"]


def test_what_a_flush_took_changes_how_it_must_end(scene: Scene) -> None:
    scene.do(f"DELETE FROM keyturn.inbox WHERE event_id = '{BEN}/2'")
    scene.ledger.flush([f"{BEN}/2/first", f"{BEN}/2/again"], [f"{BEN}/2"])
    assert any("is active, not disabled" in one for one in scene.unmet())


def test_an_event_that_is_stored_twice(scene: Scene) -> None:
    scene.do(
        "INSERT INTO keyturn.inbox (source, provider, state, received_at, action, event_id, "
        "subject_value, next_attempt_at) SELECT source, provider, state, received_at, action, "
        f"event_id, subject_value, next_attempt_at FROM keyturn.inbox WHERE event_id = '{ADA}/1'"
    )
    assert f"{ADA}/1: 2 inbox rows" in scene.ledger.judge(scene.evidence()).doubled


def test_an_effect_that_came_twice(scene: Scene) -> None:
    scene.do(
        "INSERT INTO keyturn.audit (at, actor, action, account_id, why) SELECT at, actor, action, "
        "account_id, why FROM keyturn.audit WHERE action = 'hold.lifted'"
    )
    [found] = scene.ledger.judge(scene.evidence()).doubled
    assert found.startswith(f"{BEN}/2")
    assert found.endswith("had 2 effects")


def test_an_effect_that_never_came(scene: Scene) -> None:
    scene.do("DELETE FROM keyturn.audit WHERE action = 'hold.lifted'")
    assert any("had no effect" in one for one in scene.unmet())


def test_a_key_that_ends_otherwise(scene: Scene) -> None:
    scene.do("UPDATE keyturn.accounts SET held = false")
    assert sum("verify accepts a key that is disabled" in one for one in scene.unmet()) == 2


def test_an_outgoing_event_that_never_left(scene: Scene) -> None:
    scene.do("DELETE FROM keyturn.outbox WHERE kind = 'key.enabled'")
    assert len(scene.ledger.judge(scene.evidence()).lost) == 1


def test_an_outgoing_event_that_was_made_twice(scene: Scene) -> None:
    scene.do(
        "INSERT INTO keyturn.outbox (id, channel, kind, payload, created_at, due_at) "
        "SELECT gen_random_uuid(), channel, kind, payload, created_at, due_at "
        "FROM keyturn.outbox WHERE kind = 'key.enabled'"
    )
    [found] = scene.ledger.judge(scene.evidence()).doubled
    assert "2 events, 1 changes" in found


def test_mails(scene: Scene) -> None:
    scene.ledger.accounts[ADA].expires = True
    once = Posted("<1@x>", ADA, "Your API key has expired", 1.0)

    def judged(*posted: Posted) -> list[str]:
        found = scene.ledger.judge(replace(scene.evidence(), posted=posted))
        return [one for one in (*found.lost, *found.doubled) if "mail" in one]

    assert judged() == [f"the mail to {ADA} that its key has expired"]
    assert judged(once) == []
    assert judged(once, replace(once, at=2.0)) == []  # one mail, delivered twice
    assert judged(once, replace(once, message_id="<2@x>")) == [
        f"2 mails 'Your API key has expired' to {ADA}"
    ]
    scene.ledger.refused_mail.add(ADA)
    assert judged() == []
