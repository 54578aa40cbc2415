"""New keys on their way to a sink: once, by one worker, and told when they do not get there."""

from datetime import datetime, timedelta

import pytest

from models import hand_overs, outbox, public_keys
from models.base import Database
from models.key_text import parse
from models.sealing import Sealer
from models.sinks import Outcome, Told
from tests.models.hand_over_steps import (
    BROKEN,
    BUSY,
    TAKEN,
    Shelf,
    TwoShelves,
    issued,
    lease,
    leased,
    row,
    settle,
    to_shelf,
    work,
)
from tests.models.scene import DAY, HOUR, MINUTE, Scene


def alarms(scene: Scene) -> list[dict[str, object]]:
    """What a person is told from now on."""
    told: list[dict[str, object]] = []
    scene.database.on_alarm = told.append
    return told


def test_a_key_goes_to_its_sink_and_its_sealed_text_goes(scene: Scene) -> None:
    shelf, rotation = Shelf(), issued(scene)
    assert rotation.sink == "shelf"
    assert work(scene, shelf) == 1
    text = shelf.texts[rotation.id]
    assert parse(text) is not None
    assert text.endswith(scene.find_key(rotation.new_key_id).hint)
    now = scene.rotation(rotation)
    assert (now.state, now.claimed_at, now.claimed_by) == ("issued", scene.now(), "sink:shelf")
    assert not now.claimable
    assert (row(scene, rotation)["state"], row(scene, rotation)["receipt"]) == (
        "done",
        "on the shelf",
    )
    assert ("rotation.handed_over", "sink shelf: on the shelf") in scene.audited(rotation)
    assert work(scene, shelf) == 0


def test_a_sink_is_given_all_the_facts(scene: Scene) -> None:
    shelf, rotation = Shelf(), issued(scene)
    jwk = {"kty": "OKP", "crv": "X25519", "x": "eA", "kid": "1"}
    scene.database.run(lambda tx: public_keys.register(tx, scene.owner, jwk, actor="test"))
    work(scene, shelf)
    [given] = shelf.seen
    assert (given.rotation_id, given.family_id) == (rotation.id, rotation.family_id)
    assert (given.account, given.account_id) == ("ada@example.com", scene.owner)
    assert (given.key_id, given.old_key_id) == (rotation.new_key_id, rotation.old_key_id)
    assert (given.key_name, given.key_hint) == ("build", rotation.new_hint)
    assert given.expires_at == rotation.new_expires_at
    assert given.public_key == jwk


def test_without_a_sink_there_is_no_hand_over(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    assert rotation.sink == "claim"
    assert scene.sql("SELECT FROM keyturn.hand_overs") == []
    assert scene.rotation(rotation).claimable


def test_the_hand_over_is_rung_for_with_the_issue(scene: Scene) -> None:
    rung: set[str] = set()
    scene.database.on_commit = rung.update
    issued(scene)
    assert "rotations.hand_over" in rung


def test_a_receipt_confirms_nothing(scene: Scene) -> None:
    rotation = issued(scene)
    work(scene, Shelf())
    scene.later(8 * DAY)
    scene.advance()
    assert scene.rotation(rotation).state == "issued"
    scene.use(rotation.new_key_id)
    scene.advance()
    assert scene.rotation(rotation).state == "draining"


def test_six_tries_with_growing_pauses_and_then_a_person(scene: Scene) -> None:
    told, rotation, pauses = alarms(scene), issued(scene), []
    for _ in range(hand_overs.TRIES - 1):
        assert work(scene, Shelf(BUSY)) == 1
        due = row(scene, rotation)["due_at"]
        assert isinstance(due, datetime)
        pauses.append((due - scene.now()).total_seconds())
        assert scene.rotation(rotation).blocked_reason is None
        scene.clock.move_to(due)
    for number, pause in enumerate(pauses):
        assert 0.75 <= pause / (10 * 2**number) <= 1.25
    assert told == []
    assert work(scene, Shelf(BUSY)) == 1
    assert row(scene, rotation)["state"] == "failed"
    blocked = scene.rotation(rotation)
    assert (blocked.state, blocked.blocked_reason) == ("issued", "hand_over_failed")
    assert told == [
        {
            "alarm": "hand_over_failed",
            "rotation": str(rotation.id),
            "sink": "shelf",
            "why": "the shelf is busy",
        }
    ]
    assert [mail["code"] for mail in scene.told("rotation.blocked")] == ["hand_over_failed"]
    assert work(scene, Shelf()) == 0


def test_pauses_differ(scene: Scene) -> None:
    scene.policy = to_shelf()
    for _ in range(5):
        scene.request(scene.key())
    work(scene, Shelf(BUSY))
    [found] = scene.sql("SELECT count(DISTINCT due_at) AS different FROM keyturn.hand_overs")
    assert found["different"] == 5


def test_what_another_try_cannot_mend_fails_at_once(scene: Scene) -> None:
    told, rotation = alarms(scene), issued(scene)
    assert work(scene, Shelf(BROKEN)) == 1
    assert (row(scene, rotation)["state"], row(scene, rotation)["error"]) == (
        "failed",
        "there is no shelf",
    )
    assert scene.rotation(rotation).blocked_reason == "hand_over_failed"
    assert len(told) == 1


def test_a_block_stays_until_the_key_ends_unclaimed(scene: Scene) -> None:
    rotation = issued(scene)
    work(scene, Shelf(BROKEN))
    scene.later(2 * DAY)
    scene.advance()
    assert scene.rotation(rotation).blocked_reason == "hand_over_failed"
    assert len(scene.mails("rotation.blocked")) == 1
    scene.later(DAY)
    scene.advance()
    assert scene.rotation(rotation).cancel_reason == "unclaimed"


def test_retry_begins_anew(scene: Scene) -> None:
    rotation = issued(scene)
    assert not scene.database.run(lambda tx: hand_overs.retry(tx, rotation.id))
    work(scene, Shelf(BROKEN))
    rung: set[str] = set()
    scene.database.on_commit = rung.update
    assert scene.database.run(lambda tx: hand_overs.retry(tx, rotation.id))
    assert rung == {"rotations.hand_over"}
    assert scene.rotation(rotation).blocked_reason is None
    assert (row(scene, rotation)["attempts"], row(scene, rotation)["error"]) == (0, None)
    shelf = Shelf()
    assert work(scene, shelf) == 1
    assert scene.rotation(rotation).claimed_by == "sink:shelf"


def test_a_holder_may_claim_where_the_sink_fails(scene: Scene) -> None:
    rotation = issued(scene)
    work(scene, Shelf(BROKEN))
    scene.claimed(rotation.old_key_id)
    now = scene.rotation(rotation)
    assert (now.blocked_reason, now.claimed_by) != ("hand_over_failed", "sink:shelf")
    scene.use(rotation.new_key_id)
    scene.advance()
    assert scene.rotation(rotation).blocked_reason is None


def test_a_claim_ends_the_hand_over(scene: Scene) -> None:
    shelf, rotation = Shelf(), issued(scene)
    scene.claimed(rotation.old_key_id)
    assert work(scene, shelf) == 0
    assert shelf.texts == {}
    assert row(scene, rotation)["state"] == "skipped"
    assert "claimed" in str(row(scene, rotation)["error"])


def test_a_claim_after_the_receipt_is_the_second_one(scene: Scene) -> None:
    rotation = issued(scene)
    work(scene, Shelf())
    assert scene.refusal(rotation.old_key_id) == "already_claimed"


def test_a_claim_during_a_try_is_not_undone_by_its_receipt(scene: Scene) -> None:
    rotation = issued(scene)
    found = leased(scene)
    scene.claimed(rotation.old_key_id)
    claimed_at = scene.now()
    scene.later(MINUTE)
    assert settle(scene, found, TAKEN)
    now = scene.rotation(rotation)
    assert (now.claimed_at, row(scene, rotation)["state"]) == (claimed_at, "done")
    assert now.claimed_by != "sink:shelf"


def test_a_lease_is_one_workers_own_and_ends(scene: Scene) -> None:
    rotation = issued(scene)
    first = leased(scene)
    assert lease(scene) is None
    scene.later(scene.policy.lease)
    second = leased(scene)
    assert not settle(scene, first, TAKEN)  # a zombie's answer hits the fence
    assert not settle(scene, first, BROKEN)
    assert row(scene, rotation)["state"] == "waiting"
    assert settle(scene, second, TAKEN)
    assert row(scene, rotation)["state"] == "done"
    assert not settle(scene, second, TAKEN)


def test_two_workers_that_saw_the_same_one_are_due_lease_it_once(scene: Scene) -> None:
    rotation = issued(scene)
    taken = [
        scene.database.run(lambda tx: hand_overs.lease(tx, rotation.id, scene.policy))
        for _ in range(2)
    ]
    assert taken[0] is not None
    assert taken[1] is None


def test_a_worker_that_dies_each_time_does_not_go_on_for_ever(scene: Scene) -> None:
    rotation = issued(scene)
    for _ in range(hand_overs.TRIES):
        leased(scene)
        scene.later(scene.policy.lease)
    assert lease(scene) is None
    assert row(scene, rotation)["state"] == "failed"
    assert scene.rotation(rotation).blocked_reason == "hand_over_failed"


def test_an_attempt_that_the_database_ended_is_given_back(scene: Scene) -> None:
    rotation = issued(scene)
    for _ in range(2 * hand_overs.TRIES):
        found = leased(scene)
        with scene.database.begin() as tx:
            hand_overs.give_back(tx, found)
    assert row(scene, rotation)["attempts"] == 0
    settle(scene, leased(scene), TAKEN)
    with scene.database.begin() as tx:
        hand_overs.give_back(tx, found)  # the answer of a settlement was lost
    assert row(scene, rotation)["state"] == "done"


def test_a_held_account_ends_the_hand_over(scene: Scene) -> None:
    shelf, rotation = Shelf(), issued(scene)
    scene.hold()
    assert work(scene, shelf) == 0
    assert (shelf.texts, row(scene, rotation)["state"]) == ({}, "skipped")
    assert not scene.rotation(rotation).claimable


def test_a_hold_that_came_and_went_ends_it_too(scene: Scene) -> None:
    shelf, rotation = Shelf(), issued(scene)
    scene.later(MINUTE)
    scene.hold()
    scene.later(MINUTE)
    scene.lift()
    assert work(scene, shelf) == 0
    assert shelf.texts == {}
    assert scene.rotation(rotation).cancel_reason == "account_held"


def test_a_hold_during_a_try_pauses_what_was_handed_over(scene: Scene) -> None:
    rotation = issued(scene)
    found = leased(scene)
    scene.hold()
    scene.advance()
    assert settle(scene, found, TAKEN)
    scene.later(HOUR)
    scene.lift()
    scene.advance()
    now = scene.rotation(rotation)
    assert (now.state, now.claimed_by) == ("issued", "sink:shelf")


@pytest.mark.parametrize("how", ["cancelled", "unclaimed", "old key deleted"])
def test_a_rotation_that_ended_hands_nothing_over(scene: Scene, how: str) -> None:
    shelf, rotation = Shelf(), issued(scene)
    if how == "cancelled":
        scene.cancel(rotation)
    elif how == "unclaimed":
        scene.later(3 * DAY)
    else:
        scene.delete(rotation.old_key_id)
    assert work(scene, shelf) == 0
    assert (shelf.texts, row(scene, rotation)["state"]) == ({}, "skipped")
    assert scene.rotation(rotation).state == "cancelled"


def test_a_missing_key_encryption_key_waits_for_a_person(scene: Scene) -> None:
    rotation = issued(scene)
    found = leased(scene)
    outcome = hand_overs.attempt(Shelf(), found, Sealer({2: b"x" * 32}))
    assert outcome.state == "failed"
    assert "bring its file back" in str(outcome.error)
    settle(scene, found, outcome)
    assert scene.rotation(rotation).blocked_reason == "hand_over_failed"


def test_messages_are_committed_with_the_receipt_and_once(scene: Scene) -> None:
    told = Told(channel=outbox.MAIL, kind="rotation.sealed", payload={"lines": ["x"]})
    shelf, rotation = Shelf(messages=[told]), issued(scene)
    first = leased(scene)
    scene.later(scene.policy.lease)
    second = leased(scene)
    settle(scene, first, hand_overs.attempt(shelf, first, scene.sealer))
    assert scene.mails("rotation.sealed") == []
    settle(scene, second, hand_overs.attempt(shelf, second, scene.sealer))
    assert scene.mails("rotation.sealed") == [{"lines": ["x"]}]
    [message] = scene.outgoing("rotation.sealed")
    assert message.account_id == rotation.account_id
    assert len(set(shelf.texts)) == 1


def test_a_promoting_sink_waits_for_the_confirmation(scene: Scene) -> None:
    shelf, rotation = TwoShelves(), issued(scene)
    assert work(scene, shelf) == 1
    assert row(scene, rotation)["state"] == "delivered"
    scene.later(HOUR)
    assert work(scene, shelf) == 0
    scene.use(rotation.new_key_id)
    scene.advance()
    assert work(scene, shelf) == 1
    assert shelf.promoted == [rotation.id]
    assert (row(scene, rotation)["state"], row(scene, rotation)["receipt"]) == ("done", "in front")
    assert ("rotation.promoted", "sink shelf: in front") in scene.audited(rotation)
    assert work(scene, shelf) == 0


def test_a_failed_promotion_keeps_the_old_key(scene: Scene) -> None:
    shelf, rotation = TwoShelves(promotion=BROKEN), issued(scene)
    work(scene, shelf)
    scene.use(rotation.new_key_id)
    scene.advance()
    work(scene, shelf)
    assert row(scene, rotation)["state"] == "failed"
    scene.later(8 * DAY)
    scene.advance()
    blocked = scene.rotation(rotation)
    assert (blocked.state, blocked.blocked_reason) == ("draining", "hand_over_failed")
    scene.database.run(lambda tx: hand_overs.retry(tx, rotation.id))
    assert row(scene, rotation)["state"] == "delivered"
    shelf.promotion = Outcome(state="taken", receipt="in front")
    work(scene, shelf)
    scene.later(MINUTE)
    scene.advance()
    assert scene.rotation(rotation).state == "retired"


def test_a_promotion_after_a_later_rotation_would_bring_the_old_key_back(scene: Scene) -> None:
    shelf = TwoShelves(promotion=BUSY)
    first = issued(scene)
    work(scene, shelf)
    scene.use(first.new_key_id)
    scene.advance()
    work(scene, shelf)
    now = scene.rotation(first)
    assert now.retire_at is not None
    scene.clock.move_to(now.retire_at)
    scene.advance()
    assert scene.rotation(first).state == "retired"
    shelf.promotion = Outcome(state="taken", receipt="in front")
    second = scene.request(first.new_key_id)
    found = leased(scene) if row(scene, first)["state"] == "waiting" else None
    assert found is None
    with scene.database.begin() as tx:  # the later one is put in front before the first is tried
        tx.execute(
            "UPDATE keyturn.hand_overs SET due_at = :later WHERE rotation_id = :id",
            id=first.id,
            later=scene.now() + HOUR,
        )
    work(scene, shelf)
    scene.use(second.new_key_id)
    scene.advance()
    work(scene, shelf)
    scene.later(HOUR)
    work(scene, shelf)
    assert shelf.promoted == [second.id]
    assert row(scene, first)["state"] == "skipped"
    assert "later rotation" in str(row(scene, first)["error"])


def test_a_promotion_ends_with_its_rotation(scene: Scene) -> None:
    shelf, rotation = TwoShelves(), issued(scene)
    work(scene, shelf)
    scene.delete(rotation.new_key_id)
    scene.advance()
    assert work(scene, shelf) == 0
    assert (shelf.promoted, row(scene, rotation)["state"]) == ([], "skipped")


def test_sinks_that_rest_are_passed_over(scene: Scene) -> None:
    rotation = issued(scene)
    database: Database = scene.database
    assert database.run(lambda tx: hand_overs.due(tx, {"shelf"})) is None
    assert database.run(lambda tx: hand_overs.due(tx, {"other"})) == rotation.id


def test_the_longest_due_comes_first(scene: Scene) -> None:
    first = issued(scene)
    scene.later(timedelta(seconds=1))
    issued(scene)
    assert leased(scene).hand_over.rotation_id == first.id


def test_nothing_shows_the_text(scene: Scene) -> None:
    shelf, rotation = Shelf(), issued(scene)
    found = leased(scene)
    outcome = hand_overs.attempt(shelf, found, scene.sealer)
    settle(scene, found, outcome)
    text = shelf.texts[rotation.id]
    assert text[3:30] not in f"{found!r} {outcome!r} {found.hand_over!r}"
    written = scene.sql("SELECT h::text AS it FROM keyturn.hand_overs h")
    written += scene.sql("SELECT a::text AS it FROM keyturn.audit a")
    assert not any(text[3:30] in one["it"] for one in written)
