"""The proxy does to connections what it says."""

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from tests.chaos.proxy import Mood, Proxy
from tests.eventually import eventually


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(1024):
            self.request.sendall(data)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with Proxy(("127.0.0.1", server.server_address[1])).running() as running:
            yield running
        server.shutdown()
        thread.join()


def dial(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=15)


def said(line: socket.socket, text: bytes = b"hello") -> bytes:
    line.sendall(text)
    return line.recv(1024)


def test_it_passes_bytes_in_both_directions(proxy: Proxy) -> None:
    with dial(proxy) as line:
        assert said(line) == b"hello"
        eventually(lambda: proxy.passed == 2 * len(b"hello"))  # counted behind the sending


def test_it_delays(proxy: Proxy) -> None:
    with dial(proxy) as line:
        proxy.set(Mood.DELAY, 0.2)
        took = []
        for _ in range(5):
            began = time.monotonic()
            assert said(line) == b"hello"
            took.append(time.monotonic() - began)
        assert sum(took) > 0.2  # ten waits of 0 to 0.2 s
        proxy.set(Mood.DELAY, 3600.0)
        proxy.set(Mood.PASS)
        assert said(line) == b"hello"


def test_it_resets_what_is_connected_and_what_connects(proxy: Proxy) -> None:
    with dial(proxy) as line:
        assert said(line) == b"hello"
        proxy.set(Mood.RESET)
        with pytest.raises(ConnectionResetError):
            line.recv(1)
    assert is_reset(proxy)
    proxy.set(Mood.PASS)
    with dial(proxy) as line:
        assert said(line) == b"hello"


def test_in_a_black_hole_nobody_is_told_anything(proxy: Proxy) -> None:
    with dial(proxy) as before:
        assert said(before) == b"hello"
        proxy.set(Mood.BLACK_HOLE)
        with dial(proxy) as new:
            for line in (before, new):
                line.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    said(line)
            proxy.set(Mood.PASS)
            for line in (before, new):  # no RST, no FIN, no answer: deaf for ever
                with pytest.raises(TimeoutError):
                    said(line)
        with dial(proxy) as after:
            assert said(after) == b"hello"


def test_where_nobody_listens_it_resets(proxy: Proxy) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with Proxy(free.getsockname()).running() as nowhere:
            assert is_reset(nowhere)
    assert not is_reset(proxy)


def is_reset(proxy: Proxy) -> bool:
    """Whether a new connection is reset, as soon as it is made or a little later."""
    try:
        with dial(proxy) as line:
            line.settimeout(1)
            return line.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
