"""What operators do beside it: accounts, events, rotations, notices, and how things stand."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from . import (
    accounts,
    api_keys,
    deletions,
    holds,
    inbox,
    linking,
    notices,
    roles,
    rotations,
    settle,
    status,
)
from .accounts import Account
from .api_keys import ApiKey
from .client import Client
from .events import Subject
from .holds import Cause, Hold, Target
from .inbox import InboxEvent
from .notices import Notice
from .roles import Role
from .rotations import Rotation
from .status import Status


class Operator(Client):
    """A `Client` with the commands of `keyturn`. Its `actor` says who gives them."""

    def keys(
        self,
        *,
        account: str | None = None,
        status: str | None = None,
        expiring: timedelta | None = None,
        limit: int = 1000,
    ) -> list[ApiKey]:
        """Keys, newest first; those that end within `expiring`, soonest first."""
        with self.database.begin() as tx:
            account_id = accounts.find(tx, account).id if account else None
            return api_keys.listed(
                tx, account_id=account_id, status=status, expiring=expiring, limit=limit
            )

    def key(self, key_id: str) -> ApiKey:
        """One key; Refused as `key_unknown`."""
        with self.database.begin() as tx:
            return api_keys.find(tx, key_id)

    def holds_of(self, target: Target) -> list[Hold]:
        """What stands on an account or on a key itself."""
        with self.database.begin() as tx:
            return holds.standing(tx, target)

    def create_account(
        self, email: str, role: str, *, name: str = "", identities: Iterable[Subject] = ()
    ) -> Account:
        """Add an account. Refused as `email_invalid`, `role_unknown`, `user_exists`,
        `identity_taken`."""
        named = list(identities)

        def create(tx: Any) -> Account:
            account_id = linking.create(
                tx,
                email,
                role,
                name=name,
                identities=named,
                actor=self.actor,
                policy=self.policy,
            )
            return accounts.find(tx, str(account_id))

        return self.database.run(create)

    def link_account(self, account: str, subject: Subject) -> None:
        """Let a producer's identity name this account from now on."""
        self.database.run(
            lambda tx: linking.link(
                tx, accounts.find(tx, account).id, subject, actor=self.actor, policy=self.policy
            )
        )

    def accounts(self, *, held: bool | None = None, limit: int = 1000) -> list[Account]:
        """Accounts by e-mail address."""
        with self.database.begin() as tx:
            return accounts.listed(tx, held=held, limit=limit)

    def account(self, name: str) -> Account:
        """One account by id or e-mail address; Refused as `user_unknown`."""
        with self.database.begin() as tx:
            return accounts.find(tx, name)

    def identities(self, account_id: UUID) -> list[Subject]:
        """The names by which producers know an account."""
        with self.database.begin() as tx:
            return accounts.identities(tx, account_id)

    def disable_account(self, name: str, reason: str | None = None) -> bool:
        """Stop every key of an account: refused from the commit on; statuses follow in batches."""

        def disable(tx: Any) -> tuple[UUID, bool]:
            account_id = accounts.find(tx, name).id
            holds.lock_accounts(tx, [account_id])
            cause, target = self._by_hand(reason), holds.on_account(account_id)
            return account_id, holds.place(tx, target, cause, self.policy)

        account_id, changed = self.database.run(disable)
        self._settle(account_id)
        return changed

    def enable_account(
        self,
        name: str,
        reason: str | None = None,
        *,
        source: str = holds.OPERATOR,
        kind: str = "disabled",
    ) -> bool:
        """Lift one hold of an account and nothing else. False where no such hold stood."""

        def enable(tx: Any) -> tuple[UUID, bool]:
            account_id = accounts.find(tx, name).id
            holds.lock_accounts(tx, [account_id])
            cause = Cause(source=source, kind=kind, actor=self.actor, reason=reason)
            return account_id, holds.lift(tx, holds.on_account(account_id), cause, self.policy)

        account_id, changed = self.database.run(enable)
        self._settle(account_id)
        return changed

    def unconfirmed_deletions(self, source: str) -> list[str]:
        """The accounts (e-mail addresses) whose deletion by this source waits for an operator."""
        with self.database.begin() as tx:
            return deletions.unconfirmed(tx, source)

    def confirm_deletions(self, source: str) -> int:
        """Let the deletions of a source that cut unusually many accounts go on; how many."""
        return self.database.run(lambda tx: deletions.confirm_source(tx, source, actor=self.actor))

    def roles(self) -> list[Role]:
        """All roles and what they permit."""
        with self.database.begin() as tx:
            return roles.known(tx)

    def events(self, *, state: str | None = None, limit: int = 100) -> list[InboxEvent]:
        """Account events, newest first."""
        with self.database.begin() as tx:
            return inbox.listed(tx, state=state, limit=limit)

    def event(self, event: int) -> InboxEvent:
        """One account event; Refused as `event_unknown`."""
        with self.database.begin() as tx:
            return inbox.find(tx, event)

    def dismiss_event(self, event: int, reason: str) -> None:
        """End an event that waits for a person; Refused as `event_finished`."""
        self.database.run(lambda tx: inbox.dismiss(tx, event, actor=self.actor, reason=reason))

    def rotations(self, *, state: str | None = None, account: str | None = None) -> list[Rotation]:
        """Rotations, newest first."""
        with self.database.begin() as tx:
            account_id = accounts.find(tx, account).id if account else None
            return rotations.listed(tx, state=state, account_id=account_id)

    def rotation(self, rotation_id: str) -> Rotation:
        """One rotation; Refused as `rotation_unknown`."""
        with self.database.begin() as tx:
            return rotations.find(tx, rotation_id)

    def confirm_rotation(self, rotation_id: str) -> Rotation:
        """Say in the successor's place that it is in use."""
        return self.database.run(
            lambda tx: rotations.confirm(
                tx, rotations.find(tx, rotation_id).id, actor=self.actor, policy=self.policy
            )
        )

    def cancel_rotation(self, rotation_id: str, reason: str) -> Rotation:
        """End a rotation whose successor is not in use; the successor is deleted."""
        return self.database.run(
            lambda tx: rotations.cancel(
                tx,
                rotations.find(tx, rotation_id).id,
                actor=self.actor,
                reason=reason,
                policy=self.policy,
            )
        )

    def notices(self, *, account: str | None = None, state: str | None = None) -> list[Notice]:
        """Expiry notices, newest first."""
        with self.database.begin() as tx:
            account_id = accounts.find(tx, account).id if account else None
            return notices.listed(tx, account_id=account_id, state=state)

    def status(self) -> Status:
        """How things stand, at one instant."""
        with self.database.begin() as tx:
            return status.read(tx)

    def _settle(self, account_id: UUID) -> None:
        """Settle one account here and now, so that the command shows what it did."""
        while not self.database.run(
            lambda tx: settle.accounts(tx, self.policy, account_id=account_id)
        ).finished:
            pass
