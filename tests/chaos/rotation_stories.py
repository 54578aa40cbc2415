"""What happens to keys that are rotated: brought back, handed over, in plans, by policy, leaked.

Each story says in the ledger in which states its rotations must end, and which of its keys work
then; a guard looks meanwhile whether one of them always does.
"""

import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

from joserfc import jwe, jwk

from models.errors import Refused
from models.key_imports import KeyRow
from models.key_text import mint
from models.operations import Operation, Selection
from models.public_keys import ALGORITHMS, read
from models.rotations import Rotation
from tests.chaos.ledger import Account
from tests.chaos.load import LONGEST_WAIT, Load, Story, T, again
from tests.chaos.sinks import MOODS

OLD: Final = timedelta(days=29)
"""The age of a key that the product gave out before; its life is a day longer."""
OUTBOX_WAIT: Final = 240.0
"""Seconds: a message that a broken broker refused five times rests for longer than LONGEST_WAIT."""
RESTS: Final = 2.0
"""Seconds for which a plan is paused."""


def claimed(load: Load, account: Account, old: str, rotation: Rotation) -> str | None:
    """The successor's text, for whoever holds the old key.

    Where the answer was lost, and the text with it, None: what the documentation says to do was
    done, the rotation is cancelled.
    """
    account.end[old] = "active"
    try:
        new = again(lambda: load.operator.claim(old)).secret.reveal()
    except Refused as refused:
        if refused.code != "already_claimed":
            raise
        again(lambda: load.operator.cancel_rotation(str(rotation.id), "the answer was lost"))
        return None
    account.texts.append(new)
    account.end |= {old: "deleted", new: "active"}
    return new


def undo(load: Load, draw: random.Random) -> None:
    """The old key was retired, and is brought back: it drains anew, and goes in the end."""
    account = load.account("undo")
    [old] = account.texts[:1]
    begun = again(lambda: load.operator.rotate(old, idempotency_key=account.email))
    family = load.guard.watch(account.email, old)
    new = claimed(load, account, old, begun)
    if new is None:
        account.rotations = ("cancelled",)
        return
    family.append(new)
    account.rotations, account.mails = ("completed",), 3
    _use(load, new)
    awaited(lambda: _state(load, begun) != "issued", "a first use confirms its rotation")
    if draw.random() < 0.5:
        _undone(load, begun, old)  # it drains yet, mostly: there is nothing to undo
    awaited(lambda: _state(load, begun) != "draining", "a drained key is retired")
    if _undone(load, begun, old):
        _use(load, old)


def _undone(load: Load, rotation: Rotation, old: str) -> bool:
    """Whether the old key was brought back; one that was works, for some seconds at least."""
    began = time.monotonic()
    try:
        again(lambda: load.operator.undo_rotation(str(rotation.id), "still needed"))
    except Refused as refused:
        if refused.code in ("not_retired", "undo_over"):
            return False
        raise
    works = again(lambda: load.operator.verify(old, record=False).valid)
    if not works and time.monotonic() - began < load.operator.policy.rotation_quiet.total_seconds():
        raise AssertionError("a key that was brought back does not work")
    return True


def mount(load: Load, draw: random.Random) -> None:
    """The new key is put into a file; its consumer reads it there, and uses it."""
    account, begun, family = _begun(load, "mount", "mounted")
    file = load.sinks.mounted(begun.family_id)
    awaited(file.exists, "a new key is put into its file")
    _handed_over(load, account, family, file.read_text())
    account.files[file] = account.texts[-1]


def program(load: Load, draw: random.Random) -> None:
    """A program gets the new key: at once, or after it failed or hung."""
    mood = draw.choice(MOODS)
    account, begun, family = _begun(
        load, "program", "program", lambda one: load.sinks.set_mood(one.email, mood)
    )
    file = load.sinks.taken(begun.id)
    awaited(file.exists, f"a program that {mood} gets its key")
    _handed_over(load, account, family, file.read_text())
    account.files[file] = account.texts[-1]


def sealed(load: Load, draw: random.Random) -> None:
    """The new key comes in an event that only the owner of the account's private key can read."""
    key = jwk.OKPKey.generate_key("X25519")

    def register(account: Account) -> None:
        public = read(key.as_pem(private=False).decode())
        owner = again(lambda: load.operator.account(account.email))
        again(lambda: load.operator.register_public_key(owner.id, public))

    account, begun, family = _begun(load, "sealed", "sealed", register)
    came: list[str] = []

    def arrived() -> bool:
        name = str(begun.new_key_id)
        came[:] = [one.sealed for one in load.far.told() if one.sealed and name in one.keys]
        return bool(came)

    awaited(arrived, "a sealed key reaches its owner", every=1.0, within=OUTBOX_WAIT)
    content = jwe.decrypt_compact(came[0], key, algorithms=[ALGORITHMS["OKP"], "A256GCM"])
    _handed_over(load, account, family, (content.plaintext or b"").decode())


def scheduled(load: Load, draw: random.Random) -> None:
    """A key of another system is two thirds through its life: its policy rotates it."""
    account = load.owner("scheduled")
    [old] = _old_keys(load, account, "scheduled", 1)
    family = load.guard.watch(account.email, old)
    account.rotations = ("completed",)
    [begun] = awaited(lambda: _rotations(load, account), "a key whose time has come is rotated")
    new = claimed(load, account, old, begun)
    if new is None:
        account.rotations = ("cancelled",)
        return
    family.append(new)
    _use(load, new)


def wave(load: Load, draw: random.Random) -> None:
    """Some owners' old keys are rotated by one plan, which may be paused on its way.

    Several plans at once may have the same keys: each key has one successor all the same.
    """
    owners = [load.owner("wave") for _ in range(draw.choice((2, 3)))]
    keys = [(one, text) for one in owners for text in _old_keys(load, one, "wave", 2)]
    families = {old: load.guard.watch(account.email, old) for account, old in keys}
    for account in owners:
        account.rotations, account.mails = ("completed", "completed"), 2
    if (plan := _applied(load)) is not None:
        if draw.random() < 0.5:
            _pause(load, plan)
        _watch(load, plan)
    for account in owners:
        states = []
        for old in [text for one, text in keys if one is account]:
            new = claimed(load, account, old, _rotation_of(load, account, old))
            states.append("cancelled" if new is None else "completed")
            if new is not None:
                families[old].append(new)
                _use(load, new)
        account.rotations = states


def _applied(load: Load) -> str | None:
    """The id of a plan that has all old keys of this role; planned anew where others came in.

    None where other plans were quicker with all of them.
    """
    deadline = time.monotonic() + LONGEST_WAIT
    while True:
        made = again(
            lambda: load.operator.operations.plan(
                Selection(role="wave", older_than=OLD - timedelta(days=1))
            )
        )
        plan = str(made.id)
        try:
            again(lambda plan=plan: load.operator.operations.apply(plan))  # type: ignore[misc]
            return plan
        except Refused as refused:
            if refused.code == "plan_empty":
                return None
            if refused.code != "plan_grew" or time.monotonic() > deadline:
                raise


def _pause(load: Load, plan: str) -> None:
    """Nothing is begun while a plan rests; it goes on where it was."""
    operations = load.operator.operations
    with suppress(Refused):  # it has ended already
        again(lambda: operations.pause(plan))
        before = again(lambda: operations.find(plan)).issued
        time.sleep(RESTS)
        after = again(lambda: operations.find(plan)).issued
        again(lambda: operations.resume(plan))
        if after != before:
            raise AssertionError(f"a paused plan went on: {before} keys, then {after}")


def _watch(load: Load, plan: str) -> None:
    """Until it ends, as it must: with each of its keys issued, or not fit any more."""
    ended = awaited(lambda: _ended(load, plan), "a plan that was applied ends")
    if (ended.state, ended.failed) != ("completed", 0):
        raise AssertionError(f"the plan is {ended.state} ({ended.stop_reason}), {ended.failed=}")


def _ended(load: Load, plan: str) -> Operation | None:
    found = load.operator.operations.find(plan)
    return found if found.ended or found.state == "stopped" else None


def leaked(load: Load, draw: random.Random) -> None:
    """Others know a key: it is stopped at once, and a successor that nobody has yet goes too."""
    account = load.account("leaked", in_step=True)
    [old] = account.texts[:1]
    rotating = draw.random() < 0.5
    if rotating:
        again(lambda: load.operator.rotate(old, idempotency_key=account.email))
    account.rotations = ("cancelled",) if rotating else ()
    account.end[old] = "disabled"
    if not _stopped(load, account, old):
        account.rotations = ("issued",) if rotating else ()
        account.end[old] = "active"


def reissued(load: Load, draw: random.Random) -> None:
    """Others know a key whose policy has another one issued: an operator fetches that."""
    account = load.account("reissued", in_step=True, role="reissued")
    [old] = account.texts[:1]
    account.rotations = ("completed",)
    account.end[old] = "deleted"
    if not _stopped(load, account, old):
        account.rotations, account.end[old] = (), "active"
        return
    [begun] = awaited(lambda: _rotations(load, account), "a leaked key's successor is issued")
    try:
        got = again(lambda: load.operator.replace_compromised(old))
    except Refused as refused:
        if refused.code != "already_handed_over":
            raise
        again(lambda: load.operator.reissue_rotation(str(begun.id)))  # the answer was lost
        account.rotations = ("cancelled", "completed")
        got = again(lambda: load.operator.replace_compromised(old))
    new = got.secret.reveal()
    account.texts.append(new)
    account.end[new] = "active"
    load.guard.watch(account.email, new)
    _use(load, new)


def _stopped(load: Load, account: Account, text: str) -> bool:
    """Report a key; whether that stopped it, or a flush took the report. Raises where neither."""
    event = load.leak(account, text)
    if load.cut(account, event) is not None:
        return True
    if load.is_flushed(event):
        return False
    raise AssertionError("a leaked key was not stopped")


def _begun(
    load: Load, story: str, role: str, before: Callable[[Account], object] = lambda one: None
) -> tuple[Account, Rotation, list[str]]:
    """An account whose key's successor is on its way to a sink, and its family."""
    account = load.account(story, role=role)
    before(account)
    [old] = account.texts[:1]
    account.rotations, account.end[old] = ("completed",), "deleted"
    begun = again(lambda: load.operator.rotate(old, idempotency_key=account.email))
    return account, begun, load.guard.watch(account.email, old)


def _handed_over(load: Load, account: Account, family: list[str], new: str) -> None:
    """The sink has the new key, and whoever reads it there uses it."""
    account.texts.append(new)
    account.end[new] = "active"
    family.append(new)
    _use(load, new)


def _old_keys(load: Load, account: Account, role: str, many: int) -> list[str]:
    """Keys that a product gave out long before, brought in."""
    texts = [mint(load.operator.policy.key_prefix).reveal() for _ in range(many)]
    made = datetime.now(UTC) - OLD
    rows = [
        KeyRow(
            line=number,
            sha256=sha256(text.encode()).digest(),
            account=("email", "", account.email),
            role=role,
            created_at=made,
            expires_at=made + OLD + timedelta(days=1),
            foreign=False,
        )
        for number, text in enumerate(texts, 1)
    ]
    outcomes = again(lambda: load.operator.import_keys(rows))
    if any(one.did not in ("created", "unchanged") for one in outcomes):
        raise AssertionError(f"keys were not imported: {outcomes}")
    account.texts += texts
    account.end |= dict.fromkeys(texts, "deleted")
    return texts


def _use(load: Load, text: str) -> None:
    if not again(lambda: load.operator.verify(text)):
        raise AssertionError("a key that was handed over does not work")


def _state(load: Load, rotation: Rotation) -> str:
    return load.operator.rotation(str(rotation.id)).state


def _rotations(load: Load, account: Account) -> Sequence[Rotation]:
    return load.operator.rotations(account=account.email)


def _rotation_of(load: Load, account: Account, old: str) -> Rotation:
    key = again(lambda: load.operator.verify(old, record=False)).key_id
    [found] = [one for one in again(lambda: _rotations(load, account)) if one.old_key_id == key]
    return found


def awaited(
    look: Callable[[], T | None], what: str, every: float = 0.25, within: float = LONGEST_WAIT
) -> T:
    """What `look` finds, as soon as it finds something. AssertionError where it never does."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        with suppress(Exception):  # no answer is not a no
            if found := look():
                return found
        time.sleep(every)
    raise AssertionError(f"not within {within:g} s: {what}")


ROTATIONS: Final = tuple(
    Story(tell, reserve=5)
    for tell in (undo, mount, program, sealed, scheduled, wave, leaked, reissued)
)
"""They mostly wait, and each comes in its turn."""
