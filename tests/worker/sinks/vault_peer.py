"""An HTTP server that answers as the KV store, version 2, of Vault is documented to.

Written from the documentation of its HTTP API (`/secret/data/:path`, its status codes and the
`X-Vault-*` headers), since Vault itself is no package to install here. It keeps versions and
enforces the token, the namespace and check-and-set.
"""

import json
import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tests.worker.sinks import peer

TOKEN = "hvs.the-token-of-the-test"


@dataclass
class Version:
    """One version of a secret; its content goes when it is deleted."""

    content: dict[str, str] | None
    destroyed: bool = False


@dataclass
class Store:
    """What the server has, and how it is to behave."""

    token: str = TOKEN
    namespace: str | None = None
    mount: str = "secret"
    versions: dict[str, list[Version]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What the next requests meet: `500`, `hang`, `reset`, `lost` (done, but not answered),
    `overtaken` (somebody else writes first), `late` (the same write got there before, from an
    earlier try), or `` for nothing."""
    released: threading.Event = field(default_factory=threading.Event)

    def contents(self, path: str) -> list[dict[str, str] | None]:
        """Each version, the oldest first."""
        return [version.content for version in self.versions.get(path, [])]


class Handler(peer.Peer):
    """The API. Status codes and bodies are those of the documentation."""

    store: ClassVar[Store]

    def serve(self, body: bytes) -> None:
        store, said = self.store, json.loads(body) if body else None
        store.requests.append(f"{self.command} {self.path}")
        fault = store.faults.pop(0) if store.faults else ""
        if fault == "hang":
            store.released.wait(30)
            return None
        if fault == "reset":
            return self.reset()
        if fault.isdigit():
            return self._answer(int(fault), {"errors": ["a word of the server's"]})
        if fault == "redirect":
            return self._redirect()
        if fault == "page":
            return self._answer(200, "<html>welcome</html>")
        if fault in ("overtaken", "late"):
            path = self.path.removeprefix(f"/v1/{store.mount}/data/")
            first = {"by": "somebody else"} if fault == "overtaken" or not said else said["data"]
            store.versions.setdefault(path, []).append(Version(first))
        status, answer = self._done(said)
        return self.reset() if fault == "lost" else self._answer(status, answer)

    def _done(self, body: dict[str, Any] | None) -> tuple[int, Any]:
        store = self.store
        allowed = self.headers.get("X-Vault-Token") == store.token
        if not allowed or self.headers.get("X-Vault-Namespace") != store.namespace:
            return 403, {"errors": ["permission denied"]}
        head = f"/v1/{store.mount}/data/"
        if not self.path.startswith(head):
            return 404, {"errors": [f"no handler for route {self.path!r}. route entry not found."]}
        path = self.path.removeprefix(head)
        return self._read(path) if body is None else self._write(path, body)

    def _read(self, path: str) -> tuple[int, Any]:
        versions = self.store.versions.get(path)
        if not versions:
            return 404, {"errors": []}
        last = versions[-1]
        metadata = {
            "version": len(versions),
            "destroyed": last.destroyed,
            "deletion_time": "2026-01-01T00:00:00Z" if last.content is None else "",
        }
        gone = last.content is None
        return 404 if gone else 200, {"data": {"data": last.content, "metadata": metadata}}

    def _write(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        versions = self.store.versions.setdefault(path, [])
        if body["options"]["cas"] != len(versions):
            said = "check-and-set parameter did not match the current version"
            return 400, {"errors": [said]}
        versions.append(Version(body["data"]))
        return 200, {"data": {"version": len(versions), "destroyed": False, "deletion_time": ""}}

    def _answer(self, status: int, answer: Any) -> None:
        content = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _redirect(self) -> None:
        self.send_response(307)
        self.send_header("Location", f"http://localhost:{self.server.server_port}{self.path}")  # type: ignore[attr-defined]
        self.send_header("Content-Length", "0")
        self.end_headers()


def serving(store: Store) -> AbstractContextManager[str]:
    """The address of a server with this store."""
    return peer.serving(Handler, store.released, store=store)
