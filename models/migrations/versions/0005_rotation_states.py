"""Rotation: policies, and what undo and the warnings before the end need.

Revision ID: 0005
Revises: 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"


_COLUMNS = """
    ALTER TABLE keyturn.rotations
        ADD COLUMN reason text NOT NULL DEFAULT 'requested',
        ADD COLUMN operation_id uuid,
        ADD COLUMN old_uses_before bigint NOT NULL DEFAULT 0,
        ADD COLUMN warned_for timestamptz,
        ADD COLUMN undone_at timestamptz,
        ADD COLUMN reissued_as uuid,
        ADD CONSTRAINT ck_rotations_reason
            CHECK (reason IN ('requested', 'scheduled', 'operation', 'compromised')),
        DROP CONSTRAINT ck_rotations_confirmed,
        ADD CONSTRAINT ck_rotations_issued CHECK (
            state <> 'issued' OR num_nonnulls(confirmed_at, retire_at, retired_at) = 0),
        ADD CONSTRAINT ck_rotations_draining CHECK (
            state NOT IN ('draining', 'retired')
            OR num_nulls(confirmed_at, confirmed_by, retire_at) = 0),
        ADD CONSTRAINT ck_rotations_retired CHECK (
            state <> 'retired' OR num_nulls(retired_at, undo_until) = 0),
        ADD CONSTRAINT ck_rotations_ended CHECK (
            (state IN ('completed', 'cancelled')) = (ended_at IS NOT NULL)),
        ADD CONSTRAINT ck_rotations_cancelled CHECK (
            (state = 'cancelled') = (cancel_reason IS NOT NULL)),
        ADD CONSTRAINT ck_rotations_waits CHECK (
            state IN ('issued', 'draining', 'retired')
            OR num_nonnulls(paused_at, blocked_reason) = 0),
        ADD CONSTRAINT ck_rotations_reissued CHECK (
            reissued_as IS NULL OR state = 'cancelled')
"""
_REFUSE = """
    CREATE FUNCTION keyturn.refuse_rotation_state() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            RAISE EXCEPTION 'a rotation begins as issued, not as %', NEW.state
                USING ERRCODE = 'check_violation';
        END IF;
        RAISE EXCEPTION 'no transition leads from % to %', OLD.state, NEW.state
            USING ERRCODE = 'check_violation';
    END $$
"""
_BEGINS = """
    CREATE TRIGGER rotation_begins BEFORE INSERT ON keyturn.rotations
    FOR EACH ROW WHEN (NEW.state <> 'issued')
    EXECUTE FUNCTION keyturn.refuse_rotation_state()
"""
_MOVES = """
    CREATE TRIGGER rotation_moves BEFORE UPDATE ON keyturn.rotations
    FOR EACH ROW WHEN (OLD.state <> NEW.state AND (OLD.state, NEW.state) NOT IN (
        ('issued', 'draining'), ('issued', 'cancelled'), ('issued', 'completed'),
        ('draining', 'retired'), ('draining', 'completed'), ('draining', 'cancelled'),
        ('retired', 'draining'), ('retired', 'completed')))
    EXECUTE FUNCTION keyturn.refuse_rotation_state()
"""


def upgrade() -> None:
    for table in ("roles", "accounts", "api_keys"):
        op.execute(f"ALTER TABLE keyturn.{table} ADD COLUMN rotation_policy text")
    for statement in (_COLUMNS, _REFUSE, _BEGINS, _MOVES):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TRIGGER rotation_moves ON keyturn.rotations")
    op.execute("DROP TRIGGER rotation_begins ON keyturn.rotations")
    op.execute("DROP FUNCTION keyturn.refuse_rotation_state()")
    for name in ("issued", "draining", "retired", "ended", "cancelled", "waits", "reissued"):
        op.execute(f"ALTER TABLE keyturn.rotations DROP CONSTRAINT ck_rotations_{name}")
    op.execute(
        """
        ALTER TABLE keyturn.rotations DROP COLUMN reason, DROP COLUMN operation_id,
            DROP COLUMN old_uses_before, DROP COLUMN warned_for, DROP COLUMN undone_at,
            DROP COLUMN reissued_as,
            ADD CONSTRAINT ck_rotations_confirmed
                CHECK (state NOT IN ('draining', 'retired') OR confirmed_at IS NOT NULL)
        """
    )
    for table in ("roles", "accounts", "api_keys"):
        op.execute(f"ALTER TABLE keyturn.{table} DROP COLUMN rotation_policy")
