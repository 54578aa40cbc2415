"""What idle runs look for: deletions to carry out, marks of the last run; the audit by actor.

Revision ID: 0006
Revises: 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("ALTER TABLE keyturn.holds ADD COLUMN carried_out_at timestamptz")
    op.execute("DROP INDEX keyturn.ix_holds_deletion")
    op.execute(
        "CREATE INDEX ix_holds_deletion ON keyturn.holds (placed_at)"
        " WHERE kind = 'deleted' AND lifted_at IS NULL AND NOT confirm"
        " AND (carried_out_at IS NULL OR carried_out_at < placed_at)"
    )
    op.execute("ALTER TABLE keyturn.schedule_runs ADD COLUMN mark jsonb")
    op.execute("CREATE INDEX ix_audit_actor ON keyturn.audit (actor, id) WHERE actor <> 'keyturn'")
    op.execute(
        "CREATE INDEX ix_audit_burst ON keyturn.audit (actor, at) WHERE action = 'source.cut_many'"
    )


def downgrade() -> None:
    op.execute("DROP INDEX keyturn.ix_audit_burst")
    op.execute("DROP INDEX keyturn.ix_audit_actor")
    op.execute("ALTER TABLE keyturn.schedule_runs DROP COLUMN mark")
    op.execute("DROP INDEX keyturn.ix_holds_deletion")
    op.execute(
        "CREATE INDEX ix_holds_deletion ON keyturn.holds (placed_at)"
        " WHERE kind = 'deleted' AND lifted_at IS NULL"
    )
    op.execute("ALTER TABLE keyturn.holds DROP COLUMN carried_out_at")
