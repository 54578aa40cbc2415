"""Pairs in which keys are rotated by plans, by policy, into sinks, or because others know them."""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Final

from models import hand_overs, rotation_choice
from models.errors import Refused
from models.hand_overs import Leased
from models.operations import Selection
from models.operations_desk import Operations
from tests.races.sides import (
    Pair,
    apply,
    cancel,
    claim,
    compromise,
    confirm,
    cut,
    delete,
    disable,
    flow,
    reissue,
    request,
    stopped_for_good,
    undo,
)
from tests.races.stage import DAY, HOUR, SHELF, Actor, Side, Stage
from tests.world import ADA

BULK, HAND_OVER, START = "operations.advance", "rotations.hand_over", "rotations.start_due"
MINUTE: Final = timedelta(minutes=1)
BOB = "bob@example.com"

Prepare = Callable[[Stage], object]

carry_out, start_due = flow(BULK), flow(START)
follow = flow("keys.follow_compromises")


def _nothing(stage: Stage) -> None:
    pass


# What they find


def after(*prepared: Prepare) -> Prepare:
    """One after the other."""

    def prepare(stage: Stage) -> None:
        for one in prepared:
            one(stage)

    return prepare


def issued(stage: Stage) -> None:
    stage.issued(HOUR)


def retired(stage: Stage) -> None:
    stage.retired(DAY)


def planned(stage: Stage) -> None:
    """A plan with three keys of two owners, in two waves."""
    stage.create(HOUR, 90 * DAY)
    with stage.ago(HOUR) as operator:
        operator.create_account(BOB, "member")
        made = operator.create_api_key("k", BOB, "viewer", 90 * 86400)
    stage.texts[made.id] = made.text.reveal()
    stage.flows.append(BULK)
    stage.plan = str(stage.keeper.operator.operations.plan(Selection(everything=True)).id)


def applied(stage: Stage) -> None:
    """No key of it was begun yet."""
    planned(stage)
    stage.keeper.operator.operations.apply(stage.plan)


def paused(stage: Stage) -> None:
    applied(stage)
    stage.keeper.operator.operations.pause(stage.plan)


def by_policy(name: str, then: Prepare = _nothing) -> Prepare:
    """The key follows a policy, and then this."""

    def prepare(stage: Stage) -> None:
        choose = partial(rotation_choice.for_key, key_id=str(stage.key), name=name, actor="op")
        policy = stage.keeper.operator.policy
        stage.keeper.database.run(lambda tx: choose(tx, policy=policy))
        stage.flows.append(START)
        then(stage)

    return prepare


def to_shelf(then: Prepare = _nothing) -> Prepare:
    """The new key is to go to a sink, and then this."""

    def sends(stage: Stage) -> None:
        stage.flows.append(HAND_OVER)

    return by_policy(SHELF, after(sends, issued, then))


def thought_dead(stage: Stage) -> None:
    """A worker took the hand-over, and its lease is over."""
    assert stage.rotation
    rotation_id, policy = stage.rotation.id, stage.keeper.runtime.policy
    with stage.ago(HOUR - MINUTE):
        stage.leased = stage.keeper.database.run(
            lambda tx: hand_overs.lease(tx, rotation_id, policy)
        )


def reported(stage: Stage) -> None:
    """A report that others know the key waits for a worker."""
    stage.report(stage.key)


def held_by_report(stage: Stage) -> None:
    """The same was applied, and what is to follow was not done yet."""
    reported(stage)
    stage.keeper.run("accounts.apply_events")


# What they do


def on_plan(verb: Callable[[Operations, str], object]) -> Side:
    """An operator's command on the plan; a refusal is an answer."""

    def act(stage: Stage, actor: Actor) -> None:
        with suppress(Refused):
            verb(actor.operator.operations, stage.plan)

    return act


apply_plan, pause = on_plan(Operations.apply), on_plan(Operations.pause)
resume = on_plan(Operations.resume)
cancel_plan = on_plan(lambda operations, plan: operations.cancel(plan, "why"))


def hand_over(stage: Stage, actor: Actor) -> None:
    """A worker gives the new key to its sink: the flow itself runs once at a time."""
    database, policy = actor.database, actor.runtime.policy
    rotation_id = database.run(hand_overs.due)
    if rotation_id is not None:
        leased = database.run(lambda tx: hand_overs.lease(tx, rotation_id, policy))
        if leased is not None:
            _give(actor, leased)


def wake_up(stage: Stage, actor: Actor) -> None:
    """The one that was thought dead goes on."""
    assert stage.leased
    _give(actor, stage.leased)


def _give(actor: Actor, leased: Leased) -> None:
    policy, sealer = actor.runtime.policy, actor.operator.keyring.sealer
    outcome = hand_overs.attempt(actor.runtime.sinks[SHELF], leased, sealer)
    actor.database.run(lambda tx: hand_overs.settle(tx, leased, outcome, policy))


def replace(stage: Stage, actor: Actor) -> None:
    """An operator fetches the successor of a key that a report has stopped."""
    with suppress(Refused):
        got = actor.operator.replace_compromised(stage.key)
        stage.texts[got.rotation.new_key_id] = got.secret.reveal()


# What must be so


def _count(stage: Stage, sql: str) -> int:
    row = stage.watch.execute(f"SELECT count(*) FROM keyturn.{sql}".encode()).fetchone()
    assert row
    return int(row[0])


def one_successor_each(stage: Stage) -> None:
    """Each of the three keys has one, and the plan is over."""
    assert stage.keeper.operator.operations.find(stage.plan).state == "completed"
    assert _count(stage, "rotations") == 3
    assert _count(stage, "api_keys") == 6


def applied_once(stage: Stage) -> None:
    """Whoever was first."""
    assert _count(stage, "audit WHERE action = 'operation.applied'") == 1
    one_successor_each(stage)


def none_begun(stage: Stage) -> None:
    """Whoever was first, it is cancelled before a worker comes to it."""
    assert stage.keeper.operator.operations.find(stage.plan).state == "cancelled"
    assert _count(stage, "rotations") == 0


def none_begun_since(stage: Stage) -> None:
    """Cancelled, or through before it could be: no key is begun after it."""
    found = stage.keeper.operator.operations.find(stage.plan)
    assert found.state in ("cancelled", "completed")
    assert _count(stage, "rotations") == found.issued


def rests(stage: Stage) -> None:
    """Paused, or through before it could be: nothing is begun after it."""
    found = stage.keeper.operator.operations.find(stage.plan)
    assert found.state in ("paused", "completed")
    assert _count(stage, "rotations") == found.issued


def two_keys(stage: Stage) -> None:
    """However it was asked for, the key has one successor."""
    assert _count(stage, "api_keys") == 2


def handed_over_once(stage: Stage) -> None:
    """The sink may have been given it twice, but the same, and one receipt counts."""
    assert len(set(stage.shelf.given)) == 1
    assert _count(stage, "audit WHERE action = 'rotation.handed_over'") == 1


def one_has_it(stage: Stage) -> None:
    """One of them counts; where the sink took the new key while its holder claimed it, both have
    it, and the audit says so."""
    assert _count(stage, "rotations WHERE claimed_at IS NOT NULL") == 1
    handed = _count(stage, "audit WHERE action = 'rotation.handed_over'")
    claimed = _count(stage, "audit WHERE action = 'rotation.claimed'")
    assert (handed, claimed) in ((0, 1), (1, 0), (1, 1))


def given_up(stage: Stage) -> None:
    """The key that its rotation's end took away works nowhere, whoever has it."""
    assert not any(stage.keeper.verify(text) for _, text in stage.shelf.given)


def cut_in_plan(stage: Stage) -> None:
    """No key of the one who is held works; the other owner's is rotated."""
    keys = stage.keeper.operator.get_api_keys(user=ADA)
    assert not any(stage.keeper.verify(stage.texts[k.id]) for k in keys if k.id in stage.texts)
    assert stage.keeper.operator.operations.find(stage.plan).state == "completed"
    assert [one.account for one in stage.keeper.operator.rotations(account=BOB)] == [BOB]


def stopped_in_plan(stage: Stage) -> None:
    """The key that others know, and one successor of it at most; the others are as planned."""
    assert not stage.keeper.verify(stage.texts[stage.key])
    assert _count(stage, "api_keys") <= 7


ROTATION_PAIRS: Final = (
    Pair("plan-apply-apply", planned, apply_plan, apply_plan, applied_once),
    Pair("plan-apply-cancel", planned, apply_plan, cancel_plan, none_begun),
    Pair("plan-advance-cancel", applied, carry_out, cancel_plan, none_begun_since),
    Pair("plan-advance-pause", applied, carry_out, pause, rests),
    Pair("plan-resume-pause", paused, resume, pause, rests),
    Pair("plan-advance-advance", applied, carry_out, carry_out, one_successor_each),
    Pair("plan-advance-request", applied, carry_out, request, one_successor_each),
    Pair("plan-advance-disable", applied, carry_out, disable, cut_in_plan),
    Pair("plan-advance-delete", applied, carry_out, delete),
    Pair("plan-advance-compromise", applied, carry_out, compromise, stopped_in_plan),
    Pair("sink-sink", to_shelf(), hand_over, hand_over, handed_over_once),
    Pair("sink-late", to_shelf(thought_dead), hand_over, wake_up, handed_over_once),
    Pair("sink-claim", to_shelf(), hand_over, claim, one_has_it),
    Pair("sink-cancel", to_shelf(), hand_over, cancel, given_up),
    Pair("sink-disable", to_shelf(), hand_over, disable, cut),
    Pair("sink-reissue", to_shelf(), hand_over, reissue),
    Pair("sink-compromise", to_shelf(), hand_over, compromise, stopped_for_good),
    Pair("sink-delete", to_shelf(), hand_over, delete),
    Pair("policy-request", by_policy("scheduled"), start_due, request, two_keys),
    Pair("policy-disable", by_policy("scheduled"), start_due, disable, cut),
    Pair("policy-delete", by_policy("scheduled"), start_due, delete),
    Pair("leak-request", reported, apply, request, stopped_for_good),
    Pair("leak-claim", after(issued, reported), apply, claim, stopped_for_good),
    Pair("leak-compromise", reported, apply, compromise, stopped_for_good),
    Pair("leak-undo", after(retired, reported), apply, undo, stopped_for_good),
    Pair("follow-replace", by_policy("issuing", held_by_report), follow, replace, two_keys),
    Pair("follow-claim", after(issued, held_by_report), follow, claim),
    Pair("undo-confirm", retired, undo, confirm),
    Pair("undo-compromise", retired, undo, compromise, stopped_for_good),
    Pair("undo-retire", lambda s: s.draining(8 * DAY), undo, flow("rotations.advance")),
)
