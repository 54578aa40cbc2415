"""What tests of notices do and look at, each in a transaction of its own."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from models import notices, outbox, settle
from models.messages import Delivery, Outgoing
from models.notices import Notice
from tests.models.scene import Scene


def plan(scene: Scene, *, post: bool = True) -> int:
    """One scheduled run; returns how many notices it wrote down."""
    planned, after = 0, None
    while True:
        with scene.database.begin() as tx:
            page = notices.plan(tx, scene.policy, after)
        planned, after = planned + page.changed, page.after
        if page.finished:
            break
    while post:
        with scene.database.begin() as tx:
            post = not notices.post(tx, scene.policy).finished
    return planned


def expire(scene: Scene) -> None:
    """The sweep marks keys that have ended."""
    with scene.database.begin() as tx:
        settle.due(tx, scene.policy)


def ledger(scene: Scene, **only: Any) -> list[Notice]:
    with scene.database.begin() as tx:
        return notices.listed(tx, **only)


def states(scene: Scene, key_id: UUID) -> dict[timedelta, str]:
    """The state of each notice of a key, by threshold."""
    return {n.threshold: n.state for n in ledger(scene) if n.key_id == key_id}


def reasons(scene: Scene, key_id: UUID) -> dict[timedelta, str | None]:
    return {n.threshold: n.reason for n in ledger(scene) if n.key_id == key_id}


def refresh(scene: Scene, messages: list[Outgoing]) -> tuple[list[Outgoing], dict[UUID, str]]:
    with scene.database.begin() as tx:
        return notices.refresh(tx, messages)


def deliver(scene: Scene, state: Any = "sent", error: str | None = None) -> list[Outgoing]:
    """What the worker does with due mail; the far side answers `state`."""
    with scene.database.begin() as tx:
        leased = outbox.lease(tx, "mail", scene.policy)
    messages, skipped = refresh(scene, list(leased.messages))
    deliveries = [Delivery(id=message.id, state=state, error=error) for message in messages]
    with scene.database.begin() as tx:
        outbox.skip(tx, leased, skipped)
        outbox.settle(tx, leased, deliveries)
        notices.delivered(tx, deliveries)
    return messages


def names(payload: Any) -> list[str]:
    return [key["name"] for key in payload["keys"]]
