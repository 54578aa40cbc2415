"""Who may do what in the database: four group roles, and the one table of what they are granted.

The roles cannot log in: each process logs in as a role of its own that is a member of one of them.
The owner of the schema, who migrates, needs none. PostgreSQL asks no privilege for the sequence of
an identity column, so that nobody has one.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, func, select, text

from .base import SCHEMA
from .errors import Misconfigured, Refused

WORKER: Final = "keyturn_worker"
INTAKE: Final = "keyturn_intake"
OPS: Final = "keyturn_ops"
VERIFY: Final = "keyturn_verify"
ROLES: Final[Mapping[str, str]] = {
    WORKER: "worker and beat: run the flows; make no account, and no key but a successor",
    INTAKE: "the intake process: stores what comes in, and reads none of it back",
    OPS: "operators, and products that create and rotate keys",
    VERIFY: "products that only verify keys and record their use",
}
"""The group roles, and whom each is for."""

# What a purge empties, too.
_CUT_AND_PURGE: Final = (
    "UPDATE (held, status, version, deleted_at, name, created_by, hint, allowed_ips)"
)
_RECORD: Final = (
    "UPDATE (first_used_at, last_used_at, uses, last_ip, refused_at, refused_uses, refused_ip)"
)
_RENAME: Final = "UPDATE (linked_at, unlinked_at, unlinked_by, unlinked_sequence, replaced)"
_SCHEDULE: Final = "SELECT, INSERT, UPDATE"

GRANTS: Final[Mapping[str, Mapping[str, str]]] = {
    "tenants": {
        WORKER: "SELECT, UPDATE (held, unsettled, settled_to)",
        OPS: "SELECT, INSERT, UPDATE (held, unsettled, settled_to)",
        VERIFY: "SELECT (id, held)",
    },
    "tenant_identities": {WORKER: "SELECT", OPS: "SELECT, INSERT, DELETE"},
    "accounts": {
        WORKER: "SELECT, UPDATE (held, unsettled)",
        OPS: "SELECT, INSERT, UPDATE (email, name, held, unsettled, public_key, rotation_policy,"
        " tenant_id, tenant_since)",
        VERIFY: "SELECT (id, email, held, tenant_id)",
    },
    "account_identities": {WORKER: f"SELECT, INSERT, {_RENAME}", OPS: f"SELECT, INSERT, {_RENAME}"},
    "roles": {WORKER: "SELECT", OPS: "SELECT", VERIFY: "SELECT (name, permissions)"},
    "api_keys": {
        WORKER: f"SELECT, INSERT, {_CUT_AND_PURGE}",
        OPS: "SELECT, INSERT, UPDATE (held, status, version, deleted_at, rotation_policy)",
        VERIFY: "SELECT (id, account_id, role, digest, allowed_ips, held, status, created_at,"
        " expires_at, deleted_at)",
    },
    "key_uses": {
        WORKER: "SELECT, INSERT, UPDATE (refused_told_at), DELETE",
        OPS: f"SELECT, INSERT, {_RECORD}",
        VERIFY: f"SELECT, {_RECORD}",
    },
    "compromises": {WORKER: "SELECT, INSERT, UPDATE", OPS: "SELECT, INSERT, UPDATE"},
    "holds": {WORKER: "SELECT, INSERT, UPDATE", OPS: "SELECT, INSERT, UPDATE"},
    "rotations": {WORKER: "SELECT, INSERT, UPDATE", OPS: "SELECT, INSERT, UPDATE"},
    "hand_overs": {WORKER: "SELECT, INSERT, UPDATE", OPS: "SELECT, INSERT, UPDATE"},
    "rotation_schedule": {
        WORKER: "SELECT, INSERT, UPDATE, DELETE",
        OPS: "SELECT, INSERT, UPDATE",
    },
    "operations": {WORKER: "SELECT, UPDATE, DELETE", OPS: "SELECT, INSERT, UPDATE"},
    "operation_keys": {WORKER: "SELECT, UPDATE", OPS: "SELECT, INSERT, UPDATE"},
    "operation_pace": {WORKER: "SELECT, INSERT, UPDATE"},
    "notices": {WORKER: "SELECT, INSERT, UPDATE", OPS: "SELECT, INSERT"},
    "inbox": {
        WORKER: "SELECT, INSERT, UPDATE, DELETE",
        INTAKE: "INSERT",
        OPS: "SELECT, INSERT, UPDATE",
    },
    "source_silences": {WORKER: "SELECT, INSERT, UPDATE, DELETE", OPS: "SELECT"},
    "inbox_keys": {WORKER: "SELECT, INSERT", INTAKE: "SELECT, INSERT", OPS: "SELECT, INSERT"},
    "outbox": {WORKER: "SELECT, INSERT, UPDATE, DELETE", OPS: "SELECT, INSERT"},
    "audit": {WORKER: "SELECT, INSERT", OPS: "SELECT, INSERT"},
    "audit_seals": {WORKER: "SELECT, INSERT", OPS: "SELECT"},
    "schedule_runs": {
        WORKER: _SCHEDULE,
        INTAKE: _SCHEDULE,
        OPS: _SCHEDULE,
        VERIFY: "SELECT (job)",
    },
    "alembic_version": {WORKER: "SELECT", INTAKE: "SELECT", OPS: "SELECT"},
    "audit_id_seq": {},
    "inbox_id_seq": {},
}
"""Every table and sequence of the schema, and what each role may do with it. No other verb, no
other column: what is granted beyond this is revoked."""

APPEND_ONLY: Final = ("audit", "audit_seals")
"""Tables in which nobody but their owner may change or remove a row, not even a role that is none
of ours."""

PUBLIC: Final = "PUBLIC"
_REWRITES: Final = frozenset({"UPDATE", "DELETE", "TRUNCATE"})
_LOCK: Final = 0x6B67726E  # "kgrn": PostgreSQL fails the second of two grants on one table

Privilege = tuple[str, str]
"""A verb, and the column that it is for: empty for the whole table."""

Held = Mapping[tuple[str, str], set[Privilege]]
"""What is granted, by relation (empty: the schema itself) and role."""


class NotTheOwner(Misconfigured):
    """The roles cannot be made, or their grants given, by whoever asked for it."""


def wanted(relation: str, role: str) -> set[Privilege]:
    """What GRANTS says; on the schema itself (an empty name) USAGE for each of ROLES."""
    said = ("USAGE" if role in ROLES else "") if not relation else GRANTS.get(relation, {})
    written = said if isinstance(said, str) else said.get(role, "")
    return {
        (verb, column)
        for verb, columns in re.findall(r"([A-Z]+)(?: \(([^)]*)\))?", written)
        for column in (columns.split(", ") if columns else [""])
    }


def statements(connection: Connection) -> list[str]:
    """The SQL that makes the database's roles and grants those of this module; empty if they are.

    Refused as `role_unsuitable` where a role of one of these names is more than a group.
    """
    known = _suitable(connection)
    made = [f"CREATE ROLE {role} NOLOGIN" for role in ROLES if role not in known]
    return made + _differences(connection, ROLES)


def apply(connection: Connection, sql: Iterable[str]) -> None:
    """Run `statements`. Raises NotTheOwner where PostgreSQL took them without granting anything."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    for statement in sql:
        connection.exec_driver_sql(statement)
    if left := _differences(connection, _known(connection)):
        raise NotTheOwner(
            f"{len(left)} grants were not made, the first is `{left[0]}`: let the owner of the "
            f"schema {SCHEMA} do it, or a superuser"
        )


def reapply(connection: Connection) -> None:
    """After a migration: grant what its tables need to those of ROLES that there are."""
    if known := _known(connection):
        apply(connection, _differences(connection, known))


def lacking(connection: Connection, relation: str) -> dict[str, str]:
    """By role of ROLES: what it may do with a relation and this session's role may not, in SQL."""
    missing = {
        role: {one for one in wanted(relation, role) if not _may(connection, relation, one)}
        for role in ROLES
    }
    return {role: _written(privileges) for role, privileges in missing.items() if privileges}


def _may(connection: Connection, relation: str, privilege: Privilege) -> bool:
    verb, column = privilege
    kind = ("column" if column else "table") if relation else "schema"
    on = f"{SCHEMA}.{relation}" if relation else SCHEMA
    asked = getattr(func, f"has_{kind}_privilege")
    return bool(connection.scalar(select(asked(on, *([column] if column else []), verb))))


def _known(connection: Connection) -> Sequence[str]:
    found = connection.execute(
        text("SELECT rolname FROM pg_roles WHERE rolname = ANY(:names) ORDER BY rolname"),
        {"names": list(ROLES)},
    )
    return found.scalars().all()


def _suitable(connection: Connection) -> Sequence[str]:
    unfit = connection.scalar(
        text(
            """
            SELECT rolname FROM pg_roles WHERE rolname = ANY(:names) AND (rolcanlogin OR rolsuper
                OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls) LIMIT 1
            """
        ),
        {"names": list(ROLES)},
    )
    if unfit:
        raise Refused(
            "role_unsuitable",
            f"there is a role {unfit} that may log in or more: ALTER ROLE {unfit} NOLOGIN "
            "NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS, or rename it",
        )
    return _known(connection)


def _differences(connection: Connection, roles: Iterable[str]) -> list[str]:
    """The statements for everything on which the catalogue and GRANTS differ about these roles."""
    held = _held(connection)
    found = []
    for relation in ("", *_relations(connection)):
        on = f"SCHEMA {SCHEMA}" if not relation else f"{SCHEMA}.{relation}"
        for role in (*roles, PUBLIC):
            now, then = held.get((relation, role), set()), wanted(relation, role)
            if now and now != then:
                # All of it: taking a verb from a table takes it from each of its columns as well.
                found.append(_revoke("ALL", on, role))
            if then and now != then:
                found.append(f"GRANT {_written(then)} ON {on} TO {role}")
    return found + _rewriters(held)


def _rewriters(held: Held) -> list[str]:
    """Of the tables that are only added to, what others than our roles were given too much."""
    found = []
    for (relation, role), privileges in sorted(held.items()):
        excess = {one for one in privileges if one[0].rstrip("*") in _REWRITES}
        if relation in APPEND_ONLY and role not in (*ROLES, PUBLIC) and excess:
            verbs = ", ".join(sorted({verb.rstrip("*") for verb, _ in excess}))
            found.append(_revoke(verbs, f"{SCHEMA}.{relation}", role))
    return found


def _revoke(verbs: str, on: str, role: str) -> str:
    return f"REVOKE {verbs} ON {on} FROM {role}"


def _written(privileges: Iterable[Privilege]) -> str:
    """Privileges in SQL: each verb once, with its columns if it is not for the whole table."""
    by_verb: dict[str, list[str]] = defaultdict(list)
    for verb, column in sorted(privileges):
        by_verb[verb] += [column] if column else []
    return ", ".join(
        f"{verb} ({', '.join(columns)})" if columns else verb for verb, columns in by_verb.items()
    )


def _relations(connection: Connection) -> Sequence[str]:
    """Every table, view and sequence of the schema, by name."""
    query = f"SELECT c.relname FROM {_OURS} ORDER BY 1"
    return connection.execute(text(query), {"schema": SCHEMA}).scalars().all()


def _held(connection: Connection) -> Held:
    """What others than the owner may do; the verb is `VERB*` where they may grant it on."""
    found: dict[tuple[str, str], set[Privilege]] = defaultdict(set)
    rows = connection.execute(text(_GRANTED), {"schema": SCHEMA})
    for relation, role, verb, column in rows:
        found[relation, role].add((verb, column))
    return found


_OURS = """
    pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        AND n.nspname = :schema AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
"""
_GRANTED = f"""
    SELECT relation, CASE WHEN grantee = 0 THEN '{PUBLIC}' ELSE quote_ident(rolname) END,
           privilege_type || CASE WHEN is_grantable THEN '*' ELSE '' END, attname
    FROM (
        SELECT '' AS relation, '' AS attname, nspowner AS owner, x.*
        FROM pg_namespace, aclexplode(nspacl) x WHERE nspname = :schema
        UNION ALL
        SELECT c.relname, '', c.relowner, x.* FROM {_OURS}, aclexplode(c.relacl) x
        UNION ALL
        SELECT c.relname, a.attname, c.relowner, x.*
        FROM {_OURS} JOIN pg_attribute a ON a.attrelid = c.oid, aclexplode(a.attacl) x
    ) granted LEFT JOIN pg_roles r ON r.oid = grantee
    WHERE grantee <> owner AND (grantee = 0 OR rolname IS NOT NULL)
"""
