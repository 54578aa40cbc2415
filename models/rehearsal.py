"""What a dry run would have written, kept so that its later batches say what they really would."""

import json
from collections.abc import Iterable, Mapping
from typing import Any


class Rehearsal:
    """Facts by kind and name, in a file of SQLite's own that goes when it is closed.

    Not in memory: a dry run of a million lines would keep them all. Not in our database: a dry
    run writes nothing there.
    """

    def __init__(self) -> None:
        import sqlite3  # only who rehearses pays for it

        self._file = sqlite3.connect("")
        self._file.execute(
            "CREATE TABLE kept (kind TEXT, name TEXT, facts TEXT, PRIMARY KEY (kind, name))"
            " WITHOUT ROWID"
        )

    def remember(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Keep facts by name, as JSON has them, in the place of earlier ones."""
        with self._file:
            self._file.executemany(
                "INSERT OR REPLACE INTO kept VALUES (?, ?, ?)",
                [(kind, name, json.dumps(one, default=str)) for name, one in facts.items()],
            )

    def recall(self, kind: str, names: Iterable[str]) -> dict[str, Any]:
        """What is kept by these names."""
        found = self._file.execute(
            "SELECT name, facts FROM kept"
            " WHERE kind = ? AND name IN (SELECT value FROM json_each(?))",
            (kind, json.dumps(list(names))),
        )
        return {name: json.loads(facts) for name, facts in found}

    def close(self) -> None:
        """Forget everything."""
        self._file.close()
