"""The sink of kind vault, on an HTTP peer built from Vault's documented API."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models.key_text import Secret
from models.sinks import HandOver, Outcome
from tests.servers import free_port
from tests.worker.sinks.given import HAND_OVER, given, later, secret
from tests.worker.sinks.vault_peer import TOKEN, Store, Version, serving
from worker.logs import configure_logging
from worker.setting_sinks import VaultSink
from worker.sinks import Vault

PATH = f"keyturn/{HAND_OVER.family_id}"


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def address(store: Store) -> Iterator[str]:
    with serving(store) as found:
        yield found


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def sink(address: str, token_file: Path) -> Vault:
    return Vault(VaultSink(kind="vault", address=address, token_file=token_file), timeout=3.0)


def content(text: Secret, hand_over: HandOver = HAND_OVER) -> dict[str, str]:
    return {
        "api_key": text.reveal(),
        "rotation_id": str(hand_over.rotation_id),
        "key_id": str(hand_over.key_id),
        "expires_at": hand_over.expires_at.isoformat(),
    }


def is_quiet(outcome: Outcome, text: Secret) -> bool:
    """Neither the key nor the token nor what the server said shows."""
    return not any(one in repr(outcome) for one in (text.reveal()[3:30], TOKEN, "a word of"))


def test_a_key_becomes_a_version_of_its_secret(sink: Vault, store: Store) -> None:
    text = secret()
    outcome = sink.deliver(HAND_OVER, text)
    assert (outcome.state, outcome.receipt) == ("taken", f"secret/{PATH}, version 1")
    assert store.contents(PATH) == [content(text)]


def test_the_same_rotation_twice_is_one_version(sink: Vault, store: Store) -> None:
    text = secret()
    first, second = (sink.deliver(HAND_OVER, text) for _ in range(2))
    assert first == second
    assert store.contents(PATH) == [content(text)]


def test_the_next_rotation_is_the_next_version(sink: Vault, store: Store) -> None:
    old, new = secret(), secret()
    sink.deliver(HAND_OVER, old)
    assert sink.deliver(later(), new).receipt.endswith("version 2")
    assert store.contents(PATH) == [content(old), content(new, later())]


@pytest.mark.parametrize("destroyed", [False, True])
def test_a_deleted_version_is_followed_by_the_next(
    sink: Vault, store: Store, destroyed: bool
) -> None:
    store.versions[PATH] = [Version({"a": "b"}), Version(None, destroyed)]
    assert sink.deliver(HAND_OVER, secret()).receipt.endswith("version 3")


def test_a_lost_answer_is_found_to_be_ours(sink: Vault, store: Store) -> None:
    text = secret()
    store.faults = ["", "lost"]
    assert sink.deliver(HAND_OVER, text).state == "retry"
    outcome = sink.deliver(HAND_OVER, text)
    assert (outcome.state, store.contents(PATH)) == ("taken", [content(text)])


def test_who_is_overtaken_overwrites_nothing_unseen(sink: Vault, store: Store) -> None:
    store.faults = ["", "overtaken"]
    outcome = sink.deliver(HAND_OVER, secret())
    assert (outcome.state, store.contents(PATH)) == ("retry", [{"by": "somebody else"}])
    assert sink.deliver(HAND_OVER, secret()).receipt.endswith("version 2")


def test_a_conflict_with_our_own_late_write_is_success(sink: Vault, store: Store) -> None:
    """The first try hung on its way, and got there between the second's look and its write."""
    text = secret()

    store.faults = ["", "late"]
    outcome = sink.deliver(HAND_OVER, text)
    assert (outcome.state, store.contents(PATH)) == ("taken", [content(text)])


@pytest.mark.parametrize("at", ["read", "write"])
@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("429", "asked too often"),
        ("500", "an error of its own"),
        ("502", "cannot reach what it needs"),
        ("503", "sealed or down"),
        ("412", "its answer is unknown"),
        ("418", "its answer is unknown"),
        ("hang", "cannot be reached (ReadTimeout)"),
        ("reset", "cannot be reached (ConnectionError)"),
    ],
)
def test_what_may_pass_is_tried_again(
    sink: Vault, store: Store, at: str, fault: str, why: str
) -> None:
    text = secret()
    store.faults = [fault] if at == "read" else ["", fault]
    outcome = sink.deliver(HAND_OVER, text)
    assert outcome.state == "retry"
    assert why in str(outcome.error)
    assert is_quiet(outcome, text)
    assert sink.deliver(HAND_OVER, text).state == "taken"
    assert store.contents(PATH) == [content(text)]


def test_a_refused_write_is_for_a_person(sink: Vault, store: Store) -> None:
    text = secret()
    store.faults = ["", "400"]
    outcome = sink.deliver(HAND_OVER, text)
    assert outcome.state == "failed"
    assert "refused the secret (400)" in str(outcome.error)
    assert is_quiet(outcome, text)


def test_a_wrong_mount_is_for_a_person(address: str, token_file: Path) -> None:
    table = VaultSink(kind="vault", address=address, token_file=token_file, mount="kv")
    outcome = Vault(table).deliver(HAND_OVER, secret())
    assert outcome.state == "failed"
    assert "correct `mount`" in str(outcome.error)


@pytest.mark.parametrize("fault", ["redirect", "page"])
@pytest.mark.parametrize("at", ["read", "write"])
def test_the_token_follows_no_redirect(sink: Vault, store: Store, fault: str, at: str) -> None:
    store.faults = [fault] if at == "read" else ["", fault]
    outcome = sink.deliver(HAND_OVER, secret())
    assert outcome.state == ("retry" if at == "write" else "taken")
    assert len(store.requests) == 2  # and none where the redirect pointed to
    assert len(store.contents(PATH)) == (0 if at == "write" else 1)


def test_the_token_is_read_anew_for_each_key(sink: Vault, store: Store, token_file: Path) -> None:
    store.token = "hvs.renewed"
    outcome = sink.deliver(HAND_OVER, secret())
    assert outcome.state == "retry"
    assert "the token has ended" in str(outcome.error)
    token_file.write_text("hvs.renewed")
    assert sink.deliver(HAND_OVER, secret()).state == "taken"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda file: file.unlink(), "cannot be read (No such file"),
        (lambda file: file.chmod(0o604), "is open to everybody: run `chmod o= "),
        (lambda file: file.write_text(""), "does not hold a token"),
        (lambda file: file.write_text("a b"), "does not hold a token"),
        (lambda file: file.write_text("x" * 5000), "does not hold a token"),
        (lambda file: file.write_bytes(b"\xff"), "does not hold a token"),
    ],
    ids=["gone", "open", "empty", "two", "long", "binary"],
)
def test_a_token_that_cannot_be_used_is_for_a_person(
    sink: Vault, store: Store, token_file: Path, wrong: Callable[[Path], object], why: str
) -> None:
    wrong(token_file)
    outcome = sink.deliver(HAND_OVER, secret())
    assert outcome.state == "failed"
    assert why in str(outcome.error)
    assert store.requests == []


def test_mount_path_field_and_namespace_are_settings(store: Store, token_file: Path) -> None:
    store.mount, store.namespace = "team/kv", "team"
    with serving(store) as address:
        table = VaultSink(
            kind="vault",
            address=address,
            token_file=token_file,
            mount="team/kv",
            namespace="team",
            path="{account}/{key_name}",
            field="token",
        )
        text = secret()
        assert Vault(table).deliver(HAND_OVER, text).state == "taken"
    [found] = store.contents("ada%40example.com/deploy")
    assert found is not None
    assert found["token"] == text.reveal()


@pytest.mark.parametrize("name", ["../../sys/policies", "..", "a/b", "a?list=true", "a#b", ""])
def test_no_name_of_a_key_leads_elsewhere(
    store: Store, address: str, token_file: Path, name: str
) -> None:
    table = VaultSink(kind="vault", address=address, token_file=token_file, path="k/{key_name}")
    assert Vault(table).deliver(given(key_name=name), secret()).state == "failed"
    assert store.requests == []


def test_nobody_there(token_file: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    table = VaultSink(kind="vault", address=address, token_file=token_file)
    outcome = Vault(table).deliver(HAND_OVER, secret())
    assert (outcome.state, outcome.error) == (
        "retry",
        "the server cannot be reached (ConnectionError)",
    )


def test_no_log_has_the_key_or_the_token_even_at_level_debug(
    sink: Vault, store: Store, clean_logging: None
) -> None:
    log, text = io.StringIO(), secret()
    configure_logging("debug", "json", "kt", log)
    store.faults = ["500", "", "400", "", "lost"]
    for _ in range(4):
        sink.deliver(HAND_OVER, text)
    assert text.reveal()[3:30] not in log.getvalue()
    assert TOKEN not in log.getvalue()
