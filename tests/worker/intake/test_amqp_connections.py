"""Connections to RabbitMQ that lie: half open ones, and servers that are not who they say."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from models.base import Database
from tests.chaos.proxy import Mood, Proxy
from tests.eventually import eventually
from tests.servers import temporary_home
from tests.worker.intake.exchanges import Exchange, running
from tests.worker.intake.streams import stored
from tests.worker.secured import Authority, in_front_of
from worker.embedded.valkey import HOST
from worker.intake import amqp_frames
from worker.intake.amqp_frames import connect

SOON = 60.0
HEARTBEAT = 4
"""Seconds; a round of the intake may wait for one of them before it sends its own."""


@contextmanager
def tls(plain: str, monkeypatch: pytest.MonkeyPatch, named: str = HOST) -> Iterator[str]:
    """The server behind TLS, by a certificate for the address `named` that is trusted here."""
    with temporary_home() as home:
        authority = Authority(home.path)
        certificate = authority.issue(home, named)
        with in_front_of(urlsplit(plain).port or 0, certificate) as port:
            monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
            yield at(plain, port, "amqps")


def at(url: str, port: int, scheme: str = "") -> str:
    """The same user and virtual host, by another port."""
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    return parts._replace(scheme=scheme or parts.scheme, netloc=f"{user}@{HOST}:{port}").geturl()


def test_events_are_read_over_tls(
    hr: Exchange, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    hr.bind()
    with tls(hr.url, monkeypatch) as url:
        with running(url, database, hr.read()):
            hr.disable(1)
            eventually(lambda: stored(database) == ["1"], within=SOON)
            hr.disable(*range(2, 300))
            eventually(lambda: len(stored(database)) == 299, within=SOON)
        # What stands in front passes on what the intake said last; it may not go before that.
        eventually(lambda: hr.consumers() == 0, within=SOON)
    assert hr.ready() == 0


@pytest.mark.parametrize("wrong", ["its authority", "its address"])
def test_a_server_that_does_not_prove_itself_is_told_no_password(
    hr: Exchange, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    with tls(hr.url, monkeypatch, HOST if wrong == "its authority" else "127.0.0.2") as url:
        if wrong == "its authority":
            monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(url)


@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
def test_a_connection_whose_other_end_is_gone_without_a_word_is_given_up(
    hr: Exchange, database: Database, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """No end of it is ever told. What was delivered into it comes again by the next one."""
    monkeypatch.setattr(amqp_frames, "HEARTBEAT", HEARTBEAT)
    hr.bind()
    with tls(hr.url, monkeypatch) as secured:
        server = urlsplit(secured if scheme == "amqps" else hr.url)
        proxy = Proxy((server.hostname or "", server.port or 0))
        with proxy.running(), running(at(server.geturl(), proxy.port), database, hr.read()):
            hr.disable(1)
            eventually(lambda: stored(database) == ["1"], within=SOON)
            proxy.set(Mood.BLACK_HOLE)  # this connection stays deaf for ever
            hr.disable(2)
            proxy.set(Mood.PASS)
            eventually(lambda: stored(database) == ["1", "2"], within=SOON)
    assert hr.ready() == 0
