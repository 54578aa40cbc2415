"""Celery as it is set up: each setting has its reason."""

import ast
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.app.defaults import NAMESPACES, flatten
from celery.exceptions import QueueNotFound
from kombu.exceptions import OperationalError

from models.errors import Misconfigured
from tasks import flows
from tests.flows.stack import ROOT
from worker import checks
from worker.app import DEAD, QUEUE, TASK_EVENT, TICK_KEPT, make_app
from worker.embedded.children import make_children
from worker.embedded.home import Home
from worker.schedule import TICK, tick_every
from worker.settings import Settings, load_settings

REDIS = "redis://localhost:1/0"
AMQP = "amqp://localhost:1//"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEYTURN_BROKER_URL", REDIS)
    return load_settings()


@pytest.fixture(params=[REDIS, AMQP], ids=["redis", "amqp"])
def app(request: pytest.FixtureRequest, settings: Settings, monkeypatch: Any) -> Celery:
    monkeypatch.setenv("KEYTURN_BROKER_URL", request.param)
    return make_app(load_settings())


SETTINGS: dict[str, Any] = {
    "worker_pool": "threads",
    "task_acks_late": True,
    "task_acks_on_failure": True,
    "task_acks_on_timeout": True,
    "worker_prefetch_multiplier": 1,
    "broker_connection_max_retries": None,
    "broker_connection_retry_on_startup": True,
    "broker_pool_acquire_timeout": 10,
    "worker_soft_shutdown_timeout": 30,
    "result_backend": None,
    "task_ignore_result": True,
    "worker_send_task_events": False,
    "task_send_sent_event": False,
    "worker_enable_remote_control": False,
    "accept_content": ["json"],
    "task_serializer": "json",
    "task_create_missing_queues": False,
    "task_always_eager": False,
    "task_publish_retry": False,
    "timezone": "UTC",
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_hold_on_every_broker(app: Celery, name: str) -> None:
    assert app.conf[name] == SETTINGS[name]


def test_every_setting_is_one_that_celery_knows(app: Celery) -> None:
    known = {name for name, _ in flatten(NAMESPACES)}
    assert set(app.conf.changes) - {"deprecated_settings"} <= known
    assert app.conf.maybe_warn_deprecated_settings() is False


def test_redis_options(settings: Settings) -> None:
    with make_app(settings).connection_for_write() as connection:
        options = connection.transport_options
        channel = connection.transport.Channel
        # A name that kombu's channel does not take would be ignored without a word.
        taken = {
            name for one in channel.__mro__ for name in getattr(one, "from_transport_options", ())
        }
        assert set(options) - {"unacked_restore_interval", "max_retries"} <= taken
    assert options == {
        "visibility_timeout": 600,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 25,
        "max_retries": 0,
    }


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_the_transport_keeps_what_the_url_says(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, scheme: str
) -> None:
    monkeypatch.setenv("KEYTURN_ALLOW_PLAINTEXT_BROKER", "true")
    monkeypatch.setenv("KEYTURN_BROKER_URL", f"{scheme}://me:pass%40word@mq.example.com:6390/3")
    connection = make_app(load_settings()).connection_for_write()
    found = (connection.hostname, connection.port, connection.userid, connection.password)
    assert found == ("mq.example.com", 6390, "me", "pass@word")
    assert connection.virtual_host == "3"
    assert bool(connection.ssl) is (scheme == "rediss")
    assert connection.transport.driver_type == "redis"


def test_visibility_outlasts_a_lease(settings: Settings) -> None:
    options = make_app(settings).conf.broker_transport_options
    assert timedelta(seconds=options["visibility_timeout"]) > settings.lease


def test_rabbitmq_options(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTURN_BROKER_URL", AMQP)
    app = make_app(load_settings())
    options = app.conf.broker_transport_options
    assert options["confirm_publish"] is True
    assert options["read_timeout"] == options["write_timeout"] == 10
    assert app.amqp.queues[QUEUE].queue_arguments == {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": DEAD,
    }


def test_one_durable_queue_and_no_other(app: Celery) -> None:
    [queue] = app.amqp.queues.values()
    assert (queue.name, queue.routing_key, queue.durable) == (QUEUE, QUEUE, True)
    assert (queue.exchange.name, queue.exchange.type, queue.exchange.durable) == (
        QUEUE,
        "direct",
        True,
    )
    assert app.conf.task_default_delivery_mode == 2
    with pytest.raises(QueueNotFound):
        app.send_task("keys.settle", queue="keytrun")


def test_every_flow_is_a_task_and_nothing_else_is(app: Celery) -> None:
    own = {name for name in app.tasks if not name.startswith("celery.")}
    assert own == set(flows()) | {TASK_EVENT}


def test_nothing_is_sent_for_later() -> None:
    for directory in ("models", "tasks", "worker"):
        for file in (ROOT / directory).rglob("*.py"):
            calls = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Call)]
            names = {keyword.arg for call in calls for keyword in call.keywords}
            assert not names & {"eta", "countdown"}, file


def test_a_tick_outlives_what_clocks_may_differ(settings: Settings) -> None:
    entry = make_app(settings).conf.beat_schedule[TICK]
    assert entry["schedule"] == tick_every(settings)
    assert timedelta(seconds=entry["options"]["expires"]) > TICK_KEPT


@pytest.mark.parametrize("url", [REDIS, AMQP], ids=["redis", "amqp"])
def test_a_ring_without_a_broker_fails_at_once(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, url: str
) -> None:
    monkeypatch.setenv("KEYTURN_BROKER_URL", url)
    app = make_app(load_settings())
    begin = time.monotonic()
    with pytest.raises(OperationalError):
        app.send_task(TICK, retry=False)
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"task_always_eager": True}, "always_eager"),
        ({"accept_content": ["json", "pickle"]}, "json"),
    ],
)
def test_a_worker_refuses_what_would_hide_or_open(
    settings: Settings, changed: dict[str, Any], why: str
) -> None:
    app = make_app(settings)
    checks.celery(app.conf)
    app.conf.update(changed)
    with pytest.raises(Misconfigured, match=why):
        checks.celery(app.conf)
    with pytest.raises(SystemExit):
        checks.worker(settings, app.conf)


def test_workers_of_two_directories_have_names_of_their_own(tmp_path: Path) -> None:
    names = set()
    for name in ("one", "two"):
        home = Home(tmp_path / name)
        home.make()
        worker = next(child for child in make_children(home) if child.name == "worker")
        names.add(worker.command[worker.command.index("--hostname") + 1])
    assert len(names) == 2
