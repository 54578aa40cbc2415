import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.eventually import eventually
from worker.embedded import process
from worker.embedded.process import (
    EmbeddedFailed,
    Identity,
    PidFile,
    end,
    end_recorded,
    spawn,
    write_private,
)

SLEEPER = [sys.executable, "-c", "import time; print('asleep', flush=True); time.sleep(600)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('asleep', flush=True); time.sleep(600)",
]
POLITE = [(signal.SIGTERM, 5.0)]


def started(directory: Path, command: list[str] = SLEEPER, name: str = "one") -> process.Running:
    running = spawn(command, pid_file=PidFile(directory / f"{name}.json"), log=directory / "log")
    eventually(lambda: "asleep" in running.last_words())
    return running


def test_a_started_process_is_found_by_its_pid_file_and_ended(tmp_path: Path) -> None:
    running = started(tmp_path)
    assert running.pid_file.read() == running.identity
    running.stop(POLITE)
    assert running.popen.returncode == -signal.SIGTERM
    assert not running.pid_file.path.exists()


def test_it_leads_a_session_of_its_own(tmp_path: Path) -> None:
    running = started(tmp_path)
    assert os.getsid(running.identity.pid) == running.identity.pid
    running.stop(POLITE)


def test_a_process_deaf_to_the_first_signal_gets_the_next(tmp_path: Path) -> None:
    running = started(tmp_path, DEAF)
    running.stop([(signal.SIGTERM, 0.1), (signal.SIGKILL, 5.0)])
    assert running.popen.returncode == -signal.SIGKILL


def test_one_that_cannot_be_ended_is_an_error_that_names_it(tmp_path: Path) -> None:
    running = started(tmp_path, DEAF)
    with pytest.raises(EmbeddedFailed, match=f"process {running.identity.pid} does not end"):
        running.stop([(signal.SIGTERM, 0.1)])
    running.stop([(signal.SIGKILL, 5.0)])


def test_it_is_ended_without_its_pid_file_too(tmp_path: Path) -> None:
    running = started(tmp_path)
    running.pid_file.path.unlink()
    running.stop(POLITE)
    assert running.popen.returncode == -signal.SIGTERM


def test_ending_it_leaves_the_pid_file_of_its_successor(tmp_path: Path) -> None:
    first = started(tmp_path)
    successor = started(tmp_path)
    first.stop(POLITE)
    assert successor.pid_file.read() == successor.identity
    successor.stop(POLITE)


def test_another_process_under_a_recorded_pid_is_left_alone(tmp_path: Path) -> None:
    running = started(tmp_path)
    reused = Identity(running.identity.pid, "another start")
    running.pid_file.write(reused)
    end_recorded([running.pid_file], POLITE)
    assert running.alive()
    assert not running.pid_file.path.exists()
    running.stop(POLITE)


def test_a_zombie_does_not_run() -> None:
    child = subprocess.Popen(["true"])
    identity = eventually(lambda: Identity.of(child.pid) is None)
    assert identity
    assert child.wait() == 0


def test_an_identity_is_that_of_one_process_only(tmp_path: Path) -> None:
    one, two = started(tmp_path), started(tmp_path, name="two")
    assert one.identity != two.identity
    assert one.identity.alive()
    end_recorded([one.pid_file, two.pid_file], POLITE)
    assert not one.identity.alive()
    assert not two.identity.alive()
    assert one.popen.wait() == two.popen.wait() == -signal.SIGTERM


def test_each_signal_is_sent_once(tmp_path: Path) -> None:
    counting = "print('signal', flush=True)"
    code = f"import signal, time; signal.signal(signal.SIGTERM, lambda *_: {counting});"
    code += "print('asleep', flush=True)\nwhile True: time.sleep(600)"
    running = started(tmp_path, [sys.executable, "-c", code])
    assert end([running.identity], [(signal.SIGTERM, 0.3)]) == [running.identity]
    assert running.last_words().count("signal") == 1
    running.stop([(signal.SIGKILL, 5.0)])


@pytest.mark.parametrize("text", ["", "{", "[]", "12", '{"pid": 1}'])
def test_a_torn_pid_file_records_nobody(tmp_path: Path, text: str) -> None:
    file = PidFile(tmp_path / "one.json")
    file.path.write_text(text)
    assert file.read() is None


def test_last_words_are_those_of_this_start(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("of an earlier start\n")
    command = [sys.executable, "-c", "print('a'); print('b'); print('c')"]
    running = spawn(command, pid_file=PidFile(tmp_path / "one.json"), log=tmp_path / "log")
    running.popen.wait()
    assert running.last_words() == "a\nb\nc"
    assert running.last_words(lines=2) == "b\nc"


def test_a_large_log_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LARGEST_LOG", 3)
    (tmp_path / "one.log").write_text("long")
    running = spawn(["true"], pid_file=PidFile(tmp_path / "one.json"), log=tmp_path / "one.log")
    running.popen.wait()
    assert (tmp_path / "one.log").read_text() == ""
    assert (tmp_path / "one.log.1").read_text() == "long"


def test_a_private_file_is_replaced_whole_and_closed_to_others(tmp_path: Path) -> None:
    file = tmp_path / "private"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, "new")
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]
