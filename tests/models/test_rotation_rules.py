"""`decide` for every rule sentence of rotation, on facts alone."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from models.policy import Policy
from models.rotation_rules import (
    RECHECK,
    Block,
    Cancel,
    Complete,
    Confirm,
    Pause,
    Resume,
    Retire,
    Rotation,
    Transition,
    Wait,
    Warn,
    claim_deadline,
    decide,
    retirement,
)

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
T0 = datetime(2026, 3, 1, tzinfo=UTC)
POLICY = Policy()
OLD_END, NEW_END = T0 + 40 * DAY, T0 + 90 * DAY

ISSUED = Rotation(
    id=UUID(int=1),
    account_id=UUID(int=2),
    account="ada@example.com",
    account_held=False,
    family_id=UUID(int=3),
    state="issued",
    reason="requested",
    operation_id=None,
    policy_name=None,
    name="build",
    role="reader",
    old_key_id=UUID(int=3),
    old_hint="aaaa",
    old_status="active",
    old_expires_at=OLD_END,
    old_deleted_at=None,
    old_last_used_at=None,
    old_last_ip=None,
    old_uses=0,
    uses_since=T0,
    old_compromised=False,
    new_key_id=UUID(int=4),
    new_hint="bbbb",
    new_status="active",
    new_expires_at=NEW_END,
    new_deleted_at=None,
    new_first_used_at=None,
    new_works=True,
    family_used=False,
    requested_by="op",
    idempotency_key=None,
    issued_at=T0,
    claim_until=T0 + 3 * DAY,
    claimable=True,
    claimed_at=None,
    confirmed_at=None,
    confirmed_by=None,
    retire_at=None,
    paused_at=None,
    resumed_at=None,
    held_from=None,
    held_until=None,
    retired_at=None,
    undo_until=None,
    undone_at=None,
    ended_at=None,
    cancel_reason=None,
    reissued_as=None,
    blocked_reason=None,
    warned_for=None,
    next_check_at=T0 + 3 * DAY,
)
CLAIMED = replace(ISSUED, claimed_at=T0 + HOUR, claimable=False)
CONFIRMED_AT = T0 + 2 * HOUR
RETIRE_AT = CONFIRMED_AT + 7 * DAY
DRAINING = replace(
    CLAIMED,
    state="draining",
    new_first_used_at=CONFIRMED_AT,
    family_used=True,
    confirmed_at=CONFIRMED_AT,
    confirmed_by="use",
    retire_at=RETIRE_AT,
)
UNDO_UNTIL = RETIRE_AT + 7 * DAY
RETIRED = replace(DRAINING, state="retired", retired_at=RETIRE_AT, undo_until=UNDO_UNTIL)
HELD_AT, FREE_AT = T0 + 5 * HOUR, T0 + 9 * HOUR
HELD: dict[str, Any] = {"account_held": True, "held_from": HELD_AT, "new_works": False}
FREED: dict[str, Any] = {"paused_at": HELD_AT, "held_from": HELD_AT, "held_until": FREE_AT}
MISSED: dict[str, Any] = {"held_from": HELD_AT, "held_until": FREE_AT}
SOON = T0 + DAY

CASES: list[tuple[str, Rotation, datetime, Transition]] = [
    # issued
    ("unclaimed waits for its deadline", ISSUED, SOON, Wait(T0 + 3 * DAY)),
    ("unclaimed at the deadline is cancelled", ISSUED, T0 + 3 * DAY, Cancel("unclaimed")),
    ("claimed is not cancelled at the deadline", CLAIMED, T0 + 3 * DAY, Wait(OLD_END)),
    (
        "the first use of the successor confirms, as of that use",
        replace(CLAIMED, new_first_used_at=CONFIRMED_AT),
        SOON,
        Confirm(CONFIRMED_AT, "use"),
    ),
    (
        "a use confirms even what nobody claimed",
        replace(ISSUED, new_first_used_at=CONFIRMED_AT),
        T0 + 3 * DAY,
        Confirm(CONFIRMED_AT, "use"),
    ),
    (
        "claimed and never used ends with the old key",
        CLAIMED,
        OLD_END,
        Complete("old_key_expired"),
    ),
    (
        "an old key deleted before the claim leaves nobody to claim",
        replace(ISSUED, old_deleted_at=SOON),
        SOON,
        Cancel("old_key_deleted"),
    ),
    (
        "an old key deleted after the claim ends the rotation",
        replace(CLAIMED, old_deleted_at=SOON),
        SOON,
        Complete("old_key_deleted"),
    ),
    (
        "a deleted successor cancels",
        replace(CLAIMED, new_deleted_at=SOON),
        SOON,
        Cancel("successor_deleted"),
    ),
    # draining
    ("draining waits for the warning", DRAINING, SOON, Wait(RETIRE_AT - DAY)),
    ("a day before the end its owner is warned", DRAINING, RETIRE_AT - DAY, Warn(RETIRE_AT)),
    ("warned late is warned all the same", DRAINING, RETIRE_AT - HOUR, Warn(RETIRE_AT)),
    (
        "warned of this time it waits for it",
        replace(DRAINING, warned_for=RETIRE_AT),
        RETIRE_AT - HOUR,
        Wait(RETIRE_AT),
    ),
    (
        "warned of another time it is warned anew",
        replace(DRAINING, warned_for=RETIRE_AT - DAY),
        RETIRE_AT - HOUR,
        Warn(RETIRE_AT),
    ),
    (
        "confirmed within the last day it needs no warning",
        replace(DRAINING, retire_at=CONFIRMED_AT + DAY),
        CONFIRMED_AT + HOUR,
        Wait(CONFIRMED_AT + DAY),
    ),
    ("a quiet old key is retired at its time", DRAINING, RETIRE_AT, Retire("quiet")),
    (
        "an old key used since is not",
        replace(DRAINING, old_last_used_at=RETIRE_AT - HOUR),
        RETIRE_AT,
        Block("old_key_in_use", RETIRE_AT + 24 * HOUR),
    ),
    (
        "a use 25 hours ago is quiet",
        replace(DRAINING, old_last_used_at=RETIRE_AT - 25 * HOUR),
        RETIRE_AT,
        Retire("quiet"),
    ),
    (
        "a use a second less ago is not",
        replace(DRAINING, old_last_used_at=RETIRE_AT - 25 * HOUR + timedelta(seconds=1)),
        RETIRE_AT,
        Block("old_key_in_use", RETIRE_AT + timedelta(seconds=1)),
    ),
    (
        "blocked by use, it goes on when quiet comes",
        replace(DRAINING, old_last_used_at=RETIRE_AT - HOUR, blocked_reason="old_key_in_use"),
        RETIRE_AT + 24 * HOUR,
        Retire("quiet"),
    ),
    (
        "quiet is not believed where no use was ever recorded",
        replace(DRAINING, confirmed_by="op", new_first_used_at=None, family_used=False),
        RETIRE_AT,
        Block("uses_not_reported", RETIRE_AT + RECHECK),
    ),
    (
        "a successor that does not work keeps the old key",
        replace(DRAINING, new_works=False),
        RETIRE_AT,
        Block("successor_not_working", RETIRE_AT + RECHECK),
    ),
    (
        "a successor that ends first keeps the old key",
        replace(DRAINING, new_expires_at=OLD_END - HOUR),
        RETIRE_AT,
        Block("successor_ends_first", RETIRE_AT + RECHECK),
    ),
    (
        "a recheck never waits beyond the old key's end",
        replace(DRAINING, old_last_used_at=OLD_END - HOUR, retire_at=OLD_END - HOUR),
        OLD_END - HOUR,
        Block("old_key_in_use", OLD_END),
    ),
    (
        "an old key at its end completes, in use or not",
        replace(DRAINING, old_last_used_at=OLD_END - HOUR),
        OLD_END,
        Complete("old_key_expired"),
    ),
    (
        "an old key deleted meanwhile completes",
        replace(DRAINING, old_deleted_at=SOON),
        SOON,
        Complete("old_key_deleted"),
    ),
    (
        "a successor deleted meanwhile cancels, the old key is the last",
        replace(DRAINING, new_deleted_at=SOON, new_works=False),
        SOON,
        Cancel("successor_deleted"),
    ),
    # retired
    ("retired waits for the undo window", RETIRED, UNDO_UNTIL - HOUR, Wait(UNDO_UNTIL)),
    ("then the old key goes", RETIRED, UNDO_UNTIL, Complete("undo_ended", delete_old=True)),
    (
        "an old key deleted by hand completes",
        replace(RETIRED, old_deleted_at=UNDO_UNTIL - HOUR),
        UNDO_UNTIL - HOUR,
        Complete("old_key_deleted"),
    ),
    (
        "a deleted successor does not bring the old key back",
        replace(RETIRED, new_deleted_at=UNDO_UNTIL - HOUR),
        UNDO_UNTIL - HOUR,
        Wait(UNDO_UNTIL),
    ),
    # holds of the account
    ("a hold pauses what is issued", replace(ISSUED, **HELD), SOON, Pause(HELD_AT)),
    ("a hold pauses what drains", replace(DRAINING, **HELD), RETIRE_AT, Pause(HELD_AT)),
    ("a hold pauses the undo window", replace(RETIRED, **HELD), UNDO_UNTIL, Pause(HELD_AT)),
    (
        "while paused nothing is due",
        replace(DRAINING, **HELD, paused_at=HELD_AT),
        OLD_END,
        Wait(DRAINING.next_check_at),
    ),
    (
        "deletion is seen even while paused",
        replace(DRAINING, **HELD, paused_at=HELD_AT, old_deleted_at=SOON),
        SOON,
        Complete("old_key_deleted"),
    ),
    (
        "restored, unclaimed: cancelled",
        replace(ISSUED, **FREED, claimable=False),
        SOON,
        Cancel("account_held"),
    ),
    (
        "restored, claimed: goes on",
        replace(CLAIMED, **FREED),
        SOON,
        Resume(FREE_AT - HELD_AT, FREE_AT),
    ),
    (
        "restored, draining: goes on",
        replace(DRAINING, **FREED),
        SOON,
        Resume(FREE_AT - HELD_AT, FREE_AT),
    ),
    (
        "a hold between two looks paused it too",
        replace(DRAINING, **MISSED),
        SOON,
        Resume(FREE_AT - HELD_AT, FREE_AT),
    ),
    (
        "and cancelled what was unclaimed",
        replace(ISSUED, **MISSED),
        SOON,
        Cancel("account_held"),
    ),
    # ended
    (
        "what is completed stays",
        replace(RETIRED, state="completed"),
        UNDO_UNTIL,
        Wait(RETIRED.next_check_at),
    ),
    (
        "what is cancelled stays",
        replace(ISSUED, state="cancelled"),
        T0 + 3 * DAY,
        Wait(ISSUED.next_check_at),
    ),
]


@pytest.mark.parametrize(
    ("rotation", "now", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_decides(rotation: Rotation, now: datetime, expected: Transition) -> None:
    assert decide(rotation, POLICY, now) == expected


@pytest.mark.parametrize(
    ("rotation", "now"), [case[1:3] for case in CASES], ids=[case[0] for case in CASES]
)
def test_what_rests_is_due_again_only_later(rotation: Rotation, now: datetime) -> None:
    step = decide(rotation, POLICY, now)
    free = rotation.state in ("issued", "draining", "retired") and not rotation.account_held
    if free and isinstance(step, Wait | Block):
        assert step.until > now


def test_quiet_counts_from_the_resumption() -> None:
    resumed = replace(
        DRAINING, resumed_at=RETIRE_AT - HOUR, retire_at=RETIRE_AT, old_last_used_at=None
    )
    assert isinstance(decide(resumed, POLICY, RETIRE_AT), Block)
    assert decide(resumed, POLICY, RETIRE_AT + 24 * HOUR) == Retire("quiet")


def test_the_sealed_secret_stays_for_72_hours() -> None:
    assert (
        claim_deadline(issued_at=T0, old_expires_at=OLD_END, new_expires_at=NEW_END, policy=POLICY)
        == T0 + 72 * HOUR
    )


def test_or_to_the_successors_own_end_if_the_old_key_has_ended_by_then() -> None:
    assert (
        claim_deadline(
            issued_at=T0, old_expires_at=T0 + 72 * HOUR, new_expires_at=NEW_END, policy=POLICY
        )
        == NEW_END
    )


def test_and_never_longer_than_the_successor() -> None:
    short = replace(POLICY, sealed_for=30 * DAY)
    assert (
        claim_deadline(
            issued_at=T0, old_expires_at=OLD_END, new_expires_at=T0 + 20 * DAY, policy=short
        )
        == T0 + 20 * DAY
    )


@pytest.mark.parametrize(
    ("overlap", "quiet", "old_end", "expected"),
    [
        (7 * DAY, 25 * HOUR, T0 + 40 * DAY, T0 + 7 * DAY),
        (HOUR, 25 * HOUR, T0 + 40 * DAY, T0 + 25 * HOUR),
        (7 * DAY, 25 * HOUR, T0 + 5 * DAY, T0 + 5 * DAY),
    ],
    ids=["after the overlap", "never before quiet is possible", "never after the old end"],
)
def test_retirement(
    overlap: timedelta, quiet: timedelta, old_end: datetime, expected: datetime
) -> None:
    policy = replace(POLICY, rotation_overlap=overlap, rotation_quiet=quiet)
    assert (
        retirement(confirmed_at=T0, quiet_from=T0, old_expires_at=old_end, policy=policy)
        == expected
    )
