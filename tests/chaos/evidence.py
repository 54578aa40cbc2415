"""What Keyturn says in the end, read by plain SQL on a connection of the watcher's own."""

import re
from collections import Counter, defaultdict
from typing import Final

import psycopg

from tests.chaos.ledger import Evidence, KeyFacts, Row

_INBOX: Final = """
    SELECT id, event_id, coalesce(subject_value[1], ''), coalesce(action, ''), state
    FROM keyturn.inbox ORDER BY id
"""
_KEYS: Final = """
    SELECT k.id::text, a.email, k.status, ARRAY(
        SELECT e.after FROM keyturn.audit e
        WHERE e.key_id = k.id AND e.version > 1 ORDER BY e.version)
    FROM keyturn.api_keys k JOIN keyturn.accounts a ON a.id = k.account_id
"""
_CAUSES: Final = "SELECT why FROM keyturn.audit WHERE action IN ('hold.placed', 'hold.lifted')"
_ROTATIONS: Final = """
    SELECT a.email, r.state FROM keyturn.rotations r JOIN keyturn.accounts a ON a.id = r.account_id
    ORDER BY r.issued_at
"""
_EVENT: Final = re.compile(r"\(event (\d+)\)$")


def gather(connection: psycopg.Connection) -> Evidence:
    """What the database says; what the far sides have is added by whoever knows it."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        rotations: dict[str, list[str]] = defaultdict(list)
        for email, state in connection.execute(_ROTATIONS).fetchall():
            rotations[email].append(state)
        causes = [_EVENT.search(why or "") for (why,) in connection.execute(_CAUSES).fetchall()]
        return Evidence(
            inbox=[Row(*row) for row in connection.execute(_INBOX).fetchall()],
            keys=[
                KeyFacts(key, email, status, tuple(changes))
                for key, email, status, changes in connection.execute(_KEYS).fetchall()
            ],
            causes=Counter(int(found[1]) for found in causes if found),
            rotations=rotations,
        )
