"""The tables of `keyturn.toml`: sources of account events, and roles of accounts and keys."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from models.events import RESTRICTIVE, Action
from models.rotation_policy import CLAIM, InUse, OnCompromise, RotationPolicy
from models.rotation_times import NEVER, parse_rotate
from models.windows import parse_window
from worker.intake.providers import NAMES, Effect, Parser, ProviderMapping, parser
from worker.setting_proofs import Proof
from worker.setting_types import Period, one_line

RESERVED_SOURCES: Final = ("operator", "keyturn")
"""Names under which Keyturn itself places holds: a source of that name could lift them."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(
            "not a usable name: write a small letter, then small letters, digits, - or _"
        )
    return value


def _source_name(value: str) -> str:
    if value in RESERVED_SOURCES:
        raise ValueError("the name is Keyturn's own: choose another one for this source")
    return value


def _actions(value: object) -> frozenset[Action]:
    if value == "any":
        return frozenset(Action)
    if value == "restrictive":
        return RESTRICTIVE
    try:
        if isinstance(value, list | tuple | frozenset) and value:
            return frozenset(Action(action) for action in value)
    except ValueError:
        pass
    names = ", ".join(action.value for action in Action)
    raise ValueError(f"not a trust: write 'any', 'restrictive', or a list of some of: {names}")


def _provider(value: str) -> str:
    if value not in NAMES:
        raise ValueError(f"an unknown provider: write one of {', '.join(NAMES)}")
    return value


def _short(value: str) -> str:
    if len(value.encode()) > 255:
        raise ValueError("too long: AMQP has 255 bytes for it")
    return value


def _of_others(value: str) -> str:
    if value == "keyturn" or value.startswith("keyturn."):
        raise ValueError("that exchange is Keyturn's own: name the one of the producer")
    return _short(value)


def _rotate(value: str) -> str:
    parse_rotate(value)
    return value


def _window(value: str) -> str:
    parse_window(value)
    return value


Trust = Annotated[frozenset[Action], BeforeValidator(_actions)]
Provider = Annotated[str, AfterValidator(_provider)]
StreamName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(one_line)]
ExchangeName = Annotated[
    str, Field(min_length=1), AfterValidator(one_line), AfterValidator(_of_others)
]
RoutingKey = Annotated[str, AfterValidator(one_line), AfterValidator(_short)]
SourceName = Annotated[str, AfterValidator(_name), AfterValidator(_source_name)]
RoleName = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(one_line)]
PolicyName = Annotated[str, AfterValidator(_name)]
RotateText = Annotated[str, AfterValidator(_rotate)]
WindowText = Annotated[str, AfterValidator(_window)]
Permission = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(one_line)]


class Source(BaseModel):
    """Where account events come from, how they are read, and what they may do."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    provider: Provider = Field(description=f"how its messages are read: {', '.join(NAMES)}")
    stream: StreamName | None = Field(
        default=None,
        description="the stream (Redis, Valkey) on which it publishes; needed, unless it has an "
        "`exchange`",
    )
    exchange: ExchangeName | None = Field(
        default=None,
        description="in place of `stream`: the exchange of RabbitMQ to which it publishes",
    )
    routing_keys: tuple[RoutingKey, ...] = Field(
        default=(),
        description="with `exchange`: which of the messages there are its own, such as "
        '["KK.EVENT.ADMIN.*.SUCCESS.USER.*"]; ["#"] for all',
    )
    trust: Trust = Field(
        default=frozenset(Action),
        description="what it may do: 'any', 'restrictive' (nothing that gives access back), "
        "or a list of actions",
    )
    proof: Proof = Field(
        default="transport",
        description="how its messages are proven: 'transport' trusts whoever may write there; "
        "else a table, see below",
    )
    mapping: ProviderMapping | None = Field(
        default=None,
        description="where the messages of provider 'mapped' keep their facts; see "
        "adding-a-provider.md",
    )
    silent_after: Period | None = Field(
        default=None,
        description="how long it may say nothing before the alarm `source_silent`, such as '24h'; "
        "unset: for ever",
    )
    actions: dict[str, Effect] = Field(
        default={},
        description="another meaning for some of the provider's types, such as "
        '{ "user_failed_login.blocked" = "disabled" }',
    )

    @model_validator(mode="after")
    def _one_transport(self) -> "Source":
        if (self.stream is None) == (self.exchange is None):
            given = "neither a stream nor" if self.stream is None else "both a stream and"
            raise ValueError(
                f"it names {given} an exchange: add `stream` (Redis, Valkey), or `exchange` and "
                "`routing_keys` (RabbitMQ), and not both"
            )
        if (self.exchange is None) == bool(self.routing_keys):
            why = "only an exchange has them" if self.routing_keys else "an exchange needs them"
            raise ValueError(
                f"routing_keys: {why}; with `exchange` write, for example, "
                'routing_keys = ["#"] for all messages of a topic exchange'
            )
        return self

    @model_validator(mode="after")
    def _readable(self) -> "Source":
        self.parser()
        return self

    def parser(self) -> Parser:
        """How its messages are read."""
        return parser(self.provider, self.mapping, self.actions)


class RoleTable(BaseModel):
    """What accounts and keys of this role may do."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    permissions: tuple[Permission, ...] = Field(description="what `verify` answers for its keys")
    grantable: bool = Field(default=True, description="whether a key may be created with it")
    rotation_policy: PolicyName | None = Field(
        default=None, description="how keys of this role are rotated: one of `rotation_policies`"
    )


class RotationPolicyTable(BaseModel):
    """How the keys that name this policy are rotated."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    sink: PolicyName = Field(default=CLAIM, description="how the new key is handed over")
    on_compromise: OnCompromise = Field(
        default="hold",
        description="what follows a report that a key is known to others: 'hold' stops it, "
        "'hold_and_issue' makes its successor as well",
    )
    in_use: InUse = Field(
        default="wait",
        description="an old key still used at its deadline: 'wait' for a person, or 'retire' it",
    )

    rotate: RotateText = Field(
        default=NEVER,
        description="when the schedule rotates a key: 'never', at a share of its life ('2/3', "
        "'66%'), or so long ahead of its end ('14d')",
    )
    window: WindowText | None = Field(
        default=None,
        description="in which hours: days, hours and a timezone, such as "
        "'mon-fri 09:00-17:00 Europe/Berlin'",
    )

    def policy(self) -> RotationPolicy:
        """It as the domain knows it."""
        window = None if self.window is None else parse_window(self.window)
        read = {"rotate": parse_rotate(self.rotate), "window": window}
        return RotationPolicy(**(dict(self) | read))


DEFAULT_SOURCES: Final = {
    "native": Source(provider="native", stream="keyturn:in"),
    "okta": Source(provider="okta", stream="keyturn:in:okta"),
    "keycloak": Source(provider="keycloak", stream="keyturn:in:keycloak"),
}
DEFAULT_ROLES: Final = {
    "viewer": RoleTable(permissions=("read",)),
    "member": RoleTable(permissions=("read", "write")),
    "admin": RoleTable(permissions=("read", "write", "admin")),
}
