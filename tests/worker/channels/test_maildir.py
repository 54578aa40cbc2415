"""The Maildir, on disk."""

import mailbox
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.messages import Delivery
from tests.worker.channels.outgoing import SENDER, notice
from worker.channels import Maildir


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "mail"


def mails(path: Path) -> list[mailbox.MaildirMessage]:
    return list(mailbox.Maildir(path, create=False))


def test_each_message_is_a_mail_that_readers_find(path: Path) -> None:
    messages = [notice(1), notice(2)]
    deliveries = Maildir(path, SENDER).send(messages)
    assert deliveries == [Delivery(id=message.id, state="sent") for message in messages]
    assert {mail["To"] for mail in mails(path)} == {"owner1@example.com", "owner2@example.com"}
    assert "API key of ada@example.com" in mails(path)[0].as_string()


def test_nobody_else_can_read_them(path: Path) -> None:
    old = os.umask(0)
    try:
        Maildir(path, SENDER).send([notice()])
    finally:
        os.umask(old)
    modes = {stat.S_IMODE(p.stat().st_mode) for p in path.rglob("*") if p.is_file()}
    assert modes == {0o600}
    assert {stat.S_IMODE(p.stat().st_mode) for p in (path, *path.iterdir())} == {0o700}


def test_lines_end_as_the_machine_ends_them(path: Path) -> None:
    Maildir(path, SENDER).send([notice()])
    (file,) = (path / "new").iterdir()
    assert b"\r" not in file.read_bytes()


def test_sent_again_it_stays_one_mail(path: Path) -> None:
    for _ in range(3):
        (delivery,) = Maildir(path, SENDER).send([notice()])
        assert delivery.state == "sent"
    assert len(mails(path)) == 1


def test_sent_again_after_it_was_read_it_stays_one_mail(path: Path) -> None:
    Maildir(path, SENDER).send([notice()])
    box = mailbox.Maildir(path)
    (name,) = box.keys()
    seen = box[name]
    seen.set_subdir("cur")
    seen.set_flags("S")
    box[name] = seen
    assert [file.name for file in (path / "cur").iterdir()] == [f"{notice().id}.keyturn:2,S"]
    Maildir(path, SENDER).send([notice()])
    assert len(mails(path)) == 1


def test_two_workers_with_one_message_make_one_mail(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        sent = list(pool.map(lambda _: Maildir(path, SENDER).send([notice()]), range(32)))
    assert {delivery.state for (delivery,) in sent} == {"sent"}
    assert len(mails(path)) == 1
    assert not list((path / "tmp").iterdir())


def test_one_bad_message_holds_no_other_up(path: Path) -> None:
    bad = notice(2, kind="notice.unheard")
    deliveries = Maildir(path, SENDER).send([notice(1), bad, notice(3)])
    assert [delivery.state for delivery in deliveries] == ["sent", "failed", "sent"]
    assert deliveries[1].id == bad.id
    assert "no template" in (deliveries[1].error or "")
    assert len(mails(path)) == 2


def test_a_place_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a directory")
    (delivery,) = Maildir(file, SENDER).send([notice()])
    assert delivery.state == "retry"
    assert f"cannot write to {file}" in (delivery.error or "")


def test_a_write_that_fails_leaves_no_part(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _full)
        (delivery,) = Maildir(path, SENDER).send([notice()])
    assert delivery.state == "retry"
    assert "No space left" in (delivery.error or "")
    assert not [p for p in path.rglob("*") if p.is_file()]
    assert Maildir(path, SENDER).send([notice()])[0].state == "sent"


def _full(descriptor: int) -> None:
    raise OSError(28, "No space left on device")
