"""Tenants: who several accounts belong to, and what is held with all of them at once.

Revision ID: 0012
Revises: 0011
"""

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE keyturn.tenants (
            id uuid NOT NULL CONSTRAINT pk_tenants PRIMARY KEY,
            name text NOT NULL CONSTRAINT uq_tenants_name UNIQUE,
            held boolean NOT NULL DEFAULT false,
            unsettled boolean NOT NULL DEFAULT false,
            settled_to uuid,
            created_at timestamptz NOT NULL
        )
        """
    )
    op.execute("CREATE INDEX ix_tenants_unsettled ON keyturn.tenants (id) WHERE unsettled")
    op.execute(
        """
        CREATE TABLE keyturn.tenant_identities (
            issuer text NOT NULL,
            value text NOT NULL,
            tenant_id uuid NOT NULL,
            linked_at timestamptz NOT NULL,
            linked_by text NOT NULL,
            CONSTRAINT pk_tenant_identities PRIMARY KEY (issuer, value),
            CONSTRAINT fk_tenant_identities_tenant_id_tenants
                FOREIGN KEY (tenant_id) REFERENCES keyturn.tenants (id)
        )
        """
    )
    op.execute(
        "CREATE INDEX ix_tenant_identities_tenant_id ON keyturn.tenant_identities (tenant_id)"
    )
    op.execute(
        """
        ALTER TABLE keyturn.holds
            ADD COLUMN tenant_id uuid CONSTRAINT fk_holds_tenant_id_tenants
                REFERENCES keyturn.tenants (id),
            DROP CONSTRAINT ck_holds_one_target,
            ADD CONSTRAINT ck_holds_one_target
                CHECK (num_nonnulls(account_id, key_id, tenant_id) = 1)
        """
    )
    op.execute(
        "CREATE UNIQUE INDEX uq_holds_tenant ON keyturn.holds (tenant_id, source, kind)"
        " WHERE tenant_id IS NOT NULL"
    )
    # Last, as `verify` waits for it. A new column that is empty everywhere: no row has to be looked
    # at for the foreign key.
    op.execute(
        """
        ALTER TABLE keyturn.accounts
            ADD COLUMN tenant_id uuid CONSTRAINT fk_accounts_tenant_id_tenants
                REFERENCES keyturn.tenants (id),
            ADD COLUMN tenant_since timestamptz
        """
    )
    op.execute(
        "CREATE INDEX ix_accounts_tenant_id ON keyturn.accounts (tenant_id, id)"
        " WHERE tenant_id IS NOT NULL"
    )


def downgrade() -> None:
    op.execute("DELETE FROM keyturn.holds WHERE tenant_id IS NOT NULL")
    op.execute(
        """
        ALTER TABLE keyturn.holds
            DROP COLUMN tenant_id,
            ADD CONSTRAINT ck_holds_one_target CHECK (num_nonnulls(account_id, key_id) = 1)
        """
    )
    op.execute("ALTER TABLE keyturn.accounts DROP COLUMN tenant_since, DROP COLUMN tenant_id")
    op.execute("DROP TABLE keyturn.tenant_identities")
    op.execute("DROP TABLE keyturn.tenants")
