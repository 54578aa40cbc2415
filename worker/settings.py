"""Every setting: read once, from the environment (`KEYTURN_*`) and `keyturn.toml`.

No other module reads the environment, and the environment wins over the file. A process calls
`load_settings` at its start: whatever is wrong is said then, all of it at once.
"""

import dataclasses
import os
from collections.abc import Mapping
from datetime import timedelta
from email.policy import default as mail_policy
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pydantic import ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, TomlConfigSettingsSource

from models.durations import format_duration
from models.errors import Misconfigured
from models.key_text import check_prefix
from models.policy import Policy
from models.roles import Role
from models.rotation_policy import CLAIM, DEFAULT, RotationPolicy
from worker.setting_fields import PREFIX, Fields
from worker.setting_sinks import ExecSink, SinkTable
from worker.setting_tables import RotationPolicyTable, Source
from worker.setting_types import (
    REDIS_SCHEMES,
    home_path,
    is_loopback,
    one_line,
    unencrypted_host,
)
from worker.settings_file import checked

if TYPE_CHECKING:
    from worker.embedded import Embedded


def config_path() -> Path:
    """The file of settings: `KEYTURN_CONFIG`, else `keyturn.toml` in the working directory."""
    named = os.environ.get(f"{PREFIX}CONFIG", "").strip()
    try:
        return home_path(Path(named or "keyturn.toml"))
    except ValueError as error:
        raise Misconfigured(f"a setting is wrong:\n  {PREFIX}CONFIG: {error}") from None


class Settings(Fields):
    """The settings of one process. Durations are `timedelta`; URLs never show in its repr.

    Each field is `KEYTURN_<FIELD>` in the environment and `<field>` in `keyturn.toml`; `sources`
    and `roles` are tables of the file only. A URL or directory that is not set is that of the
    embedded servers, if they run.
    """

    @field_validator("given_database_url")
    @classmethod
    def _encrypted_database(cls, url: str | None, info: ValidationInfo) -> str | None:
        host = url and unencrypted_host(url, os.environ)
        if host and not info.data.get("allow_plaintext_database"):
            raise ValueError(
                f"{host} might be reached without TLS: add ?sslmode=verify-full (or verify-ca, or "
                f"require), or, inside a private network, set "
                f"{PREFIX}ALLOW_PLAINTEXT_DATABASE=true"
            )
        return url

    @field_validator("given_broker_url", "given_stream_url", "given_amqp_url")
    @classmethod
    def _encrypted(cls, url: str | None, info: ValidationInfo) -> str | None:
        parts = urlsplit(url or "")
        plain = parts.scheme in ("redis", "amqp") and not is_loopback(parts.hostname or "")
        if plain and not info.data.get("allow_plaintext_broker"):
            raise ValueError(
                f"{parts.hostname} would be reached without TLS: write {parts.scheme}s://, or, "
                f"inside a private network, set {PREFIX}ALLOW_PLAINTEXT_BROKER=true"
            )
        return url

    @field_validator("lease")
    @classmethod
    def _over_statement(cls, lease: timedelta, info: ValidationInfo) -> timedelta:
        return _over(lease, "statement_timeout", info)

    @field_validator("visibility_timeout")
    @classmethod
    def _over_lease(cls, timeout: timedelta, info: ValidationInfo) -> timedelta:
        return _over(timeout, "lease", info)

    @field_validator("key_prefix")
    @classmethod
    def _usable_prefix(cls, prefix: str) -> str:
        try:
            return check_prefix(prefix)
        except Misconfigured as error:
            raise ValueError(str(error)) from None

    @field_validator("mail_from")
    @classmethod
    def _one_sender(cls, sender: str) -> str:
        one_line(sender)
        try:
            header = mail_policy.header_factory("From", sender)
            good = len(header.addresses) == 1 and header.addresses[0].domain and not header.defects
        except Exception:  # Python's parser trips over some texts that are no address
            good = False
        if not good:
            raise ValueError("not one address: write it like 'Keyturn <keyturn@example.com>'")
        return sender

    @field_validator("smtp_url")
    @classmethod
    def _private_login(cls, url: str | None, info: ValidationInfo) -> str | None:
        parts = urlsplit(url or "")
        encrypted = parts.scheme == "smtps" or info.data.get("smtp_starttls")
        if parts.password and not encrypted and not is_loopback(parts.hostname or ""):
            raise ValueError(
                "the password would travel in clear: write smtps://, or set "
                f"{PREFIX}SMTP_STARTTLS=true"
            )
        if url and info.data.get("mail_from") == cls.model_fields["mail_from"].default:
            raise ValueError(f"nobody is named as sender: set {PREFIX}MAIL_FROM as well")
        return url

    @field_validator("given_mail_channel")
    @classmethod
    def _has_server(cls, channel: str | None, info: ValidationInfo) -> str | None:
        if channel == "smtp" and info.data.get("smtp_url", "unreadable") is None:
            raise ValueError(f"'smtp' needs a server: set {PREFIX}SMTP_URL as well")
        return channel

    @field_validator("sources")
    @classmethod
    def _streams_apart(cls, sources: dict[str, Source], info: ValidationInfo) -> dict[str, Source]:
        owners = {info.data.get("out_stream"): "Keyturn's own events (out_stream)"}
        for name, source in sources.items():
            if source.stream is None:
                continue
            if source.stream in owners:
                raise ValueError(
                    f"{name} reads {source.stream!r}, which is that of {owners[source.stream]}: "
                    "give each source a stream of its own"
                )
            owners[source.stream] = name
        return sources

    @field_validator("sinks")
    @classmethod
    def _within_lease(
        cls, sinks: dict[str, SinkTable], info: ValidationInfo
    ) -> dict[str, SinkTable]:
        lease = info.data.get("lease")
        for name, sink in sinks.items():
            if lease and isinstance(sink, ExecSink) and sink.timeout > lease / 2:
                raise ValueError(
                    f"{name}: timeout must be at most half of lease ({format_duration(lease)}), or"
                    " another worker would hand the same key over: shorten it"
                )
        return sinks

    @field_validator("given_rotation_policies")
    @classmethod
    def _sinks_there(
        cls, policies: dict[str, RotationPolicyTable], info: ValidationInfo
    ) -> dict[str, RotationPolicyTable]:
        there = {CLAIM, *info.data.get("sinks", {})}
        for name, table in policies.items():
            if "sinks" in info.data and table.sink not in there:
                raise ValueError(
                    f"{name} names the sink {table.sink!r}, which is none of "
                    f"{', '.join(sorted(there))}: add [sinks.{table.sink}], or name one of these"
                )
        return policies

    @field_validator("given_rotation_policies")
    @classmethod
    def _policies_there(
        cls, policies: dict[str, RotationPolicyTable], info: ValidationInfo
    ) -> dict[str, RotationPolicyTable]:
        there = {DEFAULT, *policies}
        for role, table in info.data.get("given_roles", {}).items():
            if table.rotation_policy not in (None, *there):
                raise ValueError(
                    f"role {role} names the rotation policy {table.rotation_policy!r}, which is "
                    f"none of {', '.join(sorted(there))}: add [rotation_policies."
                    f"{table.rotation_policy}], or name one of these"
                )
        return policies

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given in code wins over the environment, and that over `keyturn.toml`."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_path())

    @property
    def database_url(self) -> str:
        """The database. Raises Misconfigured if none is set and no embedded one runs."""
        return self.given_database_url or self._embedded("database_url").database_url

    @property
    def broker_url(self) -> str:
        """The broker. Raises Misconfigured if none is set and no embedded one runs."""
        return self.given_broker_url or self._embedded("broker_url").broker_url

    @property
    def has_streams(self) -> bool:
        """Whether there is a Redis or Valkey for streams. Raises Misconfigured as `broker_url`."""
        return urlsplit(self.given_stream_url or self.broker_url).scheme in REDIS_SCHEMES

    @property
    def stream_url(self) -> str:
        """The server of the streams: its own, or the broker. Raises Misconfigured if it is AMQP."""
        if not self.has_streams:
            raise Misconfigured(
                f"{PREFIX}STREAM_URL is not set, and the broker is no Redis or Valkey, which "
                f"streams need: set {PREFIX}STREAM_URL to one, such as redis://localhost:6379/0"
            )
        return self.given_stream_url or self.broker_url

    @property
    def amqp_url(self) -> str:
        """RabbitMQ of the sources with an exchange: its own, or the broker.

        Raises Misconfigured if the broker is none, and as `broker_url` does.
        """
        url = self.given_amqp_url or self.broker_url
        if urlsplit(url).scheme in REDIS_SCHEMES:
            raise Misconfigured(
                f"{PREFIX}AMQP_URL is not set, and the broker is no RabbitMQ, which sources with "
                f"an exchange need: set {PREFIX}AMQP_URL to one, such as amqp://localhost:5672//"
            )
        return url

    @property
    def secrets_dir(self) -> Path:
        """The directory of peppers and keys. Raises Misconfigured as `database_url` does."""
        return self.given_secrets_dir or self._embedded("secrets_dir").secrets_dir

    @property
    def mail_channel(self) -> Literal["maildir", "smtp", "none"]:
        """How mails leave."""
        return self.given_mail_channel or ("smtp" if self.smtp_url else "maildir")

    @property
    def maildir_path(self) -> Path:
        """The directory of the Maildir, whether or not mails go there."""
        if self.maildir or self.data_dir:
            return self.maildir or Path(self.data_dir or "", "mail")
        from worker.embedded import find_home

        return find_home().path / "mail"

    @property
    def roles(self) -> Mapping[str, Role]:
        """The roles, by name."""
        return {
            name: Role(name, role.permissions, role.grantable, role.rotation_policy)
            for name, role in self.given_roles.items()
        }

    @property
    def rotation_policies(self) -> Mapping[str, RotationPolicy]:
        """The rotation policies, by name; there is always one named `default`."""
        given = {name: table.policy() for name, table in self.given_rotation_policies.items()}
        return {DEFAULT: RotationPolicy(), **given}

    @property
    def silent_after(self) -> Mapping[str, timedelta]:
        """How long a source may be silent, by its name, of those that say so."""
        said = {name: source.silent_after for name, source in self.sources.items()}
        return {name: normal for name, normal in said.items() if normal is not None}

    def policy(self) -> Policy:
        """The settings that the domain needs."""
        names = [field.name for field in dataclasses.fields(Policy)]
        return Policy(**{name: getattr(self, name) for name in names})

    def _embedded(self, name: str) -> "Embedded":
        from worker.embedded import running  # itself reads settings

        servers = running(self.data_dir)
        if servers is None:
            raise Misconfigured(
                f"{PREFIX}{name.upper()} is not set, and no embedded server runs: "
                f"start `make run`, or set {PREFIX}{name.upper()}"
            )
        return servers


def _over(duration: timedelta, other: str, info: ValidationInfo) -> timedelta:
    least = info.data.get(other)
    if least is not None and duration <= least:
        raise ValueError(f"must be longer than {other} ({format_duration(least)}): raise it")
    return duration


def load_settings() -> Settings:
    """The settings of this process, checked. Raises Misconfigured with one line for each fault."""
    return checked(Settings, config_path(), os.environ)
