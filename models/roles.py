"""Roles and their permissions, as the settings name them."""

from collections.abc import Mapping
from dataclasses import dataclass

from .base import Tx
from .errors import Refused


@dataclass(frozen=True)
class Role:
    """What a key or an account may do; a key gets only a `grantable` role."""

    name: str
    permissions: tuple[str, ...]
    grantable: bool = True


def sync(tx: Tx, roles: Mapping[str, Role]) -> None:
    """Make the table say what the settings say.

    A role that the settings no longer name but that is still in use stays, and is granted no more.
    """
    for role in roles.values():
        tx.execute(
            """
            INSERT INTO keyturn.roles (name, permissions, grantable)
            VALUES (:name, :permissions, :grantable)
            ON CONFLICT (name) DO UPDATE SET
                permissions = excluded.permissions, grantable = excluded.grantable
            """,
            name=role.name,
            permissions=list(role.permissions),
            grantable=role.grantable,
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
    rows = tx.rows("SELECT name, permissions, grantable FROM keyturn.roles ORDER BY name")
    return [Role(row["name"], tuple(row["permissions"]), row["grantable"]) for row in rows]


def check_grant(tx: Tx, role: str, account_role: str) -> None:
    """Refuse a key's role that is unknown, not grantable, or wider than its account's own role."""
    by_name = {known_role.name: known_role for known_role in known(tx)}
    own = frozenset(by_name[account_role].permissions)
    allowed = [r.name for r in by_name.values() if r.grantable and own.issuperset(r.permissions)]
    if role not in allowed:
        raise Refused(
            "role_not_allowed",
            f"role {role!r} cannot be given to a key of this account (its own role is "
            f"{account_role!r}); choose one of: {', '.join(allowed) or 'none is allowed'}",
        )
