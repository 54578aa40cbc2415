"""The life of a key, end to end on the real stack, undisturbed and with the worker killed.

Each wait of the killed run is inside a transaction of the worker: the table that the step needs is
locked, the worker comes to wait for it, and is killed there.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import pytest

from models import TimeUnit
from models.operator import Operator
from tests.eventually import eventually
from tests.flows.invariants import assert_invariants
from tests.flows.stack import Stack, running_stack

ADA = "ada@example.com"
SOON = 30.0

Disturb = Callable[[str], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack() as started:
        yield started


@pytest.fixture
def operator(stack: Stack) -> Iterator[Operator]:
    with stack.operator() as opened:
        yield opened


@pytest.mark.parametrize("killed", [False, True], ids=["undisturbed", "worker-killed"])
def test_the_life_of_a_key(stack: Stack, operator: Operator, killed: bool) -> None:
    disturb: Disturb = stack.killed_while_waiting_for if killed else lambda table: nullcontext()
    email = f"{'killed' if killed else 'calm'}-{ADA}"
    account = stack.keyturn("accounts", "create", email, "--role", "member")
    month = ("--user", email, "--role", "member", "--validity", "30", "--time-unit", "day")
    minute = ("--user", email, "--role", "viewer", "--validity", "60", "--time-unit", "second")
    with disturb("schedule_runs"):
        key = stack.keyturn("keys", "create", "first", *month)
    short = stack.keyturn("keys", "create", "short", *minute)  # its minute runs beside the rest
    old = key["text"]
    assert operator.verify(old).valid
    assert operator.verify(short["text"]).valid
    eventually(lambda: announced(stack, "key.issued", key["id"]), within=SOON)

    with disturb("holds"):
        stack.xadd("keyturn:in", type="account.disabled", account=email, id=f"{email}-1")
    eventually(lambda: operator.verify(old).reason == "account_held", within=SOON)
    eventually(lambda: operator.key(key["id"]).status == "disabled", within=SOON)
    eventually(lambda: announced(stack, "key.disabled", key["id"]), within=SOON)

    with disturb("holds"):
        stack.xadd("keyturn:in", type="account.enabled", account=email, id=f"{email}-2")
    eventually(lambda: operator.verify(old).valid, within=SOON)
    eventually(lambda: operator.key(key["id"]).status == "active", within=SOON)

    with disturb("schedule_runs"):
        rotation = stack.keyturn("keys", "rotate", key["id"])
    assert stack.keyturn("keys", "rotate", key["id"])["id"] == rotation["id"]
    eventually(lambda: told(stack, email, "claim"), within=SOON)
    with disturb("schedule_runs"):
        new = stack.keyturn("keys", "claim", stdin=old)["text"]
    assert new != old
    second = stack.keyturn("keys", "claim", stdin=old, exit_code=3)
    assert second["error"]["code"] == "already_claimed"

    with disturb("rotations"):
        assert operator.verify(new).valid
        operator.flush_uses()
    eventually(lambda: operator.rotation(rotation["id"]).state == "draining", within=SOON)
    assert operator.verify(old, record=False).valid
    with disturb("rotations"):
        pass  # it is waited for when the old key is due to be retired
    eventually(lambda: operator.verify(old, record=False).reason == "retired", within=SOON)
    with disturb("rotations"):
        pass  # and when it is due to be deleted
    eventually(lambda: operator.verify(old, record=False).reason == "deleted", within=SOON)
    assert operator.rotation(rotation["id"]).state == "completed"
    assert operator.verify(new).valid

    if operator.verify(short["text"], record=False).valid:
        with disturb("notices"):
            pass
    eventually(lambda: told(stack, email, "short"), within=60)
    with disturb("api_keys"):
        eventually(lambda: operator.verify(short["text"]).reason == "expired", within=60)
    eventually(lambda: operator.key(short["id"]).status == "expired", within=SOON)
    eventually(lambda: announced(stack, "key.expired", short["id"]), within=SOON)
    assert operator.verify(new).valid
    one_effect_each(operator, account["id"])
    assert_invariants(operator)


def test_a_tenant_from_its_producer_to_the_keys_of_its_members(
    stack: Stack, operator: Operator
) -> None:
    """One event stops the keys of all who are in it, of whoever comes later too; one lifts that."""
    stack.keyturn("tenants", "create", "Acme", "--identity", "native:acme")
    first = key_of(operator, "first@example.com", tenant="Acme")
    late = key_of(operator, "late@example.com")
    other = key_of(operator, "other@example.com")
    stack.xadd("keyturn:in", type="tenant.disabled", tenant="acme", sequence="1", id="acme-1")
    eventually(lambda: operator.verify(first.text).reason == "account_held", within=SOON)
    assert stack.keyturn("tenants", "join", "Acme", "late@example.com")["held"] is True
    assert operator.verify(late.text).reason == "account_held"
    assert operator.verify(other.text).valid
    both = (first, late)
    eventually(lambda: {operator.key(key.id).status for key in both} == {"disabled"}, within=SOON)
    eventually(lambda: all(announced(stack, "key.disabled", key.id) for key in both), within=SOON)

    stack.xadd("keyturn:in", type="tenant.enabled", tenant="acme", sequence="2", id="acme-2")
    eventually(lambda: all(operator.verify(key.text).valid for key in both), within=SOON)
    eventually(lambda: {operator.key(key.id).status for key in both} == {"active"}, within=SOON)
    eventually(lambda: all(announced(stack, "key.enabled", key.id) for key in both), within=SOON)
    assert operator.key(other.id).version == 1
    assert_invariants(operator)


@dataclass(frozen=True)
class Key:
    """A key of an account of its own."""

    id: str
    text: str


def key_of(operator: Operator, email: str, tenant: str | None = None) -> Key:
    """A new account with one key."""
    operator.create_account(email, "member", tenant=tenant)
    made = operator.create_api_key("one", email, "member", 1, TimeUnit.DAY)
    return Key(str(made.id), made.text.reveal())


def announced(stack: Stack, kind: str, key_id: str) -> bool:
    """Whether the stream out told this of the key."""
    return any(e["type"] == kind and key_id in e["data"]["key_ids"] for e in stack.published())


def told(stack: Stack, email: str, about: str) -> bool:
    """Whether the owner got a mail with these words."""
    return any(about in str(mail.get_payload()) for mail in stack.mails(email))


def one_effect_each(operator: Operator, account_id: str) -> None:
    """Versions of each key are dense from 1, and nothing was audited twice."""
    with operator.database.begin() as tx:
        rows = tx.rows(
            """
            SELECT key_id, count(*) AS n, max(version) AS last, min(version) AS first
            FROM keyturn.audit WHERE account_id = CAST(:account AS uuid) AND version IS NOT NULL
            GROUP BY key_id
            """,
            account=account_id,
        )
    assert len(rows) == 3
    assert all(row["first"] == 1 and row["last"] == row["n"] for row in rows)
