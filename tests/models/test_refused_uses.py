"""Who still tries a stopped key is refused, counted, and told of at most once a day."""

from datetime import timedelta
from uuid import UUID

import pytest

from models import Client, refused_uses
from models.keyring import Keyring
from models.recording import Use, UseRecorder
from tests.models.scene import DAY, HOUR, MINUTE, Scene
from worker.channels.messages import mail


class Product:
    """A product that verifies, and the flow that tells of what it refused."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.alarms: list[dict[str, object]] = []
        scene.database.on_alarm = self.alarms.append

    def tries(self, key: UUID, ip: str | None = "192.0.2.7") -> str | None:
        """Somebody uses a key; what the product was told."""
        keyring = Keyring(self.scene.peppers, self.scene.sealer)
        url = self.scene.database.engine.url.render_as_string(hide_password=False)
        with Client(url, keyring=lambda: keyring, clock=self.scene.now) as client:
            verdict = client.verify(self.scene.texts[key].reveal(), ip)
        self.scene.later(timedelta(seconds=1))
        return verdict.reason

    def told(self) -> int:
        """A run of the flow; how many mails went out."""
        before = len(self.scene.mails("key.refused"))
        while not self.scene.database.run(
            lambda tx: refused_uses.tell(tx, self.scene.policy)
        ).finished:
            pass
        return len(self.scene.mails("key.refused")) - before

    def counted(self, key: UUID) -> int:
        rows = self.scene.sql(
            "SELECT refused_uses AS n FROM keyturn.key_uses WHERE key_id = :key", key=key
        )
        found: int = rows[0]["n"]
        return found


@pytest.fixture
def product(scene: Scene) -> Product:
    return Product(scene)


def _deleted(scene: Scene) -> UUID:
    key = scene.key()
    scene.delete(key)
    scene.later(MINUTE)
    return key


def test_a_deleted_key_that_is_tried_is_told_to_its_owner(scene: Scene, product: Product) -> None:
    key = _deleted(scene)
    assert product.tries(key) == "deleted"
    assert product.counted(key) == 1
    assert product.told() == 1
    [sent] = scene.mails("key.refused")
    [named] = sent["keys"]
    assert (named["id"], named["status"], named["ip"]) == (str(key), "deleted", "192.0.2.7")
    assert [one["alarm"] for one in product.alarms] == ["stopped_key_used"]
    [outgoing] = scene.outgoing("key.refused")
    body = mail(outgoing, "Keyturn <k@example.com>").get_content()
    assert "192.0.2.7" in body
    assert "at most once a day" in body


def test_a_retired_key_that_is_tried_is_told_and_its_family_lives(
    scene: Scene, product: Product
) -> None:
    """GitLab once stopped whole families for that, and with them whoever had changed over."""
    rotation = scene.retired()
    scene.later(MINUTE)
    for _ in range(5):
        assert product.tries(rotation.old_key_id) == "retired"
    assert product.told() == 1
    assert product.tries(rotation.new_key_id) is None
    assert scene.find_key(rotation.new_key_id).status == "active"
    assert scene.sql("SELECT FROM keyturn.holds WHERE kind <> 'rotated'") == []
    assert scene.rotation(rotation).state == "retired"


def test_an_owner_is_told_once_a_day_however_often_and_of_whichever_key(
    scene: Scene, product: Product
) -> None:
    first, second = _deleted(scene), _deleted(scene)
    product.tries(first)
    assert product.told() == 1
    for _ in range(23):
        scene.later(HOUR)
        product.tries(first)
        product.tries(second)
        assert product.told() == 0
    scene.later(HOUR)
    assert product.told() == 1
    newest = scene.mails("key.refused")[-1]
    assert {one["id"] for one in newest["keys"]} == {str(first), str(second)}
    scene.later(2 * DAY)
    assert product.told() == 0


def test_each_owner_is_told(scene: Scene, product: Product) -> None:
    other = scene.key(account=scene.account("bob@example.com"))
    scene.sql("UPDATE keyturn.api_keys SET deleted_at = :now WHERE id = :k RETURNING 1", k=other)
    scene.sql("UPDATE keyturn.api_keys SET status = 'deleted' WHERE id = :k RETURNING 1", k=other)
    for key in (_deleted(scene), other):
        product.tries(key)
    assert product.told() == 2


def test_a_key_that_others_know_is_the_operators_business(scene: Scene, product: Product) -> None:
    key = scene.key()
    scene.hold(key=key, kind="compromised")
    scene.later(MINUTE)
    assert product.tries(key) == "key_held"
    assert product.told() == 0
    assert [one["alarm"] for one in product.alarms] == ["compromised_key_used"]
    product.tries(key)
    product.told()
    assert len(product.alarms) == 1


def test_nobody_is_told_of_a_key_that_is_merely_disabled(scene: Scene, product: Product) -> None:
    key = scene.key()
    scene.hold(key=key)
    scene.later(MINUTE)
    assert product.tries(key) == "key_held"
    assert product.counted(key) == 1
    scene.later(MINUTE)
    scene.delete(key)  # what was tried before is no use of a deleted key
    assert product.told() == 0
    assert product.alarms == []


@pytest.mark.parametrize("state", ["expired", "account held", "works"])
def test_other_refusals_are_not_counted(scene: Scene, product: Product, state: str) -> None:
    key = scene.key(HOUR)
    if state == "expired":
        scene.later(2 * HOUR)
    if state == "account held":
        scene.hold()
    product.tries(key)
    assert product.counted(key) == 0
    assert product.told() == 0


def test_a_refused_use_is_no_use(scene: Scene, product: Product) -> None:
    rotation = scene.retired()
    last = scene.find_key(rotation.old_key_id).last_used_at
    scene.later(MINUTE)
    product.tries(rotation.old_key_id)
    assert scene.find_key(rotation.old_key_id).last_used_at == last


def test_a_flood_costs_a_row_a_minute_and_grows_nothing(scene: Scene) -> None:
    """As of uses: a process writes one key at most once in its interval."""
    key = _deleted(scene)
    recorder = UseRecorder(scene.database, timedelta(minutes=1))
    for _ in range(10_000):
        recorder.add(Use(key, scene.now(), "192.0.2.7", refused=True))
    assert len(recorder._waiting) == 1
    recorder.flush()
    [row] = scene.sql("SELECT count(*) AS rows, sum(refused_uses) AS n FROM keyturn.key_uses")
    assert (row["rows"], row["n"]) == (1, 1)
    recorder.close()


def test_a_refused_use_does_not_hide_the_next_real_one(scene: Scene) -> None:
    """A key may be enabled again within the minute in which its use was refused."""
    key = scene.key()
    recorder = UseRecorder(scene.database, timedelta(minutes=1))
    recorder.add(Use(key, scene.now(), refused=True))
    recorder.add(Use(key, scene.now()))
    recorder.close()
    [row] = scene.sql("SELECT uses, refused_uses FROM keyturn.key_uses")
    assert (row["uses"], row["refused_uses"]) == (1, 1)


def test_a_busy_account_is_left_to_a_later_run(scene: Scene, product: Product) -> None:
    product.tries(_deleted(scene))
    with scene.database.begin() as tx:
        tx.execute("SELECT FROM keyturn.accounts FOR UPDATE")
        with scene.database.begin() as other:
            assert refused_uses.tell(other, scene.policy).changed == 0
    assert product.told() == 1
