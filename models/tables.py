"""Every table of the schema `keyturn`: what it holds. Who writes it stands in the nouns.

Audit, inbox and outbox have no foreign keys to accounts: a key-share lock from them deadlocked a
sweep against a cascade that holds the account's row.
"""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import INET, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base

KEY_STATUS = ("active", "disabled", "expired", "retired", "deleted")
ROTATION_OPEN = ("issued", "draining")
ROTATION_LIVE = (*ROTATION_OPEN, "retired")
ROTATION_STATES = (*ROTATION_LIVE, "completed", "cancelled")
EVENT_STATES = (
    "received",
    "waiting_for_account",
    "done",
    "stale",
    "ignored",
    "parked",
    "rejected",
)
NOTICE_STATES = ("planned", "sent", "superseded", "skipped", "failed")
OUTBOX_STATES = ("waiting", "sent", "failed", "skipped")

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


class InboxKey(Base):
    """Which events have come in, for ever: the narrow table behind at-most-one effect."""

    __tablename__ = "inbox_keys"
    source: Mapped[str] = mapped_column(Text, primary_key=True)
    dedup_key: Mapped[str] = mapped_column(Text, primary_key=True)
    content_hash: Mapped[bytes] = mapped_column(LargeBinary)


class InboxEvent(Base):
    """One account event, or one message that could not be read, from receipt to its end."""

    __tablename__ = "inbox"
    __table_args__ = (
        CheckConstraint(one_of("state", EVENT_STATES), name="state"),
        Index(
            "ix_inbox_due", "urgent", "source", "id", postgresql_where=text("state = 'received'")
        ),
        Index(
            "ix_inbox_waiting",
            "subject_value",
            postgresql_using="gin",
            postgresql_where=text("state = 'waiting_for_account'"),
        ),
        Index("ix_inbox_state", "state", "id"),
    )
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    source: Mapped[str] = mapped_column(Text)
    provider: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    received_at: Mapped[datetime] = mapped_column(Time)
    finished_at: Mapped[datetime | None] = mapped_column(Time)
    urgent: Mapped[bool] = mapped_column(server_default="false")
    action: Mapped[str | None] = mapped_column(Text)
    certainty: Mapped[str | None] = mapped_column(Text)
    raw_type: Mapped[str | None] = mapped_column(Text)
    event_id: Mapped[str | None] = mapped_column(Text)
    occurred_at: Mapped[datetime | None] = mapped_column(Time)
    sequence: Mapped[int | None] = mapped_column(BigInteger)
    subject: Mapped[list[dict[str, str]] | None] = mapped_column(JSONB)
    subject_value: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    why: Mapped[str | None] = mapped_column(Text)
    actor: Mapped[str | None] = mapped_column(Text)
    conflict: Mapped[bool] = mapped_column(server_default="false")
    account_id: Mapped[uuid.UUID | None]
    attempts: Mapped[int] = mapped_column(Integer, server_default="0")
    next_attempt_at: Mapped[datetime] = mapped_column(Time)
    fence: Mapped[int] = mapped_column(Integer, server_default="0")
    headers: Mapped[dict[str, str] | None] = mapped_column(JSONB)
    body: Mapped[bytes | None] = mapped_column(LargeBinary)


class OutboxMessage(Base):
    """What we tell the world: one row per message and channel, committed with its cause."""

    __tablename__ = "outbox"
    __table_args__ = (
        CheckConstraint(one_of("state", OUTBOX_STATES), name="state"),
        Index(
            "ix_outbox_due",
            "channel",
            "priority",
            "due_at",
            postgresql_where=text("state = 'waiting'"),
        ),
        Index("ix_outbox_account_id", "account_id"),
    )
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    channel: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    priority: Mapped[int] = mapped_column(SmallInteger, server_default="5")
    account_id: Mapped[uuid.UUID | None]
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(Time)
    due_at: Mapped[datetime] = mapped_column(Time)
    attempts: Mapped[int] = mapped_column(Integer, server_default="0")
    fence: Mapped[int] = mapped_column(Integer, server_default="0")
    state: Mapped[str] = mapped_column(Text, server_default="waiting")
    settled_at: Mapped[datetime | None] = mapped_column(Time)
    error: Mapped[str | None] = mapped_column(Text)


class Notice(Base):
    """The intent to warn one owner of one end of one key, once per threshold."""

    __tablename__ = "notices"
    __table_args__ = (
        UniqueConstraint("key_id", "expires_at", "threshold_seconds"),
        CheckConstraint(one_of("state", NOTICE_STATES), name="state"),
        Index("ix_notices_outbox_id", "outbox_id"),
        Index(
            "ix_notices_unposted",
            "account_id",
            postgresql_where=text("state = 'planned' AND outbox_id IS NULL"),
        ),
    )
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    key_id: Mapped[uuid.UUID]
    account_id: Mapped[uuid.UUID]
    expires_at: Mapped[datetime] = mapped_column(Time)
    threshold_seconds: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    planned_at: Mapped[datetime] = mapped_column(Time)
    outbox_id: Mapped[uuid.UUID | None]


class AuditEntry(Base):
    """Who changed what and why. `transaction_id` orders entries, whatever commits late."""

    __tablename__ = "audit"
    __table_args__ = (
        Index(
            "uq_audit_key_version",
            "key_id",
            "version",
            unique=True,
            postgresql_where=text("key_id IS NOT NULL"),
        ),
        Index("ix_audit_account_id", "account_id", postgresql_where=text("key_id IS NULL")),
    )
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    transaction_id: Mapped[int] = mapped_column(
        BigInteger, server_default=text("(pg_current_xact_id()::text)::bigint")
    )
    at: Mapped[datetime] = mapped_column(Time)
    actor: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Text)
    account_id: Mapped[uuid.UUID | None]
    key_id: Mapped[uuid.UUID | None]
    version: Mapped[int | None] = mapped_column(Integer)
    before: Mapped[str | None] = mapped_column(Text)
    after: Mapped[str | None] = mapped_column(Text)
    why: Mapped[str | None] = mapped_column(Text)


class ScheduleRun(Base):
    """One row per flow: who runs it, how it went, and whether a ring for it is outstanding."""

    __tablename__ = "schedule_runs"
    job: Mapped[str] = mapped_column(Text, primary_key=True)
    fence: Mapped[int] = mapped_column(Integer, server_default="0")
    lease_until: Mapped[datetime | None] = mapped_column(Time)
    started_at: Mapped[datetime | None] = mapped_column(Time)
    finished_at: Mapped[datetime | None] = mapped_column(Time)
    rung_at: Mapped[datetime | None] = mapped_column(Time)
    done: Mapped[int] = mapped_column(BigInteger, server_default="0")
    error: Mapped[str | None] = mapped_column(Text)
