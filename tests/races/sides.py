"""What either side of a pair does, and what must be so after both."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from models.errors import Refused
from models.events import Action
from models.recording import Use
from tests.races.stage import Actor, Side, Stage
from tests.world import ADA

MINUTE = timedelta(minutes=1)


def nobody_twice(stage: Stage) -> None:
    """No message left twice, as nobody died."""
    for channel in stage.channels.values():
        assert len(channel.taken) == len(set(channel.taken))


def each_rung_once(stage: Stage) -> None:
    """A flow that was rung is not rung again while nobody has answered."""
    rung = stage.left.rung + stage.right.rung
    assert rung
    assert len(rung) == len(set(rung))


def one_successor(stage: Stage) -> None:
    """However often it was asked for."""
    assert len(stage.keeper.operator.get_api_keys(include_expired=True)) == 2


def one_claimant(stage: Stage) -> None:
    """The secret was handed out once."""
    entries = stage.watch.execute(
        "SELECT count(*) FROM keyturn.audit WHERE action = 'rotation.claimed'"
    ).fetchone()
    assert entries == (1,)


def one_live_successor(stage: Stage) -> None:
    """Whatever was reissued, one key at most takes the old one's place."""
    keys = stage.keeper.operator.get_api_keys(include_expired=True)
    assert sum(key.status == "active" and key.id != stage.key for key in keys) <= 1


def one_issue_more(stage: Stage) -> None:
    """Reissued by two at once, it was reissued once."""
    assert len(stage.keeper.operator.get_api_keys(include_expired=True)) == 3
    one_live_successor(stage)


def confirmed_once(stage: Stage) -> None:
    """However many vouch for it, the owner is told once."""
    told = stage.watch.execute(
        "SELECT count(*) FROM keyturn.outbox WHERE kind = 'rotation.confirmed'"
    ).fetchone()
    assert told == (1,)


def cut(stage: Stage) -> None:
    """The account is held, and no key of it works."""
    assert stage.keeper.operator.account(ADA).held
    assert not any(stage.keeper.verify(text) for text in stage.texts.values())


@dataclass(frozen=True)
class Pair:
    """Two sides, what they find, and what must be so in the end beside the promises."""

    name: str
    prepare: Callable[[Stage], object]
    left: Side
    right: Side
    after: Callable[[Stage], None] = lambda stage: None


def flow(name: str) -> Side:
    """A worker runs a flow."""
    return lambda stage, actor: actor.run(name)


def create(stage: Stage, actor: Actor) -> None:
    made = actor.operator.create_api_key("k", ADA, "viewer", 3600)
    stage.texts[made.id] = made.text.reveal()


def request(stage: Stage, actor: Actor) -> None:
    actor.operator.rotate(stage.key)


def request_successor(stage: Stage, actor: Actor) -> None:
    assert stage.rotation
    actor.operator.rotate(stage.rotation.new_key_id)


def claim(stage: Stage, actor: Actor) -> None:
    with suppress(Refused):
        got = actor.operator.claim(stage.texts[stage.key])
        stage.texts[got.key_id] = got.secret.reveal()


def confirm(stage: Stage, actor: Actor) -> None:
    assert stage.rotation
    actor.operator.confirm_rotation(str(stage.rotation.id))


def cancel(stage: Stage, actor: Actor) -> None:
    assert stage.rotation
    actor.operator.cancel_rotation(str(stage.rotation.id), "why")


def compromise(stage: Stage, actor: Actor) -> None:
    """An operator's command: the hold first, then the successor."""
    actor.operator.stop_compromised(stage.key)
    with suppress(Refused):
        got = actor.operator.replace_compromised(stage.key)
        stage.texts[got.rotation.new_key_id] = got.secret.reveal()


def stopped_for_good(stage: Stage) -> None:
    """The leaked key works no more, and there is one way on at most."""
    assert not stage.keeper.verify(stage.texts[stage.key])
    working = [key for key in stage.keeper.operator.get_api_keys() if key.status == "active"]
    assert len(working) <= 1


def undo(stage: Stage, actor: Actor) -> None:
    assert stage.rotation
    with suppress(Refused):
        actor.operator.undo_rotation(str(stage.rotation.id), "why")


def reissue(stage: Stage, actor: Actor) -> None:
    assert stage.rotation
    with suppress(Refused):
        actor.operator.reissue_rotation(str(stage.rotation.id))


def delete_successor(stage: Stage, actor: Actor) -> None:
    assert stage.rotation
    actor.operator.delete(stage.rotation.new_key_id)


def delete(stage: Stage, actor: Actor) -> None:
    actor.operator.delete(stage.key)


def use_successor(stage: Stage, actor: Actor) -> None:
    assert stage.rotation
    actor.operator.report_use([Use(stage.rotation.new_key_id, stage.rotation.issued_at + MINUTE)])


def disable_key(stage: Stage, actor: Actor) -> None:
    actor.operator.disable(stage.key)


def enable(stage: Stage, actor: Actor) -> None:
    actor.operator.enable_account(ADA)


def enable_deleted(stage: Stage, actor: Actor) -> None:
    actor.operator.enable_account(ADA, source="okta", kind="deleted")


def disable(stage: Stage, actor: Actor) -> None:
    actor.operator.disable_account(ADA)


def join(stage: Stage, actor: Actor) -> None:
    actor.operator.create_account("bob@example.com", "member")


def apply_and_settle(stage: Stage, actor: Actor) -> None:
    apply(stage, actor)
    settle(stage, actor)


apply, settle = flow("accounts.apply_events"), flow("keys.settle")
advance, expire = flow("rotations.advance"), flow("keys.expire_due")
deliver, tick = flow("outbox.deliver"), flow("upkeep.ring_due")


def disabled(
    then: Callable[[Stage], object] = lambda stage: None, action: Action = Action.DISABLED
) -> Callable[[Stage], None]:
    """A state, and an event that no worker has applied yet."""

    def prepare(stage: Stage) -> None:
        then(stage)
        stage.receive(action)

    return prepare


def bob_is_held(stage: Stage) -> None:
    """The hold that waited for him stands."""
    assert stage.keeper.operator.account("bob@example.com").held
