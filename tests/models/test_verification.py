"""`verify` answers from one look, and uses are recorded behind it (rule 1.5)."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from models import Client, Policy, TimeUnit, Use, linking, roles
from models.base import Database
from models.events import Action
from models.recording import UseRecorder
from tests.eventually import eventually
from tests.world import ADA, ROLES, World, event


@pytest.fixture
def client(database_url: str) -> Iterator[Client]:
    with Client(database_url) as opened:
        yield opened


@pytest.fixture
def account(client: Client) -> UUID:
    def create(tx: object) -> UUID:
        roles.sync(tx, ROLES)  # type: ignore[arg-type]
        return linking.create(tx, ADA, "member", actor="test", policy=Policy())  # type: ignore[arg-type]

    return client.database.run(create)


def uses(client: Client, key: UUID) -> tuple[int, datetime | None]:
    with client.database.begin() as tx:
        row = tx.row("SELECT uses, last_used_at FROM keyturn.key_uses WHERE key_id = :k", k=key)
    assert row is not None
    return row["uses"], row["last_used_at"]


@pytest.mark.usefixtures("account")
def test_yes_says_whose_key_it_is_and_what_it_may_do(client: Client) -> None:
    new = client.create_api_key("ci", ADA, "viewer", 1, TimeUnit.DAY)
    verdict = client.verify(new.text.reveal())
    assert verdict
    assert (verdict.account, verdict.role, verdict.permissions) == (ADA, "viewer", ("read",))
    assert (verdict.key_id, verdict.expires_at) == (new.id, new.expires_at)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "malformed"),
        (None, "malformed"),
        ("kt_abc", "malformed"),
        ("'; DROP TABLE keyturn.api_keys", "malformed"),
        ("x" * 1_000_000, "malformed"),
    ],
)
def test_what_is_no_key_is_refused_without_a_look_up(
    client: Client, text: object, reason: str
) -> None:
    client.database.close()
    assert client.verify(text).reason == reason


@pytest.mark.usefixtures("account")
def test_a_typo_is_malformed_and_another_pepper_unknown(client: Client) -> None:
    text = client.create_api_key("ci", ADA, "viewer", 1, TimeUnit.DAY).text.reveal()
    wrong = text[:-1] + ("0" if text[-1] != "0" else "1")
    assert client.verify(wrong).reason == "malformed"
    from models.key_text import mint

    verdict = client.verify(mint("kt").reveal())
    assert (verdict.reason, verdict.account) == ("unknown", None)


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    ("ip", "valid"),
    [
        ("192.0.2.7", True),
        ("192.0.3.7", False),
        ("2001:db8::1", True),
        ("::ffff:192.0.2.7", True),
        ("not an address", False),
        (None, False),
        ("fe80::1%eth0", True),
    ],
)
def test_the_ip_list(client: Client, ip: str | None, valid: bool) -> None:
    allowed = ["192.0.2.0/24", "2001:db8::1", "fe80::1%eth0"]
    new = client.create_api_key("ci", ADA, "viewer", 1, TimeUnit.DAY, allowed)
    verdict = client.verify(new.text.reveal(), ip)
    assert verdict.valid is valid
    assert verdict.reason == (None if valid else "ip_not_allowed")


@pytest.mark.usefixtures("account")
def test_a_use_is_recorded_and_a_refusal_or_a_look_is_not(client: Client) -> None:
    new = client.create_api_key("ci", ADA, "viewer", 1, TimeUnit.DAY)
    client.verify(new.text.reveal(), record=False)
    client.flush_uses()
    assert uses(client, new.id) == (0, None)
    client.verify(new.text.reveal(), "192.0.2.7")
    eventually(lambda: uses(client, new.id)[0] == 1)
    client.disable(new.id)
    assert not client.verify(new.text.reveal())
    client.flush_uses()
    assert uses(client, new.id)[0] == 1


@pytest.mark.usefixtures("account")
def test_a_use_is_recorded_at_most_once_a_minute(client: Client) -> None:
    new = client.create_api_key("ci", ADA, "viewer", 1, TimeUnit.DAY)
    for _ in range(5):
        client.verify(new.text.reveal())
        client.flush_uses()
    assert uses(client, new.id)[0] == 1


@pytest.mark.usefixtures("account")
def test_verify_waits_for_no_lock_and_says_no_while_recording_is_blocked(client: Client) -> None:
    new = client.create_api_key("ci", ADA, "viewer", 1, TimeUnit.DAY)
    other = Database(str(client.database.engine.url.render_as_string(hide_password=False)))
    with other.begin() as tx:
        tx.execute("SELECT FROM keyturn.api_keys FOR UPDATE")
        tx.execute("SELECT FROM keyturn.accounts FOR UPDATE")
        tx.execute("SELECT FROM keyturn.key_uses FOR UPDATE")
        assert client.verify(new.text.reveal()).valid
        done = threading.Event()

        def flush() -> None:
            client.flush_uses()
            done.set()

        threading.Thread(target=flush).start()
        assert done.wait(2)  # passed over, not waited for
    assert uses(client, new.id)[0] == 0


@pytest.mark.usefixtures("account")
def test_recording_survives_a_database_that_fails_and_never_raises(client: Client) -> None:
    new = client.create_api_key("ci", ADA, "viewer", 1, TimeUnit.DAY)
    with client.database.begin() as tx:
        tx.execute("ALTER TABLE keyturn.key_uses RENAME TO away")
    assert client.verify(new.text.reveal()).valid
    client.flush_uses()
    with client.database.begin() as tx:
        tx.execute("ALTER TABLE keyturn.away RENAME TO key_uses")
    client.flush_uses()
    assert uses(client, new.id)[0] == 1


@pytest.mark.usefixtures("account")
def test_reported_uses_are_folded_and_bad_addresses_dropped(client: Client) -> None:
    new = client.create_api_key("ci", ADA, "viewer", 1, TimeUnit.DAY)
    now = datetime.now(UTC)
    reported = [
        Use(new.id, now, "not an address", 3),
        Use(new.id, now - timedelta(seconds=5), "192.0.2.7", 2),
    ]
    assert client.report_use(reported).keys == 1
    assert uses(client, new.id) == (5, now)


@pytest.mark.usefixtures("account")
def test_a_use_in_the_future_counts_as_one_of_now(client: Client) -> None:
    new = client.create_api_key("ci", ADA, "viewer", 1, TimeUnit.DAY)
    client.report_use([Use(new.id, datetime.now(UTC) + timedelta(days=365))])
    _, last = uses(client, new.id)
    assert last is not None
    assert last <= datetime.now(UTC) + timedelta(seconds=1)


@pytest.mark.usefixtures("account")
def test_verify_goes_on_after_the_server_has_cut_its_connections(client: Client) -> None:
    new = client.create_api_key("ci", ADA, "viewer", 1, TimeUnit.DAY)
    assert client.verify(new.text.reveal())
    with client.database.begin() as tx:
        tx.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
    assert client.verify(new.text.reveal())


def test_a_recorder_that_gets_no_answer_drops_beyond_its_bound(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.recording.MOST_WAITING", 2)
    monkeypatch.setattr(UseRecorder, "_start", lambda self: None)
    recorder = UseRecorder(Database(database_url), timedelta(minutes=1))
    for number in range(3):
        recorder.add(Use(UUID(int=number), datetime.now(UTC)))
    assert recorder.dropped == 1


def test_a_cut_reaches_a_client_that_has_verified_before(database_url: str) -> None:
    world = World(Database(database_url))
    world.account()
    _, text = world.key()
    assert world.verify(text)
    world.receive(event(Action.DISABLED))
    world.apply()
    assert world.verify(text).reason == "account_held"
