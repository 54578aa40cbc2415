"""`keyturn secrets`: which versions of the peppers and key-encryption keys are needed."""

import time
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from models import keyring, resealing, secret_files
from models.base import Database
from models.keyring import Keyring, SecretVersion
from worker.cli import failures, output, session
from worker.cli.asking import DryRun, Yes, agreed
from worker.cli.output import Json

MARGIN: Final = 1.0
"""Seconds beyond the time in which running processes look at the files again."""

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


@app.command("rotate")
def rotate_secret(
    kind: Annotated[Kind, typer.Argument(help="pepper or kek.")],
    yes: Yes = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Make the next version of a secret and put it to use, on one machine; asks before.

    Nothing is refused meanwhile, and nothing is restarted. What is sealed under
    an older key-encryption key is sealed anew. Given again after an
    interruption, it goes on with the version that was made.
    """
    settings = session.settings()
    directory = settings.secrets_dir
    path = secret_files.following(directory, kind.value)
    plan = [
        f"{path or f'The next {kind.value}'} in {directory} would be used for everything new.",
        "That is right only where all processes read this directory. For several machines: "
        f"`keyturn secrets add {kind.value}` (docs/secrets.md).",
    ]
    would = {"action": "rotate", "secret": kind.value, "path": path and str(path)}
    if not agreed("Rotate it?", plan, would, yes=yes, dry_run=dry_run, json=json):
        return
    with session.operator(settings) as client:
        path = path or secret_files.make(directory, kind.value)
        _await_notice(path.stat().st_mtime)
        current = secret_files.use(path)
        resealed = _reseal(client.database, directory) if kind is Kind.KEK else 0
        found = client.database.run(lambda tx: keyring.versions(tx, directory))
    document = {"path": str(current), "resealed": resealed, "versions": found}
    output.answer(json, document, *_told(kind, current, resealed, found))


def _await_notice(since: float) -> None:
    """Wait until every running process must have looked at the files since then (Unix time)."""
    wait = keyring.LOOK_EVERY + MARGIN - (time.time() - since)
    if wait > 0:
        output.say(f"Waiting {wait:.0f} s, until all processes have noticed.")
        time.sleep(min(wait, keyring.LOOK_EVERY + MARGIN))


def _reseal(database: Database, directory: Path) -> int:
    """Seal what waits under older keys anew; what the worker seals under one last is found too."""
    _await_notice(time.time())
    sealer = Keyring.from_directory(directory).sealer
    after, changed = resealing.FIRST, 0
    while True:
        step = database.run(partial(resealing.step, sealer=sealer, after=after))
        after, changed = step.after, changed + step.changed
        if step.finished:
            return changed


def _told(kind: Kind, current: Path, resealed: int, found: Sequence[SecretVersion]) -> list[str]:
    lines = [f"{current.name} is in use."]
    if kind is Kind.KEK:
        lines.append(f"Sealed anew: {resealed} secrets that wait for their holders.")
    for one in found:
        if one.use != "old" or not one.name.startswith(f"{kind.value}-"):
            continue
        if one.may_retire:
            lines.append(
                f"{one.name} may go: remove {current.with_name(one.name)}, then restart what runs."
            )
        else:
            why = (
                "until they have ended, or are rotated (`keyturn rotations plan`)"
                if kind is Kind.PEPPER
                else "until the worker has sealed them anew"
            )
            lines.append(f"{one.name} is still needed by {one.named_by}, {why}.")
    return lines
