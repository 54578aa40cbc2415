"""Commands on a database of their own, in this process, and what they leave behind put right."""

import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner, Result

from worker.cli.app import app
from worker.settings import load_settings
from worker.setup import prepare

ADA = "ada@example.com"


class Cli:
    """Runs commands as `keyturn` does; `stdin` is what is piped in."""

    def __call__(self, *args: str, stdin: str | bytes = "") -> Result:
        return CliRunner().invoke(app, list(args), input=stdin, prog_name="keyturn")

    def ok(self, *args: str, stdin: str | bytes = "") -> str:
        """Stdout of a command that succeeds."""
        result = self(*args, stdin=stdin)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *args: str, stdin: str | bytes = "") -> Any:
        """The document of a command that succeeds."""
        return json.loads(self.ok(*args, "--json", stdin=stdin))

    def refusal(self, *args: str, stdin: str | bytes = "") -> str:
        """The code of a command that is refused."""
        result = self(*args, "--json", stdin=stdin)
        assert result.exit_code == 3, result.output
        error = json.loads(result.stdout)["error"]
        assert set(error) == {"code", "message"}
        code: str = error["code"]
        return code

    def new_key(self, name: str = "first", *options: str, user: str = ADA) -> Any:
        """A key of 30 days: its id, text and end."""
        validity = ("--validity", "30", "--time-unit", "day")
        return self.json(
            "keys", "create", name, "--user", user, "--role", "member", *validity, *options
        )


@pytest.fixture
def bare_cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cli]:
    """Commands where no server is named and none runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEYTURN_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "80")
    root, showwarning = logging.getLogger(), warnings.showwarning
    before = (root.handlers, root.level, sys.excepthook, threading.excepthook)
    yield Cli()
    root.handlers, root.level, sys.excepthook, threading.excepthook = before
    logging.captureWarnings(False)
    warnings.showwarning = showwarning
    structlog.reset_defaults()


@pytest.fixture
def cli(
    bare_cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    database_url: str,
    broker_url: str,
    secrets_dir: Path,
) -> Cli:
    """Commands on a fresh database with the default roles, and an account, `ada@example.com`."""
    monkeypatch.setenv("KEYTURN_DATABASE_URL", database_url)
    monkeypatch.setenv("KEYTURN_BROKER_URL", broker_url)
    monkeypatch.setenv("KEYTURN_SECRETS_DIR", str(secrets_dir))
    prepare(load_settings())
    bare_cli.ok("accounts", "create", ADA, "--role", "member")
    return bare_cli
