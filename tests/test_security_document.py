"""docs/security.md and docs/failures.md: every line names tests, and they are there."""

import re
from typing import Final

import pytest

from models.grants import ROLES
from tests.compose_file import ROOT
from tests.worker.secured import PERMISSIONS, USERS

DOCUMENT: Final = (ROOT / "docs" / "security.md").read_text("utf-8")
_MODEL: Final = DOCUMENT.partition("## Who can do what")[2].partition("\n## ")[0]
_TEST: Final = re.compile(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`")
FAILURES: Final = (ROOT / "docs" / "failures.md").read_text("utf-8")
NAMED: Final = sorted({*_TEST.findall(DOCUMENT), *_TEST.findall(FAILURES)})


@pytest.mark.parametrize("named", NAMED, ids=lambda named: "::".join(filter(None, named)))
def test_a_test_that_is_named_is_there(named: tuple[str, str]) -> None:
    file, test = named
    text = (ROOT / file).read_text("utf-8")
    looked_for = rf"^def {test}\(" if test else "^def test_"
    assert re.search(looked_for, text, re.MULTILINE), f"{file} has no {test or 'test'}"


def test_every_failure_names_what_holds_it_and_its_test() -> None:
    lines = [
        line
        for line in FAILURES.splitlines()
        if line.startswith("| ") and not line.startswith(("| what fails ", "| found "))
    ]
    assert len(lines) >= 50
    for line in lines:
        failure, held_by, test = (cell.strip() for cell in line.strip("|").split(" | "))
        assert failure, line
        assert held_by, line
        assert _TEST.search(test), line


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
