"""`keyturn up`: everything in the foreground, with embedded servers where none are set."""

import os
import shlex
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Final
from urllib.parse import unquote, urlsplit

import typer

from models.errors import Misconfigured
from worker.embedded import EmbeddedFailed, Home
from worker.embedded.process import write_private
from worker.embedded.supervisor import Supervisor
from worker.settings import Settings, load_settings

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ACCOUNT: Final = "ada@example.com"


def up() -> None:
    """Run Keyturn in the foreground; Ctrl-C stops it.

    PostgreSQL and Valkey are started too, unless KEYTURN_DATABASE_URL and KEYTURN_BROKER_URL name
    servers of your own.
    """
    try:
        supervisor = Supervisor(load_settings(), _warn)

        def stop(number: int, frame: FrameType | None) -> None:
            supervisor.stopping.set()

        for number in _SIGNALS:
            signal.signal(number, stop)
        supervisor.run(_welcome)
    except (Misconfigured, EmbeddedFailed) as error:
        _warn(str(error))
        raise typer.Exit(1) from None
    print("Keyturn has stopped", flush=True)


def _warn(message: str) -> None:
    print(f"keyturn: {message}", file=sys.stderr, flush=True)


def _welcome(home: Home, settings: Settings) -> None:
    keyturn = _typed(Path(sys.executable).with_name("keyturn"))
    create = "--role member --validity 30 --time-unit day"
    lines = [
        "Keyturn is ready",
        f"Its data is in {home.path}, its logs in {home.path / 'log'}",
        "",
        "Try, in another terminal: an account, a key of it, the account disabled, the key dead.",
        "",
        f"  $ {keyturn} accounts create {_ACCOUNT} --role member",
        f"  $ {keyturn} keys create first --user {_ACCOUNT} {create}",
        f"  $ {keyturn} events send account.disabled {_ACCOUNT}",
        *_raw_event(home, settings),
        f"  $ {keyturn} keys list --account {_ACCOUNT}",
        "",
        "Ctrl-C stops everything.",
    ]
    print("\n".join(lines), flush=True)


def _raw_event(home: Home, settings: Settings) -> list[str]:
    """The event as any client of the stream's server sends it; its password is read from a file."""
    try:
        server = urlsplit(settings.stream_url)
    except Misconfigured:
        return []  # a broker without streams
    file = home.path / "stream.password"
    write_private(file, f"{unquote(server.password or '')}\n")
    options = ["-h", server.hostname or "localhost", "-p", str(server.port or 6379)]
    options += ["-n", server.path.strip("/") or "0"]
    options += ["--tls"] if server.scheme == "rediss" else []
    options += ["--user", unquote(server.username)] if server.username else []
    command = shlex.join([*options, "XADD", "keyturn:in", "*", "type", "account.disabled"])
    return [
        "      (or the same by a Redis client:",
        f'      REDISCLI_AUTH="$(cat {_typed(file)})" redis-cli {command} account {_ACCOUNT} )',
    ]


def _typed(program: Path) -> str:
    """A program as one types it here."""
    below = os.path.relpath(program)
    return shlex.quote(str(program) if below.startswith("..") else below)


if __name__ == "__main__":
    typer.run(up)
