"""`keyturn events publish`: what arrives is what the file holds, on a stream and on an exchange."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from kombu import Connection

from models.base import Database
from tests.eventually import eventually
from tests.worker.cli.conftest import ADA, Cli
from tests.worker.intake.exchanges import Exchange, plain, running
from tests.worker.intake.streams import stored
from worker.intake.accept import Producer, read_entry

REQUEST = b"POST /hook HTTP/1.1\nX-Signature: abc\nContent-Type: application/json\n\n" + plain(ADA)


@pytest.fixture
def hr(rabbitmq_url: str) -> Iterator[Exchange]:
    made = Exchange(rabbitmq_url)
    yield made
    made.delete()


def write(tmp_path: Path, sources: str) -> None:
    (tmp_path / "keyturn.toml").write_text(sources)
    (tmp_path / "hook.http").write_bytes(REQUEST)
    (tmp_path / "event.json").write_bytes(plain(ADA))


def test_to_a_stream(cli: Cli, broker_url: str, tmp_path: Path) -> None:
    write(tmp_path, '[sources.hr]\nprovider = "native"\nstream = "hr"\n')
    bare = cli.json("events", "publish", "event.json", "--source", "hr")
    assert bare["stream"] == "hr"
    cli.ok("events", "publish", "hook.http", "--source", "hr", "--header", "X-More=1")
    cli.ok("events", "publish", "-", "--source", "hr", stdin=b"\xff no event")
    with redis.Redis.from_url(broker_url) as server:
        entries: list[tuple[bytes, dict[bytes, bytes]]] = server.xrange("hr")
    assert entries[0] == (bare["entry"].encode(), {b"body": plain(ADA)})
    assert entries[2][1] == {b"body": b"\xff no event"}
    producer = Producer("hr", "native")
    [hook] = read_entry(producer, "1-0", entries[1][1])
    assert hook.headers == {
        ":method": "POST",
        ":path": "/hook",
        "x-signature": "abc",
        "content-type": "application/json",
        "x-more": "1",
    }
    assert hook.body == plain(ADA)


def test_to_an_exchange(
    cli: Cli, hr: Exchange, tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYTURN_AMQP_URL", hr.url)
    write(
        tmp_path,
        f'[sources.{hr.source}]\nprovider = "native"\nexchange = "{hr.name}"\n'
        'routing_keys = ["accounts.*.#"]\n',
    )
    assert cli.refusal("events", "publish", "event.json", "--source", hr.source) == "not_routed"
    hr.bind()
    sent = cli.json("events", "publish", "event.json", "--source", hr.source)
    assert sent["exchange"] == hr.name
    assert sent["routing_key"].startswith("accounts.")
    named = ("--routing-key", "accounts.b.c.d")
    cli.ok("events", "publish", "hook.http", "--source", hr.source, *named)
    with Connection(hr.url) as connection:
        channel = connection.default_channel
        first, second = channel.basic_get(hr.queue), channel.basic_get(hr.queue)
        assert (first.body, first.message_id) == (plain(ADA), sent["message_id"])
        assert second.headers[":path"] == "/hook"
        assert second.delivery_info["routing_key"] == "accounts.b.c.d"
    database = Database(database_url)
    with running(hr.url, database, hr.read()):
        eventually(lambda: len(stored(database)) == 2)
    database.close()


def test_what_cannot_be_published(
    cli: Cli, hr: Exchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        tmp_path,
        '[sources.hr]\nprovider = "native"\nstream = "hr"\n'
        '[sources.idp]\nprovider = "native"\nexchange = "nowhere"\nrouting_keys = ["#"]\n',
    )
    publish = ("events", "publish", "event.json", "--source")
    assert cli.refusal(*publish, "nobody") == "source_unknown"
    assert cli(*publish, "hr", "--routing-key", "a").exit_code == 2
    assert cli(*publish, "hr", "--header", "no-sign").exit_code == 2
    assert cli("events", "publish", "nosuch.json", "--source", "hr").exit_code == 2
    large = b" " * 3_000_000
    assert cli.refusal("events", "publish", "-", "--source", "hr", stdin=large) == "too_large"
    told = cli(*publish, "idp")
    assert told.exit_code == 1
    assert "KEYTURN_AMQP_URL" in told.output
    monkeypatch.setenv("KEYTURN_AMQP_URL", hr.url)
    assert cli.refusal(*publish, "idp") == "exchange_missing"
