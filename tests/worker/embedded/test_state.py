import os
from pathlib import Path

import pytest

from models.errors import Misconfigured
from models.secret_files import read_versioned
from worker.embedded import Embedded, Home, running
from worker.embedded.default_secrets import make_default_secrets
from worker.embedded.process import Identity
from worker.embedded.state import announce, withdraw


def example(path: Path) -> Embedded:
    return Embedded(path, "postgresql://database", "redis://:password@broker", path / "secrets")


def myself() -> Identity:
    identity = Identity.of(os.getpid())
    assert identity is not None
    return identity


def test_what_runs_is_found_and_its_passwords_are_for_the_owner_only(tmp_path: Path) -> None:
    assert running(tmp_path) is None
    announce(example(tmp_path), [myself()])
    assert running(tmp_path) == example(tmp_path)
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600
    withdraw(Home(tmp_path))
    assert running(tmp_path) is None


def test_what_was_killed_does_not_run(tmp_path: Path) -> None:
    announce(example(tmp_path), [myself(), Identity(os.getpid(), "an earlier start")])
    assert running(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"processes": 1}', '{"processes": [1]}'])
def test_a_torn_announcement_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    assert running(tmp_path) is None


def test_the_servers_of_another_user_are_named_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(Misconfigured, match="belong to another user: run this command as"):
        running(tmp_path)


def test_default_secrets_are_made_once(tmp_path: Path) -> None:
    home = Home(tmp_path)
    directory = make_default_secrets(home)
    first = [read_versioned(directory, name).by_version for name in ("pepper", "kek")]
    assert [{version: len(secret) for version, secret in found.items()} for found in first] == [
        {1: 32},
        {1: 32},
    ]
    assert first[0][1] != first[1][1]
    make_default_secrets(home)
    assert [read_versioned(directory, name).by_version for name in ("pepper", "kek")] == first


def test_a_later_version_in_place_of_the_first_is_kept(tmp_path: Path) -> None:
    directory = make_default_secrets(Home(tmp_path))
    (directory / "pepper-1").rename(directory / "pepper-2")
    make_default_secrets(Home(tmp_path))
    assert set(read_versioned(directory, "pepper").by_version) == {2}


def test_lost_secrets_of_an_old_database_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    assert list(make_default_secrets(Home(tmp_path)).iterdir()) == []
