"""What stands in a query's text is written in this code: values travel as parameters.

A query that is put together may take in constants (in capitals), lists of states that `one_of`
writes out, and what is listed here, each a text of this code's own.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
QUERY: Final = re.compile(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|FROM|WHERE|SET|WITH)\b")
CONSTANT: Final = re.compile(r"_?[A-Z][A-Z0-9_]*(\.(days - 1|replace\(':now', '{now}'\)))?")
OWN_TEXTS: Final = {
    "' AND '.join(conditions)",  # conditions are written where they are chosen
    "models/base.py: last",  # the insertions of Collected, each a text of this package
    "models/base.py: parts",
    "models/audit.py: found",  # one or two looks, put together of the conditions above
    "models/api_keys.py: order",  # one of two orders
    "models/holds.py: target.column",  # tenant_id, account_id or key_id
    "models/grants.py: on",  # a relation of the schema
    "models/grants.py: role",  # one of ROLES, or quoted by PostgreSQL
    "models/grants.py: verbs",  # of GRANTS or the catalogue: DDL takes no parameters
    "models/inbox.py: where",  # a condition or none
    "models/invariants.py: int(timeout.total_seconds() * 1000)",  # a number
    "models/invariants.py: promise.query.format(**where)",  # all or what changed, of a promise
    "models/operation_steps.py: change",  # the assignments of one step
    "models/rotation_rows.py: where",  # a condition of a caller in this package
    "models/rotation_steps.py: change",  # the assignments of one step
    "models/settle.py: 'SKIP LOCKED' if account_id is None else ''",
    "models/why.py: target.column",  # tenant_id, account_id or key_id
    "models/why.py: column",  # the audit's: account_id or key_id
    "models/tenants.py: where",  # a condition or none
    "models/settle.py: only",  # a condition or none
}


def foreign(module: str, code: str) -> Iterator[str]:
    """What a module puts into its queries that is neither a constant nor listed."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.JoinedStr) and QUERY.search(_written(node)):
            for value in node.values:
                if isinstance(value, ast.FormattedValue):
                    put_in = ast.unparse(value.value)
                    if not _own(module, put_in):
                        yield f"{module}: {put_in}"
        joins = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod | ast.Add)
        if joins and any(_is_query(side) for side in (node.left, node.right)):  # type: ignore[attr-defined]
            yield f"{module}: {ast.unparse(node)}"


def _written(node: ast.JoinedStr) -> str:
    return "".join(str(one.value) for one in node.values if isinstance(one, ast.Constant))


def _is_query(node: ast.expr) -> bool:
    text = isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value
    return bool(text and QUERY.search(text))


def _own(module: str, put_in: str) -> bool:
    return bool(
        CONSTANT.fullmatch(put_in)
        or put_in.startswith("one_of(")
        or {put_in, f"{module}: {put_in}"} & OWN_TEXTS
    )


def test_queries_hold_only_texts_of_our_own() -> None:
    files = [file for ring in ("models", "tasks", "worker") for file in (ROOT / ring).rglob("*.py")]
    found = [
        one
        for file in files
        for one in foreign(file.relative_to(ROOT).as_posix(), file.read_text("utf-8"))
    ]
    assert not found, "pass these as parameters, or say in OWN_TEXTS why they are texts of ours"


@pytest.mark.parametrize(
    "code",
    [
        "tx.rows(f\"SELECT id FROM keyturn.accounts WHERE email = '{email}'\")",
        "tx.rows(f'UPDATE keyturn.accounts SET {column} = 1')",
        'tx.rows("SELECT id FROM keyturn.accounts WHERE email = \'" + email)',
        "tx.rows('DELETE FROM %s' % table)",
    ],
)
def test_a_value_in_a_query_is_found(code: str) -> None:
    assert list(foreign("models/somewhere.py", code))
