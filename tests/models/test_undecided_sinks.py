"""A product that does not know keyturn.toml: where its new keys go is decided by a worker."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from models import Client, hand_overs, outbox, rotation_letters
from models.errors import Refused
from models.keyring import Keyring
from models.operator import Operator
from models.policy import Policy
from models.rotation_policy import CLAIM, UNDECIDED, RotationPolicy
from tests.models.hand_over_steps import BUSY, Shelf, lease, row, to_shelf, work
from tests.models.scene import DAY, MINUTE, Scene

MONTH = timedelta(days=30)
Made = Callable[[Policy | None], Client]


@pytest.fixture
def product(scene: Scene) -> Iterator[Made]:
    """A product's client, with a policy of its own or none."""
    made = list[Client]()

    def make(policy: Policy | None) -> Client:
        url = scene.database.engine.url.render_as_string(hide_password=False)
        keyring = Keyring(scene.peppers, scene.sealer)
        client = Client(url, keyring=lambda: keyring, policy=policy, clock=scene.now)
        made.append(client)
        return client

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize(
    "own", [None, Policy(), Policy(rotations_per_key_per_day=9)], ids=["none", "defaults", "limits"]
)
def test_a_key_whose_policy_names_a_sink_goes_there(
    scene: Scene, product: Made, own: Policy | None
) -> None:
    rotation = product(own).rotate(scene.key())
    assert rotation.sink == UNDECIDED
    scene.policy, shelf = to_shelf(), Shelf()
    assert lease(scene) is None  # that decides
    assert scene.rotation(rotation).sink == "shelf"
    assert work(scene, shelf) == 1
    now = scene.rotation(rotation)
    assert (now.claimed_by, now.delivered_by) == ("sink:shelf", "shelf")
    assert list(shelf.texts) == [rotation.id]


def test_the_policy_is_that_of_the_key_its_account_or_role(scene: Scene, product: Made) -> None:
    known = {"default": RotationPolicy(), "mounted": RotationPolicy(sink="shelf")}
    chosen, other = scene.key(), scene.key()
    scene.sql(
        "UPDATE keyturn.api_keys SET rotation_policy = 'mounted' WHERE id = :id RETURNING 1",
        id=chosen,
    )
    client = product(None)
    asked = [client.rotate(key) for key in (chosen, other)]
    scene.policy = Policy(rotation_policies=known)
    work(scene, Shelf())
    assert [scene.rotation(one).sink for one in asked] == ["shelf", CLAIM]
    assert [bool(scene.rotation(one).claimed_at) for one in asked] == [True, False]


def test_a_key_that_its_holder_fetches_is_left_to_them(scene: Scene, product: Made) -> None:
    client = product(None)
    rotation = client.rotate(scene.key())
    shelf = Shelf()
    assert work(scene, shelf) == 0
    assert (scene.rotation(rotation).sink, row(scene, rotation)["state"]) == (CLAIM, "skipped")
    assert scene.database.run(lambda tx: hand_overs.progress(tx, rotation.id)) is None
    assert client.claim(scene.texts[rotation.old_key_id].reveal()).key_id == rotation.new_key_id
    assert scene.rotation(rotation).claimed_by == client.actor


def test_who_claims_before_it_is_decided_has_the_key_and_the_sink_has_not(
    scene: Scene, product: Made
) -> None:
    client = product(None)
    rotation = client.rotate(scene.key())
    client.claim(scene.texts[rotation.old_key_id].reveal())
    scene.policy, shelf = to_shelf(), Shelf()
    work(scene, shelf)
    assert shelf.seen == []
    assert row(scene, rotation)["state"] == "skipped"


def test_a_product_that_knows_the_policies_decides_itself(scene: Scene, product: Made) -> None:
    assert product(to_shelf()).rotate(scene.key()).sink == "shelf"
    claim = Policy(rotation_policies={"default": RotationPolicy()})
    assert product(claim).rotate(scene.key()).sink == CLAIM


def test_what_the_owner_is_told_is_by_the_workers_policy(scene: Scene, product: Made) -> None:
    product(None).rotate(scene.key())
    with scene.database.begin() as tx:
        leased = outbox.lease(tx, "mail", scene.policy).messages
        [message], _ = rotation_letters.refresh(tx, leased, to_shelf())
    [told] = list(message.payload["rotations"])  # type: ignore[call-overload]
    assert told["sink"] == "shelf"


def test_an_operators_commands_go_by_the_settings_that_they_are_given(scene: Scene) -> None:
    given = Operator("postgresql+psycopg://nobody@127.0.0.1:1/none", policy=Policy())
    assert given.policy.rotation_policies
    alone = Operator("postgresql+psycopg://nobody@127.0.0.1:1/none")
    assert not alone.policy.rotation_policies


def test_a_product_takes_no_step_whose_times_it_does_not_know(scene: Scene, product: Made) -> None:
    """Its own defaults must not shorten what keyturn.toml says."""
    scene.policy = replace(
        scene.policy,
        rotation_overlap=MONTH,
        rotation_policies={"default": RotationPolicy(in_use="retire")},
    )
    client = product(None)
    rotation = client.rotate(scene.key())
    scene.claimed(rotation.old_key_id)
    scene.use(rotation.new_key_id)
    assert client.rotate(rotation.old_key_id).state == "issued"
    scene.advance()
    assert scene.rotation(rotation).retire_at == scene.now() + MONTH
    scene.later(8 * DAY)
    assert client.rotate(rotation.old_key_id).state == "draining"
    scene.later(MONTH)
    scene.use(rotation.old_key_id)
    assert client.rotate(rotation.old_key_id).state == "draining"
    scene.advance()
    assert scene.rotation(rotation).state == "retired"


def test_a_product_ends_what_nobody_can_claim_any_more(scene: Scene, product: Made) -> None:
    client = product(None)
    first = client.rotate(scene.key())
    scene.delete(first.new_key_id)
    second = client.rotate(first.old_key_id)
    assert (scene.rotation(first).state, second.state) == ("cancelled", "issued")
    assert second.id != first.id


def test_a_sink_that_fails_is_told_with_its_next_try(scene: Scene, product: Made) -> None:
    rotation = product(None).rotate(scene.key())
    scene.policy = to_shelf()
    work(scene, Shelf(outcome=BUSY))
    found = scene.database.run(lambda tx: hand_overs.progress(tx, rotation.id))
    assert found is not None
    assert (found.sink, found.state, found.tries, found.error) == (
        *("shelf", "waiting", 1),
        "the shelf is busy",
    )
    assert found.next_try is not None
    assert timedelta(0) < found.next_try - scene.now() < MINUTE


def test_a_second_claim_names_the_sink(scene: Scene, product: Made) -> None:
    client = product(None)
    rotation = client.rotate(scene.key())
    scene.policy = to_shelf()
    work(scene, Shelf())
    with pytest.raises(Refused) as refused:
        client.claim(scene.texts[rotation.old_key_id].reveal())
    assert refused.value.code == "already_claimed"
    assert "handed over by the sink 'shelf'" in refused.value.message
    assert "shown once" not in refused.value.message
    [told] = scene.mails("rotation.claimed_again")
    assert told["sink"] == "shelf"
