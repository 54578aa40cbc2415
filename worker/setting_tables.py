"""The tables of `keyturn.toml`: sources of account events, and roles of accounts and keys."""

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from models.events import RESTRICTIVE, Action
from worker.intake.providers import PROVIDERS
from worker.setting_types import one_line

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
    if value not in PROVIDERS:
        raise ValueError(f"an unknown provider: write one of {', '.join(PROVIDERS)}")
    return value


Trust = Annotated[frozenset[Action], BeforeValidator(_actions)]
Provider = Annotated[str, AfterValidator(_provider)]
StreamName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(one_line)]
SourceName = Annotated[str, AfterValidator(_name), AfterValidator(_source_name)]
RoleName = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(one_line)]
Permission = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(one_line)]


class Source(BaseModel):
    """Where account events come from, how they are read, and what they may do."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    provider: Provider = Field(description=f"how its messages are read: {', '.join(PROVIDERS)}")
    stream: StreamName = Field(description="the stream of the broker on which it publishes")
    trust: Trust = Field(
        default=frozenset(Action),
        description="what it may do: 'any', 'restrictive' (nothing that gives access back), "
        "or a list of actions",
    )
    proof: Literal["transport"] = Field(
        default="transport",
        description="how its messages are proven: 'transport' trusts whoever may write the stream",
    )


class RoleTable(BaseModel):
    """What accounts and keys of this role may do."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    permissions: tuple[Permission, ...] = Field(description="what `verify` answers for its keys")
    grantable: bool = Field(default=True, description="whether a key may be created with it")


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
