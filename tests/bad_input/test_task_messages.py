"""Bad task messages, put into the real queue of a real worker by hand."""

import base64
import bz2
import json
import lzma
import pickle
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection

from tasks import flows
from tests.eventually import eventually
from tests.worker.site import SOON, Site
from worker import compressed
from worker.app import QUEUE, TASK_EVENT

CANARY = "canary-ba5e"
BOMB = 256 * 1024 * 1024


@pytest.fixture(autouse=True)
def _unharmed(site: Site) -> Iterator[None]:
    before = site.log.stat().st_size
    yield
    site.caught_up()
    assert CANARY.encode() not in site.log.read_bytes()[before:]


def headers(task: str, **more: object) -> dict[str, Any]:
    return {"task": task, "id": str(uuid.uuid4()), **more}


def refusals(site: Site) -> int:
    return site.log.read_bytes().count(b'"message_refused"')


def test_a_ring_with_any_argument_is_refused_and_counted(site: Site) -> None:
    arguments: list[tuple[list[Any], dict[str, Any]]] = [
        ([None], {}), ([CANARY], {}), ([[]], {}), ([{}], {}), ([0] * 100, {}),
        ([], {"x": CANARY}), ([], {"runtime": None}), ([], {"args": []}), ([False], {"": 0}),
    ]  # fmt: skip
    before = site.log.read_text().count("task_with_arguments")
    for args, kwargs in arguments:
        site.call("keys.settle", args, kwargs)
    count = before + len(arguments)
    eventually(lambda: site.log.read_text().count("task_with_arguments") == count, within=SOON)


def gzipped(body: bytes, kind: str) -> bytes:
    if kind == "application/x-gzip":
        return zlib.compress(body)
    return bz2.compress(body) if kind == "application/x-bz2" else lzma.compress(body)


BODY = f'[["{CANARY}"], {{}}, {{}}]'.encode()
TASK = headers(TASK_EVENT)
BAD: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "pickle": (pickle.dumps(([CANARY], {}, {})), TASK, "application/x-python-serialize"),
    "pickle named JSON": (pickle.dumps(([CANARY], {}, {})), TASK, "application/json"),
    "YAML": (f"[[{CANARY}], {{}}, {{}}]".encode(), TASK, "application/x-yaml"),
    "msgpack": (b"\x93\x91\xab" + CANARY.encode(), TASK, "application/x-msgpack"),
    "raw": (BODY, TASK, "application/data"),
    "text": (BODY, TASK, "text/plain"),
    "no type": (BODY, headers("gone"), ""),
    "unknown type": (BODY, TASK, CANARY),
    "unknown task": (BODY, headers("gone"), "application/json"),
    "a task of a path": (BODY, headers("os.system"), "application/json"),
    "task empty": (BODY, headers(""), "application/json"),
    "task with a space": (BODY, headers("keys.settle "), "application/json"),
    "task in capitals": (BODY, headers("KEYS.SETTLE"), "application/json"),
    "task of 50 KB": (BODY, headers(CANARY * 5_000), "application/json"),
    "not UTF-8": (b"\xff" + BODY, TASK, "application/json"),
    "cut": (BODY[:-5], TASK, "application/json"),
    "empty": (b"", TASK, "application/json"),
    "two parts": (b"[[], {}]", TASK, "application/json"),
    "four parts": (b"[[], {}, {}, {}]", TASK, "application/json"),
    "an object": (b"{}", TASK, "application/json"),
    "null": (b"null", TASK, "application/json"),
    "deep": (b"[" * 100_000 + b"]" * 100_000, TASK, "application/json"),
    "5,000 digits": (b"[[" + b"9" * 5000 + b"], {}, {}]", TASK, "application/json"),
    "compressed, and is not": (BODY, TASK | {"compression": "gzip"}, "application/json"),
    "unknown compression": (BODY, TASK | {"compression": CANARY}, "application/json"),
    "compression a list": (BODY, TASK | {"compression": [CANARY]}, "application/json"),
    **{
        f"bomb of {kind}": (b"", TASK | {"compression": kind}, "application/json")
        for kind in ("application/x-gzip", "application/x-bz2", "application/x-lzma")
    },
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_task_of_ours_is_refused_and_counted(site: Site, name: str) -> None:
    body, given, kind = BAD[name]
    if name.startswith("bomb"):
        body = gzipped(bytes(BOMB), given["compression"])
    before, number, memory = refusals(site), site.last(), peak(site)
    site.put(body, given, kind)
    eventually(lambda: refusals(site) > before, within=SOON)
    assert site.last() == number
    assert peak(site) < memory + BOMB // 4


def peak(site: Site) -> int:
    """The most memory that the worker has had so far, in bytes."""
    status = Path(f"/proc/{site.worker.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("kind", ["application/x-gzip", "application/x-bz2", "application/x-lzma"])
def test_a_producer_may_compress(site: Site, kind: str) -> None:
    name = str(uuid.uuid4())
    event = {"type": "account.disabled", "account": "x", "id": name, "note": "x" * 100_000}
    packed = gzipped(json.dumps([[event], {}, {}]).encode(), kind)
    site.put(packed, headers(TASK_EVENT, compression=kind))
    eventually(lambda: site.state(name), within=SOON)
    assert compressed.LARGEST < BOMB


def test_an_event_of_20_mb_is_a_rejected_row(site: Site) -> None:
    before = site.last()
    site.call(TASK_EVENT, [{"type": "account.disabled", "account": "x" * 20_000_000}], {})
    [reason] = eventually(lambda: site.rejected_since(before), within=60)
    assert reason.startswith("too_large: ")


def test_a_ring_doubled_ten_thousand_times_drains_in_seconds(site: Site) -> None:
    body = b"[[], {}, {}]"
    if site.on_rabbitmq:
        with Connection(site.url) as connection:
            channel = connection.default_channel
            for _ in range(10_000):
                message = channel.prepare_message(
                    body,
                    content_type="application/json",
                    content_encoding="utf-8",
                    headers=headers("accounts.apply_events"),
                )
                channel.basic_publish(message, exchange="", routing_key=QUEUE)
    else:
        with redis.Redis.from_url(site.url) as client:
            pipeline = client.pipeline(transaction=False)
            for _ in range(10_000):
                pipeline.lpush(QUEUE, json.dumps(enveloped(body, "accounts.apply_events")))
            pipeline.execute()
    name = str(uuid.uuid4())
    site.send({"type": "account.disabled", "account": "x", "id": name})
    eventually(lambda: site.state(name), within=120)


def enveloped(body: bytes, task: str) -> dict[str, Any]:
    return {
        "body": base64.b64encode(body).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": headers(task),
        "properties": {
            "body_encoding": "base64",
            "delivery_mode": 2,
            "delivery_tag": str(uuid.uuid4()),
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
        },
    }


def spoiled() -> Iterator[tuple[str, object]]:
    """Envelopes of kombu's with one member replaced."""
    values: list[Any] = [None, 5, [], CANARY, {"x": CANARY}]
    for name in ("body", "content-type", "content-encoding", "headers", "properties"):
        for value in values:
            yield f"{name}: {value}", enveloped(b"[[], {}, {}]", "keys.settle") | {name: value}
    for name in ("body_encoding", "delivery_tag", "delivery_info", "priority", "delivery_mode"):
        for value in values:
            one = enveloped(b"[[], {}, {}]", "keys.settle")
            one["properties"][name] = value
            yield f"{name}: {value}", one


@pytest.mark.parametrize("site", ["valkey"], indirect=True)
def test_an_envelope_with_a_member_that_is_wrong(site: Site) -> None:
    with redis.Redis.from_url(site.url) as client:
        for name, one in spoiled():
            client.lpush(QUEUE, json.dumps(one))
            eventually(lambda: client.llen(QUEUE) == 0, within=SOON)
            assert site.worker.poll() is None, name


def test_the_names_of_tasks_stay_what_they_are() -> None:
    """A message of the release before finds its task: a name may be added, never changed."""
    assert set(flows()) >= {
        "accounts.apply_events",
        "keys.delete_due",
        "keys.expire_due",
        "keys.follow_compromises",
        "keys.settle",
        "keys.tell_refused",
        "notices.plan",
        "outbox.deliver",
        "rotations.advance",
        "upkeep.check_invariants",
        "upkeep.retention",
        "upkeep.ring_due",
    }
