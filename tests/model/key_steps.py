"""What people, products and holders do: accounts, keys, uses and rotations."""

from datetime import timedelta
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
)

from models.events import Subject
from models.recording import Use
from models.rotations import Rotation
from tests.model.compared import EMAILS, IPS, OPAQUE, SOURCES, Compared, Index, Lives, pick
from tests.model.compromise import ISSUING
from tests.model.facts import DAY, HOUR, LIVE, OPEN, Key
from tests.model.facts import Rotation as Asked
from tests.model.schedule import SCHEDULED

Roles = st.sampled_from(["viewer", "viewer", ISSUING, SCHEDULED])
MOST_KEYS = 6
DECISIONS = ("confirm", "cancel", "undo", "retry")
"""What an operator may say of a rotation; each repeated changes nothing more."""


class WithKeys(Compared):
    """Commands of people and products."""

    @initialize(
        lives=st.lists(st.tuples(Lives, Roles), min_size=1, max_size=3),
        linked=st.booleans(),
        rotating=st.sampled_from([2, 1, 0]),
    )
    def begin(self, lives: list[tuple[timedelta, str]], linked: bool, rotating: int) -> None:
        """Most histories are about an account with keys."""
        for email in EMAILS[:2]:
            self.create_account(email, [])
        if linked:
            self.link(0, SOURCES[0], OPAQUE[0])
        for number, (life, role) in enumerate(lives):
            self.create_key(EMAILS[number // 2], life, None, role)
        for number in range(min(rotating, len(lives))):
            self.rotate(number, None)

    # Accounts and keys.

    @precondition(lambda self: len(self.model.accounts) < len(EMAILS))
    @rule(email=st.sampled_from(EMAILS), opaque=st.lists(st.sampled_from(OPAQUE), max_size=1))
    def create_account(self, email: str, opaque: list[str]) -> None:
        named = [("opaque", SOURCES[0], value) for value in opaque]
        subjects = [Subject(format=f, issuer=i, value=v) for f, i, v in named]
        self._both(
            lambda: self.real.operator.create_account(email, "member", identities=subjects),
            lambda: self.model.create_account(email, named),
        )

    @precondition(lambda self: self.model.accounts)
    @rule(which=Index, source=st.sampled_from(SOURCES), value=st.sampled_from(OPAQUE))
    def link(self, which: int, source: str, value: str) -> None:
        account = pick(self.model.accounts, which)
        self._both(
            lambda: self.real.operator.link_account(
                account.email, Subject(format="opaque", issuer=source, value=value)
            ),
            lambda: self.model.link(account, ("opaque", source, value)),
        )

    @precondition(lambda self: len(self.texts) < MOST_KEYS)
    @rule(
        email=st.sampled_from(EMAILS[:3]),
        life=Lives,
        ip=st.sampled_from([None, None, None, *IPS]),
        role=Roles,
    )
    def create_key(self, email: str, life: timedelta, ip: str | None, role: str) -> None:
        made = self._both(
            lambda: self.real.operator.create_api_key(
                "k",
                email,
                role,
                int(life.total_seconds()),
                allowed_ip_cidrs=[ip] if ip else None,
            ),
            lambda: self.model.create_key(email, life, ip, role),
        )
        if made:
            self.texts.append((made[0].id, made[0].text.reveal()))
            self.tick()

    @precondition(lambda self: self.texts)
    @rule(which=Index, what=st.sampled_from(["disable", "enable", "delete"]))
    def stop_or_start_key(self, which: int, what: str) -> None:
        key = pick(self.model.keys, which)
        real = getattr(self.real.operator, what)(self.texts[key.number][0])
        assert real == self._key_verb(what, key)

    def _key_verb(self, what: str, key: Key) -> bool:
        if what == "delete":
            return self.model.delete(key)
        if what == "disable":
            return key.hold("operator", "disabled", self.model.now)
        return key.lift("operator", "disabled", self.model.now)

    @precondition(lambda self: self.model.accounts)
    @rule(
        which=Index,
        off=st.booleans(),
        source=st.sampled_from(["operator", *SOURCES]),
        kind=st.sampled_from(["disabled", "disabled", "deleted", "compromised"]),
    )
    def stop_or_start_account(self, which: int, off: bool, source: str, kind: str) -> None:
        account = pick(self.model.accounts, which)
        now = self.model.now
        if off:
            real = self.real.operator.disable_account(account.email)
            assert real == account.hold("operator", "disabled", now)
        else:
            real = self.real.operator.enable_account(account.email, source=source, kind=kind)
            assert real == account.lift(source, kind, now)

    @precondition(lambda self: self.texts)
    @rule(which=Index, ip=st.sampled_from([None, *IPS]))
    def use(self, which: int, ip: str | None) -> None:
        self._use(pick([key for key in self.model.keys if key.known], which), ip)

    def _use(self, key: Key, ip: str | None) -> None:
        verdict = self.real.operator.verify(self._text(key), ip)
        self.real.operator.flush_uses()
        assert verdict.reason == self.model.use(key, ip)

    @precondition(lambda self: self.texts)
    @rule(which=Index, report=st.booleans())
    def use_behind_a_gateway(self, which: int, report: bool) -> None:
        """The gateway asks, and tells of the use only later, if ever."""
        if report and self.unreported:
            number, use = self.unreported.pop(which % len(self.unreported))
            if self.real.operator.report_use([use]).keys:
                self.model.report(self.model.keys[number], use.at)
            return
        key = pick([key for key in self.model.keys if key.known], which)
        if self.real.operator.verify(self._text(key), key.allowed, record=False):
            self.unreported.append((key.number, Use(self.texts[key.number][0], self.model.now)))

    # Rotations.

    @precondition(lambda self: self.texts)
    @rule(which=Index, asked=st.sampled_from([None, None, "ticket-1", "ticket-2"]))
    def rotate(self, which: int, asked: str | None) -> None:
        key = pick(self.model.keys, which)
        done = self._both(
            lambda: self.real.operator.rotate(self.texts[key.number][0], idempotency_key=asked),
            lambda: self.model.rotate(key, asked),
        )
        if done:
            real, (rotation, new) = done
            if new:
                self._begun(real)
            assert real.id == self.rotation_ids[rotation.number]

    @precondition(lambda self: self.rotation_ids)
    @rule(which=Index, verb=st.sampled_from(["claim"] * 3 + [*DECISIONS, "reissue"]))
    def hand_over(self, which: int, verb: str) -> None:
        if verb == "claim":
            self._claim(which)
        elif verb == "reissue":
            self._reissue(which)
        else:
            self._decide(which, verb)

    @precondition(lambda self: any(r.state == "retired" for r in self.model.rotations))
    @rule(which=Index, by=st.sampled_from([timedelta(0), HOUR, 6 * DAY]))
    def undo_what_was_retired(self, which: int, by: timedelta) -> None:
        """Of late, or nearly too late."""
        retired = [one for one in self.model.rotations if one.state == "retired"]
        self.move_to(self.model.now + by)
        self._decide(pick(retired, which).number, "undo")

    @precondition(lambda self: any(r.state in LIVE for r in self.model.rotations))
    @rule(which=Index, by=st.sampled_from([timedelta(0), HOUR, 8 * DAY]))
    def go_on_with_a_rotation(self, which: int, by: timedelta) -> None:
        """What its holder does next: fetch the new key, use it, or let time pass."""
        live = [one for one in self.model.rotations if one.state in LIVE]
        rotation = pick(live, which)
        if rotation.claimed is None and rotation.old.known:
            self._claim(rotation.number)
        if rotation.new.known:
            self._use(rotation.new, rotation.new.allowed)
        self.move_to(self.model.now + by)
        self.run("rotations.advance")

    def _claim(self, which: int) -> None:
        key = pick(self.model.rotations, which).old
        if not key.known:
            return
        text = self._text(key)
        done = self._both(lambda: self.real.operator.claim(text), lambda: self.model.claim(key))
        if done:
            real, rotation = done
            self._learn(rotation.new, real.key_id, real.secret.reveal())
            return
        refused = self.model.keys[key.number]  # the model is another one: nothing has changed
        for asked in self.model.rotations:
            if asked.old is refused and asked.claimed and self._is_offered(asked):
                asked.contested = True

    def _is_offered(self, rotation: Asked) -> bool:
        """Whether it is the one that a claim with its old key is about, and not withdrawn."""
        last = [one for one in self.model.rotations if one.old is rotation.old][-1]
        gone = rotation.new.deleted and rotation.state in OPEN
        return rotation is last and rotation.state != "cancelled" and not gone

    def _learn(self, key: Key, id_: UUID, text: str) -> None:
        """Somebody has the text of a key that was handed over."""
        assert self.texts[key.number] == (id_, None)
        self.texts[key.number] = (id_, text)

    def _decide(self, which: int, verb: str) -> None:
        rotation = pick(self.model.rotations, which)
        name = str(self.rotation_ids[rotation.number])
        decide = getattr(self.real.operator, f"{verb}_rotation")
        why = ["why"] if verb in ("cancel", "undo") else []
        self._both(lambda: decide(name, *why), lambda: getattr(self.model, verb)(rotation))

    def _reissue(self, which: int) -> None:
        rotation = pick(self.model.rotations, which)
        name = str(self.rotation_ids[rotation.number])
        done = self._both(
            lambda: self.real.operator.reissue_rotation(name),
            lambda: self.model.reissue(rotation),
        )
        if done:
            real, (issued, new) = done
            if new:
                self._begun(real)
            assert real.id == self.rotation_ids[issued.number]

    def _begun(self, rotation: Rotation) -> None:
        self.rotation_ids.append(rotation.id)
        self.texts.append((rotation.new_key_id, None))
        self.tick()
