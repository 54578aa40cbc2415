"""The pairs of flows that may meet. Whatever new flow may meet another is listed here."""

from collections.abc import Callable
from typing import Final

from models.events import Action
from tests.races.rotation_pairs import ROTATION_PAIRS
from tests.races.sides import (
    Pair,
    advance,
    apply,
    apply_and_settle,
    bob_is_held,
    cancel,
    claim,
    compromise,
    confirm,
    confirmed_once,
    create,
    cut,
    delete,
    delete_successor,
    deliver,
    disable,
    disable_key,
    disabled,
    each_rung_once,
    enable,
    enable_deleted,
    expire,
    flow,
    join,
    nobody_twice,
    one_claimant,
    one_issue_more,
    one_live_successor,
    one_successor,
    reissue,
    request,
    request_successor,
    settle,
    stopped_for_good,
    tick,
    undo,
    use_successor,
)
from tests.races.stage import DAY, HOUR, NOW, Stage
from tests.races.tenant_pairs import TENANT_PAIRS
from tests.world import ADA


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
        bob_is_held,
    ),
    Pair("settle-settle", held, settle, settle, cut),
    Pair("tick-tick", lambda stage: None, tick, tick, each_rung_once),
    Pair("deliver-deliver", messages, deliver, deliver, nobody_twice),
    *ROTATION_PAIRS,
    *TENANT_PAIRS,
)
