"""`keyturn secrets`: which versions of the peppers and key-encryption keys are needed."""

from enum import StrEnum
from typing import Annotated

import typer

from models import keyring, secret_files
from worker.cli import failures, output, session
from worker.cli.output import Json

app = typer.Typer(
    name="secrets",
    no_args_is_help=True,
    callback=output.group,
    help="Peppers and key-encryption keys, by version.",
)


class Kind(StrEnum):
    """The names of secrets."""

    PEPPER = "pepper"
    KEK = "kek"


@app.command("list")
def list_secrets(json: Json = False) -> None:
    """List the versions here, what needs each, and whether it may go.

    Two machines that show different fingerprints for one version have different secrets. Exit
    code 1 if one is missing that keys or sealed secrets need.
    """
    settings = session.settings()
    with session.operator(settings) as client:
        found = client.database.run(lambda tx: keyring.versions(tx, settings.secrets_dir))
    rows = [(one.name, one.use, one.fingerprint, one.named_by, one.may_retire) for one in found]
    headings = ("SECRET", "USE", "FINGERPRINT", "NEEDED BY", "MAY GO")
    output.answer(json, found, output.Table(headings, rows, whole=frozenset({"SECRET"})))
    if any(one.use == "missing" for one in found):
        raise typer.Exit(failures.FAILED)


@app.command("add")
def add_secret(
    kind: Annotated[Kind, typer.Argument(help="pepper or kek.")], json: Json = False
) -> None:
    """Make the next version of a secret, which is not used for anything new yet.

    Copy it to every machine; then rename it, without .next, on each.
    """
    settings = session.settings()
    path = secret_files.make(settings.secrets_dir, kind.value)
    current = path.with_name(path.name.removesuffix(".next"))
    following = (
        f"Copy it to every machine first; then, on each: mv {path} {current}"
        if path != current
        else "Copy it to every machine."
    )
    output.answer(json, {"path": str(path)}, f"Made {path}.", following)
