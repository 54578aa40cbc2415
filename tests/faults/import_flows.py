"""Imports and reconciliations: each batch is there or not, and the same command goes on from it."""

import hashlib
from typing import Final

from models import reconcile
from models.account_imports import AccountRow
from models.events import Action, Subject
from models.key_imports import KeyRow
from models.reconcile import Comparison, ExportRow
from tests.faults.flow import Flow, command
from tests.faults.key_flows import BOB
from tests.faults.site import DAY, START, Site
from tests.world import ADA, event

EVE: Final = "eve@example.com"


def _subject(value: str) -> Subject:
    return Subject(format="opaque", issuer="okta", value=value)


def _waited_for(site: Site) -> None:
    """One account is there, with other facts; of another one an event came before it."""
    site.account(ADA)
    site.receive("okta", ("d1", event(Action.DISABLED, subject=_subject("u2"))))
    site.work()


def _accounts(site: Site) -> None:
    batches = [
        [AccountRow(1, BOB, "member", "Bob", None, (_subject("u2"),))],
        [AccountRow(2, ADA, name="Ada"), AccountRow(3, EVE, "member")],
    ]
    for rows in batches:
        site.operator.import_accounts(rows, update=True)


def _one_held(site: Site) -> None:
    for email in (ADA, BOB):
        site.account(email)
    site.operator.disable_account(ADA)
    site.work()


def _keys(site: Site) -> None:
    for batch in (1, 2):
        site.operator.import_keys(
            [
                KeyRow(
                    n,
                    hashlib.sha256(f"{email} {batch}".encode()).digest(),
                    ("email", "", email),
                    "viewer",
                    f"key {batch}",
                    created_at=START - 100 * DAY,
                    expires_at=START + 5 * DAY,
                )
                for n, email in enumerate((ADA, BOB))
            ]
        )


def _astray(site: Site) -> None:
    """One account is held that is active there, and one is not that is disabled there."""
    for n, email in enumerate((ADA, BOB, EVE)):
        site.account(email, _subject(f"u{n}"))
        site.key("build", email)
    site.receive("okta", ("d1", event(Action.DISABLED, at=START - DAY, subject=_subject("u0"))))
    site.work()


def _reconcile(site: Site) -> None:
    comparison = Comparison("okta", START)
    rows = [
        ExportRow(n, (("opaque", "okta", f"u{n}"),), active)
        for n, active in ((0, True), (1, False))
    ]
    with site.operator.database.begin() as tx:
        comparison.add(tx, rows, site.policy)
        comparison.add_absent(tx, site.policy, everyone=False)
    reconcile.apply(
        site.operator.database, comparison, provider="okta", actor="op", policy=site.policy
    )


IMPORT_FLOWS: Final = (
    Flow("accounts_import", _waited_for, [command(_accounts)]),
    Flow("keys_import", _one_held, [command(_keys)]),
    Flow("accounts_reconcile", _astray, [command(_reconcile)]),
)
