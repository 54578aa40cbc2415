"""The key-encryption key and the pepper are replaced in every state of a rotation."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from uuid import UUID

import pytest

from models import resealing
from models.base import Tx
from models.key_text import Peppers
from models.rotations import Rotation
from models.sealing import Sealer, UnknownKek
from models.verification import Verifier
from tests.eventually import eventually
from tests.models.scene import DAY, Scene

OLD, NEW = b"k" * 32, b"n" * 32
BOTH: Final = Sealer({1: OLD, 2: NEW})
ONLY_NEW: Final = Sealer({2: NEW})


def issued(scene: Scene) -> Rotation:
    return scene.request(scene.key())


def claimed(scene: Scene) -> Rotation:
    rotation = issued(scene)
    scene.claimed(rotation.old_key_id)
    return scene.rotation(rotation)


def held(scene: Scene) -> Rotation:
    """Unclaimed, and its account was held before anything looked at it."""
    rotation = issued(scene)
    scene.hold()
    return rotation


STATES: Final[dict[str, Callable[[Scene], Rotation]]] = {
    "issued": issued,
    "claimed": claimed,
    "draining": Scene.draining,
    "retired": Scene.retired,
    "held": held,
}


def reseal(scene: Scene, sealer: Sealer = BOTH) -> int:
    """A run of the flow; how many were sealed anew."""
    after, changed = resealing.FIRST, 0
    while True:
        with scene.database.begin() as tx:
            step = resealing.step(tx, sealer, after)
        after, changed = step.after, changed + step.changed
        if step.finished:
            return changed


def sealed_under(scene: Scene) -> list[int]:
    rows = scene.sql("SELECT sealed_kek FROM keyturn.rotations WHERE sealed IS NOT NULL")
    return [row["sealed_kek"] for row in rows]


def finish(scene: Scene, rotation: Rotation) -> None:
    """What is left of the rotation goes its way to the end."""
    if not rotation.handed_over:
        scene.claimed(rotation.old_key_id)
    scene.use(rotation.new_key_id)
    for _ in range(40):
        scene.later(DAY)
        scene.advance()
    assert scene.rotation(rotation).state == "completed"


# Key-encryption key


@pytest.mark.parametrize("state", [name for name in STATES if name != "held"])
def test_a_new_kek_takes_over_in_every_state_and_the_old_one_goes(scene: Scene, state: str) -> None:
    rotation = STATES[state](scene)
    waits = state == "issued"
    assert reseal(scene) == int(waits)
    assert sealed_under(scene) == [2] * waits
    scene.sealer = ONLY_NEW
    assert reseal(scene, ONLY_NEW) == 0
    finish(scene, rotation)


def test_of_a_held_account_nothing_is_left_to_open(scene: Scene) -> None:
    held(scene)
    assert reseal(scene) == 1
    scene.advance()
    assert sealed_under(scene) == []


def test_only_older_versions_are_sealed_anew(scene: Scene) -> None:
    """A machine that knows the next version and does not use it yet undoes nothing."""
    behind = Sealer({1: OLD, 2: NEW}, current=1)
    scene.sealer = BOTH
    issued(scene)
    assert reseal(scene, behind) == 0
    assert sealed_under(scene) == [2]


def test_a_version_that_is_not_at_hand_is_left_alone(scene: Scene) -> None:
    issued(scene)
    assert reseal(scene, Sealer({2: NEW})) == 0
    assert sealed_under(scene) == [1]
    assert reseal(scene) == 1


def test_a_machine_without_the_new_kek_says_so_and_nothing_is_lost(scene: Scene) -> None:
    rotation = issued(scene)
    assert reseal(scene) == 1
    with pytest.raises(UnknownKek, match="key-encryption key 2 is missing: bring its file back"):
        scene.claim(rotation.old_key_id)  # this process has version 1 only
    scene.sealer = BOTH
    scene.claimed(rotation.old_key_id)


def test_batches_find_every_secret_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resealing, "BATCH", 2)
    rotations = [issued(scene) for _ in range(5)]
    assert reseal(scene) == 5
    assert sealed_under(scene) == [2] * 5
    scene.sealer = ONLY_NEW
    for rotation in rotations:
        scene.claimed(rotation.old_key_id)


def test_a_seal_that_is_broken_is_named_and_stops_no_other(scene: Scene) -> None:
    first, second = issued(scene), issued(scene)
    with scene.database.begin() as tx:
        tx.execute(
            "UPDATE keyturn.rotations SET sealed = :box WHERE id = :id",
            box=b"\0" * 100,
            id=first.id,
        )
    with scene.database.begin() as tx:
        step = resealing.step(tx, BOTH)
    assert (step.changed, step.broken) == (1, (first.id,))
    with scene.database.begin() as tx:
        again = resealing.step(tx, BOTH, step.after)
    assert again.finished
    scene.sealer = ONLY_NEW
    scene.claimed(second.old_key_id)


def test_who_claims_at_the_same_moment_goes_first(scene: Scene) -> None:
    rotation = issued(scene)
    scene.sealer = BOTH
    with scene.database.begin() as claiming:
        assert taken(claiming, rotation.id)
        assert reseal(scene) == 0, "it waits for nobody, and nobody waits for it"
    assert reseal(scene) == 0
    assert sealed_under(scene) == []


def taken(tx: Tx, rotation_id: UUID) -> bool:
    """What a claim writes."""
    return bool(
        tx.count(
            "UPDATE keyturn.rotations SET claimed_at = :now, sealed = NULL, sealed_kek = NULL"
            " WHERE id = :id",
            id=rotation_id,
        )
    )


def test_a_claim_that_waits_for_the_sealing_opens_what_it_finds(scene: Scene) -> None:
    rotation = issued(scene)
    scene.sealer = BOTH
    with ThreadPoolExecutor(1) as pool:
        with scene.database.begin() as tx:
            assert resealing.step(tx, BOTH).changed == 1
            claim = pool.submit(scene.claimed, rotation.old_key_id)
            eventually(lambda: waiting(scene) > 0)
        assert claim.result(10).key_id == rotation.new_key_id


def waiting(scene: Scene) -> int:
    [row] = scene.sql(
        "SELECT count(*) AS n FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return int(row["n"])


# Pepper


@pytest.mark.parametrize("state", [name for name in STATES if name != "held"])
def test_both_keys_verify_throughout_while_the_pepper_changes(scene: Scene, state: str) -> None:
    rotation = STATES[state](scene)
    scene.peppers = Peppers({1: b"p" * 32, 2: b"q" * 32})
    if not rotation.handed_over:
        scene.claimed(rotation.old_key_id)
    assert works(scene, rotation.new_key_id)
    assert works(scene, rotation.old_key_id) == (state != "retired")
    following = scene.key()
    assert works(scene, following)
    finish(scene, scene.rotation(rotation))
    assert works(scene, rotation.new_key_id)


def works(scene: Scene, key: UUID) -> bool:
    verifier = Verifier(scene.database, scene.peppers)
    try:
        return verifier.verify(scene.texts[key].reveal(), None)[0].valid
    finally:
        verifier.close()


def test_rotating_a_key_moves_it_to_the_new_pepper(scene: Scene) -> None:
    old = scene.key()
    scene.peppers = Peppers({1: b"p" * 32, 2: b"q" * 32})
    rotation = scene.request(old)
    scene.claimed(old)
    rows = scene.sql("SELECT id, pepper FROM keyturn.api_keys")
    assert {row["id"]: row["pepper"] for row in rows} == {old: 1, rotation.new_key_id: 2}
    scene.use(rotation.new_key_id)
    for _ in range(20):
        scene.later(DAY)
        scene.advance()
    named = scene.sql("SELECT DISTINCT pepper FROM keyturn.api_keys WHERE deleted_at IS NULL")
    assert [row["pepper"] for row in named] == [2]
    scene.peppers = Peppers({2: b"q" * 32})
    assert works(scene, rotation.new_key_id)
