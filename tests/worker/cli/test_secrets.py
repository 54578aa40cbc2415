"""`keyturn secrets`: what it lists, what it makes, and what it never shows."""

import shutil
from pathlib import Path

import pytest

from models import keyring
from models.key_text import mint
from tests.worker.cli.conftest import Cli
from worker.cli import secret_versions


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


# One machine: `secrets rotate`


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes look at the files again at once."""
    monkeypatch.setattr(keyring, "LOOK_EVERY", 0.02)
    monkeypatch.setattr(secret_versions, "MARGIN", 0.03)


@pytest.mark.usefixtures("quick")
def test_a_kek_is_replaced_and_the_old_one_may_go_at_once(cli: Cli, own_secrets: Path) -> None:
    key = cli.new_key("first")
    cli.ok("keys", "rotate", key["id"])
    said = cli.json("secrets", "rotate", "kek", "--yes")
    assert (said["path"], said["resealed"]) == (str(own_secrets / "kek-2"), 1)
    assert uses(cli) == {
        "pepper-1": ("current", 2),
        "kek-1": ("old", 0),
        "kek-2": ("current", 1),
    }
    [old] = [one for one in said["versions"] if one["name"] == "kek-1"]
    assert old["may_retire"]
    (own_secrets / "kek-1").unlink()
    claimed = cli.json("keys", "claim", stdin=key["text"])
    assert cli.json("keys", "verify", stdin=claimed["text"])["valid"]
    assert "kek-2 may go: remove" in cli.ok("secrets", "rotate", "kek", "--yes")


@pytest.mark.usefixtures("quick")
def test_a_pepper_is_replaced_and_it_is_said_who_needs_the_old_one(
    cli: Cli, own_secrets: Path
) -> None:
    first = cli.new_key("first")
    said = cli.ok("secrets", "rotate", "pepper", "--yes")
    assert "pepper-2 is in use." in said
    assert "pepper-1 is still needed by 1" in said
    assert "keyturn rotations plan" in said
    second = cli.new_key("second")
    assert uses(cli)["pepper-2"] == ("current", 1)
    for key in (first, second):
        assert cli.json("keys", "verify", stdin=key["text"])["valid"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", ["pepper", "kek"])
def test_what_was_interrupted_goes_on_with_the_version_that_was_made(
    cli: Cli, own_secrets: Path, kind: str
) -> None:
    cli.ok("secrets", "add", kind)
    made = (own_secrets / f"{kind}-2.next").read_bytes()
    cli.ok("secrets", "rotate", kind, "--yes")
    assert (own_secrets / f"{kind}-2").read_bytes() == made
    assert not list(own_secrets.glob(f"{kind}-3*"))


def test_it_asks_and_says_for_whom_it_is(cli: Cli, own_secrets: Path) -> None:
    before = sorted(own_secrets.iterdir())
    said = cli.ok("secrets", "rotate", "kek", "--dry-run")
    assert "all processes read this directory" in said
    assert "keyturn secrets add kek" in said
    assert cli("secrets", "rotate", "kek").exit_code != 0  # nobody answers
    assert sorted(own_secrets.iterdir()) == before


def test_running_processes_are_waited_for(
    cli: Cli, own_secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("worker.cli.secret_versions.time.sleep", slept.append)
    cli.ok("secrets", "rotate", "pepper", "--yes")
    [waited] = slept
    assert keyring.LOOK_EVERY < waited <= keyring.LOOK_EVERY + secret_versions.MARGIN
    cli.ok("secrets", "rotate", "kek", "--yes")
    assert len(slept) == 3, "before the new one is used, and before old seals are looked for"
