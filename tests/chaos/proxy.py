"""A TCP proxy that can be slow, rude or silent: what a network does to a connection.

It stands in front of a broker or a database. Bytes pass through it untouched until it is told
otherwise, and it remembers nothing of them.
"""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Final

Target = tuple[str, int] | Path
"""Where connections lead: host and port, or a socket's path."""

_CHUNK: Final = 65536
_RST: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of no seconds: closing sends a reset."""


class Mood(StrEnum):
    """What the proxy does to bytes."""

    PASS = "pass"
    DELAY = "delay"
    """Each piece waits, at random up to the delay, in both directions."""
    RESET = "reset"
    """Every connection is reset, and every new one as soon as it is made."""
    BLACK_HOLE = "black hole"
    """Nothing comes through, nobody is told; what was connected then stays deaf for ever."""


class Proxy:
    """One address that leads to another, in a thread of its own."""

    def __init__(self, target: Target, seed: int = 0) -> None:
        self.port = 0
        self.passed = 0
        """Bytes that went through, in both directions."""
        self._target = target
        self._random = random.Random(seed)
        self._mood = Mood.PASS
        self._delay = 0.0
        self._open: set[asyncio.StreamWriter] = set()
        self._deaf: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    @contextmanager
    def running(self) -> Iterator["Proxy"]:
        """Listen on a free port of this machine until the block ends."""
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        thread.start()
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(self._end(server), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    def set(self, mood: Mood, delay: float = 0.0) -> None:
        """Change what happens from now on, to connections that are there and to new ones.

        `delay` in seconds is for Mood.DELAY. What fell into a black hole is not brought back.
        """

        def change() -> None:
            self._mood, self._delay = mood, delay
            if mood is Mood.RESET:
                self._reset_all()
            if mood is Mood.BLACK_HOLE:
                self._deaf |= self._open

        self._call(change)

    def lead_to(self, target: Target) -> None:
        """Lead what connects from now on elsewhere, and reset what is connected."""

        def change() -> None:
            self._target = target
            self._reset_all()

        self._call(change)

    def _call(self, work: Callable[[], None]) -> None:
        done = threading.Event()

        def run() -> None:
            try:
                work()
            finally:
                done.set()

        self._loop.call_soon_threadsafe(run)
        done.wait(10)

    async def _end(self, server: asyncio.Server) -> None:
        server.close()
        self._reset_all()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=5)

    def _reset_all(self) -> None:
        for writer in list(self._open):
            _reset(writer)
        self._open.clear()
        self._deaf.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._mood is Mood.RESET:
            _reset(writer)
            return
        self._open.add(writer)
        if self._mood is Mood.BLACK_HOLE:
            self._deaf.add(writer)
            await self._swallow(reader, writer)
            return
        try:
            far_reader, far_writer = await self._connect()
        except OSError:
            self._open.discard(writer)
            _reset(writer)
            return
        self._open.add(far_writer)
        both = (writer, far_writer)
        ways = (self._pump(reader, far_writer, both), self._pump(far_reader, writer, both))
        await asyncio.gather(*ways, return_exceptions=True)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(str(self._target))
        return await asyncio.open_connection(*self._target)

    async def _swallow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while await reader.read(_CHUNK):
                pass
        self._forget((writer,))

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        both: tuple[asyncio.StreamWriter, ...],
    ) -> None:
        """One direction of a connection, until either side ends it."""
        try:
            while chunk := await reader.read(_CHUNK):
                if self._mood is Mood.DELAY:
                    await asyncio.sleep(self._random.uniform(0, self._delay))
                if writer in self._deaf:
                    continue
                writer.write(chunk)
                self.passed += len(chunk)
                await writer.drain()
        except OSError:
            pass
        finally:
            # In a black hole not even the end of a connection gets to the other side.
            if not self._deaf & set(both):
                self._forget(both)

    def _forget(self, writers: tuple[asyncio.StreamWriter, ...]) -> None:
        for writer in writers:
            self._open.discard(writer)
            self._deaf.discard(writer)
            with suppress(OSError, RuntimeError):
                writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close without a farewell: the other side is told that the connection is no more."""
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.family == socket.AF_INET:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
    writer.transport.abort()
