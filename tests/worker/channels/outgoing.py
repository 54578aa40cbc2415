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


USED: dict[str, object] = {
    "retire_at": "2026-12-05T09:00:00+00:00",
    "last_used_at": "2026-12-04T08:00:00+00:00",
    "last_ip": "192.0.2.7",
    "uses": 3,
    "uses_since": "2026-11-28T09:00:00+00:00",
}


def hand_over(number: int = 1, **changed: object) -> dict[str, object]:
    """A rotation, where a message names several."""
    return {"key": key(number), "successor": key(number + 10)} | USED | changed


def issued(number: int = 1, **changed: object) -> dict[str, object]:
    """A rotation that has just begun."""
    given = {"claim_by": "2026-11-26T09:00:00Z", "sink": "claim"}
    return {"key": key(number), "successor": key(number + 10)} | given | changed


def blocked(number: int = 1, **changed: object) -> dict[str, object]:
    """A rotation that waits for a person."""
    given = {"code": "old_key_in_use", "reason": "it is still in use"}
    return {"key": key(number), "successor": key(number + 10)} | given | changed


def cancelled(number: int = 1, **changed: object) -> dict[str, object]:
    """A rotation of which the new key is gone."""
    given = {"code": "unclaimed", "reason": "nobody claimed it"}
    return {"key": key(number), "successor": key(number + 10)} | given | changed


def retired(number: int = 1, **changed: object) -> dict[str, object]:
    """A rotation whose old key was stopped in use."""
    given = {
        "rotation_id": "01939c1e-0000-7000-8000-000000000201",
        "undo_until": "2026-12-12T09:00:00+00:00",
    }
    return hand_over(number, **given) | changed


PAYLOADS: dict[str, dict[str, Any]] = {
    "account.public_key": {
        "kid": "2026-11",
        "thumbprint": "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
        "before": "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s",
        "by": "operator:ada",
        "at": "2026-11-23T08:00:00+00:00",
    },
    "key.compromised": {"key": key(1), "issue": True},
    "key.refused": {
        "keys": [
            key(number, status=status, refused_at="2026-11-23T08:00:00+00:00", ip=ip)
            for number, status, ip in ((1, "deleted", "192.0.2.7"), (2, "retired", None))
        ],
        "total": 5,
    },
    "notice.expiring": {"threshold": "7d", "keys": [key(1), key(2)], "total": 5},
    "notice.expired": {"keys": [key(1)], "total": 1},
    "operation.issued": {
        "operation_id": "01939c1e-0000-7000-8000-000000000301",
        "keys": [key(1) | {"successor_id": key(2)["id"]}],
        "total": 3,
        "to_claim": 2,
        "claim_by": "2026-11-26T09:00:00+00:00",
    },
    "rotation.issued": {"rotations": [issued(1), issued(2)], "total": 5},
    "rotation.blocked": {"rotations": [blocked(1), blocked(2)], "total": 5},
    "rotation.cancelled": {"rotations": [cancelled(1), cancelled(2)], "total": 5},
    "rotation.claimed_again": {"key": key(1), "successor": key(2)},
    "rotation.completed": {"rotations": [hand_over(1), hand_over(2)], "total": 5},
    "rotation.confirmed": {"rotations": [hand_over(1), hand_over(2)], "total": 5},
    "rotation.ending": {"rotations": [hand_over(1), hand_over(2)], "total": 5},
    "rotation.retired": {"rotations": [retired(1), retired(2)], "total": 5},
    "rotation.sealed": {"key": key(1), "kid": "2026-11", "lines": ["eyJhbGciOi", "JFQ0RILUVT"]},
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


def disabled(number: int = 1, **changed: Any) -> Outgoing:
    """An event for the product: a key of one account stopped."""
    values: dict[str, Any] = {
        "id": UUID(int=number),
        "kind": "key.disabled",
        "account_id": ACCOUNT,
        "payload": {"account_id": str(ACCOUNT), "key_ids": [str(UUID(int=1000 + number))]},
        "recipient": None,
        "created_at": CREATED,
    }
    return Outgoing(**(values | changed))


def mail_payload(kind: str, **changed: object) -> dict[str, object]:
    return {"account": "ada@example.com"} | PAYLOADS[kind] | changed
