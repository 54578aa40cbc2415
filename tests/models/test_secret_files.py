"""Peppers and key-encryption keys come from files that nobody else can read."""

import base64
import os
from pathlib import Path

import pytest

from models.errors import Misconfigured
from models.secret_files import read_versioned

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
    assert read_versioned(tmp_path, "pepper") == {1: SECRET, 12: SECRET * 2}
    assert read_versioned(tmp_path, "kek") == {1: b"k" * 32}


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
    assert read_versioned(tmp_path, "pepper") == {1: expected}


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


@pytest.mark.parametrize("version", ["0", "01", "-1", "x", "", "1.bak", "1~", "old-1", "1e3", "１"])
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
    assert read_versioned(tmp_path, "pepper") == {1: SECRET}
