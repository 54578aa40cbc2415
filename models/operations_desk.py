"""What operators do with bulk operations; reached as `Operator.operations`."""

from . import operations
from .base import Database
from .operations import Operation, Selection, Unrotated
from .policy import Policy


class Operations:
    """The commands on plans; each is a transaction of its own, and repeating one is harmless."""

    def __init__(self, database: Database, policy: Policy, actor: str) -> None:
        self._database = database
        self._policy = policy
        self._actor = actor

    def plan(self, selection: Selection) -> Operation:
        """Store a plan with its exact keys; it can be applied for `Policy.plan_life`."""
        return self._database.run(
            lambda tx: operations.plan(tx, selection, actor=self._actor, policy=self._policy)
        )

    def check(self, plan: str) -> Operation:
        """The plan, if it can be applied or was; nothing is changed."""
        return self._database.run(lambda tx: operations.check(tx, plan, self._policy))

    def apply(self, plan: str) -> Operation:
        """Let a plan be carried out by the workers; applied before, it is left as it is."""
        return self._database.run(
            lambda tx: operations.apply(tx, plan, actor=self._actor, policy=self._policy)
        )

    def pause(self, plan: str) -> Operation:
        """Start no more keys until `resume`."""
        return self._database.run(
            lambda tx: operations.pause(tx, plan, actor=self._actor, policy=self._policy)
        )

    def resume(self, plan: str) -> Operation:
        """Go on where it was paused or stopped."""
        return self._database.run(lambda tx: operations.resume(tx, plan, actor=self._actor))

    def cancel(self, plan: str, reason: str) -> Operation:
        """End it: what is not started is not started."""
        return self._database.run(
            lambda tx: operations.cancel(
                tx, plan, actor=self._actor, reason=reason, policy=self._policy
            )
        )

    def find(self, plan: str) -> Operation:
        """How a plan stands."""
        with self._database.begin() as tx:
            return operations.find(tx, plan)

    def exists(self, plan: str) -> bool:
        """Whether this is a plan's id."""
        with self._database.begin() as tx:
            return operations.exists(tx, plan)

    def listed(self) -> list[Operation]:
        """Plans, the newest first."""
        with self._database.begin() as tx:
            return operations.listed(tx)

    def unrotated(self, plan: Operation) -> list[Unrotated]:
        """The first keys that it left out, skipped, or that failed, and why."""
        with self._database.begin() as tx:
            return operations.unrotated(tx, plan.id)
