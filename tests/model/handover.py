"""The model's reading of rule 5: what a rotation does by itself, and what it lets people do."""

from collections.abc import Callable
from datetime import datetime, timedelta

from tests.model.facts import DAY, HOUR, LIVE, MINUTE, OPEN, Key, Rotation

OVERLAP, QUIET, UNDO = 7 * DAY, 25 * HOUR, 7 * DAY
SEALED_FOR = timedelta(hours=72)
MIN_LIFE = HOUR
UNDECIDED = ("old_key_in_use", "uses_not_reported")

Delete = Callable[[Key], object]
Works = Callable[[Key], bool]


class No(Exception):
    """The model refuses; nothing has changed then."""


def claim_until(issued: datetime, old: Key, new: Key) -> datetime:
    """Rule 5.3: 72 h, or the successor's own end where the old key ends within them."""
    limit = issued + SEALED_FOR
    return new.expires if old.expires <= limit else min(limit, new.expires)


def catch_up(rotation: Rotation, now: datetime, *, works: Works, delete: Delete) -> None:
    """Every step that is due, as one look at the rotation takes them."""
    for _ in range(5):
        if not _step(rotation, now, works, delete):
            return


def look(rotation: Rotation, now: datetime, *, works: Works, delete: Delete) -> None:
    """The same for a person, who does not wait until what is blocked is looked at again."""
    rotation.look_at = None
    catch_up(rotation, now, works=works, delete=delete)


def next_deadlines(rotation: Rotation) -> list[datetime]:
    """When time alone may move it."""
    times = (rotation.claim_until, rotation.retire_at, rotation.undo_until, rotation.look_at)
    return [time for time in times if time is not None] if rotation.state in LIVE else []


def claimable(rotation: Rotation, now: datetime) -> bool:
    """Whether the holder of the old key gets the new one."""
    account = rotation.account
    return (
        rotation.state == "issued"
        and rotation.secret
        and rotation.claimed is None
        and rotation.old.deleted is None
        and rotation.new.deleted is None
        and not rotation.old.held_as("compromised")
        and not account.held
        and _hold_since(rotation)[0] is None
        and now < rotation.claim_until
    )


def confirm(rotation: Rotation, now: datetime, *, works: Works, delete: Delete) -> None:
    """An operator vouches for the successor, or decides what is blocked."""
    look(rotation, now, works=works, delete=delete)
    if rotation.state == "cancelled":
        raise No("cancelled")
    if rotation.state in OPEN and not (
        not rotation.account.held and rotation.handed_over and works(rotation.new)
    ):
        raise No("not confirmable")
    if rotation.state == "issued":
        _confirmed(rotation, now)
    elif rotation.blocked in UNDECIDED:
        _retire(rotation, now)
    look(rotation, now, works=works, delete=delete)


def cancel(rotation: Rotation, now: datetime, *, works: Works, delete: Delete) -> None:
    """An operator ends a rotation whose successor is not in use."""
    look(rotation, now, works=works, delete=delete)
    if rotation.state in ("draining", "retired", "completed"):
        raise No(rotation.state)
    if rotation.state == "issued":
        end(rotation, "cancelled")
        delete(rotation.new)


def undo(rotation: Rotation, now: datetime, *, works: Works, delete: Delete) -> None:
    """Rule 5.6: an operator brings a retired key back; both keys' time counts anew."""
    look(rotation, now, works=works, delete=delete)
    if rotation.undone and rotation.state in ("draining", "cancelled"):
        return
    if rotation.state != "retired" or rotation.account.held:
        raise No("nothing to undo")
    if rotation.old.held_as("compromised") or now >= rotation.old.expires:
        raise No("not to be brought back")
    rotation.state, rotation.undo_until = "draining", None
    rotation.undone = rotation.resumed = now
    rotation.retire_at = min(rotation.old.expires, now + OVERLAP)
    rotation.old.lift("keyturn", "rotated", now)
    look(rotation, now, works=works, delete=delete)


def retry(rotation: Rotation, now: datetime, *, works: Works, delete: Delete) -> None:
    """An operator has it looked at now."""
    if rotation.state in LIVE and rotation.account.held:
        raise No("held")
    look(rotation, now, works=works, delete=delete)


def withdraw(rotation: Rotation, now: datetime, *, works: Works, delete: Delete) -> None:
    """Rule 5.3: what comes before another successor: the lost one is deleted."""
    look(rotation, now, works=works, delete=delete)
    stopped = rotation.old.held and rotation.reason != "compromised"
    if rotation.state != "issued" or rotation.account.held or stopped:
        raise No("not to be reissued")
    end(rotation, "cancelled")
    delete(rotation.new)


def end(rotation: Rotation, state: str) -> None:
    """It is over."""
    rotation.state = state
    rotation.secret = False
    rotation.blocked = rotation.look_at = rotation.paused = None


def _step(r: Rotation, now: datetime, works: Works, delete: Delete) -> bool:
    """One step; whether it moved."""
    if r.state not in LIVE:
        return False
    if r.old.deleted or (r.new.deleted and r.state in OPEN):
        if (r.old.deleted and r.state == "issued" and not r.handed_over) or not r.old.deleted:
            end(r, "cancelled")
            delete(r.new)
        else:
            end(r, "completed")
        return True
    if r.account.held or r.paused or _hold_since(r)[0]:
        return _stand_still(r, delete)
    if r.state == "issued":
        return _issued(r, now, delete)
    if r.state == "draining":
        return _draining(r, now, works, delete)
    if r.undo_until and now >= r.undo_until:
        end(r, "completed")
        delete(r.old)
        return True
    return False


def _issued(r: Rotation, now: datetime, delete: Delete) -> bool:
    if r.new.first_used:
        _confirmed(r, r.new.first_used)
        return True
    if r.claimed:
        if now >= r.old.expires:
            end(r, "completed")
            return True
        return False
    if now >= r.claim_until:
        end(r, "cancelled")
        delete(r.new)
        return True
    return False


def _draining(r: Rotation, now: datetime, works: Works, delete: Delete) -> bool:
    """Rule 5.5, in its order."""
    if now >= r.old.expires:
        end(r, "completed")
        return True
    assert r.confirmed
    assert r.retire_at
    if r.old.held_as("compromised"):  # rule 5.9: nothing to wait for, and nothing to undo
        end(r, "completed")
        delete(r.old)
        return True
    if r.look_at is not None and now < r.look_at:
        return False
    if now < r.retire_at:
        r.blocked = r.look_at = None
        return False
    quiet = max(filter(None, (r.old.last_used, r.confirmed, r.resumed))) + QUIET
    used = any(key.last_used and key.last_used >= r.issued for key in r.family_keys)
    if not works(r.new):
        r.blocked, r.look_at = "successor_not_working", now + MINUTE
    elif now < quiet:
        r.blocked, r.look_at = "old_key_in_use", min(quiet, r.old.expires)
    elif not used:
        r.blocked, r.look_at = "uses_not_reported", now + MINUTE
    else:
        _retire(r, now)
        return True
    return False


def _confirmed(r: Rotation, at: datetime) -> None:
    """Rules 5.4 and 5.8: the overlap counts from here, or from the end of a pause since then."""
    r.state, r.confirmed, r.secret = "draining", at, False
    r.retire_at = min(r.old.expires, max(at, r.resumed or at) + OVERLAP)


def _retire(r: Rotation, now: datetime) -> None:
    r.state, r.undo_until = "retired", now + UNDO
    r.blocked = r.look_at = None
    r.old.hold("keyturn", "rotated", now)


def _stand_still(r: Rotation, delete: Delete) -> bool:
    """Rule 5.8: a pause shifts every deadline; nobody fetches a new key across one."""
    until, begun = _hold_since(r)
    if r.account.held:
        if r.paused:
            return False
        r.paused, r.secret, r.blocked = begun, False, None
        return True
    if r.state == "issued" and not r.handed_over:
        end(r, "cancelled")
        delete(r.new)
        return True
    assert until
    begin = r.paused or begun or until
    pause = max(until - begin, timedelta(0))
    r.paused, r.resumed = None, until
    if r.retire_at:
        r.retire_at = min(r.old.expires, max(r.retire_at + pause, until + QUIET))
    if r.undo_until:
        r.undo_until += pause
    r.blocked = r.look_at = None
    return True


def _hold_since(r: Rotation) -> tuple[datetime | None, datetime | None]:
    """When the account's last hold since the issue, or since the last pause, ended and began."""
    since = r.resumed or r.issued
    seen = [
        hold
        for hold in r.account.holds.values()
        if hold.placed and (hold.lifted is None or hold.lifted > since)
    ]
    if not seen:
        return None, None
    ends = [hold.lifted for hold in seen if hold.lifted]
    begun = max(min(hold.placed for hold in seen if hold.placed), since)
    return max(ends) if ends else None, begun
