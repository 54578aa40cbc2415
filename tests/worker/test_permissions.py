"""The permission files of Valkey and RabbitMQ: each user does its work, and nothing else."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import redis
from amqp.exceptions import AccessRefused, NotAllowed  # type: ignore[import-untyped]
from celery import Celery
from kombu import Connection, Exchange, Queue
from redis.exceptions import AuthenticationError, NoPermissionError

from models import Client, TimeUnit, roles
from models.base import Database
from models.grants import INTAKE, OPS, VERIFY, WORKER
from models.operator import Operator
from tests.eventually import eventually
from tests.flows.processes import beat, environment, intake, process
from tests.flows.stack import ROOT
from tests.roles import make_roles, own_cluster, url_of
from tests.servers import temporary_home
from tests.worker.secured import (
    PASSWORD,
    PERMISSIONS,
    USERS,
    acl_file,
    definitions,
    import_definitions,
    login,
    own_valkey,
    refusals,
)
from tests.world import ROLES
from worker.app import DEAD, QUEUE, TASK_EVENT
from worker.embedded.home import Home
from worker.embedded.postgres import Postgres
from worker.intake.amqp_queues import DEAD as DEAD_IN

ADA: Final = "ada@example.com"
SOON: Final = 30.0
ADMIN: Final = "keyturn-admin"
_WORKER, _INTAKE, _OPS, _PRODUCER, _CONSUMER = (
    f"keyturn-{name}" for name in ("worker", "intake", "ops", "producer", "consumer")
)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A Valkey with the project's ACL file."""
    with temporary_home() as home, own_valkey(home, "--aclfile", str(acl_file(home))) as found:
        yield found


@pytest.fixture(scope="module")
def divided() -> Iterator[Postgres]:
    """A database in which every process has a role of its own."""
    with own_cluster() as server:
        make_roles(server)
        owner = Database(server.url(), pool_size=0)
        owner.run(lambda tx: roles.sync(tx, ROLES))
        yield server


class Installation:
    """Worker, beat, intake, an operator and a product, each with the credentials meant for it."""

    def __init__(
        self, server: Postgres, broker: Callable[[str], str], stream: int | None, **more: str
    ) -> None:
        secrets_dir = server.home.path / "secrets"
        self._environments = {
            name: environment(url_of(role, server.url()), broker(user), secrets_dir)
            | ({"KEYTURN_STREAM_URL": login(user, stream)} if stream else {})
            | more
            for name, role, user in (
                ("worker", WORKER, _WORKER),
                ("intake", INTAKE, _INTAKE),
                ("ops", OPS, _OPS),
            )
        }
        self.operator = Operator(url_of(OPS, server.url()))
        self.product = Client(url_of(VERIFY, server.url()))
        self._running = ExitStack()

    def __enter__(self) -> "Installation":
        for name, start in (("worker", _worker), ("worker", beat), ("intake", intake)):
            self._running.enter_context(start(self._environments[name]))
        return self

    def __exit__(self, *error: object) -> None:
        self._running.__exit__(*error)  # type: ignore[arg-type]
        self.operator.close()
        self.product.close()

    def keyturn(self, *arguments: str) -> None:
        """A command of the operator's."""
        command = [sys.executable, "-m", "worker.cli", *arguments]
        subprocess.run(command, cwd=ROOT, env=self._environments["ops"], check=True, timeout=60)


def _worker(env: Any) -> Any:
    """As docs/operations.md has it."""
    without = ("--without-gossip", "--without-mingle")
    return process(env, "celery", "--app", "worker.main", "worker", "--pool", "threads", *without)


def cut_and_restored(
    installation: Installation, produce: Callable[[dict[str, str]], object], told: Callable[[], Any]
) -> None:
    """An account is disabled by a producer, and enabled by an operator; a consumer hears of it."""
    operator, product = installation.operator, installation.product
    email = f"user{len(operator.accounts())}@example.com"
    operator.create_account(email, "member")
    key = operator.create_api_key("a key", email, "member", 30, TimeUnit.DAY)
    text = key.text.reveal()
    assert product.verify(text).valid
    produce({"type": "account.disabled", "account": email, "id": email})
    eventually(lambda: product.verify(text).reason == "account_held", within=SOON)
    eventually(lambda: operator.key(str(key.id)).status == "disabled", within=SOON)
    installation.keyturn("events", "send", "account.enabled", email)
    eventually(lambda: product.verify(text).valid, within=SOON)
    eventually(lambda: {"key.issued", "key.disabled", "key.enabled"} <= set(told()), within=SOON)


def test_the_files_are_shipped_with_the_package() -> None:
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = shipped["package-data"]["*"]
    for name in ("valkey.acl", "rabbitmq.json"):
        assert (PERMISSIONS / name).is_file()
        assert any(fnmatch(name, pattern) for pattern in patterns), name


# Valkey


def test_nobody_logs_in_before_there_is_a_password() -> None:
    with temporary_home() as home:
        file = acl_file(home, passwords=False)
        with own_valkey(home, "--aclfile", str(file)) as found:
            for user in (*USERS, ADMIN):
                for url in (login(user, found), login(user, found).replace(PASSWORD, "")):
                    with redis.Redis.from_url(url) as client, pytest.raises(AuthenticationError):
                        client.ping()
            with redis.Redis(port=found) as client, pytest.raises(AuthenticationError):
                client.ping()


def test_every_process_does_its_work_on_valkey(port: int, divided: Postgres) -> None:
    with (
        redis.Redis.from_url(login(_PRODUCER, port)) as producer,
        redis.Redis.from_url(login(_CONSUMER, port)) as consumer,
        Installation(divided, lambda user: login(user, port), None) as installation,
    ):
        consumer.xgroup_create("keyturn:out", "gateway", id="0", mkstream=True)
        heard: list[str] = []

        def told() -> list[str]:
            answer: Any = consumer.xreadgroup("gateway", "one", {"keyturn:out": ">"}, count=100)
            streams = answer.items() if isinstance(answer, dict) else answer or []
            for _, entries in streams:
                for entry_id, fields in entries[0] if isinstance(answer, dict) else entries:
                    consumer.xack("keyturn:out", "gateway", entry_id)
                    heard.append(json.loads(fields[b"event"])["type"])
            return heard

        cut_and_restored(installation, lambda e: producer.xadd("keyturn:in", e), told)
    assert refusals(login(ADMIN, port)) == []


def may(admin: Any, user: str, *command: str) -> bool:
    """What the server itself says of a command that it does not run."""
    return bool(admin.execute_command("ACL", "DRYRUN", user, *command) in (b"OK", "OK"))


MATRIX: Final = {
    "XADD keyturn:in * a b": {_PRODUCER, _OPS},
    "XADD keyturn:in:okta * a b": {_PRODUCER, _OPS},
    "XADD keyturn:out * a b": {_WORKER},
    "XADD another * a b": set(),
    "XRANGE keyturn:in - +": set(),
    "XREAD STREAMS keyturn:in 0": set(),
    "XREADGROUP GROUP g c STREAMS keyturn:in >": {_INTAKE},
    "XACK keyturn:in g 1-1": {_INTAKE},
    "XDEL keyturn:in 1-1": {_INTAKE},
    "XTRIM keyturn:in MAXLEN 0": set(),
    "XGROUP DESTROY keyturn:in g": set(),
    "DEL keyturn:in": set(),
    "XRANGE keyturn:out - +": {_CONSUMER},
    "XREADGROUP GROUP g c STREAMS keyturn:out >": {_CONSUMER},
    "XDEL keyturn:out 1-1": set(),
    "XTRIM keyturn:out MAXLEN 0": set(),
    "DEL keyturn:out": set(),
    "LPUSH keyturn a": {_WORKER, _INTAKE, _OPS},
    "BRPOP keyturn 1": {_WORKER},
    "LRANGE keyturn 0 -1": set(),
    "DEL keyturn": set(),
    "HGET unacked a": {_WORKER},
    "SADD _kombu.binding.keyturn a": {_WORKER, _INTAKE, _OPS},
    "SADD _kombu.binding.another a": set(),
    "GET of-the-product": set(),
    "SET of-the-product a": set(),
    "EVAL return 0": set(),
    "PUBLISH another a": set(),
    "SUBSCRIBE another": set(),
    "TIME": {_WORKER},
    "PING": set(USERS),
}
"""Who may do what, of all that matters."""


def test_a_user_of_valkey_may_do_its_own_work_only(port: int) -> None:
    with redis.Redis.from_url(login(ADMIN, port)) as admin:
        found = {
            command: {user for user in USERS if may(admin, user, *command.split())}
            for command in MATRIX
        }
        assert found == MATRIX


HARMLESS: Final = {(_WORKER, b"info")}
"""INFO shows what a worker checks of the server; of CONFIG it shows no password."""


def test_no_dangerous_command_is_open_to_anybody(port: int) -> None:
    """All that Valkey itself calls dangerous or an administrator's."""
    with redis.Redis.from_url(login(ADMIN, port)) as admin:
        for category in ("dangerous", "admin"):
            names: Any = admin.execute_command("COMMAND LIST", "FILTERBY", "ACLCAT", category)
            assert len(names) > 20
            for name in names:
                words = name.decode().split("|")
                # As one word, which redis-py does not take for a command whose answer it knows.
                [described] = admin.execute_command("COMMAND INFO", name)
                needs = max(abs(described[1]) - len(words), 0)
                for user in USERS:
                    allowed = may(admin, user, *words, *["0"] * needs)
                    assert allowed == ((user, name) in HARMLESS), f"{user}: {name}"


@pytest.mark.parametrize("user", USERS)
def test_the_server_really_refuses(port: int, user: str) -> None:
    with redis.Redis.from_url(login(user, port)) as client:
        client.ping()
        for command in (
            *("FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0", "CONFIG GET *", "CONFIG SET dir /tmp"),
            *("ACL LIST", "ACL SETUSER x on nopass ~* +@all", "CLIENT KILL TYPE normal", "MONITOR"),
            *("SHUTDOWN", "SAVE", "REPLICAOF 127.0.0.1 1", "MODULE LIST", "SLOWLOG GET"),
        ):
            with pytest.raises(NoPermissionError):
                client.execute_command(*command.split())


def test_a_producer_of_one_stream_can_be_kept_to_it(port: int) -> None:
    """As docs/security.md says, for a producer whose source is not trusted with everything."""
    with redis.Redis.from_url(login(ADMIN, port)) as admin:
        commands = ("-@all", "+hello", "+auth", "+ping", "+xadd")
        admin.execute_command(
            *("ACL", "SETUSER", "okta", "on", ">of-okta", "resetchannels", *commands),
            "%W~keyturn:in:okta",
        )
    with redis.Redis.from_url(f"redis://okta:of-okta@127.0.0.1:{port}/0") as okta:
        okta.xadd("keyturn:in:okta", {"body": "{}"})
        with pytest.raises(NoPermissionError):
            okta.xadd("keyturn:in", {"type": "account.disabled", "account": ADA})
    with redis.Redis.from_url(login(ADMIN, port)) as admin:
        admin.delete("keyturn:in:okta")


# RabbitMQ


@pytest.fixture(scope="module")
def rabbit(rabbitmq_url: str, servers_home: Home) -> Callable[[str], str]:
    """The address of this run's RabbitMQ for a user of the project's definitions."""
    at = urlsplit(rabbitmq_url)

    def of(user: str) -> str:
        return f"amqp://{user}:{PASSWORD}@{at.hostname}:{at.port}/keyturn"

    import_definitions(servers_home, definitions(passwords=False))
    for user in USERS:
        for url in (of(user), of(user).replace(PASSWORD, "")):
            with Connection(url) as connection, pytest.raises(AccessRefused):
                connection.ensure_connection(max_retries=1)
    import_definitions(servers_home, definitions(passwords=True))
    return of


def test_every_process_does_its_work_on_rabbitmq(
    rabbit: Callable[[str], str], port: int, divided: Postgres
) -> None:
    with (
        Installation(divided, rabbit, None) as installation,
        Celery("hr", broker=rabbit(_PRODUCER), set_as_current=False) as producer,
        Connection(rabbit(_CONSUMER)) as connection,
    ):
        installation.keyturn("run", "upkeep.ring_due")
        heard: list[str] = []
        queue: Any = None

        def consume() -> bool:
            nonlocal queue
            exchange = Exchange("keyturn.out", "topic", durable=True, no_declare=True)
            queue = Queue("keyturn.out.gateway", exchange, routing_key="key.*")(
                connection.channel()
            )
            queue.declare()
            return True

        def told() -> list[str]:
            heard.extend(message.properties["type"] for message in iter(queue.get, None))
            return heard

        def produce(event: dict[str, str]) -> object:
            # Celery would declare its default queue, which this user may not.
            return producer.send_task(
                TASK_EVENT, args=[event], exchange=QUEUE, routing_key=QUEUE, declare=[]
            )

        eventually(consume, within=SOON)
        cut_and_restored(installation, produce, told)


def test_a_provider_on_rabbitmq_reaches_its_source(
    rabbit: Callable[[str], str], divided: Postgres, tmp_path: Path
) -> None:
    """Keycloak's plugin publishes to `amq.topic`; nobody but intake makes or binds anything."""
    config = tmp_path / "keyturn.toml"
    config.write_text(
        '[sources.keycloak]\nprovider = "keycloak"\nexchange = "amq.topic"\n'
        'routing_keys = ["KK.EVENT.ADMIN.*.SUCCESS.USER.*"]\n'
    )
    message = ROOT / "tests" / "fixtures" / "events" / "keycloak-user-delete.json"
    with Installation(divided, rabbit, None, KEYTURN_CONFIG=str(config)) as installation:

        def published() -> bool:
            installation.keyturn("events", "publish", str(message), "--source", "keycloak")
            return True  # and not the exit code 3, as long as nothing is bound

        eventually(published, within=SOON, every=1)
        eventually(
            lambda: [one for one in installation.operator.events() if one.source == "keycloak"],
            within=SOON,
        )


def refused(url: str, act: Callable[[Any], object]) -> bool:
    with Connection(url) as connection:
        try:
            act(connection.channel())
        except AccessRefused:
            return True
        except connection.channel_errors:
            return False
        return False


def _publish(exchange: str, key: str = QUEUE) -> Callable[[Any], object]:
    def act(channel: Any) -> object:
        channel.confirm_select()
        return channel.basic_publish_confirm(channel.prepare_message(b"{}"), exchange, key)

    return act


def _declare(queue: str) -> Callable[[Any], object]:
    return lambda channel: channel.queue_declare(queue, durable=True)


ON_RABBITMQ: Final[dict[str, tuple[Callable[[Any], object], set[str]]]] = {
    "publish to the queue's exchange": (_publish(QUEUE), {_WORKER, _INTAKE, _OPS, _PRODUCER}),
    "publish to any queue": (_publish("", QUEUE), {_WORKER, _INTAKE, _OPS}),
    "publish events out": (_publish("keyturn.out", "key.disabled"), {_WORKER}),
    "read the queue": (lambda channel: channel.basic_get(QUEUE), {_WORKER, _INTAKE, _OPS}),
    "read what was set aside": (lambda channel: channel.basic_get(DEAD), {_WORKER}),
    "empty the queue": (lambda channel: channel.queue_purge(QUEUE), {_WORKER, _INTAKE, _OPS}),
    "make another queue": (_declare("mine"), set()),
    "make a queue of its own": (_declare("keyturn.out.mine"), {_CONSUMER}),
    "bind to events out": (
        lambda channel: channel.queue_bind("keyturn.out.gateway", "keyturn.out", "key.*"),
        {_CONSUMER},
    ),
    "bind to events in": (
        lambda channel: channel.queue_bind("keyturn.out.gateway", QUEUE, "#"),
        set(),
    ),
    "publish as a provider": (_publish("amq.topic", "KK.EVENT"), {_OPS}),
    "make a queue of a source": (_declare("keyturn.in.okta"), {_INTAKE}),
    "bind it to a provider's exchange": (
        lambda channel: channel.queue_bind("keyturn.in.okta", "amq.topic", "KK.#"),
        {_INTAKE},
    ),
    "read a source's queue": (lambda channel: channel.basic_get("keyturn.in.okta"), {_INTAKE}),
    "read what intake set aside": (lambda channel: channel.basic_get(DEAD_IN), {_INTAKE}),
    "bind a source's queue to events out": (
        lambda channel: channel.queue_bind("keyturn.in.okta", "keyturn.out", "#"),
        set(),
    ),
    "delete the exchange out": (lambda channel: channel.exchange_delete("keyturn.out"), {_WORKER}),
}


def test_a_user_of_rabbitmq_may_do_its_own_work_only(
    rabbit: Callable[[str], str], rabbitmq_url: str
) -> None:
    at = urlsplit(rabbitmq_url)
    with Connection(f"{at.scheme}://{at.netloc}/keyturn") as guest, pytest.raises(NotAllowed):
        guest.ensure_connection(max_retries=1)
    assert {
        what: {user for user in USERS if not refused(rabbit(user), act)}
        for what, (act, _) in ON_RABBITMQ.items()
    } == {what: users for what, (_, users) in ON_RABBITMQ.items()}
