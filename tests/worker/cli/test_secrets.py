"""`keyturn secrets`: what it lists, what it makes, and what it never shows."""

import shutil
from pathlib import Path

import pytest

from models.key_text import mint
from tests.worker.cli.conftest import Cli


@pytest.fixture
def own_secrets(
    cli: Cli, secrets_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of this run's secrets that the test may change."""
    place = shutil.copytree(secrets_dir, tmp_path / "secrets")
    monkeypatch.setenv("KEYTURN_SECRETS_DIR", str(place))
    return Path(place)


def test_the_next_version_is_made_listed_and_put_to_use(cli: Cli, own_secrets: Path) -> None:
    cli.new_key("first")
    following = own_secrets / "pepper-2.next"
    assert cli.json("secrets", "add", "pepper") == {"path": str(following)}
    assert uses(cli) == {
        "pepper-1": ("current", 1),
        "pepper-2": ("next", 0),
        "kek-1": ("current", 0),
    }
    following.rename(own_secrets / "pepper-2")
    key = cli.new_key("second")
    assert uses(cli) == {
        "pepper-1": ("old", 1),
        "pepper-2": ("current", 1),
        "kek-1": ("current", 0),
    }
    assert cli.json("keys", "verify", stdin=key["text"])["valid"]


def test_the_way_to_go_on_is_told(cli: Cli, own_secrets: Path) -> None:
    path = own_secrets / "kek-2"
    assert f"mv {path}.next {path}\n" in cli.ok("secrets", "add", "kek")


def test_a_missing_version_is_exit_code_1(cli: Cli, own_secrets: Path) -> None:
    cli.new_key("first")
    cli.ok("secrets", "add", "pepper")
    (own_secrets / "pepper-2.next").rename(own_secrets / "pepper-2")
    (own_secrets / "pepper-1").unlink()
    result = cli("secrets", "list")
    assert result.exit_code == 1
    assert "missing" in result.stdout


@pytest.mark.parametrize("given", ["salt", "", "pepper-2", "../pepper"])
def test_other_names_are_wrong_usage(cli: Cli, own_secrets: Path, given: str) -> None:
    before = sorted(own_secrets.iterdir())
    assert cli("secrets", "add", given).exit_code == 2
    assert sorted(own_secrets.iterdir()) == before


def test_no_secret_is_shown(cli: Cli, own_secrets: Path) -> None:
    shown = cli.ok("secrets", "add", "pepper") + cli.ok("secrets", "list")
    shown += cli.ok("secrets", "list", "--json")
    assert all(path.read_text().strip() not in shown for path in own_secrets.iterdir())


def uses(cli: Cli) -> dict[str, tuple[str, int]]:
    return {one["name"]: (one["use"], one["named_by"]) for one in cli.json("secrets", "list")}


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys", "verify", "KEY"),
        ("keys", "KEY"),
        ("KEY",),
        ("--KEY",),
        ("keys", "--KEY", "list"),
        ("keys", "show", "KEY"),
        ("keys", "list", "--status", "KEY"),
    ],
    ids=" ".join,
)
def test_a_key_typed_where_none_belongs_is_not_repeated(
    bare_cli: Cli, arguments: tuple[str, ...]
) -> None:
    text = mint("kt").reveal()
    result = bare_cli(*(argument.replace("KEY", text) for argument in arguments))
    assert result.exit_code == 2, result.output
    assert text[3:] not in result.output
