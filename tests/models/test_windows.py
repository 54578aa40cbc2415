"""Windows in the timezones of real places, against clocks that are read minute by minute."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.errors import Refused
from models.windows import DAYS, Window, parse_window

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
ZONES = (
    "Europe/Berlin",  # an hour, at 2 and 3 o'clock
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour
    "America/Santiago",  # at midnight
    "Africa/Casablanca",  # the other way round, and back for a month
    "Asia/Kolkata",  # never; half an hour off
    "Pacific/Apia",
    "UTC",
)


def at(zone: str, text: str, fold: int = 0) -> datetime:
    """An instant by what a clock shows there."""
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return local.astimezone(UTC)


def berlin(text: str, fold: int = 0) -> datetime:
    return at("Europe/Berlin", text, fold)


# The text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("mon-fri 09:00-17:00 Europe/Berlin", "mon,tue,wed,thu,fri 09:00-17:00 Europe/Berlin"),
        ("sat-mon,thu 22:00-04:00 UTC", "mon,thu,sat,sun 22:00-04:00 UTC"),
        ("daily 00:00-24:00 Asia/Kolkata", "mon,tue,wed,thu,fri,sat,sun 00:00-24:00 Asia/Kolkata"),
        ("sun 23:30-00:00 UTC", "sun 23:30-00:00 UTC"),
    ],
)
def test_a_text_is_read(text: str, written: str) -> None:
    window = parse_window(text)
    assert str(window) == written
    assert parse_window(written) == window


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "not a window; write days"),
        ("", "not a window"),
        ("mon-fri 09:00-17:00", "not a window"),
        ("mon 09:00-17:00 UTC and more", "not a window"),
        ("weekdays 09:00-17:00 UTC", "'weekdays' is no day: the days are daily, mon"),
        ("mon- 09:00-17:00 UTC", "'mon-' is no day"),
        ("mon,,fri 09:00-17:00 UTC", "'' is no day"),
        ("mon 9-17 UTC", "'9-17' are no hours: write them like 09:00-17:00"),
        ("mon 09:00-24:01 UTC", "they go from 00:00 to 24:00"),
        ("mon 24:00-09:00 UTC", "they go from 00:00 to 24:00"),
        ("mon 09:60-10:00 UTC", "are no hours"),
        ("mon 09:00-09:00 UTC", "is empty: for the whole day write 00:00-24:00"),
        ("mon 09:00-17:00 Europe/Bonn", "there is no timezone 'Europe/Bonn'"),
        ("mon 09:00-17:00 ../etc/passwd", "there is no timezone"),
        ("mon 09:00-17:00 Europe", "there is no timezone"),
    ],
)
def test_what_is_no_window_is_refused_with_the_mend(text: object, fault: str) -> None:
    with pytest.raises(Refused) as error:
        parse_window(text)
    assert error.value.code == "window_invalid"
    assert fault in error.value.message
    assert "mon-fri 09:00-17:00 Europe/Berlin" in error.value.message


# Clocks that are turned, by hand


def test_a_window_that_is_skipped_opens_on_the_next_of_its_days() -> None:
    """On 2026-03-29 Berlin's clocks go from 01:59 to 03:00."""
    skipped = parse_window("sun 02:00-03:00 Europe/Berlin")
    assert skipped.following(berlin("2026-03-29T00:00")) == berlin("2026-04-05T02:00")
    begins_there = parse_window("sun 02:30-05:00 Europe/Berlin")
    assert begins_there.following(berlin("2026-03-29T00:00")) == berlin("2026-03-29T03:00")
    ends_there = parse_window("sun 01:00-02:30 Europe/Berlin")
    assert not ends_there.contains(berlin("2026-03-29T03:00"))
    assert ends_there.contains(berlin("2026-03-29T03:00") - MINUTE)


def test_an_hour_that_comes_twice_is_in_the_window_twice() -> None:
    """On 2026-10-25 Berlin's clocks go from 02:59 to 02:00."""
    window = parse_window("sun 02:10-02:20 Europe/Berlin")
    first, second = (berlin("2026-10-25T02:10", fold) for fold in (0, 1))
    assert second - first == HOUR
    assert window.following(berlin("2026-10-25T00:00")) == first
    assert window.contains(first + 9 * MINUTE)
    assert window.following(first + 10 * MINUTE) == second
    assert window.following(second + 10 * MINUTE) == berlin("2026-11-01T02:10")


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    window = parse_window("fri 22:00-04:00 Europe/Berlin")
    assert window.contains(berlin("2026-06-06T03:59"))  # a Saturday
    assert not window.contains(berlin("2026-06-05T03:59"))
    assert window.following(berlin("2026-06-06T04:00")) == berlin("2026-06-12T22:00")


def test_a_window_that_contains_it_follows_at_once() -> None:
    window = parse_window("daily 00:00-24:00 Europe/Berlin")
    moment = berlin("2026-10-25T02:30", 1) + timedelta(seconds=7)
    assert window.following(moment) == moment


# Any window, by an oracle that only asks what a clock shows


def shown(window: Window, instant: datetime) -> tuple[str, str]:
    """What a clock there shows: the day's name, and the time as it is written."""
    local = datetime.fromtimestamp(instant.timestamp(), window.zone)
    return local.strftime("%a").lower(), local.strftime("%H:%M")


def inside(window: Window, instant: datetime) -> bool:
    day, clock = shown(window, instant)
    days = {DAYS[number] for number in window.days}
    begin, end = (f"{m // 60:02}:{m % 60:02}" for m in (window.begin, window.end))
    yesterday = DAYS[DAYS.index(day) - 1]
    if begin < end:
        return day in days and begin <= clock < end
    return (day in days and clock >= begin) or (yesterday in days and clock < end)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    begin = draw(st.integers(0, 1439))
    # Short ones around the hours in which clocks are turned are what is hard.
    begin = draw(st.sampled_from([begin, 0, 30, 90, 120, 150, 180, 1410]))
    end = draw(st.integers(1, 1440).filter(lambda minute: minute != begin))
    length = draw(st.sampled_from([0, 5, 60]))
    end = end if not length else (begin + length) % 1440 or 1440
    days = draw(st.frozensets(st.integers(0, 6), min_size=1))
    return Window(days, begin, end, ZoneInfo(draw(st.sampled_from(ZONES))))


def turned(zone: str) -> Iterator[datetime]:
    """The days of 2026 and 2027 on which the zone's clocks are turned, as its offsets say."""
    place = ZoneInfo(zone)
    day = datetime(2026, 1, 1, tzinfo=UTC)
    while day.year < 2028:
        if day.astimezone(place).utcoffset() != (day + DAY).astimezone(place).utcoffset():
            yield day
        day += DAY


TURNED = {zone: list(turned(zone)) for zone in ZONES}


@st.composite
def cases(draw: st.DrawFn) -> tuple[Window, datetime]:
    window = draw(windows())
    days = [*TURNED[window.zone.key], datetime(2026, 6, 3, tzinfo=UTC)]
    start = draw(st.sampled_from(days)) + draw(st.integers(-1440, 1440)) * MINUTE
    return window, start + draw(st.sampled_from([timedelta(0), timedelta(seconds=31)]))


@settings(max_examples=80, deadline=None)
@given(cases())
@example((parse_window("sun 02:10-02:20 Europe/Berlin"), datetime(2026, 10, 25, tzinfo=UTC)))
@example((parse_window("sun 00:10-00:20 America/Santiago"), datetime(2026, 9, 6, tzinfo=UTC)))
@example((parse_window("sat 23:10-23:20 America/Santiago"), datetime(2026, 4, 5, tzinfo=UTC)))
def test_it_says_what_the_clock_shows_minute_by_minute(case: tuple[Window, datetime]) -> None:
    window, start = case
    minute = start.replace(second=0)
    minutes = [minute + number * MINUTE for number in range(30 * 60)]
    truth = [inside(window, one) for one in minutes]
    assert [window.contains(one) for one in minutes] == truth
    expected = next((one for one, within in zip(minutes, truth, strict=True) if within), None)
    found = window.following(start)
    assert found is not None
    if expected is not None:
        assert found == max(start, expected)
    else:
        assert found > minutes[-1]
        assert inside(window, found)
        assert not inside(window, found - MINUTE)


def test_the_oracle_meets_clocks_that_are_turned() -> None:
    assert {zone: len(days) for zone, days in TURNED.items()} == {
        "Europe/Berlin": 4,
        "America/New_York": 4,
        "Australia/Lord_Howe": 4,
        "America/Santiago": 4,
        "Africa/Casablanca": 4,
        "Asia/Kolkata": 0,
        "Pacific/Apia": 0,
        "UTC": 0,
    }
