"""A broker that throws away, or forgets, is not worked with: real servers, set up wrongly."""

from collections.abc import Iterator

import pytest
import redis
from structlog.testing import capture_logs

from models.errors import Misconfigured
from tests.servers import free_port
from tests.worker.secured import own_valkey
from worker import checks
from worker.embedded.home import Home
from worker.settings import Settings

USER, PASSWORD = "asker", "a-password-of-a-test"


@pytest.fixture(scope="module")
def ports(servers_home: Home) -> Iterator[tuple[int, int]]:
    """Two servers: one for the rings, one for the streams."""
    with own_valkey(servers_home) as rings, own_valkey(servers_home) as streams:
        yield rings, streams


@pytest.fixture
def rings(ports: tuple[int, int]) -> Iterator[redis.Redis]:
    yield from as_it_should_be(ports[0])


@pytest.fixture
def streams(ports: tuple[int, int]) -> Iterator[redis.Redis]:
    yield from as_it_should_be(ports[1])


def as_it_should_be(port: int) -> Iterator[redis.Redis]:
    with redis.Redis(port=port) as server:
        server.config_set("appendonly", "yes")
        server.config_set("maxmemory-policy", "noeviction")
        yield server


def settings(rings: int, streams: int | None = None, *, allowed: bool = False) -> Settings:
    return Settings(
        broker_url=f"redis://127.0.0.1:{rings}/0",
        stream_url=streams and f"redis://127.0.0.1:{streams}/0",
        allow_broker_without_aof=allowed,
    )


def warnings(given: Settings) -> list[str]:
    with capture_logs() as logs:
        checks.broker(given)
    return [line["event"] for line in logs]


def test_servers_as_they_should_be(
    ports: tuple[int, int], rings: redis.Redis, streams: redis.Redis
) -> None:
    assert warnings(settings(*ports)) == []
    assert warnings(settings(ports[0])) == []


@pytest.mark.parametrize(
    ("name", "value"), [("maxmemory-policy", "allkeys-lru"), ("appendonly", "no")]
)
def test_the_server_of_the_streams_is_looked_at_whichever_it_is(
    ports: tuple[int, int], rings: redis.Redis, streams: redis.Redis, name: str, value: str
) -> None:
    streams.config_set(name, value)
    mend = f"Set `{name} {'yes' if value == 'no' else 'noeviction'}` there"
    for given in (settings(*ports), settings(ports[1])):
        with pytest.raises(Misconfigured, match=mend):
            checks.broker(given)


def test_a_server_without_its_file_is_taken_where_that_is_allowed(
    ports: tuple[int, int], streams: redis.Redis
) -> None:
    streams.config_set("appendonly", "no")
    assert warnings(settings(ports[1], allowed=True)) == []
    streams.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(Misconfigured, match="maxmemory-policy"):
        checks.broker(settings(ports[1], allowed=True))


def test_a_server_of_rings_alone_may_forget_them(
    ports: tuple[int, int], rings: redis.Redis, streams: redis.Redis
) -> None:
    """The schedule rings again; but it may not throw away what lies in its queue unseen."""
    rings.config_set("appendonly", "no")
    assert warnings(settings(*ports)) == []
    rings.config_set("maxmemory-policy", "volatile-ttl")
    with pytest.raises(Misconfigured, match="maxmemory-policy"):
        checks.broker(settings(*ports))


def test_rabbitmq_is_not_asked_but_the_streams_beside_it_are(
    ports: tuple[int, int], streams: redis.Redis
) -> None:
    url, stream = "amqp://guest:guest@127.0.0.1:1//", f"redis://127.0.0.1:{ports[1]}/0"
    assert warnings(Settings(broker_url=url)) == []
    assert warnings(Settings(broker_url=url, stream_url=stream)) == []
    streams.config_set("appendonly", "no")
    with pytest.raises(Misconfigured, match="appendonly yes"):
        checks.broker(Settings(broker_url=url, stream_url=stream))


def test_a_server_that_does_not_say_is_worked_with_and_warned_of(
    ports: tuple[int, int], streams: redis.Redis
) -> None:
    """As with services that let nobody ask; whoever may is answered by the others' tests."""
    streams.config_set("appendonly", "no")
    streams.acl_setuser(
        USER, enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"], commands=["+@all", "-info"]
    )
    asked = Settings(broker_url=f"redis://{USER}:{PASSWORD}@127.0.0.1:{ports[1]}/0")
    assert warnings(asked) == ["broker_settings_unknown"]


def test_a_server_that_is_not_up_yet_is_waited_for_by_others() -> None:
    assert warnings(settings(free_port())) == []
