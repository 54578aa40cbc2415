"""Durations as people write them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.durations import LONGEST, format_duration, parse_duration
from models.errors import Refused


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0s", timedelta(0)),
        ("5s", timedelta(seconds=5)),
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("24h", timedelta(hours=24)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(days=14)),
        ("007d", timedelta(days=7)),
        ("520w", timedelta(weeks=520)),
    ],
)
def test_reads_a_number_with_a_unit(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "5",
        "s",
        "P1Y",
        "PT5S",
        "-1",
        "-1s",
        "+1s",
        "7x",
        "1e9",
        "1e9s",
        "1.5h",
        "1,5h",
        "5S",
        "5 s",
        " 5s",
        "5s\n",
        "5sec",
        "1h30m",
        "0x5s",
        "1_000s",
        "٥s",
        "５s",
        "521w",
        "3641d",
        "999999999w",
        "9" * 5_000 + "s",
        "5s\0",
        None,
        5,
        b"5s",
    ],
    ids=lambda text: repr(text)[:16],
)
def test_refuses_all_else_and_names_the_form(text: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_duration(text)
    assert refused.value.code == "duration_invalid"
    assert "30s, 15m, 24h, 7d or 2w" in refused.value.message
    assert "520w" in refused.value.message


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (timedelta(0), "0s"),
        (timedelta(seconds=59), "59s"),
        (timedelta(seconds=60), "1m"),
        (timedelta(seconds=90), "90s"),
        (timedelta(minutes=90), "90m"),
        (timedelta(hours=24), "1d"),
        (timedelta(hours=25), "25h"),
        (timedelta(days=7), "1w"),
        (timedelta(days=30), "30d"),
        (LONGEST, "520w"),
    ],
)
def test_writes_the_largest_unit_that_fits(duration: timedelta, expected: str) -> None:
    assert format_duration(duration) == expected


@pytest.mark.parametrize(
    "duration",
    [timedelta(seconds=-1), timedelta(milliseconds=500), LONGEST + timedelta(seconds=1)],
)
def test_refuses_to_write_what_could_not_be_read(duration: timedelta) -> None:
    with pytest.raises(Refused) as refused:
        format_duration(duration)
    assert refused.value.code == "duration_invalid"


@given(st.integers(min_value=0, max_value=int(LONGEST.total_seconds())))
def test_what_is_written_is_read_as_the_same(seconds: int) -> None:
    duration = timedelta(seconds=seconds)
    assert parse_duration(format_duration(duration)) == duration


@given(st.integers(min_value=0, max_value=520), st.sampled_from("smhdw"))
def test_what_is_read_is_written_at_least_as_short(number: int, unit: str) -> None:
    text = f"{number}{unit}"
    duration = parse_duration(text)
    assert parse_duration(format_duration(duration)) == duration
    assert len(format_duration(duration)) <= len(text)


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        duration = parse_duration(text)
    except Refused:
        return
    assert timedelta(0) <= duration <= LONGEST
    assert text.isascii()
    assert text[:-1].isdigit()
