"""Rotations in each stage outlive new secrets, secrets that are gone, and restarts."""

from contextlib import closing

import psycopg
import pytest
from psycopg import sql

from models import migrations
from models.errors import Refused
from models.key_text import Peppers
from models.sealing import Sealer, UnknownKek
from tests.models.rotation_stages import LIVE, claimed, finish, unclaimed
from tests.models.scene import Scene, frozen_scene
from tests.servers import FAST, temporary_home
from worker.embedded.postgres import Postgres

OLD_KEK, NEW_KEK = b"k" * 32, b"n" * 32
OLD_PEPPER, NEW_PEPPER = b"p" * 32, b"q" * 32


@pytest.mark.parametrize("stage", LIVE)
def test_new_secrets_at_any_stage_change_nothing(scene: Scene, stage: str) -> None:
    """The old versions are still at hand: what was sealed and digested under them goes on."""
    rotation = LIVE[stage](scene)
    scene.sealer = Sealer({1: OLD_KEK, 2: NEW_KEK})
    scene.peppers = Peppers({1: OLD_PEPPER, 2: NEW_PEPPER})
    finish(scene, rotation)
    again = scene.request(rotation.new_key_id)
    [row] = scene.sql(
        "SELECT r.sealed_kek, k.pepper FROM keyturn.rotations r"
        " JOIN keyturn.api_keys k ON k.id = r.new_key_id WHERE r.id = :id",
        id=again.id,
    )
    assert (row["sealed_kek"], row["pepper"]) == (2, 2)
    if scene.texts.get(again.old_key_id):
        finish(scene, again)


def test_without_its_key_encryption_key_a_secret_stays_and_the_rotation_says_so(
    scene: Scene,
) -> None:
    rotation = unclaimed(scene)
    scene.sealer = Sealer({2: NEW_KEK})
    for _ in range(2):
        with pytest.raises(UnknownKek, match="key-encryption key 1 is missing"):
            scene.claim(rotation.old_key_id)
    waits = scene.rotation(rotation)
    assert (waits.blocked_reason, waits.claimable) == ("secret_unreadable", True)
    assert scene.audited(rotation).count(("rotation.secret_unreadable", "UnknownKek")) == 1
    scene.advance()
    assert scene.rotation(rotation).blocked_reason == "secret_unreadable"
    scene.sealer = Sealer({1: OLD_KEK, 2: NEW_KEK})
    finish(scene, waits)
    assert scene.rotation(rotation).blocked_reason is None


def test_a_secret_whose_key_is_lost_is_reissued_under_the_present_one(scene: Scene) -> None:
    rotation = unclaimed(scene)
    scene.sealer = Sealer({2: NEW_KEK})
    with pytest.raises(UnknownKek):
        scene.claim(rotation.old_key_id)
    finish(scene, scene.reissue(rotation))


@pytest.mark.parametrize("stage", ["claimed", "draining", "retired"])
def test_once_it_was_fetched_a_lost_key_encryption_key_matters_no_more(
    scene: Scene, stage: str
) -> None:
    rotation = LIVE[stage](scene)
    scene.sealer = Sealer({2: NEW_KEK})
    finish(scene, rotation)


def test_a_pepper_that_is_gone_makes_the_old_key_unknown_and_nothing_else(scene: Scene) -> None:
    rotation = claimed(scene)
    scene.peppers = Peppers({2: NEW_PEPPER})
    outcome = scene.claim(rotation.old_key_id)
    assert isinstance(outcome, Refused)
    assert outcome.code == "key_unknown"
    scene.peppers = Peppers({1: OLD_PEPPER, 2: NEW_PEPPER})
    finish(scene, rotation)


def test_the_database_restarts_in_every_stage() -> None:
    with temporary_home() as home:
        server = Postgres(home, options=FAST)
        server.start()
        try:
            with closing(server.connect()) as connection:
                connection.execute(sql.SQL("CREATE DATABASE restarted"))
            migrations.upgrade(server.url("restarted"))
            with frozen_scene(server.url("restarted")) as scene:
                for stage in ("retired", "draining", "claimed", "unclaimed"):
                    rotation = LIVE[stage](scene)
                    server.stop()
                    with pytest.raises(psycopg.OperationalError):
                        psycopg.connect(server.url("restarted"))
                    server.start()
                    assert scene.rotation(rotation) == rotation
                    finish(scene, rotation)
        finally:
            server.stop()
