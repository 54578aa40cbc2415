"""An account with keys on a real database, at a time that the test moves."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from freezegun import freeze_time
from freezegun.api import FrozenDateTimeFactory

from models import api_keys, holds, linking, outbox, recording, roles, rotations
from models.api_keys import ApiKey
from models.base import Database, Tx
from models.errors import Refused
from models.handover import Claimed
from models.key_text import Peppers, Secret, mint
from models.messages import Outgoing
from models.policy import Policy
from models.roles import Role
from models.rotations import Rotation
from models.sealing import BrokenSeal, Sealer, UnknownKek

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
OWNER = "ada@example.com"
ROLES = {
    "admin": Role("admin", ("read", "write")),
    "reader": Role("reader", ("read",)),
    "writer": Role("writer", ("read", "write")),
}


@contextmanager
def frozen_scene(database_url: str, policy: Policy | None = None) -> Iterator["Scene"]:
    """A scene at START."""
    with freeze_time(START) as clock:
        assert isinstance(clock, FrozenDateTimeFactory)
        scene = Scene(database_url, clock, policy)
        try:
            yield scene
        finally:
            scene.database.close()


class Scene:
    """One database at one moment; every method is a transaction of its own."""

    def __init__(
        self, database_url: str, clock: FrozenDateTimeFactory, policy: Policy | None = None
    ) -> None:
        self.clock = clock
        self.policy = policy or Policy()
        self.sealer = Sealer({1: b"k" * 32})
        self.peppers = Peppers({1: b"p" * 32})
        self.database = Database(database_url, clock=lambda: datetime.now(UTC))
        self.texts: dict[UUID, Secret] = {}
        with self.database.begin() as tx:
            roles.sync(tx, ROLES)
        self.owner = self.account(OWNER)

    def now(self) -> datetime:
        """The moment that the test is at."""
        return datetime.now(UTC)

    def later(self, by: timedelta) -> None:
        """Move on, without anything being run."""
        self.clock.tick(by)

    def account(self, email: str, role: str = "admin") -> UUID:
        """A new account."""
        with self.database.begin() as tx:
            return linking.create(tx, email, role, actor="test", policy=self.policy)

    def key(
        self,
        life: timedelta = 90 * DAY,
        *,
        account: UUID | None = None,
        name: str = "build",
        role: str = "reader",
        ips: list[str] | None = None,
    ) -> UUID:
        """A new key."""
        secret = mint("kt")
        with self.database.begin() as tx:
            holds.lock_accounts(tx, [account or self.owner])
            issued = api_keys.issue(
                tx,
                account_id=account or self.owner,
                name=name,
                role=role,
                validity=life,
                allowed_ips=ips,
                created_by="test",
                secret=secret,
                peppers=self.peppers,
            )
        self.texts[issued.id] = secret
        return issued.id

    def find_key(self, key_id: UUID) -> ApiKey:
        """A key as operators see it."""
        with self.database.begin() as tx:
            return api_keys.find(tx, str(key_id))

    def use(self, key_id: UUID) -> None:
        """What `verify` leaves behind of a key that works."""
        with self.database.begin() as tx:
            assert recording.record(tx, [recording.Use(key_id, self.now())]) == 1

    def delete(self, key_id: UUID) -> None:
        """An operator deletes a key."""
        with self.database.begin() as tx:
            api_keys.locked(tx, str(key_id))
            assert api_keys.delete(tx, key_id, actor="op", why="requested", policy=self.policy)

    def hold(self, *, key: UUID | None = None, kind: str = "disabled") -> None:
        """A source holds the owner's account, or one key."""
        with self.database.begin() as tx:
            holds.lock_accounts(tx, [self.owner])
            assert holds.place(tx, self._target(key), _of_okta(kind), self.policy)

    def lift(self, *, key: UUID | None = None, kind: str = "disabled") -> None:
        """The same source lifts it."""
        with self.database.begin() as tx:
            holds.lock_accounts(tx, [self.owner])
            assert holds.lift(tx, self._target(key), _of_okta(kind), self.policy)

    def _target(self, key: UUID | None) -> holds.Target:
        return holds.on_key(key) if key else holds.on_account(self.owner)

    def request(self, key_id: UUID, idempotency_key: str | None = None) -> Rotation:
        """Ask for a key's successor."""
        return self.database.run(lambda tx: self.request_in(tx, key_id, idempotency_key))

    def request_in(self, tx: Tx, key_id: UUID, idempotency_key: str | None = None) -> Rotation:
        """The same within a transaction of the test's."""
        return rotations.request(
            tx,
            key_id,
            idempotency_key=idempotency_key,
            actor="op",
            policy=self.policy,
            sealer=self.sealer,
            peppers=self.peppers,
        )

    def claim(self, old: UUID | str) -> Claimed | Refused:
        """Show the old key, get the new one or a refusal."""
        text = old if isinstance(old, str) else self.texts[old].reveal()
        outcome = self.database.run(
            lambda tx: rotations.claim(
                tx,
                text,
                actor="holder",
                policy=self.policy,
                sealer=self.sealer,
                peppers=self.peppers,
            )
        )
        if isinstance(outcome, UnknownKek | BrokenSeal):
            raise outcome
        return outcome

    def claimed(self, old: UUID) -> Claimed:
        """The same where it must work."""
        outcome = self.claim(old)
        assert isinstance(outcome, Claimed), outcome
        self.texts[outcome.key_id] = outcome.secret
        return outcome

    def refusal(self, old: UUID | str) -> str:
        """The code of a claim that must be refused."""
        outcome = self.claim(old)
        assert isinstance(outcome, Refused), outcome
        return outcome.code

    def advance(self) -> int:
        """One scheduled run: batches until one finds nothing."""
        total = 0
        for _ in range(100):
            with self.database.begin() as tx:
                step = rotations.advance(tx, self.policy)
            if step.finished:
                return total
            total += step.changed
        raise AssertionError("a run of advance does not end")

    def rotation(self, rotation: Rotation) -> Rotation:
        """The rotation as it stands now."""
        with self.database.begin() as tx:
            return rotations.find(tx, str(rotation.id))

    def confirm(self, rotation: Rotation) -> Rotation:
        """An operator confirms."""
        with self.database.begin() as tx:
            return rotations.confirm(tx, rotation.id, actor="op", policy=self.policy)

    def cancel(self, rotation: Rotation, reason: str = "not needed") -> Rotation:
        """An operator cancels."""
        with self.database.begin() as tx:
            return rotations.cancel(tx, rotation.id, actor="op", reason=reason, policy=self.policy)

    def undo(self, rotation: Rotation, reason: str = "still needed") -> Rotation:
        """An operator brings the old key back."""
        return self.database.run(
            lambda tx: rotations.undo(
                tx, rotation.id, actor="op", reason=reason, policy=self.policy
            )
        )

    def retry(self, rotation: Rotation) -> Rotation:
        """An operator has what failed tried again."""
        return self.database.run(
            lambda tx: rotations.retry(tx, rotation.id, actor="op", policy=self.policy)
        )

    def reissue(self, rotation: Rotation) -> Rotation:
        """An operator has another successor put in the place of a lost one."""
        return self.database.run(
            lambda tx: rotations.reissue(
                tx,
                rotation.id,
                actor="op",
                policy=self.policy,
                sealer=self.sealer,
                peppers=self.peppers,
            )
        )

    def draining(self, life: timedelta = 90 * DAY) -> Rotation:
        """A rotation whose successor was just claimed and used for the first time."""
        rotation = self.request(self.key(life))
        self.claimed(rotation.old_key_id)
        self.use(rotation.new_key_id)
        self.advance()
        return self.rotation(rotation)

    def retired(self, life: timedelta = 90 * DAY) -> Rotation:
        """A rotation whose old key was just retired."""
        rotation = self.draining(life)
        assert rotation.retire_at is not None
        self.clock.move_to(rotation.retire_at)
        self.advance()
        return self.rotation(rotation)

    def mails(self, kind: str) -> list[dict[str, Any]]:
        """The payloads of messages of one kind, oldest first."""
        rows = self.sql(
            "SELECT payload FROM keyturn.outbox WHERE channel = 'mail' AND kind = :kind"
            " ORDER BY created_at, id",
            kind=kind,
        )
        return [row["payload"] for row in rows]

    def told(self, kind: str) -> list[dict[str, Any]]:
        """The rotations that messages of one kind name, oldest message first."""
        return [one for mail in self.mails(kind) for one in mail["rotations"]]

    def outgoing(self, kind: str) -> list[Outgoing]:
        """The same, claimed as a worker claims them."""
        with self.database.begin() as tx:
            return [m for m in outbox.lease(tx, "mail", self.policy).messages if m.kind == kind]

    def events(self, kind: str) -> list[UUID]:
        """The ids of keys that outgoing events of one kind name."""
        rows = self.sql(
            "SELECT payload FROM keyturn.outbox WHERE channel = 'events' AND kind = :kind"
            " ORDER BY created_at",
            kind=kind,
        )
        return [UUID(key) for row in rows for key in row["payload"]["key_ids"]]

    def audited(self, rotation: Rotation) -> list[tuple[str, str]]:
        """The audit entries of a rotation: action and cause."""
        rows = self.sql(
            "SELECT action, why FROM keyturn.audit WHERE action LIKE 'rotation.%'"
            " AND why LIKE '%' || :id || '%' ORDER BY id",
            id=str(rotation.id),
        )
        suffix = f" (rotation {rotation.id})"
        return [(row["action"], row["why"].removesuffix(suffix)) for row in rows]

    def sql(self, text: str, **params: Any) -> list[Any]:
        """Rows of a statement of the test's own."""
        with self.database.begin() as tx:
            return list(tx.rows(text, **params))


def _of_okta(kind: str) -> holds.Cause:
    return holds.Cause(source="okta", kind=kind, actor="okta")
