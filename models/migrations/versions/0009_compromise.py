"""Compromised keys: what follows their hold. Uses that were refused, and when their owner was told.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE keyturn.key_uses
            ADD COLUMN refused_at timestamptz,
            ADD COLUMN refused_uses bigint NOT NULL DEFAULT 0,
            ADD COLUMN refused_ip inet,
            ADD COLUMN refused_told_at timestamptz
        """
    )
    op.execute(
        "CREATE INDEX ix_key_uses_refused ON keyturn.key_uses (key_id)"
        " WHERE refused_at > coalesce(refused_told_at, '-infinity')"
    )
    op.execute(
        """
        CREATE TABLE keyturn.compromises (
            key_id uuid NOT NULL CONSTRAINT pk_compromises PRIMARY KEY
                CONSTRAINT fk_compromises_key_id_api_keys REFERENCES keyturn.api_keys (id),
            account_id uuid NOT NULL,
            actor text NOT NULL,
            reported_at timestamptz NOT NULL,
            issue boolean NOT NULL,
            state text NOT NULL DEFAULT 'open'
                CONSTRAINT ck_compromises_state CHECK (state IN ('open', 'done')),
            outcome text,
            rotation_id uuid,
            attempts integer NOT NULL DEFAULT 0,
            next_attempt_at timestamptz NOT NULL
        )
        """
    )
    op.execute(
        "CREATE INDEX ix_compromises_open ON keyturn.compromises (next_attempt_at)"
        " WHERE state = 'open'"
    )


def downgrade() -> None:
    op.execute("DROP TABLE keyturn.compromises")
    op.execute("DROP INDEX keyturn.ix_key_uses_refused")
    op.execute(
        """
        ALTER TABLE keyturn.key_uses DROP COLUMN refused_at, DROP COLUMN refused_uses,
            DROP COLUMN refused_ip, DROP COLUMN refused_told_at
        """
    )
