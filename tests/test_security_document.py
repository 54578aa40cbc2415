"""docs/security.md: every line of the threat model names tests, and they are there."""

import re
from typing import Final

import pytest

from models.grants import ROLES
from tests.compose_file import ROOT
from tests.worker.secured import PERMISSIONS, USERS

DOCUMENT: Final = (ROOT / "docs" / "security.md").read_text("utf-8")
_MODEL: Final = DOCUMENT.partition("## Who can do what")[2].partition("\n## ")[0]
_TEST: Final = re.compile(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`")
NAMED: Final = sorted(set(_TEST.findall(DOCUMENT)))


@pytest.mark.parametrize("named", NAMED, ids=lambda named: "::".join(filter(None, named)))
def test_a_test_that_is_named_is_there(named: tuple[str, str]) -> None:
    file, test = named
    text = (ROOT / file).read_text("utf-8")
    assert re.search(rf"^def {test or 'test_'}", text, re.MULTILINE), f"{file} has no {test}"


def test_every_line_names_what_limits_it_and_its_test() -> None:
    lines = [
        line for line in _MODEL.splitlines() if line.startswith("| ") and "they can |" not in line
    ]
    assert len(lines) >= 25
    for line in lines:
        _can, cannot, limit, test = (cell.strip() for cell in line.strip("|").split(" | "))
        assert cannot, line
        assert limit, line
        assert _TEST.search(test), line


@pytest.mark.parametrize(
    "heading",
    [
        *("Write access to the broker", "Read access to the broker", "A producer's credentials"),
        *("Read access to the database, or a backup", "The credentials of a database role"),
        *("A log file", "A stolen mailbox", "A worker's environment", "An operator's terminal"),
    ],
)
def test_nobody_is_left_out(heading: str) -> None:
    assert f"\n### {heading}\n" in _MODEL


def test_the_roles_and_users_are_those_that_there_are() -> None:
    for name in (*ROLES, *USERS):
        assert f"`{name}`" in DOCUMENT
    for file in PERMISSIONS.iterdir():
        assert file.suffix in ("", ".py") or f"`{file.name}`" in DOCUMENT
