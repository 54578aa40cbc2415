"""Mails by SMTP (RFC 5321): one connection for a batch, one recipient for a message."""

import smtplib
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Final, Literal, Self
from urllib.parse import unquote, urlsplit

from models.messages import Delivery, Outgoing

from .messages import Unsendable, mail, one_line

TIMEOUT: Final = 10.0  # seconds for connecting, and for each answer
BATCH_TIME: Final = 60.0  # seconds after which a batch starts no further message; half a lease
MOST_BREAKS: Final = 2  # lost connections in a row after which a batch tries no more

# Refusals of who we are (RFC 4954 and STARTTLS of RFC 3207): mended by an operator, and no fault
# of the message, though the codes say that they are final.
_ACCESS_CODES: Final = (530, 534, 535, 538)


@dataclass(frozen=True)
class SmtpServer:
    """Where mails go, and how the connection is encrypted."""

    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    """TLS from the first byte (RFC 8314)."""
    starttls: bool = False

    @classmethod
    def from_url(cls, url: str, *, starttls: bool = False) -> Self:
        """The server of `smtp://` (port 25, or 587 with a login) or `smtps://` (port 465)."""
        parts = urlsplit(url)
        tls = parts.scheme == "smtps"
        return cls(
            host=parts.hostname or "localhost",
            port=parts.port or (465 if tls else 587 if parts.username else 25),
            user=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password or "") if parts.username else None,
            tls=tls,
            starttls=starttls and not tls,
        )


class Smtp:
    """Sends by one server.

    A message is `sent` once the server took it (250 in answer to its data), `failed` where the
    server refused it for good (5xx), and else due again. Where the answer got lost nobody knows:
    it is sent again, under the same Message-ID.
    """

    def __init__(
        self,
        server: SmtpServer,
        sender: str,
        *,
        timeout: float = TIMEOUT,
        batch_time: float = BATCH_TIME,
    ) -> None:
        self._server = server
        self._sender = sender
        self._timeout = timeout
        self._batch_time = batch_time

    def send(self, messages: Sequence[Outgoing]) -> Sequence[Delivery]:
        batch = _Batch(self._server, self._timeout, time.monotonic() + self._batch_time)
        try:
            return [self._send_one(message, batch) for message in messages]
        finally:
            batch.close()

    def _send_one(self, message: Outgoing, batch: "_Batch") -> Delivery:
        try:
            batch.send(mail(message, self._sender))
        except Unsendable as error:
            return Delivery(id=message.id, state="failed", error=str(error))
        except _NotSent as error:
            state: Literal["failed", "retry"] = "failed" if error.final else "retry"
            return Delivery(id=message.id, state=state, error=str(error))
        return Delivery(id=message.id, state="sent")


class _NotSent(Exception):
    """Why one message did not go; `final` where another attempt would end the same."""

    def __init__(self, why: str, *, final: bool = False) -> None:
        super().__init__(why)
        self.final = final


class _Batch:
    """One connection, made when it is first needed, and anew after it broke."""

    def __init__(self, server: SmtpServer, timeout: float, until: float) -> None:
        self._server = server
        self._timeout = timeout
        self._until = until
        self._breaks = 0
        self._smtp: smtplib.SMTP | None = None

    def send(self, made: EmailMessage) -> None:
        """Hand over one mail. Returning means that the server took it; raises _NotSent."""
        if self._breaks >= MOST_BREAKS:
            raise _NotSent("not tried, since the mail server failed before; it is tried again")
        if time.monotonic() > self._until:
            raise _NotSent("not tried, since the mail server is slow; it is tried again")
        try:
            self._smtp = self._smtp or _connect(self._server, self._timeout)
            _transfer(self._smtp, made)
        except smtplib.SMTPResponseException as error:
            self._after_refusal(error.smtp_code)
            raise _refused(error) from None
        except (smtplib.SMTPException, OSError) as error:
            self._after_break()
            why = one_line(error) or type(error).__name__
            raise _NotSent(f"the connection to the mail server failed: {why}") from None
        except _NotSent:
            self._after_break()
            raise
        self._breaks = 0

    def close(self) -> None:
        if self._smtp is not None:
            with suppress(smtplib.SMTPException, OSError):
                self._smtp.quit()
            self._smtp.close()
            self._smtp = None

    def _after_refusal(self, code: int) -> None:
        """Make the connection ready for the next mail; a server that says 421 hangs up."""
        try:
            if code != 421 and self._smtp is not None and self._smtp.rset()[0] == 250:
                self._breaks = 0
                return
        except (smtplib.SMTPException, OSError):
            pass
        self._after_break()

    def _after_break(self) -> None:
        self._breaks += 1
        if self._smtp is not None:
            self._smtp.close()  # no farewell: it would wait for an answer
            self._smtp = None


def _connect(server: SmtpServer, timeout: float) -> smtplib.SMTP:
    """A connection that is encrypted and logged in as the server's settings say.

    Raises _NotSent for what an operator must mend; it is never a message's fault.
    """
    name = socket.gethostname()
    # What smtplib would find by itself takes a look-up of names, which may hang.
    name = name if "." in name else "[127.0.0.1]"
    context = ssl.create_default_context()
    try:
        if server.tls:
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(
                server.host, server.port, name, timeout=timeout, context=context
            )
        else:
            smtp = smtplib.SMTP(server.host, server.port, name, timeout=timeout)
    except smtplib.SMTPResponseException as error:
        raise _NotSent(f"the mail server does not serve us: {_answer(error)}") from None
    try:
        if server.starttls:
            smtp.starttls(context=context)
        if server.user is not None:
            _log_in(smtp, server.user, server.password or "")
    except _NotSent:
        smtp.close()
        raise
    except smtplib.SMTPNotSupportedError as error:
        smtp.close()
        raise _NotSent(f"{one_line(error)}: correct the settings smtp_url, smtp_starttls") from None
    except smtplib.SMTPResponseException as error:
        smtp.close()
        raise _NotSent(
            f"the mail server refused its encryption ({_answer(error)}): correct the settings "
            "smtp_url, smtp_starttls"
        ) from None
    except (smtplib.SMTPException, OSError):
        smtp.close()
        raise
    return smtp


def _log_in(smtp: smtplib.SMTP, user: str, password: str) -> None:
    """Of a refusal only the code is told: some servers repeat what they were sent."""
    try:
        smtp.login(user, password)
    except smtplib.SMTPResponseException as error:
        raise _NotSent(
            f"the mail server refused the login ({error.smtp_code}): correct the settings "
            "smtp_url, smtp_starttls"
        ) from None


def _transfer(smtp: smtplib.SMTP, made: EmailMessage) -> None:
    """The three steps of one mail. Raises SMTPResponseException where one is refused."""
    recipient = made["To"].addresses[0].addr_spec
    smtp.ehlo_or_helo_if_needed()
    if not recipient.isascii() and not smtp.has_extn("smtputf8"):
        raise smtplib.SMTPResponseException(
            553, "the mail server takes no address beyond ASCII (it lacks SMTPUTF8)"
        )
    options = [] if recipient.isascii() else ["SMTPUTF8", "BODY=8BITMIME"]
    _accepted(smtp.mail(made["From"].addresses[0].addr_spec, options))
    _accepted(smtp.rcpt(recipient))
    _accepted(smtp.data(made.as_bytes()))


def _accepted(answer: tuple[int, bytes]) -> None:
    code, reply = answer
    if code not in (250, 251):
        raise smtplib.SMTPResponseException(code, reply)


def _refused(error: smtplib.SMTPResponseException) -> _NotSent:
    final = error.smtp_code >= 500 and error.smtp_code not in _ACCESS_CODES
    return _NotSent(f"the mail server refused the message: {_answer(error)}", final=final)


def _answer(error: smtplib.SMTPResponseException) -> str:
    reply = error.smtp_error
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply
    return one_line(f"{error.smtp_code} {text}")
