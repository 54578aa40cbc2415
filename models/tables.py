"""The tables of accounts, keys and what becomes of them; who writes one stands in its noun.

What comes in, goes out and is written down about it is in `record_tables`; tenants are in
`tenant_tables`.
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
from sqlalchemy.dialects.postgresql import INET, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base

KEY_STATUS = ("active", "disabled", "expired", "retired", "deleted")
ROTATION_OPEN = ("issued", "draining")
ROTATION_LIVE = (*ROTATION_OPEN, "retired")
ROTATION_STATES = (*ROTATION_LIVE, "completed", "cancelled")
HAND_OVER_OPEN = ("waiting", "delivered")
HAND_OVER_STATES = (*HAND_OVER_OPEN, "done", "failed", "skipped")
ROTATION_REASONS = ("requested", "scheduled", "operation", "compromised")

DELETION_OPEN = """
    h.kind = 'deleted' AND h.lifted_at IS NULL AND NOT h.confirm
    AND (h.carried_out_at IS NULL OR h.carried_out_at < h.placed_at)
"""
"""A hold `h` (keyturn.holds) whose keys are still to be deleted; its time may not have come."""

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
    rotation_policy: Mapped[str | None] = mapped_column(Text)


class Account(Base):
    """Who owns keys. `held` says that a hold of its own stands, whatever its tenant's do;
    `unsettled`, that key statuses may differ.

    `tenant_since` is when it came into its tenant, or into none.
    """

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
    rotation_policy: Mapped[str | None] = mapped_column(Text)
    public_key: Mapped[dict[str, str] | None] = mapped_column(JSONB)
    tenant_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("keyturn.tenants.id"))
    tenant_since: Mapped[datetime | None] = mapped_column(Time)


class AccountIdentity(Base):
    """A name by which a producer calls an account, from `linked_at` to `unlinked_at`.

    The sequences are those of the events that linked and unlinked it. `replaced` says that another
    name took its place then.
    """

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
        Index(
            "ix_account_identities_unlinked",
            "format",
            "issuer",
            "value",
            postgresql_where=text("unlinked_at IS NOT NULL"),
        ),
    )
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("keyturn.accounts.id"))
    format: Mapped[str] = mapped_column(Text)
    issuer: Mapped[str] = mapped_column(Text)
    value: Mapped[str] = mapped_column(Text)
    linked_at: Mapped[datetime] = mapped_column(Time)
    unlinked_at: Mapped[datetime | None] = mapped_column(Time)
    linked_by: Mapped[str | None] = mapped_column(Text)
    unlinked_by: Mapped[str | None] = mapped_column(Text)
    linked_sequence: Mapped[int | None] = mapped_column(BigInteger)
    unlinked_sequence: Mapped[int | None] = mapped_column(BigInteger)
    replaced: Mapped[bool] = mapped_column(server_default="false")


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
    rotation_policy: Mapped[str | None] = mapped_column(Text)


class KeyUse(Base):
    """When a key was used. A row of its own, so that recording never touches the key's row."""

    __tablename__ = "key_uses"
    __table_args__ = (
        Index(
            "ix_key_uses_refused",
            "key_id",
            postgresql_where=text("refused_at > coalesce(refused_told_at, '-infinity')"),
        ),
        {"postgresql_with": {"fillfactor": "50"}},
    )
    key_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    first_used_at: Mapped[datetime | None] = mapped_column(Time)
    last_used_at: Mapped[datetime | None] = mapped_column(Time)
    uses: Mapped[int] = mapped_column(BigInteger, server_default="0")
    last_ip: Mapped[str | None] = mapped_column(INET)
    refused_at: Mapped[datetime | None] = mapped_column(Time)
    refused_uses: Mapped[int] = mapped_column(BigInteger, server_default="0")
    refused_ip: Mapped[str | None] = mapped_column(INET)
    refused_told_at: Mapped[datetime | None] = mapped_column(Time)


class Compromise(Base):
    """A key that others know, and what is still to follow the hold that stopped it."""

    __tablename__ = "compromises"
    __table_args__ = (
        CheckConstraint(one_of("state", ("open", "done")), name="state"),
        Index("ix_compromises_open", "next_attempt_at", postgresql_where=text("state = 'open'")),
    )
    key_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("keyturn.api_keys.id"), primary_key=True)
    account_id: Mapped[uuid.UUID]
    actor: Mapped[str] = mapped_column(Text)
    reported_at: Mapped[datetime] = mapped_column(Time)
    issue: Mapped[bool]
    state: Mapped[str] = mapped_column(Text, server_default="open")
    outcome: Mapped[str | None] = mapped_column(Text)
    rotation_id: Mapped[uuid.UUID | None]
    attempts: Mapped[int] = mapped_column(Integer, server_default="0")
    next_attempt_at: Mapped[datetime] = mapped_column(Time)


class Hold(Base):
    """What stops a tenant's accounts, an account or a key, per (source, kind).

    The row stays after lifting. On an account or a tenant it is also the mark up to which its
    source's ordered events have been applied.
    """

    __tablename__ = "holds"
    __table_args__ = (
        CheckConstraint("num_nonnulls(account_id, key_id, tenant_id) = 1", name="one_target"),
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
            postgresql_where=text(DELETION_OPEN.replace("h.", "")),
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
    carried_out_at: Mapped[datetime | None] = mapped_column(Time)
    tenant_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("keyturn.tenants.id"))


class Rotation(Base):
    """One hand-over from an old key to its successor, and the sealed text until it is claimed."""

    __tablename__ = "rotations"
    __table_args__ = (
        CheckConstraint(one_of("state", ROTATION_STATES), name="state"),
        CheckConstraint(one_of("reason", ROTATION_REASONS), name="reason"),
        CheckConstraint(
            "state <> 'issued' OR num_nonnulls(confirmed_at, retire_at, retired_at) = 0",
            name="issued",
        ),
        CheckConstraint(
            "state NOT IN ('draining', 'retired')"
            " OR num_nulls(confirmed_at, confirmed_by, retire_at) = 0",
            name="draining",
        ),
        CheckConstraint(
            "state <> 'retired' OR num_nulls(retired_at, undo_until) = 0", name="retired"
        ),
        CheckConstraint(
            "(state IN ('completed', 'cancelled')) = (ended_at IS NOT NULL)", name="ended"
        ),
        CheckConstraint("(state = 'cancelled') = (cancel_reason IS NOT NULL)", name="cancelled"),
        CheckConstraint(
            f"{one_of('state', ROTATION_LIVE)} OR num_nonnulls(paused_at, blocked_reason) = 0",
            name="waits",
        ),
        CheckConstraint("reissued_as IS NULL OR state = 'cancelled'", name="reissued"),
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
        Index(
            "ix_rotations_sealed_kek",
            "sealed_kek",
            postgresql_where=text("sealed_kek IS NOT NULL"),
        ),
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
    sink: Mapped[str] = mapped_column(Text, server_default="claim")
    claimed_by: Mapped[str | None] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text, server_default="requested")
    operation_id: Mapped[uuid.UUID | None]
    old_uses_before: Mapped[int] = mapped_column(BigInteger, server_default="0")
    warned_for: Mapped[datetime | None] = mapped_column(Time)
    undone_at: Mapped[datetime | None] = mapped_column(Time)
    reissued_as: Mapped[uuid.UUID | None]


class HandOver(Base):
    """The way of a successor's text to a sink: delivered, and where the sink asks for that
    promoted once the rotation is confirmed. A `done` one has nothing more before it."""

    __tablename__ = "hand_overs"
    __table_args__ = (
        CheckConstraint(one_of("state", HAND_OVER_STATES), name="state"),
        Index(
            "ix_hand_overs_due", "due_at", postgresql_where=text(one_of("state", HAND_OVER_OPEN))
        ),
    )
    rotation_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("keyturn.rotations.id"), primary_key=True
    )
    sink: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text, server_default="waiting")
    attempts: Mapped[int] = mapped_column(Integer, server_default="0")
    fence: Mapped[int] = mapped_column(Integer, server_default="0")
    due_at: Mapped[datetime] = mapped_column(Time)
    error: Mapped[str | None] = mapped_column(Text)
    receipt: Mapped[str | None] = mapped_column(Text)
    delivered_at: Mapped[datetime | None] = mapped_column(Time)


class ScheduledRotation(Base):
    """When a key is to be rotated, if its policy says so; `next_at` None: there is nothing to do.

    `reason` says why a key whose time has come is not in rotation.
    """

    __tablename__ = "rotation_schedule"
    __table_args__ = (
        Index(
            "ix_rotation_schedule_next_at",
            "next_at",
            postgresql_where=text("next_at IS NOT NULL"),
        ),
        Index(
            "ix_rotation_schedule_started_at",
            "started_at",
            postgresql_where=text("started_at IS NOT NULL"),
        ),
    )
    key_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    policy: Mapped[str] = mapped_column(Text)
    rotate_at: Mapped[datetime] = mapped_column(Time)
    next_at: Mapped[datetime | None] = mapped_column(Time)
    reason: Mapped[str | None] = mapped_column(Text)
    tries: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    started_at: Mapped[datetime | None] = mapped_column(Time)
    rotation_id: Mapped[uuid.UUID | None]
