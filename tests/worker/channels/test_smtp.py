"""Mails by SMTP, against a real server that answers by a script."""

import email
import email.policy
import socket
import ssl
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from models.messages import Delivery
from tests.worker.channels.mail_server import DISCONNECT, HANG, Script, mail_server
from tests.worker.channels.outgoing import SENDER, notice
from worker.channels import Smtp, SmtpServer

FIRST, SECOND, THIRD = (f"owner{number}@example.com" for number in (1, 2, 3))
BATCH = [notice(1), notice(2), notice(3)]


def channel(script: Script, *, timeout: float = 5, batch_time: float = 60) -> Smtp:
    return Smtp(at(script), SENDER, timeout=timeout, batch_time=batch_time)


def at(script: Script) -> SmtpServer:
    return SmtpServer("127.0.0.1", script.port)


def states(deliveries: list[Delivery]) -> list[str]:
    return [delivery.state for delivery in deliveries]


def test_a_batch_is_one_connection_and_one_recipient_each() -> None:
    with mail_server() as script:
        deliveries = channel(script).send(BATCH)
    assert deliveries == [Delivery(id=message.id, state="sent") for message in BATCH]
    assert script.connections == 1
    assert [taken.recipients for taken in script.taken] == [(FIRST,), (SECOND,), (THIRD,)]
    for message, taken in zip(BATCH, script.taken, strict=True):
        made = email.message_from_bytes(taken.content, policy=email.policy.default)
        assert made["To"] == message.recipient
        assert made["Message-ID"] == f"<{message.id}@example.com>"
        others = {FIRST, SECOND, THIRD} - {message.recipient}
        assert not [other for other in others if other.encode() in taken.content]


def test_nothing_to_send_opens_no_connection() -> None:
    with mail_server() as script:
        assert channel(script).send([]) == []
    assert script.connections == 0


@pytest.mark.parametrize("step", ["RCPT", "DATA"])
@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ("450 mailbox busy", "retry"),
        ("451 try later", "retry"),
        ("452 full", "retry"),
        ("421 going down", "retry"),
        ("530 authenticate first", "retry"),
        ("550 no such user", "failed"),
        ("552 too large", "failed"),
        ("554 no", "failed"),
        (DISCONNECT, "retry"),
        (HANG, "retry"),
    ],
)
def test_what_becomes_of_one_among_others(step: str, answer: str, state: str) -> None:
    with mail_server({(step, SECOND): answer}) as script:
        timeout = 1.5 if answer == HANG else 15
        deliveries = list(channel(script, timeout=timeout).send(BATCH))
    assert states(deliveries) == ["sent", state, "sent"]
    assert deliveries[1].error
    if answer[0].isdigit():
        assert answer in deliveries[1].error
    hangs_up = answer in (DISCONNECT, HANG) or answer.startswith("421")
    assert script.connections == (2 if hangs_up else 1)


def test_a_mail_whose_answer_was_lost_goes_again_under_its_id() -> None:
    with mail_server({("DATA", FIRST): DISCONNECT}) as script:
        (lost,) = channel(script).send([notice(1)])
        script.answers = {}
        (sent,) = channel(script).send([notice(1)])
    assert (lost.state, sent.state) == ("retry", "sent")
    first, second = (email.message_from_bytes(taken.content) for taken in script.taken)
    assert first["Message-ID"] == second["Message-ID"]


def test_a_server_that_hangs_costs_two_timeouts_and_no_more() -> None:
    answers = {("RCPT", f"owner{number}@example.com"): HANG for number in range(50)}
    with mail_server(answers) as script:
        begin = time.monotonic()
        deliveries = list(channel(script, timeout=0.3).send([notice(n) for n in range(50)]))
        took = time.monotonic() - begin
    assert states(deliveries) == ["retry"] * 50
    assert "not tried" in (deliveries[-1].error or "")
    assert script.connections == 2
    assert took < 10


def test_a_slow_batch_ends_in_time() -> None:
    with mail_server() as script:
        deliveries = list(channel(script, batch_time=-1).send(BATCH))
    assert states(deliveries) == ["retry"] * 3
    assert "the mail server is slow" in (deliveries[0].error or "")
    assert script.connections == 0


def test_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    deliveries = list(Smtp(SmtpServer("127.0.0.1", port), SENDER).send(BATCH))
    assert states(deliveries) == ["retry"] * 3
    assert "the connection to the mail server failed" in (deliveries[0].error or "")


@pytest.mark.parametrize("greeting", [b"554 not for you\r\n", b"421 busy\r\n", b"", b"\xff\r\n"])
def test_a_server_that_does_not_serve_us_is_no_fault_of_the_message(greeting: bytes) -> None:
    with mail_server(greeting=greeting) as script:
        deliveries = list(channel(script).send(BATCH))
    assert states(deliveries) == ["retry"] * 3


def test_a_message_that_cannot_be_made_needs_no_server() -> None:
    with mail_server() as script:
        (delivery,) = channel(script).send([notice(recipient="a@example.com\r\nDATA")])
    assert delivery.state == "failed"
    assert script.connections == 0


def test_international_recipients() -> None:
    message = notice(recipient="björn@bücher.example")
    with mail_server() as script:
        (sent,) = channel(script).send([message])
    with mail_server(utf8=False) as old:
        deliveries = list(channel(old).send([message, notice(2)]))
    assert sent.state == "sent"
    assert script.taken[0].recipients == ("björn@xn--bcher-kva.example",)
    assert states(deliveries) == ["failed", "sent"]
    assert "SMTPUTF8" in (deliveries[0].error or "")


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_login() -> None:
    with mail_server(login=("keys", "hush-hush")) as script:
        server = replace(at(script), user="keys", password="hush-hush")
        (sent,) = Smtp(server, SENDER).send([notice()])
        (refused,) = Smtp(replace(server, password="hush-wrong"), SENDER).send([notice()])
        (without,) = channel(script).send([notice()])
    assert (sent.state, refused.state, without.state) == ("sent", "retry", "retry")
    assert "correct the settings smtp_url" in (refused.error or "")
    assert "hush" not in f"{refused.error} {server!r}"
    assert len(script.taken) == 1


def test_starttls_and_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = certified(tmp_path)
    with mail_server(starttls=context) as script, mail_server(tls=context) as secure:
        starttls = Smtp(replace(at(script), starttls=True), SENDER, timeout=5)
        tls = Smtp(replace(at(secure), tls=True), SENDER, timeout=5)
        untrusted = [*starttls.send([notice()]), *tls.send([notice()])]
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        trusted = [*starttls.send([notice()]), *tls.send([notice()])]
    assert states(untrusted) == ["retry", "retry"]
    assert states(trusted) == ["sent", "sent"]
    assert len(script.taken) == len(secure.taken) == 1


def test_starttls_where_it_is_not_offered_sends_nothing() -> None:
    with mail_server() as script:
        (delivery,) = Smtp(replace(at(script), starttls=True), SENDER).send([notice()])
    assert delivery.state == "retry"
    assert "smtp_starttls" in (delivery.error or "")
    assert not script.taken


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail.example.com", SmtpServer("mail.example.com", 25)),
        ("smtp://mail.example.com:2525", SmtpServer("mail.example.com", 2525)),
        ("smtp://u%40x:p%2Fw@m.example", SmtpServer("m.example", 587, "u@x", "p/w")),
        ("smtps://u:p@m.example", SmtpServer("m.example", 465, "u", "p", tls=True)),
        ("smtp://[::1]:25", SmtpServer("::1", 25)),
    ],
)
def test_servers_by_url(url: str, server: SmtpServer) -> None:
    assert SmtpServer.from_url(url) == server
    starttls = SmtpServer.from_url(url, starttls=True)
    assert starttls.starttls is not server.tls


def certified(path: Path) -> ssl.SSLContext:
    """A server's TLS with a certificate of its own in `certificate.pem`, for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    (path / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path / "certificate.pem", path / "key.pem")
    return context
