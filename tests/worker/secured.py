"""Servers as docs/security.md has them: with TLS, users, and permissions."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import worker.permissions
from tests.eventually import eventually
from tests.servers import free_port
from worker.embedded.binaries import find_valkey
from worker.embedded.home import Home
from worker.embedded.process import PidFile, spawn
from worker.embedded.valkey import HOST, STOP

PERMISSIONS: Final = Path(worker.permissions.__path__[0])
PASSWORD: Final = "a-password-of-a-test"
_PEM: Final = Encoding.PEM


@dataclass(frozen=True)
class Certificate:
    """Files in PEM, which the servers' account can read."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority with its certificate in the file `path`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = f"the test's own CA in {directory.name}"[:64]
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.path = directory / "ca.pem"
        made = self._sign(self._name, self._key.public_key(), None)
        self.path.write_bytes(made.public_bytes(_PEM))
        self.path.chmod(0o644)

    def issue(self, home: Home, host: str, name: str = "server") -> Certificate:
        """A certificate for the address `host`, for a server that runs as the home's account."""
        directory = home.server_directory(home.path / f"tls-{name}")
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
        made = Certificate(directory / "server.pem", directory / "server.key")
        certificate = self._sign(subject, key.public_key(), host)
        made.certificate.write_bytes(certificate.public_bytes(_PEM))
        private = key.private_bytes(_PEM, PrivateFormat.PKCS8, NoEncryption())
        made.key.write_bytes(private)
        for file in (made.certificate, made.key):
            file.chmod(0o600)
            if home.account:
                os.chown(file, home.account.uid, home.account.gid)
        return made

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, host: str | None
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder(self._name, subject, key, x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(host is None, None), critical=True)
        )
        if host is not None:
            names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())


@contextmanager
def own_valkey(home: Home, *options: str) -> Iterator[int]:
    """A Valkey of its own with these options; yields its port."""
    port = free_port()
    directory = home.server_directory(home.path / f"valkey-{port}")
    running = spawn(
        [str(find_valkey(home)), "--port", f"{port}", "--bind", HOST, "--save", "",
         "--appendonly", "yes", *options],
        pid_file=PidFile(home.own_directory("pids") / f"valkey-{port}.json"),
        log=home.own_directory("log") / f"valkey-{port}.log",
        account=home.account,
        cwd=directory,
    )  # fmt: skip
    try:
        eventually(lambda: _ready(running.last_words(40)))
        assert running.alive(), running.last_words()
        yield port
    finally:
        running.stop(STOP)


@contextmanager
def in_front_of(port: int, certificate: Certificate) -> Iterator[int]:
    """TLS before a server that has none, as a load balancer does it; yields its port.

    The Valkey of the wheel is built without TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    with ExitStack() as ending, socket.create_server((HOST, 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    ending.callback(client.close)
                    with suppress(OSError):
                        plain = ending.enter_context(socket.create_connection((HOST, port)))
                        inside = context.wrap_socket(client, server_side=True)
                        ending.callback(inside.close)
                        for pair in ((inside, plain), (plain, inside)):
                            threading.Thread(target=_pass_on, args=pair, daemon=True).start()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for one in (source, target):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def _ready(words: str) -> bool:
    assert "Abort" not in words, words
    assert "FATAL" not in words, words
    return "Ready to accept connections" in words


def acl_file(home: Home, *, passwords: bool = True) -> Path:
    """The project's ACL file; with `passwords` every user has PASSWORD."""
    target = home.server_directory(home.path / "acl") / "valkey.acl"
    shutil.copy(PERMISSIONS / "valkey.acl", target)
    lines = target.read_text().splitlines()
    digest = sha256(PASSWORD.encode()).hexdigest()
    if passwords:
        target.write_text("".join(f"{_switched_on(line, digest)}\n" for line in lines))
    if home.account:
        os.chown(target, home.account.uid, home.account.gid)
    return target


def _switched_on(line: str, digest: str) -> str:
    return line if line == "user default off" else line.replace(" off ", f" on #{digest} ", 1)


def login(user: str, port: int, scheme: str = "redis") -> str:
    return f"{scheme}://{user}:{PASSWORD}@{HOST}:{port}/0"


def refusals(url: str) -> Sequence[str]:
    """What the server has refused, by its own log: user, command and key."""
    with redis.Redis.from_url(url) as client:
        return [f"{one['username']}: {one['reason']} {one['object']}" for one in client.acl_log()]


USERS: Final = tuple(
    line.split()[1]
    for line in (PERMISSIONS / "valkey.acl").read_text().splitlines()
    if line.startswith("user keyturn-") and "admin" not in line
)
"""The users of both brokers."""


def definitions(passwords: bool) -> str:
    """The project's definitions of RabbitMQ; with `passwords` every user has PASSWORD."""
    found = json.loads((PERMISSIONS / "rabbitmq.json").read_text())
    for user in found["users"] if passwords else ():
        salt = b"salt"
        digest = sha256(salt + PASSWORD.encode()).digest()
        user["password_hash"] = b64encode(salt + digest).decode()
    return json.dumps(found)


def import_definitions(home: Home, text: str) -> None:
    """`rabbitmqctl import_definitions`, against the home's own RabbitMQ."""
    server = PidFile(home.path / "pids" / "rabbitmq.json").read()
    assert server is not None
    environ = Path(f"/proc/{server.pid}/environ").read_bytes().rstrip(b"\0").split(b"\0")
    file = home.path / "definitions.json"
    file.write_text(text)
    done = subprocess.run(
        ["/usr/lib/rabbitmq/bin/rabbitmqctl", "--quiet", "import_definitions", str(file)],
        env=dict(one.decode().split("=", 1) for one in environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
