"""Hand-overs to sinks, and the public keys that new keys are sealed to.

Revision ID: 0008
Revises: 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("ALTER TABLE keyturn.accounts ADD COLUMN public_key jsonb")
    op.execute(
        "ALTER TABLE keyturn.rotations ADD COLUMN sink text DEFAULT 'claim' NOT NULL,"
        " ADD COLUMN claimed_by text"
    )
    op.execute(
        """
        CREATE TABLE keyturn.hand_overs (
            rotation_id uuid NOT NULL,
            sink text NOT NULL,
            state text DEFAULT 'waiting' NOT NULL,
            attempts integer DEFAULT 0 NOT NULL,
            fence integer DEFAULT 0 NOT NULL,
            due_at timestamptz NOT NULL,
            error text,
            receipt text,
            delivered_at timestamptz,
            CONSTRAINT pk_hand_overs PRIMARY KEY (rotation_id),
            CONSTRAINT fk_hand_overs_rotation_id_rotations
                FOREIGN KEY (rotation_id) REFERENCES keyturn.rotations (id),
            CONSTRAINT ck_hand_overs_state
                CHECK (state IN ('waiting', 'delivered', 'done', 'failed', 'skipped'))
        )
        """
    )
    op.execute(
        "CREATE INDEX ix_hand_overs_due ON keyturn.hand_overs (due_at)"
        " WHERE state IN ('waiting', 'delivered')"
    )


def downgrade() -> None:
    op.execute("DROP TABLE keyturn.hand_overs")
    op.execute("ALTER TABLE keyturn.rotations DROP COLUMN claimed_by, DROP COLUMN sink")
    op.execute("ALTER TABLE keyturn.accounts DROP COLUMN public_key")
