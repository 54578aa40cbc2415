"""The checks of a new key's arguments, case by case (rule 1.3).

The expected answers were taken from Labelbox SDK 7.17, labelbox/schema/api_key.py, by running its
`create_api_key` on these cases with stand-ins for its server. `STRICTER` holds the only cases in
which Keyturn answers otherwise.
"""

from collections import UserString, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Network, ip_network
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.creation import Creation, TimeUnit, check, normalise_ip_list
from models.errors import Refused

SECOND, MINUTE, HOUR, DAY, WEEK = TimeUnit
ADA = "ada@example.com"


class Level(Enum):
    ADMIN = "an administrator"


class Length(IntEnum):
    ONE_HOUR = 3600


class NoEmailYet:
    @property
    def email(self) -> str:
        raise AttributeError("email")


class Index:
    """A whole number that is no int, as numpy's are."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __index__(self) -> int:
        return self._number

    def __lt__(self, other: int) -> bool:
        return self._number < other

    def __mul__(self, other: int) -> int:
        return self._number * other


@dataclass(frozen=True)
class Accepted:
    """What the server would have been sent; `ips` None where no list was given."""

    name: str = "ci"
    user: str = ADA
    role: str = "Viewer"
    seconds: int = 3600
    ips: list[str] | None = None


@dataclass(frozen=True)
class Case:
    """The arguments that differ from a plain good call, and the answer."""

    expected: Accepted | str
    arguments: dict[str, object] = field(default_factory=dict)

    def call(self) -> dict[str, object]:
        good: dict[str, object] = {
            "name": "ci",
            "user": ADA,
            "role": "Viewer",
            "validity": 1,
            "time_unit": HOUR,
        }
        return good | self.arguments


def numbered(count: int, start: int = 0) -> list[str]:
    return [f"10.1.{n // 256}.{n % 256}" for n in range(start, start + count)]


def ips(entries: object, *expected: str) -> Case:
    return Case(Accepted(ips=list(expected)), {"allowed_ip_cidrs": entries})


def bad_ips(entries: object) -> Case:
    return Case("ip_list_invalid", {"allowed_ip_cidrs": entries})


def lasting(validity: object, unit: object, expected: int | str) -> Case:
    answer = Accepted(seconds=expected) if isinstance(expected, int) else expected
    return Case(answer, {"validity": validity, "time_unit": unit})


CASES: dict[str, Case] = {
    "plain": Case(Accepted()),
    # name
    "name empty": Case("name_empty", {"name": ""}),
    "name none": Case("name_empty", {"name": None}),
    "name bytes": Case("name_empty", {"name": b"ci"}),
    "name number": Case("name_empty", {"name": 7}),
    "name list": Case("name_empty", {"name": ["ci"]}),
    "name blank": Case(Accepted(name="  "), {"name": "  "}),
    "name of one character": Case(Accepted(name="x"), {"name": "x"}),
    "name not ascii": Case(Accepted(name="cł 🔑"), {"name": "cł 🔑"}),
    "name keeps its ends": Case(Accepted(name=" ci\n"), {"name": " ci\n"}),
    "name long": Case(Accepted(name="n" * 10_000), {"name": "n" * 10_000}),
    "name of a text's relative": Case("name_empty", {"name": UserString("ci")}),
    # list of addresses: its kind
    "ips none": Case(Accepted(), {"allowed_ip_cidrs": None}),
    "ips empty list": ips([]),
    "ips empty tuple": ips(()),
    "ips empty range": ips(range(0)),
    "ips empty bytearray": ips(bytearray()),
    "ips tuple": ips(("192.0.2.7",), "192.0.2.7"),
    "ips deque": ips(deque(["192.0.2.7"]), "192.0.2.7"),
    "ips text": bad_ips("192.0.2.7"),
    "ips empty text": bad_ips(""),
    "ips empty bytes": bad_ips(b""),
    "ips bytes": bad_ips(b"192.0.2.7"),
    "ips bytearray": bad_ips(bytearray(b"1")),
    "ips relative of a text": bad_ips(UserString("1")),
    "ips set": bad_ips({"192.0.2.7"}),
    "ips empty set": bad_ips(set()),
    "ips dict": bad_ips({"192.0.2.7": 1}),
    "ips generator": bad_ips(entry for entry in ["192.0.2.7"]),
    "ips iterator": bad_ips(iter(["192.0.2.7"])),
    "ips one address object": bad_ips(IPv4Address("192.0.2.7")),
    "ips one network object": bad_ips(IPv4Network("192.0.2.0/24")),
    "ips number": bad_ips(7),
    "ips false": bad_ips(False),
    "ips zero": bad_ips(0),
    # list of addresses: its entries
    "entry empty": bad_ips([""]),
    "entry blank": bad_ips([" \t\n"]),
    "entry none": bad_ips([None]),
    "entry number": bad_ips([3_221_225_991]),
    "entry bytes": bad_ips([b"192.0.2.7"]),
    "entry four bytes": bad_ips([b"\xc0\x00\x02\x07"]),
    "entry list": bad_ips([["192.0.2.7"]]),
    "entry pair": bad_ips([("192.0.2.0", 24)]),
    "entry word": bad_ips(["localhost"]),
    "entry star": bad_ips(["*"]),
    "entry range": bad_ips(["192.0.2.1-192.0.2.9"]),
    "entry two in one": bad_ips(["192.0.2.1,192.0.2.2"]),
    "entry with port": bad_ips(["192.0.2.1:443"]),
    "entry in brackets": bad_ips(["[2001:db8::1]"]),
    "entry short": bad_ips(["192.0.2"]),
    "entry decimal text": bad_ips(["3221225991"]),
    "entry hexadecimal": bad_ips(["0xc0000207"]),
    "entry leading zero": bad_ips(["192.000.002.007"]),
    "entry octet too large": bad_ips(["192.0.2.256"]),
    "entry wide digits": bad_ips(["１９２.0.2.7"]),
    "entry inner blank": bad_ips(["192.0.2.0 /24"]),
    "entry without prefix": bad_ips(["192.0.2.0/"]),
    "entry only prefix": bad_ips(["/24"]),
    "entry prefix too large": bad_ips(["192.0.2.0/33"]),
    "entry prefix negative": bad_ips(["192.0.2.0/-1"]),
    "entry two prefixes": bad_ips(["192.0.2.0/24/24"]),
    "entry host bits": bad_ips(["192.0.2.7/24"]),
    "entry host bits six": bad_ips(["2001:db8::1/32"]),
    "entry six prefix too large": bad_ips(["2001:db8::/129"]),
    "entry six twice short": bad_ips(["2001::db8::1"]),
    "entry bad mask": bad_ips(["192.0.2.0/255.0.255.0"]),
    "last entry bad": bad_ips(["192.0.2.7", "192.0.2.8", "here"]),
    "entry network": ips(["192.0.2.0/24"], "192.0.2.0/24"),
    "entry all": ips(["0.0.0.0/0", "::/0"], "0.0.0.0/0", "::/0"),
    "entry ends trimmed": ips(["  192.0.2.7\n", "\t10.0.0.0/8 "], "192.0.2.7", "10.0.0.0/8"),
    "entry mask": ips(["10.0.0.0/255.0.0.0"], "10.0.0.0/8"),
    "entry host mask": ips(["192.0.2.0/0.0.0.255"], "192.0.2.0/24"),
    "entry prefix with zero": ips(["10.0.0.0/08"], "10.0.0.0/8"),
    "entry six": ips(["2001:DB8:0:0::0001"], "2001:db8::1"),
    "entry six network": ips(["2001:0DB8::/32"], "2001:db8::/32"),
    "entry six of one machine": ips(["fe80::1%eth0"], "fe80::1%eth0"),
    "entry address object": ips([IPv4Address("192.0.2.7")], "192.0.2.7"),
    "entry six object": ips([IPv6Address("2001:DB8::1")], "2001:db8::1"),
    "entry network object": ips([IPv4Network("192.0.2.0/24")], "192.0.2.0/24"),
    "entry six network object": ips([IPv6Network("2001:db8::/32")], "2001:db8::/32"),
    "entry interface object": ips([IPv4Interface("192.0.2.7/24")], "192.0.2.7/24"),
    "entries twice": ips(["192.0.2.7", " 192.0.2.7", IPv4Address("192.0.2.7")], "192.0.2.7"),
    "entries twice six": ips(["2001:db8::1", "2001:DB8:0::1"], "2001:db8::1"),
    "address and its network": ips(["192.0.2.7", "192.0.2.7/32"], "192.0.2.7", "192.0.2.7/32"),
    "order kept": ips(["192.0.2.9", "::1", "192.0.2.1"], "192.0.2.9", "::1", "192.0.2.1"),
    "50 entries": ips(numbered(50), *numbered(50)),
    "50 entries, each twice": ips(numbered(50) * 2, *numbered(50)),
    "51 entries": bad_ips(numbered(51)),
    "51 entries, one twice": ips([*numbered(50), "10.1.0.0"], *numbered(50)),
    "51 entries, one differs only in writing": ips([*numbered(50), " 10.1.0.0 "], *numbered(50)),
    # user
    "user empty": Case("user_missing", {"user": ""}),
    "user none": Case("user_missing", {"user": None}),
    "user bytes": Case("user_missing", {"user": b"ada@example.com"}),
    "user number": Case("user_missing", {"user": 42}),
    "user dict": Case("user_missing", {"user": {"email": ADA}}),
    "user object": Case(Accepted(), {"user": SimpleNamespace(email=ADA)}),
    "user object empty": Case("user_missing", {"user": SimpleNamespace(email="")}),
    "user object none": Case("user_missing", {"user": SimpleNamespace(email=None)}),
    "user object without": Case("user_missing", {"user": SimpleNamespace(uid="1")}),
    "user object that has none yet": Case("user_missing", {"user": NoEmailYet()}),
    "user blank": Case(Accepted(user=" "), {"user": " "}),
    "user no address": Case(Accepted(user="42"), {"user": "42"}),
    "user keeps its case": Case(Accepted(user="Ada@Example.com"), {"user": "Ada@Example.com"}),
    # role
    "role empty": Case("role_missing", {"role": ""}),
    "role none": Case("role_missing", {"role": None}),
    "role number": Case("role_missing", {"role": 1}),
    "role list": Case("role_missing", {"role": ["Viewer"]}),
    "role object": Case(Accepted(), {"role": SimpleNamespace(name="Viewer")}),
    "role object empty": Case("role_missing", {"role": SimpleNamespace(name="")}),
    "role object none": Case("role_missing", {"role": SimpleNamespace(name=None)}),
    "role object without": Case("role_missing", {"role": SimpleNamespace(id=1)}),
    "role member of an enum": Case(Accepted(role="ADMIN"), {"role": Level.ADMIN}),
    "role blank": Case(Accepted(role=" "), {"role": " "}),
    # unit
    "unit none": Case("unit_invalid", {"time_unit": None}),
    "unit word": Case("unit_invalid", {"time_unit": "hour"}),
    "unit name": Case("unit_invalid", {"time_unit": "HOUR"}),
    "unit seconds": Case("unit_invalid", {"time_unit": 3600}),
    "unit other enum": Case("unit_invalid", {"time_unit": Length.ONE_HOUR}),
    "unit the class": Case("unit_invalid", {"time_unit": TimeUnit}),
    # validity
    "negative": lasting(-1, WEEK, "validity_not_positive"),
    "very negative": lasting(-(10**30), SECOND, "validity_not_positive"),
    "zero seconds": lasting(0, SECOND, "validity_too_short"),
    "zero weeks": lasting(0, WEEK, "validity_too_short"),
    "1 second": lasting(1, SECOND, "validity_too_short"),
    "59 seconds": lasting(59, SECOND, "validity_too_short"),
    "60 seconds": lasting(60, SECOND, 60),
    "61 seconds": lasting(61, SECOND, 61),
    "1 minute": lasting(1, MINUTE, 60),
    "1 day": lasting(1, DAY, 86_400),
    "1 week": lasting(1, WEEK, 604_800),
    "25 weeks": lasting(25, WEEK, 15_120_000),
    "26 weeks": lasting(26, WEEK, "validity_too_long"),
    "175 days": lasting(175, DAY, 15_120_000),
    "176 days": lasting(176, DAY, "validity_too_long"),
    "4200 hours": lasting(4_200, HOUR, 15_120_000),
    "4201 hours": lasting(4_201, HOUR, "validity_too_long"),
    "252000 minutes": lasting(252_000, MINUTE, 15_120_000),
    "252001 minutes": lasting(252_001, MINUTE, "validity_too_long"),
    "15120000 seconds": lasting(15_120_000, SECOND, 15_120_000),
    "15120001 seconds": lasting(15_120_001, SECOND, "validity_too_long"),
    "huge": lasting(10**400, WEEK, "validity_too_long"),
    "int of a kind": lasting(Length.ONE_HOUR, SECOND, 3_600),
    "whole number that is no int": lasting(Index(2), HOUR, 7_200),
    "whole number below zero": lasting(Index(-2), HOUR, "validity_not_positive"),
    # which refusal comes first, where several are due
    "all wrong": Case(
        "name_empty",
        {
            "name": "",
            "allowed_ip_cidrs": "x",
            "user": "",
            "role": "",
            "time_unit": 1,
            "validity": -1,
        },
    ),
    "all but name wrong": Case(
        "ip_list_invalid",
        {"allowed_ip_cidrs": "x", "user": "", "role": "", "time_unit": 1, "validity": -1},
    ),
    "user and later wrong": Case(
        "user_missing", {"user": "", "role": "", "time_unit": 1, "validity": -1}
    ),
    "role and later wrong": Case("role_missing", {"role": "", "time_unit": 1, "validity": -1}),
    "unit and validity wrong": Case("unit_invalid", {"time_unit": 1, "validity": -1}),
    "unit wrong, no number": Case("unit_invalid", {"time_unit": 1, "validity": "x"}),
    "too many ips and no user": Case(
        "ip_list_invalid", {"allowed_ip_cidrs": numbered(51), "user": ""}
    ),
    "no role and too long": Case("role_missing", {"role": None, "validity": 99, "time_unit": WEEK}),
}

# There a float or a bool is multiplied and passes, or meets the limits; a text or nothing ends in
# a TypeError. Here each is no positive integer, as rule 1.3 says.
STRICTER: dict[str, object] = {
    "none": None,
    "text": "60",
    "empty text": "",
    "bytes": b"60",
    "list": [60],
    "half": 1.5,
    "whole float": 60.0,
    "below zero": -1.5,
    "not a number": float("nan"),
    "endless": float("inf"),
    "true": True,
    "false": False,
    "length of time": timedelta(hours=1),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_answers_as_the_labelbox_sdk_does(case: Case) -> None:
    if isinstance(case.expected, str):
        with pytest.raises(Refused) as refused:
            check(**case.call())
        assert refused.value.code == case.expected
        return
    expected = case.expected
    assert check(**case.call()) == Creation(
        expected.name,
        expected.user,
        expected.role,
        timedelta(seconds=expected.seconds),
        tuple(expected.ips) if expected.ips else None,
    )


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        pytest.param(case.arguments["allowed_ip_cidrs"], case.expected.ips, id=name)
        for name, case in CASES.items()
        if isinstance(case.expected, Accepted) and case.expected.ips is not None
    ],
)
def test_normalises_lists_as_the_labelbox_sdk_does(entries: object, expected: list[str]) -> None:
    assert list(normalise_ip_list(entries)) == expected


@pytest.mark.parametrize("validity", STRICTER.values(), ids=STRICTER)
def test_a_validity_that_is_no_integer_is_refused(validity: object) -> None:
    with pytest.raises(Refused) as refused:
        check("ci", ADA, "Viewer", validity, MINUTE)
    assert refused.value.code == "validity_not_positive"
    assert "integer" in refused.value.message


def test_without_validity_nothing_is_created() -> None:
    with pytest.raises(Refused) as refused:
        check("ci", ADA, "Viewer")
    assert refused.value.code == "validity_too_short"


def test_an_empty_list_restricts_as_little_as_none() -> None:
    assert check("ci", ADA, "Viewer", 1, HOUR, []) == check("ci", ADA, "Viewer", 1, HOUR, None)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (["192.0.2.7", "192.0.2.7/24"], ["entry 2", "prefix"]),
        (["x"], ["entry 1", "192.0.2.7", "192.0.2.0/24"]),
        ([7], ["entry 1", "no text"]),
        ([" "], ["entry 1", "empty"]),
        (numbered(53), ["53", "50"]),
        ("192.0.2.7", ["give a list"]),
    ],
)
def test_a_refused_list_says_where_and_how_to_mend_it(
    entries: Sequence[object], words: Iterable[str]
) -> None:
    with pytest.raises(Refused) as refused:
        normalise_ip_list(entries)
    assert [word for word in words if word not in refused.value.message] == []


def test_a_refusal_does_not_repeat_what_was_given() -> None:
    with pytest.raises(Refused) as refused:
        normalise_ip_list(["kt_pasted_by_mistake"])
    assert "kt_pasted" not in str(refused.value)


def test_many_entries_take_no_long_time() -> None:
    # One more comparison per entry and entry would be 1e10 of them: this would not come back.
    assert normalise_ip_list(["192.0.2.7"] * 100_000) == ("192.0.2.7",)
    with pytest.raises(Refused):
        normalise_ip_list(numbered(60_000))


@given(st.lists(st.ip_addresses() | st.ip_addresses(v=4).map(ip_network), max_size=50))
def test_a_normalised_list_stays_as_it_is(entries: list[object]) -> None:
    once = normalise_ip_list([str(entry) for entry in entries])
    assert normalise_ip_list(once) == once == normalise_ip_list(entries)


@given(st.integers(min_value=-5, max_value=10**9), st.sampled_from(TimeUnit))
def test_every_accepted_validity_is_1_minute_to_25_weeks(validity: int, unit: TimeUnit) -> None:
    seconds = validity * unit.value
    if 60 <= seconds <= 15_120_000:
        assert check("ci", ADA, "Viewer", validity, unit).validity.total_seconds() == seconds
    else:
        with pytest.raises(Refused, match="validity"):
            check("ci", ADA, "Viewer", validity, unit)
