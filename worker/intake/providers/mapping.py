"""Producers as data: where in their JSON an event's facts stand, in JMESPath.

One model serves the mappings shipped in `mappings/` and those in `keyturn.toml`. An expression
sees a member of the message, and beside the member's own names `_headers` (names in small letters)
and, where the mapping names `parts`, `_part`.
"""

import tomllib
from collections.abc import Mapping as AnyMapping
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from models.errors import Misconfigured
from models.events import AccountEvent, Action, Certainty, Subject

from . import reading, subjects, values
from .expressions import Compiled, Expression
from .reading import Result, Unreadable

Headers: TypeAlias = AnyMapping[str, str]
Scope: TypeAlias = dict[str, Any]

_STRICT = ConfigDict(
    frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True
)


def _format(value: object) -> object:
    if value not in subjects.FORMATS:
        raise ValueError(f"an unknown format: write one of {', '.join(subjects.FORMATS)}")
    return value


def _words(value: object) -> object:
    """The values of a state as text: `true` and `"true"` are the same word."""
    if not isinstance(value, list | tuple):
        raise ValueError("write a list of the state's values")
    words = tuple(_word(one) for one in value)
    if None in words:
        raise ValueError("a state's values are texts, whole numbers, true and false")
    return words


def _word(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).strip().lower() if isinstance(value, str | int) else None


def _holds(found: Any) -> bool:
    """Whether a condition holds; the text of a false is as good as it."""
    return bool(found) and _word(found) != "false"


class Name(BaseModel):
    """One of the names by which a message may call an account."""

    model_config = _STRICT

    value: Expression
    format: Annotated[str, BeforeValidator(_format)] = "opaque"
    issuer: Expression | None = None

    @model_validator(mode="after")
    def _of_somebody(self) -> "Name":
        if self.format == "iss_sub" and self.issuer is None:
            raise ValueError("iss_sub needs an issuer: an expression for whose name it is")
        return self


Words = Annotated[tuple[str, ...], BeforeValidator(_words)]


class Effect(BaseModel):
    """What an event of one type does: always the same, or what a state in the message says."""

    model_config = _STRICT

    action: Action | None = None
    certainty: Certainty = Certainty.TRANSITION
    state: Expression | None = None
    disabled: Words = ()
    enabled: Words = ()
    changed: Expression | None = None
    new: Name | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        if given == "hint":
            return {"action": Action.NONE, "certainty": Certainty.HINT}
        if isinstance(given, str | Action):
            if given not in list(Action):
                names = ", ".join(Action)
                raise ValueError(f"an unknown action: write one of {names}, or hint")
            return {"action": Action(given)}
        return given

    @model_validator(mode="after")
    def _one_way(self) -> "Effect":
        if (self.action is None) == (self.state is None):
            raise ValueError("write either an action, or a state with its values")
        if self.state is not None and not (self.disabled or self.enabled):
            raise ValueError("a state needs the values that mean disabled, or enabled")
        if self.state is None and (self.disabled or self.enabled or self.changed):
            raise ValueError("only a state has values, and a condition `changed`")
        if self.state is not None and "certainty" in self.model_fields_set:
            raise ValueError("a state says by `changed` when it is a transition: remove certainty")
        if both := set(self.disabled) & set(self.enabled):
            raise ValueError(f"{min(both)!r} cannot mean disabled and enabled: remove it from one")
        if self.new is not None and self.action is not Action.IDENTITY_CHANGED:
            raise ValueError("only identity_changed has a new name")
        return self

    def __call__(self, scope: Scope) -> tuple[Action, Certainty]:
        """What it means in this message. A state that says nothing known has no effect."""
        if self.state is None:
            return self.action or Action.NONE, self.certainty
        word = _word(self.state(scope))
        changed = self.changed is not None and _holds(self.changed(scope))
        certainty = Certainty.TRANSITION if changed else Certainty.STATE
        if word in self.disabled:
            return Action.DISABLED, certainty
        if word in self.enabled:
            return Action.ENABLED, certainty
        return Action.NONE, Certainty.TRANSITION


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _names(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError('write a list of tables, like [{ value = "user.id" }]')
    return value


def _by_type(value: object) -> object:
    if not isinstance(value, AnyMapping):
        raise ValueError('write a table of what each type does, like { LEFT = "disabled" }')
    return value


class Mapping(BaseModel):
    """How the messages of one producer are read. `docs/adding-a-provider.md` explains each."""

    model_config = _STRICT

    members: Expression | None = None
    parts: Expression | None = None
    type: Expression
    types: Annotated[dict[str, Effect], BeforeValidator(_by_type)] = Field(min_length=1)
    other: Literal["none", "refused"] = "none"
    success: Expression | None = None
    accounts: Expression | None = None
    account: Annotated[tuple[Name, ...], BeforeValidator(_names)] = ()
    digest: Expression | None = None
    id: Annotated[tuple[Expression, ...], BeforeValidator(_several)] = ()
    time: Expression | None = None
    time_unit: values.Unit = "auto"
    sequence: Expression | None = None
    reason: Expression | None = None
    actor: Expression | None = None
    recognised_by: Expression | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Mapping":
        actions = {effect.action for effect in self.types.values()}
        if Action.KEY_LEAKED in actions and self.digest is None:
            raise ValueError("key_leaked needs a digest: an expression for the key's SHA-256")
        if actions - {Action.KEY_LEAKED, Action.NONE} and not self.account:
            raise ValueError("there is no account: write one or more [[account]] tables")
        return self

    def parse(self, headers: Headers, body: bytes) -> list[Result]:
        """The events of one message, or of a batch (an array, or JSON Lines), member by member."""
        lines = reading.json_lines(body)
        if lines is not None:
            return reading.each(
                lines, lambda line: self._message(headers, reading.json_value(line))
            )
        message = reading.json_value(body)
        if isinstance(message, list):
            return reading.each(message, lambda one: self._message(headers, one))
        return self._message(headers, message)

    def _message(self, headers: Headers, message: Any) -> list[Result]:
        found = message
        if isinstance(message, dict):
            inside = _found(self.members, message)
            found = message if inside is None else inside
        if isinstance(found, list):
            return reading.each(found, lambda member: self._member(headers, member))
        return self._member(headers, found)

    def recognises(self, headers: Headers, message: Any) -> bool:
        """Whether a message looks like this producer's, for the guess of `events parse`."""
        if isinstance(message, list):
            message = next(iter(message), None)
        if self.recognised_by is None or not isinstance(message, dict):
            return False
        try:
            return bool(self.recognised_by(_scope(headers, message)))
        except Unreadable:
            return False

    def _member(self, headers: Headers, member: Any) -> list[Result]:
        scope = _scope(headers, reading.an_object(member))
        if self.parts is None:
            return self._events(scope)
        parts = self.parts(scope)
        if not isinstance(parts, list):
            return self._events({**scope, "_part": parts})
        if len(parts) == 1:
            return self._events({**scope, "_part": parts[0]})
        results = reading.each(parts, lambda part: self._events({**scope, "_part": part}))
        whole = reading.as_json(member)
        return [
            Unreadable(one.code, one.message, whole) if isinstance(one, Unreadable) else one
            for one in results
        ]

    def _events(self, scope: Scope) -> list[Result]:
        raw_type = values.needed_text(
            _found(self.type, scope),
            f"type ({self.type.text[:60]})",
            "missing_type",
            "send it unchanged",
        )
        effect = self.types.get(raw_type)
        if effect is None and self.other == "refused":
            raise Unreadable(
                "unknown_type",
                f"the type {values.quoted(raw_type)} is unknown; name it in the mapping's types",
            )
        succeeded = self.success is None or _holds(self.success(scope))
        if effect is None or not succeeded:
            return [self._without_effect(scope, raw_type)]
        action, certainty = effect(scope)
        if action is Action.NONE and certainty is not Certainty.HINT:
            return [self._without_effect(scope, raw_type)]
        known = {
            "action": action,
            "certainty": certainty,
            "raw_type": raw_type,
            "occurred_at": self._time(scope),
            "sequence": values.sequence(_found(self.sequence, scope)),
            "reason": values.note(_found(self.reason, scope)),
            "actor": values.note(_as_text(_found(self.actor, scope))),
        }
        event_id = self._id(scope)
        if action is Action.KEY_LEAKED:
            digest = values.sha256(_found(self.digest, scope))
            return [AccountEvent(**known, event_id=event_id, key_digest=digest)]
        named = self._subjects(scope, needed=action is not Action.NONE)
        new = _subject_of((effect.new,), scope, scope) if effect.new is not None else None
        return [
            AccountEvent(
                **known,
                subject=subject,
                new_subject=new,
                event_id=_own_id(event_id, subject) if len(named) > 1 else event_id,
            )
            for subject in named
        ]

    def _without_effect(self, scope: Scope, raw_type: str) -> AccountEvent:
        try:
            return values.without_effect(raw_type, self._id(scope), _found(self.time, scope))
        except Unreadable:
            return AccountEvent(action=Action.NONE, raw_type=raw_type)

    def _time(self, scope: Scope) -> Any:
        # Zero is what a time is that was never set.
        return values.instant(_found(self.time, scope) or None, "time", self.time_unit)

    def _id(self, scope: Scope) -> str | None:
        parts = [values.text(_found(part, scope), "id") for part in self.id]
        if not parts or None in parts:
            return None
        return values.text("/".join(map(str, parts)), "id")

    def _subjects(self, scope: Scope, *, needed: bool) -> list[Subject | None]:
        """Every account of the event, once each, in their order."""
        roots = scope if self.accounts is None else self.accounts(scope)
        found: dict[Subject | None, None] = {}
        fault = None
        for root in roots if isinstance(roots, list) else [roots]:
            try:
                subject = _subject_of(self.account, root, scope)
            except Unreadable as error:
                fault = fault or error
            else:
                if subject is not None:
                    found.setdefault(subject)
        if not found and fault is not None:
            raise fault
        if not found and needed:
            raise Unreadable(
                "missing_account", "the message names no account; send it unchanged and whole"
            )
        return list(found) or [None]


def _scope(headers: Headers, member: AnyMapping[str, Any], part: Any = None) -> Scope:
    return {**member, "_headers": dict(headers), "_part": part}


def _found(expression: Compiled | None, value: Any) -> Any:
    """What it finds; a condition in it that is not met finds nothing."""
    found = None if expression is None else expression(value)
    return None if found is False else found


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _subject_of(names: tuple[Name, ...], root: Any, scope: Scope) -> Subject | None:
    """The best of the names that the message holds, and the others as its aliases.

    A name that cannot be one is left out: the event still applies by the others.
    """
    found, fault = [], None
    for place, name in enumerate(names):
        try:
            issuer = _found(name.issuer, scope)
            subject = subjects.named(name.format, _found(name.value, root), issuer)
        except Unreadable as error:
            fault = error if place == 0 else fault
        else:
            found += [subject] if subject is not None else []
    if not found and fault is not None:
        raise fault
    return subjects.joined(found) if found else None


def _own_id(event_id: str | None, subject: Subject | None) -> str | None:
    """One message about several accounts becomes an event for each.

    Each needs an id of its own, or all but the first would be dropped as repetitions.
    """
    if event_id is None or subject is None:
        return None
    return values.text(f"{event_id}#{subject.value}", "id")


def with_actions(mapping: Mapping, actions: AnyMapping[str, Effect]) -> Mapping:
    """The mapping with other meanings of some types. Raises ValueError where it is incomplete."""
    return Mapping.model_validate(
        {**dict(mapping), "types": {**mapping.types, **actions}}, from_attributes=True
    )


@cache
def shipped() -> dict[str, Mapping]:
    """The mappings of this package, by the names of their providers."""
    found = sorted(files(f"{__package__}.mappings").iterdir(), key=lambda one: one.name)
    return {
        one.name.removesuffix(".toml"): from_toml(one.read_text("utf-8"), one.name)
        for one in found
        if one.name.endswith(".toml")
    }


def from_toml(text: str, name: str) -> Mapping:
    """The mapping of a file. Misconfigured with one line for each fault."""
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured(f"{name} is not TOML: {error}") from None
    return checked(given, name)


def checked(given: AnyMapping[str, Any], name: str) -> Mapping:
    """The mapping of a table. Misconfigured with one line for each fault."""
    try:
        return Mapping.model_validate(given)
    except ValidationError as error:
        faults = [
            f"\n  {'.'.join(map(str, one['loc'])) or 'the mapping'}: "
            f"{one['msg'].removeprefix('Value error, ')}"
            for one in error.errors(include_url=False, include_input=False)
        ]
        raise Misconfigured(f"the mapping {name} is wrong:{''.join(faults)}") from None
