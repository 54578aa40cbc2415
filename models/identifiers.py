"""Identifiers of people as producers write them, brought to one spelling so that equal means equal.

Only spellings that name the same mailbox are folded together. There is no guessing: look-alike
letters, plus-tags and dots in the local part stay different, so that an event can never reach an
account that merely looks like its own.
"""

import re
import unicodedata

import idna

from .errors import Refused

MAX_EMAIL = 254
"""Characters of an address (RFC 5321, section 4.5.3.1.3, less the angle brackets)."""

MAX_LOCAL_PART = 64
"""Octets before the @ (RFC 5321, section 4.5.3.1.1)."""

ISSUED = frozenset({"opaque", "external_id", "tenant"})
"""Formats whose values belong to the source that gives them: it is their issuer."""

_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_PHONE_SIGNS = re.compile(r"[\s().\-/\u00a0]")
_DOMAIN = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_NEVER_IN_LOCAL_PART = set('()<>[]:;,\\"@')


def normalised(format: str, issuer: str, value: str) -> tuple[str, str, str]:
    """A name of an account in the one spelling that is stored and compared.

    Only an `iss_sub` and the formats of ISSUED have an issuer. Refused (`email_invalid`,
    `phone_invalid`) where the value cannot be one of its format.
    """
    match format:
        case "email":
            return format, "", normalise_email(value)
        case "phone_number":
            return format, "", normalise_phone(value)
        case "uri":
            return format, "", normalise_uri(value)
        case "account":
            return format, "", value.strip().lower()
        case "iss_sub":
            return format, normalise_issuer(issuer), value
    return format, issuer, value


def normalise_phone(text: str) -> str:
    """A telephone number in E.164, `+` first; refused with `phone_invalid`, without repeating it.

    Signs between the digits are dropped, and `00` before the country counts as `+`.
    """
    number = _PHONE_SIGNS.sub("", text.strip())
    if number.startswith("00"):
        number = "+" + number[2:]
    if not _E164.fullmatch(number):
        raise Refused("phone_invalid", "not a phone number in E.164; send it like +4915112345678")
    return number


def normalise_issuer(text: str) -> str:
    """An issuer as it is compared: without space around it, and without slashes at its end."""
    return text.strip().rstrip("/")


def normalise_uri(text: str) -> str:
    """Schemes and hosts are the same in any case of letters; the rest of a URI is not."""
    scheme, colon, rest = text.strip().partition(":")
    if not colon:
        return text.strip()
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        return f"{scheme.lower()}://{host.lower()}{slash}{path}"
    if scheme.lower() == "acct":
        user, at, host = rest.rpartition("@")
        return f"acct:{user}{at}{host.lower()}"
    return f"{scheme.lower()}:{rest}"


def normalise_email(text: str) -> str:
    """The one spelling of an e-mail address: lower case, the domain in its ASCII (IDNA) form.

    White space around the address is dropped, since shells and CSV files add it. Anything but one
    plain address is refused with `email_invalid`; the message never repeats the address.
    """
    address = text.strip()
    local, at, domain = address.rpartition("@")
    if not at or not local or not domain:
        raise _refused("it is not of the form name@domain")
    _check_local_part(local)
    ascii_domain = _ascii_domain(domain)
    normal = f"{_lower(local)}@{ascii_domain}"
    if len(normal) > MAX_EMAIL:
        raise _refused(f"it is longer than {MAX_EMAIL} characters")
    return normal


def _check_local_part(local: str) -> None:
    plain = local.isascii() and local.isprintable() and " " not in local
    if not plain and any(unicodedata.category(character)[0] in "CZ" for character in local):
        raise _refused("it holds white space, a line break or an invisible character")
    if _NEVER_IN_LOCAL_PART & set(local):
        raise _refused("it is a list, a display name or a quoted name")
    if len(local.encode()) > MAX_LOCAL_PART:
        raise _refused(f"the part before the @ is longer than {MAX_LOCAL_PART} octets")


def _ascii_domain(domain: str) -> str:
    ascii_domain = domain.lower()
    if not domain.isascii():
        try:
            # Bounded first: mapping and checking take time that grows with the input.
            ascii_domain = idna.encode(domain[:MAX_EMAIL], uts46=True).decode("ascii")
        except UnicodeError:
            raise _refused("its domain is no valid international name") from None
    if not _DOMAIN.fullmatch(ascii_domain):
        raise _refused("its domain is no host name")
    return ascii_domain


def _lower(local: str) -> str:
    """Lower case, except where that would make another script's sign an ASCII letter.

    U+212A (the sign for Kelvin) becomes a plain k in lower case: two mailboxes would become one.
    """
    if local.isascii():
        return local.lower()
    return "".join(
        character if not character.isascii() and character.lower()[0].isascii()
        else character.lower()
        for character in local
    )  # fmt: skip


def _refused(why: str) -> Refused:
    return Refused(
        "email_invalid",
        f"the e-mail address cannot be used: {why}; give one plain address like ada@example.com",
    )
