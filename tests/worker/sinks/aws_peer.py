"""A server that answers in the form of AWS's JSON protocol: whatever fault a test wants."""

import json
import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tests.worker.sinks import peer


@dataclass
class Answers:
    """What is answered: a status and an error code, `hang` or `reset`. The requests are kept."""

    fault: str = ""
    status: int = 400
    requests: list[tuple[str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)


class Handler(peer.Peer):
    """Repeats what it was sent in the text of its error, as a careless service might."""

    answers: ClassVar[Answers]

    def serve(self, body: bytes) -> None:
        request = body.decode()
        action = str(self.headers["X-Amz-Target"]).rpartition(".")[2]
        self.answers.requests.append((action, request))
        if self.answers.fault == "hang":
            self.answers.released.wait(30)
        elif self.answers.fault == "reset":
            self.reset()
        elif action == "DescribeSecret":
            self._say(200, {"Name": "x", "VersionIdsToStages": {}})
        else:
            said = {"__type": self.answers.fault, "message": f"no: {request}"}
            self._say(self.answers.status, said)

    def _say(self, status: int, answer: Any) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def answering(answers: Answers) -> AbstractContextManager[str]:
    """The address of a server that answers so."""
    return peer.serving(Handler, answers.released, answers=answers)
