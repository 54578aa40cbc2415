"""`keyturn events publish`: a message as its producer would send it."""

import json as json_text
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from models.errors import NotFound, Refused
from worker.cli import output, parsing, session
from worker.cli.output import Json

if TYPE_CHECKING:
    from worker.setting_tables import Source


def publish(
    file: Annotated[str, typer.Argument(metavar="FILE", help="One message, or - for stdin.")],
    source: Annotated[
        str,
        typer.Option(metavar="NAME", help="The source of keyturn.toml that it is to come from."),
    ],
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A header of the message; may be repeated."),
    ] = None,
    routing_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="On RabbitMQ: its routing key; unset: one that the source's routing_keys match.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Publish a message as the producer of a source does.

    It goes to its stream, or to its exchange, as it is, and takes effect when
    intake and a worker run. A file *.http holds a request line, headers and a body.
    """
    from worker.intake.providers.reading import MAX_BODY

    headers, body = parsing.message(file, dict(parsing.header_of(one) for one in header or ()))
    if len(body) > MAX_BODY:
        raise Refused("too_large", f"the message has over {MAX_BODY} bytes, and would be refused")
    settings = session.settings()
    given = settings.sources.get(source)
    if given is None:
        names = ", ".join(settings.sources)
        raise NotFound(
            "source_unknown", f"no source {source!r} in the settings; they name: {names}"
        )
    if given.stream is not None:
        if routing_key is not None:
            raise typer.BadParameter("this source has a stream", param_hint="--routing-key")
        entry = _to_stream(settings.stream_url, given.stream, headers, body)
        output.answer(json, {"stream": given.stream, "entry": entry}, entry)
        return
    key = routing_key if routing_key is not None else _matching(given.routing_keys[0])
    identity = _to_exchange(settings.amqp_url, given, key, headers, body)
    told = {"exchange": given.exchange, "routing_key": key, "message_id": identity}
    output.answer(json, told, identity)


def _to_stream(url: str, stream: str, headers: Mapping[str, str], body: bytes) -> str:
    from worker.streams import connect

    fields: dict[str, bytes | str] = {"body": body}
    if headers:
        fields["headers"] = json_text.dumps(headers)
    with connect(url) as server:
        entry: bytes = server.xadd(stream, dict(fields))
    return entry.decode("ascii")


def _matching(pattern: str) -> str:
    """A routing key that a topic exchange takes for one of `pattern`."""
    words = [{"*": "keyturn", "#": "keyturn"}.get(word, word) for word in pattern.split(".")]
    return ".".join(words)


def _to_exchange(
    url: str, source: "Source", key: str, headers: Mapping[str, str], body: bytes
) -> str:
    """Publish, and wait for the server's word; returns the message's id."""
    import time
    import uuid

    from amqp import exceptions as amqp  # type: ignore[import-untyped]

    from worker.intake.amqp_frames import TIMEOUT, connect

    identity = str(uuid.uuid4())
    kind = headers.get("content-type", "application/json")
    rest = {name: value for name, value in headers.items() if name != "content-type"}
    connection = connect(url)
    try:
        channel = connection.channel()
        message = channel.prepare_message(
            body,
            content_type=kind,
            headers=rest,
            properties={
                "delivery_mode": 2,
                "message_id": identity,
                "timestamp": int(time.time()),
            },
        )
        channel.basic_publish(
            message, source.exchange, key, mandatory=True, confirm_timeout=TIMEOUT
        )
        connection.close()
    except amqp.NotFound:
        why = f"there is no exchange {source.exchange!r}: start its producer, or make it"
        raise Refused("exchange_missing", why) from None
    except amqp.AccessRefused:
        why = f"this user of RabbitMQ may not publish to {source.exchange!r}"
        raise Refused("access_refused", why) from None
    except amqp.AMQPError as error:
        if getattr(error, "reply_code", None) != _NO_ROUTE:
            raise
        raise Refused(
            "not_routed",
            f"no queue takes {key!r} there: start `keyturn intake` once, which makes and binds "
            "its queue, or name another --routing-key",
        ) from None
    finally:
        connection.collect()
    return identity


_NO_ROUTE = 312
"""The code with which AMQP gives back a message that no queue takes."""
