"""The outbox by what is looked for in it: settled rows past their keeping, and told blocks.

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute(
        "CREATE INDEX ix_outbox_settled ON keyturn.outbox (settled_at)"
        " WHERE state IN ('sent', 'skipped')"
    )
    op.execute(
        "CREATE INDEX ix_outbox_blocked ON keyturn.outbox (account_id)"
        " WHERE kind = 'rotation.blocked'"
    )
    op.execute("DROP INDEX keyturn.ix_outbox_account_id")


def downgrade() -> None:
    op.execute("CREATE INDEX ix_outbox_account_id ON keyturn.outbox (account_id)")
    op.execute("DROP INDEX keyturn.ix_outbox_blocked")
    op.execute("DROP INDEX keyturn.ix_outbox_settled")
