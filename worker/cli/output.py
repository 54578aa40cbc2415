"""What a command prints: one JSON document for programs, lines and tables for people.

What comes from outside is shown with its control and direction characters escaped: a name or an
event's type must not steer the terminal it is printed on.
"""

import dataclasses
import json as json_format
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Annotated, Any
from uuid import UUID

import typer
from pydantic import BaseModel


@dataclass
class State:
    """What the options in front of a command say about how it answers."""

    json: bool = False


def _remember(ctx: typer.Context, value: bool) -> bool:
    state = ctx.ensure_object(State)
    state.json = state.json or value
    return state.json


Json = Annotated[
    bool, typer.Option("--json", callback=_remember, help="Print one JSON document, for programs.")
]
"""The option of every command; it may also stand before the command's name."""


def group(json: Json = False) -> None:
    """The callback of a noun: lets --json stand behind it too."""


@dataclass(frozen=True)
class Table:
    """Rows under headings, or the sentence `empty` where there is none."""

    headings: Sequence[str]
    rows: Sequence[Sequence[object]]
    empty: str = "Nothing to show."
    whole: frozenset[str] = field(default=frozenset({"ID"}))
    """Headings of columns that are never broken into several lines."""


def answer(json: bool, document: object, *parts: str | Table) -> None:
    """Print a result: `document` for programs, or `parts` for people.

    Raises BrokenPipeError here and not at the end of the process, where it could not be caught.
    """
    if json:
        print(dumped(document))
    else:
        for part in parts:
            _show(part)
    sys.stdout.flush()


def say(message: str) -> None:
    """Tell the person at the terminal, beside the result: on stderr."""
    print(printable(message), file=sys.stderr, flush=True)


def dumped(document: object) -> str:
    """A document as JSON in ASCII. Times are RFC 3339 in UTC, durations seconds.

    Raises TypeError for a Secret: a key's text is only shown where somebody has revealed it.
    """
    return json_format.dumps(plain(document), indent=2)


def plain(value: object) -> Any:
    """A value as JSON has it."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [one.name for one in dataclasses.fields(value)]
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, Sequence):
        return [plain(inner) for inner in value]
    return _scalar(value)


def _scalar(value: object) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"a {type(value).__name__} is not printed")


def printable(text: str) -> str:
    """The text with every sign escaped that is not simply shown; line breaks stay."""
    return "".join(
        sign if sign.isprintable() or sign == "\n" else ascii(sign)[1:-1] for sign in text
    )


def facts(**named: object) -> str:
    """Named facts, one a line, names aligned; those without a value are left out."""
    given = {name: value for name, value in named.items() if value not in (None, "", [], ())}
    lines = {name.replace("_", " "): shown(value) for name, value in given.items()}
    width = max(map(len, lines), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())


def shown(value: object) -> str:
    """A value as people read it: times to the second, in UTC."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value)) or "-"
    return str(value)


def _show(part: str | Table) -> None:
    if isinstance(part, str):
        print(printable(part))
    elif part.rows:
        _show_table(part)
    else:
        print(part.empty)


def _show_table(table: Table) -> None:
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(box=None, pad_edge=False, header_style="bold")
    for heading in table.headings:
        drawn.add_column(heading, overflow="fold", no_wrap=heading in table.whole)
    for row in table.rows:
        drawn.add_row(*[Text(printable(shown(value)).replace("\n", " ")) for value in row])
    Console(file=sys.stdout, markup=False, highlight=False, emoji=False).print(drawn)
