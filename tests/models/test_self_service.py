"""The holder of a key rotates by script, with nothing but the key."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

import pytest

from models import Client, Refused
from models.key_text import mint
from models.keyring import Keyring
from models.operator import Operator
from tests.models.scene import DAY, HOUR, MINUTE, Scene


@contextmanager
def opened(scene: Scene, kind: type[Client] = Client) -> Iterator[Client]:
    url = scene.database.engine.url.render_as_string(hide_password=False)
    keyring = Keyring(scene.peppers, scene.sealer)
    with kind(url, keyring=lambda: keyring, clock=scene.now, policy=scene.policy) as client:
        yield client


@pytest.fixture
def client(scene: Scene) -> Iterator[Client]:
    with opened(scene) as made:
        yield made


def text_of(scene: Scene) -> str:
    return scene.texts[scene.key()].reveal()


def test_a_script_needs_nothing_but_the_key(scene: Scene, client: Client) -> None:
    old = text_of(scene)
    rotation = client.rotate(old)
    new = client.claim(old).secret.reveal()
    assert client.verify(new).valid
    assert client.verify(old).valid
    assert client.rotate(f" {old}\n").id == rotation.id
    assert len(client.get_api_keys()) == 2


def test_the_same_rotation_at_every_stage(scene: Scene, client: Client) -> None:
    """Issued, claimed, draining, retired; a script that starts anew makes no second key."""
    old = text_of(scene)
    rotation = client.rotate(old)
    seen = [client.rotate(old)]
    new = client.claim(old)
    seen.append(client.rotate(old))
    scene.later(MINUTE)
    client.verify(new.secret.reveal())
    client.flush_uses()
    scene.advance()
    seen.append(client.rotate(old))
    scene.later(scene.policy.rotation_overlap + DAY)
    scene.advance()
    assert client.verify(old).reason == "retired"
    seen.append(client.rotate(old))
    assert [one.state for one in seen] == ["issued", "issued", "draining", "retired"]
    assert {one.id for one in seen} == {rotation.id}
    assert len(client.get_api_keys()) == 2
    with pytest.raises(Refused) as refused:
        client.claim(old)
    assert refused.value.code == "already_claimed"


def _cancelled(scene: Scene, client: Client, key: str) -> None:
    scene.cancel(client.rotate(key))


def test_a_key_has_so_many_new_rotations_in_a_day(scene: Scene, client: Client) -> None:
    old = text_of(scene)
    for _ in range(scene.policy.rotations_per_key_per_day):
        _cancelled(scene, client, old)
        scene.later(HOUR)
    with pytest.raises(Refused) as refused:
        client.rotate(old)
    assert refused.value.code == "too_many_rotations"
    assert "2026-03-02 12:00 UTC" in refused.value.message
    scene.later(DAY - 3 * HOUR)
    _cancelled(scene, client, old)
    with pytest.raises(Refused) as refused:
        client.rotate(old)
    assert refused.value.code == "too_many_rotations"


def test_what_is_under_way_is_answered_beyond_the_limit(scene: Scene) -> None:
    scene.policy = replace(scene.policy, rotations_per_key_per_day=1)
    with opened(scene) as client:
        old = text_of(scene)
        rotation = client.rotate(old)
        assert client.rotate(old).id == rotation.id


def test_the_limit_counts_the_whole_family(scene: Scene) -> None:
    scene.policy = replace(scene.policy, rotations_per_key_per_day=1, rotation_overlap=HOUR)
    with opened(scene) as client:
        old = text_of(scene)
        rotation = client.rotate(old)
        new = client.claim(old).secret.reveal()
        scene.confirm(rotation)
        scene.delete(rotation.old_key_id)
        scene.advance()
        with pytest.raises(Refused) as refused:
            client.rotate(new)
        assert refused.value.code == "too_many_rotations"


def test_an_operator_is_not_limited(scene: Scene, client: Client) -> None:
    old = text_of(scene)
    for _ in range(scene.policy.rotations_per_key_per_day):
        _cancelled(scene, client, old)
    with opened(scene, Operator) as operator:
        assert operator.rotate(old).state == "issued"


def test_other_keys_are_not_counted(scene: Scene, client: Client) -> None:
    first, second = text_of(scene), text_of(scene)
    for _ in range(scene.policy.rotations_per_key_per_day):
        _cancelled(scene, client, first)
    assert client.rotate(second).state == "issued"


def test_what_is_no_key_is_not_repeated(scene: Scene, client: Client) -> None:
    """A text with a typo is still most of a secret."""
    text = mint("kt").reveal()
    for wrong in (text, text[:-1], text[:-1] + "-", "", "x" * 10_000, str(uuid4())):
        with pytest.raises(Refused) as refused:
            client.rotate(wrong)
        assert refused.value.code == "key_unknown"
        assert text[3:20] not in str(refused.value) + repr(refused.value)
