"""docs/commands.md describes the commands that there are, as they are."""

from tests.worker.cli.reference import DOCUMENT, commands, described, help_of, refreshed

MEND = "run `python -m tests.worker.cli.reference` and say in docs/commands.md what changed"


def test_every_command_is_described_once_and_no_other() -> None:
    assert sorted(described(DOCUMENT.read_text("utf-8"))) == sorted(commands())


def test_the_described_options_are_the_real_ones() -> None:
    document = DOCUMENT.read_text("utf-8")
    assert refreshed(document) == document, MEND


def test_the_tree_is_the_promised_one() -> None:
    assert set(commands()) >= {
        *(f"keys {verb}" for verb in ("create", "list", "show", "disable", "enable", "delete")),
        *(f"keys {verb}" for verb in ("verify", "claim", "rotate")),
        *(f"rotations {verb}" for verb in ("list", "show", "confirm", "cancel")),
        *(f"rotations {verb}" for verb in ("undo", "retry", "reissue")),
        *(f"accounts {verb}" for verb in ("create", "list", "show", "disable", "enable", "link")),
        *(f"events {verb}" for verb in ("list", "show", "replay", "parse", "send")),
        *("roles list", "notices list", "run", "migrate", "status", "up", "intake"),
    }


def test_every_command_takes_json_and_every_destructive_one_asks() -> None:
    for command in commands():
        assert "--json" in help_of(command), command
    of_rotations = (f"rotations {verb}" for verb in ("confirm", "cancel", "reissue"))
    for command in ("keys disable", "keys delete", "accounts disable", *of_rotations):
        for option in ("--yes", "--dry-run"):
            assert option in help_of(command), command


def test_help_is_short_enough_to_be_shown_whole_in_a_list() -> None:
    for group in ("", "keys", "accounts", "rotations", "events"):
        assert "..." not in help_of(group).partition("Commands:")[2], group
