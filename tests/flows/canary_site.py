"""An installation whose secrets are all known, and everything that is seen of it."""

import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from models.operator import Operator
from tests.flows.canaries import Canaries, Places, Wire, files, keys, tables
from tests.flows.releases import Release
from tests.flows.stack import ROOT


@dataclass
class Site:
    """An installation whose secrets are all known, and what was seen of it."""

    release: Release
    operator: Operator
    canaries: Canaries
    wire: Wire
    postgres_log: Path
    seen: dict[str, bytes] = field(default_factory=dict)

    def command(self, *arguments: str, stdin: str = "", fails: bool = False, **more: str) -> str:
        """Run a command; its stderr, and its stdout unless it shows a new key, are searched."""
        done = subprocess.run(
            [sys.executable, "-m", "worker.cli", *arguments],
            cwd=ROOT,
            env={**self.release.environment, **more},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        shows_a_key = arguments[:2] in (("keys", "create"), ("keys", "claim")) and not fails
        self.saw(f"keyturn {' '.join(arguments[:2])}", done.stderr.encode())
        self.saw(f"keyturn {' '.join(arguments[:2])}", b"" if shows_a_key else done.stdout.encode())
        return done.stdout

    def raised(self, name: str, work: Callable[[], Any], *kinds: type[BaseException]) -> None:
        """Do what must fail, and look at the error as text, pickled, and as logs would show it."""
        with pytest.raises(kinds or (Exception,)) as caught:
            work()
        error = caught.value
        self.saw(f"error {name}", "".join(traceback.format_exception(error)).encode())
        with suppress(TypeError, AttributeError, pickle.PicklingError):
            self.saw(f"error {name} pickled", pickle.dumps(error))

    def show(self, name: str, *things: object) -> None:
        for thing in things:
            self.saw(f"repr {name}", f"{thing!r} {thing} {thing:}".encode())

    def places(self) -> Places:
        """All that there is to search."""
        with redis.Redis.from_url(self.release.environment["KEYTURN_BROKER_URL"]) as client:
            client.ping()
        return {
            **self.seen,
            **files(self.release.logs, "*.log"),
            **files(self.release.logs / "mail", "*"),
            **tables(self.operator.database.engine.url.render_as_string(hide_password=False)),
            **keys(self.release.environment["KEYTURN_BROKER_URL"]),
            "wire": self.wire.content(),
            "postgres.log": self.postgres_log.read_bytes(),
        }

    def saw(self, place: str, content: bytes) -> None:
        """Search this as well."""
        self.seen[place] = self.seen.get(place, b"") + content


def accepts(url: str) -> bool:
    with psycopg.connect(url) as connection:
        return not connection.broken


def refuses(url: str) -> bool:
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    return True
