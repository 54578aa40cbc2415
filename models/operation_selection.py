"""Which keys a bulk operation takes, and which of them must not, or need not, have a successor."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Self
from uuid import UUID

from .policy import Policy
from .predicate import HELD
from .tables import ROTATION_OPEN, one_of

LEFT_OUT = f"""
    CASE WHEN k.deleted_at IS NOT NULL THEN 'key_deleted'
         WHEN k.status = 'expired' OR k.expires_at <= :now THEN 'key_expired'
         WHEN {HELD} THEN 'account_held'
         WHEN k.status = 'retired' THEN 'replaced'
         WHEN k.held THEN 'key_held'
         WHEN EXISTS (
             SELECT FROM keyturn.rotations r WHERE r.family_id = k.family_id
             AND r.{one_of("state", ROTATION_OPEN)}
         ) THEN 'in_rotation'
         WHEN k.expires_at - k.created_at < :min_life THEN 'too_short_lived'
         WHEN NOT (own.grantable AND own.permissions <@ most.permissions) THEN 'role_not_allowed'
    END
"""
"""Why a key `k` of an account `a` is not rotated, or NULL; in the words of `rotations.request`."""

WITH_ROLES = """
    keyturn.api_keys k
    JOIN keyturn.accounts a ON a.id = k.account_id
    JOIN keyturn.roles own ON own.name = k.role
    JOIN keyturn.roles most ON most.name = a.role
"""

CHOSEN = f"""
    SELECT k.id, k.account_id, k.expires_at, {LEFT_OUT} AS left_out
    FROM {WITH_ROLES}
    WHERE k.deleted_at IS NULL
      AND (CAST(:account AS uuid) IS NULL OR k.account_id = :account)
      AND (CAST(:role AS text) IS NULL OR k.role = :role)
      AND (CAST(:older_than AS interval) IS NULL OR k.created_at <= :now - :older_than)
      AND (CAST(:expiring AS interval) IS NULL
           OR (k.expires_at > :now AND k.expires_at <= :now + :expiring))
"""
"""The keys of a selection, as `parameters` name it."""

REASONS: Mapping[str, str] = {
    "key_deleted": "deleted",
    "key_expired": "expired",
    "account_held": "its account, or the tenant of that, is disabled",
    "replaced": "replaced by a successor",
    "key_held": "disabled",
    "in_rotation": "already in rotation",
    "too_short_lived": "too short-lived",
    "role_not_allowed": "its role is not granted to its account any more",
}
"""Why a key is left out or skipped, in words."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The keys of a bulk operation: those for which all that is given holds.

    One account, one role, those made longer ago than `older_than`, those that end within
    `expiring`; `everything` where nothing else is to be given.
    """

    account: UUID | None = None
    role: str | None = None
    older_than: timedelta | None = None
    expiring: timedelta | None = None
    everything: bool = False

    @property
    def given(self) -> bool:
        """Whether anything was chosen."""
        return self != Selection()

    def document(self) -> dict[str, Any]:
        """The selection as it is stored: durations in seconds."""
        named = {name: value for name, value in asdict(self).items() if value not in (None, False)}
        return {
            name: str(value)
            if isinstance(value, UUID)
            else value.total_seconds()
            if isinstance(value, timedelta)
            else value
            for name, value in named.items()
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """The selection of a stored document."""

        def length(name: str) -> timedelta | None:
            return timedelta(seconds=document[name]) if name in document else None

        return cls(
            account=UUID(document["account"]) if "account" in document else None,
            role=document.get("role"),
            older_than=length("older_than"),
            expiring=length("expiring"),
            everything=document.get("everything", False),
        )

    def parameters(self, policy: Policy) -> dict[str, Any]:
        """What CHOSEN asks for."""
        return {
            "account": self.account,
            "role": self.role,
            "older_than": self.older_than,
            "expiring": self.expiring,
            "min_life": policy.rotation_min_life,
        }
