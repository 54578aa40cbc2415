"""The audit, sealed in several batches while it grows."""

from dataclasses import replace

from tests.faults.flow import Flow, task
from tests.faults.site import POLICY, Site
from tests.world import ADA


def _written(site: Site) -> None:
    """Seven entries: one was sealed, six wait, each of a transaction of its own."""
    site.account(ADA)
    site.run("upkeep.seal_audit")
    for n in range(6):
        site.key(f"key {n}", ADA)


AUDIT_FLOWS = (
    Flow(
        "audit_seal",
        _written,
        [task("upkeep.seal_audit")],
        policy=replace(POLICY, seal_batch=2),
    ),
)
