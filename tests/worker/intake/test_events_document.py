"""docs/events.md: its table has a row for whatever the shipped mappings give a meaning to."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.compose_file import ROOT
from worker.intake.providers import NAMES, mappings
from worker.setting_proofs import PRESETS, SCHEMES

DOCUMENT = (ROOT / "docs" / "events.md").read_text("utf-8")
COLUMNS = ("provider", "type", "action", "certainty", "account", "dedup key", "time", "order",
           "verification", "tested with")  # fmt: skip
MAPPINGS = sorted(Path(mappings.__file__).parent.glob("*.toml"))
IN_WORDS = ("graph.",)
"""Types of our own making, which the table describes."""


def table() -> dict[str, list[dict[str, str]]]:
    """The rows of each provider."""
    lines = [line for line in DOCUMENT.splitlines() if line.startswith("|")]
    start = lines.index("| " + " | ".join(COLUMNS) + " |") + 2
    rows: dict[str, list[dict[str, str]]] = {}
    name = ""
    for line in lines[start:]:
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) != len(COLUMNS):
            break  # the next table
        name = cells[0].strip("`") or name
        rows.setdefault(name, []).append(dict(zip(COLUMNS, cells, strict=True)))
    return rows


def test_each_provider_has_rows_and_each_row_says_what_was_tested() -> None:
    rows = table()
    assert sorted(rows) == sorted(NAMES)
    for name, found in rows.items():
        for row in found:
            assert row["type"], row
            if row["action"].startswith(("refused", "as ")) or name == "mapped":
                continue
            assert row["action"], row
            assert row["tested with"], row
            if not row["action"].startswith("none"):
                assert row["account"], row
                assert row["dedup key"], row
                assert row["order"], row


def test_each_provider_has_a_way_of_verification_that_can_be_set() -> None:
    known = {*SCHEMES, *PRESETS}
    for name, found in table().items():
        given = found[0]["verification"]
        schemes = set(re.findall(r"`([^`]+)`", given))
        assert schemes or "transport" in given or given == "any", name
        assert schemes <= known, name
        assert schemes or name not in PRESETS, name


@pytest.mark.parametrize("path", MAPPINGS, ids=lambda path: path.stem)
def test_each_type_of_a_shipped_mapping_is_in_the_table(path: Path) -> None:
    text = " ".join(row["type"].replace("`: `", ".") for row in table()[path.stem])
    meant = tomllib.loads(path.read_text("utf-8"))["types"]
    missing = [
        name
        for name, effect in meant.items()
        if effect != "none" and not name.startswith(IN_WORDS) and not _told(name, text)
    ]
    assert missing == []


def _told(name: str, text: str) -> bool:
    """Whether it is there, whole or as the end that tells it from the one before."""
    return any(name[at.start() :] in text for at in re.finditer(r"^|[._]|(?<=[/ ])", name))
