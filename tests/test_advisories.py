"""What `make check` says of the locked versions: by real answers, by none, and by late ones."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest

from tests.advisories import LOCKS, WAIVED, check
from tests.servers import free_port

# As OSV answers it: https://ossf.github.io/osv-schema/, shortened to what is read.
ADVISORY: Final = {
    "id": "PYSEC-2019-217",
    "aliases": ["CVE-2019-10906"],
    "summary": "str.format_map allows a sandbox escape",
    "affected": [
        {
            "package": {"name": "jinja2", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.10.1"}]}],
            "versions": ["2.10"],
        }
    ],
}
OLD: Final = ("jinja2", "2.10")


class Service:
    """A service of advisories that knows one, and how often it was asked."""

    def __init__(self, status: int = 200, delay: float = 0) -> None:
        self.status, self.delay = status, delay
        self.asked: list[dict[str, Any]] = []

    def answer(self, query: dict[str, Any]) -> bytes:
        self.asked.append(query)
        time.sleep(self.delay)
        known = (query["package"]["name"], query["version"]) == OLD
        return json.dumps({"vulns": [ADVISORY]} if known else {}).encode()

    @contextmanager
    def listening(self) -> Iterator[str]:
        """Its URL, for as long as the block runs."""
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = service.answer(json.loads(self.rfile.read(length)))
                self.send_response(service.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing to tell."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/query"
        finally:
            server.shutdown()
            server.server_close()


def locked(directory: Path, *packages: tuple[str, str]) -> list[Path]:
    """A lock file of these packages."""
    file = directory / "requirements.lock"
    lines = [f"{name}=={version} --hash=sha256:{'0' * 64}" for name, version in packages]
    file.write_text("\n".join(lines) + "\n")
    return [file]


def alone(osv: str) -> dict[str, str]:
    """An environment that reaches this service and no other."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    return {
        **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        "PIP_AUDIT_OSV_URL": osv,
        "HTTPS_PROXY": nowhere,
        "NO_PROXY": "127.0.0.1",
    }


def test_a_known_weakness_fails_the_check_and_names_the_mend(tmp_path: Path) -> None:
    with Service().listening() as url:
        code, lines = check(
            locked(tmp_path, OLD, ("redis", "8.1.0")), ["osv"], environment=alone(url)
        )
    assert code == 1
    assert lines == [
        "1 known weaknesses in 2 dependencies (osv)",
        "  jinja2 2.10: PYSEC-2019-217, mended in 2.10.1",
    ]


def test_a_waived_weakness_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.advisories.WAIVED", {"PYSEC-2019-217": "no sandbox is used"})
    with Service().listening() as url:
        code, lines = check(locked(tmp_path, OLD), ["osv"], environment=alone(url))
    assert (code, lines) == (0, ["0 known weaknesses in 1 dependencies (osv)"])


def test_waivers_have_reasons() -> None:
    assert all(reason.strip() for reason in WAIVED.values())


def test_every_locked_version_is_asked_for() -> None:
    service = Service()
    with service.listening() as url:
        code, lines = check(environment=alone(url))
    asked = {query["package"]["name"]: query["version"] for query in service.asked}
    assert code == 0
    assert lines == [f"0 known weaknesses in {len(asked)} dependencies (osv)"]
    elsewhere = {line.partition("==")[0] for lock in LOCKS for line in pinned(lock) if ";" in line}
    here = {line.partition("==")[0] for lock in LOCKS for line in pinned(lock)} - elsewhere
    assert here <= set(asked)
    assert "celery" in here


def pinned(lock: Path) -> list[str]:
    return [line for line in lock.read_text().splitlines() if "==" in line and line[0] != " "]


@pytest.mark.parametrize("service", [None, Service(status=503)], ids=["nobody", "a broken one"])
def test_without_an_answer_it_says_so_and_goes_on(service: Service | None, tmp_path: Path) -> None:
    lock = locked(tmp_path, OLD)
    if service is None:
        code, [line] = check(lock, environment=alone(f"http://127.0.0.1:{free_port()}/"))
    else:
        with service.listening() as url:
            code, [line] = check(lock, environment=alone(url))
    assert code == 0
    assert line.startswith("WARNING: no dependency was checked for known weaknesses (osv: ")
    assert "pypi: does not answer" in line


def test_a_service_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    before = time.monotonic()
    with Service(delay=30).listening() as url:
        code, [line] = check(locked(tmp_path, OLD), ["osv"], within=2, environment=alone(url))
    assert code == 0
    assert "osv: took longer than 2 s" in line
    assert time.monotonic() - before < 10
