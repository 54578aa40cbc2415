"""`keyturn events parse`: what a message means, without a database, a broker or a secret."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models.errors import NotFound, Refused
from worker.cli import failures, output, session
from worker.cli.output import Json

if TYPE_CHECKING:
    from worker.intake.providers import Parser, Result

AUTO = "auto"


def parse(
    file: Annotated[str, typer.Argument(metavar="FILE", help="One message, or - for stdin.")],
    provider: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Who sends such messages; auto guesses and says why."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Read it as this source of keyturn.toml would."),
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The mapping (TOML) of the provider mapped."),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A header of the message; may be repeated."),
    ] = None,
    json: Json = False,
) -> None:
    """Print what a provider's message means, as a JSON list.

    Nothing is stored or sent. Signatures are checked only with --source. What cannot be read
    is told on stderr, with exit code 3; the readable events of a batch are printed all the same. A
    file *.http holds a request line, headers and a body.
    """
    from worker.intake.providers import Unreadable

    headers, body = message(file, dict(header_of(one) for one in header or ()))
    try:
        results = _parser(provider, source, mapping, headers, body)(headers, body)
    except NotFound:
        raise
    except Refused as refusal:
        if json:
            raise
        _tell(refusal)
        if isinstance(refusal, Unreadable):
            _hint(provider or _provider(source), headers, body)
        raise typer.Exit(failures.REFUSED) from None
    refused = [one for one in results if isinstance(one, Unreadable)]
    output.answer(True, [one for one in results if not isinstance(one, Unreadable)])
    for one in refused:
        _tell(one)
    if refused:
        if len(refused) == len(results):
            _hint(provider or _provider(source), headers, body)
        raise typer.Exit(failures.REFUSED)


def _parser(
    provider: str | None,
    source: str | None,
    mapping: Path | None,
    headers: Mapping[str, str],
    body: bytes,
) -> "Parser":
    from worker.intake import providers
    from worker.intake.providers.mapping import from_toml

    if (provider is None) == (source is None):
        raise typer.BadParameter("name either a provider or a source", param_hint="--provider")
    if source is not None:
        return _of_source(source)
    if provider == AUTO:
        return providers.parser(_guessed(headers, body))
    _one_of(provider or "", (*providers.NAMES, AUTO))
    if (provider == providers.MAPPED) != (mapping is not None):
        raise typer.BadParameter(
            f"the provider {providers.MAPPED}, and no other, needs it", param_hint="--mapping"
        )
    if mapping is None:
        return providers.parser(provider or "")
    text = _bytes(str(mapping)).decode("utf-8", "replace")
    return providers.parser(providers.MAPPED, from_toml(text, mapping.name))


def _of_source(name: str) -> "Parser":
    """The source's adapter, behind its envelope and its proof."""
    from worker.intake import verification

    settings = session.settings()
    if name not in settings.sources:
        names = ", ".join(settings.sources)
        raise NotFound("source_unknown", f"no source {name!r} in the settings; they name: {names}")
    parser = settings.sources[name].parser()

    def read(headers: Mapping[str, str], body: bytes) -> "list[Result]":
        headers, body = verification.opened(headers, body)
        try:
            verification.verify(settings, name, headers, body)
        except verification.KeysUnavailable as error:
            why = f"nobody can say whose message this is: {error}; try again"
            raise Refused("keys_unavailable", why) from None
        return parser(headers, body)

    return read


def _guessed(headers: Mapping[str, str], body: bytes) -> str:
    from worker.intake.providers import Unreadable
    from worker.intake.providers.guess import provider_of

    found = provider_of(headers, body)
    if found is None:
        raise Unreadable(
            "not_recognised", "no provider sends messages like this one; name it with --provider"
        )
    provider, why = found
    output.say(f"keyturn: read as {provider}: {why}")
    return provider


def _provider(source: str | None) -> str:
    return session.settings().sources[source or ""].provider


def _hint(provider: str, headers: Mapping[str, str], body: bytes) -> None:
    """Of a message of which nothing could be read: whose it looks like, if not the one named."""
    from worker.intake.providers.guess import provider_of

    if provider == AUTO:
        return
    found = provider_of(headers, body)
    if found is not None and found[0] != provider:
        output.say(f"keyturn: it looks like a message of {found[0]}: {found[1]}")


def _one_of(provider: str, names: Sequence[str]) -> None:
    if provider not in names:
        raise typer.BadParameter(
            f"no such provider; choose one of: {', '.join(names)}", param_hint="--provider"
        )


def _tell(refusal: Refused) -> None:
    output.say(f"keyturn: {refusal.code}: {refusal.message}")


def header_of(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise typer.BadParameter("write NAME=VALUE", param_hint="--header")
    if any(sign.isspace() for sign in name.strip()):
        raise typer.BadParameter(
            "a header's name has no blank; write NAME=VALUE, not 'NAME: VALUE'",
            param_hint="--header",
        )
    return name.strip().lower(), value


def message(file: str, given: Mapping[str, str]) -> tuple[dict[str, str], bytes]:
    """Headers and body: those of the file, if it holds a request, and those given beside it."""
    from worker.intake.providers import http_text

    content = _bytes(file)
    whole = http_text.parsed(content) if file.endswith(".http") else None
    if whole is None:
        return dict(given), content
    return {**whole[0], **given}, whole[1]


def _bytes(file: str) -> bytes:
    """The message; of one that is too large, only as much as shows that."""
    from worker.intake.providers.reading import MAX_BODY

    if file == "-":
        return sys.stdin.buffer.read(MAX_BODY + 1)
    try:
        with Path(file).open("rb") as opened:
            return opened.read(MAX_BODY + 1)
    except OSError as error:
        raise typer.BadParameter(f"cannot read {file}: {error.strerror}") from None
