"""Files that are imported, read as a stream of records: CSV, a JSON array, or JSON lines.

What is wrong with one line is a Fault of that line, and the rest goes on. What makes the whole file
unreadable is Refused. Neither repeats what the file says: a key's text may stand anywhere in it.
"""

import codecs
import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, BinaryIO, Final, Literal, TypeAlias

from models.errors import Refused

Format: TypeAlias = Literal["csv", "json", "jsonl"]

LONGEST_RECORD: Final = 128 * 1024
"""Bytes of a line, and characters of a JSON object: many times what one account or key needs."""

_CHUNK: Final = 64 * 1024
_ENDINGS: Final[Mapping[str, Format]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_BLANK: Final = " \t\r\n"
_UTF8: Final = "write it in UTF-8 (in Excel: CSV UTF-8)"
_PACKED: Final = (b"PK\x03\x04", b"\x1f\x8b", b"\xd0\xcf\x11\xe0")
"""How zip archives, and so workbooks, gzip, and older workbooks begin."""

WORKBOOKS: Final = frozenset({".xlsx", ".xls", ".xlsm", ".ods", ".numbers"})
"""Endings of files that have to be saved as something else first."""


@dataclass(frozen=True)
class Record:
    """One record and the line on which it begins, from 1. What is empty or null is left out.

    Values are as JSON has them, but that numbers are texts.
    """

    line: int
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Fault:
    """A line that is no record, and why."""

    line: int
    code: str
    message: str


Item: TypeAlias = Record | Fault


def guessed(name: str) -> Format | None:
    """The format that a file's name tells of, or None."""
    return _ENDINGS.get(PurePath(name).suffix.lower())


def read(stream: BinaryIO, format: Format) -> tuple[Sequence[str] | None, Iterator[Item]]:
    """The columns of a file, where it names them first (CSV), and its records.

    Refused as `file_empty`, `not_utf8`, `not_text`, `column_unnamed`, `column_repeated`,
    `csv_invalid`, `json_invalid`.
    """
    if format == "csv":
        return _csv(_Lines(stream))
    if format == "jsonl":
        return None, _json_lines(_Lines(stream))
    return None, _Array(stream).records()


class _Unreadable(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(code)
        self.code, self.message = code, message


class _Lines:
    """The lines of a stream as texts; `number` is that of the last one. None is read ahead.

    A line that is no text raises _Unreadable, and can be passed over.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(LONGEST_RECORD)
        if not line:
            if not self.number:
                raise _empty()
            raise StopIteration
        self.number += 1
        if self.number == 1:
            _check_start(line)
            line = line.removeprefix(codecs.BOM_UTF8)
        if len(line) >= LONGEST_RECORD and not line.endswith(b"\n"):
            while (rest := self._stream.readline(LONGEST_RECORD)) and not rest.endswith(b"\n"):
                pass
            raise _Unreadable("line_too_long", f"the line has more than {LONGEST_RECORD} bytes")
        if b"\0" in line:
            raise _Unreadable("line_invalid", "the line holds a NUL character: remove it")
        try:
            return line.decode()
        except UnicodeDecodeError:
            raise _Unreadable("not_utf8", f"the line is not UTF-8: {_UTF8}") from None


_SEPARATOR: Final = re.compile(r'"?sep=([,;\t])"?\s*', re.IGNORECASE)
"""What spreadsheets put before the names of the columns."""


def _csv(lines: _Lines) -> tuple[Sequence[str], Iterator[Item]]:
    try:
        first = next(lines)
        if said := _SEPARATOR.fullmatch(first):
            first = next(lines)
        delimiter = said[1] if said else max(",;\t", key=first.count)
        [names] = csv.reader([first], delimiter=delimiter) if first.strip() else [[]]
    except _Unreadable as error:
        raise Refused(error.code, f"the first line names no columns: {error.message}") from None
    except StopIteration:
        raise _empty() from None
    except csv.Error:
        raise Refused(
            "csv_invalid",
            "the first line is no CSV: end lines with a line feed, not a carriage return alone",
        ) from None
    columns = [name.strip().lower() for name in names]
    if not columns or not all(columns):
        place = columns.index("") + 1 if columns else 1
        raise Refused("column_unnamed", f"column {place} has no name in the file's first line")
    for place, name in enumerate(columns, 1):
        if name in columns[: place - 1]:
            first_place = columns.index(name) + 1
            raise Refused(
                "column_repeated", f"columns {first_place} and {place} have the same name: drop one"
            )
    return columns, _rows(lines, columns, delimiter)


def _rows(lines: _Lines, columns: Sequence[str], delimiter: str) -> Iterator[Item]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        begins = lines.number + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except _Unreadable as error:
            yield Fault(lines.number, error.code, error.message)
        except csv.Error:
            where = f"line {begins} is"
            if lines.number > begins:
                where = f"lines {begins} to {lines.number} are"
            message = f'{where} no CSV: look for a " that is not closed or doubled'
            yield Fault(begins, "csv_invalid", message)
        else:
            if not any(map(str.strip, values)):
                continue  # a blank line, or one of separators alone
            if len(values) != len(columns):
                message = f"the line has {len(values)} values, the first line names {len(columns)}"
                yield Fault(begins, "columns_differ", f"{message} columns")
                continue
            given = zip(columns, map(str.strip, values), strict=True)
            yield Record(begins, {name: value for name, value in given if value})


class _Object(dict[str, Any]):
    """A JSON object, and whether one of its members came twice."""

    repeated = False


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    made = _Object(pairs)
    made.repeated = len(made) < len(pairs)
    return made


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_int=str, parse_float=str)


def _json_lines(lines: _Lines) -> Iterator[Item]:
    while True:
        try:
            line = next(lines).strip()
        except StopIteration:
            return
        except _Unreadable as error:
            yield Fault(lines.number, error.code, error.message)
            continue
        if not line:
            continue
        try:
            said = _DECODER.decode(line)
        except (ValueError, RecursionError):
            yield Fault(lines.number, "json_invalid", "the line is not one JSON object")
        else:
            yield _record(lines.number, said)


def _record(line: int, said: object) -> Item:
    if not isinstance(said, _Object):
        return Fault(line, "json_invalid", "this is no JSON object: write one for each record")
    if said.repeated:
        return Fault(line, "member_repeated", "a member is there twice: drop one")
    fields = {name.strip().lower(): value for name, value in said.items()}
    return Record(line, {name: one for name, one in fields.items() if one not in (None, "")})


class _Array:
    """The objects of one JSON array, one after the other, without keeping the others."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._text, self._at, self._line, self._ended = "", 0, 1, False

    def records(self) -> Iterator[Item]:
        """The records; a Fault of the array itself is the last item."""
        opens = self._sign()
        if not opens:
            raise _empty()
        if opens != "[":
            hint = "; objects one a line are --format jsonl" if opens == "{" else ""
            raise Refused("json_invalid", f"the file is no JSON array: it begins without a [{hint}")
        self._at += 1
        after = "]" if self._sign() == "]" else ","
        if after == "]":
            self._at += 1
        while after == ",":
            line = self._line
            try:
                yield _record(line, self._value())
                after = self._sign()
                if after not in (",", "]"):
                    raise _Unreadable("json_invalid", "a comma or the array's ] is missing here")
            except _Unreadable as error:
                left = f"{error.message}; nothing after it was read"
                yield Fault(self._line, error.code, left)
                return
            self._at += 1
            self._sign()
        if self._sign():
            yield Fault(self._line, "json_invalid", "there is more behind the array's ]")

    def _sign(self) -> str:
        """The next sign that is not blank, which stays; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANK:
                self._line += self._text[self._at] == "\n"
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _value(self) -> Any:
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except RecursionError:
                raise _Unreadable("json_invalid", "the objects are nested too deeply") from None
            except ValueError:
                if len(self._text) - self._at > LONGEST_RECORD:
                    message = f"more than {LONGEST_RECORD} characters are no whole object"
                    raise _Unreadable("line_too_long", message) from None
                if not self._more():
                    raise _Unreadable("json_invalid", "this is not JSON") from None
            else:
                self._line += self._text.count("\n", self._at, end)
                self._at = end
                return value

    def _more(self) -> bool:
        chunk = b"" if self._ended else self._stream.read(_CHUNK)
        if not self._text and chunk:
            _check_start(chunk)
        try:
            text = self._decode(chunk, not chunk)
        except UnicodeDecodeError:
            message = f"the file is not UTF-8 behind line {self._line}: {_UTF8}"
            raise Refused("not_utf8", message) from None
        self._ended = not chunk
        self._text, self._at = self._text[self._at :] + text, 0
        return bool(chunk)


def _check_start(start: bytes) -> None:
    if start.startswith(_UTF16) or b"\0" in start[:16]:
        raise Refused("not_utf8", f"the file is UTF-16, or no text: {_UTF8}")
    if start.startswith(_PACKED):
        raise Refused(
            "not_text", "the file is a workbook, or compressed: unpack it, or save it as CSV"
        )


def _empty() -> Refused:
    return Refused("file_empty", "the file is empty: nothing was read")
