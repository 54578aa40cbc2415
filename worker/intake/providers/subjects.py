"""Names of accounts: one spelling for each format, and the identifiers of RFC 9493.

Older transmitters say `subject_type` for `format`, with a hyphen or an underscore, and put the
user of a complex subject into `user` without any format.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from models.errors import Refused
from models.events import Subject
from models.identifiers import normalise_email, normalise_issuer, normalise_phone, normalise_uri

from . import values
from .reading import Unreadable

FORMATS = ("email", "opaque", "account", "iss_sub", "phone_number", "uri", "external_id", "tenant")
"""The formats that a mapping may name."""

_NOT_USERS = ("session", "device", "group", "application", "org_unit", "jwt_id",
              "saml_assertion_id", "ip_addresses")  # fmt: skip

_SIMPLE = {
    "opaque": ("opaque", ("id",)),
    "email": ("email", ("email",)),
    "phone_number": ("phone_number", ("phone_number", "phone")),
    "phone": ("phone_number", ("phone_number", "phone")),
    "account": ("uri", ("uri",)),
    "acct": ("uri", ("uri",)),
    "uri": ("uri", ("uri",)),
    "did": ("uri", ("url",)),
}
"""Formats with one value: our format, and the members where it may stand."""


def named(format: str, value: Any, issuer: Any = None) -> Subject | None:
    """The subject of a value in its one spelling; None where the value is missing or blank.

    Unreadable (`bad_account`, `wrong_type`, ...) where it cannot be one.
    """
    found = values.text(value, f"the account's {format}")
    if found is None:
        return None
    try:
        match format:
            case "email":
                return Subject(format="email", value=normalise_email(found))
            case "phone_number":
                return Subject(format="phone_number", value=normalise_phone(found))
            case "iss_sub":
                return Subject(format="iss_sub", issuer=_issuer(issuer), value=found)
            case "uri":
                return Subject(format="uri", value=normalise_uri(found))
            case "account":
                return Subject(format="account", value=found.lower())
    except Refused as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable("bad_account", error.message) from None
    return Subject(format=format, issuer=_issuer(issuer) if issuer else "", value=found)


def joined(found: Sequence[Subject]) -> Subject:
    """One subject of several names: the first is the best, each counts once."""
    plain = [one.model_copy(update={"aliases": ()}) for one in found]
    inner = [alias for one in found for alias in one.aliases]
    first, *others = dict.fromkeys([*plain, *inner])
    return first.model_copy(update={"aliases": tuple(others)})


def of_identifier(identifier: Any, issuer: str | None = None) -> Subject:
    """The account of a subject identifier (RFC 9493, and its forerunners).

    A `sub` of the token's own `issuer` is the producer's own id as well. Unreadable as
    `missing_account` where it is no user, but a session or a device.
    """
    if not isinstance(identifier, Mapping):
        raise _missing("there is no subject with a user")
    format = _format(identifier)
    if format in _SIMPLE:
        kind, members = _SIMPLE[format]
        value = next((identifier[name] for name in members if name in identifier), None)
        found = named(kind, value)
        if found is None:
            raise _missing(f"the subject of format {format} is empty")
        return found
    match format:
        case "complex":
            return _of_complex(identifier, issuer)
        case "aliases":
            return _of_aliases(identifier.get("identifiers"), issuer)
        case "iss_sub" | "id_token_claims" | "oidc":
            return _of_claims(identifier, issuer)
        case "scim":
            return of_scim(identifier)
        case _ if format in _NOT_USERS:
            raise _missing(f"the subject is a {format}, not a user")
    raise Unreadable(
        "bad_account",
        f"the subject's format {values.quoted(format)} is unknown; send one of RFC 9493",
    )


def of_scim(identifier: Mapping[str, Any]) -> Subject:
    """The user of a SCIM subject: the id at the end of its `uri`."""
    kind, id = scim_path(identifier.get("uri"))
    if kind != "users" or id is None:
        raise _missing("the subject's uri does not end with /Users/{id}")
    other = named("external_id", identifier.get("externalId"))
    return joined([Subject(format="opaque", value=id), *([other] if other else ())])


def scim_path(path: Any) -> tuple[str | None, str | None]:
    """The kind of resource (small letters) and the id at the end of a SCIM path or URL."""
    if not isinstance(path, str):
        return None, None
    try:
        segments = [part for part in urlsplit(path.strip()).path.split("/") if part]
    except ValueError:
        return None, None
    if len(segments) > 1 and segments[-2].lower() in ("users", "groups"):
        return segments[-2].lower(), values.decoded(segments[-1], "the id in the path")
    return (segments[-1].lower() if segments else None), None


def _format(identifier: Mapping[str, Any]) -> str:
    given = identifier.get("format") or identifier.get("subject_type")
    if isinstance(given, str) and given.strip():
        return given.strip().rpartition("/")[2].lower().replace("-", "_")
    for member, format in (("user", "complex"), ("tenant", "complex"), ("identifiers", "aliases"),
                           ("sub", "iss_sub"), ("email", "email"), ("id", "opaque"),
                           ("phone_number", "phone_number"), ("uri", "uri")):  # fmt: skip
        if identifier.get(member) is not None:
            return format
    raise _missing("there is no subject with a user")


def _of_complex(identifier: Mapping[str, Any], issuer: str | None) -> Subject:
    """Its user. Without any narrower member, a tenant is meant as a whole."""
    if identifier.get("user") is not None:
        return of_identifier(identifier["user"], issuer)
    narrower = [name for name in _NOT_USERS if identifier.get(name) is not None]
    if identifier.get("tenant") is None or narrower:
        raise _missing("the subject names no user, only " + (", ".join(narrower) or "nothing"))
    tenant = of_identifier(identifier["tenant"], issuer)
    return Subject(format="tenant", issuer=tenant.issuer, value=tenant.value)


def _of_aliases(identifiers: Any, issuer: str | None) -> Subject:
    found, first_fault = [], None
    for one in identifiers if isinstance(identifiers, list) else []:
        try:
            found.append(of_identifier(one, issuer))
        except Unreadable as error:
            first_fault = first_fault or error
    if not found:
        raise first_fault or _missing("the subject's aliases are empty")
    return joined(found)


def _of_claims(identifier: Mapping[str, Any], issuer: str | None) -> Subject:
    found = named("iss_sub", identifier.get("sub"), identifier.get("iss"))
    if found is None:
        raise _missing("the subject has no sub")
    own = issuer is not None and found.issuer == normalise_issuer(issuer)
    also = (Subject(format="opaque", value=found.value),) if own else ()
    return joined([found, *also, *values.email_alias(identifier.get("email"))])


def _issuer(issuer: Any) -> str:
    return normalise_issuer(
        values.needed_text(
            issuer, "issuer of the account", "missing_account", "send iss beside sub"
        )
    )


def _missing(why: str) -> Unreadable:
    return Unreadable("missing_account", f"{why}; send whom the event is about")
