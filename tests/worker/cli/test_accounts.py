"""`keyturn accounts`: who owns keys, and what holds them."""

from models import holds
from models.base import Database
from models.policy import Policy
from tests.worker.cli.conftest import ADA, Cli


def hold_from_okta(database_url: str) -> None:
    database = Database(database_url)
    with database.begin() as tx:
        account = tx.scalar("SELECT id FROM keyturn.accounts")
        holds.lock_accounts(tx, [account])
        cause = holds.Cause(source="okta", kind="disabled", actor="test")
        holds.place(tx, holds.on_account(account), cause, Policy())
    database.close()


def test_an_account_with_the_names_that_producers_have_for_it(cli: Cli) -> None:
    made = cli.json(
        *("accounts", "create", "Bob@Example.com", "--role", "viewer", "--name", "Bob"),
        *("--identity", "okta:00u1", "--identity", "keycloak:a:b"),
    )
    assert (made["email"], made["name"], made["role"]) == ("bob@example.com", "Bob", "viewer")
    cli.ok("accounts", "link", "bob@example.com", "native:emp-7")
    known = cli.json("accounts", "show", made["id"])["identities"]
    assert {(one["format"], one["issuer"], one["value"]) for one in known} == {
        ("email", "", "bob@example.com"),
        ("opaque", "okta", "00u1"),
        ("opaque", "keycloak", "a:b"),
        ("opaque", "native", "emp-7"),
    }
    assert cli.refusal("accounts", "link", ADA, "okta:00u1") == "identity_taken"
    assert "00u1" in cli.ok("accounts", "show", "bob@example.com")


def test_an_account_in_a_tenant_from_the_start(cli: Cli) -> None:
    acme = cli.json("tenants", "create", "Acme")
    cli.ok("tenants", "disable", "Acme", "--yes")
    for number, named in enumerate(("Acme", acme["id"])):
        made = cli.json(
            *("accounts", "create", f"b{number}@example.com", "--role", "viewer"),
            *("--tenant", named),
        )
        assert (made["tenant"], made["held"], made["holds"]) == ("Acme", True, [])
    one_more = ("accounts", "create", "c@example.com", "--role", "viewer", "--tenant", "Akme")
    assert cli.refusal(*one_more) == "tenant_unknown"
    assert cli.refusal("accounts", "show", "c@example.com") == "user_unknown"


def test_an_identity_names_a_known_source(cli: Cli) -> None:
    for wrong in ("okta", "okta:", ":00u1", "otka:00u1"):
        told = cli("accounts", "create", "b@example.com", "--role", "member", "--identity", wrong)
        assert told.exit_code == 2, wrong
    assert "keycloak" in told.stderr
    assert cli.refusal("accounts", "show", "b@example.com") == "user_unknown"


def test_disabling_shows_how_much_it_stops(cli: Cli) -> None:
    keys = [cli.new_key("first"), cli.new_key("second")]
    would = cli.json("accounts", "disable", ADA, "--dry-run")["would"]
    assert (would["keys"], would["last_used_at"]) == (2, None)
    told = cli.ok("accounts", "disable", ADA, "--dry-run")
    assert f"Disable {ADA}" in told
    assert "at once: 2." in told
    assert cli.json("accounts", "show", ADA)["held"] is False

    cli.ok("accounts", "disable", ADA, "--yes", "--reason", "left the company")
    assert [key["status"] for key in cli.json("keys", "list")] == ["disabled", "disabled"]
    assert "left the company" in cli.ok("accounts", "show", ADA)
    assert [one["email"] for one in cli.json("accounts", "list", "--held")] == [ADA]
    assert cli.json("accounts", "list", "--not-held") == []

    assert cli.json("accounts", "enable", ADA)["changed"] is True
    for key in keys:
        assert cli("keys", "verify", stdin=key["text"]).exit_code == 0


def test_enabling_lifts_one_hold_and_names_the_others(cli: Cli, database_url: str) -> None:
    key = cli.new_key()
    cli.ok("accounts", "disable", ADA, "--yes")
    hold_from_okta(database_url)
    told = cli.ok("accounts", "enable", ADA)
    assert "no longer held by operator/disabled" in told
    assert "held by okta/disabled" in told
    lift = f"accounts enable {ADA} --source okta --kind disabled"
    assert f"keyturn {lift}" in told
    assert cli("keys", "verify", stdin=key["text"]).exit_code == 3
    left = cli.json(*lift.split())
    assert (left["changed"], left["held"], left["holds"]) == (True, False, [])
    assert cli("keys", "verify", stdin=key["text"]).exit_code == 0
    assert "was not held by operator/disabled" in cli.ok("accounts", "enable", ADA)


def test_accounts_are_listed_with_their_keys(cli: Cli) -> None:
    cli.new_key()
    [account] = cli.json("accounts", "list")
    assert (account["email"], account["keys"], account["held"]) == (ADA, 1, False)
    told = cli.ok("accounts", "list")
    assert ADA in told
    assert all(len(line) <= 80 for line in told.splitlines())


def test_deletions_of_a_burst_are_shown_and_go_on_when_confirmed(
    cli: Cli, database_url: str
) -> None:
    database = Database(database_url)
    with database.begin() as tx:
        account = tx.scalar("SELECT id FROM keyturn.accounts")
        holds.lock_accounts(tx, [account])
        cause = holds.Cause(source="okta", kind="deleted", actor="test")
        holds.place(tx, holds.on_account(account), cause, Policy())
        tx.execute("UPDATE keyturn.holds SET confirm = true")
    database.close()
    shown = cli.json("accounts", "confirm-deletions", "okta", "--dry-run")
    assert shown["would"]["accounts"] == [ADA]
    assert cli.json("accounts", "confirm-deletions", "okta", "--yes")["confirmed"] == 1
    assert cli.json("accounts", "confirm-deletions", "okta", "--yes")["confirmed"] == 0


def test_only_a_hold_of_an_unusual_kind_is_asked_about(cli: Cli) -> None:
    cli.ok("accounts", "disable", ADA, "--yes")
    cli.ok("accounts", "enable", ADA)
    lift = ("accounts", "enable", ADA, "--source", "okta", "--kind", "compromised")
    assert cli(*lift).exit_code == 2
    assert cli.json(*lift, "--dry-run")["would"]["kind"] == "compromised"
    assert cli.json(*lift, "--yes")["changed"] is False


def test_names_are_listed_with_their_times_and_can_be_unlinked(cli: Cli) -> None:
    names = ("okta:00u1", "phone_number:0049 151 12345678", "external_id:okta:ada")
    for name in (*names, "iss_sub:https://id.example/ 7", "uri:acct:ada@Example.com"):
        cli.ok("accounts", "link", ADA, name)
    cli.ok("accounts", "unlink", ADA, "phone_number:+4915112345678", "--yes")
    found = cli.json("accounts", "identities", ADA)
    assert {(one["format"], one["issuer"], one["value"]) for one in found} == {
        ("email", "", ADA),
        ("opaque", "okta", "00u1"),
        ("phone_number", "", "+4915112345678"),
        ("external_id", "okta", "ada"),
        ("iss_sub", "https://id.example", "7"),
        ("uri", "", "acct:ada@example.com"),
    }
    assert [one["format"] for one in found if one["unlinked_at"]] == ["phone_number"]
    assert "00u1" in cli.ok("accounts", "identities", ADA)
    for name in ("okta:00u1", "external_id:okta:ada", "iss_sub:https://id.example 7"):
        cli.ok("accounts", "unlink", ADA, name, "--yes")
    assert cli.refusal("accounts", "unlink", ADA, "okta:00u1", "--yes") == "identity_unknown"
    assert cli.refusal("accounts", "link", ADA, "phone_number:12") == "phone_invalid"
    for name in cli.ok("accounts", "show", ADA).split("known as")[-1].split(","):
        assert name.strip() in (f"email:{ADA}", "uri:acct:ada@example.com"), name
    assert f"email:{ADA}" in " ".join(cli("accounts", "unlink", ADA, ADA, "--yes").stderr.split())
    for wrong in ("email:", "iss_sub:7", "external_id:ada"):
        assert cli("accounts", "unlink", ADA, wrong, "--yes").exit_code == 2, wrong


def unlinked(database_url: str) -> None:
    """A source said that ADA is somebody else's now."""
    database = Database(database_url)
    with database.begin() as tx:
        tx.execute("UPDATE keyturn.account_identities SET unlinked_at = :now")
    database.close()


def test_mails_that_go_astray_are_told_of_and_moved(cli: Cli, database_url: str) -> None:
    new = "ada@new.example"
    assert "does not name it" not in cli.ok("accounts", "show", ADA)
    assert cli("accounts", "email", ADA, new).exit_code == 2  # nobody can be asked
    assert "Its mails would still go there" in cli.ok(
        "accounts", "unlink", ADA, f"email:{ADA.upper()}", "--dry-run"
    )
    unlinked(database_url)
    assert "keyturn accounts email" in cli.ok("accounts", "show", ADA)
    assert cli.json("accounts", "show", ADA)["email_linked"] is False
    would = cli.json("accounts", "email", ADA, new, "--dry-run")["would"]
    assert (would["before"], would["after"], would["links"]) == (ADA, new, True)
    assert f"They would go to {new}" in cli.ok("accounts", "email", ADA, new, "--dry-run")
    assert cli.json("accounts", "show", ADA)["email"] == ADA
    shown = cli.json("accounts", "email", ADA, new, "--yes")
    assert (shown["email"], shown["email_linked"]) == (new, True)
    assert cli.refusal("accounts", "show", ADA) == "user_unknown"
    assert "nothing to do" in cli.ok("accounts", "email", new, new, "--unlink-old")
    audited = {one["action"]: one["why"] for one in cli.json("audit", "list")}
    assert audited["account.changed"] == f"email '{ADA}' -> '{new}'"


def test_the_old_address_names_the_account_until_that_is_ended(cli: Cli) -> None:
    for number, option in enumerate(([], ["--unlink-old"]), 1):
        old = cli.json("accounts", "list")[0]["email"]
        cli.ok("accounts", "email", old, f"ada{number}@new.example", "--yes", *option)
    found = cli.json("accounts", "identities", "ada2@new.example")
    assert {one["value"]: bool(one["unlinked_at"]) for one in found} == {
        ADA: False,
        "ada1@new.example": True,
        "ada2@new.example": False,
    }


def test_an_address_of_another_account_is_refused_before_anybody_is_asked(cli: Cli) -> None:
    cli.ok("accounts", "create", "bob@example.com", "--role", "member")
    cli.ok("accounts", "link", "bob@example.com", "email:bob@second.example")
    assert cli.refusal("accounts", "email", ADA, "bob@example.com") == "address_taken"
    assert cli.refusal("accounts", "email", ADA, "bob@second.example") == "identity_taken"
    assert cli.refusal("accounts", "email", ADA, "nonsense", "--dry-run") == "email_invalid"
