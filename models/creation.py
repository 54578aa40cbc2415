"""What the arguments of a new key must be (rule 1.3), as far as that can be said without data.

The order of the checks and their answers are those of Labelbox SDK 7.17,
labelbox/schema/api_key.py, up to the point where it talks to its server. One thing is stricter: a
validity is an integer. There a float or a bool passes, and a text or nothing ends in a TypeError.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

from .errors import Refused

SHORTEST_VALIDITY: Final = timedelta(minutes=1)
LONGEST_VALIDITY: Final = timedelta(weeks=25)  # 15,120,000 seconds
ALLOWED_IPS_LIMIT: Final = 50


class TimeUnit(Enum):
    """The unit of a validity; its value is its length in seconds."""

    SECOND = 1
    MINUTE = 60
    HOUR = 3_600
    DAY = 86_400
    WEEK = 604_800


@dataclass(frozen=True, slots=True)
class Creation:
    """Arguments that passed. `allowed_ips` None means: from everywhere."""

    name: str
    user_email: str
    role_name: str
    validity: timedelta
    allowed_ips: tuple[str, ...] | None


def check(
    name: object,
    user: object,
    role: object,
    validity: object = 0,
    time_unit: object = TimeUnit.SECOND,
    allowed_ip_cidrs: object = None,
) -> Creation:
    """The checked arguments of a new key; `user` and `role` may be texts or have `email`, `name`.

    An empty IP list restricts nothing, as None does. Raises Refused, in this order: `name_empty`,
    `ip_list_invalid`, `user_missing`, `role_missing`, `unit_invalid`, `validity_not_positive`,
    `validity_too_short`, `validity_too_long`.
    """
    checked_name = _text(name, "name_empty", "the name is missing: give a text that is not empty")
    allowed_ips = None if allowed_ip_cidrs is None else normalise_ip_list(allowed_ip_cidrs)
    user_email = _text(
        getattr(user, "email", user),
        "user_missing",
        "the user is missing: give an e-mail address, or an object with one as `email`",
    )
    role_name = _text(
        getattr(role, "name", role),
        "role_missing",
        "the role is missing: give a role's name, or an object with one as `name`",
    )
    length = _validity(validity, time_unit)
    return Creation(checked_name, user_email, role_name, length, allowed_ips or None)


def normalise_ip_list(entries: object) -> tuple[str, ...]:
    """The entries in the form of Python's `ipaddress`, each once, in the order given.

    Raises Refused (`ip_list_invalid`) unless `entries` is a sequence (no text, no generator) of
    addresses and strict networks, as texts or as objects of `ipaddress`, at most 50 unique ones.
    """
    if isinstance(entries, (str, bytes)) or not isinstance(entries, Sequence):
        raise _bad_list("the list of IP addresses is no list: give a list of texts")
    unique = {_ip_entry(entry, place): None for place, entry in enumerate(entries, 1)}
    if len(unique) > ALLOWED_IPS_LIMIT:
        raise _bad_list(
            f"the list of IP addresses has {len(unique)} different entries, {ALLOWED_IPS_LIMIT} "
            "are allowed: put neighbours together in networks"
        )
    return tuple(unique)


def _ip_entry(entry: object, place: int) -> str:
    if isinstance(entry, (IPv4Address, IPv6Address, IPv4Network, IPv6Network)):
        return str(entry)
    form = "write an address such as 192.0.2.7 or a network such as 192.0.2.0/24"
    if not isinstance(entry, str):
        raise _bad_list(f"entry {place} of the list of IP addresses is no text: {form}")
    text = entry.strip()
    if not text:
        raise _bad_list(f"entry {place} of the list of IP addresses is empty: {form}")
    for read in (ip_address, ip_network):
        try:
            return str(read(text))
        except ValueError:
            continue
    raise _bad_list(
        f"entry {place} of the list of IP addresses is neither address nor network: {form} "
        "(no bits may be set behind a network's prefix)"
    )


def _validity(validity: object, time_unit: object) -> timedelta:
    if not isinstance(time_unit, TimeUnit):
        units = ", ".join(unit.name for unit in TimeUnit)
        raise Refused("unit_invalid", f"the time unit is unknown: give a TimeUnit, one of {units}")
    seconds = _whole_number(validity) * time_unit.value
    if seconds < SHORTEST_VALIDITY.total_seconds():
        raise Refused("validity_too_short", "the validity is too short: give at least 1 minute")
    if seconds > LONGEST_VALIDITY.total_seconds():
        raise Refused(
            "validity_too_long", "the validity is too long: give at most 25 weeks (15,120,000 s)"
        )
    return timedelta(seconds=seconds)


def _whole_number(validity: object) -> int:
    # Zero passes here, as it does there: it is too short.
    if not isinstance(validity, bool):
        try:
            number = operator.index(validity)  # type: ignore[arg-type]  # it raises if it cannot
        except TypeError:
            number = -1
        if number >= 0:
            return number
    raise Refused(
        "validity_not_positive", "the validity is no positive integer: give one, such as 90"
    )


def _text(value: object, code: str, message: str) -> str:
    if not isinstance(value, str) or not value:
        raise Refused(code, message)
    return value


def _bad_list(message: str) -> Refused:
    return Refused("ip_list_invalid", message)
