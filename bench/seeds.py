"""Accounts and keys in bulk, as if they had been created one by one."""

from collections.abc import Sequence

import psycopg

from models.key_text import SCHEME_HMAC

# Ids of version 7 in the order of creation, as `new_id` makes them: random ones would make every
# index wider and every side slower.
_IDS = """
    CREATE FUNCTION pg_temp.an_id(n bigint) RETURNS uuid IMMUTABLE LANGUAGE sql RETURN (
        lpad(to_hex(1790000000000 + n), 12, '0') || '70008000' || substr(md5(n::text), 1, 12)
    )::uuid
"""
_ACCOUNTS = """
    INSERT INTO keyturn.accounts (id, email, role, created_at)
    SELECT pg_temp.an_id(n), 'a' || n || '@example.com', 'member', now() - interval '1 year'
    FROM generate_series(CAST(%(first)s AS bigint), %(first)s + %(accounts)s - 1) AS n
"""
_IDENTITIES = """
    INSERT INTO keyturn.account_identities (id, account_id, format, issuer, value, linked_at)
    SELECT id, id, 'email', '', email, created_at FROM keyturn.accounts
"""
_KEYS = """
    INSERT INTO keyturn.api_keys (id, account_id, name, created_by, role, digest, scheme, pepper,
        hint, family_id, created_at, expires_at, status, deleted_at)
    SELECT pg_temp.an_id(n), pg_temp.an_id(%(first)s + i / %(each)s), 'key ' || n, 'bench',
        'member', coalesce(digest, sha256(n::text::bytea)), %(scheme)s, 1, 'abcd',
        pg_temp.an_id(n), now() - interval '20 weeks',
        now() + CAST(%(ends)s AS interval) + i / %(each)s * interval '1 millisecond', %(status)s,
        CASE %(status)s WHEN 'deleted' THEN now() - interval '3 weeks' END
    FROM generate_series(0, CAST(%(accounts)s AS bigint) * %(each)s - 1) AS i
    CROSS JOIN LATERAL (SELECT i + %(first)s AS n) AS numbered
    LEFT JOIN unnest(CAST(%(digests)s AS bytea[])) WITH ORDINALITY AS d (digest, place)
      ON place = i + 1
    ORDER BY n
"""
_USES = "INSERT INTO keyturn.key_uses (key_id) SELECT id FROM keyturn.api_keys"
_AUDIT = """
    INSERT INTO keyturn.audit (at, actor, action, account_id, key_id, version, after, why)
    SELECT CASE status WHEN 'active' THEN created_at ELSE now() - interval '1 week' END,
        created_by, 'key.created', account_id, id, 1, status, nullif(status, 'active')
    FROM keyturn.api_keys
"""
BYSTANDERS = 5_000_000
"""Accounts from this number on only stand by: nothing may happen to them."""


def begin(connection: psycopg.Connection) -> None:
    """What the other functions here need, for this session."""
    connection.execute(_IDS)


def add(
    connection: psycopg.Connection,
    *,
    first: int = 1,
    accounts: int,
    each: int,
    ends: str = "5 weeks",
    status: str = "active",
    digests: Sequence[bytes] = (),
) -> None:
    """Accounts a<first>@example.com and on, with `each` keys that end `ends` from now.

    The keys of one account end together, those of the next a millisecond later.
    """
    numbers = {"first": first, "accounts": accounts, "each": each}
    connection.execute(_ACCOUNTS, numbers)
    keys = {"ends": ends, "status": status, "digests": list(digests), "scheme": SCHEME_HMAC}
    connection.execute(_KEYS, numbers | keys)


def finish(connection: psycopg.Connection) -> None:
    """The rows that come with every account and key."""
    for statement in (_IDENTITIES, _USES, _AUDIT):
        connection.execute(statement)
