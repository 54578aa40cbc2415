"""Account events as every producer's messages are normalised to, and the events that we send.

The models are built when this module is imported: pydantic cannot build one with datetimes while
a test holds the clock.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

MAX_IDENTIFIER = 512
"""Characters of an identifier. Four bytes each still fit the 2,704 of a PostgreSQL index entry."""

MAX_NOTE = 500
"""Characters kept of texts that are for information only."""

MAX_SEQUENCE = 2**63 - 1
"""The largest number of a PostgreSQL bigint."""


class Action(StrEnum):
    """What an event asks us to do to an account's access."""

    DISABLED = "disabled"
    ENABLED = "enabled"
    DELETED = "deleted"
    COMPROMISED = "compromised"
    IDENTITY_CHANGED = "identity_changed"
    KEY_LEAKED = "key_leaked"
    NONE = "none"


RESTRICTIVE = frozenset({Action.DISABLED, Action.DELETED, Action.COMPROMISED, Action.KEY_LEAKED})
"""Actions that take access away: on any doubt these are applied first and examined later."""

ORDERED = frozenset({Action.DISABLED, Action.ENABLED})
"""The only actions whose order matters (rule 2.4)."""


class Certainty(StrEnum):
    """How far an event can be believed about the present."""

    TRANSITION = "transition"
    """The producer says that this change has happened."""
    STATE = "state"
    """A report of how the account stands; something else about it may have changed."""
    HINT = "hint"
    """Something may have changed; what, only the producer can tell."""


def _storable(text: str) -> str:
    """PostgreSQL holds no NUL character in a text."""
    if "\0" in text:
        raise ValueError("a NUL character cannot be stored; remove it")
    return text


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


Identifier = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_IDENTIFIER), AfterValidator(_storable)
]
Note = Annotated[str, StringConstraints(max_length=MAX_NOTE), AfterValidator(_storable)]
Moment = Annotated[AwareDatetime, AfterValidator(_utc)]
KeyDigest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Subject(BaseModel):
    """Whom an event is about: one name of an account, and other names that the message carried.

    `format` is `email` (normalised, issuer empty), `opaque` (the producer's own id; the adapter
    leaves `issuer` empty and the intake fills in its source), `account` (our own account id),
    `iss_sub` (a subject of that issuer, without the issuer's trailing slash), `phone_number`
    (E.164), `uri`, `external_id` (the id that a SCIM client gave), or `tenant` (the event is about
    every account of this tenant, whoever joins later too).
    `aliases` are tried in their order, only where `value` is not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Identifier
    issuer: str = ""
    value: Identifier
    aliases: tuple["Subject", ...] = ()


class AccountEvent(BaseModel):
    """One normalised event. Its source and provider are configuration and so no part of it.

    `occurred_at` is the producer's time, in UTC, or None where the message holds none; it is never
    the time of receipt. `actor` is for information only: it is never the subject. `key_digest` is
    what a leak report names its key by: SHA-256 of the key's text, in hexadecimal digits.
    `identity_changed` says that `subject` names its account no longer, and `new_subject` does
    from now on; without a `new_subject` the name belongs to somebody else, or to nobody.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Action
    certainty: Certainty = Certainty.TRANSITION
    subject: Subject | None = None
    new_subject: Subject | None = None
    key_digest: KeyDigest | None = None
    occurred_at: Moment | None = None
    sequence: Annotated[int, Field(ge=0, le=MAX_SEQUENCE)] | None = None
    event_id: Identifier | None = None
    raw_type: Identifier
    reason: Note | None = None
    actor: Note | None = None

    @model_validator(mode="before")
    @classmethod
    def _hijacking_is_compromise(cls, data: Any) -> Any:
        """A disabled account whose reason is `hijacking` is a compromised one (rule 2.5)."""
        if not isinstance(data, Mapping) or data.get("action") != Action.DISABLED:
            return data
        reason = data.get("reason")
        if isinstance(reason, str) and reason.strip().lower() == "hijacking":
            return {**data, "action": Action.COMPROMISED}
        return data

    @model_validator(mode="after")
    def _acts_on_somebody(self) -> "AccountEvent":
        if self.action is Action.KEY_LEAKED:
            if self.key_digest is None:
                raise ValueError("a report of a leaked key needs the digest of its text")
        elif self.action is not Action.NONE and self.subject is None:
            raise ValueError("an event with an effect needs a subject")
        if self.new_subject is not None and self.action is not Action.IDENTITY_CHANGED:
            raise ValueError("only a change of identity has a new subject")
        return self


def content_hash(event: AccountEvent) -> bytes:
    """SHA-256 of what an event says: equal for the same event however often it is relayed.

    Everything counts except `actor`, which has no bearing and which some relays leave out.
    The order of aliases does not count. An issuer counts: hash before the intake fills it in.
    """
    # Without the empty members, so that a member added in a later release changes no old hash.
    said = event.model_dump(mode="json", exclude={"actor"}, exclude_none=True)
    if event.occurred_at is not None:
        said["occurred_at"] = event.occurred_at.isoformat(timespec="microseconds")
    if event.subject is not None:
        said["subject"]["aliases"].sort(key=lambda alias: json.dumps(alias, sort_keys=True))
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).digest()


def dedup_key(event: AccountEvent, delivery_id: str) -> str:
    """The name by which a source's event is known for ever (rule 2.3).

    It is the producer's id; else the content, where that holds the producer's time; else the
    transport's delivery id, which makes disable, enable, disable without ids three events.
    The events of a batch come in one delivery: theirs must also say the place in the batch. The
    three kinds have prefixes of their own, so that no producer's id can pass for another kind.
    """
    if event.event_id is not None:
        return f"id:{event.event_id}"
    if event.occurred_at is not None:
        return f"content:{content_hash(event).hex()}"
    return f"delivery:{delivery_id}"


class KeyEvent(StrEnum):
    """The types of the events that we send."""

    ISSUED = "key.issued"
    DISABLED = "key.disabled"
    ENABLED = "key.enabled"
    EXPIRED = "key.expired"
    ROTATED = "key.rotated"
    DELETED = "key.deleted"
    SEALED = "key.sealed"


def outgoing(
    id: UUID | str,
    type: KeyEvent,
    source: str,
    subject: str,
    time: datetime,
    data: Mapping[str, object],
) -> dict[str, object]:
    """A CloudEvents 1.0 event in JSON format, ready for `json.dumps`.

    `id` must be the same at every attempt to send. `source` is a URI reference that names this
    installation. `time` must know its zone.
    """
    if time.tzinfo is None:
        raise ValueError("the time of an outgoing event has no zone; give one in UTC")
    moment = time.astimezone(UTC).isoformat(timespec="microseconds")
    return {
        "specversion": "1.0",
        "id": str(id),
        "type": str(type),
        "source": source,
        "subject": subject,
        "time": moment.replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": dict(data),
    }
