"""`keyturn keys policy` and `keyturn accounts policy`: what is chosen, shown and refused."""

from pathlib import Path

import pytest

from tests.worker.cli.conftest import ADA, Cli

POLICIES = """
[rotation_policies.default]
rotate = "never"

[rotation_policies.early]
rotate = "14d"
window = "mon-fri 09:00-17:00 Europe/Berlin"

[rotation_policies.life]
rotate = "2/3"
"""


@pytest.fixture
def with_policies(cli: Cli, tmp_path: Path) -> Cli:
    (tmp_path / "keyturn.toml").write_text(POLICIES)  # where the commands are run
    return cli


def test_a_keys_policy_is_chosen_shown_and_taken_back(with_policies: Cli) -> None:
    cli = with_policies
    key = cli.new_key()["id"]
    assert "The schedule does not rotate it." in cli.ok("keys", "policy", key)
    chosen = cli.json("keys", "policy", key, "early")
    assert (chosen["changed"], chosen["rotation_policy"]) == (True, "early")
    at = chosen["scheduled"]["at"]
    assert not cli.json("keys", "policy", key, "early")["changed"]
    shown = cli.json("keys", "show", key)
    assert (shown["rotation_policy"], shown["scheduled"]["at"]) == ("early", at)
    line = f"It will be rotated by policy early, from {at[:19]}Z on."
    assert line in cli.ok("keys", "show", key)
    assert cli.json("keys", "policy", key, "--clear")["scheduled"] is None


def test_an_accounts_policy_holds_for_its_keys(with_policies: Cli) -> None:
    cli = with_policies
    key = cli.new_key()["id"]
    assert "no policy of its own" in cli.ok("accounts", "policy", ADA)
    assert cli.json("accounts", "policy", ADA, "life") == {
        "account": ADA,
        "rotation_policy": "life",
        "changed": True,
    }
    assert cli.json("keys", "show", key)["scheduled"]["policy"] == "life"
    assert "policy life" in cli.ok("accounts", "policy", ADA)
    cli.ok("accounts", "policy", ADA, "--clear")
    assert cli.json("keys", "show", key)["scheduled"] is None


def test_what_cannot_be_chosen_is_refused_with_what_can(with_policies: Cli) -> None:
    cli = with_policies
    key = cli.new_key()["id"]
    assert cli.refusal("keys", "policy", key, "yearly") == "policy_unknown"
    assert cli.refusal("accounts", "policy", ADA, "yearly") == "policy_unknown"
    assert "default, early, life" in cli("accounts", "policy", ADA, "yearly").output
    assert cli.refusal("accounts", "policy", "nobody@example.com", "life") == "user_unknown"
    assert cli("keys", "policy", key, "life", "--clear").exit_code == 2
