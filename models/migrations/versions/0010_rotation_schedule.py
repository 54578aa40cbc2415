"""When keys are due for rotation, and which sealed secrets an older key-encryption key seals.

Revision ID: 0010
Revises: 0009
"""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE keyturn.rotation_schedule (
            key_id uuid NOT NULL,
            policy text NOT NULL,
            rotate_at timestamptz NOT NULL,
            next_at timestamptz,
            reason text,
            tries smallint NOT NULL DEFAULT 0,
            started_at timestamptz,
            rotation_id uuid,
            CONSTRAINT pk_rotation_schedule PRIMARY KEY (key_id)
        )
        """
    )
    op.execute(
        "CREATE INDEX ix_rotation_schedule_next_at ON keyturn.rotation_schedule (next_at)"
        " WHERE next_at IS NOT NULL"
    )
    op.execute(
        "CREATE INDEX ix_rotation_schedule_started_at ON keyturn.rotation_schedule (started_at)"
        " WHERE started_at IS NOT NULL"
    )
    op.execute(
        "CREATE INDEX ix_rotations_sealed_kek ON keyturn.rotations (sealed_kek)"
        " WHERE sealed_kek IS NOT NULL"
    )


def downgrade() -> None:
    op.execute("DROP INDEX keyturn.ix_rotations_sealed_kek")
    op.execute("DROP TABLE keyturn.rotation_schedule")
