"""The tables of tenants and of the names by which producers call them, and what finds members."""

import uuid
from datetime import datetime

from sqlalchemy import ForeignKey, Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base
from .tables import Account, Hold, Time


class Tenant(Base):
    """Whom several accounts belong to. A hold of it stops the keys of every member.

    `held` says that a hold stands; `unsettled`, that key statuses of members may differ, up to
    `settled_to` no more: that is a member's id, and they are settled in the order of theirs.
    """

    __tablename__ = "tenants"
    __table_args__ = (Index("ix_tenants_unsettled", "id", postgresql_where=text("unsettled")),)
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    held: Mapped[bool] = mapped_column(server_default="false")
    unsettled: Mapped[bool] = mapped_column(server_default="false")
    settled_to: Mapped[uuid.UUID | None]
    created_at: Mapped[datetime] = mapped_column(Time)


class TenantIdentity(Base):
    """A name by which a producer calls a tenant."""

    __tablename__ = "tenant_identities"
    __table_args__ = (Index("ix_tenant_identities_tenant_id", "tenant_id"),)
    issuer: Mapped[str] = mapped_column(Text, primary_key=True)
    value: Mapped[str] = mapped_column(Text, primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("keyturn.tenants.id"))
    linked_at: Mapped[datetime] = mapped_column(Time)
    linked_by: Mapped[str] = mapped_column(Text)


Index(
    "ix_accounts_tenant_id",
    Account.tenant_id,
    Account.id,
    postgresql_where=Account.tenant_id.is_not(None),
)
Index(
    "uq_holds_tenant",
    Hold.tenant_id,
    Hold.source,
    Hold.kind,
    unique=True,
    postgresql_where=Hold.tenant_id.is_not(None),
)
