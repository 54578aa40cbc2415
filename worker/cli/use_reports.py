"""`keyturn keys report-use`: uses that a gateway counted, as lines of JSON."""

import json as json_format
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any, BinaryIO

import typer

from models.recording import LONGEST_REPORT, Rejected, Use
from worker.cli import failures, output
from worker.cli.session import operator

LONGEST_LINE = 2000  # bytes; a use has about 150
_FIELDS = {"key": "key_id", "at": "at", "ip": "ip", "count": "count", "refused": "refused"}


def report(stream: BinaryIO, *, json: bool) -> None:
    """Record every line that can be, and say what was wrong with the others.

    Raises typer.Exit where there was one of these.
    """
    written, faults = 0, list[dict[str, object]]()
    lines = _lines(stream)
    with operator() as client:
        while part := list(islice(lines, LONGEST_REPORT)):
            read = [(number, _use(line)) for number, line in part]
            uses = [(number, use) for number, use in read if isinstance(use, Use)]
            wrong = [(number, use) for number, use in read if isinstance(use, Rejected)]
            done = client.report_use([use for _, use in uses])
            written += done.keys
            wrong += [(uses[one.position][0], one) for one in done.rejected]
            faults += [
                {"line": number, "code": one.code, "message": one.message}
                for number, one in sorted(wrong, key=lambda one: one[0])
            ]
    rows = [(fault["line"], fault["code"], fault["message"]) for fault in faults]
    parts = [output.Table(("LINE", "CODE", "WHAT IS WRONG"), rows)] if rows else []
    output.answer(
        json,
        {"keys": written, "rejected": faults},
        f"Recorded uses of {written} {'key' if written == 1 else 'keys'}.",
        *parts,
    )
    if faults:
        raise typer.Exit(failures.REFUSED)


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Lines that say something, with their numbers; one that is too long is cut, and is no JSON."""
    number = 0
    while line := stream.readline(LONGEST_LINE):
        number += 1
        rest = line
        while len(rest) == LONGEST_LINE and not rest.endswith(b"\n"):
            rest = stream.readline(LONGEST_LINE)
            line = b"too long"
        if line.strip():
            yield number, line


def _use(line: bytes) -> Use | Rejected:
    """The use of one line. What a key's text might be in is not repeated."""
    try:
        said = json_format.loads(line)
    except (ValueError, RecursionError):
        return _wrong("line_invalid", "this is not one JSON object on a line")
    if not isinstance(said, dict) or not {"key", "at"} <= said.keys() <= _FIELDS.keys():
        names = ", ".join(_FIELDS)
        return _wrong("line_invalid", f"a use is an object with key and at, of: {names}")
    fields: dict[str, Any] = {_FIELDS[name]: value for name, value in said.items()}
    try:
        fields["at"] = datetime.fromisoformat(fields["at"])
    except (TypeError, ValueError):
        return _wrong("time_invalid", "write the time as RFC 3339, like 2026-12-01T12:00:00Z")
    if not isinstance(fields.get("ip"), str | None) or not isinstance(
        fields.get("refused", False), bool
    ):
        return _wrong("line_invalid", "ip is a text, refused is true or false")
    return Use(**fields)


def _wrong(code: str, message: str) -> Rejected:
    return Rejected(0, code, message)
