"""Peppers and key-encryption keys come from files that nobody else can read."""

import base64
import os
from pathlib import Path

import pytest

from models.errors import Misconfigured
from models.secret_files import Versions, lacking, make, mark, read_versioned

SECRET = bytes(range(100, 132))


def write(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def refusal(directory: Path) -> str:
    with pytest.raises(Misconfigured) as raised:
        read_versioned(directory, "pepper")
    return str(raised.value)


def test_reads_all_versions_of_one_name(tmp_path: Path) -> None:
    write(tmp_path / "pepper-1", base64.b64encode(SECRET) + b"\n")
    write(tmp_path / "pepper-12", base64.b64encode(SECRET * 2), mode=0o400)
    write(tmp_path / "kek-1", base64.b64encode(b"k" * 32))
    write(tmp_path / "notes.txt", b"", mode=0o644)
    assert read_versioned(tmp_path, "pepper") == Versions({1: SECRET, 12: SECRET * 2}, current=12)
    assert read_versioned(tmp_path, "kek") == Versions({1: b"k" * 32}, current=1)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (base64.b64encode(SECRET), SECRET),
        (b"  " + base64.b64encode(SECRET) + b"\r\n", SECRET),
        (base64.encodebytes(SECRET * 3), SECRET * 3),  # written in lines
        (b"a plain text of more than 32 bytes!\n", b"a plain text of more than 32 bytes!"),
        (b"\n" + b"\xff" * 30 + b"\n", b"\n" + b"\xff" * 30 + b"\n"),
        # Good base64 of too little is a text, if it is long enough as one.
        (base64.b64encode(b"x" * 30), base64.b64encode(b"x" * 30)),
    ],
    ids=["base64", "blanks", "lines", "text", "bytes", "base64 of less"],
)
def test_reads_base64_text_and_bytes(tmp_path: Path, content: bytes, expected: bytes) -> None:
    write(tmp_path / "pepper-1", content)
    assert read_versioned(tmp_path, "pepper").by_version == {1: expected}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602, 0o610, 0o601, 0o660])
def test_refuses_a_file_open_to_others(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "pepper-1", base64.b64encode(SECRET), mode)
    assert f"`chmod 600 {path}`" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is empty"),
        (b" \n\t", "is empty"),
        (b"x" * 31, "is too short"),
        (base64.b64encode(b"x" * 15), "is too short"),
        (b"\xff" * 31, "is too short"),
        (b"x" * 4097, "is larger than 4096 bytes"),
    ],
    ids=["empty", "blank", "31 characters", "base64 of 15", "31 bytes", "huge"],
)
def test_refuses_a_secret_of_no_use(tmp_path: Path, content: bytes, fault: str) -> None:
    path = write(tmp_path / "pepper-1", content)
    message = refusal(tmp_path)
    assert f"{path} {fault}" in message
    assert f"openssl rand -base64 32 > {path}" in message
    assert "xxx" not in message


def test_one_bad_file_spoils_the_lot(tmp_path: Path) -> None:
    write(tmp_path / "pepper-1", base64.b64encode(SECRET))
    write(tmp_path / "pepper-2", b"short")
    assert "pepper-2 is too short" in refusal(tmp_path)


@pytest.mark.parametrize(
    "version", ["0", "01", "-1", "x", "", "1.bak", "1.next.next", "1~", "old-1", "1e3", "１"]
)
def test_refuses_a_name_without_a_version(tmp_path: Path, version: str) -> None:
    write(tmp_path / "pepper-1", base64.b64encode(SECRET))
    write(tmp_path / f"pepper-{version}", base64.b64encode(SECRET))
    message = refusal(tmp_path)
    assert f"pepper-{version} has no version" in message
    assert "move it elsewhere" in message


def test_says_how_to_make_the_first_file(tmp_path: Path) -> None:
    path = tmp_path / "pepper-1"
    assert refusal(tmp_path) == (
        f"{path} is missing: make it with `(umask 077; openssl rand -base64 32 > {path})`"
    )


def test_names_a_directory_that_is_not_there(tmp_path: Path) -> None:
    assert f"cannot list {tmp_path / 'none'} (No such file or directory)" in refusal(
        tmp_path / "none"
    )


def test_refuses_what_is_no_file_and_does_not_wait_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pepper-1", 0o600)
    assert "pepper-1 is not a file" in refusal(tmp_path)
    (tmp_path / "pepper-1").unlink()
    (tmp_path / "pepper-1").mkdir(0o700)
    assert "pepper-1 is not a file" in refusal(tmp_path)


def test_refuses_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "pepper-1").symlink_to(tmp_path / "gone")
    assert "cannot read" in refusal(tmp_path)


def test_judges_a_link_by_the_file_that_it_leads_to(tmp_path: Path) -> None:
    target = write(tmp_path / "kept", base64.b64encode(SECRET), mode=0o644)
    (tmp_path / "pepper-1").symlink_to(target)
    assert "open to group or others" in refusal(tmp_path)
    target.chmod(0o600)
    assert read_versioned(tmp_path, "pepper").by_version == {1: SECRET}


def test_what_is_next_is_known_and_not_current(tmp_path: Path) -> None:
    write(tmp_path / "pepper-1", base64.b64encode(SECRET))
    following = write(tmp_path / "pepper-2.next", base64.b64encode(SECRET * 2))
    assert read_versioned(tmp_path, "pepper") == Versions({1: SECRET, 2: SECRET * 2}, current=1)
    following.rename(tmp_path / "pepper-2")
    assert read_versioned(tmp_path, "pepper").current == 2


def test_refuses_versions_that_leave_open_which_is_current(tmp_path: Path) -> None:
    write(tmp_path / "pepper-2.next", base64.b64encode(SECRET))
    assert f"rename it to {tmp_path / 'pepper-2'}" in refusal(tmp_path)
    write(tmp_path / "pepper-2", base64.b64encode(SECRET))
    assert "pepper-2.next is there twice" in refusal(tmp_path)


def test_no_secret_shows_in_what_was_read(tmp_path: Path) -> None:
    write(tmp_path / "pepper-1", b"a plain text of more than 32 bytes!")
    assert repr(read_versioned(tmp_path, "pepper")) == "Versions(current=1)"


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_refuses_a_directory_that_others_may_write_to(tmp_path: Path, mode: int) -> None:
    write(tmp_path / "pepper-1", base64.b64encode(SECRET))
    tmp_path.chmod(mode)
    assert f"`chmod go-w {tmp_path}`" in refusal(tmp_path)


@pytest.mark.parametrize("mode", [0o500, 0o700, 0o755])
def test_others_may_know_which_versions_there_are(tmp_path: Path, mode: int) -> None:
    write(tmp_path / "pepper-1", base64.b64encode(SECRET))
    tmp_path.chmod(mode)
    assert read_versioned(tmp_path, "pepper").current == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("what", ["pepper-1", "."])
def test_refuses_what_belongs_to_another_user(tmp_path: Path, what: str) -> None:
    write(tmp_path / "pepper-1", base64.b64encode(SECRET))
    os.chown(tmp_path / what, 65534, 0)
    assert "belongs to another user (id 65534)" in refusal(tmp_path)


def test_makes_the_first_as_current_and_later_ones_as_next(tmp_path: Path) -> None:
    directory = tmp_path / "secrets"
    assert lacking(directory) == ["pepper", "kek"]
    assert make(directory, "pepper") == directory / "pepper-1"
    assert lacking(directory) == ["kek"]
    first = read_versioned(directory, "pepper").by_version[1]
    assert make(directory, "pepper") == directory / "pepper-2.next"
    found = read_versioned(directory, "pepper")
    assert (found.current, found.by_version[1], len(set(found.by_version.values()))) == (
        1,
        first,
        2,
    )
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
    assert directory.stat().st_mode & 0o777 == 0o700


def test_what_is_there_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two who make one at the same time: the second finds the name taken."""
    make(tmp_path, "pepper")
    before = (tmp_path / "pepper-1").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("models.secret_files._listed", lambda directory, name: [])
        with pytest.raises(Misconfigured, match="File exists"):
            make(tmp_path, "pepper")
    assert [path.name for path in tmp_path.iterdir()] == ["pepper-1"]
    assert (tmp_path / "pepper-1").read_bytes() == before


def test_the_mark_changes_with_every_change(tmp_path: Path) -> None:
    marks = [mark(tmp_path)]
    (tmp_path / "pepper-1").touch()
    marks.append(mark(tmp_path))
    (tmp_path / "pepper-1").write_bytes(b"x")
    marks.append(mark(tmp_path))
    (tmp_path / "pepper-1").rename(tmp_path / "pepper-2")
    marks.append(mark(tmp_path))
    (tmp_path / "pepper-2").unlink()
    assert all(marks[i] != marks[j] for i in range(4) for j in range(i))
    assert mark(tmp_path) == marks[0]
