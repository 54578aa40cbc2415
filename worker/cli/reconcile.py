"""`keyturn accounts reconcile`: a full export of an identity provider against our holds."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from models import reconcile as reconciling
from models.errors import Refused
from models.operator import Operator
from models.reconcile import Comparison, Difference, ExportRow
from worker.cli import import_columns, importing, output, session
from worker.cli.asking import DryRun, Yes, agreed
from worker.cli.import_columns import EXPORT, Columns
from worker.cli.import_files import Fault, Item
from worker.cli.importing import FormatName, Ignored
from worker.cli.output import Json

SHOWN = 20
"""Accounts, and lines, that the plan names; it counts all."""


def reconcile(
    source: Annotated[str, typer.Option(metavar="SOURCE", help="Whose export it is.")],
    file: Annotated[str, typer.Option(metavar="FILE", help="CSV, JSON or JSON lines; - is stdin.")],
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="When it was made; else when the file was written."),
    ] = None,
    everyone: Annotated[
        bool, typer.Option("--everyone", help="Accounts without an id there are absent too.")
    ] = False,
    cut: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="So many may be cut; needed where they are many."),
    ] = None,
    format: FormatName = None,
    ignore: Ignored = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Compare a full export of a source with its holds.

    The difference is shown, and applied after a yes. Columns: id or email;
    active, enabled, status or state. Accounts that are disabled or absent there
    are held here by this source; of those that are active there its hold
    `disabled` is lifted, and no other.
    """
    settings = session.settings()
    _check_source(source, settings.sources)
    with session.operator(settings) as client:
        with client.database.begin() as tx:
            moment = _moment(at, file, tx.now())
        columns = Columns(EXPORT, tuple(settings.sources), tuple(ignore or ()))
        comparison = Comparison(source, moment)
        with importing.opened(file, format) as (names, records, _):
            if names is not None:
                columns.check(names, "id", "email", *settings.sources)
                columns.check(names, *import_columns.STATES)
            _compare(client, comparison, _rows(records, columns, source), everyone=everyone)
        plan, document = _plan(comparison), _document(comparison)
        if not comparison.differences:
            output.answer(json, {**document, "applied": {}}, *plan, "Nothing differs.")
            return
        if not dry_run:
            reconciling.check_cuts(comparison, client.policy, cut)
        if not agreed("Apply this?", plan, document, yes=yes, dry_run=dry_run, json=json):
            return
        done = reconciling.apply(
            client.database,
            comparison,
            provider=settings.sources[source].provider,
            actor=client.actor,
            policy=client.policy,
        )
        applied = ", ".join(f"{number} {state}" for state, number in sorted(done.items()))
        said = f"Applied: {applied}." if applied else "It was applied before."
        output.answer(json, {**document, "applied": dict(done)}, said)


def _check_source(source: str, known: Iterable[str]) -> None:
    if source not in known:
        message = f"no source {source!r}; choose one of: {', '.join(known)}"
        raise typer.BadParameter(message, param_hint="--source")


def _compare(
    client: Operator, comparison: Comparison, rows: Iterator[ExportRow], *, everyone: bool
) -> None:
    for page in reconciling.pages(rows):
        with client.database.begin() as tx:
            comparison.add(tx, page, client.policy)
    if not comparison.compared:
        raise Refused("export_foreign", "no line of the export names an account here")
    with client.database.begin() as tx:
        comparison.add_absent(tx, client.policy, everyone=everyone)


def _moment(at: str | None, file: str, now: datetime) -> datetime:
    """The time of the export. A file is no older than its contents; no export is of the future."""
    if at is None:
        written = Path(file).stat().st_mtime if file != "-" and Path(file).exists() else None
        return now if written is None else min(datetime.fromtimestamp(written, UTC), now)
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        message = "write a time with its zone, like 2026-12-01T12:00:00Z"
        raise typer.BadParameter(message, param_hint="--at")
    if moment > now:
        raise typer.BadParameter("this time is to come", param_hint="--at")
    return moment.astimezone(UTC)


def _rows(records: Iterator[Item], columns: Columns, source: str) -> Iterator[ExportRow]:
    """The rows of an export. One that cannot be read would look absent: the whole is refused."""
    for item in records:
        if isinstance(item, Fault):
            raise _unreadable(item.line, item.code, item.message)
        try:
            yield import_columns.export(item, columns, source)
        except Refused as error:
            raise _unreadable(item.line, error.code, error.message) from None


def _unreadable(line: int, code: str, message: str) -> Refused:
    return Refused(code, f"line {line}: {message}. Nothing was done: an export has to be whole")


def _plan(comparison: Comparison) -> list[str]:
    cuts, all_ = comparison.cuts, comparison.differences
    plan = [
        f"The export of {comparison.source} is of {output.shown(comparison.at)}; "
        f"{comparison.compared:,} accounts were compared.",
        f"To hold: {len(cuts):,}. To lift: {len(all_) - len(cuts):,}.",
    ]
    plan += [f"  {one.do}  {one.email}  ({one.why})" for one in all_[:SHOWN]]
    if len(all_) > SHOWN:
        plan.append(f"  and {len(all_) - SHOWN:,} more (--json names all)")
    whys = {
        "newer": "left alone, since a newer event of the source came",
        "doubtful": "left alone, since the name was linked after the export was made",
        "otherwise_held": "active there, and held here by the source for another reason",
    }
    plan += [f"{whys[why]}: {n:,}.".capitalize() for why, n in comparison.left_alone.items()]
    if unknown := comparison.unknown:
        lines = ", ".join(map(str, unknown[:SHOWN])) + (", ..." if unknown[SHOWN:] else "")
        plan.append(f"Lines that name no account here: {len(unknown):,} (line {lines}).")
    return plan


def _document(comparison: Comparison) -> dict[str, object]:
    return {
        "source": comparison.source,
        "at": comparison.at,
        "compared": comparison.compared,
        "to_hold": [_account(one) for one in comparison.cuts],
        "to_lift": [_account(one) for one in comparison.differences if one.do == "lift"],
        "left_alone": dict(comparison.left_alone),
        "unknown": len(comparison.unknown),
    }


def _account(one: Difference) -> dict[str, str]:
    return {"id": str(one.account_id), "email": one.email, "why": one.why}
