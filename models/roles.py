"""Roles and their permissions, as the settings name them."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from .base import Tx
from .errors import Refused

GRANTED = """
    EXISTS (
        SELECT FROM keyturn.roles g JOIN keyturn.roles own ON own.name = a.role
        WHERE g.name = k.role AND g.grantable AND g.permissions <@ own.permissions
    )
"""
"""Whether the role of a key `k` could be given to a key of its account `a` now: `check_grant`
raises where it does not hold, and says why."""


@dataclass(frozen=True)
class Role:
    """What a key or an account may do; a key gets only a `grantable` role.

    `rotation_policy` is how its keys are rotated, where neither they nor their account say so.
    """

    name: str
    permissions: tuple[str, ...]
    grantable: bool = True
    rotation_policy: str | None = None


def sync(tx: Tx, roles: Mapping[str, Role]) -> None:
    """Make the table say what the settings say.

    A role that the settings no longer name but that is still in use stays, and is granted no more.
    """
    for role in roles.values():
        tx.execute(
            """
            INSERT INTO keyturn.roles (name, permissions, grantable, rotation_policy)
            VALUES (:name, :permissions, :grantable, :rotation_policy)
            ON CONFLICT (name) DO UPDATE SET
                permissions = excluded.permissions, grantable = excluded.grantable,
                rotation_policy = excluded.rotation_policy
            """,
            name=role.name,
            permissions=list(role.permissions),
            grantable=role.grantable,
            rotation_policy=role.rotation_policy,
        )
    tx.execute(
        "UPDATE keyturn.roles SET grantable = false WHERE name <> ALL(:names) AND grantable",
        names=list(roles),
    )
    tx.execute(
        """
        DELETE FROM keyturn.roles r WHERE name <> ALL(:names)
          AND NOT EXISTS (SELECT FROM keyturn.accounts WHERE role = r.name)
          AND NOT EXISTS (SELECT FROM keyturn.api_keys WHERE role = r.name)
        """,
        names=list(roles),
    )


def known(tx: Tx) -> list[Role]:
    """All roles, by name."""
    rows = tx.rows(
        "SELECT name, permissions, grantable, rotation_policy FROM keyturn.roles ORDER BY name"
    )
    return [
        Role(row["name"], tuple(row["permissions"]), row["grantable"], row["rotation_policy"])
        for row in rows
    ]


def check_grant(tx: Tx, role: str, account_id: UUID) -> None:
    """Refuse a key's role that is unknown, not grantable, or wider than its account's own role."""
    rows = tx.rows(
        """
        SELECT r.name, r.permissions, r.grantable, r.name = a.role AS is_own
        FROM keyturn.accounts a CROSS JOIN keyturn.roles r
        WHERE a.id = :account ORDER BY r.name
        """,
        account=account_id,
    )
    own = next(row for row in rows if row["is_own"])
    narrower = [row for row in rows if set(row["permissions"]) <= set(own["permissions"])]
    allowed = [row["name"] for row in narrower if row["grantable"]]
    if role not in allowed:
        raise Refused(
            "role_not_allowed",
            f"role {role!r} cannot be given to a key of this account (its own role is "
            f"{own['name']!r}); choose one of: {', '.join(allowed) or 'none is allowed'}",
        )
