"""Messages as the outbox would hand them to a channel."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from models.messages import Outgoing

SENDER = "Keyturn <keys@example.com>"
CREATED = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
ACCOUNT = UUID("01939c1e-0000-7000-8000-000000000001")


def key(number: int = 1, **changed: object) -> dict[str, object]:
    """A key as payloads describe it."""
    return {
        "id": f"01939c1e-0000-7000-8000-0000000001{number:02}",
        "name": f"deploy {number}",
        "hint": "a1B2",
        "expires_at": "2026-12-01T10:30:00+00:00",
    } | changed


PAYLOADS: dict[str, dict[str, Any]] = {
    "notice.expiring": {"threshold": "7d", "keys": [key(1), key(2)], "total": 5},
    "notice.expired": {"keys": [key(1)], "total": 1},
    "rotation.issued": {"key": key(1), "successor": key(2), "claim_by": "2026-11-26T09:00:00Z"},
    "rotation.blocked": {"key": key(1), "successor": key(2), "reason": "it is still in use"},
    "rotation.cancelled": {"key": key(1), "reason": "nobody claimed it"},
    "rotation.claimed_again": {"key": key(1), "successor": key(2)},
    "rotation.completed": {"key": key(1), "successor": key(2)},
}
"""What the payload of each kind holds, besides the account."""


def notice(number: int = 1, **changed: Any) -> Outgoing:
    """A mail to one owner; `number` tells messages and recipients apart."""
    values: dict[str, Any] = {
        "id": UUID(int=number),
        "kind": "notice.expired",
        "account_id": ACCOUNT,
        "payload": mail_payload("notice.expired"),
        "recipient": f"owner{number}@example.com",
        "created_at": CREATED,
    }
    return Outgoing(**(values | changed))


def mail_payload(kind: str, **changed: object) -> dict[str, object]:
    return {"account": "ada@example.com"} | PAYLOADS[kind] | changed
