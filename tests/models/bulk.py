"""Verbs for bulk operations on a scene: plan, apply, and the turns of a worker."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from models import operation_steps, operations
from models.base import Tx
from models.errors import Refused
from models.operation_steps import Claimed, Turn
from models.operations import Operation, Selection
from tests.models.scene import Scene

EVERYTHING = Selection(everything=True)
UNHURRIED = 1e7
"""Keys a second: so quick that a clock that stands still does not hold a run up."""


class Bulk:
    """An operator and a worker; every method is a transaction of its own, or several."""

    def __init__(self, scene: Scene, **policy: Any) -> None:
        self.scene = scene
        self.policy = replace(scene.policy, **{"bulk_rate": UNHURRIED, **policy})

    def _do(self, verb: Callable[[Tx], Operation]) -> Operation:
        return self.scene.database.run(verb)

    def plan(self, selection: Selection = EVERYTHING) -> Operation:
        return self._do(lambda tx: operations.plan(tx, selection, actor="op", policy=self.policy))

    def apply(self, plan: Operation) -> Operation:
        return self._do(
            lambda tx: operations.apply(tx, str(plan.id), actor="op", policy=self.policy)
        )

    def applied(self, selection: Selection = EVERYTHING) -> Operation:
        return self.apply(self.plan(selection))

    def pause(self, plan: Operation) -> Operation:
        return self._do(
            lambda tx: operations.pause(tx, str(plan.id), actor="op", policy=self.policy)
        )

    def resume(self, plan: Operation) -> Operation:
        return self._do(lambda tx: operations.resume(tx, str(plan.id), actor="op"))

    def cancel(self, plan: Operation) -> Operation:
        return self._do(
            lambda tx: operations.cancel(
                tx, str(plan.id), actor="op", reason="not needed", policy=self.policy
            )
        )

    def find(self, plan: Operation) -> Operation:
        return self._do(lambda tx: operations.find(tx, str(plan.id)))

    def refusal(self, verb: Callable[[Operation], Operation], plan: Operation) -> Refused:
        """Why a verb is refused."""
        try:
            found = verb(plan)
        except Refused as refused:
            return refused
        raise AssertionError(f"it was not refused: {found}")

    def turn(self) -> Turn:
        """What a worker is to do next."""
        return self.scene.database.run(lambda tx: operation_steps.turn(tx, self.policy))

    def claim(self) -> Claimed:
        """The key that a worker is to issue next."""
        claimed = self.turn().claimed
        assert claimed is not None
        return claimed

    def issue(self, claimed: Claimed) -> bool:
        """What the worker does with it."""
        return operation_steps.issue(
            self.scene.database,
            claimed,
            policy=self.policy,
            sealer=self.scene.sealer,
            peppers=self.scene.peppers,
        )

    def work(self, keys: int | None = None) -> int:
        """A worker's turns until there is nothing to do now, or so many keys were issued."""
        issued = 0
        while keys is None or issued < keys:
            turn = self.turn()
            if turn.claimed is not None:
                issued += self.issue(turn.claimed)
            elif not turn.moved:
                break
        return issued

    def later(self, by: timedelta) -> None:
        self.scene.later(by)

    def rows(self, plan: Operation) -> list[Any]:
        """Its keys, in their order."""
        return self.scene.sql(
            "SELECT p.*, k.name FROM keyturn.operation_keys p"
            " JOIN keyturn.api_keys k ON k.id = p.key_id"
            " WHERE operation_id = :id ORDER BY place",
            id=plan.id,
        )

    def reasons(self, plan: Operation) -> dict[UUID, str | None]:
        """Why each key was not rotated, or None."""
        return {row["key_id"]: row["reason"] for row in self.rows(plan)}

    def letters(self) -> list[tuple[str, list[str]]]:
        """Who was told of which keys, oldest message first."""
        return [
            (one["account"], [key["name"] for key in one["keys"]])
            for one in self.scene.mails("operation.issued")
        ]
