"""An earlier release of Keyturn, out of the repository's history, run beside the present one."""

import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pytest

from tests.flows.stack import ROOT
from tests.servers import need

SCHEMA_0001: Final = "b90c8990bdcb475cab467db481b9defb438922ff"
"""The last commit whose code is written for schema 0001."""

# A product by the library: a line in is [verb, argument, ...] in JSON, a line out its answer.
_PRODUCT: Final = """
import json, sys
from models.operator import Operator

operator = Operator(sys.argv[1], secrets_dir=sys.argv[2])

def verify(text):
    verdict = operator.verify(text)
    return [verdict.valid, verdict.reason]

verbs = {
    "account": lambda email: str(operator.create_account(email, "member").id),
    "create": lambda email: operator.create_api_key(
        "a key", email, "viewer", 90 * 86400).text.reveal(),
    "verify": verify,
    "rotate": lambda text: str(operator.rotate(text).id),
    "claim": lambda text: operator.claim(text).secret.reveal(),
}
for line in sys.stdin:
    verb, *arguments = json.loads(line)
    try:
        answer = {"answer": verbs[verb](*arguments)}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
operator.close()
"""


@dataclass(frozen=True)
class Release:
    """The code of one release, the settings it runs with, and where its processes log."""

    code: Path
    environment: Mapping[str, str]
    logs: Path

    def keyturn(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A command that ends by itself."""
        return subprocess.run(
            [sys.executable, "-m", "worker.cli", *arguments],
            cwd=self.code,
            env=self._env(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def evaluate(self, expression: str) -> Any:
        """What a Python expression over `models`, `tasks` and `worker` gives, as JSON has it."""
        code = f"import json, models, tasks, worker; print(json.dumps({expression}))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.code,
            env=self._env(),
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)

    @contextmanager
    def running(self, name: str, *arguments: str) -> Iterator[Path]:
        """A process of this release until the block ends, and its log; it must not end before."""
        log = self.logs / f"{name}.log"
        with log.open("wb") as out:
            started = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=self.code,
                env=self._env(),
                stdout=out,
                stderr=out,
            )
        try:
            yield log
            assert started.poll() is None, log.read_text()[-4000:]
        finally:
            _end(started)

    @contextmanager
    def services(self, name: str) -> Iterator[Path]:
        """Worker, beat and intake; yields the worker's log."""
        celery = ("celery", "-A", "worker.main")
        worker = (*celery, "worker", "-P", "threads", "-n", f"{name}@%h")
        beat = (*celery, "beat", "--schedule", str(self.logs / f"{name}-schedule"), "--pidfile", "")
        with (
            self.running(f"{name}-worker", *worker) as log,
            self.running(f"{name}-beat", *beat),
            self.running(f"{name}-intake", "worker.cli", "intake"),
        ):
            yield log

    @contextmanager
    def product(self) -> Iterator["Product"]:
        """A product that uses this release's library."""
        started = subprocess.Popen(
            [sys.executable, "-c", _PRODUCT, *self._of_product()],
            cwd=self.code,
            env=self._env(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield Product(started)
        finally:
            _end(started)

    def _of_product(self) -> tuple[str, str]:
        names = ("KEYTURN_DATABASE_URL", "KEYTURN_SECRETS_DIR")
        return self.environment[names[0]], self.environment[names[1]]

    def _env(self) -> dict[str, str]:
        # Before the path of the environment, where the present code is installed.
        return {**self.environment, "PYTHONPATH": str(self.code)}


class Product:
    """A process that was started once and goes on with what it loaded then."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self, verb: str, *arguments: str) -> Any:
        """What the verb answers; AssertionError with the error of one that fails."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([verb, *arguments]) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, f"{verb}: {answer['error']}"
        return answer["answer"]


def code_of(commit: str, place: Path) -> Path:
    """The packages of a commit, unpacked in `place`.

    A shallow clone, or a tree without git, cannot have them: the test skips there. A whole clone
    that lacks the commit is a failure in CI.
    """
    packages = ("models", "tasks", "worker")
    archive = subprocess.run(
        ["git", "archive", commit, *packages], cwd=ROOT, capture_output=True, check=False
    )
    whole = subprocess.run(
        ["git", "rev-parse", "--is-shallow-repository"], cwd=ROOT, capture_output=True, check=False
    )
    if archive.returncode != 0 and whole.stdout.strip() != b"false":
        pytest.skip("this tree has no history: run `git fetch --unshallow` in a clone of it")
    need(
        f"the code of commit {commit[:7]}",
        archive.returncode == 0,
        "this clone lacks the history, so run `git fetch --unshallow`",
    )
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as content:
        content.extractall(place, filter="data")
    return place


def _end(process: "subprocess.Popen[Any]") -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    if process.poll() is None:
        os.kill(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
