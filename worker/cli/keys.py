"""`keyturn keys`: create, look at, stop, end, check and rotate keys."""

import re
import sys
from typing import Annotated, Any, Literal, TypeAlias

import typer

from models.creation import TimeUnit
from models.durations import parse_duration
from models.errors import Refused
from models.verification import REASONS
from worker.cli import failures, key_views, output, times
from worker.cli.asking import DryRun, Yes, agreed
from worker.cli.compromise import replace_compromised
from worker.cli.key_argument import no_secret
from worker.cli.listing import OfAccount, owner_id
from worker.cli.output import Json
from worker.cli.session import operator
from worker.cli.stdin import text_from_stdin
from worker.cli.use_reports import report

app = typer.Typer(name="keys", no_args_is_help=True, callback=output.group, help="API keys.")

Status: TypeAlias = Literal["active", "disabled", "expired", "retired", "deleted"]
KeyId = Annotated[str, typer.Argument(metavar="KEY", callback=no_secret, help="A key's id.")]
Reason = Annotated[str | None, typer.Option(metavar="TEXT", help="Why, for the audit.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.")],
    user: Annotated[
        str | None, typer.Option(metavar="EMAIL", help="Whose key it is: an account.")
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(metavar="ROLE", help="What it may do; `keyturn roles list` shows them."),
    ] = None,
    validity: Annotated[
        str,
        typer.Option(
            metavar="N", show_default=False, help="How long it lives, in units of --time-unit."
        ),
    ] = "0",
    time_unit: Annotated[
        str, typer.Option(metavar="UNIT", help="One of second, minute, hour, day, week.")
    ] = "second",
    allow_ip: Annotated[
        list[str] | None,
        typer.Option(metavar="CIDR", help="From where it may be used; may be repeated."),
    ] = None,
    json: Json = False,
) -> None:
    """Create a key and show its text, this once.

    It lives from 1 minute to 25 weeks. Without --allow-ip it may be used from everywhere.
    """
    with operator() as client:
        new = client.create_api_key(
            name, user, role, _number(validity), _unit(time_unit), allow_ip or None
        )
        text = new.text.reveal()
        output.answer(
            json,
            {"id": new.id, "text": text, "expires_at": new.expires_at},
            output.facts(id=new.id, text=text, ends=new.expires_at),
            "The text is shown this once: hand it to its holder now.",
        )


def _number(text: str) -> Any:
    """The whole number that was typed; anything else goes to the rules as it is, to be refused."""
    return int(text) if re.fullmatch(r"-?[0-9]{1,30}", text) else text


def _unit(name: str) -> Any:
    """The unit that was named; anything else goes to the rules as it is, to be refused."""
    return TimeUnit.__members__.get(name.upper(), name)


@app.command("list")
def list_keys(
    expiring: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Only those that end within this time, like 7d."),
    ] = None,
    account: OfAccount = None,
    status: Annotated[Status | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, max=100_000, help="At most so many.")
    ] = 1000,
    json: Json = False,
) -> None:
    """List keys, the newest first (with --expiring: the first to end)."""
    try:
        within = None if expiring is None else parse_duration(expiring)
    except Refused as error:
        raise typer.BadParameter(error.message, param_hint="--expiring") from None
    with operator() as client:
        found = client.keys(
            account=owner_id(client, account), status=status, expiring=within, limit=limit
        )
    output.answer(json, found, key_views.table(found))


@app.command()
def show(key: KeyId, json: Json = False) -> None:
    """Show one key, what holds it, and its rotation."""
    with operator() as client:
        seen = key_views.look(client, key)
    output.answer(json, seen.document(), *seen.lines())


@app.command()
def disable(
    key: KeyId,
    reason: Reason = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Stop one key until it is enabled again; asks before."""
    with operator() as client:
        seen = key_views.look(client, key)
        plan = [f"Disable {seen.named}: it is refused until it is enabled.", *seen.warnings()]
        would = {"action": "disable", **seen.document()}
        if agreed("Disable it?", plan, would, yes=yes, dry_run=dry_run, json=json):
            changed = client.disable(key, reason)
            _tell_state(client.key(key).status, key, changed, json)


@app.command()
def enable(key: KeyId, reason: Reason = None, json: Json = False) -> None:
    """Lift what `keys disable` placed, and nothing else."""
    with operator() as client:
        changed = client.enable(key, reason)
        seen = key_views.look(client, key)
    document = {"id": key, "changed": changed, "status": seen.key.status, **seen.standing()}
    first = "lifted" if changed else "was not disabled by an operator"
    output.answer(json, document, f"{key} {first}: it is {seen.key.status}.", *seen.hold_lines())


@app.command()
def delete(
    key: KeyId,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the audit.")] = "requested",
    yes: Yes = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """End a key for ever; asks before."""
    with operator() as client:
        seen = key_views.look(client, key)
        plan = [f"Delete {seen.named}: for ever.", *seen.warnings()]
        would = {"action": "delete", **seen.document()}
        if agreed("Delete it?", plan, would, yes=yes, dry_run=dry_run, json=json):
            _tell_state("deleted", key, client.delete(key, reason), json)


def _tell_state(status: str, key: str, changed: bool, json: bool) -> None:
    before = "" if changed else " It was before: nothing changed."
    document = {"id": key, "changed": changed, "status": status}
    output.answer(json, document, f"{key} is {status}.{before}")


@app.command()
def verify(
    ip: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Where it would be used from.")
    ] = None,
    json: Json = False,
) -> None:
    """Say whether the key on stdin may be used now.

    The text of the key is read from stdin. This is not a use of the key.
    Exit code 3 where it may not.
    """
    text = text_from_stdin()
    with operator() as client:
        verdict = client.verify(text, ip, record=False)
    meaning = None if verdict.reason is None else REASONS[verdict.reason]
    first = "yes" if verdict else f"no: {meaning} ({verdict.reason})"
    facts = output.facts(
        key=verdict.key_id,
        account=verdict.account,
        role=verdict.role,
        permissions=verdict.permissions,
        ends=verdict.expires_at,
    )
    output.answer(
        json, {**output.plain(verdict), "message": meaning}, first, *filter(None, [facts])
    )
    if not verdict:
        raise typer.Exit(failures.REFUSED)


@app.command()
def claim(json: Json = False) -> None:
    """Fetch the successor of the key on stdin.

    The text of the OLD key is read from stdin. The new one is shown once, to
    whoever holds the old key.
    """
    text = text_from_stdin()
    with operator() as client:
        claimed = client.claim(text)
    revealed = claimed.secret.reveal()
    document = {
        "id": claimed.key_id,
        "text": revealed,
        "name": claimed.name,
        "expires_at": claimed.expires_at,
        "rotation_id": claimed.rotation_id,
        "old_key_id": claimed.old_key_id,
        "old_expires_at": claimed.old_expires_at,
    }
    output.answer(
        json,
        document,
        output.facts(id=claimed.key_id, text=revealed, ends=claimed.expires_at),
        "The text is shown this once. Put it to use: the old key goes on working meanwhile, until "
        f"{output.shown(claimed.old_expires_at)} at the latest.",
    )


@app.command()
def rotate(
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY", callback=no_secret, help="A key's id, or - for its text on stdin."
        ),
    ],
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Asked again with the same one, it is the same rotation."
        ),
    ] = None,
    compromised: Annotated[
        bool,
        typer.Option("--compromised", help="Others know the key: stop it first, for good."),
    ] = False,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="With --compromised: why, for the audit.")
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Issue the successor of a key.

    The old one works on, and goes only after the new one was seen in use. Its
    holder fetches the new one with `keyturn keys claim`.

    With --compromised the old one is stopped at once and for good, which asks
    before, and the new one is shown here, this once: hand it to its holder.
    """
    named = text_from_stdin() if key == "-" else key
    if compromised:
        replace_compromised(named, reason, yes=yes, dry_run=dry_run, json=json)
        return
    if reason is not None or yes or dry_run:
        raise typer.BadParameter("--reason, --yes and --dry-run go with --compromised")
    try:
        with operator() as client:
            rotation = client.rotate(named, idempotency_key=idempotency_key)
    except KeyboardInterrupt:
        output.say("Interrupted. Give the same command again: a rotation that began goes on.")
        raise
    output.answer(
        json,
        rotation,
        output.facts(
            rotation=rotation.id,
            state=rotation.state,
            old_key=rotation.old_key_id,
            new_key=rotation.new_key_id,
            fetch_until=f"{output.shown(rotation.claim_until)} "
            f"({times.left(rotation.claim_until)})",
        ),
        "Its holder fetches the new key by `keyturn keys claim`, with the old one on stdin.",
    )


@app.command("report-use")
def report_use(json: Json = False) -> None:
    """Record uses that a gateway has counted.

    They are read from stdin, one JSON object a line: {"key": ID, "at": TIME, "ip":
    ADDRESS, "count": N, "refused": false}. TIME is RFC 3339 with a zone; only key
    and at are needed. A line that cannot be recorded stops no other.
    Exit code 3 where there was one.
    """
    report(sys.stdin.buffer, json=json)
