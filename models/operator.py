"""What operators do beside it: accounts, events, rotations, notices, and how things stand."""

from collections.abc import Iterable, Sequence
from copy import copy
from datetime import timedelta
from typing import Any
from uuid import UUID

from . import (
    account_imports,
    accounts,
    api_keys,
    deletions,
    hand_overs,
    holds,
    imports,
    inbox,
    key_imports,
    linking,
    notices,
    public_keys,
    roles,
    rotations,
    settle,
    status,
    why,
)
from .account_imports import AccountRow
from .accounts import Account, KnownAs
from .api_keys import ApiKey
from .client import Client
from .events import Subject
from .hand_overs import Progress
from .holds import Cause, Hold, Target
from .imports import Outcome
from .inbox import InboxEvent
from .key_imports import KeyRow
from .linking import Move
from .notices import Notice
from .operations_desk import Operations
from .policy import Policy
from .public_keys import Jwk
from .rehearsal import Rehearsal
from .roles import Role
from .rotations import Rotation
from .status import Status
from .undoing import Undoing
from .why import Explanation


class Operator(Client):
    """A `Client` with the commands of `keyturn`. Its `actor` says who gives them."""

    def _policy(self, given: Policy | None) -> Policy:
        """That of the settings, where they are given."""
        return super()._policy(None) if given is None else given

    def trying(self) -> "Operator":
        """The same commands, each of them undone: their answers, and their refusals."""
        made = copy(self)
        made.database = Undoing(self.database)
        return made

    @property
    def operations(self) -> Operations:
        """The commands on bulk operations."""
        return Operations(self.database, self.policy, self.actor)

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
        self,
        email: str,
        role: str,
        *,
        name: str = "",
        identities: Iterable[Subject] = (),
        tenant: str | None = None,
    ) -> Account:
        """Add an account. Refused as `email_invalid`, `role_unknown`, `user_exists`,
        `identity_taken`, `tenant_unknown`."""
        named = list(identities)

        def create(tx: Any) -> Account:
            account_id = linking.create(
                tx,
                email,
                role,
                name=name,
                identities=named,
                tenant=tenant,
                actor=self.actor,
                policy=self.policy,
            )
            return accounts.find(tx, str(account_id))

        return self.database.run(create)

    def import_accounts(
        self,
        rows: Sequence[AccountRow],
        *,
        update: bool = False,
        rehearsal: Rehearsal | None = None,
    ) -> list[Outcome]:
        """Bring in accounts that the product has, some hundreds at a time; see account_imports.

        With a `rehearsal`, the same for all of them, nothing is written.
        """
        return imports.run(
            self.database,
            rows,
            lambda tx, part: account_imports.batch(
                tx, part, update=update, rehearsal=rehearsal, actor=self.actor, policy=self.policy
            ),
        )

    def import_keys(
        self,
        rows: Sequence[KeyRow],
        *,
        expires_in: timedelta | None = None,
        rehearsal: Rehearsal | None = None,
    ) -> list[Outcome]:
        """Bring in keys that the product gave out, some hundreds at a time; see key_imports.

        With a `rehearsal`, the same for all of them, nothing is written.
        """
        return imports.run(
            self.database,
            rows,
            lambda tx, part: key_imports.batch(
                tx,
                part,
                expires_in=expires_in,
                rehearsal=rehearsal,
                actor=self.actor,
                peppers=self.keyring.peppers,
                policy=self.policy,
            ),
        )

    def link_account(self, account: str, subject: Subject) -> None:
        """Let a producer's identity name this account from now on."""
        self.database.run(
            lambda tx: linking.link(
                tx, accounts.find(tx, account).id, subject, actor=self.actor, policy=self.policy
            )
        )

    def unlink_account(self, account: str, subject: Subject) -> None:
        """Let an identity name this account no longer; Refused as `identity_unknown`."""
        self.database.run(
            lambda tx: linking.unlink(tx, accounts.find(tx, account).id, subject, actor=self.actor)
        )

    def move_mails(
        self, account: str, email: str, *, unlink_old: bool = False, dry_run: bool = False
    ) -> Move:
        """Have an account's mails go to another address, which names it from now on; with
        `unlink_old` the old one no longer does. Refused as `email_invalid`, `address_taken`,
        `identity_taken`."""
        return self.database.run(
            lambda tx: linking.move_mails(
                tx,
                accounts.find(tx, account).id,
                email,
                unlink_old=unlink_old,
                dry_run=dry_run,
                actor=self.actor,
                policy=self.policy,
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

    def public_key(self, account_id: UUID) -> Jwk | None:
        """The key that new keys of an account can be sealed to, if it has one."""
        with self.database.begin() as tx:
            return public_keys.of_account(tx, account_id)

    def register_public_key(self, account_id: UUID, jwk: Jwk | None) -> bool:
        """Seal new keys of an account to this key, or to none; False where it was so."""
        return self.database.run(
            lambda tx: public_keys.register(tx, account_id, jwk, actor=self.actor)
        )

    def identities(self, account_id: UUID) -> list[Subject]:
        """The names by which producers know an account."""
        with self.database.begin() as tx:
            return accounts.identities(tx, account_id)

    def known_as(self, account_id: UUID) -> list[KnownAs]:
        """Every name by which producers know or knew an account, and from when to when."""
        with self.database.begin() as tx:
            return accounts.known_as(tx, account_id)

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

    def hand_over(self, rotation_id: str) -> Progress | None:
        """How the hand-over of its new key stands; None where that is fetched."""
        with self.database.begin() as tx:
            return hand_overs.progress(tx, rotations.find(tx, rotation_id).id)

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

    def undo_rotation(self, rotation_id: str, reason: str) -> Rotation:
        """Bring the retired key back; both work, and it drains anew."""
        return self.database.run(
            lambda tx: rotations.undo(
                tx,
                rotations.find(tx, rotation_id).id,
                actor=self.actor,
                reason=reason,
                policy=self.policy,
            )
        )

    def retry_rotation(self, rotation_id: str) -> Rotation:
        """Try now what failed: a step, or the hand-over of the new key."""
        return self.database.run(
            lambda tx: rotations.retry(
                tx, rotations.find(tx, rotation_id).id, actor=self.actor, policy=self.policy
            )
        )

    def reissue_rotation(self, rotation_id: str) -> Rotation:
        """Put another successor in the place of one whose text was lost: the new rotation."""
        return self.database.run(
            lambda tx: rotations.reissue(
                tx,
                rotations.find(tx, rotation_id).id,
                actor=self.actor,
                policy=self.policy,
                sealer=self.keyring.sealer,
                peppers=self.keyring.peppers,
            )
        )

    def notices(self, *, account: str | None = None, state: str | None = None) -> list[Notice]:
        """Expiry notices, newest first."""
        with self.database.begin() as tx:
            account_id = accounts.find(tx, account).id if account else None
            return notices.listed(tx, account_id=account_id, state=state)

    def why(self, named: str) -> Explanation:
        """Why a key works or not, or what an account or rotation waits for, by id or address."""
        with self.database.begin() as tx:
            return why.explain(tx, named, self.policy)

    def why_text(self, text: str) -> Explanation:
        """The same of the key that has this text."""
        with self.database.begin() as tx:
            return why.explain_text(tx, text, self.policy, self.keyring.peppers)

    def status(self) -> Status:
        """How things stand, at one instant."""
        with self.database.begin() as tx:
            return status.read(tx)

    def _most_a_day(self) -> None:
        return None

    def _settle(self, account_id: UUID) -> None:
        """Settle one account here and now, so that the command shows what it did."""
        while not self.database.run(
            lambda tx: settle.accounts(tx, self.policy, account_id=account_id)
        ).finished:
            pass
