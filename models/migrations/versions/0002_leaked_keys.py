"""Reports of leaked keys, and deletions that stay confirmed.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("ALTER TABLE keyturn.inbox ADD COLUMN key_digest text")
    op.execute("ALTER TABLE keyturn.holds ADD COLUMN confirmed_at timestamp with time zone")


def downgrade() -> None:
    op.execute("ALTER TABLE keyturn.holds DROP COLUMN confirmed_at")
    op.execute("ALTER TABLE keyturn.inbox DROP COLUMN key_digest")
