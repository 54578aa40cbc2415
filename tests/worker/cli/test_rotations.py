"""`keyturn rotations`: looking at hand-overs, and deciding where a person must."""

from pathlib import Path

import psycopg

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


def test_what_was_retired_is_undone_and_confirmed_again(cli: Cli, database_url: str) -> None:
    key = cli.new_key()
    rotation = cli.json("keys", "rotate", key["id"])
    cli.ok("keys", "claim", stdin=key["text"])
    told = cli.ok("rotations", "confirm", rotation["id"])
    assert "the old key is retired on" in told
    assert cli.refusal("rotations", "undo", rotation["id"]) == "not_retired"
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE keyturn.rotations SET next_check_at = now(), retire_at = now(),"
            " confirmed_at = now() - interval '8 days'"
        )
    cli.json("run", "rotations.advance")
    shown = cli.ok("rotations", "show", rotation["id"])
    assert "uses_not_reported" in shown
    assert f"keyturn rotations confirm {rotation['id']}" in shown

    confirm = ("rotations", "confirm", rotation["id"])
    assert cli(*confirm).exit_code == 2
    assert "Retire key" in cli.ok(*confirm, "--dry-run")
    assert cli.json(*confirm, "--yes")["state"] == "retired"
    assert cli("keys", "verify", stdin=key["text"]).exit_code == 3
    assert "rotations undo" in cli.ok("rotations", "show", rotation["id"])
    undone = cli.json("rotations", "undo", rotation["id"], "--reason", "needed")
    assert (undone["state"], undone["undo_until"]) == ("draining", None)
    assert cli.json("rotations", "undo", rotation["id"]) == undone
    assert cli("keys", "verify", stdin=key["text"]).exit_code == 0


def test_a_lost_key_is_reissued_only_when_told_to(cli: Cli) -> None:
    key = cli.new_key()
    lost = cli.json("keys", "rotate", key["id"])
    text = cli.json("keys", "claim", stdin=key["text"])["text"]
    reissue = ("rotations", "reissue", lost["id"])
    assert cli(*reissue).exit_code == 2
    assert lost["new_key_id"] in cli.ok(*reissue, "--dry-run")
    assert cli.json("rotations", "show", lost["id"])["state"] == "issued"
    issued = cli.json(*reissue, "--yes")
    assert issued["id"] != lost["id"]
    assert cli.json(*reissue, "--yes")["id"] == issued["id"]
    assert cli.json(*reissue)["id"] == issued["id"]  # done: nobody is asked once more
    assert issued["id"] in cli.ok("rotations", "show", lost["id"])
    assert cli("keys", "verify", stdin=text).exit_code == 3
    assert "keyturn keys claim" in cli.ok("rotations", "show", issued["id"])
    assert cli.json("keys", "claim", stdin=key["text"])["id"] == issued["new_key_id"]


def test_retry_answers_with_the_rotation_and_changes_nothing_else(cli: Cli) -> None:
    rotation = cli.json("keys", "rotate", cli.new_key()["id"])
    assert cli.json("rotations", "retry", rotation["id"])["state"] == "issued"


def test_show_says_who_still_uses_the_old_key(cli: Cli, database_url: str) -> None:
    key = cli.new_key()
    rotation = cli.json("keys", "rotate", key["id"])
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE keyturn.key_uses SET uses = 12, last_used_at = now(), last_ip = '192.0.2.7'"
            " WHERE key_id = %s",
            [key["id"]],
        )
    told = " ".join(cli.ok("rotations", "show", rotation["id"]).split())
    assert "from 192.0.2.7; 12 recorded since" in told
    document = cli.json("rotations", "show", rotation["id"])
    assert (document["old_uses"], document["old_last_ip"]) == (12, "192.0.2.7")


def _tables(database_url: str) -> list[tuple[object, ...]]:
    """What a dry run must leave as it is."""
    with psycopg.connect(database_url) as connection:
        return connection.execute(
            "SELECT (SELECT count(*) FROM keyturn.audit), (SELECT count(*) FROM keyturn.outbox),"
            " (SELECT count(*) FROM keyturn.api_keys), (SELECT count(*) FROM keyturn.rotations),"
            " (SELECT array_agg(state ORDER BY id) FROM keyturn.rotations)"
        ).fetchall()


def test_a_dry_run_of_what_would_be_refused_is_refused_alike(cli: Cli, database_url: str) -> None:
    key = cli.new_key()
    rotation = cli.json("keys", "rotate", key["id"])
    assert cli.refusal("rotations", "confirm", rotation["id"], "--dry-run") == "not_claimed"
    cli.ok("keys", "claim", stdin=key["text"])
    cli.ok("rotations", "confirm", rotation["id"])
    before = _tables(database_url)
    for verb in ("cancel", "reissue"):
        dry = cli("rotations", verb, rotation["id"], "--dry-run")
        real = cli("rotations", verb, rotation["id"], "--yes")
        assert dry.exit_code == real.exit_code == 3
        assert dry.stderr == real.stderr
        assert "already in use" in dry.stderr or "is in use" in dry.stderr
        assert dry.stdout == ""
        assert cli.refusal("rotations", verb, rotation["id"], "--dry-run") == "already_confirmed"
        # refused before anybody is asked, too
        assert cli("rotations", verb, rotation["id"]).exit_code == 3
    unknown = "0193b1b8-0000-7000-8000-000000000000"
    assert cli("rotations", "cancel", unknown, "--dry-run").exit_code == (
        cli("rotations", "cancel", unknown, "--yes").exit_code
    )
    assert _tables(database_url) == before


def test_what_was_cancelled_is_not_asked_about_once_more(cli: Cli) -> None:
    rotation = cli.json("keys", "rotate", cli.new_key()["id"])
    cancel = ("rotations", "cancel", rotation["id"])
    assert cli(*cancel).exit_code == 2
    cancelled = cli.json(*cancel, "--yes")
    assert cli.json(*cancel) == cancelled
    assert "Nothing was done." in cli.ok(*cancel, "--dry-run")


def test_a_dry_run_changes_nothing(cli: Cli, database_url: str) -> None:
    rotation = cli.json("keys", "rotate", cli.new_key()["id"])
    before = _tables(database_url)
    for verb in ("cancel", "reissue"):
        assert "Nothing was done." in cli.ok("rotations", verb, rotation["id"], "--dry-run")
    assert _tables(database_url) == before


def test_show_says_which_sink_is_tried_and_what_it_said(cli: Cli, tmp_path: Path) -> None:
    settings = '[rotation_policies.default]\nsink = "run"\n[sinks.run]\nkind = "exec"\n'
    (tmp_path / "keyturn.toml").write_text(f'{settings}command = ["/bin/false"]\n')
    key = cli.new_key()
    rotation = cli.json("keys", "rotate", key["id"])
    waits = " ".join(cli.ok("rotations", "show", rotation["id"]).split())
    assert "sink run hand over waiting, next try" in waits
    assert "the sink run hands the new key over until" in waits
    cli.json("run", "rotations.hand_over")
    told = " ".join(cli.ok("rotations", "show", rotation["id"]).split())
    assert "hand over waiting, 1 of 6 tries, next try" in told
    document = cli.json("rotations", "show", rotation["id"])["hand_over"]
    assert (document["sink"], document["state"], document["tries"]) == ("run", "waiting", 1)
    assert document["error"] in told
    assert document["next_try"] is not None
    assert document["error"] in cli.ok("why", rotation["id"])
    cli.ok("keys", "claim", stdin=key["text"])
    claimed = cli.json("rotations", "show", rotation["id"])
    assert claimed["claimed_by"].startswith("operator:")
    assert f"({claimed['claimed_by']})" in cli.ok("rotations", "show", rotation["id"])
    ended = claimed["hand_over"]
    assert (ended["state"], ended["next_try"]) == ("skipped", None)
