"""Identities that come to name somebody else; sources that have fallen silent.

Revision ID: 0011
Revises: 0010
"""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE keyturn.account_identities
            ADD COLUMN linked_by text,
            ADD COLUMN unlinked_by text,
            ADD COLUMN linked_sequence bigint,
            ADD COLUMN unlinked_sequence bigint,
            ADD COLUMN replaced boolean NOT NULL DEFAULT false
        """
    )
    op.execute(
        "CREATE INDEX ix_account_identities_unlinked ON keyturn.account_identities"
        " (format, issuer, value) WHERE unlinked_at IS NOT NULL"
    )
    op.execute("ALTER TABLE keyturn.inbox ADD COLUMN new_subject jsonb")
    op.execute(
        "CREATE INDEX ix_inbox_taken ON keyturn.inbox USING gin (subject_value)"
        " WHERE state = 'parked' AND action = 'identity_changed'"
    )
    op.execute("CREATE INDEX ix_inbox_source ON keyturn.inbox (source, id)")
    op.execute(
        """
        CREATE TABLE keyturn.source_silences (
            source text NOT NULL CONSTRAINT pk_source_silences PRIMARY KEY,
            since timestamptz NOT NULL,
            told_at timestamptz
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE keyturn.source_silences")
    op.execute("DROP INDEX keyturn.ix_inbox_source")
    op.execute("DROP INDEX keyturn.ix_inbox_taken")
    op.execute("ALTER TABLE keyturn.inbox DROP COLUMN new_subject")
    op.execute("DROP INDEX keyturn.ix_account_identities_unlinked")
    op.execute(
        """
        ALTER TABLE keyturn.account_identities
            DROP COLUMN linked_by, DROP COLUMN unlinked_by, DROP COLUMN linked_sequence,
            DROP COLUMN unlinked_sequence, DROP COLUMN replaced
        """
    )
