"""A small world for tests: a database with roles, accounts, keys, and events that come in."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from models import account_events, api_keys, creation, inbox, key_text, linking, roles, settle
from models.base import Database, Tx
from models.events import AccountEvent, Action, Certainty, Subject
from models.inbox import Received, Source
from models.key_text import Peppers
from models.policy import Policy
from models.roles import Role
from models.verification import Verdict, Verifier

ADA = "ada@example.com"
EPOCH = datetime(2026, 6, 1, 12, tzinfo=UTC)
ROLES = {
    "viewer": Role("viewer", ("read",)),
    "member": Role("member", ("read", "write")),
    "owner": Role("owner", ("read", "write", "admin"), grantable=False),
}


@dataclass
class World:
    """Verbs that tests use; every one commits."""

    database: Database
    policy: Policy = field(default_factory=Policy)
    peppers: Peppers = field(default_factory=lambda: Peppers({1: b"p" * 32}))
    deliveries: int = 0

    def account(self, email: str = ADA, *identities: Subject, role: str = "member") -> UUID:
        """An account; the roles are there."""

        def create(tx: Tx) -> UUID:
            roles.sync(tx, ROLES)
            return linking.create(
                tx, email, role, identities=identities, actor="test", policy=self.policy
            )

        return self.database.run(create)

    def key(
        self, email: str = ADA, *, validity: timedelta = timedelta(days=90)
    ) -> tuple[UUID, str]:
        """A key of an account and its text."""
        secret = key_text.mint("kt")
        seconds = int(validity.total_seconds())
        wanted = creation.check("a key", email, "viewer", seconds)
        issued = self.database.run(
            lambda tx: api_keys.create(
                tx, wanted, actor="test", peppers=self.peppers, secret=secret
            )
        )
        return issued.id, secret.reveal()

    def verify(self, text: str, ip: str | None = None) -> Verdict:
        """What the product is told."""
        verifier = Verifier(self.database, self.peppers)
        try:
            return verifier.verify(text, ip)[0]
        finally:
            verifier.close()

    def receive(self, *events: AccountEvent, source: str = "okta") -> Counter[str]:
        """Store events as one message each, in one batch."""
        received = []
        for event in events:
            self.deliveries += 1
            received.append(Received(f"d{self.deliveries}", event, {}, b""))
        return self.database.run(lambda tx: inbox.accept(tx, Source(source, source), received))

    def apply(self) -> Counter[str]:
        """Claim and apply what is due."""
        claimed = self.database.run(lambda tx: account_events.claim(tx, self.policy))
        return account_events.apply_claimed(self.database, claimed, self.policy, self.peppers)

    def settle(self) -> int:
        """Settle all that is unsettled; returns how many keys changed."""
        changed = 0
        while not (step := self.database.run(lambda tx: settle.accounts(tx, self.policy))).finished:
            changed += step.changed
        while not (step := self.database.run(lambda tx: settle.tenants(tx, self.policy))).finished:
            changed += step.changed
        return changed

    def states(self) -> list[str]:
        """The states of all inbox rows, in the order in which they came in."""
        with self.database.begin() as tx:
            return [event.state for event in reversed(inbox.listed(tx))]

    def status(self, key_id: UUID) -> str:
        """A key's status as it is cached."""
        with self.database.begin() as tx:
            return api_keys.find(tx, str(key_id)).status


def event(
    action: Action,
    email: str = ADA,
    *,
    at: datetime | None = None,
    sequence: int | None = None,
    event_id: str | None = None,
    certainty: Certainty = Certainty.TRANSITION,
    subject: Subject | None = None,
    new: Subject | None = None,
) -> AccountEvent:
    """A normalised event about an account."""
    return AccountEvent(
        action=action,
        certainty=certainty,
        subject=subject or Subject(format="email", value=email),
        new_subject=new,
        occurred_at=at,
        sequence=sequence,
        event_id=event_id,
        raw_type=f"test.{action}",
    )
