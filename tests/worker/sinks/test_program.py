"""The sink of kind exec, with real programs."""

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from models.errors import Misconfigured
from models.sinks import Outcome
from tests.eventually import eventually
from tests.worker.sinks.given import HAND_OVER, given, secret
from worker.sinks import Program

Write = Callable[[str], list[str]]


@pytest.fixture
def program(tmp_path: Path) -> Write:
    """Makes a program of a text in Python; it is given the directory of the test."""

    def write(code: str) -> list[str]:
        path = tmp_path / "hand-over"
        head = f"#!{sys.executable} -S\nimport os, sys, time\nplace = sys.argv[1]\n"
        path.write_text(head + code)
        path.chmod(0o700)
        return [str(path), str(tmp_path)]

    return write


def run(command: list[str], timeout: float = 20.0) -> Outcome:
    return Program(command, timeout).deliver(HAND_OVER, secret())


def test_it_gets_the_text_and_the_facts_and_nothing_else(
    program: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYTURN_DATABASE_URL", "postgresql://u:hush@h/d")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("LANG", "C.UTF-8")
    command = program(
        "import json\n"
        "seen = dict(text=sys.stdin.read(), env=dict(os.environ), argv=sys.argv, cwd=os.getcwd(),"
        " fds=sorted(int(fd) for fd in os.listdir('/proc/self/fd'))[:3], pgid=os.getpgid(0))\n"
        "open(place + '/seen', 'w').write(json.dumps(seen))\n"
    )
    text = secret()
    outcome = Program(command, 20.0).deliver(given(key_name="$(reboot) 'x'\n"), text)
    assert (outcome.state, outcome.receipt) == ("taken", "hand-over took it")
    seen = json.loads((tmp_path / "seen").read_text())
    assert seen["text"] == f"{text.reveal()}\n"
    env = {name: value for name, value in seen["env"].items() if name != "LC_CTYPE"}
    assert env == {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "LANG": "C.UTF-8",
        "KEYTURN_ROTATION_ID": str(HAND_OVER.rotation_id),
        "KEYTURN_FAMILY_ID": str(HAND_OVER.family_id),
        "KEYTURN_ACCOUNT": "ada@example.com",
        "KEYTURN_ACCOUNT_ID": str(HAND_OVER.account_id),
        "KEYTURN_KEY_ID": str(HAND_OVER.key_id),
        "KEYTURN_KEY_NAME": "$(reboot) 'x'\n",
        "KEYTURN_EXPIRES_AT": "2027-03-01T12:00:00+00:00",
        "KEYTURN_OLD_KEY_ID": str(HAND_OVER.old_key_id),
        "KEYTURN_OLD_EXPIRES_AT": "2026-12-01T12:00:00+00:00",
    }
    assert text.reveal() not in json.dumps([seen["env"], seen["argv"]])
    assert (seen["argv"], seen["cwd"]) == (command, "/")
    assert seen["pgid"] != os.getpgid(0)


@pytest.mark.parametrize(
    ("code", "state", "why"),
    [
        (1, "retry", "exit code 1"),
        (os.EX_TEMPFAIL, "retry", "exit code 75"),
        (127, "retry", "exit code 127"),
        (os.EX_DATAERR, "failed", "refused the key for good (EX_DATAERR)"),
        (os.EX_CONFIG, "failed", "refused the key for good (EX_CONFIG)"),
    ],
)
def test_its_exit_code_is_its_answer(program: Write, code: int, state: str, why: str) -> None:
    outcome = run(program(f"sys.exit({code})"))
    assert outcome.state == state
    assert why in str(outcome.error)


def test_a_signal_is_no_receipt(program: Write) -> None:
    outcome = run(program("os.kill(os.getpid(), 9)"))
    assert (outcome.state, outcome.error) == ("retry", "hand-over was ended by signal 9")


@pytest.mark.parametrize("code", ["sys.exit(0)", "sys.stdin.close(); os.close(0); sys.exit(0)"])
def test_who_does_not_read_the_text_is_judged_by_the_exit_code(program: Write, code: str) -> None:
    assert run(program(code)).state == "taken"


def test_its_output_goes_nowhere(
    program: Write, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    code = (
        "text = sys.stdin.read()\n"
        "for _ in range(20000):\n    print(text); print(text, file=sys.stderr)\nsys.exit(3)\n"
    )
    text = secret()
    outcome = Program(program(code), 20.0).deliver(HAND_OVER, text)
    assert outcome.error == "hand-over ended with exit code 3"
    out, err = capfd.readouterr()
    assert text.reveal() not in out + err + caplog.text + repr(outcome)


def alive(pid: int) -> bool:
    """Whether a process runs, and is no zombie that nobody has asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("stubborn", [False, True])
def test_what_takes_too_long_is_killed_with_all_its_children(
    program: Write, tmp_path: Path, stubborn: bool
) -> None:
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if stubborn else ""
    code = (
        f"{ignore}child = os.fork()\n"
        "if not child:\n    time.sleep(600)\n"
        "open(place + '/.pids', 'w').write(f'{os.getpid()} {child}')\n"
        "os.rename(place + '/.pids', place + '/pids')\n"
        "time.sleep(600)\n"
    )
    started = time.monotonic()
    outcome = run(program(code), timeout=4.0)
    assert (outcome.state, outcome.error) == (
        "retry",
        "hand-over took longer than 4 s, and was killed",
    )
    assert time.monotonic() - started < 30
    for pid in (tmp_path / "pids").read_text().split():
        eventually(lambda pid=pid: not alive(int(pid)))  # type: ignore[misc]


def test_a_program_that_is_gone_is_looked_for_again(program: Write, tmp_path: Path) -> None:
    sink = Program(program("sys.exit(0)"), 20.0)
    (tmp_path / "hand-over").unlink()
    outcome = sink.deliver(HAND_OVER, secret())
    assert outcome.state == "retry"
    assert "could not be started (No such file" in str(outcome.error)


def test_what_cannot_be_run_is_refused_at_the_start(program: Write, tmp_path: Path) -> None:
    command = program("")
    path = tmp_path / "hand-over"
    path.chmod(0o600)
    with pytest.raises(Misconfigured, match="is no program that may be run"):
        Program(command, 1.0)
    path.chmod(0o720)
    with pytest.raises(Misconfigured, match=r"others may change .* run `chmod go-w"):
        Program(command, 1.0)
    with pytest.raises(Misconfigured, match="cannot be found"):
        Program([str(tmp_path / "nothing")], 1.0)
    with pytest.raises(Misconfigured, match="is no program"):
        Program([str(tmp_path)], 1.0)
