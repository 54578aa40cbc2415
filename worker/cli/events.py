"""`keyturn events`: what came in about accounts; read it, replay it, try an adapter, send one."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeAlias

import typer

from models.errors import Misconfigured
from models.inbox import InboxEvent
from worker.cli import output, parsing, publishing, session, times
from worker.cli.output import Json
from worker.settings import Settings

app = typer.Typer(
    name="events", no_args_is_help=True, callback=output.group, help="Account events that came in."
)

State: TypeAlias = Literal[
    "received", "waiting_for_account", "done", "stale", "ignored", "parked", "rejected"
]
EventNumber = Annotated[
    int, typer.Argument(metavar="ID", min=1, max=2**63 - 1, help="An event's number.")
]


@app.command("list")
def list_events(
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, max=100_000, help="At most so many.")
    ] = 100,
    json: Json = False,
) -> None:
    """List events, the newest first."""
    with session.operator() as client:
        found = client.events(state=state, limit=limit)
    rows = [
        (one.id, times.ago(one.received_at), one.source, _what(one), _whom(one), _how(one))
        for one in found
    ]
    headings = ("ID", "RECEIVED", "SOURCE", "WHAT", "WHOM", "STATE")
    output.answer(json, found, output.Table(headings, rows, empty="No events."))


def _what(event: InboxEvent) -> str:
    return event.action or "unreadable"


def _whom(event: InboxEvent) -> str:
    if event.key_digest:
        return f"SHA-256 {event.key_digest[:12]}"
    return event.subject[0]["value"] if event.subject else "-"


def _how(event: InboxEvent) -> str:
    return f"{event.state}: {event.reason}" if event.reason else event.state


@app.command()
def show(event: EventNumber, json: Json = False) -> None:
    """Show one event."""
    with session.operator() as client:
        found = client.event(event)
    facts = output.facts(
        id=found.id,
        state=found.state,
        reason=found.reason,
        source=f"{found.source} (read as {found.provider})",
        type=found.raw_type,
        action=found.action,
        certainty=found.certainty,
        subject=[f"{one['format']}: {one['value']}" for one in found.subject or ()],
        key_digest=found.key_digest,
        account=found.account_id,
        event_id=found.event_id,
        sequence=found.sequence,
        occurred=found.occurred_at,
        received=found.received_at,
        finished=found.finished_at,
        attempts=found.attempts,
    )
    output.answer(json, found, facts)


@app.command()
def replay(event: EventNumber, json: Json = False) -> None:
    """Look at an event that was rejected, parked or waits again.

    What takes part now are today's code, settings and accounts.
    """
    from worker.intake.accept import replay as replay_event

    settings = session.settings()
    with session.operator(settings) as client:
        outcomes = replay_event(client, settings, event)
    output.answer(
        json,
        {"id": event, "outcomes": outcomes},
        f"Event {event} is looked at again: {', '.join(outcomes)}.",
    )


@app.command()
def dismiss(
    event: EventNumber,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the audit.")],
    json: Json = False,
) -> None:
    """End an event that waits for a person.

    It was rejected, parked, or waits for an account, and nothing is to be done about it.
    """
    with session.operator() as client:
        client.dismiss_event(event, reason)
    output.answer(json, {"id": event, "dismissed": True}, f"Event {event} is dismissed.")


app.command()(parsing.parse)
app.command()(publishing.publish)


@app.command()
def send(
    type: Annotated[str, typer.Argument(metavar="TYPE", help="account.disabled, .enabled, ...")],
    subject: Annotated[
        str,
        typer.Argument(
            metavar="ACCOUNT",
            help="E-mail address, id, or a producer's id; a producer's id of a tenant.",
        ),
    ],
    id: Annotated[
        str | None, typer.Option(metavar="ID", help="Its own id: sent twice, it counts once.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="When it happened, as 2026-11-23T08:40:00Z.")
    ] = None,
    sequence: Annotated[str | None, typer.Option(metavar="N", help="A rising number.")] = None,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Why, for information.")
    ] = None,
    json: Json = False,
) -> None:
    """Publish an account event, as a producer does.

    It goes to the stream of the native source; where there are no streams (RabbitMQ), as the task
    account.event. Types: account.disabled, account.enabled, account.deleted, account.compromised,
    and the same of a tenant: tenant.disabled and so on. It takes effect when intake and a worker
    run.
    """
    from worker.intake.providers.native import subject_field

    given = {
        "type": type,
        subject_field(type): subject,
        "id": id,
        "at": at,
        "sequence": sequence,
        "reason": reason,
    }
    fields = {name: value for name, value in given.items() if value is not None}
    _check(fields)
    settings = session.settings()
    if not settings.has_streams:
        task = _call(settings, fields)
        output.answer(json, {"task": task}, task)
        return
    stream = _native_stream(settings)
    entry = _publish(settings.stream_url, stream, fields)
    output.answer(json, {"stream": stream, "entry": entry}, entry)


def _check(fields: Mapping[str, str]) -> None:
    from worker.intake.providers import Unreadable, native

    try:
        results: Sequence[object] = native.from_fields(
            {name.encode(): value.encode() for name, value in fields.items()}
        )
        wrong = [one for one in results if isinstance(one, Unreadable)]
    except Unreadable as error:
        wrong = [error]
    if wrong:
        raise typer.BadParameter(f"{wrong[0].message} ({wrong[0].code})")


def _native_stream(settings: Settings) -> str:
    streams = [
        one.stream
        for one in settings.sources.values()
        if one.provider == "native" and one.stream is not None
    ]
    if not streams:
        raise Misconfigured(
            "no source in keyturn.toml has provider = 'native' and a stream: add one to send"
        )
    return streams[0]


def _publish(url: str, stream: str, fields: Mapping[str, str]) -> str:
    from worker.streams import connect

    with connect(url) as server:
        entry: bytes = server.xadd(stream, dict(fields))
    return entry.decode("ascii")


def _call(settings: Settings, fields: Mapping[str, str]) -> str:
    from worker.app import TASK_EVENT, make_app

    sent = make_app(settings).send_task(TASK_EVENT, args=[dict(fields)])
    return str(sent.id)
