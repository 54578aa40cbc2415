"""The installation under test: the library and the flows on a real PostgreSQL, at a given time."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row
from sqlalchemy import event as engine_events

import tasks
from models import account_events, inbox, roles, schedule_runs
from models.account_events import Claimed as ClaimedEvent
from models.errors import Refused
from models.events import AccountEvent, Action, Certainty, Subject
from models.inbox import Received, Source
from models.invariants import Tolerance, check
from models.key_text import Peppers, Secret
from models.keyring import Keyring
from models.messages import Delivery, Outgoing
from models.operator import Operator
from models.policy import Policy
from models.roles import Role
from models.rotation_policy import DEFAULT, RotationPolicy
from models.rotation_times import parse_rotate
from models.sealing import Sealer
from models.sinks import HandOver, Outcome
from tests.model.compromise import ISSUING
from tests.model.facts import Content, Message
from tests.model.schedule import SCHEDULED, SHARE
from tests.world import ROLES

NOTHING = timedelta(0)
POLICIES = {
    DEFAULT: RotationPolicy(),
    ISSUING: RotationPolicy(on_compromise="hold_and_issue"),
    SCHEDULED: RotationPolicy(rotate=parse_rotate(str(SHARE))),
}
KEY_ROLES = {name: Role(name, ("read",), rotation_policy=name) for name in (ISSUING, SCHEDULED)}
STRICT = Tolerance(
    in_flight=NOTHING,
    settle=NOTHING,
    event=NOTHING,
    rotation=NOTHING,
    notice=NOTHING,
    message=NOTHING,
)
"""Time stands still while flows run: nothing may look broken for a moment."""


class Crash(Exception):
    """A worker dies here."""


@dataclass
class Post:
    """A way out that counts what it took, and fails as it is told."""

    mode: str = "sent"
    taken: list[UUID] = field(default_factory=list)

    def send(self, messages: Sequence[Outgoing]) -> Sequence[Delivery]:
        if self.mode == "crash":
            raise Crash
        if self.mode == "retry":
            return [Delivery(id=one.id, state="retry", error="busy") for one in messages]
        self.taken += [one.id for one in messages]
        return [Delivery(id=one.id, state="sent") for one in messages]


class Shelf:
    """A sink that keeps what it was given, or fails as it is told."""

    def __init__(self) -> None:
        self.mode = "taken"
        self.given: list[tuple[UUID, str]] = []
        """Rotations, and the texts that came for them."""

    def deliver(self, hand_over: HandOver, secret: Secret) -> Outcome:
        if self.mode == "taken":
            self.given.append((hand_over.rotation_id, secret.reveal()))
            return Outcome(state="taken", receipt="on the shelf")
        return Outcome(state="failed" if self.mode == "failed" else "retry", error="no room")


class Real:
    """Verbs on one database; `now` is what its clock says."""

    def __init__(self, url: str, burst_accounts: int, burst_window: timedelta) -> None:
        self.now = datetime.min.replace(tzinfo=UTC)
        keyring = Keyring(Peppers({1: b"p" * 32}), Sealer({1: b"k" * 32}))
        self.policy = Policy(
            burst_accounts=burst_accounts,
            burst_window=burst_window,
            rotation_policies=POLICIES,
            bulk_rate=1e7,  # time stands still: nobody waits for the pace
        )
        self.operator = Operator(
            url,
            keyring=lambda: keyring,
            policy=self.policy,
            actor="op",
            clock=lambda: self.now,
        )
        self.database = self.operator.database
        self.channels = {"events": Post(), "mail": Post()}
        self.runtime = tasks.Runtime(self.database, self.policy, keyring, self.channels)
        self._looking = self.database.connect_autocommit().cursor(row_factory=dict_row)
        self._left = -1
        engine_events.listen(self.database.engine, "before_cursor_execute", self._count)
        engine_events.listen(self.database.engine, "commit", self._die_uncommitted)

    def reset(self, now: datetime) -> None:
        """A new installation, with nothing in it but roles."""
        self.now = now
        with self.database.begin() as tx:
            tx.execute(EMPTY)
            roles.sync(tx, ROLES | KEY_ROLES)
        for channel in self.channels.values():
            channel.taken.clear()
            channel.mode = "sent"

    def close(self) -> None:
        self._looking.connection.close()
        self.operator.close()

    @contextmanager
    def dying_after(self, statements: int) -> Iterator[None]:
        """The process dies before its next statement but so many, or before its first commit."""
        self._left = statements
        try:
            yield
        finally:
            self._left = -1

    def _count(self, *_: Any) -> None:
        if self._left == 0:
            raise Crash
        self._left -= self._left > 0

    def _die_uncommitted(self, connection: Any) -> None:
        if self._left >= 0:
            connection.connection.dbapi_connection.rollback()  # as PostgreSQL does for the dead
            raise Crash

    def receive(self, messages: Sequence[Message], texts: Mapping[int, str]) -> list[int]:
        """Store messages of one source; the ids of the rows that this made. `texts` are those of
        keys, by number."""
        source = messages[0].source
        received = [
            Received(f"d{one.number}", _event(one.content, texts), {}, b"") for one in messages
        ]
        newest = self.scalar("SELECT coalesce(max(id), 0) FROM keyturn.inbox")
        self.database.run(lambda tx: inbox.accept(tx, Source(source, source), received))
        return list(
            self.column(
                "SELECT id FROM keyturn.inbox WHERE id > %(newest)s ORDER BY id", newest=newest
            )
        )

    def requeue(self, source: str, event: int) -> bool:
        """An operator has an event looked at again. False where that is refused."""
        trusted = Source(source, source)
        try:
            self.database.run(lambda tx: inbox.requeue(tx, event, trusted))
        except Refused:
            return False
        return True

    def claim_events(self, batch: int) -> list[ClaimedEvent]:
        policy = Policy(apply_batch=batch)
        return self.database.run(lambda tx: account_events.claim(tx, policy))

    def apply(self, claimed: Sequence[ClaimedEvent]) -> None:
        peppers = self.runtime.keyring.peppers
        account_events.apply_claimed(self.database, claimed, self.policy, peppers)

    def run(self, flow: str) -> None:
        tasks.run(tasks.flows()[flow], self.runtime)

    def die_in(self, flow: str) -> None:
        """A worker takes the flow's lease and is never heard of again."""
        exclusive = tasks.flows()[flow].exclusive
        self.database.run(
            lambda tx: schedule_runs.begin(tx, flow, self.policy, exclusive=exclusive)
        )

    def event_states(self) -> Mapping[int, str]:
        return {r["id"]: r["state"] for r in self.rows("SELECT id, state FROM keyturn.inbox")}

    def statuses(self) -> Mapping[UUID, str]:
        return {r["id"]: r["status"] for r in self.rows("SELECT id, status FROM keyturn.api_keys")}

    def rotations(self) -> Mapping[UUID, Mapping[str, Any]]:
        rows = self.rows(
            "SELECT id, old_key_id, new_key_id, reason, state, blocked_reason, paused_at,"
            " retire_at, undo_until, claimed_at, confirmed_at, sealed IS NOT NULL AS secret"
            " FROM keyturn.rotations"
        )
        return {row["id"]: row for row in rows}

    def broken(self) -> list[str]:
        """The promises that are broken, with no allowance at all."""
        found = check(self.database, self.policy, full=True, tolerance=STRICT)
        return [f"{one.name}: {one.rows}" for one in found]

    def rows(self, sql: str, **params: Any) -> Sequence[Mapping[str, Any]]:
        return self._looking.execute(sql, params).fetchall()

    def column(self, sql: str, **params: Any) -> Sequence[Any]:
        return [next(iter(row.values())) for row in self.rows(sql, **params)]

    def scalar(self, sql: str, **params: Any) -> Any:
        return self.column(sql, **params)[0]


TABLES = (
    "operation_keys operations operation_pace rotation_schedule"
    " notices hand_overs rotations compromises holds key_uses api_keys account_identities accounts"
    " tenant_identities tenants roles inbox inbox_keys source_silences outbox audit audit_seals"
    " schedule_runs"
)
EMPTY = "; ".join(f"DELETE FROM keyturn.{table}" for table in TABLES.split())


def _event(content: Content, texts: Mapping[int, str]) -> AccountEvent:
    if content.leaked is not None:
        text = texts.get(content.leaked, "nobody's")
        return AccountEvent(
            action=Action.KEY_LEAKED,
            key_digest=sha256(text.encode()).hexdigest(),
            certainty=Certainty(content.certainty),
            occurred_at=content.at,
            sequence=content.sequence,
            event_id=content.event_id,
            raw_type="test.key_leaked",
        )
    first, *others = (Subject(format=kind, value=value) for kind, value in content.names)
    return AccountEvent.model_validate(
        {
            "action": content.action,
            "certainty": content.certainty,
            "subject": first.model_copy(update={"aliases": tuple(others)}),
            "occurred_at": content.at,
            "sequence": content.sequence,
            "event_id": content.event_id,
            "raw_type": f"test.{content.action}",
        }
    )
