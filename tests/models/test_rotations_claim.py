"""The hand-over of the successor to whoever holds the old key (rule 5.3)."""

import pytest

from models import rotations
from models.key_text import mint, parse
from models.rotations import Claimed
from models.sealing import BrokenSeal
from tests.models.scene import DAY, HOUR, MINUTE, Scene


def test_the_old_key_fetches_the_new_one(scene: Scene) -> None:
    rotation = scene.request(scene.key(name="ci"))
    claimed = scene.claimed(rotation.old_key_id)
    new = scene.find_key(rotation.new_key_id)
    assert parse(claimed.secret.reveal()) is not None
    assert claimed.secret.reveal().endswith(new.hint)
    assert (claimed.key_id, claimed.name, claimed.expires_at) == (new.id, "ci", new.expires_at)
    assert claimed.rotation_id == rotation.id
    assert claimed.secret.reveal() not in repr(claimed)


def test_white_space_around_the_old_key_is_forgiven(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    text = scene.texts[rotation.old_key_id].reveal()
    assert isinstance(scene.claim(f" {text}\n"), Claimed)


def test_the_sealed_secret_goes_at_the_claim(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    scene.claimed(rotation.old_key_id)
    [row] = scene.sql("SELECT sealed, sealed_kek, claimed_at, state FROM keyturn.rotations")
    assert (row["sealed"], row["sealed_kek"]) == (None, None)
    assert (row["claimed_at"], row["state"]) == (scene.now(), "issued")
    assert ("rotation.claimed", "by the holder of the old key") in scene.audited(rotation)


def test_a_claim_that_is_rolled_back_can_be_made_again(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    with scene.database.begin() as tx:
        outcome = rotations.claim(
            tx,
            scene.texts[rotation.old_key_id].reveal(),
            actor="holder",
            policy=scene.policy,
            sealer=scene.sealer,
            peppers=scene.peppers,
        )
        assert isinstance(outcome, Claimed)
        tx.connection.rollback()
    assert scene.claimed(rotation.old_key_id).secret == outcome.secret


def test_a_second_claim_is_refused_and_an_alarm(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    scene.claimed(rotation.old_key_id)
    assert scene.refusal(rotation.old_key_id) == "already_claimed"
    assert ("rotation.claimed_again", "by a holder of the old key") in scene.audited(rotation)
    [mail] = scene.mails("rotation.claimed_again")
    assert mail["key"]["id"] == str(rotation.old_key_id)
    assert mail["successor"]["id"] == str(rotation.new_key_id)
    [row] = scene.sql("SELECT priority FROM keyturn.outbox WHERE kind = 'rotation.claimed_again'")
    assert row["priority"] == 1


def test_a_loop_of_claims_is_one_mail_an_hour_and_all_audited(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    scene.claimed(rotation.old_key_id)
    for _ in range(3):
        scene.refusal(rotation.old_key_id)
        scene.later(MINUTE)
    assert len(scene.mails("rotation.claimed_again")) == 1
    scene.later(HOUR)
    scene.refusal(rotation.old_key_id)
    assert len(scene.mails("rotation.claimed_again")) == 2
    actions = [action for action, _ in scene.audited(rotation)]
    assert actions.count("rotation.claimed_again") == 4


def test_a_second_claim_with_a_retired_or_deleted_key_is_an_alarm_too(scene: Scene) -> None:
    rotation = scene.retired()
    assert scene.refusal(rotation.old_key_id) == "already_claimed"
    scene.later(8 * DAY)
    scene.advance()
    assert scene.find_key(rotation.old_key_id).status == "deleted"
    assert scene.refusal(rotation.old_key_id) == "already_claimed"
    assert len(scene.mails("rotation.claimed_again")) == 2


def test_accepted_after_the_old_key_has_expired(scene: Scene) -> None:
    old = scene.key(30 * DAY)
    scene.later(29 * DAY)
    scene.request(old)
    scene.later(2 * DAY)
    scene.advance()
    assert isinstance(scene.claim(old), Claimed)


def test_accepted_while_the_old_key_is_held_for_another_reason(scene: Scene) -> None:
    old = scene.key()
    scene.request(old)
    scene.hold(key=old, kind="disabled")
    assert isinstance(scene.claim(old), Claimed)


def test_accepted_after_the_old_key_was_retired(scene: Scene) -> None:
    old = scene.key()
    scene.request(old)
    scene.hold(key=old, kind="rotated")
    assert scene.find_key(old).status == "retired"
    assert isinstance(scene.claim(old), Claimed)


def test_refused_while_the_old_key_is_compromised(scene: Scene) -> None:
    old = scene.key()
    scene.request(old)
    scene.hold(key=old, kind="compromised")
    assert scene.refusal(old) == "key_compromised"
    scene.lift(key=old, kind="compromised")
    assert isinstance(scene.claim(old), Claimed)


def test_refused_once_the_old_key_is_deleted(scene: Scene) -> None:
    old = scene.key()
    scene.request(old)
    scene.delete(old)
    assert scene.refusal(old) == "key_deleted"
    scene.advance()
    assert scene.refusal(old) == "key_deleted"


def test_refused_while_the_account_is_held(scene: Scene) -> None:
    old = scene.key()
    rotation = scene.request(old)
    scene.hold()
    assert scene.refusal(old) == "account_held"
    assert scene.rotation(rotation).claimed_at is None


@pytest.mark.parametrize("text", ["", "nonsense", "kt_" + "0" * 33])
def test_refused_for_what_is_no_key(scene: Scene, text: str) -> None:
    assert scene.refusal(text) == "key_unknown"


def test_refused_for_a_key_that_nobody_has(scene: Scene) -> None:
    assert scene.refusal(mint("kt").reveal()) == "key_unknown"


def test_refused_without_a_rotation(scene: Scene) -> None:
    assert scene.refusal(scene.key()) == "no_rotation"


def test_the_new_key_fetches_nothing(scene: Scene) -> None:
    old = scene.key()
    scene.request(old)
    claimed = scene.claimed(old)
    assert scene.refusal(claimed.key_id) == "no_rotation"


def test_refused_past_the_end_of_the_secret_whether_or_not_a_run_came(scene: Scene) -> None:
    old = scene.key()
    scene.request(old)
    scene.later(72 * HOUR - MINUTE)
    scene.later(MINUTE)
    assert scene.refusal(old) == "secret_gone"
    scene.advance()
    assert scene.refusal(old) == "secret_gone"


def test_accepted_until_the_last_moment(scene: Scene) -> None:
    old = scene.key()
    scene.request(old)
    scene.later(72 * HOUR - MINUTE)
    assert isinstance(scene.claim(old), Claimed)


def test_refused_once_cancelled(scene: Scene) -> None:
    old = scene.key()
    rotation = scene.request(old)
    scene.cancel(rotation)
    assert scene.refusal(old) == "rotation_cancelled"


def test_no_text_of_a_deleted_successor_is_shown(scene: Scene) -> None:
    old = scene.key()
    rotation = scene.request(old)
    scene.delete(rotation.new_key_id)
    assert scene.refusal(old) == "rotation_cancelled"


def test_the_latest_rotation_of_a_key_counts(scene: Scene) -> None:
    old = scene.key()
    scene.cancel(scene.request(old))
    scene.later(MINUTE)
    second = scene.request(old)
    assert scene.claimed(old).rotation_id == second.id


def test_what_is_in_use_is_shown_no_more(scene: Scene) -> None:
    old = scene.key()
    rotation = scene.request(old)
    scene.use(rotation.new_key_id)
    scene.advance()
    assert scene.refusal(old) == "secret_gone"


def test_a_secret_sealed_for_another_rotation_stays_shut_and_unclaimed(scene: Scene) -> None:
    first, second = scene.request(scene.key()), scene.request(scene.key())
    scene.sql(
        """
        UPDATE keyturn.rotations r SET sealed = other.sealed FROM keyturn.rotations other
        WHERE r.id = :first AND other.id = :second RETURNING r.id
        """,
        first=first.id,
        second=second.id,
    )
    with pytest.raises(BrokenSeal):
        scene.claim(first.old_key_id)
    assert scene.rotation(first).claimed_at is None
