"""No key falls between two runs of `notices.plan`, each of which looks at what came due since."""

from dataclasses import replace
from datetime import timedelta

from tests.models.notice_verbs import plan, states
from tests.models.scene import DAY, HOUR, MINUTE, START, Scene

SECOND = timedelta(seconds=1)


def test_a_key_whose_creation_was_committed_after_the_run_that_passed_it(scene: Scene) -> None:
    """It was made before that run, and seen by none until now."""
    scene.policy = replace(scene.policy, notice_thresholds=(30 * SECOND,))
    assert plan(scene) == 0  # looks at all
    scene.later(MINUTE)
    assert plan(scene) == 0
    scene.clock.move_to(START + 25 * SECOND)
    key = scene.key(MINUTE)
    scene.clock.move_to(START + 61 * SECOND)
    assert plan(scene) == 1
    assert states(scene, key) == {30 * SECOND: "planned"}


def test_a_share_of_life_that_is_longer_than_the_smallest_threshold(scene: Scene) -> None:
    """What is told by its share then comes due earlier than any threshold."""
    scene.policy = replace(scene.policy, notice_thresholds=(10 * DAY,), notice_last_share=0.9)
    key = scene.key(19 * DAY)
    scene.later(24 * HOUR)
    assert plan(scene) == 0  # looks at all
    scene.later(22 * HOUR)
    assert plan(scene) == 1
    assert states(scene, key) == {0.9 * 19 * DAY: "planned"}
