"""What a sink is given in the tests of sinks."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from models.key_text import Secret, mint
from models.sinks import HandOver

HAND_OVER: Final = HandOver(
    rotation_id=UUID("01939c1e-0000-7000-8000-000000000001"),
    family_id=UUID("01939c1e-0000-7000-8000-0000000000fa"),
    account_id=UUID("01939c1e-0000-7000-8000-0000000000ac"),
    account="ada@example.com",
    key_id=UUID("01939c1e-0000-7000-8000-000000000002"),
    key_name="deploy",
    key_hint="a1B2",
    expires_at=datetime(2027, 3, 1, 12, tzinfo=UTC),
    old_key_id=UUID("01939c1e-0000-7000-8000-000000000003"),
    old_expires_at=datetime(2026, 12, 1, 12, tzinfo=UTC),
    public_key=None,
)


def given(**changed: Any) -> HandOver:
    """A hand-over; the same but for what is named."""
    return replace(HAND_OVER, **changed)


def later(number: int = 9) -> HandOver:
    """The hand-over of a later rotation of the same key."""
    return given(rotation_id=UUID(int=HAND_OVER.rotation_id.int + number))


def secret() -> Secret:
    """The text of a new key."""
    return mint("kt")
