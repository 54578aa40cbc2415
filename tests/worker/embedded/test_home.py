import os
from pathlib import Path

import pytest

from models.errors import Misconfigured
from tests.servers import temporary_home
from worker.embedded import home as home_module
from worker.embedded.account import Account, server_account
from worker.embedded.home import Home, find_home

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="about what root must do")


def open_directory(path: Path) -> Path:
    """A directory below /tmp, not below pytest's own, which is closed to other users."""
    path.mkdir()
    path.chmod(0o755)
    return path


def test_a_configured_directory_is_taken() -> None:
    assert find_home(Path("/srv/keyturn")).path == Path("/srv/keyturn")


def test_a_relative_one_is_made_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/tmp")
    assert find_home(Path("here")).path == Path("/tmp/here")


def test_the_default_is_in_the_project_from_any_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    with temporary_home() as place:
        project = open_directory(place.path / "project")
        (project / "pyproject.toml").touch()
        monkeypatch.setattr(home_module, "PROJECT", project)
        monkeypatch.chdir("/")
        assert find_home().path == project / ".keyturn"


@needs_root
def test_below_a_private_home_root_keeps_the_data_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with temporary_home() as place:
        private = open_directory(place.path / "private")
        private.chmod(0o700)
        project = open_directory(private / "project")
        (project / "pyproject.toml").touch()
        monkeypatch.setattr(home_module, "PROJECT", project)
        path = find_home().path
        assert path.parent == Path("/var/lib")
        assert path.name.startswith("keyturn-")
        assert find_home().path == path
        assert private.stat().st_mode & 0o777 == 0o700


@needs_root
def test_root_drops_to_a_user_without_rights() -> None:
    account = server_account()
    assert account is not None
    assert account.name in ("postgres", "nobody")
    assert account.uid != 0


@needs_root
def test_root_falls_back_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.embedded.account.PREFERRED", ("no-such-user", "nobody"))
    account = server_account()
    assert account is not None
    assert account.name == "nobody"


@needs_root
def test_root_with_nobody_to_drop_to_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.embedded.account.PREFERRED", ("no-such-user",))
    with pytest.raises(Misconfigured, match="has no user no-such-user: add one"):
        server_account()


def test_an_ordinary_user_runs_the_servers_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert server_account() is None


@needs_root
def test_data_that_is_there_keeps_its_owner() -> None:
    """A user `postgres` that a package adds later must not take over the data of `nobody`."""
    with temporary_home() as place:
        data = open_directory(place.path / "postgres")
        os.chown(data, 65534, 65534)
        account = find_home(place.path).account
        assert account is not None
        assert account.uid == 65534


@needs_root
def test_a_directory_that_the_servers_cannot_enter_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    home = Home(tmp_path / "data", Account("nobody", 65534, 65534))
    with pytest.raises(Misconfigured, match=r"'nobody', who cannot enter .* KEYTURN_DATA_DIR"):
        home.make()


@needs_root
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(Misconfigured, match=r"another user \(id 65534, not 0\)"):
        Home(tmp_path).make()


def test_a_place_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(Misconfigured, match="cannot make the data directory"):
        Home(Path("/dev/null/data")).make()


def test_nobody_else_looks_in(tmp_path: Path) -> None:
    home = Home(tmp_path / "data")
    home.make()
    assert home.path.stat().st_mode & 0o777 == 0o700
    assert home.own_directory("secrets").stat().st_mode & 0o777 == 0o700


def test_a_directory_laid_as_a_trap_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "secrets").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Misconfigured, match="another user"):
        Home(tmp_path).own_directory("secrets")


@pytest.mark.parametrize("name", ["n" * 90, "a,b"])
def test_sockets_go_where_their_path_is_usable(name: str) -> None:
    home = Home(Path("/srv") / name)
    assert home.sockets == Path(f"/tmp/keyturn-{home.mark}")
    assert Home(Path("/srv/data")).sockets == Path("/srv/data/run")
