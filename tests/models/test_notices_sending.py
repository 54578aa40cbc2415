"""The truth is read again when a notice is sent (rule 4.3)."""

from dataclasses import replace
from uuid import uuid4

import pytest

from models import outbox
from models.messages import Outgoing
from models.notices import EXPIRED, EXPIRING
from tests.models.notice_verbs import deliver, ledger, names, plan, reasons, refresh, states
from tests.models.scene import DAY, HOUR, OWNER, Scene


def test_delivered_notices_are_sent(scene: Scene) -> None:
    key = scene.key(90 * DAY)
    scene.later(60 * DAY)
    plan(scene)
    [message] = deliver(scene)
    assert (message.kind, message.recipient) == (EXPIRING, OWNER)
    assert states(scene, key) == {30 * DAY: "sent"}


def test_a_message_that_failed_for_good_fails_its_notices_and_the_next_still_comes(
    scene: Scene,
) -> None:
    key = scene.key(90 * DAY)
    scene.later(60 * DAY)
    plan(scene)
    deliver(scene, "failed", "550 no such mailbox")
    assert states(scene, key) == {30 * DAY: "failed"}
    assert reasons(scene, key) == {30 * DAY: "550 no such mailbox"}
    scene.later(23 * DAY)
    assert plan(scene) == 1


def test_a_message_to_be_tried_again_leaves_its_notices_planned(scene: Scene) -> None:
    key = scene.key(90 * DAY)
    scene.later(60 * DAY)
    plan(scene)
    deliver(scene, "retry", "451 later")
    assert states(scene, key) == {30 * DAY: "planned"}
    scene.later(HOUR)
    assert len(deliver(scene)) == 1
    assert states(scene, key) == {30 * DAY: "sent"}


def test_a_message_given_up_fails_its_notices(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "GIVE_UP_AFTER", 1)
    key = scene.key(90 * DAY)
    scene.later(60 * DAY)
    plan(scene)
    deliver(scene, "retry", "451 later")
    assert states(scene, key) == {30 * DAY: "failed"}


def test_the_recipient_is_read_at_sending(scene: Scene) -> None:
    scene.key(90 * DAY)
    scene.later(60 * DAY)
    plan(scene)
    scene.sql(
        "UPDATE keyturn.accounts SET email = 'new@example.com' WHERE id = :id RETURNING id",
        id=scene.owner,
    )
    [message] = deliver(scene)
    assert message.recipient == "new@example.com"
    assert message.payload["account"] == "new@example.com"


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        ("key_held", "skipped"),
        ("account_held", "skipped"),
        ("replaced", "skipped"),
        ("key_deleted", "skipped"),
        ("key_expired", "skipped"),
        ("superseded", "superseded"),
    ],
)
def test_what_is_no_longer_true_is_not_sent(scene: Scene, reason: str, state: str) -> None:
    key = scene.key(90 * DAY)
    scene.later(60 * DAY)
    plan(scene)
    match reason:
        case "key_held":
            scene.hold(key=key)
        case "account_held":
            scene.hold()
        case "replaced":
            scene.request(key)
        case "key_deleted":
            scene.delete(key)
        case "key_expired":
            scene.later(31 * DAY)
        case "superseded":
            scene.later(23 * DAY)
            plan(scene, post=False)
    assert EXPIRING not in [message.kind for message in deliver(scene)]
    [row] = scene.sql("SELECT state, error FROM keyturn.outbox WHERE kind = :kind", kind=EXPIRING)
    assert (row["state"], row["error"]) == ("skipped", reason)
    assert states(scene, key)[30 * DAY] == state


def test_an_expired_message_goes_out_although_the_key_has_expired(scene: Scene) -> None:
    scene.key(2 * DAY)
    scene.later(2 * DAY)
    plan(scene)
    assert [message.kind for message in deliver(scene)] == [EXPIRED]


def test_only_what_is_still_true_stays_in_the_message(scene: Scene) -> None:
    keys = [scene.key(90 * DAY, name=f"key {number}") for number in range(3)]
    scene.later(60 * DAY)
    plan(scene)
    scene.delete(keys[1])
    [message] = deliver(scene)
    assert sorted(names(message.payload)) == ["key 0", "key 2"]
    assert message.payload["total"] == 2
    assert [states(scene, key)[30 * DAY] for key in keys] == ["sent", "skipped", "sent"]


def test_a_place_that_became_free_names_another_key(scene: Scene) -> None:
    scene.policy = replace(scene.policy, notice_keys=2)
    keys = [scene.key(days * DAY, name=f"{days} days") for days in (61, 62, 63)]
    scene.later(60 * DAY)
    plan(scene)
    scene.delete(keys[0])
    [message] = deliver(scene)
    assert names(message.payload) == ["62 days", "63 days"]


def test_messages_of_other_kinds_pass_as_they_are(scene: Scene) -> None:
    other = Outgoing(
        id=uuid4(),
        kind="rotation.issued",
        account_id=scene.owner,
        payload={"a": 1},
        recipient=OWNER,
        created_at=scene.now(),
    )
    assert refresh(scene, [other]) == ([other], {})


def test_order_of_messages_is_kept(scene: Scene) -> None:
    scene.key(2 * DAY)
    scene.key(32 * DAY)
    scene.later(2 * DAY)
    plan(scene)
    with scene.database.begin() as tx:
        leased = outbox.lease(tx, "mail", scene.policy)
    messages, _ = refresh(scene, list(leased.messages))
    assert [message.id for message in messages] == [message.id for message in leased.messages]


def test_listed_by_account_and_state(scene: Scene) -> None:
    bob = scene.account("bob@example.com")
    scene.key(90 * DAY)
    scene.key(90 * DAY, account=bob)
    scene.later(84 * DAY)
    plan(scene)
    assert {n.account for n in ledger(scene, account_id=bob)} == {"bob@example.com"}
    assert {n.threshold for n in ledger(scene, state="planned")} == {7 * DAY}
    assert len(ledger(scene, state="superseded")) == 2
