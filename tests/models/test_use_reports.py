"""Gateways that cache report uses in batches: each member is looked at by itself."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from models import Client, Use
from models.keyring import Keyring
from tests.models.scene import DAY, HOUR, MINUTE, Scene


@pytest.fixture
def client(scene: Scene) -> Iterator[Client]:
    url = scene.database.engine.url.render_as_string(hide_password=False)
    keyring = Keyring(scene.peppers, scene.sealer)
    with Client(url, keyring=lambda: keyring, clock=scene.now) as opened:
        yield opened


def uses(scene: Scene, key: UUID) -> Any:
    [row] = scene.sql(
        "SELECT uses, first_used_at AS first, last_used_at AS last, host(last_ip) AS ip,"
        " refused_uses AS refused FROM keyturn.key_uses WHERE key_id = :key",
        key=key,
    )
    return row


def test_one_bad_member_stops_no_other(scene: Scene, client: Client) -> None:
    key, now = scene.key(), scene.now()
    bad: list[Any] = [
        Use("not an id", now),  # type: ignore[arg-type]
        Use(None, now),  # type: ignore[arg-type]
        Use(uuid4(), now),
        Use(key, now.replace(tzinfo=None)),
        Use(key, "2026-03-01"),  # type: ignore[arg-type]
        Use(key, datetime.min.replace(tzinfo=UTC) - timedelta(0)),
        Use(key, now, count=0),
        Use(key, now, count=-5),
        Use(key, now, count=True),
        Use(key, now, count=10**30),
        Use(key, now, count=1.5),  # type: ignore[arg-type]
    ]
    done = client.report_use([Use(key, now, "192.0.2.7", 3), *bad, Use(key, now, "elsewhere", 2)])
    assert done.keys == 1
    codes = {one.position: one.code for one in done.rejected}
    assert codes == {
        **{1: "key_id_invalid", 2: "key_id_invalid", 3: "key_unknown"},
        **{4: "time_invalid", 5: "time_invalid"},
        **dict.fromkeys(range(7, 12), "count_invalid"),
    }
    row = uses(scene, key)
    assert (row["uses"], row["ip"]) == (6, "192.0.2.7")


def test_an_id_may_be_a_text_and_a_time_of_any_zone(scene: Scene, client: Client) -> None:
    key = scene.key()
    scene.later(HOUR)
    at = datetime.fromisoformat(scene.now().isoformat().replace("13:00:00+00:00", "14:30:00+02:00"))
    assert client.report_use([Use(str(key), at)]).keys == 1  # type: ignore[arg-type]
    assert uses(scene, key)["last"] == scene.now() - timedelta(minutes=30)


def test_a_late_report_takes_no_newer_use_away(scene: Scene, client: Client) -> None:
    key = scene.key()
    scene.later(DAY)
    client.report_use([Use(key, scene.now(), "192.0.2.7")])
    client.report_use([Use(key, scene.now() - HOUR, "192.0.2.8")])
    row = uses(scene, key)
    assert (row["last"], row["ip"]) == (scene.now(), "192.0.2.7")
    assert row["first"] == scene.now() - HOUR


def test_the_same_report_twice_leaves_the_times_as_they_are(scene: Scene, client: Client) -> None:
    key = scene.key()
    scene.later(DAY)
    report = [Use(key, scene.now() - HOUR, "192.0.2.7")]
    client.report_use(report)
    before = dict(uses(scene, key))
    scene.later(HOUR)
    client.report_use(report)
    after = dict(uses(scene, key))
    assert after.pop("uses") == before.pop("uses") + 1
    assert after == before


def test_a_time_to_come_counts_as_now_and_one_before_the_key_as_its_making(
    scene: Scene, client: Client
) -> None:
    key, made = scene.key(), scene.now()
    scene.later(DAY)
    client.report_use([Use(key, scene.now() + 9 * DAY), Use(key, made - 9 * DAY)])
    row = uses(scene, key)
    assert (row["first"], row["last"]) == (made, scene.now())


def test_a_gateway_whose_clock_is_behind_does_not_shorten_the_overlap(
    scene: Scene, client: Client
) -> None:
    rotation = scene.request(scene.key())
    scene.claimed(rotation.old_key_id)
    scene.later(HOUR)
    client.report_use([Use(rotation.new_key_id, scene.now() - 30 * DAY)])
    scene.advance()
    after = scene.rotation(rotation)
    assert after.state == "draining"
    assert after.confirmed_at == rotation.issued_at
    assert after.retire_at is not None
    assert after.retire_at >= rotation.issued_at + scene.policy.rotation_overlap


def test_refused_uses_are_reported_the_same_way(scene: Scene, client: Client) -> None:
    key = scene.key()
    scene.delete(key)
    scene.later(MINUTE)
    assert client.report_use([Use(key, scene.now(), "192.0.2.7", 4, refused=True)]).keys == 1
    row = uses(scene, key)
    assert (row["uses"], row["refused"], row["last"]) == (0, 4, None)


def test_a_row_that_is_written_just_now_is_waited_for(scene: Scene, client: Client) -> None:
    """Nobody's request waits behind a report; a count that it has is not thrown away."""
    key = scene.key()
    with scene.database.begin() as tx:
        tx.execute("SELECT FROM keyturn.key_uses FOR UPDATE")
        tx.execute("SET LOCAL idle_in_transaction_session_timeout = 200")
        assert client.report_use([Use(key, scene.now())]).keys == 1
        tx.connection.invalidate()
        tx.connection.rollback()


def test_thousands_of_members_are_one_matter_of_seconds(scene: Scene, client: Client) -> None:
    keys = [scene.key() for _ in range(50)]
    members = [Use(keys[n % 50], scene.now(), "192.0.2.7") for n in range(20_000)]
    members[12_345] = Use(uuid4(), scene.now())
    started = time.monotonic()
    done = client.report_use(members)
    assert time.monotonic() - started < 30
    assert [one.position for one in done.rejected] == [12_345]
    assert sum(uses(scene, key)["uses"] for key in keys) == 19_999
