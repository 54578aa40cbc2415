"""The pairs of flows that may meet. Whatever new flow may meet another is listed here."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from models.errors import Refused
from models.events import Action
from models.recording import Use
from tests.races.stage import DAY, HOUR, NOW, Actor, Side, Stage
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


def held(stage: Stage) -> None:
    """Several keys of an account that was just held by one transaction, and not settled."""
    for _ in range(2):
        stage.create(HOUR, 90 * DAY)
    stage.receive(Action.DISABLED)
    stage.keeper.run("accounts.apply_events")


def held_by_operator(stage: Stage) -> None:
    stage.create(HOUR, 90 * DAY)
    stage.keeper.operator.disable_account(ADA)


def long_deleted(stage: Stage) -> None:
    with stage.ago(8 * DAY):
        stage.receive(Action.DELETED)
        stage.keeper.run("accounts.apply_events")


def ended(stage: Stage) -> None:
    """A key whose end is past, and that may have been rotated in time."""
    stage.key = stage.create(2 * HOUR, 2 * HOUR)


def ended_while_draining(stage: Stage) -> None:
    stage.key = stage.create(25 * HOUR, 25 * HOUR)
    stage.draining(20 * HOUR)


def due(days: int) -> Callable[[Stage], None]:
    """A rotation whose old key is to be retired now."""
    return lambda stage: stage.draining(days * DAY)


def messages(stage: Stage) -> None:
    for _ in range(3):
        stage.create(NOW, 90 * DAY)


PAIRS: Final = (
    Pair("disable-create", disabled(), apply_and_settle, create, cut),
    Pair("operator-disable-create", lambda stage: None, disable, create, cut),
    Pair("disable-request", disabled(), apply_and_settle, request, cut),
    Pair("disable-claim", disabled(lambda s: s.issued(HOUR)), apply, claim, cut),
    Pair("disable-confirm", disabled(lambda s: s.claimed(HOUR)), apply, confirm, cut),
    Pair("disable-advance-used", disabled(lambda s: s.used(HOUR)), apply, advance, cut),
    Pair("disable-advance-unclaimed", disabled(lambda s: s.issued(4 * DAY)), apply, advance, cut),
    Pair("disable-advance-draining", disabled(due(8)), apply, advance, cut),
    Pair("disable-advance-retired", disabled(lambda s: s.retired(8 * DAY)), apply, advance, cut),
    Pair(
        "disable-request-retired",
        disabled(lambda s: s.retired(DAY)),
        apply,
        request_successor,
        cut,
    ),
    Pair("enable-settle", held_by_operator, enable, settle),
    Pair("event-settle", disabled(held, Action.ENABLED), apply, settle),
    Pair("enable-disable", held_by_operator, enable, disable),
    Pair("expire-request", ended, expire, request),
    Pair("expire-advance", ended_while_draining, expire, advance),
    Pair("expire-disable", disabled(ended), expire, apply),
    Pair("delete-claim", lambda s: s.issued(HOUR), delete, claim),
    Pair("delete-advance", due(8), delete, advance),
    Pair("delete-settle", held, delete, settle),
    Pair("delete-due-enable", long_deleted, flow("keys.delete_due"), enable_deleted),
    Pair("disable-key-advance", due(8), disable_key, advance),
    Pair("confirm-cancel", lambda s: s.claimed(HOUR), confirm, cancel),
    Pair("use-cancel", lambda s: s.claimed(HOUR), use_successor, cancel),
    Pair("use-advance", due(8), use_successor, advance),
    Pair("claim-advance", lambda s: s.issued(4 * DAY), claim, advance),
    Pair("claim-claim", lambda s: s.issued(HOUR), claim, claim, one_claimant),
    Pair("compromise-claim", lambda s: s.issued(HOUR), compromise, claim, stopped_for_good),
    Pair("compromise-advance", due(8), compromise, advance, stopped_for_good),
    Pair("compromise-request", lambda s: None, compromise, request, stopped_for_good),
    Pair("compromise-compromise", lambda s: None, compromise, compromise, stopped_for_good),
    Pair(
        "compromise-used",
        lambda s: s.claimed(HOUR),
        compromise,
        use_successor,
        stopped_for_good,
    ),
    Pair("request-request", lambda stage: None, request, request, one_successor),
    Pair("undo-advance", lambda s: s.retired(8 * DAY), undo, advance),
    Pair("undo-undo", lambda s: s.retired(DAY), undo, undo),
    Pair("undo-request", lambda s: s.retired(DAY), undo, request_successor),
    Pair("undo-delete-successor", lambda s: s.retired(DAY), undo, delete_successor),
    Pair("disable-undo", disabled(lambda s: s.retired(DAY)), apply, undo, cut),
    Pair("reissue-claim", lambda s: s.issued(HOUR), reissue, claim, one_live_successor),
    Pair("reissue-reissue", lambda s: s.claimed(HOUR), reissue, reissue, one_issue_more),
    Pair("reissue-use", lambda s: s.claimed(HOUR), reissue, use_successor, one_live_successor),
    Pair("reissue-confirm", lambda s: s.claimed(HOUR), reissue, confirm, one_live_successor),
    Pair("reissue-advance", lambda s: s.issued(4 * DAY), reissue, advance, one_live_successor),
    Pair("disable-reissue", disabled(lambda s: s.claimed(HOUR)), apply, reissue, cut),
    Pair("confirm-confirm", lambda s: s.claimed(HOUR), confirm, confirm, confirmed_once),
    Pair("request-delete", lambda stage: None, request, delete),
    Pair("ending-use", due(6), advance, use_successor),
    Pair("advance-advance", due(8), advance, advance),
    Pair("apply-apply", disabled(), apply, apply, cut),
    Pair(
        "apply-join",
        lambda s: s.receive(Action.DISABLED, email="bob@example.com"),
        apply,
        join,
        lambda s: _bob_is_held(s),
    ),
    Pair("settle-settle", held, settle, settle, cut),
    Pair("tick-tick", lambda stage: None, tick, tick, each_rung_once),
    Pair("deliver-deliver", messages, deliver, deliver, nobody_twice),
)


def _bob_is_held(stage: Stage) -> None:
    assert stage.keeper.operator.account("bob@example.com").held
