"""A real SMTP server in a thread, which answers by a script."""

import asyncio
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

DISCONNECT = "disconnect"
HANG = "hang"


@dataclass(frozen=True)
class Taken:
    """One mail that the server said 250 to, or was about to."""

    recipients: tuple[str, ...]
    content: bytes


@dataclass
class Script:
    """What to answer, by (step, recipient); everything else is taken with 250."""

    answers: Mapping[tuple[str, str], str] = field(default_factory=dict)
    taken: list[Taken] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    async def handle_RCPT(  # noqa: N802 - names of the library
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        answer = self.answers.get(("RCPT", address))
        if answer is None:
            envelope.rcpt_tos.append(address)
        return await self._give(server, answer)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        answer = self.answers.get(("DATA", envelope.rcpt_tos[0]))
        if answer is None or answer == DISCONNECT:
            self.taken.append(Taken(tuple(envelope.rcpt_tos), envelope.content))
        return await self._give(server, answer)

    async def _give(self, server: Any, answer: str | None) -> str:
        if answer == HANG:
            await asyncio.Event().wait()
        if answer == DISCONNECT:
            server.transport.abort()
        return answer or "250 OK"


@contextmanager
def mail_server(
    answers: Mapping[tuple[str, str], str] | None = None,
    *,
    login: tuple[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    starttls: ssl.SSLContext | None = None,
    utf8: bool = True,
    greeting: bytes | None = None,
) -> Iterator[Script]:
    """A server on a free port of this machine, until the block ends.

    With a `greeting` it says only that and hangs up.
    """
    script = Script(answers or {})

    def authenticate(
        server: Any, session: Any, envelope: Any, mechanism: str, given: object
    ) -> AuthResult:
        expected = login and LoginPassword(*(part.encode() for part in login))
        return AuthResult(success=given == expected, handled=False)

    def connection() -> asyncio.Protocol:
        script.connections += 1
        if greeting is not None:
            return _Greeting(greeting)
        protocol: asyncio.Protocol = SMTP(
            script,
            enable_SMTPUTF8=utf8,
            tls_context=starttls,
            authenticator=authenticate if login else None,
            auth_required=login is not None,
            auth_require_tls=False,
            loop=loop,
        )
        return protocol

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(connection, "127.0.0.1", 0, ssl=tls))
    script.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield script
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
        loop.close()


class _Greeting(asyncio.Protocol):
    def __init__(self, greeting: bytes) -> None:
        self._greeting = greeting

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._greeting)
        transport.close()
