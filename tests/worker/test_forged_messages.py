"""What whoever can write to the broker gets a worker to do: due work, and nothing else.

Forged, replayed, header-swapped and delayed messages, signatures that Celery would follow, orders
by remote control, and records of kombu's own: after each of them the worker works, nothing has
changed beyond what was due, and not a word of a message is in the log.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from kombu import Connection, Exchange, Queue

from tasks import flows
from tests.eventually import eventually
from tests.worker.site import SOON, Site
from worker.app import QUEUE, TASK_EVENT

CANARY = "canary-5eed"
TRAP = "trap"
"""A queue that only the worker could write to: what lies in it was sent in its name."""

LATER = {"eta": "2099-01-01T00:00:00+00:00"}
LONG_AGO = (datetime.now(UTC) - timedelta(days=7)).isoformat()


def headers(task: object, **more: object) -> dict[str, Any]:
    return {"task": task, "id": str(uuid.uuid4()), **more}


def body(*args: object, embed: object = None, **kwargs: object) -> bytes:
    return json.dumps([list(args), kwargs, {} if embed is None else embed]).encode()


def refusals(site: Site) -> int:
    return site.log.read_bytes().count(b'"message_refused"')


@contextmanager
def refused(site: Site, count: int) -> Iterator[None]:
    """Wait for as many alarms as messages were put into the queue within the block."""
    before = refusals(site)
    yield
    eventually(lambda: refusals(site) >= before + count, within=SOON)


@pytest.fixture(autouse=True)
def _unharmed(site: Site) -> Iterator[None]:
    """After every test the worker works, and no word of a forged message is in its log."""
    before = site.log.stat().st_size
    yield
    site.caught_up()
    assert CANARY.encode() not in site.log.read_bytes()[before:]


@pytest.fixture
def unchanged(site: Site) -> Iterator[str]:
    """The id of a key of which, after the test, nothing has changed."""
    account = f"{uuid.uuid4()}@example.com"
    key, text = site.key(account)
    site.caught_up()
    before = facts(site, key)
    yield key
    site.caught_up()
    assert site.operator.verify(text, record=False).valid
    assert facts(site, key) == before


def facts(site: Site, key: str) -> tuple[object, ...]:
    with site.operator.database.begin() as tx:
        audit = tx.rows("SELECT action FROM keyturn.audit WHERE key_id = :id", id=key)
        holds = tx.scalar("SELECT count(*) FROM keyturn.holds WHERE key_id = :id", id=key)
    return site.operator.key(key), [dict(row) for row in audit], holds


# --- header swaps and replays


def test_a_message_under_the_name_of_every_flow(site: Site, unchanged: str) -> None:
    """The event's body under a flow's name has arguments: none is obeyed, each is counted."""
    event = {"type": "account.deleted", "account": unchanged, "reason": CANARY}
    before = site.log.read_text().count("task_with_arguments")
    for flow in flows():
        site.put(body(event), headers(flow))
        site.put(body(key=unchanged, force=True, note=CANARY), headers(flow))
    count = before + 2 * len(flows())
    eventually(lambda: site.log.read_text().count("task_with_arguments") == count, within=SOON)


def test_a_ring_under_the_name_of_the_event_is_a_rejected_row(site: Site, unchanged: str) -> None:
    before = site.last()
    site.put(body(), headers(TASK_EVENT))
    [reason] = eventually(lambda: site.rejected_since(before), within=SOON)
    assert reason.startswith("missing_type: ")


@pytest.mark.parametrize("named", [True, False], ids=["with an id", "without"])
def test_a_replayed_event_does_not_cut_again(site: Site, named: bool) -> None:
    account = f"{uuid.uuid4()}@example.com"
    _, text = site.key(account)
    event = {"type": "account.disabled", "account": account}
    if named:
        event["id"] = str(uuid.uuid4())
    cut = (body(event), headers(TASK_EVENT))
    site.put(*cut)
    eventually(lambda: not site.operator.verify(text, record=False).valid, within=SOON)
    site.put(body({"type": "account.enabled", "account": account}), headers(TASK_EVENT))
    eventually(lambda: site.operator.verify(text, record=False).valid, within=SOON)
    for _ in range(100):
        site.put(*cut)
    site.caught_up()
    assert site.operator.verify(text, record=False).valid
    [found] = [one for one in site.operator.accounts(limit=10_000) if one.email == account]
    mine = [one.state for one in site.events() if one.account_id == found.id]
    assert mine == ["done", "done"]


def test_a_replayed_ring_does_due_work_once(site: Site) -> None:
    account = f"{uuid.uuid4()}@example.com"
    key, _ = site.key(account)
    with site.operator.database.begin() as tx:
        back = timedelta(days=31)
        tx.execute(
            "UPDATE keyturn.api_keys SET created_at = created_at - :back,"
            " expires_at = expires_at - :back WHERE id = CAST(:id AS uuid)",
            back=back,
            id=key,
        )
    ring = (body(), headers("keys.expire_due"))
    for _ in range(100):
        site.put(*ring)
    eventually(lambda: site.operator.key(key).status == "expired", within=SOON)
    site.caught_up()
    _, audit, _ = facts(site, key)
    assert audit == [{"action": "key.created"}, {"action": "key.expired"}]


# --- signatures that Celery would follow: the worker may write where a forger may not


def signature(**more: object) -> dict[str, Any]:
    options = {"exchange": TRAP, "routing_key": TRAP}
    return {
        "task": "anything",
        "args": [CANARY],
        "kwargs": {},
        "options": options,
        "subtask_type": None,
        "immutable": True,
        **more,
    }


ORDERS: dict[str, object] = {
    "callbacks": [signature()],
    "errbacks": [signature()],
    "chain": [signature()],
    "chord": signature(),
}


@pytest.fixture
def trap(site: Site) -> Iterator[Callable[[], int]]:
    """How many messages the worker has been made to send."""
    with Connection(site.url) as connection:
        channel = connection.default_channel
        queue = Queue(TRAP, Exchange(TRAP), routing_key=TRAP)(channel)
        queue.declare()

        def caught() -> int:
            if site.on_rabbitmq:
                return int(channel.queue_declare(TRAP, passive=True).message_count)
            return int(channel.client.llen(TRAP))

        yield caught
        queue.delete()
        queue.exchange.delete()


@pytest.mark.parametrize("task", ["keys.settle", TASK_EVENT])
@pytest.mark.parametrize("name", ORDERS)
def test_no_signature_in_a_message_is_followed(
    site: Site, trap: Callable[[], int], task: str, name: str
) -> None:
    order = {name: ORDERS[name]}
    event = [{"type": "account.disabled", "account": "x"}] if task == TASK_EVENT else []
    failing = [5] if task == TASK_EVENT else [CANARY]
    with refused(site, 5):
        site.put(body(*event, embed=order), headers(task))
        site.put(body(*event), headers(task, **order))
        site.put(body(*failing, embed=order), headers(task))
        v1 = {"task": task, "id": str(uuid.uuid4()), "args": event, "kwargs": {}, **order}
        site.put(json.dumps(v1).encode())
        v1 = {"task": task, "id": str(uuid.uuid4()), "args": event, "kwargs": {}}
        v1 |= {"chord": signature(), "taskset": "x", "link": [signature()]}
        site.put(json.dumps({**v1, name: ORDERS[name]}).encode())
    site.caught_up()
    assert trap() == 0


BUILT_IN: dict[str, bytes] = {
    "celery.group": body([signature()], str(uuid.uuid4()), str(uuid.uuid4()), []),
    "celery.chain": body(),
    "celery.chord": body([signature()], signature()),
    "celery.chord_unlock": body("x", signature(), interval=0, max_retries=3, result=[]),
    "celery.map": body({"task": "keys.settle", "args": [], "kwargs": {}}, [CANARY]),
    "celery.starmap": body({"task": "keys.settle", "args": [], "kwargs": {}}, [[]]),
    "celery.chunks": body({"task": "keys.settle", "args": [], "kwargs": {}}, [[]], 1),
    "celery.accumulate": body(CANARY),
    "celery.backend_cleanup": body(),
}


@pytest.mark.parametrize("task", BUILT_IN)
def test_no_task_of_celerys_own_is_run(
    site: Site, trap: Callable[[], int], task: str, unchanged: str
) -> None:
    with refused(site, 1):
        site.put(BUILT_IN[task], headers(task))
    site.caught_up()
    assert trap() == 0


@pytest.mark.parametrize("task", ["upkeep.ring_due", TASK_EVENT])
def test_nobody_is_answered(site: Site, trap: Callable[[], int], task: str) -> None:
    event = [{"type": "account.disabled", "account": "x"}] if task == TASK_EVENT else []
    with Connection(site.url) as connection:
        producer = connection.Producer()
        producer.publish(
            body(*event),
            exchange="",
            routing_key=QUEUE,
            headers=headers(task, ignore_result=False, reply_to=TRAP),
            content_type="application/json",
            content_encoding="utf-8",
            reply_to=TRAP,
            correlation_id=TRAP,
        )
    site.caught_up()
    assert trap() == 0


# --- times


def test_what_is_for_later_keeps_no_worker_busy(site: Site, unchanged: str) -> None:
    """Celery would hold such messages in memory until then, and on RabbitMQ read nothing else."""
    with refused(site, 40):
        for _ in range(20):
            site.put(body(), headers("keys.delete_due", **LATER))
            event = {"type": "account.deleted", "account": unchanged}
            site.put(body(event), headers(TASK_EVENT, **LATER))
    site.caught_up()


TIMES: dict[str, dict[str, Any]] = {
    "expired": {"expires": LONG_AGO},
    "expires in 9999": {"expires": "9999-12-31T23:59:59+00:00"},
    "expires before time": {"expires": "0001-01-01T00:00:00+23:59"},
    "expires as a number": {"expires": 5},
    "eta in 9999": {"eta": "9999-12-31T23:59:59+00:00"},
    "eta before time": {"eta": "0001-01-01T00:00:00+23:59", "argsrepr": CANARY},
    "eta as a list": {"eta": [CANARY]},
    "retries": {"retries": 10**9},
    "retries as text": {"retries": CANARY},
    "time limit": {"timelimit": [0.001, 0.001]},
    "time limit as text": {"timelimit": CANARY},
    "shadow": {"shadow": f"keys.settle\n{CANARY}"},
    "stamps": {"stamped_headers": ["x"], "stamps": {"x": [CANARY]}},
    "nested": {"replaced_task_nesting": 10**9, "root_id": {}, "parent_id": [CANARY]},
    "eager": {"is_eager": True, "called_directly": True, "delivery_info": {"is_eager": True}},
    "methods": {"update": 5, "execution_options": 5, "as_execution_options": CANARY},
    "origin": {"origin": CANARY, "argsrepr": CANARY, "kwargsrepr": CANARY, "lang": "sh"},
}


@pytest.mark.parametrize("name", TIMES)
def test_other_members_change_nothing(site: Site, unchanged: str, name: str) -> None:
    for flow in ("keys.settle", "keys.delete_due"):
        site.put(body(), headers(flow, **TIMES[name]))


IDS: dict[str, object] = {
    "empty": "",
    "null": None,
    "number": 5,
    "list": [CANARY],
    "object": {CANARY: 1},
    "long": CANARY * 5_000,
    "nul": f"{CANARY}\0",
    "surrogate": f"{CANARY}\ud800",
    "lines": f"{CANARY}\r\n\x1b[2J",
}


@pytest.mark.parametrize("name", IDS)
def test_any_id_of_a_ring(site: Site, unchanged: str, name: str) -> None:
    site.put(body(), headers("keys.delete_due") | {"id": IDS[name]})


# --- remote control, and what workers tell each other

REMOTE: dict[str, dict[str, Any]] = {
    "shutdown": {},
    "pool_shrink": {"n": 100},
    "cancel_consumer": {"queue": QUEUE},
    "add_consumer": {"queue": TRAP},
    "rate_limit": {"task_name": TASK_EVENT, "rate_limit": "1/d"},
    "time_limit": {"task_name": TASK_EVENT, "hard": 1, "soft": 1},
    "election": {"id": "x", "topic": "task", "action": signature()},
    "hello": {"from_node": "celery@nowhere", "revoked": {}},
    "conf": {"with_defaults": True},
}


@pytest.mark.parametrize("command", REMOTE)
def test_no_remote_command_is_obeyed_or_answered(
    site: Site, trap: Callable[[], int], command: str
) -> None:
    told = site.producer.control.broadcast(
        command, arguments=REMOTE[command], reply=True, timeout=0.5
    )
    assert not told
    site.caught_up()
    assert trap() == 0


def test_no_message_is_skipped_because_somebody_revoked_it(site: Site) -> None:
    account = f"{uuid.uuid4()}@example.com"
    _, text = site.key(account)
    name = str(uuid.uuid4())
    site.producer.control.revoke([name], terminate=True)
    site.producer.control.revoke_by_stamped_headers({"x": name}, terminate=True)
    time.sleep(0.5)  # it has no way to show that it has arrived
    event = {"type": "account.disabled", "account": account}
    site.put(body(event), headers(TASK_EVENT, stamped_headers=["x"], x=[name]) | {"id": name})
    eventually(lambda: not site.operator.verify(text, record=False).valid, within=SOON)


def forged_heartbeats() -> Iterator[tuple[str, bytes, Mapping[str, Any]]]:
    yield "worker.heartbeat", b"5", {}
    yield "worker.heartbeat", b'{"hostname": []}', {}
    yield "worker.heartbeat", b"[]", {"hostname": "x"}
    elected = {"id": "x", "clock": 0, "hostname": "x", "pid": 1, "topic": "task", "cver": 1}
    yield "worker.elect", json.dumps({**elected, "action": signature()}).encode(), {}
    yield "worker.elect", b"5", {}
    yield "worker.elect.ack", b"{}", {}


def test_no_worker_listens_to_others(site: Site, trap: Callable[[], int]) -> None:
    with Connection(site.url) as connection:
        channel = connection.default_channel
        exchange = Exchange("celeryev", "topic")
        exchange(channel).declare()
        for key, raw, more in forged_heartbeats():
            connection.Producer(channel).publish(
                raw,
                exchange="celeryev",
                routing_key=key,
                headers=dict(more),
                content_type="application/json",
                content_encoding="utf-8",
            )
    site.caught_up()
    assert trap() == 0


# --- what kombu itself keeps in Redis

RECORDS: dict[str, bytes] = {
    "no JSON": b"{bad" + CANARY.encode(),
    "a number": b"5",
    "two": b'[{}, ""]',
    "no message": f'["{CANARY}", "", "{QUEUE}"]'.encode(),
    "no properties": b'[{"body": ""}, "", "keyturn"]',
}


@pytest.mark.parametrize("site", ["valkey"], indirect=True)
@pytest.mark.parametrize("name", RECORDS)
def test_a_forged_record_of_an_unacknowledged_message(site: Site, name: str) -> None:
    """Others behind it are given back all the same."""
    ring = {"task": "keys.settle", "id": str(uuid.uuid4()), "args": [], "kwargs": {}}
    good = str(uuid.uuid4())
    with redis.Redis.from_url(site.url) as client:
        client.hset("unacked", "forged", RECORDS[name])
        client.zadd("unacked_index", {"forged": 2})
        client.hset("unacked", good, json.dumps([envelope(ring), "", QUEUE]))
        client.zadd("unacked_index", {good: 1})
        try:
            eventually(lambda: not client.hexists("unacked", good), within=SOON)
        finally:
            client.delete("unacked", "unacked_index")


def envelope(message: object) -> dict[str, Any]:
    return {
        "body": json.dumps(message),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {},
        "properties": {
            "delivery_tag": str(uuid.uuid4()),
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
        },
    }


@pytest.mark.parametrize("site", ["valkey"], indirect=True)
def test_a_queue_of_another_type_is_waited_for(site: Site) -> None:
    with redis.Redis.from_url(site.url) as client:
        client.set(QUEUE, CANARY)
        eventually(lambda: b"queue_unusable" in site.log.read_bytes(), within=SOON)
        client.delete(QUEUE)
