"""A broker behind TLS is believed only with a certificate for its own name."""

import socket
import ssl
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from kombu.exceptions import OperationalError

from models.messages import Outgoing
from worker.app import make_app
from worker.channels import Exchange
from worker.schedule import TICK
from worker.settings import load_settings


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
