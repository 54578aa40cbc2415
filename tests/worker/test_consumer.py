"""What a real worker makes of the messages in its queue, whoever wrote them there."""

import json
import pickle
import uuid
from typing import Any

import pytest
from kombu import Connection

from tasks import flows
from tests.eventually import eventually
from tests.worker.site import SOON, Site
from worker.app import QUEUE, TASK_EVENT
from worker.schedule import TICK

CANARY = "canary-c0ffee"


def test_a_ring_with_arguments_changes_nothing(site: Site) -> None:
    key, text = site.key(f"arguments-{uuid.uuid4()}@example.com")

    def began(job: str) -> Any:
        with site.operator.database.begin() as tx:
            runs = "SELECT started_at FROM keyturn.schedule_runs WHERE job = :job"
            return tx.scalar(runs, job=job)

    hourly = ("upkeep.retention", "notices.plan")  # the schedule will not come between
    for job in hourly:
        site.call(job, [], {})
    before = [eventually(lambda job=job: began(job), within=SOON) for job in hourly]  # type: ignore[misc]
    site.call(hourly[0], [key], {})
    site.call(hourly[1], [], {"key": key, "force": True})
    eventually(lambda: site.log.read_text().count("task_with_arguments") >= 2, within=SOON)
    site.caught_up()
    assert [began(job) for job in hourly] == before
    assert site.operator.verify(text).valid
    assert key not in site.log.read_text()


def test_a_forged_ring_only_does_due_work(site: Site) -> None:
    _, text = site.key(f"forged-{uuid.uuid4()}@example.com")
    for flow in sorted(flows()):
        for _ in range(3):
            site.call(flow, [], {})
    site.caught_up()
    assert site.operator.verify(text).valid


class Exploding:
    """Unpickled, it would leave a mark."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return print, ("EXPLODED",)


TASK = {"task": TASK_EVENT, "id": "00000000-0000-4000-8000-000000000001"}
REFUSED: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "pickle": (
        pickle.dumps(((Exploding(), CANARY), {}, {})),
        TASK,
        "application/x-python-serialize",
    ),
    "pickle as v1": (pickle.dumps(Exploding()), {}, "application/x-python-serialize"),
    "yaml": (f"[[{CANARY}], {{}}, {{}}]".encode(), TASK, "application/x-yaml"),
    "unknown task": (
        f'[["{CANARY}"], {{}}, {{}}]'.encode(),
        {**TASK, "task": "gone"},
        "application/json",
    ),
    "broken JSON": (b'[["' + CANARY.encode(), TASK, "application/json"),
    "broken v1": (b'{"' + CANARY.encode(), {}, "application/json"),
    "no id": (f'[["{CANARY}"], {{}}, {{}}]'.encode(), {"task": TASK_EVENT}, "application/json"),
    "no three": (f'["{CANARY}"]'.encode(), TASK, "application/json"),
    "a number": (b"5", TASK, "application/json"),
    "no task": (
        json.dumps({"type": "account.disabled", "account": CANARY}).encode(),
        {},
        "application/json",
    ),
    "task is a list": (b"[]", {**TASK, "task": ["keys.settle"]}, "application/json"),
    "bad eta": (b"[[], {}, {}]", {**TASK, "eta": "tomorrow"}, "application/json"),
    "no encoding": (CANARY.encode("utf-16"), TASK, "application/json"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_task_is_refused_without_a_word_of_it_in_the_log(site: Site, name: str) -> None:
    body, headers, content_type = REFUSED[name]
    before, dead, number = (
        site.log.stat().st_size,
        site.dead() if site.on_rabbitmq else 0,
        site.last(),
    )
    site.put(body, headers, content_type)
    eventually(lambda: b"message_refused" in site.log.read_bytes()[before:], within=SOON)
    if site.on_rabbitmq:
        eventually(lambda: site.dead() == dead + 1, within=SOON)
    log = site.log.read_text()
    assert CANARY not in log
    assert "EXPLODED" not in log
    assert site.last() == number
    assert site.worker.poll() is None


@pytest.mark.parametrize(
    "entry", [b"{bad", b"5", b"null", b"[]", b'{"type": "account.disabled"}', b"\xff\xfe", b""]
)
def test_a_stray_entry_ends_no_worker(site: Site, entry: bytes) -> None:
    before = site.log.stat().st_size
    site.put_raw(entry)
    eventually(lambda: b"message_refused" in site.log.read_bytes()[before:], within=SOON)
    assert site.worker.poll() is None


def test_the_worker_still_works_after_all_that(site: Site) -> None:
    site.caught_up()


def test_nobody_can_command_a_worker(site: Site) -> None:
    """Remote control is off: a `shutdown` broadcast by whoever can write to the broker is lost."""
    site.producer.control.broadcast("shutdown")
    assert site.producer.control.ping(timeout=1) == []
    site.caught_up()


def test_no_results_are_kept(site: Site) -> None:
    sent = site.producer.send_task(TICK, exchange=QUEUE, routing_key=QUEUE)
    site.caught_up()
    with Connection(site.url) as connection:
        if site.on_rabbitmq:
            return  # they would be messages to a queue of the caller's; none was named
        keys = connection.default_channel.client.keys("*")
    assert not [key for key in keys if sent.id.encode() in key or b"task-meta" in key]
