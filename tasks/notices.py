"""Owners are warned before their keys end."""

from models import notices
from models.base import Tx

from .runtime import Runtime, flow


@flow("notices.plan")
def plan(run: Runtime) -> int:
    """Plan the notices that are due, each once whoever plans, and put them into messages."""
    after: notices.Cursor | None = None

    def page(tx: Tx) -> notices.Page:
        return notices.plan(tx, run.policy, after)

    while after := run.database.run(page).after:
        pass
    return run.batches(lambda tx: notices.post(tx, run.policy), "notices.plan")
