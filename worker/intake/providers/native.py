"""Keyturn's own event: typed by hand into a stream, as a JSON object, or as a CloudEvent.

`type` is account.disabled, .enabled, .deleted or .compromised, tenant. with the same four, or
key.leaked. `account` is an e-mail address, an account id of ours (a UUID), or the producer's own
id; `tenant` is the producer's own id of one. Without `id` and `at` each delivery is an event of its
own. `sequence` or `at` put the events of one account or tenant in order. A leaked key is named by
`digest` alone: SHA-256 of its text, in hexadecimal digits.
"""

import re
from collections.abc import Mapping
from typing import Any

from models.errors import Refused
from models.events import AccountEvent, Action, Subject
from models.identifiers import normalise_email

from . import reading, values
from .reading import Result, Unreadable

ACTIONS = {
    "account.disabled": Action.DISABLED,
    "account.enabled": Action.ENABLED,
    "account.deleted": Action.DELETED,
    "account.compromised": Action.COMPROMISED,
    "tenant.disabled": Action.DISABLED,
    "tenant.enabled": Action.ENABLED,
    "tenant.deleted": Action.DELETED,
    "tenant.compromised": Action.COMPROMISED,
    "key.leaked": Action.KEY_LEAKED,
}

_SEND_ONE_OF = f"send one of {', '.join(ACTIONS)}"

FIELDS = ("type", "account", "tenant", "digest", "id", "at", "sequence", "reason", "actor")

_OTHERWISE = {
    "account": ("tenant", "send the account's e-mail address or its id"),
    "tenant": ("account", "send your id of the tenant, as `keyturn tenants link` has it"),
}
"""What may stand there by mistake, and what to send."""

_FOR_INFORMATION = {"reason", "actor"}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def parse(headers: Mapping[str, str], body: bytes) -> list[Result]:
    """The event of a JSON body, plain or as a CloudEvent of one of our types."""
    message = reading.an_object(reading.json_value(body))
    if "specversion" in message:
        message = _from_cloudevent(message)
    return [_event(message)]


def from_fields(fields: Mapping[bytes, bytes]) -> list[Result]:
    """The event of the fields of a stream entry. Unknown fields are ignored."""
    if sum(map(len, fields.values())) > reading.MAX_BODY:
        raise Unreadable("too_large", f"the entry has over {reading.MAX_BODY} bytes; shorten it")
    return [_event({name: _decoded(fields, name) for name in FIELDS})]


def _decoded(fields: Mapping[bytes, bytes], name: str) -> str | None:
    value = fields.get(name.encode("ascii"))
    if value is None:
        return None
    try:
        return value.decode("utf-8", "replace" if name in _FOR_INFORMATION else "strict")
    except UnicodeDecodeError:
        raise Unreadable("not_utf8", f"the field {name} is not UTF-8; send it in UTF-8") from None


def _from_cloudevent(envelope: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a CloudEvent as if they had been sent plainly.

    `data.account` or `data.tenant` wins over `subject`, which may be a path of the producer's.
    """
    if envelope["specversion"] != "1.0":
        raise Unreadable("unknown_version", "specversion must be 1.0; send CloudEvents 1.0")
    data = envelope.get("data")
    if data is not None and not isinstance(data, dict):
        raise Unreadable("not_an_object", "data must be a JSON object; send it with account")
    plain = {name: (data or {}).get(name) for name in FIELDS}
    for name in ("account", "tenant"):
        if plain[name] is None:
            plain[name] = envelope.get("subject")
    if plain["sequence"] is None:
        plain["sequence"] = envelope.get("sequence")
    return {**plain, "type": envelope.get("type"), "id": envelope.get("id"),
            "at": envelope.get("time")}  # fmt: skip


def _event(message: Mapping[str, Any]) -> AccountEvent:
    raw_type = values.needed_text(message.get("type"), "type", "missing_type", _SEND_ONE_OF)
    if raw_type not in ACTIONS:
        raise Unreadable(
            "unknown_type", f"the type {values.quoted(raw_type)} is unknown; {_SEND_ONE_OF}"
        )
    action = ACTIONS[raw_type]
    leaked = action is Action.KEY_LEAKED
    return AccountEvent(
        action=action,
        subject=None if leaked else _subject(message, raw_type),
        key_digest=values.sha256(message.get("digest")) if leaked else None,
        occurred_at=values.instant(message.get("at"), "at"),
        sequence=values.sequence(message.get("sequence")),
        event_id=values.text(message.get("id"), "id"),
        raw_type=raw_type,
        reason=values.note(message.get("reason")),
        actor=values.note(message.get("actor")),
    )


def subject_field(raw_type: str) -> str:
    """The field that says whom an event of this type is about."""
    return "tenant" if raw_type.startswith("tenant.") else "account"


def _subject(message: Mapping[str, Any], raw_type: str) -> Subject:
    """Whom the type is about. A tenant beside an account is for information, and the reverse."""
    wanted = subject_field(raw_type)
    other, mend = _OTHERWISE[wanted]
    if message.get(other):
        mend += f"; an event about the {other} has a type {other}.*"
    named = values.needed_text(message.get(wanted), wanted, f"missing_{wanted}", mend)
    return Subject(format="tenant", value=named) if wanted == "tenant" else _account(named)


def _account(account: str) -> Subject:
    """An e-mail address, an account id of ours, or the producer's own id.

    A producer's own ids may be UUIDs too, so a UUID that is no account of ours is tried as that.
    """
    if "@" in account:
        try:
            return Subject(format="email", value=normalise_email(account))
        except Refused as error:
            raise Unreadable("bad_account", error.message) from None
    opaque = Subject(format="opaque", value=account)
    if _UUID.fullmatch(account):
        return Subject(format="account", value=account.lower(), aliases=(opaque,))
    return opaque
