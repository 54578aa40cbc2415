"""One installation in one process: database, worker, operator, producers, broker in memory."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
from structlog.testing import capture_logs

import tasks
from models import api_keys, inbox, invariants, linking, roles
from models.base import Base, Database, Tx
from models.events import AccountEvent, Action, Subject
from models.inbox import Received, Rejection, Source
from models.key_text import Peppers
from models.keyring import Keyring
from models.messages import Delivery, Outgoing
from models.operator import Operator
from models.policy import Policy
from models.recording import Use
from models.sealing import Sealer
from tasks.runtime import Runtime
from tests.eventually import eventually
from tests.faults.dump import Dump, dump
from tests.faults.far_sink import sinks
from tests.faults.points import CALL, PUBLISH, Points
from tests.world import ROLES
from worker.bell import Bell

START: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
KEYRING: Final = Keyring(Peppers({1: b"p" * 32}), Sealer({1: b"k" * 32, 2: b"n" * 32}))
POLICY: Final = Policy(settle_batch=3, page_keys=2, apply_batch=3, deliver_batch=3)
"""Small batches, so that a flow has several of them."""

SCHEDULE: Final = (
    *("accounts.apply_events", "keys.settle", "keys.expire_due", "keys.delete_due"),
    *("notices.plan", "rotations.advance", "outbox.deliver", "upkeep.retention"),
    "operations.advance",
    *("keys.follow_compromises", "keys.tell_refused"),
)
"""What every round runs; what else was run before joins it."""
PAUSE: Final = POLICY.lease + timedelta(seconds=5)
"""What passes between two rounds of the schedule: every lease of a dead worker has ended."""
ROUNDS: Final = 5


class Clock:
    """A clock that only the matrix moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


class FarSide:
    """A channel and who receives by it: messages by their id, so that a repetition is dropped."""

    def __init__(self, points: Points) -> None:
        self._points = points
        self.taken: Counter[UUID] = Counter()
        self.messages: dict[UUID, Outgoing] = {}

    def send(self, messages: Sequence[Outgoing]) -> Sequence[Delivery]:
        self._points.before(CALL, " ".join(sorted(message.kind for message in messages)))
        for message in messages:
            self.take(message)
        self._points.after()
        return [Delivery(id=message.id, state="sent") for message in messages]

    def take(self, message: Outgoing) -> None:
        """Here it is."""
        self.taken[message.id] += 1
        self.messages[message.id] = message


@dataclass
class Kept:
    """What a prepared world is besides its database."""

    now: datetime
    memory: dict[str, str]
    taken: Mapping[str, tuple[Counter[Any], dict[UUID, Any]]]
    queue: list[str]


class Site:
    """Verbs of everybody who has to do with an installation. `memory` is what they wrote down."""

    def __init__(self, database_url: str, policy: Policy = POLICY) -> None:
        self.policy = policy
        self.clock = Clock()
        self.server = psycopg.connect(database_url, autocommit=True)
        self.points = Points(self.server)
        self.queue: deque[str] = deque()
        self.memory: dict[str, str] = {}
        self.schedule = dict.fromkeys(SCHEDULE, MINUTE)
        self.far_sides = {name: FarSide(self.points) for name in ("events", "mail")}
        self.sinks = sinks(self.points)
        self.database = Database(database_url, clock=self.clock)
        self.operator = Operator(
            database_url, keyring=lambda: KEYRING, policy=policy, actor="op", clock=self.clock
        )
        for database in (self.database, self.operator.database):
            database.on_commit = Bell(database, self._publish)
            self.points.watch(database.engine)
        self.kept = Kept(START, {}, {}, [])
        self._restored = 0
        self.start_worker()

    def close(self) -> None:
        self.operator.close()
        self.database.close()
        self.server.close()

    def start_worker(self) -> None:
        """A new process: the broker and the far sides know of the old one, it does not."""
        self.points.revive()
        for database in (self.database, self.operator.database):
            database.close()
        # A dead process's locks go with its sessions, which the server notices in its own time.
        eventually(lambda: self.server.execute(_OPEN).fetchone() == (0,), every=0.001)
        self.runtime = Runtime(
            self.database, self.policy, KEYRING, self.far_sides, self.schedule, sinks=self.sinks
        )

    # The prepared world, and the way back to it

    def keep(self) -> None:
        """Remember how everything stands."""
        self.kept = Kept(
            self.clock.now,
            dict(self.memory),
            {n: (Counter(f.taken), dict(f.messages)) for n, f in self.outside().items()},
            list(self.queue),
        )
        tables = [table.name for table in Base.metadata.sorted_tables]
        copies = [f"CREATE TABLE kept.{name} AS TABLE keyturn.{name}" for name in tables]
        self.server.execute("; ".join(["CREATE SCHEMA kept", *copies]).encode())

    def restore(self) -> None:
        """Make everything stand as it did then."""
        self.recall(self.kept)
        tables = [table.name for table in Base.metadata.sorted_tables]
        self._restored += 1
        if self._restored % 20:
            empty = [f"DELETE FROM keyturn.{name}" for name in tables]
        else:  # slow, but it leaves no dead rows behind
            empty = [f"TRUNCATE {', '.join(f'keyturn.{name}' for name in tables)}"]
        fill = [
            f"INSERT INTO keyturn.{name} OVERRIDING SYSTEM VALUE SELECT * FROM kept.{name}"
            for name in tables
        ]
        alone = "SET session_replication_role = replica"  # foreign keys hold again in the end
        self.server.execute("; ".join([alone, *empty, *fill]).encode())

    def recall(self, kept: Kept) -> None:
        """Know what was known then; the database is where it is."""
        self.clock.now, self.memory = kept.now, dict(kept.memory)
        self.queue = deque(kept.queue)
        for name, (taken, messages) in kept.taken.items():
            self.outside()[name].taken = Counter(taken)
            self.outside()[name].messages = dict(messages)

    # The worker

    def _publish(self, flow: str) -> None:
        self.points.before(PUBLISH, flow)
        self.enqueue(flow)
        self.points.after()

    def enqueue(self, flow: str) -> None:
        """The broker has a message."""
        self.queue.append(flow)

    def run(self, flow: str) -> int:
        """The worker runs a flow."""
        if flow != "upkeep.ring_due":  # nobody rings for the one that rings
            self.schedule[flow] = MINUTE
        with capture_logs():
            return tasks.run(tasks.flows()[flow], self.runtime)

    def work(self) -> int:
        """The worker does what it is rung for; returns how many things changed."""
        changed = 0
        while self.queue:
            changed += self.run(self.queue.popleft())
        return changed

    def recover(self) -> None:
        """The normal schedule goes on, until a round of all flows finds nothing to do."""
        self.work()
        for _ in range(ROUNDS):
            self.later(PAUSE)
            self.run("upkeep.ring_due")
            if not self.work():
                return
        raise AssertionError(f"still not quiet after {ROUNDS} rounds of the schedule")

    def later(self, by: timedelta) -> None:
        """Time passes, and nothing else happens."""
        self.clock.now += by

    def state(self) -> Dump:
        """What there is to see in the end, without ids and times."""
        received = [
            {"channel": name, "kind": one.kind, "to": one.recipient, "keys": key}
            for name, far_side in self.far_sides.items()
            for one in far_side.messages.values()
            for key in _keys_of(one)
        ]
        return dump(self.server, [*received, *self._shelved()])

    def _shelved(self) -> list[Mapping[str, object]]:
        """Which key each sink has for each rotation, by the text that it was given."""
        found: list[Mapping[str, object]] = []
        with self.database.begin() as tx:
            for name, sink in self.sinks.items():
                for rotation_id, given in sink.messages.items():
                    text, _, rest = given.partition(",")
                    key = api_keys.by_text(tx, text, KEYRING.peppers)
                    row = {"kind": rest, "to": rotation_id, "keys": key and key.id}
                    found.append({"channel": name, **row})
        return found

    def outside(self) -> Mapping[str, Any]:
        """Everybody who is given something, by name."""
        return {**self.far_sides, **self.sinks}

    def broken(self) -> list[str]:
        """The promises that do not hold, and messages that were sent more often than a fault is
        good for."""
        found = [
            str(asdict(one)) for one in invariants.check(self.database, self.policy, full=True)
        ]
        for far_side in self.outside().values():
            found += [f"{one} was sent {n} times" for one, n in far_side.taken.items() if n > 2]
        return found

    # The product, its operators and its users

    def account(self, email: str, *identities: Subject) -> None:
        """An account, as a prepared world has it."""

        def create(tx: Tx) -> None:
            roles.sync(tx, ROLES)
            linking.create(
                tx, email, "member", identities=identities, actor="test", policy=self.policy
            )

        self.database.run(create)

    def key(self, name: str, email: str, life: timedelta = 90 * DAY) -> str:
        """A key; its id and text are remembered by its name. Returns the id."""
        made = self.operator.create_api_key(name, email, "viewer", int(life.total_seconds()))
        self.memory[name], self.memory[f"{name} text"] = str(made.id), made.text.reveal()
        return str(made.id)

    def use(self, name: str) -> None:
        """A key is used, and its product says so at once."""
        self.operator.report_use([Use(UUID(self.memory[name]), self.clock.now, "10.0.0.1")])

    # Producers

    def receive(
        self,
        source: str,
        *messages: tuple[str, AccountEvent | Rejection],
        trust: frozenset[Action] = frozenset(Action),
    ) -> None:
        """A transport hands messages over, each with its delivery id."""
        received = [Received(delivery, content, {}, b"{") for delivery, content in messages]
        said = Source(source, source, trust)
        self.inlet.run(lambda tx: inbox.accept(tx, said, received))

    @property
    def inlet(self) -> Database:
        """The database as transports reach it."""
        return self.database

    def replace(self, event_id: int, content: AccountEvent) -> None:
        """An operator has a rejected message read again, and now it can be read."""

        def write(tx: Tx) -> None:
            found = [Received(f"replay:{event_id}", content, {}, b"")]
            inbox.accept(tx, Source("okta", "okta"), found)
            inbox.replaced(tx, event_id, actor="op")

        self.operator.database.run(write)


_OPEN: Final = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
"""


def _keys_of(message: Outgoing) -> list[str]:
    """The keys that a message names, one by one: pages may be cut elsewhere after a crash."""
    ids = message.payload.get("key_ids", [""])
    assert isinstance(ids, list)
    return [str(one) for one in ids]
