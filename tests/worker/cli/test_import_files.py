"""Files to be imported: what is wrong with a line costs that line, and memory stays small."""

import io
import itertools
import json
from collections.abc import Iterator

import pytest

from models.errors import Refused
from worker.cli.import_files import Fault, Format, Item, Record, guessed, read


def items(content: bytes, format: Format = "csv") -> list[Item]:
    return list(read(io.BytesIO(content), format)[1])


def brief(content: bytes, format: Format = "csv") -> list[tuple[int, object]]:
    return [
        (one.line, one.code if isinstance(one, Fault) else dict(one.fields))
        for one in items(content, format)
    ]


def refusal(content: bytes, format: Format) -> str:
    with pytest.raises(Refused) as refused:
        items(content, format)
    assert "canary" not in refused.value.message
    return refused.value.code


@pytest.mark.parametrize(
    ("name", "format"),
    [("a.csv", "csv"), ("A.TSV", "csv"), ("a.json", "json"), ("a.ndjson", "jsonl"), ("-", None)],
)
def test_the_name_tells_the_format(name: str, format: str | None) -> None:
    assert guessed(name) == format


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"a,b\n1,2\n", [(2, {"a": "1", "b": "2"})]),
        (b"\xef\xbb\xbfA ; b\r\n 1;2\r\n", [(2, {"a": "1", "b": "2"})]),  # BOM, of a spreadsheet
        (b"a\tb\n1\t\n\n3\t4", [(2, {"a": "1"}), (4, {"a": "3", "b": "4"})]),
        (b'a,b\n"x, ""y""\nz",2\n3,4\n', [(2, {"a": 'x, "y"\nz', "b": "2"}),
                                          (4, {"a": "3", "b": "4"})]),
        (b"a,b\n1\n1,2,3\n4,5\n", [(2, "columns_differ"), (3, "columns_differ"),
                                  (4, {"a": "4", "b": "5"})]),
        (b'a,b\n"x"y,2\n3,4\n', [(2, "csv_invalid"), (3, {"a": "3", "b": "4"})]),
        (b'a,b\n"x,2\n3,4\n', [(2, "csv_invalid")]),  # a quote that is never closed
        (b"a,b\n\0,2\n\xff,2\n3,4\n", [(2, "line_invalid"), (3, "not_utf8"),
                                      (4, {"a": "3", "b": "4"})]),
        (b"a,b\n" + b"x" * 10_000_000 + b"\n3,4\n", [(2, "line_too_long"),
                                                    (3, {"a": "3", "b": "4"})]),
        (b"a,b\n", []),
        (b"\xef\xbb\xbfsep=;\r\na;b\r\n1;2,3\r\n", [(3, {"a": "1", "b": "2,3"})]),
        (b"a;b\r\n;\r\n  \r\n1;2\r\n;\r\n", [(4, {"a": "1", "b": "2"})]),
    ],
)  # fmt: skip
def test_csv(content: bytes, found: list[tuple[int, object]]) -> None:
    assert brief(content) == found


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"[]", []),
        (b' [ {"a": 17, "b": null, "c": ""} ,\n{"A": "\xc3\xa9"}\n]\n',
         [(1, {"a": "17"}), (2, {"a": "\u00e9"})]),
        (b'[{"a": 1},\n{"a": 1, "a": 2},\n3, {"a": 4}]', [(1, {"a": "1"}),
            (2, "member_repeated"), (3, "json_invalid"), (3, {"a": "4"})]),
        (b'[{"a": 1}]\ngarbage', [(1, {"a": "1"}), (2, "json_invalid")]),
        (b'[{"a": 1}, ]', [(1, {"a": "1"}), (1, "json_invalid")]),
        (b'[{"a": 1}', [(1, {"a": "1"}), (1, "json_invalid")]),
        (b'[{"a": 1} {"a": 2}]', [(1, {"a": "1"}), (1, "json_invalid")]),
        (b"[\n" + b"[" * 100_000, [(2, "json_invalid")]),
        (b'[{"a": "' + b"x" * 10_000_000, [(1, "line_too_long")]),
    ],
)  # fmt: skip
def test_a_json_array(content: bytes, found: list[tuple[int, object]]) -> None:
    assert brief(content, "json") == found


def test_json_lines() -> None:
    content = b'\xef\xbb\xbf{"a": 1}\n\ncanary\n[1]\n{"a": 2} x\n\xff\n{"a": 3}'
    assert brief(content, "jsonl") == [
        (1, {"a": "1"}),
        (3, "json_invalid"),
        (4, "json_invalid"),
        (5, "json_invalid"),
        (6, "not_utf8"),
        (7, {"a": "3"}),
    ]


@pytest.mark.parametrize(
    ("content", "format", "code"),
    [
        (b"", "csv", "file_empty"),
        (b"", "json", "file_empty"),
        (b" \n", "json", "file_empty"),
        (b"", "jsonl", "file_empty"),
        ("canary,b\n".encode("utf-16"), "csv", "not_utf8"),
        ("canary,b\n".encode("utf-16-le"), "csv", "not_utf8"),
        ("[]".encode("utf-16"), "json", "not_utf8"),
        (b'[{"canary": "\xff"}]', "json", "not_utf8"),
        (b"canary,canary\n", "csv", "column_repeated"),
        (b"canary,,b\n", "csv", "column_unnamed"),
        (b"\n", "csv", "column_unnamed"),
        (b"canary" * 100_000, "csv", "line_too_long"),
        (b"canary,b\r1,2\r3,4\r", "csv", "csv_invalid"),
        (b"sep=;\n", "csv", "file_empty"),
        (b"PK\x03\x04\x14\x06canary", "csv", "not_text"),
        (b"\x1f\x8b\x08canary", "json", "not_text"),
        (b'{"canary": 1}', "json", "json_invalid"),
    ],
)
def test_a_file_that_is_no_list_is_refused(content: bytes, format: Format, code: str) -> None:
    assert refusal(content, format) == code


@pytest.mark.parametrize("format", ["json", "jsonl", "csv"])
def test_no_more_is_read_than_is_needed(format: Format) -> None:
    """A list of a million is not kept: the first record is there when little was read."""
    stream = _Endless(format)
    _, records = read(io.BufferedReader(stream), format)
    first = next(records)
    assert isinstance(first, Record)
    assert stream.given < 200_000


def test_a_record_may_lie_across_the_pieces_that_are_read() -> None:
    rows = [{"email": f"user{n}@example.com", "name": "\u00e9" * (n % 50)} for n in range(5000)]
    found = items(json.dumps(rows, ensure_ascii=False).encode(), "json")
    assert [one.fields["email"] for one in found if isinstance(one, Record)] == [
        row["email"] for row in rows
    ]


class _Endless(io.RawIOBase):
    """A file without an end."""

    def __init__(self, format: Format) -> None:
        starts = {"json": b'[{"a": 1}', "jsonl": b'{"a": 1}\n', "csv": b"a\n1\n"}
        goes_on = {"json": b',\n{"a": 1}', "jsonl": b'{"a": 1}\n', "csv": b"1\n"}
        self._parts: Iterator[bytes] = itertools.chain(
            [starts[format]], itertools.repeat(goes_on[format])
        )
        self._left = b""
        self.given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        assert isinstance(buffer, memoryview | bytearray)
        while len(self._left) < len(buffer):
            self._left += next(self._parts)
        buffer[:] = self._left[: len(buffer)]
        self._left = self._left[len(buffer) :]
        self.given += len(buffer)
        return len(buffer)
