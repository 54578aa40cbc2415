"""`keyturn accounts import` and `keyturn keys import`: what a product has already."""

from contextlib import AbstractContextManager
from datetime import timedelta
from functools import partial
from typing import Annotated, Any

import typer

from models.creation import LONGEST_VALIDITY, SHORTEST_VALIDITY
from models.durations import parse_duration
from models.key_imports import END_CUT
from models.rehearsal import Rehearsal
from worker.cli import import_columns, importing, session
from worker.cli.asking import DryRun
from worker.cli.import_columns import ACCOUNT, KEY, Columns
from worker.cli.importing import FileName, FormatName, Ignored
from worker.cli.output import Json

_NOTES = {END_CUT: "Ends cut to 25 weeks from now, the longest that a key lives"}

DefaultRole = Annotated[
    str | None, typer.Option(metavar="ROLE", help="Of those whose column role is empty.")
]


def import_accounts(
    file: FileName = None,
    sql: Annotated[
        str | None, typer.Option(metavar="QUERY", help="Read them by a query instead.")
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="PLACE", help="Where that database's address is: a file, or env:NAME."
        ),
    ] = None,
    role: DefaultRole = None,
    format: FormatName = None,
    ignore: Ignored = None,
    update: Annotated[
        bool, typer.Option("--update", help="Change those that are there with other facts.")
    ] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Bring in the accounts that a product has.

    Columns: email; name, role, created_at; an identity column per source, named
    as the source is, like okta. Again, it changes nothing that is the same. A
    line that cannot be imported stops no other. Exit code 3 where there was one.
    """
    settings = session.settings()
    if (file is None) == (sql is None) or (sql is None) != (from_ is None):
        raise typer.BadParameter("give FILE, or both --sql and --from", param_hint="FILE")
    place: AbstractContextManager[Any] = (
        importing.queried(sql, from_) if sql and from_ else importing.opened(file, format)
    )
    columns = Columns(ACCOUNT, tuple(settings.sources), tuple(ignore or ()))
    with session.operator(settings) as client, place as (names, records, stream):
        if names is not None:
            columns.check(names, "email")
        result = importing.run(
            records,
            partial(import_columns.account, columns=columns, role=role),
            partial(
                client.import_accounts, update=update, rehearsal=Rehearsal() if dry_run else None
            ),
            stream,
            dry_run=dry_run,
        )
    importing.tell(result, noun="accounts", dry_run=dry_run, json=json, notes={})


def import_keys(
    file: FileName = None,
    texts: Annotated[
        bool, typer.Option("--texts", help="The column text has the keys' texts themselves.")
    ] = False,
    expires_in: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="The life from now of keys without an end."),
    ] = None,
    role: DefaultRole = None,
    format: FormatName = None,
    ignore: Ignored = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Bring in the keys that a product has given out.

    They go on working. Columns: sha256 (hex or base64), or with --texts text;
    email, or the column of a source; name, role, created_at, expires_at,
    allowed_ips, hint. A key that is there is left as it is. A file of texts must
    be closed to others (mode 600). What is wrong with a line is told by its
    number, and the line is not repeated.
    """
    settings = session.settings()
    life = _life(expires_in)
    plain = (*KEY, "text" if texts else "sha256")
    columns = Columns(plain, tuple(settings.sources), tuple(ignore or ()), quiet=True)
    place = importing.opened(file, format, private=texts)
    with session.operator(settings) as client, place as (names, records, stream):
        if names is not None:
            columns.check(names, "text" if texts else "sha256")
            columns.check(names, "email", *settings.sources)
        result = importing.run(
            records,
            partial(
                import_columns.key,
                columns=columns,
                role=role,
                texts=texts,
                prefix=settings.key_prefix,
            ),
            partial(
                client.import_keys, expires_in=life, rehearsal=Rehearsal() if dry_run else None
            ),
            stream,
            dry_run=dry_run,
        )
    importing.tell(result, noun="keys", dry_run=dry_run, json=json, notes=_NOTES)


def _life(text: str | None) -> timedelta | None:
    if text is None:
        return None
    try:
        life = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--expires-in") from None
    if not SHORTEST_VALIDITY <= life <= LONGEST_VALIDITY:
        raise typer.BadParameter("a key lives from 1m to 25w", param_hint="--expires-in")
    return life
