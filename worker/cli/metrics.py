"""`keyturn metrics`: how things stand, for Prometheus."""

import signal
from typing import Annotated

import typer

from models.errors import Misconfigured
from worker.cli import output, session
from worker.cli.output import Json


def metrics(
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Answer scrapes there until Ctrl-C or SIGTERM."),
    ] = None,
    json: Json = False,
) -> None:
    """Print metrics in Prometheus's text format, or serve them.

    They are read from the database and are about all workers: one process that serves is enough.
    """
    from worker.metrics import Metrics

    address = None if listen is None else _address(listen)
    with session.operator() as client:
        found = Metrics(client.status)
        if address is None:
            output.answer(json, client.status(), found.text().decode().rstrip("\n"))
            return
        host, port = address
        ends = {signal.SIGINT, signal.SIGTERM}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # in the server's threads too
        try:
            with found.served(host, port) as bound:
                output.answer(json, {"port": bound}, f"Serving http://{host}:{bound}/metrics")
                signal.sigwait(ends)
        except OSError as error:
            raise Misconfigured(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another --listen"
            ) from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _address(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 2**16):
        raise typer.BadParameter("write HOST:PORT, as in 127.0.0.1:9464", param_hint="--listen")
    return host.strip("[]"), int(port)
