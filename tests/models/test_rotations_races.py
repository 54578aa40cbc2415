"""Requests, claims and runs at the same time, in real transactions of their own."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier
from typing import TypeVar

from models import notices
from models.errors import Refused
from models.rotations import Claimed
from tests.eventually import eventually
from tests.models.notice_verbs import plan
from tests.models.scene import DAY, Scene

T = TypeVar("T")
THREADS = 5


def at_once(work: Callable[[int], T]) -> list[T]:
    """What `work` gives to each of THREADS threads that begin together."""
    barrier = Barrier(THREADS)

    def begin(number: int) -> T:
        barrier.wait(timeout=10)
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS)))


def test_concurrent_requests_are_one_rotation(scene: Scene) -> None:
    old = scene.key()
    rotations = at_once(lambda number: scene.request(old))
    assert len({rotation.id for rotation in rotations}) == 1
    assert len(scene.sql("SELECT FROM keyturn.api_keys")) == 2
    assert len(scene.mails("rotation.issued")) == 1


def test_concurrent_requests_with_idempotency_keys_are_one_rotation(scene: Scene) -> None:
    old = scene.key()
    rotations = at_once(lambda number: scene.request(old, f"ticket-{number % 2}"))
    assert len({rotation.id for rotation in rotations}) == 1
    assert len(scene.sql("SELECT FROM keyturn.api_keys")) == 2


def test_a_claim_race_has_one_winner_and_one_alarm(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    outcomes = at_once(lambda number: scene.claim(rotation.old_key_id))
    won = [outcome for outcome in outcomes if isinstance(outcome, Claimed)]
    codes = Counter(outcome.code for outcome in outcomes if not isinstance(outcome, Claimed))
    assert len(won) == 1
    assert codes == {"already_claimed": THREADS - 1}
    assert len(scene.mails("rotation.claimed_again")) == 1


def test_concurrent_runs_take_each_step_once(scene: Scene) -> None:
    rotations = [scene.draining() for _ in range(3)]
    scene.later(7 * DAY)
    at_once(lambda number: scene.advance())
    scene.advance()
    for rotation in rotations:
        assert scene.rotation(rotation).state == "retired"
        assert scene.audited(rotation).count(("rotation.retired", "quiet")) == 1
    assert sorted(scene.events("key.rotated")) == sorted(r.old_key_id for r in rotations)


def test_concurrent_operators_undo_once(scene: Scene) -> None:
    rotation = scene.retired()
    states = at_once(lambda number: scene.undo(rotation).state)
    assert set(states) == {"draining"}
    actions = [action for action, _ in scene.audited(rotation)]
    assert actions.count("rotation.undone") == 1
    assert scene.events("key.enabled") == [rotation.old_key_id]


def test_concurrent_operators_reissue_once(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    scene.claimed(rotation.old_key_id)
    issued = at_once(lambda number: scene.reissue(rotation).id)
    assert len(set(issued)) == 1
    assert len(scene.sql("SELECT FROM keyturn.api_keys")) == 3
    assert len(scene.mails("rotation.issued")) == 2


def test_concurrent_operators_confirm_once(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    scene.claimed(rotation.old_key_id)
    states = at_once(lambda number: scene.confirm(rotation).state)
    assert set(states) == {"draining"}
    assert len(scene.mails("rotation.confirmed")) == 1


def test_operators_who_want_different_things_at_once_do_not_both_get_them(scene: Scene) -> None:
    """One cancels, one confirms, one reissues: the family ends with a key, and one decision."""

    def decide(number: int) -> str:
        verb = (scene.cancel, scene.confirm, scene.reissue)[number % 3]
        try:
            return verb(rotation).state
        except Refused as refused:
            return refused.code

    for _ in range(5):
        rotation = scene.request(scene.key())
        scene.claimed(rotation.old_key_id)
        said = at_once(decide)
        ended = scene.rotation(rotation)
        decided = {"cancelled": 0, "confirmed": 1}
        actions = [action.removeprefix("rotation.") for action, _ in scene.audited(rotation)]
        assert sum(actions.count(one) for one in decided) == 1, (actions, said)
        family = scene.sql(
            "SELECT count(*) FILTER (WHERE deleted_at IS NULL) AS left FROM keyturn.api_keys"
            " WHERE family_id = :family",
            family=rotation.family_id,
        )
        reissued = ended.reissued_as is not None
        assert family[0]["left"] == (1 if ended.state == "cancelled" and not reissued else 2)


def test_an_undo_and_runs_at_once_leave_both_keys(scene: Scene) -> None:
    rotation = scene.retired()
    at_once(lambda number: scene.undo(rotation) if number == 0 else scene.advance())
    assert scene.rotation(rotation).state == "draining"
    assert scene.find_key(rotation.old_key_id).status == "active"


def test_concurrent_runs_warn_once(scene: Scene) -> None:
    for _ in range(3):
        scene.draining()
    scene.later(6 * DAY)
    at_once(lambda number: scene.advance())
    scene.advance()
    told = [
        one["rotation_id"] for mail in scene.mails("rotation.ending") for one in mail["rotations"]
    ]
    assert len(told) == len(set(told)) == 3


def test_no_secret_outlives_a_hold_that_came_with_the_request(scene: Scene) -> None:
    keys = [scene.key() for _ in range(THREADS - 1)]

    def work(number: int) -> None:
        if number == 0:
            scene.hold()
            return
        with suppress(Refused):
            scene.request(keys[number - 1])

    at_once(work)
    scene.advance()
    assert scene.sql("SELECT FROM keyturn.rotations WHERE sealed IS NOT NULL") == []
    assert {scene.refusal(key) for key in keys} <= {"account_held", "no_rotation"}


def test_two_planners_make_one_notice_and_one_message(scene: Scene) -> None:
    for _ in range(20):
        scene.key(90 * DAY)
    scene.later(60 * DAY)

    def work(number: int) -> None:
        after, finished = None, False
        while not finished:
            with scene.database.begin() as tx:
                page = notices.plan(tx, scene.policy, after)
            after, finished = page.after, page.finished
        scene.database.run(lambda tx: notices.post(tx, scene.policy))

    at_once(work)
    assert len(scene.sql("SELECT FROM keyturn.notices")) == 20
    keys = [key["id"] for mail in scene.mails("notice.expiring") for key in mail["keys"]]
    assert len(keys) == len(set(keys)) == 20


def test_a_second_poster_waits_and_finds_nothing_left(scene: Scene) -> None:
    scene.key(90 * DAY)
    scene.later(60 * DAY)
    plan(scene, post=False)

    def post() -> int:
        return scene.database.run(lambda tx: notices.post(tx, scene.policy)).changed

    def waits() -> list[object]:
        return scene.sql("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'")

    with ThreadPoolExecutor(1) as pool:
        with scene.database.begin() as tx:
            assert notices.post(tx, scene.policy).changed == 1
            second = pool.submit(post)
            eventually(waits)
        assert second.result(timeout=10) == 0
    assert len(scene.mails("notice.expiring")) == 1
