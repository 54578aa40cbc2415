"""The tables of bulk operations: the operation, its keys one by one, and the pace of all of them.

They have no foreign keys to accounts or keys, for the reason that `record_tables` gives.
"""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base
from .tables import Time, one_of

OPERATION_ENDED = ("completed", "cancelled")
OPERATION_STATES = ("planned", "running", "paused", "stopped", *OPERATION_ENDED)
OPERATION_KEY_STATES = ("left_out", "waiting", "issued", "skipped", "failed")


class Operation(Base):
    """Many keys to rotate: planned, then applied, then carried out wave by wave.

    `facts` is what the plan showed, `waits_for` why the present wave does not go on just now.
    """

    __tablename__ = "operations"
    __table_args__ = (
        CheckConstraint(one_of("state", OPERATION_STATES), name="state"),
        CheckConstraint(
            "state NOT IN ('running', 'paused', 'stopped', 'completed') OR applied_at IS NOT NULL",
            name="applied",
        ),
        CheckConstraint(
            f"(ended_at IS NOT NULL) = ({one_of('state', OPERATION_ENDED)})", name="ended"
        ),
        Index("ix_operations_turn_at", "turn_at", postgresql_where=text("state = 'running'")),
    )
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(Text)
    selection: Mapped[dict[str, Any]] = mapped_column(JSONB)
    facts: Mapped[dict[str, Any]] = mapped_column(JSONB)
    keys: Mapped[int] = mapped_column(Integer)
    waves: Mapped[int] = mapped_column(Integer)
    wave: Mapped[int] = mapped_column(Integer, server_default="1")
    planned_by: Mapped[str] = mapped_column(Text)
    planned_at: Mapped[datetime] = mapped_column(Time)
    plan_until: Mapped[datetime] = mapped_column(Time)
    applied_by: Mapped[str | None] = mapped_column(Text)
    applied_at: Mapped[datetime | None] = mapped_column(Time)
    turn_at: Mapped[datetime | None] = mapped_column(Time)
    waits_for: Mapped[str | None] = mapped_column(Text)
    stop_reason: Mapped[str | None] = mapped_column(Text)
    ended_at: Mapped[datetime | None] = mapped_column(Time)


class OperationKey(Base):
    """One key of an operation, at its place in the order, and what became of it.

    `accepted` says that a person has seen that it failed and let the operation go on; `told`, that
    its owner was told.
    """

    __tablename__ = "operation_keys"
    __table_args__ = (
        UniqueConstraint("key_id", "operation_id"),
        CheckConstraint(one_of("state", OPERATION_KEY_STATES), name="state"),
        CheckConstraint("(wave IS NULL) = (state = 'left_out')", name="wave"),
        CheckConstraint("(rotation_id IS NOT NULL) = (state = 'issued')", name="issued"),
        CheckConstraint(
            "reason IS NOT NULL OR state NOT IN ('left_out', 'skipped', 'failed')", name="reason"
        ),
        Index("ix_operation_keys_wave", "operation_id", "wave", "state"),
    )
    operation_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("keyturn.operations.id", ondelete="CASCADE"), primary_key=True
    )
    place: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    wave: Mapped[int | None] = mapped_column(Integer)
    key_id: Mapped[uuid.UUID]
    account_id: Mapped[uuid.UUID]
    state: Mapped[str] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    rotation_id: Mapped[uuid.UUID | None]
    attempts: Mapped[int] = mapped_column(Integer, server_default="0")
    fence: Mapped[int] = mapped_column(Integer, server_default="0")
    next_attempt_at: Mapped[datetime] = mapped_column(Time)
    finished_at: Mapped[datetime | None] = mapped_column(Time)
    accepted: Mapped[bool] = mapped_column(server_default="false")
    told: Mapped[bool] = mapped_column(server_default="false")


class OperationPace(Base):
    """One row: when the next key of any operation may be issued, whoever issues it."""

    __tablename__ = "operation_pace"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)
    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    next_at: Mapped[datetime] = mapped_column(Time)
