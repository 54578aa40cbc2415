"""The sink of kind file, on a real directory."""

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.errors import Misconfigured
from tests.worker.sinks.given import HAND_OVER, given, later, secret
from worker.sinks import File

NAME = str(HAND_OVER.family_id)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def content(place: Path, name: str = NAME) -> str:
    return (place / name).read_text()


def test_a_key_is_put_there_for_its_owner_alone(place: Path) -> None:
    text, umask = secret(), os.umask(0)
    try:
        outcome = File(place, "{family_id}").deliver(HAND_OVER, text)
    finally:
        os.umask(umask)
    assert (outcome.state, outcome.receipt) == ("taken", f"file {place / NAME}")
    assert content(place) == text.reveal()
    assert stat.S_IMODE((place / NAME).stat().st_mode) == 0o600
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert os.listdir(place) == [NAME]


def test_the_mode_is_0600_under_a_narrow_umask_too(place: Path) -> None:
    umask = os.umask(0o277)
    try:
        sink = File(place, "{family_id}")
        place.chmod(0o700)
        assert sink.deliver(HAND_OVER, secret()).state == "taken"
    finally:
        os.umask(umask)
    assert stat.S_IMODE((place / NAME).stat().st_mode) == 0o600


def test_the_same_rotation_twice_touches_nothing(place: Path) -> None:
    sink, text = File(place, "{family_id}"), secret()
    sink.deliver(HAND_OVER, text)
    before = (place / NAME).stat()
    assert sink.deliver(HAND_OVER, text).state == "taken"
    after = (place / NAME).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_the_next_rotation_replaces_it_whole(place: Path) -> None:
    """A reader sees one text or the other, at every moment."""
    sink, old, new = File(place, "{family_id}"), secret(), secret()
    sink.deliver(HAND_OVER, old)
    seen, done = set(), threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(content(place))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        sink.deliver(later(number), (old, new)[number % 2])
    done.set()
    reader.join()
    assert seen <= {old.reveal(), new.reveal()}
    assert content(place) == new.reveal()


def test_what_a_dead_worker_left_is_no_obstacle(place: Path) -> None:
    sink, text = File(place, "{family_id}"), secret()
    (place / f".{HAND_OVER.rotation_id}").write_text("half a k")
    assert sink.deliver(HAND_OVER, text).state == "taken"
    assert os.listdir(place) == [NAME]


@pytest.mark.parametrize("to", ["a file", "a directory", "nothing"])
def test_a_link_is_replaced_and_not_followed(place: Path, tmp_path: Path, to: str) -> None:
    sink, target, text = File(place, "{family_id}"), tmp_path / "elsewhere", secret()
    if to == "a file":
        target.write_text("mine")
    elif to == "a directory":
        target.mkdir()
    for name in (NAME, f".{HAND_OVER.rotation_id}"):
        (place / name).symlink_to(target)
    assert sink.deliver(HAND_OVER, text).state == "taken"
    assert not (place / NAME).is_symlink()
    assert content(place) == text.reveal()
    if to == "a file":
        assert target.read_text() == "mine"
    elif to == "a directory":
        assert os.listdir(target) == []
    else:
        assert not target.exists()


def test_a_link_to_a_file_with_this_very_text_is_replaced(place: Path, tmp_path: Path) -> None:
    sink, text = File(place, "{family_id}"), secret()
    target = tmp_path / "copy"
    target.write_text(text.reveal())
    target.chmod(0o600)
    (place / NAME).symlink_to(target)
    sink.deliver(HAND_OVER, text)
    assert not (place / NAME).is_symlink()


def test_the_directory_may_not_become_a_link(place: Path, tmp_path: Path) -> None:
    sink = File(place, "{family_id}")
    place.rename(tmp_path / "moved")
    (tmp_path / "thiefs").mkdir()
    place.symlink_to(tmp_path / "thiefs")
    outcome = sink.deliver(HAND_OVER, secret())
    assert (outcome.state, os.listdir(tmp_path / "thiefs")) == ("failed", [])
    assert "a link" in str(outcome.error)


@pytest.mark.parametrize(
    "name", ["../up", "a/b", "/etc/passwd", "..", ".", ".hidden", "", "a\0b", "a\nb", "ü", "a b"]
)
def test_no_name_of_a_key_leads_out_of_it(place: Path, tmp_path: Path, name: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    sink = File(place, "{key_name}")
    outcome = sink.deliver(given(key_name=name), secret())
    assert outcome.state == "failed"
    assert "the key name cannot be part of a name" in str(outcome.error)
    assert sorted(tmp_path.rglob("*")) == [*before, place]


def test_a_name_may_have_several_facts(place: Path) -> None:
    File(place, "{account}.{key_name}.key").deliver(HAND_OVER, secret())
    assert os.listdir(place) == ["ada@example.com.deploy.key"]


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_directory_that_others_may_write_to_is_refused(place: Path, mode: int) -> None:
    sink = File(place, "{family_id}")
    place.chmod(mode)
    outcome = sink.deliver(HAND_OVER, secret())
    assert (outcome.state, os.listdir(place)) == ("failed", [])
    assert f"run `chmod go-w {place}`" in str(outcome.error)
    with pytest.raises(Misconfigured, match="lets others change its files"):
        File(place, "{family_id}")


def test_what_is_no_directory_is_refused_at_the_start(place: Path) -> None:
    place.write_text("")
    with pytest.raises(Misconfigured, match=r"cannot be put into .*keys"):
        File(place, "{family_id}")


def test_a_directory_in_the_place_of_the_file_is_for_a_person(place: Path) -> None:
    sink = File(place, "{family_id}")
    (place / NAME).mkdir()
    outcome = sink.deliver(HAND_OVER, secret())
    assert outcome.state == "failed"
    assert os.listdir(place) == [NAME]


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (errno.ENOSPC, "retry"),
        (errno.EIO, "retry"),
        (errno.EDQUOT, "retry"),
        (errno.EROFS, "failed"),
        (errno.EACCES, "failed"),
    ],
)
@pytest.mark.parametrize("at", ["write", "fsync", "rename"])
def test_what_may_pass_is_tried_again(
    place: Path, monkeypatch: pytest.MonkeyPatch, code: int, state: str, at: str
) -> None:
    """The system says no, as a full or a read-only disk makes it."""
    sink, old, text = File(place, "{family_id}"), secret(), secret()
    sink.deliver(HAND_OVER, old)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, at, refuse)
        outcome = sink.deliver(later(), text)
    assert outcome.state == state
    assert os.strerror(code) in str(outcome.error)
    assert text.reveal() not in repr(outcome)
    assert (os.listdir(place), content(place)) == ([NAME], old.reveal())
    assert sink.deliver(later(), text).state == "taken"


def test_the_content_is_on_the_disk_before_its_name_is(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, calls = File(place, "{family_id}"), list[str]()

    def noted(name: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any, **more: Any) -> None:
            calls.append(name)
            real(*arguments, **more)

        return call

    for name in ("fsync", "rename"):
        monkeypatch.setattr(os, name, noted(name, getattr(os, name)))
    sink.deliver(HAND_OVER, secret())
    assert calls == ["fsync", "rename", "fsync"]
