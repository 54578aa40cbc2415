"""`keyturn rotations confirm`, `undo`, `retry`, `reissue`: what operators do about one rotation."""

from typing import Annotated, Final

import typer

from worker.cli import times
from worker.cli.asking import DryRun, Yes, agreed
from worker.cli.output import Json
from worker.cli.rotation_views import tell, used
from worker.cli.rotations import RotationId
from worker.cli.session import operator

Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why, for the audit.")]


def undo(rotation: RotationId, reason: Reason = "requested", json: Json = False) -> None:
    """Bring a retired key back, within the time for it (7 days).

    Both keys work then, and the old one drains anew: it is retired again once it
    was quiet for as long as after the first confirmation.
    """
    with operator() as client:
        tell(client, client.undo_rotation(rotation, reason), json)


def retry(rotation: RotationId, json: Json = False) -> None:
    """Try now what failed: a step of the rotation, or its hand-over."""
    with operator() as client:
        tell(client, client.retry_rotation(rotation), json)


def reissue(
    rotation: RotationId, yes: Yes = False, dry_run: DryRun = False, json: Json = False
) -> None:
    """Replace a new key whose text was lost; asks before.

    The lost one is deleted, its rotation cancelled, and a new rotation begun, at
    once: there are never two new keys. The old key is left as it is.
    """
    with operator() as client:
        found = client.rotation(rotation)
        fetched = times.ago(found.claimed_at) if found.claimed_at else "by nobody yet"
        plan = [
            f"Reissue the successor of key {found.old_key_id} "
            f'"{found.name}" of {found.account} ({found.state}): {found.new_key_id} is deleted.',
            f"It was fetched {fetched}, and first used {times.ago(found.new_first_used_at)}.",
        ]
        would = {"action": "reissue", "rotation": found}
        client.trying().reissue_rotation(rotation)  # refused before it is asked about
        done = found.reissued_as is not None and not dry_run  # nobody is asked about that again
        if not (done or agreed("Reissue it?", plan, would, yes=yes, dry_run=dry_run, json=json)):
            return
        tell(client, client.reissue_rotation(rotation), json)


def confirm(
    rotation: RotationId, yes: Yes = False, dry_run: DryRun = False, json: Json = False
) -> None:
    """Vouch that the new key is in use, where that cannot be seen.

    Where the rotation waits because the old key is still in use, or because uses
    are not reported, this retires the old key, which asks before.
    """
    with operator() as client:
        found = client.rotation(rotation)
        stops = found.retires_if_confirmed
        plan = [
            f"{'Retire' if stops else 'Confirm the successor of'} key {found.old_key_id} "
            f'"{found.name}" of {found.account} ({found.state}), used {used(found)}.'
        ]
        would = {"action": "retire" if stops else "confirm", "rotation": found}
        if stops or dry_run:
            client.trying().confirm_rotation(rotation)  # refused before it is asked about
            asked = "Retire it?"
            if not agreed(asked, plan, would, yes=yes, dry_run=dry_run, json=json):
                return
        tell(client, client.confirm_rotation(rotation), json)


VERBS: Final = (confirm, undo, retry, reissue)
"""Commands of `keyturn rotations`."""
