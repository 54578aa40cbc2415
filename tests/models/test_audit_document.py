"""docs/audit.md says how to recompute a seal; here it is done, without any of our own code."""

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from models import audit, audit_seal
from models.base import Tx
from tests.models.chain import DOCUMENT, Chain, opened, program, recomputed


@pytest.fixture
def chain(database_url: str) -> Iterator[Chain]:
    with opened(database_url) as chain:
        yield chain


@pytest.fixture
def theirs() -> dict[str, Any]:
    """The functions of the document's program."""
    names: dict[str, Any] = {"__name__": "recompute"}
    exec(program(), names)
    return names


def example() -> tuple[list[dict[str, Any]], str, str, str]:
    """The document's entries, their netstrings, content and hash."""
    text = DOCUMENT.read_text("utf-8").partition("### A worked example")[2]
    found = re.search(
        r"```json\n(.*?)```.*?```text\n(.*?)```.*?content (\w{64})\nhash +(\w{64})\n",
        text,
        re.DOTALL,
    )
    assert found is not None
    entries, netstrings, content, hashed = found.groups()
    return json.loads(entries), netstrings.replace("\n", ""), content, hashed


def test_the_example_is_right(theirs: dict[str, Any]) -> None:
    entries, netstrings, content, hashed = example()
    fields = [theirs["netstring"](name, one[name]) for one in entries for name in theirs["ENTRY"]]
    assert b"".join(fields).decode() == netstrings
    assert theirs["content_of"](entries) == content
    seal = {
        "number": 1,
        "cluster": 7300000000000000001,
        "from_id": 1,
        "from_transaction": 0,
        "to_transaction": 816,
        "entries": 2,
        "first_id": 1,
        "last_id": 2,
        "sealed_at": "2026-06-01T12:01:00+00:00",
        "content": content,
    }
    assert theirs["hash_of"](seal, "0" * 64) == hashed


def test_keyturn_seals_the_example_with_that_content(chain: Chain, theirs: dict[str, Any]) -> None:
    entries, _, content, _ = example()
    chain.server.execute(
        "INSERT INTO keyturn.audit OVERRIDING SYSTEM VALUE"
        " SELECT * FROM json_populate_recordset(NULL::keyturn.audit, %s)",
        [json.dumps(entries)],
    )
    assert chain.seal() == 2
    row = chain.server.execute("SELECT to_json(s) FROM keyturn.audit_seals s").fetchone()
    assert row is not None
    [seal] = row
    assert seal["content"] == f"\\x{content}"
    assert seal["hash"] == "\\x" + theirs["hash_of"](seal, "0" * 64)


def test_the_program_agrees_with_keyturn_about_everything(chain: Chain, tmp_path: Path) -> None:
    """Whatever a text has in it: quotes, line breaks, signs of several bytes, and what looks like
    the encoding itself."""
    odd = ("", " ", "4:text,", "-,", "a\nb\t\\x00", "zo\u00eb \U0001f511", "\u202e\x7f", "x" * 5000)

    def write(tx: Tx, why: str) -> None:
        audit.record(tx, "test", "odd", why=why, before=why or None)

    for why in odd:
        chain.database.run(partial(write, why=why))
    chain.seal_all()
    told = recomputed(chain, tmp_path)
    with chain.database.begin() as tx:
        newest = audit_seal.find_newest(tx)
    assert newest is not None
    assert told.stdout == f"3 seals hold; the last is {newest.hash.hex()}\n", told.stderr
    chain.tamper("UPDATE keyturn.audit SET before = NULL, why = '' WHERE id = 5")
    told = recomputed(chain, tmp_path)
    assert (told.returncode, told.stdout) == (1, "seal 2: other entries than were sealed\n")
    chain.tamper("UPDATE keyturn.audit_seals SET hash = sha256('x') WHERE number = 1")
    told = recomputed(chain, tmp_path)
    assert told.stdout.splitlines()[0] == "seal 1: it, or one before it, is another"


def test_the_document_names_every_code_and_column() -> None:
    text = DOCUMENT.read_text("utf-8")
    source = (DOCUMENT.parents[1] / "models" / "audit_verify.py").read_text("utf-8")
    codes = set(re.findall(r'"((?:entry|seal|tail|anchor)_\w+)"', source)) - {
        "anchor_unreadable", "seal_matches", "entries_match",
    }  # fmt: skip
    assert len(codes) == 8
    for name in (*codes, *audit_seal.Seal.__dataclass_fields__):
        assert f"`{name}`" in text
