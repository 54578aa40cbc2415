"""`why` says in sentences what decides about a key, an account or a rotation."""

import re
from pathlib import Path
from uuid import UUID

import pytest

from models import holds, recording, why
from models.errors import NotFound
from models.holds import Cause
from models.key_text import mint
from models.why import Explanation
from tests.models.scene import DAY, HOUR, MINUTE, OWNER, Scene
from tests.worker.cli.reference import commands


def asked(scene: Scene, named: object) -> Explanation:
    with scene.database.begin() as tx:
        return why.explain(tx, str(named), scene.policy)


def test_a_key_that_works(scene: Scene) -> None:
    key = scene.key(ips=["192.0.2.0/24"])
    said = asked(scene, key)
    assert said.works
    assert said.now == (
        f'Key {key} "build" of {OWNER} works.',
        "It may be used only from 192.0.2.0/24.",
        "No use of it or its family was ever reported: it is not used, or what verifies it does"
        " not report.",
    )
    assert said.next == (
        "It ends at 2026-05-30 12:00 UTC.",
        "Its owner is told of that at 2026-04-30 12:00 UTC, unless it is replaced by then.",
    )
    assert said.do == (f"`keyturn keys rotate {key}` issues its successor beside it.",)


def test_a_text_is_explained_and_never_repeated(scene: Scene) -> None:
    key = scene.key()
    text = scene.texts[key].reveal()
    with scene.database.begin() as tx:
        said = why.explain_text(tx, f"{text}\n", scene.policy, scene.peppers)
        assert said.id == key
        assert text not in repr(said)
        for wrong, code in ((mint("kt").reveal(), "key_unknown"), (text[:-1], "malformed")):
            with pytest.raises(NotFound) as refused:
                why.explain_text(tx, wrong, scene.policy, scene.peppers)
            assert refused.value.code == code
            assert wrong[3:20] not in str(refused.value)
        with pytest.raises(NotFound) as refused:
            why.explain(tx, text, scene.policy)
        assert text not in str(refused.value)


def test_each_hold_is_named_with_who_placed_it_since_when_and_why(scene: Scene) -> None:
    key = scene.key()
    with scene.database.begin() as tx:
        holds.lock_accounts(tx, [scene.owner])
        cause = Cause(source="operator", kind="disabled", actor="operator:ada", reason="too loud")
        holds.place(tx, holds.on_key(key), cause, scene.policy)
    scene.later(HOUR)
    scene.hold(kind="deleted")
    said = asked(scene, key)
    assert not said.works
    assert said.now[:3] == (
        f'Key {key} "build" of {OWNER} does not work.',
        "The key is held by operator/disabled since 2026-03-01 12:00 UTC, placed by operator:ada"
        " (too loud).",
        f"Its account {OWNER} is held by okta/deleted since 2026-03-01 13:00 UTC, placed by okta.",
    )
    assert said.next[-1] == (
        "The keys of its account are deleted at 2026-03-08 13:00 UTC, for ever."
    )
    assert said.do == (
        f"`keyturn keys enable {key}` lifts operator/disabled.",
        f"`keyturn accounts enable {OWNER} --source okta --kind deleted` lifts okta/deleted.",
    )


def test_a_deleted_key_and_one_that_has_ended(scene: Scene) -> None:
    deleted, ended = scene.key(), scene.key(HOUR)
    scene.delete(deleted)
    scene.later(2 * HOUR)
    said = asked(scene, deleted)
    assert "It was deleted at 2026-03-01 12:00 UTC by op (requested), for ever." in said.now
    assert said.do == ("Have a new key created: this one does not come back.",)
    assert said.next == ()
    assert "Its validity ended at 2026-03-01 13:00 UTC" in " ".join(asked(scene, ended).now)


def test_uses_and_tries_are_told(scene: Scene) -> None:
    key = scene.key()
    with scene.database.begin() as tx:
        recording.record(tx, [recording.Use(key, scene.now(), "192.0.2.7", 3)])
    assert "It was last used at 2026-03-01 12:00 UTC from 192.0.2.7 (3 times)." in (
        asked(scene, key).now
    )
    scene.delete(key)
    with scene.database.begin() as tx:
        use = recording.Use(key, scene.now(), "192.0.2.8", refused=True)
        recording.record(tx, [use])
    assert "last at 2026-03-01 12:00 UTC from 192.0.2.8" in " ".join(asked(scene, key).now)


def rotation_said(scene: Scene, rotation_id: UUID) -> tuple[str, str, str]:
    said = asked(scene, rotation_id)
    return " ".join(said.now), " ".join(said.next), " ".join(said.do)


def test_a_rotation_says_what_it_waits_for_at_every_stage(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    now, to_come, do = rotation_said(scene, rotation.id)
    assert "is issued" in now
    assert "Nobody has fetched the new key yet." in now
    assert "until 2026-03-04 12:00 UTC" in to_come
    assert "keyturn keys claim" in do
    scene.claimed(rotation.old_key_id)
    now, to_come, do = rotation_said(scene, rotation.id)
    assert "handed over to holder at 2026-03-01 12:00 UTC" in now
    assert "waits for the first use" in to_come
    assert f"keyturn rotations confirm {rotation.id}" in do
    scene.later(MINUTE)
    scene.use(rotation.new_key_id)
    scene.advance()
    now, to_come, do = rotation_said(scene, rotation.id)
    assert "confirmed by use at 2026-03-01 12:01 UTC" in now
    assert "retired at 2026-03-08 12:01 UTC" in to_come
    scene.later(scene.policy.rotation_overlap)
    scene.advance()
    now, to_come, do = rotation_said(scene, rotation.id)
    assert "deleted at 2026-03-15" in to_come
    assert f"keyturn rotations undo {rotation.id}" in do
    key = asked(scene, rotation.old_key_id)
    assert f"It is replaced by key {rotation.new_key_id} (rotation {rotation.id}, retired)." in (
        key.now
    )


def test_a_cancelled_rotation_says_why(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    scene.later(scene.policy.sealed_for)
    scene.advance()
    now, to_come, do = rotation_said(scene, rotation.id)
    assert "cancelled at 2026-03-04 12:00 UTC: nobody fetched the new key in time." in now
    assert (to_come, do) == ("", "")


def test_a_family_whose_uses_are_never_reported_is_named(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    scene.claimed(rotation.old_key_id)
    scene.confirm(rotation)
    scene.later(scene.policy.rotation_overlap)
    scene.advance()
    now, to_come, do = rotation_said(scene, rotation.id)
    assert "No use of either key was reported since the rotation began" in now
    assert "It waits: no use of either key was reported" in to_come
    assert "report-use" in do
    assert f"keyturn rotations confirm {rotation.id}" in do


def test_a_rotation_of_a_held_account_stands_still(scene: Scene) -> None:
    rotation = scene.draining()
    scene.hold()
    scene.advance()
    now, to_come, _ = rotation_said(scene, rotation.id)
    assert "Its account is held by okta/disabled" in now
    assert "stands still" in to_come


def test_a_key_that_others_know_says_how_to_its_successor(scene: Scene) -> None:
    key = scene.key()
    from models import compromise

    with scene.database.begin() as tx:
        holds.lock_accounts(tx, [scene.owner])
        cause = Cause(source="okta", kind="compromised", actor="source:okta")
        compromise.stop(tx, key, cause, issue=True, policy=scene.policy)
    assert "still to be done" in " ".join(asked(scene, key).do)
    scene.database.run(
        lambda tx: compromise.follow(
            tx, key, policy=scene.policy, sealer=scene.sealer, peppers=scene.peppers
        )
    )
    said = " ".join(asked(scene, key).do)
    assert f"`keyturn keys rotate {key} --compromised` shows" in said


def test_an_account(scene: Scene) -> None:
    scene.key()
    scene.delete(scene.key())
    said = asked(scene, OWNER)
    assert said.works
    assert said.now == (f"Account {OWNER} is not disabled.", "Its keys: 1 active, 1 deleted.")
    scene.hold()
    said = asked(scene, scene.owner)
    assert said.now[0] == f"Account {OWNER} is disabled: none of its keys works."
    assert "okta/disabled" in said.now[2]
    assert "as okta does by itself" in said.do[0]


@pytest.mark.parametrize("named", ["", "nobody@example.com", str(UUID(int=7)), "x" * 5000, "\x00"])
def test_what_is_not_known_is_not_repeated(scene: Scene, named: str) -> None:
    with pytest.raises(NotFound) as refused:
        asked(scene, named)
    assert refused.value.code == "nothing_known"
    assert not named or named not in str(refused.value)


def test_when_the_owner_is_told_is_what_the_notices_do(scene: Scene) -> None:
    """The time that `why` names is the one at which the notice is planned."""
    from tests.models.notice_verbs import plan

    key = scene.key(20 * DAY)
    [told] = [line for line in asked(scene, key).next if line.startswith("Its owner")]
    assert "2026-03-14 12:00 UTC" in told
    scene.later(13 * DAY - MINUTE)
    plan(scene)
    assert scene.sql("SELECT FROM keyturn.notices") == []
    scene.later(MINUTE)
    plan(scene)
    assert len(scene.sql("SELECT FROM keyturn.notices")) == 1


def test_every_command_that_is_named_is_one() -> None:
    """What `why`, refusals and mails tell people to type can be typed."""
    root = Path(__file__).parents[2]
    texts = [
        path.read_text("utf-8")
        for folder, ending in (("models", "*.py"), ("worker/channels/templates", "*.j2"))
        for path in (root / folder).glob(ending)
    ]
    known = [one.split() for one in commands()]
    named = {
        tuple(found.split())
        for text in texts
        for found in re.findall(r"`keyturn ([a-z]+(?: [a-z-]+)?)", re.sub(r'"\s+f?"', "", text))
    }
    unknown = [one for one in named if list(one) not in known and [one[0]] not in known]
    assert named
    assert unknown == []
