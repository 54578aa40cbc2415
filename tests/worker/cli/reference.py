"""The reference in docs/commands.md: every command under a heading, with its real --help.

`python -m tests.worker.cli.reference` writes the blocks anew; headings and prose are by hand.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from worker.cli.app import app

DOCUMENT = Path(__file__).parents[3] / "docs" / "commands.md"

_BLOCK = re.compile(
    r"^### `keyturn (?P<command>[a-z -]+)`\n(?P<prose>.*?)```text\n.*?```\n", re.M | re.S
)


def commands() -> list[str]:
    """Every command that does something, in the order of --help."""
    return list(_leaves(get_command(app), ""))


def _leaves(command: Any, name: str) -> Iterator[str]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name
        return
    for inner_name, one in inner.items():
        yield from _leaves(one, f"{name} {inner_name}".strip())


def help_of(command: str) -> str:
    """What `--help` prints of a command, on 80 columns."""
    arguments = [*command.split(), "--help"]
    result = CliRunner().invoke(app, arguments, prog_name="keyturn", terminal_width=80)
    assert result.exit_code == 0, result.output
    return "\n".join(line.rstrip() for line in result.stdout.strip().splitlines())


def described(document: str) -> list[str]:
    """The commands that the document has a heading and a block for, in its order."""
    return [found["command"] for found in _BLOCK.finditer(document)]


def refreshed(document: str) -> str:
    """The document with every block as --help has it now."""

    def block(found: re.Match[str]) -> str:
        command = found["command"]
        text = help_of(command)
        return f"### `keyturn {command}`\n{found['prose']}```text\n{text}\n```\n"

    return _BLOCK.sub(block, document)


if __name__ == "__main__":
    DOCUMENT.write_text(refreshed(DOCUMENT.read_text("utf-8")), "utf-8")
