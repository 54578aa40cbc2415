"""Following a plan: a bar on a terminal, a line for each change elsewhere, JSON for programs."""

import json as json_format
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final

from models.errors import Refused
from models.operations import Operation
from worker.cli import output, plan_views

EVERY: Final = 1.0  # seconds between two looks


def follow(look: Callable[[], Operation], *, json: bool) -> Operation:
    """Show every change of a plan until it stops or ends; returns how it ended.

    It only looks, so that any number may watch, from anywhere. Refused as `plan_unknown`, and as
    `plan_not_applied` where there is nothing to watch yet.
    """
    first = look()
    if first.state == "planned":
        raise Refused(
            "plan_not_applied",
            f"the plan is not applied: `keyturn rotations apply {first.id}` does that",
        )
    changes = _changes(first, look)
    if json:
        return _lines(changes, _document)
    if sys.stdout.isatty():
        return _bar(changes)
    return _lines(changes, _line)


def _changes(first: Operation, look: Callable[[], Operation]) -> Iterator[Operation]:
    """The plan whenever something of it has changed, until it stands still for good."""
    seen, found = None, first
    while True:
        stage = (found.state, found.wave, found.done, found.waits_for, plan_views.failing(found))
        if stage != seen:
            yield found
        if found.ended or found.state == "stopped":
            return
        seen = stage
        time.sleep(EVERY)
        found = look()


def _lines(changes: Iterator[Operation], line: Callable[[Operation], str]) -> Operation:
    for found in changes:
        print(line(found), flush=True)
    return found


def _document(plan: Operation) -> str:
    left = plan_views.seconds_left(plan)
    return json_format.dumps({**output.plain(plan), "seconds_left": left})


def _line(plan: Operation) -> str:
    return f"{output.shown(datetime.now(UTC))} {output.printable(plan_views.progress(plan))}"


def _bar(changes: Iterator[Operation]) -> Operation:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(file=sys.stdout, markup=False, highlight=False, emoji=False)
    text = TextColumn("{task.description}", markup=False)
    with Progress(BarColumn(), text, console=console) as drawn:
        task = drawn.add_task("", total=None)
        for found in changes:
            said = output.printable(plan_views.progress(found))
            drawn.update(task, total=found.keys, completed=found.done, description=said)
    return found
