"""Which channels the settings make."""

from pathlib import Path

import pytest

from models.outbox import EVENTS, MAIL
from tests.worker.channels.outgoing import notice
from worker.channels import Maildir, Off, Smtp, Stream, make_channels
from worker.settings import load_settings


@pytest.fixture(autouse=True)
def _servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEYTURN_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("KEYTURN_STREAM_URL", "redis://localhost:1/0")
    monkeypatch.setenv("KEYTURN_SMTP_URL", "smtp://localhost:1")
    monkeypatch.setenv("KEYTURN_MAIL_FROM", "keys@example.com")


@pytest.mark.parametrize(("name", "kind"), [("smtp", Smtp), ("maildir", Maildir), ("none", Off)])
def test_mail_goes_by_the_channel_that_is_set(
    monkeypatch: pytest.MonkeyPatch, name: str, kind: type
) -> None:
    monkeypatch.setenv("KEYTURN_MAIL_CHANNEL", name)
    channels = make_channels(load_settings())
    assert {name: type(channel) for name, channel in channels.items()} == {
        MAIL: kind,
        EVENTS: Stream,
    }


def test_maildir_is_where_the_settings_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KEYTURN_MAIL_CHANNEL", "maildir")
    (delivery,) = make_channels(load_settings())[MAIL].send([notice()])
    assert delivery.state == "sent"
    assert len(list((tmp_path / "mail" / "new").iterdir())) == 1


def test_what_is_switched_off_says_so_of_each_message() -> None:
    deliveries = Off("mail is switched off").send([notice(1), notice(2)])
    assert [(d.id, d.state, d.error) for d in deliveries] == [
        (notice(number).id, "failed", "mail is switched off") for number in (1, 2)
    ]
