"""A server that answers in the form of AWS's JSON protocol: whatever fault a test wants."""

import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar


@dataclass
class Answers:
    """What is answered: a status and an error code, `hang` or `reset`. The requests are kept."""

    fault: str = ""
    status: int = 400
    requests: list[tuple[str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)


class Handler(BaseHTTPRequestHandler):
    """Repeats what it was sent in the text of its error, as a careless service might."""

    answers: ClassVar[Answers]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        action = str(self.headers["X-Amz-Target"]).rpartition(".")[2]
        self.answers.requests.append((action, body))
        if self.answers.fault == "hang":
            self.answers.released.wait(30)
        elif self.answers.fault == "reset":
            self._reset()
        elif action == "DescribeSecret":
            self._say(200, {"Name": "x", "VersionIdsToStages": {}})
        else:
            said = {"__type": self.answers.fault, "message": f"no: {body}"}
            self._say(self.answers.status, said)

    def _reset(self) -> None:
        """RST instead of an answer."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.rfile.close()
        self.wfile.close()
        self.connection.close()

    def _say(self, status: int, answer: Any) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""


@contextmanager
def answering(answers: Answers) -> Iterator[str]:
    """The address of a server that answers so."""
    handler = type("Bound", (Handler,), {"answers": answers})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            answers.released.set()
            server.shutdown()
            thread.join()
