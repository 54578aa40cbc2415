"""The tables of accounts, keys and what becomes of them; who writes one stands in its noun.

What comes in, goes out and is written down about it is in `record_tables`.
"""

import uuid
from datetime import datetime

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base

KEY_STATUS = ("active", "disabled", "expired", "retired", "deleted")
ROTATION_OPEN = ("issued", "draining")
ROTATION_LIVE = (*ROTATION_OPEN, "retired")
ROTATION_STATES = (*ROTATION_LIVE, "completed", "cancelled")

Time = DateTime(timezone=True)


def one_of(column: str, values: tuple[str, ...]) -> str:
    """The CHECK that a column holds one of some words."""
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


class Role(Base):
    """What a key may do. Written from the settings, never by hand."""

    __tablename__ = "roles"
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    permissions: Mapped[list[str]] = mapped_column(ARRAY(Text))
    grantable: Mapped[bool]


class Account(Base):
    """Who owns keys. `held` says that a hold stands; `unsettled`, that key statuses may differ."""

    __tablename__ = "accounts"
    __table_args__ = (
        Index("ix_accounts_unsettled", "id", postgresql_where=text("unsettled")),
        {"postgresql_with": {"fillfactor": "80"}},
    )
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(Text, unique=True)
    name: Mapped[str] = mapped_column(Text, server_default="")
    role: Mapped[str] = mapped_column(ForeignKey("keyturn.roles.name"))
    held: Mapped[bool] = mapped_column(server_default="false")
    unsettled: Mapped[bool] = mapped_column(server_default="false")
    created_at: Mapped[datetime] = mapped_column(Time)


class AccountIdentity(Base):
    """A name by which a producer calls an account, from `linked_at` on."""

    __tablename__ = "account_identities"
    __table_args__ = (
        Index(
            "uq_account_identities_linked",
            "format",
            "issuer",
            "value",
            unique=True,
            postgresql_where=text("unlinked_at IS NULL"),
        ),
        Index("ix_account_identities_account_id", "account_id"),
    )
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("keyturn.accounts.id"))
    format: Mapped[str] = mapped_column(Text)
    issuer: Mapped[str] = mapped_column(Text)
    value: Mapped[str] = mapped_column(Text)
    linked_at: Mapped[datetime] = mapped_column(Time)
    unlinked_at: Mapped[datetime | None] = mapped_column(Time)


class ApiKey(Base):
    """A key without its text. `status` caches the predicate; `version` rises with every change."""

    __tablename__ = "api_keys"
    __table_args__ = (
        CheckConstraint(one_of("status", KEY_STATUS), name="status"),
        CheckConstraint("status <> 'deleted' OR deleted_at IS NOT NULL", name="deleted"),
        CheckConstraint("expires_at > created_at", name="life"),
        Index("ix_api_keys_account_id", "account_id", "status"),
        Index("ix_api_keys_family_id", "family_id"),
        Index(
            "ix_api_keys_expires_at",
            "expires_at",
            postgresql_where=text("status NOT IN ('expired', 'deleted')"),
        ),
        Index("ix_api_keys_ended", "expires_at", postgresql_where=text("status = 'expired'")),
    )
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("keyturn.accounts.id"))
    name: Mapped[str] = mapped_column(Text)
    created_by: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(ForeignKey("keyturn.roles.name"))
    digest: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    scheme: Mapped[str] = mapped_column(Text)
    pepper: Mapped[int | None] = mapped_column(SmallInteger)
    hint: Mapped[str] = mapped_column(Text)
    allowed_ips: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    family_id: Mapped[uuid.UUID]
    held: Mapped[bool] = mapped_column(server_default="false")
    status: Mapped[str] = mapped_column(Text, server_default="active")
    version: Mapped[int] = mapped_column(Integer, server_default="1")
    created_at: Mapped[datetime] = mapped_column(Time)
    expires_at: Mapped[datetime] = mapped_column(Time)
    deleted_at: Mapped[datetime | None] = mapped_column(Time)


class KeyUse(Base):
    """When a key was used. A row of its own, so that recording never touches the key's row."""

    __tablename__ = "key_uses"
    __table_args__ = ({"postgresql_with": {"fillfactor": "50"}},)
    key_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    first_used_at: Mapped[datetime | None] = mapped_column(Time)
    last_used_at: Mapped[datetime | None] = mapped_column(Time)
    uses: Mapped[int] = mapped_column(BigInteger, server_default="0")
    last_ip: Mapped[str | None] = mapped_column(INET)


class Hold(Base):
    """What stops an account or a key, per (source, kind).

    The row stays after lifting. On an account it is also the mark up to which its source's
    ordered events have been applied.
    """

    __tablename__ = "holds"
    __table_args__ = (
        CheckConstraint("num_nonnulls(account_id, key_id) = 1", name="one_target"),
        Index(
            "uq_holds_account",
            "account_id",
            "source",
            "kind",
            unique=True,
            postgresql_where=text("account_id IS NOT NULL"),
        ),
        Index(
            "uq_holds_key",
            "key_id",
            "source",
            "kind",
            unique=True,
            postgresql_where=text("key_id IS NOT NULL"),
        ),
        Index("ix_holds_source_placed_at", "source", "placed_at"),
        Index(
            "ix_holds_deletion",
            "placed_at",
            postgresql_where=text("kind = 'deleted' AND lifted_at IS NULL"),
        ),
    )
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    account_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("keyturn.accounts.id"))
    key_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("keyturn.api_keys.id"))
    source: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    placed_at: Mapped[datetime | None] = mapped_column(Time)
    lifted_at: Mapped[datetime | None] = mapped_column(Time)
    reason: Mapped[str | None] = mapped_column(Text)
    mark_at: Mapped[datetime | None] = mapped_column(Time)
    mark_sequence: Mapped[int | None] = mapped_column(BigInteger)
    mark_event: Mapped[int | None] = mapped_column(BigInteger)
    confirm: Mapped[bool] = mapped_column(server_default="false")
    confirmed_at: Mapped[datetime | None] = mapped_column(Time)


class Rotation(Base):
    """One hand-over from an old key to its successor, and the sealed text until it is claimed."""

    __tablename__ = "rotations"
    __table_args__ = (
        CheckConstraint(one_of("state", ROTATION_STATES), name="state"),
        CheckConstraint(
            "state NOT IN ('draining', 'retired') OR confirmed_at IS NOT NULL", name="confirmed"
        ),
        CheckConstraint("(sealed IS NULL) = (sealed_kek IS NULL)", name="sealed"),
        CheckConstraint("sealed IS NULL OR state = 'issued'", name="sealed_only_issued"),
        Index(
            "uq_rotations_open_family",
            "family_id",
            unique=True,
            postgresql_where=text(one_of("state", ROTATION_OPEN)),
        ),
        Index(
            "ix_rotations_next_check_at",
            "next_check_at",
            postgresql_where=text(one_of("state", ROTATION_LIVE)),
        ),
        Index("ix_rotations_old_key_id", "old_key_id"),
        UniqueConstraint("account_id", "idempotency_key"),
    )
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    account_id: Mapped[uuid.UUID]
    family_id: Mapped[uuid.UUID]
    old_key_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("keyturn.api_keys.id"))
    new_key_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("keyturn.api_keys.id"), unique=True)
    state: Mapped[str] = mapped_column(Text)
    idempotency_key: Mapped[str | None] = mapped_column(Text)
    requested_by: Mapped[str] = mapped_column(Text)
    sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    sealed_kek: Mapped[int | None] = mapped_column(SmallInteger)
    sealed_until: Mapped[datetime] = mapped_column(Time)
    issued_at: Mapped[datetime] = mapped_column(Time)
    claimed_at: Mapped[datetime | None] = mapped_column(Time)
    alarmed_at: Mapped[datetime | None] = mapped_column(Time)
    confirmed_at: Mapped[datetime | None] = mapped_column(Time)
    confirmed_by: Mapped[str | None] = mapped_column(Text)
    retire_at: Mapped[datetime | None] = mapped_column(Time)
    paused_at: Mapped[datetime | None] = mapped_column(Time)
    resumed_at: Mapped[datetime | None] = mapped_column(Time)
    retired_at: Mapped[datetime | None] = mapped_column(Time)
    undo_until: Mapped[datetime | None] = mapped_column(Time)
    ended_at: Mapped[datetime | None] = mapped_column(Time)
    cancel_reason: Mapped[str | None] = mapped_column(Text)
    blocked_reason: Mapped[str | None] = mapped_column(Text)
    next_check_at: Mapped[datetime] = mapped_column(Time)
