"""The model's reading of rule 5.9: a key that others know is stopped, and what follows."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

from tests.model import handover
from tests.model.facts import OPEN, Key, Rotation
from tests.model.handover import No

if TYPE_CHECKING:
    from tests.model.installation import Model

ISSUING: Final = "issuing"
"""The role whose policy has a successor issued for a key of which a source reports this."""


@dataclass(eq=False)
class Compromise:
    """A key that others know. While `open`, something is still to be done."""

    key: Key
    issue: bool
    asked: datetime
    open: bool = True
    rotation: Rotation | None = None

    @property
    def replaced(self) -> bool:
        """Whether what was issued for it stands."""
        found = self.rotation
        return found is not None and (found.state != "cancelled" or found.reissued is not None)


@dataclass
class Compromises:
    """All that are known."""

    model: "Model"
    found: dict[int, Compromise] = field(default_factory=dict)

    def stop(self, key: Key, source: str, *, issue: bool) -> bool:
        """The key is held at once, with what is retired of its family; False where it was."""
        now = self.model.now
        placed = key.hold(source, "compromised", now)
        for other in key.account.keys:
            retired = other.held_as("rotated") and not other.deleted and now < other.expires
            if retired and other.family == key.family and other is not key:
                other.hold(source, "compromised", now)
        known = self.found.get(key.number)
        if known is None:
            self.found[key.number] = Compromise(key, issue, now)
        elif issue and (not known.open or not known.issue) and not known.replaced:
            known.issue, known.open, known.rotation, known.asked = True, True, None, now
        return placed

    def follow(self, key: Key) -> None:
        """What is to follow the hold, once, or once more where that was withdrawn.

        No where it has to wait for the account.
        """
        known = self.found.get(key.number)
        if known is None:
            raise No("not compromised")
        if not known.open and not self._lapsed(known):
            return
        base = self._withdraw(key)
        if known.issue:
            known.rotation = self._issue(base)
        known.open = False

    def follow_all(self) -> None:
        """A worker does what is to follow, what was asked for first first; for an account that is
        held it waits."""
        for known in sorted(self.found.values(), key=lambda one: (one.asked, one.key.number)):
            if known.open and not known.key.account.held:
                self.follow(known.key)

    def fetch(self, key: Key) -> Rotation:
        """An operator is shown the successor's text, once."""
        known = self.found.get(key.number)
        if known is None or known.rotation is None:
            raise No("not replaced")
        rotation = known.rotation.latest
        if not rotation.secret or rotation.account.held:
            raise No("handed over before")
        rotation.claimed, rotation.secret, rotation.blocked = self.model.now, False, None
        rotation.new.known = True
        return rotation

    def _lapsed(self, known: Compromise) -> bool:
        """Whether its successor is gone, or overdue to go: then another one follows it."""
        if known.rotation is None:
            return False
        self.model.look(known.rotation.latest)
        return known.rotation.latest.state == "cancelled"

    def _withdraw(self, key: Key) -> Key:
        """What leads to or from what others know goes; for whom a successor is to be made."""
        for rotation in self.model.rotations:
            if rotation.state not in OPEN or key not in (rotation.old, rotation.new):
                continue
            if key is rotation.new or rotation.new.first_used is None or rotation.contested:
                handover.end(rotation, "cancelled")
                self.model.delete(rotation.new)
            else:
                self.model.look(rotation)
            return rotation.old
        return key

    def _issue(self, base: Key) -> Rotation | None:
        """None where there is to be none."""
        model = self.model
        if not base.held:
            try:
                return model.rotate(base, None, "compromised")[0]
            except No as no:
                if base.account.held and base.deleted is None and model.now < base.expires:
                    raise No("held") from no
                return None
        for rotation in model.rotations:
            ended = rotation.state in ("issued", "cancelled") or rotation.confirmed is None
            if rotation.old is base and not ended and rotation.new.deleted is None:
                return None
        if base.deleted or model.now >= base.expires:
            return None
        if base.account.held:
            raise No("held")
        if base.life < handover.MIN_LIFE:
            return None
        model.end_undo(base)
        return model.succeed(base, None, "compromised")
