"""What a SCIM body says about a user's `active`, in the spellings that clients really use.

Microsoft sends `Replace` with a capital and the value as the text "False"; Okta sends no path and
an object as the value; others name the attribute with the URN of its schema, or send lists.
"""

from collections.abc import Mapping
from typing import Any

from models.events import Action, Certainty

from . import values
from .reading import Unreadable

Effect = tuple[Action, Certainty]

NO_EFFECT: Effect = (Action.NONE, Certainty.TRANSITION)
UNCLEAR: Effect = (Action.NONE, Certainty.HINT)

_CORE = ("urn:ietf:params:scim:schemas:core:2.0:user", "urn:scim:schemas:core:1.0")
_WRAPPINGS = 8


def of_patch(body: Mapping[str, Any]) -> Effect:
    """Of a PATCH: SCIM 2.0 with Operations, or SCIM 1.1 with the attributes themselves."""
    operations = small(body).get("operations")
    if operations is None:
        return _transition(_active(body))
    if not isinstance(operations, list):
        raise Unreadable("wrong_type", "Operations must be a list; send SCIM's PatchOp")
    effect = NO_EFFECT
    for one in operations:  # in their order: the last one counts
        found = _of_operation(one)
        effect = effect if found is None else found
    return effect


def of_resource(body: Mapping[str, Any], *, created: bool = False) -> Effect:
    """Of a whole user: how it stands. A new user who is active is no change.

    An attribute that is null is one that the user does not have (RFC 7643, 2.5).
    """
    given = {name: value for name, value in body.items() if value is not None}
    match _active(given):
        case False:
            return Action.DISABLED, Certainty.STATE
        case True if not created:
            return Action.ENABLED, Certainty.STATE
    return NO_EFFECT


def of_names(names: Any) -> Effect:
    """Of a notice that names only the attributes that changed."""
    if not isinstance(names, list):
        return NO_EFFECT
    changed = any(isinstance(name, str) and _attribute(name) == "active" for name in names)
    return UNCLEAR if changed else NO_EFFECT


def _of_operation(operation: Any) -> Effect | None:
    """Of one operation; None where it says nothing about `active`."""
    if not isinstance(operation, Mapping):
        raise Unreadable("not_an_object", "an operation must be a JSON object; send SCIM's PatchOp")
    members = small(operation)
    op, path, value = members.get("op"), members.get("path"), members.get("value")
    kind = op.strip().lower() if isinstance(op, str) else ""
    if path is not None and not isinstance(path, str):
        raise Unreadable("wrong_type", "an operation's path must be a string")
    if path and path.strip():
        named = _attribute(path)
        if named not in ("active", ""):
            return None
        if kind == "remove":
            return UNCLEAR if named == "active" else None
        if named == "active":
            return _transition(_truth(value))
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if kind == "remove" or not isinstance(value, Mapping):
        return None
    found = _active(value)
    return None if found is None else _transition(found)


def _transition(active: bool | None) -> Effect:
    if active is None:
        return NO_EFFECT
    return (Action.ENABLED if active else Action.DISABLED), Certainty.TRANSITION


def _active(attributes: Mapping[str, Any]) -> bool | None:
    """The attribute among others, plain, with its URN, or inside the object of the schema."""
    for name, value in attributes.items():
        attribute = _attribute(name)
        if attribute == "active":
            return _truth(value)
        if attribute == "" and isinstance(value, Mapping):
            found = _active(value)
            if found is not None:
                return found
    return None


def _attribute(path: str) -> str:
    """The name in small letters, without the schema of users; empty for that schema itself."""
    name = path.strip().lower()
    for urn in _CORE:
        if name == urn:
            return ""
        if name.startswith(f"{urn}:"):
            return name[len(urn) + 1 :]
    return name


def _truth(value: Any) -> bool:
    for _ in range(_WRAPPINGS):
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        elif isinstance(value, Mapping) and len(value) <= 3:
            inner = small(value)
            value = inner.get("value", inner.get("active"))
        else:
            break
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else None
    if word not in ("true", "false"):
        raise Unreadable(
            "bad_active",
            'active is neither true nor false; send it as true, false, "true" or "false"',
        )
    return word == "true"


def small(members: Mapping[str, Any]) -> dict[str, Any]:
    """The members by their names in small letters: SCIM's names have no case.

    Unreadable (`duplicate_members`) where a name stands there in two spellings, with two values.
    """
    found: dict[str, Any] = {}
    for name, value in members.items():
        if name.lower() in found and value != found[name.lower()]:
            raise Unreadable(
                "duplicate_members",
                f"{values.quoted(name)} stands there twice, in two spellings; send it once",
            )
        found[name.lower()] = value
    return found
