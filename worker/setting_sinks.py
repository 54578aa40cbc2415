"""The tables `[sinks.NAME]` of `keyturn.toml`: where new keys may go by themselves."""

import re
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from models.rotation_policy import CLAIM, UNDECIDED
from worker.setting_types import HomePath, Line, Period, is_loopback, one_line, split_url
from worker.sink_names import checked

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
FACTS: Final = ("rotation_id", "key_id", "expires_at")
"""What a secret in Vault says of the key beside its text."""
LONGEST_PROGRAM: Final = timedelta(seconds=60)


def _sink_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(
            "not a usable name: write a small letter, then small letters, digits, - or _"
        )
    if value in (CLAIM, UNDECIDED):
        raise ValueError("the name is Keyturn's own: choose another one for this sink")
    return value


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("write the whole path, from / on")
    return path


def _command(command: tuple[str, ...]) -> tuple[str, ...]:
    for word in command:
        if "\0" in word:
            raise ValueError("a word holds the character NUL, which no program can be given")
    _absolute(Path(one_line(command[0])))
    return command


def _program_time(value: timedelta) -> timedelta:
    if value > LONGEST_PROGRAM:
        raise ValueError("too long: write 60s or less, or other hand-overs would wait")
    return value


def _server(url: str) -> str:
    parts = split_url(url, ("https", "http"), "https://vault.example.com:8200")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("write the scheme, host and port alone")
    if parts.scheme == "http" and not is_loopback(urlsplit(url).hostname or ""):
        raise ValueError("the new key would travel in clear: write https://")
    return url


def _own_field(name: str) -> str:
    if name in FACTS:
        raise ValueError("the secret has a field of this name already: choose another one")
    return name


SinkName = Annotated[str, AfterValidator(_sink_name)]
Address = Annotated[str, AfterValidator(_server)]
AbsolutePath = Annotated[HomePath, AfterValidator(_absolute)]
Plain = Annotated[Line, Field(min_length=1, max_length=200)]
FieldName = Annotated[Plain, AfterValidator(_own_field)]
FileName = Annotated[str, AfterValidator(partial(checked, folders=False))]
SecretName = Annotated[str, AfterValidator(partial(checked, folders=True))]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class SealedSink(_Table):
    """The new key sealed to the public key of its account."""

    kind: Literal["sealed"] = Field(description="`sealed`")
    send: Literal["mail", "events", "both"] = Field(
        default="mail",
        description="how it leaves: a 'mail' to the account, an event 'key.sealed' on the stream "
        "of 'events', or 'both'",
    )


class FileSink(_Table):
    """A file for each key, put in place of the one before."""

    kind: Literal["file"] = Field(description="`file`")
    directory: AbsolutePath = Field(
        description="where the files are; Keyturn's own, closed to writing by others"
    )
    name: FileName = Field(default="{family_id}", description="the name of a key's file")


class ExecSink(_Table):
    """A program that gets the new key on its standard input."""

    kind: Literal["exec"] = Field(description="`exec`")
    command: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_command)] = Field(
        description="the program, by its whole path, and its arguments; no shell reads them"
    )
    timeout: Annotated[Period, AfterValidator(_program_time)] = Field(
        default=timedelta(seconds=30),
        description="after this it is killed, with all that it started; 60s at most",
    )


class VaultSink(_Table):
    """A secret in the KV store, version 2, of HashiCorp Vault or OpenBao."""

    kind: Literal["vault"] = Field(description="`vault`")
    address: Address = Field(description="the server, as `https://vault.example.com:8200`")
    token_file: AbsolutePath = Field(
        description="the file with the token, read anew for each key; closed to others"
    )
    path: SecretName = Field(
        default="keyturn/{family_id}", description="the path of a key's secret in the store"
    )
    mount: SecretName = Field(default="secret", description="where the store is mounted")
    namespace: Plain | None = Field(default=None, description="the namespace, if there are any")
    field: FieldName = Field(
        default="api_key", description="the field of the secret that has the text"
    )
    ca_file: AbsolutePath | None = Field(
        default=None, description="the authority of the server's certificate; unset: the usual ones"
    )


class AwsSink(_Table):
    """A secret in AWS Secrets Manager."""

    kind: Literal["aws-secretsmanager"] = Field(description="`aws-secretsmanager`")
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")] = Field(
        description="the region, such as `eu-central-1`"
    )
    name: SecretName = Field(
        default="keyturn/{family_id}", description="the name of a key's secret"
    )
    create: bool = Field(default=False, description="whether a secret that is missing is made")
    endpoint: Address | None = Field(
        default=None, description="the service's own address, such as a VPC endpoint"
    )


SinkTable: TypeAlias = Annotated[
    SealedSink | FileSink | ExecSink | VaultSink | AwsSink, Field(discriminator="kind")
]
KINDS: Final[dict[str, type[BaseModel]]] = {
    "sealed": SealedSink,
    "file": FileSink,
    "exec": ExecSink,
    "vault": VaultSink,
    "aws-secretsmanager": AwsSink,
}
