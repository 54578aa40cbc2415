"""Keys that a product has given out go on working, under the rules of every other key."""

import hashlib
import threading
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from models import api_keys, holds, imports, invariants, key_imports
from models.base import Database, Tx
from models.client import Client
from models.creation import LONGEST_VALIDITY
from models.errors import Refused
from models.events import AccountEvent, Action
from models.holds import Cause
from models.imports import Outcome
from models.key_imports import KeyRow
from models.key_text import Peppers, mint
from models.keyring import Keyring
from models.operator import Operator
from models.rehearsal import Rehearsal
from models.sealing import Sealer
from models.verification import Verifier
from tests.world import ADA, World, event

BOB = "bob@example.com"
TEXT = "0f8fad5bd9cb469fa16570867728950e"
NOW = datetime.now(UTC)
SOON = NOW + timedelta(days=40)


@pytest.fixture
def world(database_url: str) -> World:
    made = World(Database(database_url))
    made.account()
    made.account(BOB, role="viewer")
    return made


def row(text: str = TEXT, line: int = 1, email: str = ADA, **said: Any) -> KeyRow:
    digest = hashlib.sha256(text.encode()).digest()
    defaults: dict[str, Any] = {"role": "viewer", "expires_at": SOON}
    return KeyRow(line, digest, ("email", "", email), **defaults | said)


def bring(world: World, *rows: KeyRow, **options: Any) -> list[Outcome]:
    def batch(tx: Tx, part: Any) -> list[Outcome]:
        said = {"expires_in": None, "rehearsal": None, **options}
        return key_imports.batch(
            tx, part, actor="op", peppers=world.peppers, policy=world.policy, **said
        )

    return imports.run(world.database, rows, batch)


def did(world: World, *rows: KeyRow, **options: Any) -> list[str]:
    return [one.code or one.did for one in bring(world, *rows, **options)]


def sql(world: World, text: str, **params: Any) -> Any:
    with world.database.begin() as tx:
        return tx.rows(text, **params)


def only_key(world: World) -> api_keys.ApiKey:
    with world.database.begin() as tx:
        [found] = api_keys.listed(tx)
    return found


def test_a_key_of_another_shape_works_from_its_import_on(world: World) -> None:
    assert world.verify(TEXT).reason == "malformed"
    born = NOW - timedelta(days=10)
    assert did(world, row(name="ci", created_at=born, allowed_ips=("192.0.2.0/24",))) == ["created"]
    verdict = world.verify(f" {TEXT}\n", "192.0.2.7")
    assert (verdict.valid, verdict.account, verdict.role) == (True, ADA, "viewer")
    assert world.verify(TEXT, "198.51.100.1").reason == "ip_not_allowed"
    key = only_key(world)
    assert (key.name, key.created_by, key.status, key.version) == ("ci", "op", "active", 1)
    assert (key.created_at, key.expires_at) == (born, SOON)
    [entry] = sql(world, "SELECT * FROM keyturn.audit WHERE key_id = :id", id=key.id)
    assert (entry["action"], entry["after"]) == ("key.created", "active")
    assert entry["why"] == f"imported, created {born.isoformat()}"
    assert not invariants.check(world.database, world.policy, full=True)


def test_what_is_stored_is_under_the_pepper(world: World) -> None:
    bring(world, row())
    [stored] = sql(world, "SELECT digest, scheme, pepper FROM keyturn.api_keys")
    assert bytes(stored["digest"]) != hashlib.sha256(TEXT.encode()).digest()
    assert (stored["scheme"], stored["pepper"]) == ("hmac-sha256", 1)


def test_one_of_our_own_shape_and_another_prefix_works_too(world: World) -> None:
    text = mint("acme").reveal()
    bring(world, row(text, foreign=False))
    assert world.verify(text).valid


@pytest.mark.parametrize(
    "text",
    ["", "short", "kt_" + "0" * 33, "two words of text", "x" * 1025, "x" * 1_000_000, "ü" * 20],
)
def test_what_cannot_be_a_key_is_still_refused_without_a_look(world: World, text: str) -> None:
    bring(world, row())
    verifier = Verifier(world.database, world.peppers)
    assert not verifier.verify("0" * 32)[0].valid  # it knows now that keys were imported
    verifier._select = None  # type: ignore[assignment,method-assign]
    assert verifier.verify(text)[0].reason == "malformed"
    verifier.close()


def test_where_none_was_imported_other_shapes_are_not_looked_up(world: World) -> None:
    verifier = Verifier(world.database, world.peppers)
    verifier._select = None  # type: ignore[assignment,method-assign]
    assert verifier.verify(TEXT)[0].reason == "malformed"
    assert verifier.verify(mint("kt").reveal()[:-1] + "!")[0].reason == "malformed"
    verifier.close()


def test_a_running_product_learns_of_an_import(world: World) -> None:
    verifier = Verifier(world.database, world.peppers)
    assert verifier.verify(TEXT)[0].reason == "malformed"
    bring(world, row())
    verifier._look_at = 0.0  # as if LOOK_EVERY had passed
    assert verifier.verify(TEXT)[0].valid
    verifier.close()


def test_again_it_changes_nothing_whatever_became_of_the_key(world: World) -> None:
    rows = [row(f"{TEXT}{n}", n) for n in range(1, 11)]
    assert did(world, *rows) == ["created"] * 10
    assert did(world, *rows) == ["unchanged"] * 10
    with world.database.begin() as tx:
        [key, *_] = api_keys.listed(tx)
        holds.lock_accounts(tx, [key.account_id])
        api_keys.delete(tx, key.id, actor="op", why="x", policy=world.policy)
    assert did(world, *rows) == ["unchanged"] * 10
    [count] = sql(world, "SELECT count(*) FROM keyturn.audit WHERE action = 'key.created'")
    assert count["count"] == 10


def test_again_under_a_new_pepper_it_is_the_same_key(world: World) -> None:
    bring(world, row())
    world.peppers = Peppers({1: b"p" * 32, 2: b"q" * 32})
    assert did(world, row()) == ["unchanged"]


def test_a_digest_twice_in_a_batch(world: World) -> None:
    assert did(world, row(), row(line=2), row(line=3, email=BOB)) == [
        "created",
        "unchanged",
        "digest_taken",
    ]


def test_a_dry_run_writes_nothing(world: World) -> None:
    other = row("a text of another key", 2, role=None)
    assert did(world, row(), other, rehearsal=Rehearsal()) == ["created", "role_missing"]
    assert not sql(world, "SELECT FROM keyturn.api_keys")
    assert not sql(world, "SELECT FROM keyturn.schedule_runs WHERE job = 'keys.import'")


def test_a_dry_run_in_batches_says_what_the_import_does(world: World) -> None:
    rehearsal = Rehearsal()
    batches = [row(), row("another text of a key", 2)], [row(line=3)], [row(line=4, email=BOB)]
    would = [did(world, *part, rehearsal=rehearsal) for part in batches]
    assert would == [["created", "created"], ["unchanged"], ["digest_taken"]]
    assert would == [did(world, *part) for part in batches]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (row(email="nobody@example.com"), "user_unknown"),
        (row(role=None), "role_missing"),
        (row(role="king"), "role_not_allowed"),
        (row(role="owner"), "role_not_allowed"),  # not grantable
        (row(email=BOB, role="member"), "role_not_allowed"),  # wider than its account's
        (row(expires_at=None), "end_missing"),
        (row(expires_at=NOW - timedelta(days=1)), "key_ended"),
        (row(expires_at=NOW + timedelta(seconds=30)), "key_ended"),
        (row(created_at=NOW + timedelta(days=1)), "created_in_future"),
    ],
)
def test_a_bad_line_is_refused_and_the_others_go_on(world: World, wrong: KeyRow, code: str) -> None:
    told, good = bring(world, wrong, row("another key's text", 2))
    assert (told.line, told.did, told.code) == (1, "refused", code)
    assert good.did == "created"
    assert not world.verify(TEXT).valid


def test_a_later_end_is_cut_to_the_longest_life(world: World) -> None:
    born = NOW - timedelta(days=2000)
    end = NOW + timedelta(days=3650)
    assert did(world, row(expires_at=end, created_at=born)) == ["end_cut"]
    key = only_key(world)
    with world.database.begin() as tx:
        now = tx.now()
    assert now + LONGEST_VALIDITY - timedelta(minutes=1) < key.expires_at <= now + LONGEST_VALIDITY
    assert key.expires_at - key.created_at == LONGEST_VALIDITY  # its successor gets this life
    [entry] = sql(world, "SELECT why FROM keyturn.audit WHERE key_id = :id", id=key.id)
    assert born.isoformat() in entry["why"]
    assert end.isoformat() in entry["why"]


def test_a_key_without_an_end_gets_the_life_that_was_named(world: World) -> None:
    assert did(world, row(expires_at=None), expires_in=timedelta(days=30)) == ["created"]
    key = only_key(world)
    assert key.expires_at - key.created_at == timedelta(days=30)


def test_keys_of_a_held_account_are_stopped_with_their_import(world: World) -> None:
    world.receive(event(Action.DISABLED, ADA))
    world.apply()
    bring(world, row(), row("a key of somebody else", 2, BOB))
    with world.database.begin() as tx:
        status = {one.account: (one.status, one.version) for one in api_keys.listed(tx)}
    assert status == {ADA: ("disabled", 2), BOB: ("active", 1)}
    assert world.verify(TEXT).reason == "account_held"
    assert not invariants.check(world.database, world.policy, full=True)


def test_no_key_slips_through_while_its_account_is_being_disabled(world: World) -> None:
    """Rule 3.3: the import waits for the account's row, and then sees the hold."""
    with world.database.begin() as tx:
        account = UUID(str(tx.scalar("SELECT id FROM keyturn.accounts WHERE email = :e", e=ADA)))
        holds.lock_accounts(tx, [account])
        importing = threading.Thread(target=bring, args=(world, row()))
        importing.start()
        cause = Cause(source="okta", kind="disabled", actor="okta")
        holds.place(tx, holds.on_account(account), cause, world.policy)
        importing.join(timeout=0.3)
        assert importing.is_alive()
    importing.join(timeout=30)
    assert only_key(world).status == "disabled"


def test_keys_of_a_deleted_account_are_not_imported(world: World) -> None:
    world.receive(event(Action.DELETED, ADA))
    world.apply()
    assert did(world, row()) == ["account_deleted"]


def test_two_imports_at_once_make_each_key_once(world: World) -> None:
    rows = [row(f"{TEXT}{n}", n, ADA if n % 2 else BOB) for n in range(1, 101)]
    found: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda part: found.append(did(world, *part)), args=(part,))
        for part in (rows, rows[::-1])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(one for part in found for one in part) == ["created"] * 100 + ["unchanged"] * 100


def test_thresholds_that_an_old_key_has_passed_have_their_notices(world: World) -> None:
    end = NOW + timedelta(days=5)
    bring(world, row(expires_at=end, created_at=NOW - timedelta(days=100)))
    found = sql(
        world, "SELECT threshold_seconds / 86400 AS days, state FROM keyturn.notices ORDER BY 1"
    )
    assert [(one["days"], one["state"]) for one in found] == [(7, "planned"), (30, "superseded")]
    assert not invariants.check(world.database, world.policy, full=True)


def test_a_leak_report_stops_an_imported_key(world: World) -> None:
    bring(world, row())
    digest = hashlib.sha256(TEXT.encode()).hexdigest()
    world.receive(AccountEvent(action=Action.KEY_LEAKED, key_digest=digest, raw_type="key.leaked"))
    world.apply()
    assert world.verify(TEXT).reason == "key_held"


def test_an_imported_key_rotates_by_its_text(world: World, database_url: str) -> None:
    bring(world, row())
    ring = Keyring(world.peppers, Sealer({1: b"k" * 32}))
    with Client(database_url, keyring=lambda: ring) as client:
        rotation = client.rotate(TEXT)
        claimed = client.claim(TEXT)
        assert claimed.key_id == rotation.new_key_id
        assert client.verify(claimed.secret.reveal()).valid
        assert client.verify(TEXT).valid
        with pytest.raises(Refused) as refusal:
            client.rotate("another text of that shape")
    assert refusal.value.code == "key_unknown"


def test_a_text_that_looks_like_an_id_is_found_too(world: World, database_url: str) -> None:
    text = "5f0c0f6e-7d5c-4a57-9d7b-0d3c2a2d8f11"
    bring(world, row(text))
    ring = Keyring(world.peppers, Sealer({1: b"k" * 32}))
    with Operator(database_url, keyring=lambda: ring) as client:
        key = only_key(world)
        assert client.rotate(text).old_key_id == key.id
