"""The Celery task `account.event`, on a real worker, Valkey and RabbitMQ."""

import itertools
import json
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import Celery

from models.base import Database
from tests.eventually import eventually
from tests.worker.site import SOON, Site, closed
from worker.app import DEAD, QUEUE, TASK_EVENT
from worker.embedded.postgres import Postgres

_numbers = itertools.count(1)


def event(account: str, **more: Any) -> dict[str, Any]:
    return {"type": "account.disabled", "account": account} | more


@pytest.fixture
def account() -> str:
    return f"account-{next(_numbers)}@example.com"


def refused(site: Site, text: str) -> bool:
    return site.operator.verify(text, record=False).reason == "account_held"


@pytest.mark.parametrize("shape", ["one object", "keywords", "a CloudEvent"])
def test_an_event_cuts_the_account(site: Site, account: str, shape: str) -> None:
    _, text = site.key(account)
    assert site.operator.verify(text).valid
    if shape == "one object":
        site.send(event(account))
    elif shape == "keywords":
        site.send(**event(account))
    else:
        envelope = {"specversion": "1.0", "source": "/hr", "id": account, "subject": account}
        site.send(envelope | {"type": "account.disabled"})
    eventually(lambda: refused(site, text), within=SOON)
    [row] = [one for one in site.events() if one.account_id == account_id(site, account)]
    assert (row.source, row.provider, row.state) == ("native", "native", "done")


def account_id(site: Site, account: str) -> uuid.UUID:
    return site.operator.account(account).id


def test_a_producer_that_declares_the_queue_itself(site: Site, account: str) -> None:
    _, text = site.key(account)
    queue: dict[str, Any] = {"exchange": QUEUE, "routing_key": QUEUE}
    if site.on_rabbitmq:
        arguments = {"x-queue-type": "quorum", "x-dead-letter-exchange": DEAD}
        queue["queue_arguments"] = arguments
    with Celery("hr", broker=site.url, set_as_current=False) as producer:
        producer.conf.task_queues = {QUEUE: queue}
        producer.send_task(TASK_EVENT, args=[event(account)], queue=QUEUE)
    eventually(lambda: refused(site, text), within=SOON)


def test_values_that_only_python_sends(site: Site, account: str) -> None:
    _, text = site.key(account)
    marker = uuid.uuid4()
    at = datetime(2026, 11, 20, 8, 40, tzinfo=UTC)
    site.send(event(account, id=marker, at=at))
    eventually(lambda: refused(site, text), within=SOON)
    [row] = [one for one in site.events() if one.event_id == str(marker)]
    assert row.occurred_at == at


@pytest.mark.parametrize("full", [False, True], ids=["minimal", "full"])
def test_protocol_2_by_hand(site: Site, account: str, full: bool) -> None:
    _, text = site.key(account)
    headers: dict[str, Any] = {"task": TASK_EVENT, "id": str(uuid.uuid4())}
    embed: dict[str, Any] = {}
    if full:
        headers |= {"lang": "js", "root_id": headers["id"], "parent_id": None, "group": None}
        headers |= {"retries": 0, "eta": None, "expires": None, "origin": "node@hr"}
        headers |= {"timelimit": [None, None], "argsrepr": "", "kwargsrepr": ""}
        embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    site.put(json.dumps([[event(account)], {}, embed]).encode(), headers)
    eventually(lambda: refused(site, text), within=SOON)


def test_protocol_1_by_hand(site: Site, account: str) -> None:
    _, text = site.key(account)
    message = {"task": TASK_EVENT, "id": str(uuid.uuid4()), "args": [event(account)], "kwargs": {}}
    site.put(json.dumps(message).encode())
    eventually(lambda: refused(site, text), within=SOON)


def test_the_same_id_counts_once(site: Site, account: str) -> None:
    key, text = site.key(account)
    for _ in range(20):
        site.send(event(account, id=account))
    eventually(lambda: refused(site, text), within=SOON)
    eventually(lambda: site.operator.key(key).status == "disabled", within=SOON)
    site.caught_up()
    assert [one.state for one in site.events() if one.event_id == account] == ["done"]
    assert audited(site.operator.database, key) == ["key.created", "key.disabled"]


def audited(database: Database, key: str) -> list[str]:
    with database.begin() as tx:
        found = tx.execute(
            "SELECT action FROM keyturn.audit WHERE key_id = CAST(:key AS uuid) ORDER BY version",
            key=key,
        )
        return [str(action) for action in found.scalars()]


def test_a_message_delivered_twice_counts_once(site: Site, account: str) -> None:
    _, text = site.key(account)
    message = {"task": TASK_EVENT, "id": str(uuid.uuid4()), "args": [event(account)], "kwargs": {}}
    for _ in range(3):
        site.put(json.dumps(message).encode())
    eventually(lambda: refused(site, text), within=SOON)
    site.caught_up()
    mine = [one for one in site.events() if one.account_id == account_id(site, account)]
    assert [one.state for one in mine] == ["done"]


NO_EVENTS: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "nothing": ([], {}, "missing_type"),
    "number": ([5], {}, "not_an_object"),
    "null": ([None], {}, "not_an_object"),
    "text": (['{"type": "account.disabled"}'], {}, "not_an_object"),
    "list": ([[{"type": "account.disabled", "account": "x"}]], {}, "not_an_object"),
    "two": ([{"type": "account.disabled"}, {"account": "x"}], {}, "not_an_object"),
    "mixed": ([{"type": "account.disabled"}], {"account": "x"}, "not_an_object"),
    "type": ([{"type": "account.exploded", "account": "x"}], {}, "unknown_type"),
    "no account": ([{"type": "account.disabled"}], {}, "missing_account"),
    "names of ours": ([], {"task": 2, "args": 3, "settings": 4}, "missing_type"),
    "nul": ([{"type": "account.disabled\0", "account": "x"}], {}, "bad_characters"),
    "surrogate": ([{"type": "account.disabled", "account": "\ud800"}], {}, "bad_characters"),
    "nan": ([{"type": "account.disabled", "account": "x", "n": float("nan")}], {}, "not_json"),
    "deep": ([{"type": json.loads("[" * 200 + "]" * 200)}], {}, "too_deep"),
    "huge": ([{"type": "account.disabled", "account": "x" * 3_000_000}], {}, "too_large"),
}


@pytest.mark.parametrize("name", NO_EVENTS)
def test_what_is_no_event_becomes_a_rejected_row_and_nothing_else(site: Site, name: str) -> None:
    args, kwargs, code = NO_EVENTS[name]
    before = site.last()
    site.call(TASK_EVENT, args, kwargs)
    [reason] = eventually(lambda: site.rejected_since(before), within=SOON)
    assert reason.startswith(f"{code}: ")
    after = [one for one in site.events() if one.id > before]
    assert [(one.state, one.account_id) for one in after] == [("rejected", None)]
    assert site.worker.poll() is None


def test_a_rejected_event_is_kept_whole_for_a_replay(site: Site) -> None:
    before = site.last()
    site.send({"type": "account.later"}, note="seen")
    eventually(lambda: site.rejected_since(before), within=SOON)
    last = site.events()[-1].id
    with site.operator.database.begin() as tx:
        body = tx.scalar("SELECT body FROM keyturn.inbox WHERE id = :id", id=last)
    assert json.loads(body) == [{"type": "account.later"}, {"note": "seen"}]


def test_an_event_waits_for_a_database_that_is_away(
    site: Site, postgres: Postgres, account: str
) -> None:
    _, text = site.key(account)
    with closed(postgres, site.operator.database):
        site.send(event(account, id=account))
        eventually(lambda: b"event_waits" in site.log.read_bytes(), within=SOON)
    eventually(lambda: refused(site, text), within=SOON)
    assert site.state(account) == "done"


@pytest.mark.parametrize("site", ["rabbitmq"], indirect=True)
def test_on_rabbitmq_no_event_is_lost_with_its_worker(
    site: Site, postgres: Postgres, account: str
) -> None:
    """At least once: what a killed worker had taken, and not stored, the next one gets."""
    _, text = site.key(account)
    with closed(postgres, site.operator.database):
        site.send(event(account, id=account))
        eventually(lambda: b"event_waits" in site.log.read_bytes(), within=SOON)
        site.kill()
    site.start()
    eventually(lambda: refused(site, text), within=SOON)
    assert site.state(account) == "done"
