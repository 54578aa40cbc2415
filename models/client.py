"""The library: what a product does with its keys, in one object."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from . import accounts, api_keys, compromise, creation, holds, key_text, rotations
from .api_keys import ApiKey, IssuedKey
from .base import Database, Tx
from .compromise import Replacement
from .creation import TimeUnit
from .errors import NotFound, Refused
from .holds import OPERATOR, Cause
from .key_text import Secret
from .keyring import Keyring
from .policy import DEFAULT_ALONE, Policy
from .recording import LONGEST_REPORT, Rejected, Reported, Use, UseRecorder, report
from .rotations import Asked, Claimed, Rotation
from .tenants_desk import Tenants
from .verification import Verdict, Verifier


def _keyring(database: Database, directory: str | Path | None) -> Keyring:
    if directory is None:
        return Keyring.known_to(database.engine)
    return Keyring.from_directory(Path(directory))


class NewKey:
    """A key that has just been created. `text` is its only copy: show it to its holder once."""

    def __init__(self, issued: IssuedKey, text: Secret) -> None:
        self.id = issued.id
        self.expires_at = issued.expires_at
        self.text = text

    def __repr__(self) -> str:
        return f"NewKey(id={self.id}, expires_at={self.expires_at:%Y-%m-%dT%H:%M:%SZ})"


class Client:
    """Keys of the accounts in one database. Threads may share it; close it at the end.

    Refusals are `Refused` (a ValueError) with a stable `code`; nothing was changed then. Each
    method is one transaction and takes effect at once, with the broker and all workers down.
    """

    def __init__(
        self,
        database_url: str,
        *,
        secrets_dir: str | Path | None = None,
        keyring: Callable[[], Keyring] | None = None,
        policy: Policy | None = None,
        actor: str = "client",
        clock: Callable[[], datetime] | None = None,
        on_commit: Callable[[set[str]], None] | None = None,
    ) -> None:
        """Connect lazily to `database_url` (PostgreSQL 15 or newer, migrated).

        The peppers come, when first needed, from `keyring`, or from the files in `secrets_dir`, or
        from where an embedded database says that they lie. Files that are added or renamed later
        are noticed within seconds (`Keyring.from_directory`). `actor` is written to the audit.
        `policy` has limits and durations other than the defaults; without `rotation_policies` in it
        a worker decides by keyturn.toml where new keys go, and when old ones do.
        `clock` replaces the database's clock (tests); `on_commit` gets the flows to ring.
        """
        self.policy = self._policy(policy)
        self.actor = actor
        self.database = Database(database_url, clock=clock, on_commit=on_commit)
        self._read_keyring = keyring or partial(_keyring, self.database, secrets_dir)
        self._verifier: Verifier | None = None
        self._recorder = UseRecorder(self.database, self.policy.use_interval)

    def _policy(self, given: Policy | None) -> Policy:
        """What is known here: limits of a product's own say nothing of keyturn.toml's policies."""
        if given is not None and given.rotation_policies is not DEFAULT_ALONE:
            return given
        return replace(given or Policy(), rotation_policies={})

    @cached_property
    def keyring(self) -> Keyring:
        """The peppers and key-encryption keys; Misconfigured where there are none."""
        return self._read_keyring()

    @property
    def tenants(self) -> Tenants:
        """Tenants: accounts that are held together."""
        return Tenants(self.database, self.policy, self.actor)

    def close(self) -> None:
        """Write recorded uses and give the connections back."""
        self._recorder.close()
        if self._verifier:
            self._verifier.close()
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def create_api_key(
        self,
        name: str,
        user: Any,
        role: Any,
        validity: int = 0,
        time_unit: TimeUnit = TimeUnit.SECOND,
        allowed_ip_cidrs: Sequence[Any] | None = None,
    ) -> NewKey:
        """Create a key for `user` (an e-mail address, or an object with one as `email`).

        Its validity is `validity` times `time_unit`: from one minute to 25 weeks. Refused, in this
        order, as `name_empty`, `ip_list_invalid`, `user_missing`, `role_missing`, `unit_invalid`,
        `validity_not_positive`, `validity_too_short`, `validity_too_long`, `user_unknown`,
        `account_held`, `role_not_allowed`.
        """
        wanted = creation.check(name, user, role, validity, time_unit, allowed_ip_cidrs)
        secret = key_text.mint(self.policy.key_prefix)
        issued = self.database.run(
            lambda tx: api_keys.create(
                tx, wanted, actor=self.actor, peppers=self.keyring.peppers, secret=secret
            )
        )
        return NewKey(issued, secret)

    def get_api_keys(
        self, include_expired: bool = False, *, user: str | None = None
    ) -> list[ApiKey]:
        """All keys, or those of `user` (an account's e-mail address or id), newest first; without
        `include_expired` only those whose life has not ended. NotFound as `user_unknown`."""

        def read(tx: Tx) -> list[ApiKey]:
            account_id = None if user is None else accounts.find(tx, user).id
            return api_keys.listed(
                tx, account_id=account_id, include_ended=include_expired, limit=1_000_000
            )

        return self.database.run(read)

    def get_api_key(self, api_key_id: object) -> ApiKey | None:
        """The key of an id, or None."""
        try:
            return self.database.run(lambda tx: api_keys.find(tx, str(api_key_id)))
        except Refused:
            return None

    def verify(self, text: object, ip: str | None = None, *, record: bool = True) -> Verdict:
        """Whether this key may be used now, from `ip`; for every request of the product.

        The use is recorded behind the answer, unless `record` is false. Raises the driver's error
        where the database does not answer: treat that as a no, or as your own outage.
        """
        if self._verifier is None:
            self._verifier = Verifier(self.database, self.keyring.peppers, self.policy.key_prefix)
        self._verifier.peppers = self.keyring.peppers
        verdict, use = self._verifier.verify(text, ip)
        if use is not None and record:
            self._recorder.add(use)
        return verdict

    def report_use(self, uses: Iterable[Use]) -> Reported:
        """Record uses that a caching gateway has counted, thousands at a time.

        What is wrong with a member is said of it (`rejected`) and stops no other. Times are those
        of the gateway: older ones take nothing away, one to come counts as now. The same report
        twice leaves the times as they are; its counts are added twice.
        """
        members = list(uses)
        keys, rejected = 0, list[Rejected]()
        for start in range(0, len(members), LONGEST_REPORT):
            part = members[start : start + LONGEST_REPORT]
            done = self.database.run(lambda tx, part=part: report(tx, part))  # type: ignore[misc]
            keys += done.keys
            rejected += [replace(one, position=one.position + start) for one in done.rejected]
        return Reported(keys, tuple(rejected))

    def flush_uses(self) -> None:
        """Write recorded uses now instead of within a second."""
        self._recorder.flush()

    def disable(self, api_key_id: object, reason: str | None = None) -> bool:
        """Stop one key until `enable`. False where it was stopped by an operator already."""
        return self._on_key(
            api_key_id,
            lambda tx, key: holds.place(
                tx, holds.on_key(key.id), self._by_hand(reason), self.policy
            ),
        )

    def enable(self, api_key_id: object, reason: str | None = None) -> bool:
        """Lift what `disable` placed, and nothing else. False where nothing was there to lift."""
        return self._on_key(
            api_key_id,
            lambda tx, key: holds.lift(
                tx, holds.on_key(key.id), self._by_hand(reason), self.policy
            ),
        )

    def delete(self, api_key_id: object, reason: str = "requested") -> bool:
        """End a key for ever. False where it was deleted before; Refused as `key_unknown`."""
        return self._on_key(
            api_key_id,
            lambda tx, key: api_keys.delete(
                tx, key.id, actor=self.actor, why=reason, policy=self.policy
            ),
        )

    def rotate(self, key: object, *, idempotency_key: str | None = None) -> Rotation:
        """Issue the successor of a key, given by its id or its text; the old one goes on working.

        Its holder fetches the successor with `claim`, unless its rotation policy names a sink: then
        a worker hands it over, and `sink` of the answer is the name, or `undecided` where the
        policies are not known here. Asked again while the rotation is under way,
        for a key that was rotated, or with the same `idempotency_key`, it is the same rotation:
        nothing new is made. Refused as `key_unknown`, `key_deleted`, `key_expired`, `key_held`,
        `account_held`, `too_short_lived`, `role_not_allowed`, and as `too_many_rotations` beyond
        `rotations_per_key_per_day`.
        """

        def request(tx: Tx) -> Rotation:
            return rotations.answer(
                tx,
                self._lock(tx, key),
                Asked(actor=self.actor, idempotency_key=idempotency_key),
                policy=self.policy,
                sealer=self.keyring.sealer,
                peppers=self.keyring.peppers,
                most_a_day=self._most_a_day(),
            )

        return self.database.run(request)

    def stop_compromised(self, key: object, reason: str | None = None) -> bool:
        """Stop a key that others know, given by its id or its text, for good. False where it was.

        What is retired of its family is stopped as well. `replace_compromised` issues its
        successor. Refused as `key_unknown`, `key_deleted`.
        """

        def stop(tx: Tx) -> bool:
            found = api_keys.find(tx, str(self._lock(tx, key)))
            if found.deleted_at is not None:
                raise Refused("key_deleted", f"key {found.id} was deleted: it works no more")
            cause = Cause(source=OPERATOR, kind=compromise.KIND, actor=self.actor, reason=reason)
            return compromise.stop(tx, found.id, cause, issue=True, policy=self.policy)

        return self.database.run(stop)

    def replace_compromised(self, key: object) -> Replacement:
        """The successor of a key that `stop_compromised` stopped, and its text: this once.

        For an operator, who hands it to the key's holder: the old key proves nothing any more.
        Asked again there is no second successor: `already_handed_over`. Refused as that, and as
        `not_compromised`, `already_replaced` (a successor is in use and works on),
        `account_held` (it is issued once the account is enabled), `key_deleted`, `key_expired`,
        `too_short_lived`, `role_not_allowed`. Whatever it says, the key stays stopped.
        """

        key_id, keyring = self.database.run(lambda tx: self._lock(tx, key)), self.keyring
        self.database.run(
            lambda tx: compromise.follow(
                tx,
                key_id,
                policy=self.policy,
                sealer=keyring.sealer,
                peppers=keyring.peppers,
            )
        )
        return self.database.run(
            lambda tx: compromise.fetch(tx, key_id, actor=self.actor, sealer=keyring.sealer)
        )

    def claim(self, old_text: str) -> Claimed:
        """The successor's text, once, for whoever holds the old key.

        Accepted even if the old key has expired or was retired, but not if it is compromised or
        deleted. A second claim is refused (`already_claimed`), and its owner is told of it.
        """
        outcome = self.database.run(
            lambda tx: rotations.claim(
                tx,
                old_text,
                actor=self.actor,
                policy=self.policy,
                sealer=self.keyring.sealer,
                peppers=self.keyring.peppers,
            )
        )
        if isinstance(outcome, Claimed):
            return outcome
        raise outcome  # returned, not raised: what it left behind is committed

    def _lock(self, tx: Tx, key: object) -> UUID:
        """Take the account of a key that is given by its id or its text; the key's id."""
        # It may be a text with a typo, which no error repeats.
        unknown = NotFound("key_unknown", "this is neither a key's id nor a key's text")
        try:
            key_id = UUID(str(key))
        except ValueError:
            pass
        else:
            if api_keys.lock(tx, key_id):
                return key_id
            unknown = api_keys.unknown(str(key_id))  # an imported key's text may look like an id
        secret = key_text.read(key, self.policy.key_prefix)
        found = secret and api_keys.lock_by_text(tx, secret.reveal(), self.keyring.peppers)
        if found:
            return found
        if key_text.parse(key):
            raise NotFound("key_unknown", "no key has this text")
        raise unknown

    def _most_a_day(self) -> int | None:
        """How many new rotations of a key this caller may ask for in a day; None for any number."""
        return self.policy.rotations_per_key_per_day

    def _on_key(self, api_key_id: object, work: Callable[[Tx, ApiKey], bool]) -> bool:
        return self.database.run(lambda tx: work(tx, api_keys.locked(tx, str(api_key_id))))

    def _by_hand(self, reason: str | None) -> Cause:
        return Cause(source=OPERATOR, kind="disabled", actor=self.actor, reason=reason)
