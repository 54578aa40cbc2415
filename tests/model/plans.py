"""The model's reading of bulk operations: a plan has its keys, and rotates those that still fit."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from tests.model import handover
from tests.model.facts import OPEN, Key
from tests.model.handover import No

if TYPE_CHECKING:
    from tests.model.installation import Model

PLAN_LIFE: Final = timedelta(minutes=15)
KEPT, UNUSED_KEPT = timedelta(days=30), timedelta(days=1)
GROWTH: Final = 0.05


@dataclass(eq=False)
class Plan:
    """Its keys, and those of them that nobody has come to yet."""

    made: datetime
    keys: list[Key]
    left_out: Counter[str]
    waiting: list[Key]
    state: str = "planned"
    ended: datetime | None = None
    known: bool = True


@dataclass
class Plans:
    """All that were made, of every key that fits."""

    model: "Model"
    made: list[Plan] = field(default_factory=list)

    def plan(self) -> Plan:
        keys, left_out = self._chosen()
        self.made.append(Plan(self.model.now, keys, left_out, list(keys)))
        return self.made[-1]

    def apply(self, plan: Plan) -> None:
        if plan.state == "cancelled":
            raise No("cancelled")
        if plan.state != "planned":
            return
        if self._is_over(plan):
            raise No("expired")
        if not plan.keys:
            raise No("empty")
        grown = sum(key not in plan.keys for key in self._chosen()[0])
        if grown > GROWTH * len(plan.keys):
            raise No("grown")
        plan.state = "running"

    def pause(self, plan: Plan) -> None:
        if plan.state not in ("running", "paused"):
            raise No("not running")
        plan.state = "paused"

    def resume(self, plan: Plan) -> None:
        if plan.state not in ("running", "paused"):
            raise No("not running")
        plan.state = "running"

    def cancel(self, plan: Plan) -> None:
        if plan.state == "completed" or (plan.state == "planned" and self._is_over(plan)):
            raise No("ended")
        plan.state, plan.ended = "cancelled", plan.ended or self.model.now

    def advance(self) -> None:
        """Workers carry out what runs, to its end: nobody's pace is waited for here."""
        for plan in self.made:
            if plan.state == "running":
                for key in plan.waiting:
                    if self._unfit(key) is None:
                        self.model.end_undo(key)
                        self.model.succeed(key, None, "operation")
                plan.waiting, plan.state, plan.ended = [], "completed", self.model.now

    def forget(self) -> None:
        """Plans leave after their time; those that nobody applied, soon."""
        now = self.model.now
        for plan in self.made:
            old = plan.ended is not None and plan.ended < now - KEPT
            unused = plan.state == "planned" and plan.made + PLAN_LIFE < now - UNUSED_KEPT
            plan.known &= not (old or unused)

    def _is_over(self, plan: Plan) -> bool:
        return self.model.now >= plan.made + PLAN_LIFE

    def _chosen(self) -> tuple[list[Key], Counter[str]]:
        reasons = {k: self._unfit(k) for k in self.model.keys if k.deleted is None}
        fit = [key for key, reason in reasons.items() if reason is None]
        return fit, Counter(reason for reason in reasons.values() if reason)

    def _unfit(self, key: Key) -> str | None:
        """Why a key needs no successor, or must not have one; the first that is so."""
        model = self.model
        reasons = {
            "key_deleted": key.deleted is not None,
            "key_expired": model.now >= key.expires,
            "account_held": key.account.held,
            "replaced": key.held_as("rotated"),
            "key_held": key.held,
            "in_rotation": any(one.state in OPEN for one in model.of_family(key)),
            "too_short_lived": key.life < handover.MIN_LIFE,
        }
        return next((reason for reason, is_so in reasons.items() if is_so), None)
