"""A key that others know stops at once; what follows may fail alone, and is done once (5.9)."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from models import accounts, compromise, holds, inbox, invariants
from models.account_events import apply_claimed, claim
from models.base import Tx
from models.compromise import Compromise, Replacement
from models.errors import Refused
from models.events import AccountEvent, Action
from models.holds import Cause
from models.inbox import Received, Source
from models.policy import Policy
from models.rotation_policy import DEFAULT, RotationPolicy
from models.rotations import Rotation
from models.verification import Verifier
from tests.models.scene import DAY, HOUR, MINUTE, OWNER, Scene
from tests.world import event

ISSUE = RotationPolicy(on_compromise="hold_and_issue")


class Leaks:
    """What is done about keys that others know, at a scene."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.alarms: list[dict[str, object]] = []
        self.rings: set[str] = set()
        scene.database.on_alarm = self.alarms.append
        scene.database.on_commit = self.rings.update

    def stop(self, key: UUID, *, issue: bool = True) -> bool:
        """An operator stops a key."""

        def stop(tx: Tx) -> bool:
            holds.lock_accounts(tx, [self.scene.owner])
            cause = Cause(source="operator", kind="compromised", actor="op")
            return compromise.stop(tx, key, cause, issue=issue, policy=self.scene.policy)

        return self.scene.database.run(stop)

    def follow(self, key: UUID) -> Compromise:
        return self.scene.database.run(
            lambda tx: compromise.follow(
                tx,
                key,
                policy=self.scene.policy,
                sealer=self.scene.sealer,
                peppers=self.scene.peppers,
            )
        )

    def fetch(self, key: UUID) -> Replacement:
        got = self.scene.database.run(
            lambda tx: compromise.fetch(tx, key, actor="op", sealer=self.scene.sealer)
        )
        self.scene.texts[got.rotation.new_key_id] = got.secret
        return got

    def replaced(self, key: UUID) -> Rotation:
        """All of it, as one command does it."""
        self.stop(key)
        self.follow(key)
        return self.fetch(key).rotation

    def report(self, key: UUID) -> None:
        """A scanner's report of a key comes in and is applied."""
        digest = hashlib.sha256(self.scene.texts[key].reveal().encode()).hexdigest()
        said = AccountEvent(action=Action.KEY_LEAKED, key_digest=digest, raw_type="key.leaked")
        self.receive(said)

    def receive(self, said: AccountEvent) -> None:
        scene = self.scene
        source = Source("okta", "okta")
        number = scene.sql("SELECT count(*) AS n FROM keyturn.inbox")[0]["n"]
        received = [Received(f"d{number}", said, {}, b"")]
        scene.database.run(lambda tx: inbox.accept(tx, source, received))
        claimed = scene.database.run(lambda tx: claim(tx, scene.policy))
        apply_claimed(scene.database, claimed, scene.policy, scene.peppers)

    def due(self) -> list[UUID]:
        with self.scene.database.begin() as tx:
            return list(compromise.due(tx))

    def holds(self, key: UUID) -> list[tuple[str, str]]:
        with self.scene.database.begin() as tx:
            return [(one.source, one.kind) for one in holds.standing(tx, holds.on_key(key))]

    def works(self, key: UUID) -> bool:
        verifier = Verifier(self.scene.database, self.scene.peppers)
        try:
            return verifier.verify(self.scene.texts[key].reveal())[0].valid
        finally:
            verifier.close()

    def keys(self) -> int:
        found: int = self.scene.sql("SELECT count(*) AS n FROM keyturn.api_keys")[0]["n"]
        return found


@pytest.fixture
def leaks(scene: Scene) -> Iterator[Leaks]:
    """Every promise is kept in the end."""
    yield Leaks(scene)
    scene.sql("UPDATE keyturn.outbox SET state = 'sent', settled_at = :now RETURNING 1")
    assert invariants.check(scene.database, scene.policy, full=True) == []


def policy(one: RotationPolicy, name: str = DEFAULT) -> Policy:
    return Policy(rotation_policies={DEFAULT: RotationPolicy(), name: one})


# By command


def test_the_key_is_stopped_before_anything_is_issued(scene: Scene, leaks: Leaks) -> None:
    key = scene.key()
    assert leaks.stop(key)
    assert not leaks.works(key)
    assert leaks.holds(key) == [("operator", "compromised")]
    assert leaks.keys() == 1
    assert leaks.due() == [key]
    assert compromise.FLOW in leaks.rings
    assert [one["alarm"] for one in leaks.alarms] == ["key_compromised"]
    [mail] = scene.mails("key.compromised")
    assert (mail["key"]["id"], mail["issue"]) == (str(key), True)


def test_its_successor_is_shown_once_to_the_operator(scene: Scene, leaks: Leaks) -> None:
    key = scene.key(30 * DAY, ips=["192.0.2.0/24"])
    rotation = leaks.replaced(key)
    new = scene.find_key(rotation.new_key_id)
    assert (rotation.reason, rotation.old_key_id) == ("compromised", key)
    assert (new.status, new.allowed_ips) == ("active", ["192.0.2.0/24"])
    assert new.expires_at - new.created_at == 30 * DAY
    assert new.family_id == scene.find_key(key).family_id
    [row] = scene.sql("SELECT sealed, claimed_at FROM keyturn.rotations")
    assert row["sealed"] is None
    assert row["claimed_at"] is not None
    with pytest.raises(Refused) as refused:
        leaks.fetch(key)
    assert refused.value.code == "already_handed_over"


def test_who_holds_the_stopped_key_cannot_claim_with_it(scene: Scene, leaks: Leaks) -> None:
    key = scene.key()
    leaks.stop(key)
    leaks.follow(key)
    assert scene.refusal(key) == "key_compromised"
    leaks.fetch(key)
    assert scene.refusal(key) in ("key_compromised", "already_claimed")


def test_asked_again_there_is_no_second_successor(scene: Scene, leaks: Leaks) -> None:
    key = scene.key()
    rotation = leaks.replaced(key)
    assert not leaks.stop(key)
    assert leaks.due() == []
    assert leaks.follow(key).rotation_id == rotation.id
    assert leaks.keys() == 2
    assert len(scene.mails("key.compromised")) == 1


def test_a_lost_answer_between_the_steps_is_made_good_by_asking_again(
    scene: Scene, leaks: Leaks
) -> None:
    key = scene.key()
    leaks.stop(key)
    leaks.stop(key)
    leaks.follow(key)
    leaks.stop(key)
    leaks.follow(key)
    assert leaks.fetch(key).rotation.old_key_id == key
    assert leaks.keys() == 2


def test_the_successor_confirmed_ends_the_stopped_key(scene: Scene, leaks: Leaks) -> None:
    key = scene.key()
    rotation = leaks.replaced(key)
    scene.later(MINUTE)
    scene.use(rotation.new_key_id)
    scene.advance()
    assert scene.rotation(rotation).state == "completed"
    assert scene.find_key(key).status == "deleted"
    assert leaks.works(rotation.new_key_id)


def test_what_keeps_a_successor_from_being_issued_leaves_the_hold(
    scene: Scene, leaks: Leaks
) -> None:
    key = scene.key(30 * MINUTE)
    leaks.stop(key)
    assert leaks.follow(key).outcome == "too_short_lived"
    assert not leaks.works(key)
    assert leaks.alarms[-1]["alarm"] == "compromised_key_not_replaced"
    with pytest.raises(Refused) as refused:
        leaks.fetch(key)
    assert refused.value.code == "too_short_lived"


def test_a_role_that_came_back_is_issued_when_asked_again(scene: Scene, leaks: Leaks) -> None:
    key = scene.key()
    scene.sql("UPDATE keyturn.roles SET grantable = false WHERE name = 'reader' RETURNING 1")
    leaks.stop(key)
    assert leaks.follow(key).outcome == "role_not_allowed"
    scene.sql("UPDATE keyturn.roles SET grantable = true WHERE name = 'reader' RETURNING 1")
    leaks.stop(key)
    assert leaks.follow(key).outcome == "issued"


def test_a_deleted_key_is_left_alone(scene: Scene, leaks: Leaks) -> None:
    key = scene.key()
    scene.delete(key)
    leaks.report(key)
    assert scene.find_key(key).status == "deleted"
    assert leaks.due() == []


# Rotations of the family


def test_an_unclaimed_successor_is_withdrawn_for_a_new_one(scene: Scene, leaks: Leaks) -> None:
    before = scene.request(scene.key())
    rotation = leaks.replaced(before.old_key_id)
    assert scene.rotation(before).cancel_reason == "key_compromised"
    assert scene.find_key(before.new_key_id).status == "deleted"
    assert rotation.new_key_id != before.new_key_id


def test_a_claimed_one_that_nobody_uses_is_withdrawn_too(scene: Scene, leaks: Leaks) -> None:
    """Whoever knows the leaked key may have claimed it."""
    before = scene.request(scene.key())
    scene.claimed(before.old_key_id)
    leaks.replaced(before.old_key_id)
    assert not leaks.works(before.new_key_id)


def test_one_in_use_works_on_and_no_other_is_issued(scene: Scene, leaks: Leaks) -> None:
    rotation = scene.draining()
    leaks.stop(rotation.old_key_id)
    assert leaks.follow(rotation.old_key_id).outcome == "already_replaced"
    assert leaks.works(rotation.new_key_id)
    assert not leaks.works(rotation.old_key_id)
    assert leaks.keys() == 2
    scene.advance()
    assert scene.rotation(rotation).state == "completed"


def test_one_in_use_that_two_asked_for_is_stopped_as_well(scene: Scene, leaks: Leaks) -> None:
    rotation = scene.draining()
    assert scene.refusal(rotation.old_key_id) == "already_claimed"
    leaks.replaced(rotation.old_key_id)
    assert not leaks.works(rotation.new_key_id)
    assert scene.rotation(rotation).cancel_reason == "key_compromised"


def test_a_leaked_successor_goes_and_its_predecessor_works_on(scene: Scene, leaks: Leaks) -> None:
    rotation = scene.draining()
    leaks.stop(rotation.new_key_id)
    assert leaks.follow(rotation.new_key_id).outcome == "issued"
    assert leaks.works(rotation.old_key_id)
    assert not leaks.works(rotation.new_key_id)
    got = leaks.fetch(rotation.new_key_id)
    assert got.rotation.old_key_id == rotation.old_key_id
    assert scene.rotation(rotation).state == "cancelled"


def test_a_leaked_successor_of_a_leaked_key_is_replaced_for_that_one(
    scene: Scene, leaks: Leaks
) -> None:
    key = scene.key()
    first = leaks.replaced(key)
    second = leaks.replaced(first.new_key_id)
    assert (second.old_key_id, second.reason) == (key, "compromised")
    assert leaks.works(second.new_key_id)
    assert not leaks.works(first.new_key_id)


def test_what_is_due_at_one_instant_always_comes_in_the_same_order(
    scene: Scene, leaks: Leaks
) -> None:
    """Whichever was written down first: which key of a family gets a successor hangs on it."""
    rotation = scene.draining()
    first, second = sorted((rotation.old_key_id, rotation.new_key_id))
    leaks.stop(second)
    leaks.stop(first)
    assert leaks.due() == [first, second]


def test_retired_keys_of_the_family_are_held_too_and_there_is_no_undo(
    scene: Scene, leaks: Leaks
) -> None:
    retired = scene.retired()
    leaks.stop(retired.new_key_id)
    assert ("operator", "compromised") in leaks.holds(retired.old_key_id)
    leaks.follow(retired.new_key_id)
    assert leaks.works(leaks.fetch(retired.new_key_id).rotation.new_key_id)


def test_a_leaked_retired_key_never_stops_those_who_changed_over(
    scene: Scene, leaks: Leaks
) -> None:
    retired = scene.retired()
    leaks.report(retired.old_key_id)
    assert leaks.holds(retired.old_key_id)[-1] == ("okta", "compromised")
    leaks.follow(retired.old_key_id)
    assert leaks.works(retired.new_key_id)
    assert scene.rotation(retired).state == "retired"


# By events


def test_a_report_stops_the_key_and_issues_nothing_by_default(scene: Scene, leaks: Leaks) -> None:
    key = scene.key()
    leaks.report(key)
    assert not leaks.works(key)
    assert leaks.follow(key).outcome == "held"
    assert leaks.keys() == 1
    [mail] = scene.mails("key.compromised")
    assert not mail["issue"]
    with pytest.raises(Refused) as refused:
        leaks.fetch(key)
    assert refused.value.code == "not_issued"


def test_a_second_reporter_is_written_down_and_tells_nobody_again(
    scene: Scene, leaks: Leaks
) -> None:
    key = scene.key()
    leaks.report(key)
    assert leaks.stop(key)
    assert leaks.holds(key) == [("okta", "compromised"), ("operator", "compromised")]
    assert len(scene.mails("key.compromised")) == 1


def test_a_report_withdraws_what_nobody_fetched(scene: Scene, leaks: Leaks) -> None:
    rotation = scene.request(scene.key())
    leaks.report(rotation.old_key_id)
    leaks.follow(rotation.old_key_id)
    assert scene.rotation(rotation).state == "cancelled"


@pytest.mark.parametrize("at", ["roles", "accounts", "api_keys"])
def test_the_policy_of_the_key_its_account_or_its_role_has_one_issued(
    scene: Scene, leaks: Leaks, at: str
) -> None:
    scene.policy = policy(ISSUE, "eager")
    key = scene.key()
    scene.sql(f"UPDATE keyturn.{at} SET rotation_policy = 'eager' RETURNING 1")
    leaks.report(key)
    assert leaks.follow(key).outcome == "issued"
    [row] = scene.sql("SELECT sealed IS NOT NULL AS waits, claimed_at FROM keyturn.rotations")
    assert row["waits"]
    assert scene.refusal(key) == "key_compromised"
    leaks.stop(key)  # an operator asks: it is that one
    assert leaks.works(leaks.fetch(key).rotation.new_key_id)
    assert leaks.keys() == 2


def test_an_operator_may_have_one_issued_after_a_mere_hold(scene: Scene, leaks: Leaks) -> None:
    key = scene.key()
    leaks.report(key)
    leaks.follow(key)
    leaks.replaced(key)
    assert leaks.keys() == 2


def test_an_operator_who_is_quicker_than_the_flow_still_gets_one(
    scene: Scene, leaks: Leaks
) -> None:
    key = scene.key()
    leaks.report(key)
    leaks.replaced(key)
    assert leaks.keys() == 2


def test_a_successor_that_nobody_fetched_in_time_is_issued_anew_when_asked(
    scene: Scene, leaks: Leaks
) -> None:
    scene.policy = policy(ISSUE)
    key = scene.key()
    leaks.report(key)
    leaks.follow(key)
    scene.later(scene.policy.sealed_for)
    scene.advance()
    leaks.replaced(key)
    assert leaks.keys() == 3


@pytest.mark.parametrize("held", [False, True])
def test_an_overdue_successor_is_handed_to_nobody_even_if_no_flow_has_withdrawn_it_yet(
    scene: Scene, leaks: Leaks, held: bool
) -> None:
    """Its three days are over, or its account was held and is free again (rules 5.7 and 5.8)."""
    scene.policy = policy(ISSUE)
    key = scene.key()
    leaks.report(key)
    overdue = leaks.follow(key).rotation_id
    if held:
        scene.hold()
        scene.later(HOUR)
        scene.lift()
    else:
        scene.later(scene.policy.sealed_for)
    got = leaks.replaced(key)
    assert got.id != overdue
    assert leaks.works(got.new_key_id)
    [withdrawn] = scene.sql(f"SELECT state FROM keyturn.rotations WHERE id = '{overdue}'")
    assert withdrawn["state"] == "cancelled"


def test_a_compromised_account_is_held_and_nothing_is_issued_for_its_keys(
    scene: Scene, leaks: Leaks
) -> None:
    """Not even afterwards: who enables the account says that its keys are good."""
    scene.policy = policy(ISSUE)
    key = scene.key()
    leaks.receive(event(Action.COMPROMISED, OWNER))
    assert not leaks.works(key)
    assert leaks.holds(key) == []
    assert leaks.due() == []
    _enable(scene)
    assert leaks.works(key)
    assert leaks.keys() == 1


def test_a_key_stopped_while_its_account_is_held_gets_its_successor_afterwards(
    scene: Scene, leaks: Leaks
) -> None:
    key = scene.key()
    leaks.receive(event(Action.COMPROMISED, OWNER))
    leaks.stop(key)
    assert leaks.due() == []
    with pytest.raises(Refused) as refused:
        leaks.follow(key)
    assert refused.value.code == "account_held"
    _enable(scene)
    assert leaks.due() == [key]
    assert leaks.follow(key).outcome == "issued"
    assert not leaks.works(key)


def _enable(scene: Scene) -> None:
    with scene.database.begin() as tx:
        holds.lock_accounts(tx, [scene.owner])
        cause = Cause(source="okta", kind="compromised", actor="op")
        assert holds.lift(tx, holds.on_account(scene.owner), cause, scene.policy)
    with scene.database.begin() as tx:
        assert not accounts.find(tx, OWNER).held
    from models import settle

    while not scene.database.run(lambda tx: settle.accounts(tx, scene.policy)).finished:
        pass


def test_what_fails_is_put_off_longer_each_time_and_told(scene: Scene, leaks: Leaks) -> None:
    key = scene.key()
    leaks.stop(key)
    pauses = []
    for _ in range(8):
        scene.database.run(lambda tx: compromise.put_off(tx, key, "OSError"))
        [row] = scene.sql("SELECT next_attempt_at - :now AS pause FROM keyturn.compromises")
        pauses.append(row["pause"].total_seconds())
    assert pauses == [10, 20, 40, 80, 160, 320, 600, 600]
    assert leaks.due() == []
    assert leaks.alarms[-1]["why"] == "OSError"
    scene.later(HOUR)
    assert leaks.due() == [key]
    leaks.follow(key)


def test_one_that_fails_stops_no_other(
    scene: Scene, leaks: Leaks, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = scene.key(), scene.key()
    for key in (bad, good):
        leaks.stop(key)
    follow = compromise.follow

    def fail(tx: Tx, key_id: UUID, **more: Any) -> Compromise:
        if key_id == bad:
            raise OSError
        return follow(tx, key_id, **more)

    def run() -> int:
        return compromise.follow_due(
            scene.database, scene.policy, scene.sealer, scene.peppers
        ).changed

    with monkeypatch.context() as broken:
        broken.setattr(compromise, "follow", fail)
        assert run() == 2
    assert [leaks.works(key) for key in (bad, good)] == [False, False]
    assert leaks.fetch(good).rotation.old_key_id == good
    assert (leaks.alarms[-1]["key"], leaks.alarms[-1]["why"]) == (str(bad), "OSError")
    scene.later(MINUTE)
    assert run() == 1
    assert leaks.fetch(bad).rotation.old_key_id == bad


def test_policies_differ_from_key_to_key(scene: Scene, leaks: Leaks) -> None:
    scene.policy = replace(policy(ISSUE, "eager"))
    eager, calm = scene.key(name="eager"), scene.key(name="calm")
    scene.sql("UPDATE keyturn.api_keys SET rotation_policy = name WHERE name = 'eager' RETURNING 1")
    for key in (eager, calm):
        leaks.report(key)
    assert [leaks.follow(key).outcome for key in (eager, calm)] == ["issued", "held"]
