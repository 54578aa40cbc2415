"""A key as a person sees it: what it is, who uses it, what holds it, what would replace it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models import rotation_starts
from models.api_keys import ApiKey
from models.holds import Hold, on_account, on_key
from models.operator import Operator
from models.rotation_starts import Scheduled
from models.rotations import Rotation
from worker.cli import output, times


def table(keys: Sequence[ApiKey]) -> output.Table:
    """Keys as a table of 80 columns."""
    rows = [(key.id, key.name, key.account, key.status, times.left(key.expires_at)) for key in keys]
    headings = ("ID", "NAME", "ACCOUNT", "STATUS", "ENDS IN")
    return output.Table(headings, rows, empty="No keys.")


def hold_lines(holds: Sequence[Hold], what: str) -> list[str]:
    """What stands on an account or a key, a line each."""
    return [
        f"{what} is held by {hold.source}/{hold.kind} since {output.shown(hold.placed_at)}"
        + (f" ({hold.reason})" if hold.reason else "")
        for hold in holds
    ]


@dataclass(frozen=True)
class SeenKey:
    """A key with what stands around it."""

    key: ApiKey
    holds: Sequence[Hold]
    account_holds: Sequence[Hold]
    tenant_holds: Sequence[Hold]
    rotation: Rotation | None
    """The key's newest rotation that was not cancelled, in which it is the old key."""
    scheduled: Scheduled | None
    """When the schedule rotates it, if its policy says so."""

    @property
    def named(self) -> str:
        """The key in a sentence."""
        key = self.key
        return f'key {key.id} "{key.name}" of {key.account} ({key.status})'

    def warnings(self) -> list[str]:
        """What whoever stops the key should know: who still uses it, and what replaces it."""
        key, used = self.key, self.key.last_used_at
        if key.status != "active":
            return []
        if used is None:
            return ["It was never used."]
        if self.rotation is None or self.rotation.new_status != "active":
            return [
                f"It was used {times.ago(used)}, nothing replaces it; "
                f"`keyturn keys rotate {key.id}` first."
            ]
        successor = self.rotation.new_key_id
        if self.rotation.new_first_used_at is None:
            return [f"It was used {times.ago(used)}, its successor {successor} never."]
        return [f"It was used {times.ago(used)}; its successor {successor} is in use."]

    def standing(self) -> dict[str, Any]:
        """The holds, for programs."""
        return {
            "holds": self.holds,
            "account_holds": self.account_holds,
            "tenant_holds": self.tenant_holds,
        }

    def document(self) -> dict[str, Any]:
        """Everything, for programs."""
        after = {"rotation": self.rotation, "scheduled": self.scheduled}
        return {**output.plain(self.key), **self.standing(), **after}

    def hold_lines(self) -> list[str]:
        """The holds, for people."""
        account = hold_lines(self.account_holds, f"Its account {self.key.account}")
        tenant = hold_lines(self.tenant_holds, "The tenant of its account")
        return [*hold_lines(self.holds, "The key"), *account, *tenant]

    def lines(self) -> list[str]:
        """Everything, for people."""
        key, rotation = self.key, self.rotation
        facts = output.facts(
            id=key.id,
            name=key.name,
            account=f"{key.account} ({key.account_id})",
            role=key.role,
            status=key.status,
            text_ends_with=key.hint,
            allowed_from=key.allowed_ips or "everywhere",
            created=f"{output.shown(key.created_at)} by {key.created_by}",
            ends=f"{output.shown(key.expires_at)} ({times.left(key.expires_at)})",
            deleted=key.deleted_at,
            last_used=times.ago(key.last_used_at),
            rotation=f"{rotation.id} ({rotation.state})" if rotation else None,
            successor=f"{rotation.new_key_id} ({rotation.new_status})" if rotation else None,
        )
        line = scheduled_line(self.scheduled)
        return [facts, *self.hold_lines(), *([line] if line else [])]


def look(client: Operator, key_id: str) -> SeenKey:
    """A key and what stands around it; Refused as `key_unknown`."""
    key = client.key(key_id)
    rotations = [
        rotation
        for rotation in client.rotations(account=str(key.account_id))
        if rotation.old_key_id == key.id and rotation.state != "cancelled"
    ]
    return SeenKey(
        key,
        client.holds_of(on_key(key.id)),
        client.holds_of(on_account(key.account_id)),
        client.tenants.holds_over(key.account_id),
        rotations[0] if rotations else None,
        client.database.run(lambda tx: rotation_starts.next_for(tx, key.id, client.policy)),
    )


def scheduled_line(scheduled: Scheduled | None) -> str | None:
    """When the schedule rotates a key, and why not, in a sentence; None where it does not."""
    if scheduled is None:
        return None
    by = f"by policy {scheduled.policy}"
    if scheduled.rotation_id:
        return f"Its rotation {scheduled.rotation_id} was started {by}."
    why = rotation_starts.REASONS.get(scheduled.reason or "", scheduled.reason)
    if scheduled.at is None:
        return f"It will not be rotated {by}: {why}."
    when = f"It will be rotated {by}, from {output.shown(scheduled.at)} on"
    return f"{when}: {why}." if why else f"{when}."
