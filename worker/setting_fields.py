"""What can be set: the name, default and meaning of every setting."""

from datetime import timedelta
from typing import Final, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.policy import Policy
from worker.setting_sinks import SinkName, SinkTable
from worker.setting_tables import (
    DEFAULT_ROLES,
    DEFAULT_SOURCES,
    PolicyName,
    RoleName,
    RoleTable,
    RotationPolicyTable,
    Source,
    SourceName,
    StreamName,
)
from worker.setting_types import (
    AmqpUrl,
    Batch,
    BrokerUrl,
    Count,
    DatabaseUrl,
    Duration,
    HomePath,
    Level,
    Line,
    Period,
    Rate,
    Share,
    SmtpUrl,
    StreamUrl,
    Thresholds,
)

PREFIX: Final = "KEYTURN_"
RULES: Final = Policy()


class Fields(BaseSettings):
    """The fields of `Settings`, in an order in which each may be checked against those before it.

    A field `given_x` is the setting `x` as it was written, or None; `Settings.x` is what holds.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_prefix_target="all",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
    )

    # --- servers and places
    allow_plaintext_database: bool = Field(
        default=False,
        description="allow a database beyond this machine whose URL does not ask for TLS; "
        "only for a network that nobody else can read or write",
    )
    given_database_url: DatabaseUrl | None = Field(
        default=None,
        alias="database_url",
        repr=False,
        description="PostgreSQL 15 or newer, as `postgresql://user:password@host:5432/name`; "
        "unset: the embedded server",
    )
    allow_plaintext_broker: bool = Field(
        default=False,
        description="allow a broker or stream server without TLS beyond this machine; "
        "only for a network that nobody else can read or write",
    )
    given_broker_url: BrokerUrl | None = Field(
        default=None,
        alias="broker_url",
        repr=False,
        description="the broker of Celery: `redis(s)://` (Redis, Valkey) or `amqp(s)://` "
        "(RabbitMQ); unset: the embedded server",
    )
    given_stream_url: StreamUrl | None = Field(
        default=None,
        alias="stream_url",
        repr=False,
        description="Redis or Valkey of the streams in and out; unset: `broker_url`, if it is one",
    )
    given_amqp_url: AmqpUrl | None = Field(
        default=None,
        alias="amqp_url",
        repr=False,
        description="RabbitMQ of the sources that name an exchange, as "
        "`amqps://user:password@host:5671/vhost`; unset: `broker_url`, if it is one",
    )
    allow_broker_without_aof: bool = Field(
        default=False,
        description="allow a server of the streams that keeps no append-only file; only where "
        "account events that it had taken may be lost with it",
    )
    event_source: Line = Field(
        default="keyturn",
        min_length=1,
        max_length=200,
        description="the `source` of the events published there: a name of this installation",
    )
    out_stream: StreamName = Field(
        default="keyturn:out",
        description="the stream on which Keyturn publishes what happens to keys",
    )
    out_maxlen: Count = Field(
        default=100_000, description="about how many of the newest entries that stream keeps"
    )
    data_dir: HomePath | None = Field(
        default=None, description="where the embedded servers keep their data; unset: `.keyturn`"
    )
    given_secrets_dir: HomePath | None = Field(
        default=None,
        alias="secrets_dir",
        description="directory of the files `pepper-1`, `kek-1` and so on; unset: that of the "
        "embedded servers",
    )
    pg_bin: HomePath | None = Field(
        default=None,
        description="directory of the PostgreSQL programs that the embedded server uses",
    )

    # --- the worker
    concurrency: int = Field(default=8, ge=1, le=256, description="threads of one worker")
    statement_timeout: Period = Field(
        default=timedelta(seconds=15), description="the longest that one SQL statement may run"
    )
    lease: Period = Field(
        default=RULES.lease,
        description="how long claimed work belongs to one worker; over `statement_timeout`",
    )
    visibility_timeout: Period = Field(
        default=timedelta(seconds=600),
        description="when Redis hands out an unacknowledged message again; over `lease`",
    )
    log_level: Level = Field(default="info", description="debug, info, warning or error")
    log_format: Literal["json", "console"] = Field(
        default="json", description="`json` for programs, `console` for people"
    )

    # --- the schedule
    apply_every: Period = Field(
        default=timedelta(seconds=5), description="apply account events that no ring announced"
    )
    settle_every: Period = Field(
        default=timedelta(seconds=5), description="settle keys of accounts whose holds changed"
    )
    expire_every: Period = Field(
        default=timedelta(seconds=5), description="mark keys whose validity has ended"
    )
    notices_every: Period = Field(
        default=timedelta(hours=1), description="plan notices of keys that expire soon"
    )
    rotations_every: Period = Field(default=timedelta(seconds=30), description="move rotations on")
    rotation_start_every: Period = Field(
        default=timedelta(seconds=30), description="plan and start the rotations of policies"
    )
    operations_every: Period = Field(
        default=timedelta(seconds=5), description="go on with bulk operations"
    )
    refused_every: Period = Field(
        default=timedelta(minutes=1), description="tell of stopped keys that are still tried"
    )
    hand_over_every: Period = Field(
        default=timedelta(seconds=10), description="hand new keys over to sinks that are due"
    )
    deliver_every: Period = Field(
        default=timedelta(seconds=5), description="send outgoing messages that are due"
    )
    delete_every: Period = Field(
        default=timedelta(minutes=1), description="delete keys whose delay has passed"
    )
    invariants_every: Period = Field(
        default=timedelta(seconds=60),
        description="check the promises against the database, and which sources are silent",
    )
    seal_every: Period = Field(
        default=timedelta(minutes=1), description="seal what was added to the audit"
    )
    reseal_every: Period = Field(
        default=timedelta(minutes=1),
        description="seal waiting secrets anew under the current key-encryption key",
    )
    retention_every: Period = Field(
        default=timedelta(hours=1), description="purge what is past its time"
    )

    # --- the rules
    key_prefix: str = Field(default=RULES.key_prefix, description="what new keys begin with")
    settle_batch: Batch = Field(
        default=RULES.settle_batch, description="keys settled in one transaction"
    )
    apply_batch: Batch = Field(
        default=RULES.apply_batch, description="account events applied in one transaction"
    )
    deliver_batch: Batch = Field(
        default=RULES.deliver_batch, description="outgoing messages leased at a time"
    )
    seal_batch: Batch = Field(
        default=RULES.seal_batch, description="audit entries sealed in one transaction"
    )
    page_keys: Batch = Field(
        default=RULES.page_keys, description="key ids in one outgoing event at most"
    )
    notice_keys: Batch = Field(
        default=RULES.notice_keys, description="keys that one notice names; it counts all"
    )
    notice_thresholds: Thresholds = Field(
        default=RULES.notice_thresholds,
        description="when owners are told before a key expires, the longest first; one applies "
        "only if it is at most half of the key's life",
    )
    notice_last_share: Share = Field(
        default=RULES.notice_last_share,
        description="where no threshold applies, the one notice is sent at this share of life left",
    )
    notice_last_share_min_life: Duration = Field(
        default=RULES.notice_last_share_min_life,
        description="keys of a shorter life get no notice by share",
    )
    rotation_overlap: Duration = Field(
        default=RULES.rotation_overlap,
        description="how long the old key works on after the new one was first used",
    )
    rotation_quiet: Duration = Field(
        default=RULES.rotation_quiet,
        description="how long the old key must be unused before it is retired",
    )
    rotation_min_life: Duration = Field(
        default=RULES.rotation_min_life, description="keys of a shorter life do not rotate"
    )
    rotation_starts: Count = Field(
        default=RULES.rotation_starts,
        description="scheduled rotations that start within a minute at most",
    )
    sealed_for: Period = Field(
        default=RULES.sealed_for, description="how long a new key waits to be claimed"
    )
    rotations_per_key_per_day: Count = Field(
        default=RULES.rotations_per_key_per_day,
        description="new rotations of a key in a day, as products ask; operators are not limited",
    )
    undo_for: Duration = Field(
        default=RULES.undo_for, description="how long a retired key is kept before it is deleted"
    )
    wave_keys: Batch = Field(
        default=RULES.wave_keys, description="keys of one wave of a bulk operation"
    )
    bulk_rate: Rate = Field(
        default=RULES.bulk_rate,
        description="keys a second that bulk operations rotate, all workers together",
    )
    wave_stop_share: Share = Field(
        default=RULES.wave_stop_share,
        description="a bulk operation stops where a larger share of a wave fails",
    )
    plan_life: Period = Field(
        default=RULES.plan_life, description="how long the plan of a bulk operation can be applied"
    )
    plan_growth: Share = Field(
        default=RULES.plan_growth,
        description="a plan is not applied where its keys have grown by a larger share",
    )
    deletion_delay: Duration = Field(
        default=RULES.deletion_delay,
        description="how long the keys of a deleted account are only held before they are deleted",
    )
    purge_after: Duration = Field(
        default=RULES.purge_after, description="when a deleted key's row shrinks to a tombstone"
    )
    future_tolerance: Duration = Field(
        default=RULES.future_tolerance,
        description="how far in the future an event's time may lie and still be believed",
    )
    burst_accounts: Count = Field(
        default=RULES.burst_accounts,
        description="a source that cuts more accounts within `burst_window` raises an alarm",
    )
    burst_window: Period = Field(default=RULES.burst_window, description="see `burst_accounts`")
    use_interval: Duration = Field(
        default=RULES.use_interval, description="a key's use is recorded once in this time"
    )
    expiry_alarm_share: Share = Field(
        default=RULES.expiry_alarm_share,
        description="a larger share of all keys due to expire at once raises an alarm",
    )
    expiry_alarm_min: Count = Field(
        default=RULES.expiry_alarm_min, description="fewer keys than this never do"
    )
    settled_kept: Duration = Field(
        default=RULES.settled_kept,
        description="how long sent messages and finished account events stay readable",
    )

    # --- mail
    mail_from: str = Field(
        default="Keyturn <keyturn@localhost>", description="sender of the mails to owners"
    )
    smtp_starttls: bool = Field(
        default=False, description="encrypt an `smtp://` connection with STARTTLS, or send nothing"
    )
    smtp_url: SmtpUrl | None = Field(
        default=None,
        repr=False,
        description="mail server, as `smtps://user:password@host:465` or `smtp://host:587`",
    )
    maildir: HomePath | None = Field(
        default=None, description="directory of the Maildir; unset: `mail` in `data_dir`"
    )
    given_mail_channel: Literal["maildir", "smtp", "none"] | None = Field(
        default=None,
        alias="mail_channel",
        description="`maildir`, `smtp` or `none`; unset: `smtp` if `smtp_url` is set, "
        "else `maildir`",
    )

    # --- tables of keyturn.toml
    sources: dict[SourceName, Source] = Field(
        default=DEFAULT_SOURCES, description="where account events come from"
    )
    given_roles: dict[RoleName, RoleTable] = Field(
        default=DEFAULT_ROLES, alias="roles", description="what accounts and keys may do"
    )
    sinks: dict[SinkName, SinkTable] = Field(
        default={}, description="where new keys may go by themselves"
    )
    given_rotation_policies: dict[PolicyName, RotationPolicyTable] = Field(
        default={}, alias="rotation_policies", description="how keys are rotated"
    )
