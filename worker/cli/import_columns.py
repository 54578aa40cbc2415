"""What the columns of imported files mean: accounts, keys, and exports of identity providers.

A column that is not known is refused: a misspelt one would be lost in silence. Messages about keys
repeat no value: where columns are shifted, a key's text may stand in any of them.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from models import key_text
from models.account_imports import AccountRow
from models.accounts import Identity, identity
from models.creation import normalise_ip_list
from models.errors import Refused
from models.events import Subject
from models.identifiers import normalise_email
from models.key_imports import KeyRow
from models.reconcile import ExportRow
from worker.cli.import_files import Record
from worker.cli.key_argument import looks_secret
from worker.intake.providers.subjects import named

FORMATS: Final = ("iss_sub", "phone_number", "uri", "external_id", "opaque")
"""Formats of identities that a column may name itself: `FORMAT` or `FORMAT:ISSUER`."""

ACCOUNT: Final = ("email", "name", "role", "created_at", "tenant", "identities")
KEY: Final = ("email", "name", "role", "created_at", "expires_at", "allowed_ips", "hint")
STATES: Final = ("active", "enabled", "status", "state")
EXPORT: Final = ("email", "id", *STATES)

_ACTIVE: Final = frozenset({"true", "1", "yes", "active", "enabled", "provisioned"})
_STOPPED: Final = frozenset(
    {"false", "0", "no", "inactive", "disabled", "suspended", "deprovisioned", "blocked", "deleted"}
)
_OTHERWISE: Final = {
    "text": "the column text is read with --texts, and from a file that is closed to others",
    "sha256": "the column sha256 is read without --texts",
}
_NAME_LIMIT: Final = 500
_HEX: Final = re.compile(r"[0-9A-Fa-f]{64}")
_OF_NOTHING: Final = hashlib.sha256(b"").digest()


@dataclass(frozen=True)
class Columns:
    """Which columns a file may have: `plain` ones, and those of identities, one per source.

    `quiet`: the name of an unknown column is not repeated. `ignored` ones are passed over.
    """

    plain: Collection[str]
    sources: Collection[str]
    ignored: Collection[str] = ()
    quiet: bool = False

    def check(self, names: Sequence[str] | Mapping[str, Any], *needed: str) -> None:
        """Refused as `column_unknown`, or as `column_missing` where none of `needed` is there."""
        for place, name in enumerate(names, 1):
            if name not in self.plain and name not in self.ignored and not self._of_identity(name):
                if self.quiet and name in _OTHERWISE:
                    raise Refused("column_unknown", _OTHERWISE[name])
                said = f"column {place}" if self.quiet else f"column {name!r}"
                known = ", ".join([*self.plain, *self.sources])
                raise Refused(
                    "column_unknown",
                    f"{said} is unknown: known are {known}. --ignore NAME passes over one; "
                    "the first line of CSV names the columns",
                )
        if needed and not any(name in names for name in needed):
            missing = "missing or empty" if isinstance(names, Mapping) else "missing"
            raise Refused("column_missing", f"the column {' or '.join(needed)} is {missing}")

    def identities(self, fields: Mapping[str, Any]) -> tuple[Subject, ...]:
        """The identities of a record, each in its one spelling. Refused where one cannot be."""
        found = []
        for name, value in fields.items():
            if name in self.ignored or name in self.plain:
                continue
            for one in value if isinstance(value, list) else [value]:
                subject = self._subject(name, one)
                if subject is not None:
                    found.append(subject)
        return tuple(found)

    def _subject(self, name: str, value: object) -> Subject | None:
        if name in self.sources:
            return named("opaque", value, name)
        format, _, issuer = name.partition(":")
        return named(format, value, issuer)

    def _of_identity(self, name: str) -> bool:
        return name in self.sources or name.partition(":")[0] in FORMATS


def account(record: Record, columns: Columns, role: str | None) -> AccountRow:
    """The account of a record; Refused where it is none."""
    fields = record.fields
    columns.check(fields, "email")
    listed = [_listed(one) for one in _list(fields.get("identities"))]
    return AccountRow(
        record.line,
        _email(fields["email"]),
        _word(fields, "role") or role,
        _line(fields, "name"),
        _time(fields, "created_at"),
        (*columns.identities(fields), *listed),
        _line(fields, "tenant") or None,
    )


def key(record: Record, columns: Columns, role: str | None, *, texts: bool, prefix: str) -> KeyRow:
    """The key of a record, whose text is hashed here and forgotten; Refused where it is none."""
    fields = record.fields
    columns.check(fields, "text" if texts else "sha256")
    secret = _secret(fields["text"], prefix) if texts else None
    digest = _digest(fields["sha256"]) if secret is None else _hashed(secret)
    name = _line(fields, "name") or "imported"
    if looks_secret(name):
        raise Refused("name_secret", "the name looks like a key's text: are columns mixed up?")
    hint = _line(fields, "hint") or ""
    if len(hint) > key_text.HINT_LENGTH:
        raise Refused("hint_invalid", f"the hint has more than {key_text.HINT_LENGTH} characters")
    ips = [str(one).strip() for one in _several(fields.get("allowed_ips"))]
    return KeyRow(
        record.line,
        digest,
        _owner(fields, columns),
        _word(fields, "role") or role,
        name,
        key_text.hint(secret.reveal()) if secret else hint,
        _time(fields, "created_at"),
        _time(fields, "expires_at"),
        normalise_ip_list(ips),
        foreign=secret is None or key_text.parse(secret.reveal()) is None,
    )


def export(record: Record, columns: Columns, source: str) -> ExportRow:
    """Whether the identity provider has an account active; Refused where a record does not say."""
    fields = record.fields
    columns.check(fields, "id", "email", *columns.sources)
    columns.check(fields, *STATES)
    names = [identity(one) for one in columns.identities(fields)]
    if "id" in fields and (own := named("opaque", fields["id"], source)):
        names.insert(0, identity(own))
    if "email" in fields:
        names.append(("email", "", _email(fields["email"])))
    if not names:
        raise Refused("identity_missing", "the record names no account: fill id or email")
    return ExportRow(record.line, tuple(dict.fromkeys(names)), _active(fields))


def _active(fields: Mapping[str, Any]) -> bool:
    name = next(name for name in STATES if name in fields)
    value = fields[name]
    word = str(value).strip().lower()
    if word in _ACTIVE or word in _STOPPED:
        return word in _ACTIVE
    raise Refused(
        "state_unknown",
        f"the column {name} says neither that the account is active nor that it is not: write "
        f"one of {', '.join(sorted(_ACTIVE))}, or of {', '.join(sorted(_STOPPED))}",
    )


def _owner(fields: Mapping[str, Any], columns: Columns) -> Identity:
    if "email" in fields:
        return "email", "", _email(fields["email"])
    found = columns.identities({n: v for n, v in fields.items() if n not in ("text", "sha256")})
    if not found:
        raise Refused("account_missing", "the account is missing: fill email, or a source's id")
    return identity(found[0])


def _email(value: object) -> str:
    if not isinstance(value, str):
        raise Refused("email_invalid", "the column email is no text")
    return normalise_email(value)


def _listed(value: object) -> Subject:
    if not isinstance(value, dict) or not {"format", "value"} <= value.keys() <= {
        "format",
        "issuer",
        "value",
    }:
        message = "an entry of identities has format, value and perhaps issuer"
        raise Refused("identity_invalid", message)
    subject = None
    if value["format"] in (*FORMATS, "email"):
        subject = named(value["format"], value["value"], value.get("issuer"))
    if subject is None:
        known = ", ".join((*FORMATS, "email"))
        raise Refused("identity_invalid", f"an identity has a value, and a format of: {known}")
    return subject


def _list(value: object) -> list[object]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = 0
    if value is None:
        return []
    if not isinstance(value, list):
        raise Refused("identity_invalid", "the column identities is no JSON list")
    return value


def _several(value: object) -> list[object]:
    if value is None:
        return []
    return value if isinstance(value, list) else re.split(r"[\s,;]+", str(value).strip())


def _word(fields: Mapping[str, Any], name: str) -> str | None:
    return _line(fields, name) or None


def _line(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value.isprintable() or len(value) > _NAME_LIMIT:
        raise Refused(f"{name}_invalid", f"the column {name} is not one plain line of text")
    return value


def _time(fields: Mapping[str, Any], name: str) -> datetime | None:
    value = fields.get(name)
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else value
        if found is None:
            return None
        if isinstance(found, datetime) and found.tzinfo is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise Refused("time_invalid", f"write the column {name} with a zone, like 2026-12-01T12:00:00Z")


def _secret(value: object, prefix: str) -> key_text.Secret:
    secret = key_text.read(value, prefix)
    if secret is None:
        raise Refused(
            "text_invalid",
            "this cannot be a key's text: it has 16 to 1,024 visible ASCII characters, and does "
            f"not begin with {prefix}_ unless it is one of ours",
        )
    return secret


def _hashed(secret: key_text.Secret) -> bytes:
    return hashlib.sha256(secret.reveal().encode()).digest()


def _digest(value: object) -> bytes:
    text = value.strip() if isinstance(value, str) else ""
    try:
        digest = bytes.fromhex(text) if _HEX.fullmatch(text) else _base64(text)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise Refused(
            "digest_invalid", "sha256 is 64 hexadecimal digits, or base64 of the 32 bytes"
        )
    if digest == _OF_NOTHING:
        raise Refused("digest_invalid", "sha256 is that of an empty text: no key has it")
    return digest


def _base64(text: str) -> bytes:
    plain = text.replace("-", "+").replace("_", "/").rstrip("=")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
