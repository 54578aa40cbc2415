"""`make demo`: what it shows, what it says when a check fails, and that nothing stays behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from models.key_text import parse
from tests.eventually import eventually
from worker.embedded.process import Identity

ROOT: Final = Path(__file__).resolve().parents[2]
NOT_OURS: Final = {"KEYTURN_DATABASE_URL": "mysql://x", "KEYTURN_NO_SUCH_SETTING": "1"}
"""With these any other command fails at its start."""
SECONDS: Final = r"\d+\.\d+ s"


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the demo makes its temporary directory; everybody may enter."""
    path = Path(tempfile.mkdtemp(prefix="keyturn-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


def start(place: Path, *arguments: str, **settings: str) -> "subprocess.Popen[str]":
    """Start the demo; its chapters come on stderr, its timeline on stdout."""
    return subprocess.Popen(
        [sys.executable, "-m", "worker.cli", "demo", *arguments],
        cwd=ROOT,
        env={**os.environ, **settings, "TMPDIR": str(place), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def rows(timeline: str) -> Mapping[str, tuple[str, float | None]]:
    """What was seen of each thing that happened, and the seconds that it took."""
    found = {}
    for line in timeline.splitlines():
        match = re.match(rf"{SECONDS}\s+(.+?)\s\s+(.+?)(?:\s\s+({SECONDS}))?\s*$", line)
        if match:
            took = match[3]
            found[match[1]] = (match[2], float(took.removesuffix(" s")) if took else None)
    return found


def test_the_demo_takes_a_dozen_accounts_through_everything(place: Path) -> None:
    demo = start(place, **NOT_OURS)
    out, err = demo.communicate(timeout=280)
    assert demo.returncode == 0, out + err
    last = out.splitlines()[-1]
    match = re.fullmatch(r"demo: (\d+) checks passed", last)
    assert match, last
    assert int(match[1]) == len(re.findall(rf"^{SECONDS} ", out, re.MULTILINE)) >= 50

    seen = rows(out)
    refused = {what: took for what, (said, took) in seen.items() if said.startswith("verify: no")}
    cut = ("HR disables Ada", "Okta deactivates Ben", "Keycloak saves Eve with enabled: false")
    assert all((refused[what] or 9) < 5 for what in cut), refused
    assert seen["an older enable of Gita comes late"][0] == "events list: stale"
    assert "waiting_for_account" in seen["Okta deactivates Kira, whom nobody knows"][0]
    assert seen["an Okta hook that lost its end"][0] == "events list: rejected, not_json"
    assert seen["Okta's hold on Hugo stands"][0] == "verify: no, account_held"
    assert seen["no event is lost"][0] == "120 sent, 120 finished"
    assert seen["Jon's old key is quiet: retired"][0] == "verify: no, retired"
    assert seen["Jon's old key is missed by nobody: deleted"][0] == "verify: no, deleted"
    assert seen["Iris's minute is over"][0] == "verify: no, expired"
    assert "expires in 30 seconds" in seen["a mail to iris@demo.example"][0]
    assert seen["all twelve keys"][0] == "verify: yes of 10, no of 2"
    assert "Keyturn stops" in err
    assert list(place.iterdir()) == []
    assert [word for word in re.findall(r"\w+", out + err) if parse(word)] == []


def test_a_check_that_fails_is_told_and_leaves_only_its_logs(place: Path) -> None:
    demo = start(place, "--json", KEYTURN_PG_BIN=str(place / "nowhere"))
    out, err = demo.communicate(timeout=120)
    assert demo.returncode == 1, out + err
    told = json.loads(out)
    assert told["checks"] == 0
    assert told["failure"].startswith("keyturn up: expected 'Keyturn is ready', saw ")
    assert "nowhere" in told["failure"]
    [logs] = place.iterdir()
    assert told["logs"] == str(logs)
    assert f"The logs are kept in {logs}" in err
    assert "nowhere" in (logs / "up.log").read_text()


def test_after_ctrl_c_nothing_is_left(place: Path) -> None:
    demo = start(place)
    assert demo.stderr is not None
    while "A dozen accounts" not in (line := demo.stderr.readline()):
        assert line, "it ended"
    [directory] = place.iterdir()
    processes = [
        Identity(**json.loads(file.read_text()))
        for file in (directory / "data" / "pids").glob("*.json")
    ]
    assert len(processes) >= 5  # PostgreSQL, Valkey, worker, beat, intake
    assert all(process.alive() for process in processes)

    demo.send_signal(signal.SIGINT)
    out, err = demo.communicate(timeout=60)
    assert demo.returncode == 130, out + err
    assert list(place.iterdir()) == []
    eventually(lambda: not any(process.alive() for process in processes), within=1)
