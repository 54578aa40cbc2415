"""The commands on tenants, for a product and for operators: each one transaction."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from . import accounts, holds, tenants
from .accounts import Account
from .base import Database, Tx
from .holds import OPERATOR, Cause, Hold
from .policy import Policy
from .tenants import CalledBy, Tenant, name_of


@dataclass(frozen=True)
class Tenants:
    """Tenants of one database; a tenant is given by its name or id, an account by its address or
    id. Unknown ones are Refused as `tenant_unknown`, `user_unknown`."""

    database: Database
    policy: Policy
    actor: str

    def create(self, name: str, *, known_as: Iterable[tuple[str, str]] = ()) -> Tenant:
        """Add a tenant. `known_as` are the names by which sources call it: source and value.

        Refused as `tenant_name_invalid`, `tenant_exists`, `identity_taken`.
        """
        named = [name_of(*one) for one in known_as]

        def create(tx: Tx) -> Tenant:
            made = tenants.create(tx, name, names=named, actor=self.actor, policy=self.policy)
            return tenants.find(tx, str(made))

        return self.database.run(create)

    def get(self, tenant: str) -> Tenant:
        """One tenant."""
        return self.database.run(lambda tx: tenants.find(tx, tenant))

    def listed(self, *, held: bool | None = None, limit: int = 1000) -> list[Tenant]:
        """Tenants by name."""
        return self.database.run(lambda tx: tenants.listed(tx, held=held, limit=limit))

    def members(self, tenant: str, limit: int = 1000) -> list[Account]:
        """Its accounts, by e-mail address."""
        return self.database.run(
            lambda tx: accounts.listed(tx, tenant_id=tenants.find(tx, tenant).id, limit=limit)
        )

    def known_as(self, tenant_id: UUID) -> list[CalledBy]:
        """The names by which sources call a tenant."""
        return self.database.run(lambda tx: tenants.called_by(tx, tenant_id))

    def holds_of(self, tenant_id: UUID) -> list[Hold]:
        """What stands on a tenant."""
        return self.database.run(lambda tx: holds.standing(tx, holds.on_tenant(tenant_id)))

    def holds_over(self, account_id: UUID) -> list[Hold]:
        """What stands on the tenant that an account is in."""

        def read(tx: Tx) -> list[Hold]:
            tenant_id = accounts.find(tx, str(account_id)).tenant_id
            return [] if tenant_id is None else holds.standing(tx, holds.on_tenant(tenant_id))

        return self.database.run(read)

    def link(self, tenant: str, source: str, value: str) -> None:
        """Let a source's name mean this tenant from now on; Refused as `identity_taken`."""
        self.database.run(
            lambda tx: tenants.link(
                tx,
                tenants.find(tx, tenant).id,
                name_of(source, value),
                actor=self.actor,
                policy=self.policy,
            )
        )

    def unlink(self, tenant: str, source: str, value: str) -> None:
        """Let a source's name mean this tenant no longer; Refused as `identity_unknown`."""
        self.database.run(
            lambda tx: tenants.unlink(
                tx, tenants.find(tx, tenant).id, name_of(source, value), actor=self.actor
            )
        )

    def assign(self, account: str, tenant: str | None) -> bool:
        """Have an account be in this tenant from now on, or in none; False where it was so."""

        def assign(tx: Tx) -> bool:
            into = None if tenant is None else tenants.find(tx, tenant)
            return tenants.assign(tx, accounts.find(tx, account).id, into, actor=self.actor)

        return self.database.run(assign)

    def disable(self, tenant: str, reason: str | None = None) -> bool:
        """Stop every key of every member, of those to come too: refused from the commit on. The
        worker's statuses follow in batches. False where an operator had stopped it already."""
        cause = Cause(source=OPERATOR, kind="disabled", actor=self.actor, reason=reason)

        def disable(tx: Tx) -> bool:
            tenant_id = tenants.find(tx, tenant).id
            holds.lock_tenants(tx, [tenant_id])
            return holds.place(tx, holds.on_tenant(tenant_id), cause, self.policy)

        return self.database.run(disable)

    def enable(
        self,
        tenant: str,
        reason: str | None = None,
        *,
        source: str = OPERATOR,
        kind: str = "disabled",
    ) -> bool:
        """Lift one hold of a tenant and nothing else. False where no such hold stood."""
        cause = Cause(source=source, kind=kind, actor=self.actor, reason=reason)

        def enable(tx: Tx) -> bool:
            tenant_id = tenants.find(tx, tenant).id
            holds.lock_tenants(tx, [tenant_id])
            return holds.lift(tx, holds.on_tenant(tenant_id), cause, self.policy)

        return self.database.run(enable)
