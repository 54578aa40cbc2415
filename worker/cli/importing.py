"""What the import commands share: where records come from, batches, progress, and the answer."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TypeVar

import typer

from models.errors import Refused
from models.imports import BATCH, Outcome
from models.secret_files import open_private
from worker.cli import failures, import_files, import_sql, output
from worker.cli.import_files import Fault, Format, Item, Record

SHOWN = 1000
"""Lines that are told of; all are counted."""

R = TypeVar("R")

FileName = Annotated[
    str | None, typer.Argument(metavar="FILE", help="CSV, JSON or JSON lines; - is stdin.")
]
FormatName = Annotated[
    Format | None, typer.Option("--format", help="Instead of what the file's name tells.")
]
Ignored = Annotated[
    list[str] | None, typer.Option(metavar="COLUMN", help="Pass over it; may be repeated.")
]


@dataclass
class Result:
    """What became of all lines."""

    counts: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    told: list[Fault] = field(default_factory=list)
    last: int = 0

    def add(self, outcomes: Iterable[Outcome], faults: Iterable[Fault]) -> None:
        """One batch is done."""
        told = list(faults)
        self.counts["refused"] += len(told)
        for one in outcomes:
            self.counts[one.did] += 1
            if one.did in ("refused", "differs"):
                told.append(Fault(one.line, one.code, one.message))
            elif one.code:
                self.notes[one.code] += 1
        told.sort(key=lambda one: one.line)
        self.told += told[: SHOWN - len(self.told)]


@contextmanager
def opened(
    file: str | None, format: Format | None, *, private: bool = False
) -> Iterator[tuple[Sequence[str] | None, Iterator[Item], BinaryIO]]:
    """A file's columns, its records, and the stream that they come from.

    With `private` the file must be closed to others, as it holds secrets. Raises typer.BadParameter
    where it cannot be opened, or its format is not known.
    """
    if file is None:
        raise typer.BadParameter("give FILE, or - for stdin", param_hint="FILE")
    kind = format or import_files.guessed(file)
    if kind is None:
        message = "say whether it is csv, json or jsonl: its name does not tell"
        if Path(file).suffix.lower() in import_files.WORKBOOKS:
            message = "a workbook cannot be read: save it as CSV UTF-8, and give that"
        raise typer.BadParameter(message, param_hint="--format")
    with ExitStack() as stack:
        if file == "-":
            stream: BinaryIO = sys.stdin.buffer
        else:
            stream = stack.enter_context(_open(file, private))
        columns, records = import_files.read(stream, kind)
        yield columns, records, stream


def _open(file: str, private: bool) -> BinaryIO:
    if private:
        return open_private(Path(file))
    try:
        return Path(file).open("rb")
    except OSError as error:
        message = f"cannot read {file}: {error.strerror}"
        raise typer.BadParameter(message, param_hint="FILE") from None


@contextmanager
def queried(query: str, place: str) -> Iterator[tuple[Sequence[str] | None, Iterator[Item], None]]:
    """A query's columns and records; there is no stream to measure the progress by."""
    with import_sql.rows(query, import_sql.url(place)) as (columns, records):
        yield columns, records, None


def run(
    records: Iterator[Item],
    row: Callable[[Record], R],
    batch: Callable[[Sequence[R]], list[Outcome]],
    stream: BinaryIO | None,
    *,
    dry_run: bool,
) -> Result:
    """Import records by the batch. A line that cannot be read is told of, and the rest goes on."""
    result = Result()
    with _progress(stream) as advance:
        try:
            for rows, faults, last in _batches(records, row):
                outcomes = batch(rows) if rows else []
                result.add(outcomes, faults)
                result.last = last
                advance(len(rows) + len(faults))
        except KeyboardInterrupt:
            done = (
                f"all is done up to line {result.last}. Give the same command again: what is there "
                "is left as it is"
            )
            output.say(f"Interrupted: {'nothing was written' if dry_run else done}.")
            raise
    return result


def _batches(
    records: Iterator[Item], row: Callable[[Record], R]
) -> Iterator[tuple[list[R], list[Fault], int]]:
    rows, faults, last = list[R](), list[Fault](), 0
    for item in records:
        last = item.line
        if isinstance(item, Fault):
            faults.append(item)
        else:
            try:
                rows.append(row(item))
            except Refused as error:
                faults.append(Fault(item.line, error.code, error.message))
        if len(rows) + len(faults) >= BATCH:
            yield rows, faults, last
            rows, faults = [], []
    if rows or faults:
        yield rows, faults, last


@contextmanager
def _progress(stream: BinaryIO | None) -> Iterator[Callable[[int], None]]:
    """Shows how far it is, on a terminal only: by the bytes read where their number is known."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    size = Path(f"/dev/fd/{stream.fileno()}").stat().st_size if stream and stream.seekable() else 0
    shown = TextColumn("{task.fields[lines]:,} lines")
    columns = (BarColumn(), shown, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("import", total=size or None, lines=0)
        lines = 0

        def advance(more: int) -> None:
            nonlocal lines
            lines += more
            read = stream.tell() if stream and size else None
            progress.update(task, completed=read, lines=lines)

        yield advance


def tell(result: Result, *, noun: str, dry_run: bool, json: bool, notes: dict[str, str]) -> None:
    """Print what became of all lines. Raises typer.Exit where some were not imported."""
    told = result.told
    count = result.counts["refused"] + result.counts["differs"]
    document: dict[str, Any] = {
        "dry_run": dry_run,
        **{did: result.counts[did] for did in ("created", "updated", "unchanged", "differs")},
        "refused": result.counts["refused"],
        "notes": dict(result.notes),
        "lines": told,
        "lines_left_out": count - len(told),
    }
    create, update = ("Would create", "update") if dry_run else ("Created", "updated")
    said = (
        f"{create} {result.counts['created']:,} {noun}, {update} {result.counts['updated']:,}; "
        f"{result.counts['unchanged']:,} were there, {result.counts['differs']:,} differ, "
        f"{result.counts['refused']:,} were refused."
    )
    parts: list[str | output.Table] = [said]
    parts += [f"{notes[code]}: {n:,}." for code, n in result.notes.items() if code in notes]
    if told:
        rows = [(one.line, one.code, one.message) for one in told]
        parts.append(output.Table(("LINE", "CODE", "WHAT IS WRONG"), rows))
    if count > len(told):
        parts.append(f"And {count - len(told):,} more lines. Mend these, and import again.")
    output.answer(json, document, *parts)
    if count:
        raise typer.Exit(failures.REFUSED)
