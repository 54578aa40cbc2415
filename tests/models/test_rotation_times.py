"""When keys are to be rotated: shares of life, times ahead, spread, and windows."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.creation import LONGEST_VALIDITY, SHORTEST_VALIDITY
from models.errors import Refused
from models.identity import new_id
from models.rotation_times import WIDEST_SPREAD, Ahead, Share, parse_rotate, rotate_at
from models.windows import parse_window

BORN = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
TWO_THIRDS = Share(Fraction(2, 3))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("never", None),
        ("2/3", TWO_THIRDS),
        ("4/6", TWO_THIRDS),
        ("66%", Share(Fraction(33, 50))),
        ("1%", Share(Fraction(1, 100))),
        ("14d", Ahead(14 * DAY)),
        ("12h", Ahead(12 * HOUR)),
    ],
)
def test_a_text_is_read(text: str, expected: object) -> None:
    assert parse_rotate(text) == expected


@pytest.mark.parametrize(
    "text", ["", "Never", "2/2", "3/2", "0/3", "2/0", "0%", "100%", "0.66", "14", "0d", "-1d", 15]
)
def test_anything_else_is_refused_with_the_forms(text: object) -> None:
    with pytest.raises(Refused) as error:
        parse_rotate(text)
    assert error.value.code == "rotate_invalid"
    for form in ("never", "2/3", "66%", "14d"):
        assert form in error.value.message


def spread(of: timedelta, rotate: Share | Ahead, number: int = 1000) -> list[timedelta]:
    """How old keys of this life are when they are to be rotated, born in the same moment."""
    found = []
    for _ in range(number):
        at = rotate_at(new_id(), BORN, BORN + of, rotate, None)
        assert at is not None
        found.append(at - BORN)
    return sorted(found)


def test_keys_born_together_rotate_apart() -> None:
    ages = spread(90 * DAY, TWO_THIRDS)
    assert ages[-1] <= 60 * DAY
    assert ages[0] >= 60 * DAY * 0.9
    assert len(set(ages)) == len(ages)
    for tenth in range(10):  # evenly: none of ten days of a six days' span is crowded
        begin = 54 * DAY + tenth * 6 * DAY / 10
        assert 50 < sum(begin <= age < begin + 6 * DAY / 10 for age in ages) < 150


def test_no_key_is_rotated_more_than_a_week_earlier() -> None:
    assert spread(175 * DAY, Ahead(14 * DAY))[0] >= 161 * DAY - WIDEST_SPREAD


def test_a_time_ahead_that_is_longer_than_the_life_means_half_of_it() -> None:
    ages = spread(10 * DAY, Ahead(14 * DAY))
    assert ages[-1] <= 5 * DAY
    assert ages[0] >= 4.5 * DAY


lives = st.timedeltas(SHORTEST_VALIDITY, LONGEST_VALIDITY)
rules = st.one_of(
    st.integers(1, 99).map(lambda n: Share(Fraction(n, 100))),
    st.timedeltas(timedelta(seconds=1), LONGEST_VALIDITY).map(Ahead),
)
moments = st.timedeltas(timedelta(0), 730 * DAY).map(lambda passed: BORN + passed)


@given(st.uuids(), moments, lives, rules)
def test_it_is_always_the_same_moment_within_the_life(
    key: UUID, born: datetime, life: timedelta, rotate: Share | Ahead
) -> None:
    at = rotate_at(key, born, born + life, rotate, None)
    assert at == rotate_at(key, born, born + life, rotate, None)
    assert at is not None
    assert born < at < born + life


@given(st.uuids(), moments, lives, rules)
def test_it_is_in_the_window_or_the_key_is_born_and_gone_while_it_is_closed(
    key: UUID, born: datetime, life: timedelta, rotate: Share | Ahead
) -> None:
    window = parse_window("sat,wed 22:00-02:00 Europe/Berlin")
    at = rotate_at(key, born, born + life, rotate, window)
    without = rotate_at(key, born, born + life, rotate, None)
    assert without is not None
    if at is not None:
        assert window.contains(at)
        assert at < born + life
        assert at >= born + (without - born) / 2
    else:
        opens = window.following(born + (without - born) / 2)
        assert opens is not None
        assert opens >= born + life


def test_a_window_that_opens_too_late_is_used_before() -> None:
    """Born on Friday evening, it is to be rotated on Sunday; the window is on Saturday."""
    born = datetime(2026, 3, 6, 20, tzinfo=UTC)
    window = parse_window("sat 00:00-24:00 UTC")
    at = rotate_at(new_id(), born, born + 50 * HOUR, TWO_THIRDS, window)
    assert at is not None
    assert at.strftime("%a") == "Sat"
