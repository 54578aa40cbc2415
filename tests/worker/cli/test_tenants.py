"""`keyturn tenants`: accounts that are held together."""

from models.base import Database
from models.policy import Policy
from models.tenants_desk import Tenants
from tests.worker.cli.conftest import ADA, Cli


def works(cli: Cli, key: dict[str, str]) -> bool:
    return cli("keys", "verify", stdin=key["text"]).exit_code == 0


def test_a_tenant_from_its_making_to_its_release(cli: Cli) -> None:
    made = cli.json("tenants", "create", "Acme", "--identity", "okta:21031067")
    assert (made["name"], made["held"], made["members"]) == ("Acme", False, 0)
    key = cli.new_key()
    joined = cli.json("tenants", "join", "Acme", ADA)
    assert (joined["tenant"], joined["changed"], joined["held"]) == ("Acme", True, False)
    assert cli.json("accounts", "show", ADA)["tenant"] == "Acme"

    would = cli.json("tenants", "disable", "Acme", "--dry-run")["would"]["tenant"]
    assert would["members"] == 1
    assert works(cli, key)
    cli.ok("tenants", "disable", "Acme", "--yes", "--reason", "not paid")
    assert not works(cli, key)
    assert "not paid" in cli.ok("tenants", "show", made["id"])
    assert [one["name"] for one in cli.json("tenants", "list", "--held")] == ["Acme"]
    assert [one["email"] for one in cli.json("accounts", "list", "--held")] == [ADA]
    assert "Its tenant Acme is held by operator/disabled" in cli.ok("accounts", "show", ADA)
    assert "The tenant of its account is held by" in cli.ok("keys", "show", key["id"])
    refused = cli.refusal(
        "keys", "create", "x", "--user", ADA, "--role", "viewer", "--validity", "60"
    )
    assert refused == "account_held"

    told = cli.json("why", key["id"])
    assert told["works"] is False
    assert any(
        "The tenant Acme of its account is held by operator/disabled" in line
        for line in told["now"]
    )
    assert "`keyturn tenants enable Acme` lifts operator/disabled." in told["do"]
    assert cli.json("why", ADA)["works"] is False

    assert cli.json("tenants", "enable", "Acme")["held"] is False
    assert works(cli, key)
    left = cli.json("tenants", "leave", ADA, "--yes")
    assert (left["tenant"], left["changed"]) == (None, True)


def test_another_hold_is_named_with_what_lifts_it(cli: Cli, database_url: str) -> None:
    cli.ok("tenants", "create", "Acme")
    cli.ok("tenants", "disable", "Acme", "--yes")
    database = Database(database_url)
    Tenants(database, Policy(), "test").enable("Acme")
    database.close()
    assert "was not held by operator/disabled" in cli.ok("tenants", "enable", "Acme")
    cli.ok("tenants", "disable", "Acme", "--yes")
    told = cli.ok("tenants", "enable", "Acme", "--source", "okta", "--yes")
    assert "To lift it: keyturn tenants enable Acme --source operator --kind disabled" in told


def test_what_names_a_tenant(cli: Cli) -> None:
    cli.ok("tenants", "create", "Acme")
    cli.ok("tenants", "link", "Acme", "okta:42")
    shown = cli.json("tenants", "link", "Acme", "https://idp.example.com/ acme")
    named = [(one["issuer"], one["value"]) for one in shown["known_as"]]
    assert named == [("https://idp.example.com", "acme"), ("okta", "42")]
    cli.ok("tenants", "create", "Other")
    assert cli.refusal("tenants", "link", "Other", "okta:42") == "identity_taken"
    assert "would no longer reach" in cli.ok("tenants", "unlink", "Acme", "okta:42", "--dry-run")
    assert len(cli.json("tenants", "unlink", "Acme", "okta:42", "--yes")["known_as"]) == 1
    for wrong in ("okta", "okta:", "otka:42"):
        assert cli("tenants", "link", "Acme", wrong).exit_code == 2, wrong


def test_what_is_not_there_is_refused(cli: Cli) -> None:
    assert cli.refusal("tenants", "show", "Nobody") == "tenant_unknown"
    assert cli.refusal("tenants", "join", "Nobody", ADA) == "tenant_unknown"
    cli.ok("tenants", "create", "Acme")
    assert cli.refusal("tenants", "create", "Acme") == "tenant_exists"
    assert cli.refusal("tenants", "join", "Acme", "nobody@example.com") == "user_unknown"
    assert cli.json("tenants", "leave", ADA, "--yes")["changed"] is False
