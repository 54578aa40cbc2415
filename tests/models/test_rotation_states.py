"""One table of transitions: the picture shows it, the code and the database keep to it."""

from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any, Final, get_args
from uuid import UUID

import psycopg
import pytest

from models.rotation_rows import one
from models.rotation_rules import (
    Block,
    Cancel,
    Complete,
    Confirm,
    Pause,
    Resume,
    Retire,
    Rotation,
    Transition,
    Undo,
    Wait,
    Warn,
)
from models.rotation_states import PAIRS, TRANSITIONS, NoSuchTransition
from models.rotation_steps import take
from models.tables import ROTATION_STATES
from tests.models.rotation_picture import DOCUMENT, drawn
from tests.models.scene import START, Scene

STEPS: Final[tuple[Transition, ...]] = (
    Confirm(START, "op"),
    Retire("quiet"),
    Undo("why"),
    Complete("why"),
    Cancel("why"),
)
STAY: Final[tuple[Transition, ...]] = (
    Wait(START),
    Warn(START),
    Block("old_key_in_use", START),
    Pause(START),
    Resume(timedelta(0), START),
)
HAS: Final = {
    "issued": "",
    "draining": "confirmed_at confirmed_by retire_at",
    "retired": "confirmed_at confirmed_by retire_at retired_at undo_until",
    "completed": "ended_at",
    "cancelled": "ended_at cancel_reason",
}
"""What a row of each state must have, and no more."""


def test_the_picture_is_drawn_from_the_table() -> None:
    document = DOCUMENT.read_text("utf-8")
    assert document == drawn(document), "run `python -m tests.models.rotation_picture`"


def row(state: str) -> dict[str, Any]:
    """The columns of a row in a state, as the CHECKs want them."""
    names = {name for has in HAS.values() for name in has.split()}
    texts = {"confirmed_by": "op", "cancel_reason": "why"}
    given = {name: texts.get(name, START) if name in HAS[state].split() else None for name in names}
    return {"state": state, "sealed": None, "sealed_kek": None, **given}


def put(connection: psycopg.Connection, rotation: Rotation, state: str) -> None:
    """Bring the row into a state behind the trigger's back."""
    connection.execute("ALTER TABLE keyturn.rotations DISABLE TRIGGER rotation_moves")
    update(connection, rotation.id, state)
    connection.execute("ALTER TABLE keyturn.rotations ENABLE TRIGGER rotation_moves")


def update(connection: psycopg.Connection, rotation_id: UUID, state: str) -> None:
    """A plain UPDATE to a state and to what the CHECKs want of it."""
    values = row(state)
    changes = ", ".join(f"{name} = %({name})s" for name in values)
    statement = f"UPDATE keyturn.rotations SET {changes} WHERE id = %(id)s"
    connection.execute(statement.encode(), {**values, "id": rotation_id})


@pytest.fixture
def rotation(scene: Scene) -> Rotation:
    return scene.request(scene.key())


def test_no_pair_outside_the_table_can_be_written_even_by_the_tables_owner(
    rotation: Rotation, scene_database: psycopg.Connection
) -> None:
    passed, refused = set(), {}
    for before, after in product(ROTATION_STATES, ROTATION_STATES):
        put(scene_database, rotation, before)
        try:
            update(scene_database, rotation.id, after)
        except psycopg.errors.CheckViolation as error:
            refused[before, after] = error.diag.message_primary
        else:
            passed.add((before, after))
    same = {(state, state) for state in ROTATION_STATES}
    assert passed == {pair for pair in PAIRS if pair[0]} | same
    assert refused == {
        (before, after): f"no transition leads from {before} to {after}"
        for before, after in product(ROTATION_STATES, ROTATION_STATES)
        if (before, after) not in passed
    }


def test_every_rotation_begins_as_issued(
    rotation: Rotation, scene_database: psycopg.Connection
) -> None:
    scene_database.execute(b"DROP INDEX keyturn.uq_rotations_open_family")
    scene_database.execute(b"ALTER TABLE keyturn.rotations DROP CONSTRAINT uq_rotations_new_key_id")
    passed, refused = set(), {}
    try:
        for state in ROTATION_STATES:
            values = row(state)
            names = ", ".join(values)
            places = ", ".join(f"%({name})s" for name in values)
            insert = f"""
                INSERT INTO keyturn.rotations (id, account_id, family_id, old_key_id, new_key_id,
                    requested_by, sealed_until, issued_at, next_check_at, {names})
                SELECT gen_random_uuid(), account_id, family_id, old_key_id, new_key_id,
                    'op', now(), now(), now(), {places} FROM keyturn.rotations WHERE id = %(id)s
            """
            try:
                scene_database.execute(insert.encode(), {**values, "id": rotation.id})
            except psycopg.errors.CheckViolation as error:
                refused[state] = error.diag.message_primary
            else:
                passed.add((None, state))
    finally:
        scene_database.execute(b"DELETE FROM keyturn.rotations")
        scene_database.execute(
            b"""
            CREATE UNIQUE INDEX uq_rotations_open_family ON keyturn.rotations (family_id)
            WHERE state IN ('issued', 'draining')
            """
        )
        scene_database.execute(
            b"ALTER TABLE keyturn.rotations ADD CONSTRAINT uq_rotations_new_key_id"
            b" UNIQUE (new_key_id)"
        )
    assert passed == {pair for pair in PAIRS if not pair[0]}
    assert refused == {
        state: f"a rotation begins as issued, not as {state}"
        for state in ROTATION_STATES
        if state != "issued"
    }


@pytest.mark.parametrize(
    ("state", "name"), [(state, name) for state, has in HAS.items() for name in has.split()]
)
def test_a_state_has_what_it_needs(
    rotation: Rotation, scene_database: psycopg.Connection, state: str, name: str
) -> None:
    put(scene_database, rotation, state)
    with pytest.raises(psycopg.errors.CheckViolation):
        scene_database.execute(
            f"UPDATE keyturn.rotations SET {name} = NULL WHERE id = %s".encode(), [rotation.id]
        )


@pytest.mark.parametrize(
    ("state", "name", "value"),
    [
        ("issued", "confirmed_at", START),
        ("issued", "retire_at", START),
        ("issued", "retired_at", START),
        ("issued", "ended_at", START),
        ("draining", "sealed", b"x"),
        ("draining", "ended_at", START),
        ("draining", "cancel_reason", "why"),
        ("draining", "reissued_as", UUID(int=1)),
        ("retired", "ended_at", START),
        ("completed", "cancel_reason", "why"),
        ("completed", "blocked_reason", "why"),
        ("completed", "paused_at", START),
        ("cancelled", "blocked_reason", "why"),
        ("cancelled", "paused_at", START),
        ("issued", "reason", "whim"),
    ],
)
def test_a_state_has_nothing_else(
    rotation: Rotation, scene_database: psycopg.Connection, state: str, name: str, value: object
) -> None:
    put(scene_database, rotation, state)
    with pytest.raises(psycopg.errors.CheckViolation):
        scene_database.execute(
            f"UPDATE keyturn.rotations SET {name} = %s WHERE id = %s".encode(),
            [value, rotation.id],
        )


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
@pytest.mark.parametrize("state", ROTATION_STATES)
def test_a_step_leads_where_the_table_says_or_nowhere(
    scene: Scene,
    rotation: Rotation,
    scene_database: psycopg.Connection,
    state: str,
    step: Transition,
) -> None:
    put(scene_database, rotation, state)
    leads = [e.after for e in TRANSITIONS if (e.before, e.step) == (state, type(step))]
    with scene.database.begin() as tx:
        before = one(tx, rotation.id)
        if leads:
            assert take(tx, before, step, actor="op", policy=scene.policy)
        else:
            with pytest.raises(NoSuchTransition):
                take(tx, before, step, actor="op", policy=scene.policy)
    assert scene.rotation(rotation).state == (leads[0] if leads else state)


@pytest.mark.parametrize("step", STAY, ids=lambda step: type(step).__name__)
def test_other_steps_keep_the_state(scene: Scene, step: Transition) -> None:
    rotation = scene.draining()
    with scene.database.begin() as tx:
        take(tx, rotation, step, actor="op", policy=scene.policy)
    assert scene.rotation(rotation).state == "draining"


def test_every_kind_of_step_is_tried_here() -> None:
    assert {type(step) for step in (*STEPS, *STAY)} == set(get_args(Transition))


def test_a_step_of_a_rotation_that_has_moved_on_does_nothing(scene: Scene) -> None:
    draining = scene.draining()
    stale = replace(draining, state="issued")
    with scene.database.begin() as tx:
        assert not take(tx, stale, Cancel("why"), actor="op", policy=scene.policy)
    assert scene.find_key(draining.new_key_id).status == "active"
