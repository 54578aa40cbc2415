"""Any message in the queue of a real worker: it lives, goes on, and writes none of it down."""

import json
import uuid
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks import flows
from tests.bad_input.inlet import examples
from tests.worker.intake.test_providers_fuzz import VALUES
from tests.worker.site import Site
from worker.app import TASK_EVENT

CANARY = "canary-f022"

VALUE = VALUES | st.sampled_from([CANARY, [CANARY], {CANARY: CANARY}])
TASKS = st.sampled_from([*sorted(flows()), TASK_EVENT, "gone", "celery.group", "celery.map"])
KINDS = st.sampled_from(
    ["application/json", "application/x-python-serialize", "application/x-yaml", "text/plain",
     "application/x-msgpack", "application/data", ""]
)  # fmt: skip
NAMES = st.sampled_from(
    ["eta", "expires", "retries", "callbacks", "errbacks", "chain", "chord", "group", "timelimit",
     "compression", "shadow", "lang", "root_id", "ignore_result", "argsrepr", "stamps", "is_eager",
     "stamped_headers", "origin", "delivery_info", "args", "kwargs", "update", "hostname"]
)  # fmt: skip
BODIES = (
    st.tuples(st.lists(VALUE, max_size=2), st.dictionaries(st.text(max_size=5), VALUE, max_size=2),
              st.dictionaries(NAMES, VALUE, max_size=2)).map(json.dumps)
    | VALUE.map(json.dumps)
    | st.dictionaries(NAMES | st.sampled_from(["task", "id"]), VALUE, max_size=5).map(json.dumps)
)  # fmt: skip


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, dict[str, Any], str]:
    headers: dict[str, Any] = draw(st.dictionaries(NAMES, VALUE, max_size=3))
    if draw(st.integers(0, 4)):
        headers["task"] = draw(TASKS)
        headers["id"] = draw(st.just(str(uuid.UUID(int=draw(st.integers(0, 9))))) | VALUE)
    body = draw(BODIES.map(str.encode) | st.binary(max_size=40))
    return body, headers, draw(KINDS)


def test_any_message(site: Site) -> None:
    before = site.log.stat().st_size

    @settings(
        max_examples=examples(40),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(batch=st.lists(messages(), min_size=1, max_size=5))
    def search(batch: list[tuple[bytes, dict[str, Any], str]]) -> None:
        for body, headers, kind in batch:
            try:
                site.put(body, headers, kind)
            except Exception:  # the client library itself cannot send it
                assert site.on_rabbitmq
        assert site.worker.poll() is None

    search()
    site.caught_up()
    assert CANARY.encode() not in site.log.read_bytes()[before:]


def test_any_bytes(site: Site) -> None:
    @settings(
        max_examples=examples(40),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(entry=st.binary(max_size=80) | VALUES.map(lambda value: json.dumps(value).encode()))
    def search(entry: bytes) -> None:
        site.put_raw(entry)
        assert site.worker.poll() is None

    search()
    site.caught_up()
