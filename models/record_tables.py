"""The tables of what comes in, what goes out, and what is written down about it.

They have no foreign keys to accounts: a key-share lock from them deadlocked a sweep against a
cascade that holds the account's row.
"""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base
from .tables import Time, one_of

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
        Index(
            "ix_inbox_taken",
            "subject_value",
            postgresql_using="gin",
            postgresql_where=text("state = 'parked' AND action = 'identity_changed'"),
        ),
        Index("ix_inbox_source", "source", "id"),
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
    new_subject: Mapped[dict[str, str] | None] = mapped_column(JSONB)
    key_digest: Mapped[str | None] = mapped_column(Text)
    why: Mapped[str | None] = mapped_column(Text)
    actor: Mapped[str | None] = mapped_column(Text)
    conflict: Mapped[bool] = mapped_column(server_default="false")
    account_id: Mapped[uuid.UUID | None]
    attempts: Mapped[int] = mapped_column(Integer, server_default="0")
    next_attempt_at: Mapped[datetime] = mapped_column(Time)
    fence: Mapped[int] = mapped_column(Integer, server_default="0")
    headers: Mapped[dict[str, str] | None] = mapped_column(JSONB)
    body: Mapped[bytes | None] = mapped_column(LargeBinary)


class SourceSilence(Base):
    """When a source was last heard, as far as looked, and when a person was told of its silence."""

    __tablename__ = "source_silences"
    source: Mapped[str] = mapped_column(Text, primary_key=True)
    since: Mapped[datetime] = mapped_column(Time)
    told_at: Mapped[datetime | None] = mapped_column(Time)


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
        Index(
            "ix_outbox_settled", "settled_at", postgresql_where=text("state IN ('sent', 'skipped')")
        ),
        Index(
            "ix_outbox_blocked", "account_id", postgresql_where=text("kind = 'rotation.blocked'")
        ),
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
    """Who changed what and why. `transaction_id` orders entries, whatever commits late.

    `account_id` is the account, or the tenant, that an entry is about.
    """

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
        Index("ix_audit_transaction_id", "transaction_id"),
        Index("ix_audit_actor", "actor", "id", postgresql_where=text("actor <> 'keyturn'")),
        Index("ix_audit_burst", "actor", "at", postgresql_where=text("action = 'source.cut_many'")),
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


class AuditSeal(Base):
    """One link of the chain of hashes over the audit; `models.audit_seal` says what is in it."""

    __tablename__ = "audit_seals"
    __table_args__ = (
        CheckConstraint("from_transaction < to_transaction AND entries > 0", name="range"),
        Index("ix_audit_seals_from_id", "from_id"),
    )
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    cluster: Mapped[int] = mapped_column(BigInteger)
    from_id: Mapped[int] = mapped_column(BigInteger)
    from_transaction: Mapped[int] = mapped_column(BigInteger)
    to_transaction: Mapped[int] = mapped_column(BigInteger)
    entries: Mapped[int] = mapped_column(BigInteger)
    first_id: Mapped[int] = mapped_column(BigInteger)
    last_id: Mapped[int] = mapped_column(BigInteger)
    sealed_at: Mapped[datetime] = mapped_column(Time)
    content: Mapped[bytes] = mapped_column(LargeBinary)
    hash: Mapped[bytes] = mapped_column(LargeBinary)


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
    mark: Mapped[dict[str, str] | None] = mapped_column(JSONB)
