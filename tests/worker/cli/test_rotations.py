"""`keyturn rotations`: looking at hand-overs, and deciding where a person must."""

from tests.worker.cli.conftest import ADA, Cli


def test_a_rotation_is_listed_shown_and_confirmed(cli: Cli) -> None:
    key = cli.new_key("ci")
    rotation = cli.json("keys", "rotate", key["id"])
    assert [one["id"] for one in cli.json("rotations", "list", "--account", ADA)] == [
        rotation["id"]
    ]
    assert cli.json("rotations", "list", "--state", "draining") == []
    told = cli.ok("rotations", "list")
    assert rotation["id"] in told
    assert all(len(line) <= 80 for line in told.splitlines())
    shown = cli.ok("rotations", "show", rotation["id"])
    assert key["id"] in shown
    assert rotation["new_key_id"] in shown

    assert cli.refusal("rotations", "confirm", rotation["id"]) == "not_claimed"
    cli.ok("keys", "claim", stdin=key["text"])
    assert cli.json("rotations", "confirm", rotation["id"])["state"] == "draining"
    assert cli.refusal("rotations", "cancel", rotation["id"], "--yes") == "already_confirmed"


def test_a_rotation_is_cancelled_only_when_told_to(cli: Cli) -> None:
    key = cli.new_key()
    rotation = cli.json("keys", "rotate", key["id"])
    cancel = ("rotations", "cancel", rotation["id"])
    told = cli.ok(*cancel, "--dry-run")
    assert rotation["new_key_id"] in told
    assert "by nobody yet" in told
    assert cli(*cancel).exit_code == 2
    assert cli.json("rotations", "show", rotation["id"])["state"] == "issued"
    cancelled = cli.json(*cancel, "--yes", "--reason", "wrong key")
    assert cancelled["state"] == "cancelled"
    assert "wrong key" in cli.ok("rotations", "show", rotation["id"])
    assert cli.json("keys", "show", rotation["new_key_id"])["status"] == "deleted"
    assert cli("keys", "verify", stdin=key["text"]).exit_code == 0
