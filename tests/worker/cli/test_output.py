"""What is printed: documents, tables, times, and nothing that steers a terminal."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from models.key_text import Secret
from worker.cli import output, times

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def test_a_document_is_plain_json() -> None:
    document = {"id": UUID(int=7), "at": NOON, "for": timedelta(minutes=2), "of": ("a", None, 1.5)}
    assert output.plain(document) == {
        "id": "00000000-0000-0000-0000-000000000007",
        "at": "2026-11-23T12:00:00Z",
        "for": 120.0,
        "of": ["a", None, 1.5],
    }
    assert output.dumped({"name": "\u202e\x1b"}).isascii()


def test_a_secret_is_never_printed_unasked() -> None:
    with pytest.raises(TypeError):
        output.dumped({"text": Secret("kt_" + "x" * 33)})


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain \u00e9\u4e2d", "plain \u00e9\u4e2d"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\u202eb\u200f", "a\\u202eb\\u200f"),
        ("bell\a, tab\t", "bell\\x07, tab\\t"),
        ("half\udc80", "half\\udc80"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_what_would_steer_a_terminal_is_escaped(raw: str, shown: str) -> None:
    assert output.printable(raw) == shown


def test_a_cell_cannot_make_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    table = output.Table(("ID", "NAME"), [("1", "[red]a\nb\x1b[0m")])
    output.answer(False, None, table)
    told = capsys.readouterr().out
    assert len(told.splitlines()) == 2
    assert "[red]a b\\x1b[0m" in told


def test_an_id_is_never_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = [(str(UUID(int=7)), "n" * 60, f"{'a' * 60}@example.com")]
    output.answer(False, None, output.Table(("ID", "NAME", "ACCOUNT"), rows))
    told = capsys.readouterr().out
    assert rows[0][0] in told
    assert told.count("n") == 60  # folded, not cut
    assert all(len(line) <= 80 for line in told.splitlines())


def test_facts_without_a_value_are_left_out() -> None:
    assert output.facts(id=1, last_used=None, held=False, keys=0, at=NOON, names=[]) == (
        "id    1\nheld  no\nkeys  0\nat    2026-11-23T12:00:00Z"
    )


@pytest.mark.parametrize(
    ("duration", "said"),
    [
        (timedelta(seconds=-3), "0 seconds"),
        (timedelta(seconds=1), "1 second"),
        (timedelta(seconds=119), "119 seconds"),
        (timedelta(minutes=3, seconds=5), "3 minutes"),
        (timedelta(minutes=119), "119 minutes"),
        (timedelta(hours=47), "47 hours"),
        (timedelta(days=30) - timedelta(seconds=1), "30 days"),
    ],
)
def test_durations_in_words(duration: timedelta, said: str) -> None:
    assert times.length(duration) == said


def test_times_relative_to_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "now", lambda: NOON)
    assert times.ago(NOON - timedelta(minutes=3)) == "3 minutes ago"
    assert times.ago(None) == "never"
    assert times.left(NOON + timedelta(days=7)) == "7 days"
    assert times.left(NOON) == "ended"
