"""A server behind TLS is believed only with a certificate for its own name."""

import socket
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlencode, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from kombu.exceptions import OperationalError

from models.base import Database
from models.errors import Misconfigured
from models.messages import Outgoing
from tests.eventually import eventually
from tests.servers import FAST, free_port, need, rabbitmq, temporary_home
from tests.worker.secured import Authority, Certificate, in_front_of, own_valkey
from worker.app import make_app
from worker.channels import Exchange, Stream
from worker.embedded.binaries import PostgresBinaries
from worker.embedded.home import Home
from worker.embedded.postgres import Postgres
from worker.embedded.valkey import HOST
from worker.schedule import TICK
from worker.settings import load_settings
from worker.streams import connect


@pytest.mark.parametrize(
    ("scheme", "way"), [("rediss", "ring"), ("amqps", "ring"), ("amqps", "exchange")]
)
@pytest.mark.parametrize(
    ("named", "trusted", "refused"),
    [("127.0.0.1", False, True), ("127.0.0.1", True, False), ("127.0.0.2", True, True)],
    ids=["self-signed", "trusted", "of another host"],
)
def test_the_brokers_certificate_is_checked(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    scheme: str,
    way: str,
    named: str,
    trusted: bool,
    refused: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    certificate = tmp_path / "pem"
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with stranger(certificate, named) as port:
        url = f"{scheme}://127.0.0.1:{port}/0"
        monkeypatch.setenv("KEYTURN_BROKER_URL", url)
        said = by_exchange(url) if way == "exchange" else by_ring()
    # The stranger speaks neither protocol, so that it disappoints those who believe it, too.
    assert ("certificate verify failed" in said) is refused


def by_exchange(url: str) -> str:
    [delivery] = Exchange(url, timeout=2).send([told()])
    return f"{delivery.error}"


def by_ring() -> str:
    with pytest.raises(OperationalError) as caught:
        make_app(load_settings()).send_task(TICK, retry=False)
    return str(caught.value)


def told() -> Outgoing:
    return Outgoing(
        id=uuid.UUID(int=1),
        kind="key.disabled",
        account_id=None,
        payload={},
        recipient=None,
        created_at=datetime(2026, 11, 23, tzinfo=UTC),
    )


@contextmanager
def stranger(file: Path, named: str) -> Iterator[int]:
    """The port of a TLS server that hangs up after the handshake.

    It has signed its certificate, which is then in `file`, itself, for the address `named`.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address(named))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = Encoding.PEM
    file.write_bytes(
        key.private_bytes(pem, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(pem)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_shake_hands, args=(listener, context))
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _shake_hands(listener: socket.socket, context: ssl.SSLContext) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            with client, suppress(OSError):
                context.wrap_socket(client, server_side=True).close()


# Real servers, with a certificate authority of the test's own


HOSTS: Final = {"its own": HOST, "another's": "127.0.0.2"}


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    monkeypatch.chdir(tmp_path)
    return Authority(tmp_path)


def outcome(ask: Callable[[], object]) -> str:
    """What came of it: `answered`, or why it was refused."""
    try:
        ask()
    except Exception as error:
        said = f"{error}"
        for reason in ("certificate verify failed", "does not match", "does not support SSL"):
            if reason in said:
                return "refused"
        return said
    return "answered"


def answers(url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What each of the ways in which Keyturn speaks to a broker comes to."""
    monkeypatch.setenv("KEYTURN_BROKER_URL", url)
    settings = load_settings()
    found = {"ring": outcome(lambda: make_app(settings).send_task(TICK, retry=False))}
    if settings.has_streams:
        found["stream"] = outcome(connect(settings.stream_url, 2).ping)
        found["events"] = outcome(lambda: sent(Stream(settings.stream_url, timeout=2)))
    else:
        found["events"] = outcome(lambda: sent(Exchange(url, timeout=2)))
    return found


def sent(channel: Stream | Exchange) -> None:
    [delivery] = channel.send([told()])
    if delivery.state != "sent":
        raise OperationalError(delivery.error)


@pytest.mark.parametrize("named", HOSTS)
@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "unknown CA"])
def test_valkey_behind_tls(
    monkeypatch: pytest.MonkeyPatch, authority: Authority, named: str, trusted: bool
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    with temporary_home() as home:
        certificate = authority.issue(home, HOSTS[named])
        with own_valkey(home) as plain, in_front_of(plain, certificate) as port:
            found = answers(f"rediss://{HOST}:{port}/0", monkeypatch)
    expected = "answered" if trusted and named == "its own" else "refused"
    assert found == dict.fromkeys(("ring", "stream", "events"), expected)


def test_rabbitmq_with_tls(monkeypatch: pytest.MonkeyPatch, authority: Authority) -> None:
    """One server with a listener for each certificate, as it is slow to start."""
    ports = {name: free_port() for name in HOSTS}
    with temporary_home() as home:
        lines = [f"listeners.ssl.1 = {HOST}:{ports['its own']}"]
        own = authority.issue(replace(home, account=None), HOST, "own")
        lines += [
            f"ssl_options.cacertfile = {authority.path}",
            f"ssl_options.certfile = {own.certificate}",
            f"ssl_options.keyfile = {own.key}",
            "ssl_options.verify = verify_none",
        ]
        other = authority.issue(home, HOSTS["another's"], "another")
        with (
            rabbitmq(home, "".join(f"{line}\n" for line in lines)) as plain,
            in_front_of(urlsplit(plain).port or 0, other) as another,
        ):

            def found(port: int) -> set[str]:
                url = f"amqps://guest:guest@{HOST}:{port}//"
                return set(answers(url, monkeypatch).values())

            assert found(ports["its own"]) == {"refused"}
            monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
            assert found(ports["its own"]) == {"answered"}
            assert found(another) == {"refused"}


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_plaintext_beyond_this_machine_is_refused_unless_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("BROKER_URL", *(("STREAM_URL",) if scheme == "redis" else ())):
        monkeypatch.setenv(f"KEYTURN_{name}", f"{scheme}://broker.example.com/0")
        with pytest.raises(Misconfigured, match=f"{scheme}s://"):
            load_settings()
        monkeypatch.setenv("KEYTURN_ALLOW_PLAINTEXT_BROKER", "true")
        load_settings()
        monkeypatch.delenv("KEYTURN_ALLOW_PLAINTEXT_BROKER")
        monkeypatch.delenv(f"KEYTURN_{name}")


@pytest.mark.parametrize("asked", ["", "?sslmode=prefer", "?sslmode=disable"])
def test_a_database_elsewhere_in_clear_is_refused_unless_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PGSSLMODE", raising=False)
    url = f"postgresql://keyturn:hidden@db.example.com/keyturn{asked}"
    monkeypatch.setenv("KEYTURN_DATABASE_URL", url)
    with pytest.raises(Misconfigured, match="db.example.com might be reached without TLS") as said:
        load_settings()
    assert "hidden" not in str(said.value)
    monkeypatch.setenv("KEYTURN_ALLOW_PLAINTEXT_DATABASE", "true")
    assert load_settings().database_url == url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://keyturn@db.example.com/keyturn?sslmode=require",
        "postgresql://keyturn@db.example.com/keyturn?sslmode=verify-ca",
        "postgresql://keyturn@db.example.com/keyturn?sslmode=verify-full&sslrootcert=system",
        "postgresql://keyturn@localhost/keyturn",
        "postgresql://keyturn@127.0.0.1:5433/keyturn",
        "postgresql://keyturn@[::1]:5433/keyturn",
        "postgresql://keyturn@/keyturn?host=/run/postgresql&port=5433",
        "postgresql://keyturn@/keyturn?host=localhost:5432&host=[::1]:5433",
        "postgresql:///keyturn",
    ],
)
def test_a_database_here_or_asked_for_tls_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEYTURN_DATABASE_URL", url)
    assert load_settings().database_url == url


def test_what_the_url_leaves_open_is_that_of_libpq(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEYTURN_DATABASE_URL", "postgresql:///keyturn")
    monkeypatch.setenv("PGHOST", "db.example.com")
    with pytest.raises(Misconfigured, match="db.example.com might be reached without TLS"):
        load_settings()
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    load_settings()


# PostgreSQL: what its URL asks for is libpq's to keep


class OverTls(Postgres):
    """A server on a port of loopback that takes nobody in clear."""

    def __init__(self, home: Home, binaries: Path, certificate: Certificate | None) -> None:
        super().__init__(home, pg_bin=binaries, options=FAST)
        self.port = free_port()
        self._certificate = certificate

    def _command(self, binaries: PostgresBinaries) -> list[str]:
        options = {"listen_addresses": HOST, "port": f"{self.port}"}
        if self._certificate:
            files = self._certificate
            options |= {"ssl": "on", "ssl_cert_file": f"{files.certificate}"}
            options |= {"ssl_key_file": f"{files.key}"}
        more = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [*super()._command(binaries), *more]

    def url(self, database: str = "keyturn") -> str:
        """By the socket, for whoever starts it."""
        return super().url(database).replace("&port=5432", f"&port={self.port}")

    def over_tcp(self, **options: str) -> str:
        return f"postgresql://keyturn@{HOST}:{self.port}/keyturn?{urlencode(options)}"


@pytest.fixture(scope="module")
def with_openssl() -> Path:
    """The programs of a PostgreSQL that was built with TLS; those of the wheel were not."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    need("a PostgreSQL with TLS", bool(found), "apt-get install postgresql")
    return found[-1].parent


def asked(url: str) -> Callable[[], object]:
    """All ways in which Keyturn asks a database: the pool, and verify's own connections."""

    def ask() -> None:
        database = Database(url, pool_size=1)
        try:
            with database.begin() as tx:
                assert tx.scalar(_ENCRYPTED) is True
            with database.connect_autocommit() as connection:
                assert connection.execute(_ENCRYPTED).fetchone() == (True,)
        finally:
            database.close()

    return ask


_ENCRYPTED: Final = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.mark.parametrize("named", HOSTS)
def test_postgresql_with_tls(authority: Authority, with_openssl: Path, named: str) -> None:
    verify_full = {"sslmode": "verify-full", "sslrootcert": f"{authority.path}"}
    with temporary_home() as home, temporary_home() as other_home:
        other_authority = Authority(other_home.path)
        server = OverTls(home, with_openssl, authority.issue(home, HOSTS[named]))
        server.start()
        try:
            expected = "answered" if named == "its own" else "refused"
            assert outcome(asked(server.over_tcp(**verify_full))) == expected
            unknown = verify_full | {"sslrootcert": f"{other_authority.path}"}
            assert outcome(asked(server.over_tcp(**unknown))) == "refused"
            in_clear = asked(server.over_tcp(sslmode="disable"))
            with pytest.raises(AssertionError):
                in_clear()
            only_tls = "local all all trust\nhostssl all all 127.0.0.1/32 trust\n"
            (server.data / "pg_hba.conf").write_text(only_tls)
            with server.connect() as connection:
                connection.execute("SELECT pg_reload_conf()")
            eventually(lambda: "no encryption" in outcome(in_clear), within=10)
        finally:
            server.stop()


def test_postgresql_in_clear_is_refused(authority: Authority, with_openssl: Path) -> None:
    """A server (or whoever stands before it) that says it has no TLS gets no password."""
    with temporary_home() as home:
        server = OverTls(home, with_openssl, None)
        server.start()
        try:
            for mode in ("require", "verify-full"):
                url = server.over_tcp(sslmode=mode, sslrootcert=f"{authority.path}")
                assert outcome(asked(url)) == "refused"
        finally:
            server.stop()
