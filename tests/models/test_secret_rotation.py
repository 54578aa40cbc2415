"""Peppers and key-encryption keys are replaced while everything runs (docs/secrets.md).

A machine here is a directory of secrets and a `Client` that was opened on it before any change.
"""

import base64
import logging
import secrets
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import pytest

from models import Client, keyring, secret_files
from models.errors import Misconfigured
from models.sealing import UnknownKek
from tests.eventually import eventually
from tests.world import ADA, World


@dataclass
class Machine:
    """A directory of secrets, and a process that works with it."""

    secrets: Path
    client: Client

    def create(self, name: str = "a key") -> str:
        """The text of a new key."""
        return self.client.create_api_key(name, ADA, "viewer", 90 * 86_400).text.reveal()

    def says(self, text: str) -> str | None:
        """Why a key is refused; None where it works."""
        return self.client.verify(text, record=False).reason

    def receive(self, path: Path) -> None:
        """What `scp` does."""
        shutil.copy2(path, self.secrets / path.name)

    def promote(self, name: str) -> None:
        """What `mv` does."""
        (self.secrets / f"{name}.next").rename(self.secrets / name)

    def knows(self, *peppers: int) -> bool:
        return self.client.keyring.peppers.versions == peppers


@pytest.fixture
def machines(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Machine]]:
    """Two of them, with the same secrets, on one database with one account."""
    monkeypatch.setattr(keyring, "LOOK_EVERY", 0.02)
    first, second = tmp_path / "first", tmp_path / "second"
    for name in secret_files.NAMES:
        secret_files.make(first, name)
    shutil.copytree(first, second)
    with ExitStack() as stack:
        made = [
            Machine(place, stack.enter_context(Client(database_url, secrets_dir=place)))
            for place in (first, second)
        ]
        World(made[0].client.database).account()
        yield made


def stored(machine: Machine, column: str, table: str = "api_keys") -> list[int]:
    """The versions that rows name, the oldest row first."""
    with machine.client.database.begin() as tx:
        return list(tx.execute(f"SELECT {column} FROM keyturn.{table} ORDER BY id").scalars())


def test_a_pepper_is_replaced_and_no_key_is_refused_meanwhile(machines: list[Machine]) -> None:
    here, there = machines
    first = here.create()
    done = Event()

    def create_and_verify(creator: Machine, verifier: Machine) -> int:
        count = 0
        while not done.is_set():
            text = creator.create()
            assert (verifier.says(text), verifier.says(first)) == (None, None)
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(create_and_verify, *pair) for pair in (machines, machines[::-1]) * 2]
        try:
            following = secret_files.make(here.secrets, "pepper")
            assert following.name == "pepper-2.next"
            eventually(lambda: here.knows(1, 2))
            there.receive(following)
            eventually(lambda: there.knows(1, 2))
            for machine in machines:
                machine.promote("pepper-2")
                eventually(lambda machine=machine: machine.knows(2, 1))  # type: ignore[misc]
                so_far = len(stored(here, "pepper"))
                eventually(lambda count=so_far: len(stored(here, "pepper")) > count + 20)  # type: ignore[misc]
        finally:
            done.set()
        assert all(each.result() > 0 for each in running)
    made = stored(here, "pepper")
    assert (made[0], made[-1]) == (1, 2)


def test_a_version_that_skipped_next_is_refused_no_longer_than_its_file_takes(
    machines: list[Machine],
) -> None:
    here, there = machines
    secret_files.make(here.secrets, "pepper")
    here.promote("pepper-2")
    eventually(lambda: here.knows(2, 1))
    text = here.create()
    assert (here.says(text), there.says(text)) == (None, "unknown")
    there.receive(here.secrets / "pepper-2")
    eventually(lambda: there.says(text) is None)


def test_a_key_encryption_key_is_replaced_between_sealing_and_claim(
    machines: list[Machine],
) -> None:
    here, there = machines
    old = [here.create(name) for name in ("before", "between", "after")]
    here.client.rotate(old[0])
    following = secret_files.make(here.secrets, "kek")
    there.receive(following)
    eventually(lambda: all(each.client.keyring.sealer.versions == (1, 2) for each in machines))
    here.client.rotate(old[1])
    here.promote("kek-2")
    eventually(lambda: here.client.keyring.sealer.current == 2)
    here.client.rotate(old[2])
    assert stored(here, "sealed_kek", "rotations") == [1, 1, 2]
    claimed = [there.client.claim(text).secret.reveal() for text in old]
    assert [there.says(text) for text in claimed] == [None] * 3


def test_a_secret_that_is_gone_or_spoilt_stays_in_use_and_is_told(
    machines: list[Machine], caplog: pytest.LogCaptureFixture
) -> None:
    here, there = machines
    text = here.create()
    there.receive(secret_files.make(here.secrets, "pepper"))
    eventually(lambda: here.knows(1, 2))
    here.promote("pepper-2")
    (here.secrets / "pepper-1").unlink()
    eventually(lambda: here.knows(2, 1))
    assert here.says(text) is None
    (here.secrets / "pepper-2").write_bytes(base64.b64encode(secrets.token_bytes(32)))
    eventually(lambda: there.knows(1, 2))
    new = here.create()
    assert there.says(new) is None, "it went on with what it had read as pepper-2"
    began = time.monotonic()  # it has seen the spoilt file before its mode, and that alone, changes
    eventually(lambda: here.says(new) is None and time.monotonic() > began + 0.1)
    with caplog.at_level(logging.WARNING):
        (here.secrets / "pepper-2").chmod(0o644)
        eventually(lambda: here.says(new) is None and caplog.records)
    assert "run `chmod 600" in caplog.text
    with pytest.raises(Misconfigured, match="chmod 600"):
        keyring.Keyring.from_directory(here.secrets)


def test_what_a_process_lacks_stops_what_needs_it_and_nothing_else(
    machines: list[Machine], database_url: str
) -> None:
    here, _ = machines
    old, other = here.create(), here.create()
    here.client.rotate(old)
    for name in secret_files.NAMES:
        secret_files.make(here.secrets, name)
        here.promote(f"{name}-2")
        (here.secrets / f"{name}-1").rename(here.secrets.parent / f"{name}-1")
    with Client(database_url, secrets_dir=here.secrets) as client:
        lacking = client.database.run(lambda tx: keyring.missing(tx, client.keyring))
        assert lacking == ["pepper-1", "kek-1"]
        assert client.verify(other).reason == "unknown"
        fresh = client.create_api_key("new", ADA, "viewer", 86_400)
        assert client.verify(fresh.text.reveal()).valid
    (here.secrets.parent / "pepper-1").rename(here.secrets / "pepper-1")
    with Client(database_url, secrets_dir=here.secrets) as client:
        assert client.verify(other).valid
        with pytest.raises(UnknownKek, match="key-encryption key 1 is missing: bring its file"):
            client.claim(old)
        (here.secrets.parent / "kek-1").rename(here.secrets / "kek-1")
        eventually(lambda: client.keyring.sealer.versions == (2, 1))
        assert client.verify(client.claim(old).secret.reveal()).valid, "the claim was not used up"


def test_a_version_may_go_when_nothing_names_it(machines: list[Machine]) -> None:
    here, _ = machines
    key = here.client.create_api_key("old", ADA, "viewer", 86_400)
    for name in secret_files.NAMES:
        secret_files.make(here.secrets, name)
        here.promote(f"{name}-2")
        secret_files.make(here.secrets, name)

    def listed() -> dict[str, tuple[str, int, bool]]:
        found = here.client.database.run(lambda tx: keyring.versions(tx, here.secrets))
        assert len({one.fingerprint for one in found}) == 6
        return {one.name: (one.use, one.named_by, one.may_retire) for one in found}

    assert listed() == {
        "pepper-1": ("old", 1, False),
        "pepper-2": ("current", 0, False),
        "pepper-3": ("next", 0, False),
        "kek-1": ("old", 0, True),
        "kek-2": ("current", 0, False),
        "kek-3": ("next", 0, False),
    }
    here.client.delete(key.id)
    assert listed()["pepper-1"] == ("old", 0, True)


def test_a_missing_version_is_listed(machines: list[Machine]) -> None:
    here, _ = machines
    here.create()
    secret_files.make(here.secrets, "pepper")
    here.promote("pepper-2")
    (here.secrets / "pepper-1").unlink()
    found = here.client.database.run(lambda tx: keyring.versions(tx, here.secrets))
    assert found[0] == keyring.SecretVersion("pepper-1", "missing", None, 1, may_retire=False)


def test_the_fingerprint_tells_machines_apart(machines: list[Machine]) -> None:
    def prints(machine: Machine) -> list[str | None]:
        found = machine.client.database.run(lambda tx: keyring.versions(tx, machine.secrets))
        return [one.fingerprint for one in found]

    here, there = machines
    assert prints(here) == prints(there)
    for machine in machines:
        secret_files.make(machine.secrets, "pepper")  # on each by itself: a mistake
    assert prints(here)[1] != prints(there)[1]
