"""The chapters about keys: new ones, a rotation, a killed worker, one that ends, what is left."""

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from .asking import YES
from .cast import ADA, BEN, DAN, EVE, EVERYBODY, IRIS, JON, LATER
from .stage import Document, Stage, said
from .timeline import wait

OVERLAP: Final = 8.0
"""Seconds: `rotation_overlap` in the demo's settings."""
DELAY: Final = 20.0
"""Seconds: `deletion_delay` there."""
FLOOD: Final = (ADA, BEN, EVE)
FLOOD_ID: Final = "flood"
ROUNDS: Final = 40
"""Events for each of FLOOD: disabled and enabled in turn, the last one enabled."""
OLD, NEW, MINUTE, DOOMED = "Jon's old key", "Jon's new key", "Iris's key", "Dan's key"


@dataclass(frozen=True)
class Rotation:
    """A rotation under way, and when the new key was first used (by the monotonic clock)."""

    id: str
    used: float


def opening(stage: Stage) -> None:
    """Eleven accounts with a key each."""
    stage.chapter("A dozen accounts, less one who comes later, and a key for each")
    here = [person for person in EVERYBODY if person is not LATER]
    stage.create_account(IRIS)
    stage.create_key(IRIS)
    stage.watch.follow(MINUTE, stage.keys[IRIS].text)
    # Where commands are slow, her minute is over before everybody else has a key.
    answers = [stage.product.verify(stage.keys[IRIS].text)]
    others = [person for person in here if person is not IRIS]
    stage.for_each(others, stage.create_account)
    stage.for_each(others, stage.create_key)
    stage.watch.follow(DOOMED, stage.keys[DAN].text)
    answers += [stage.product.verify(stage.keys[person].text) for person in others]
    stage.fact(f"{len(here)} new keys", [YES] * len(here), answers, say="verify: yes, of each")


def rotation_begins(stage: Stage) -> Rotation:
    """Rotate, claim with the old key, use the new one."""
    stage.chapter("A rotation begins")
    old = stage.keys[JON]
    stage.watch.follow(OLD, old.text)
    stage.product.verify(old.text, use=True)
    rotation = stage.stack.keyturn("keys", "rotate", old.id)["id"]
    again = stage.stack.keyturn("keys", "rotate", "-", stdin=old.text)["id"]
    stage.fact("Jon's key is rotated, asked twice", rotation, again, say="keys rotate: the same")
    claimed = stage.stack.keyturn("keys", "claim", stdin=old.text)
    new = stage.keys[JON] = replace(old, id=claimed["id"], text=claimed["text"])
    second = stage.stack.keyturn("keys", "claim", stdin=old.text, exit_code=3)["error"]["code"]
    say = f"second keys claim: refused, {second}"
    stage.fact("the new one is claimed with the old one, once", "already_claimed", second, say=say)
    stage.watch.follow(NEW, new.text)
    used = time.monotonic()
    answer = stage.product.verify(new.text, use=True)
    stage.fact("the product sees the new one in use", YES, answer, say=said(answer))
    answer = stage.product.verify(old.text)
    stage.fact("the old one works beside it", YES, answer, say=said(answer))
    return Rotation(rotation, used)


def rotation_ends(stage: Stage, rotation: Rotation) -> None:
    """The old key is retired, then deleted; one of the two works all the time."""
    stage.chapter("The rotation ends")
    retired = stage.watch.first(OLD, "retired")
    took = retired.at - rotation.used
    what = f"{OLD} is quiet: retired"
    stage.fact(what, True, took >= OVERLAP, say=said("retired"), at=retired.at, took=took)
    deleted = stage.watch.first(OLD, "deleted")
    took = deleted.at - retired.at
    what = f"{OLD} is missed by nobody: deleted"
    stage.fact(what, True, took > 0, say=said("deleted"), at=deleted.at, took=took)
    looks = stage.watch.looks(OLD, NEW)
    gaps = [look for look in looks if YES not in look.answers.values()]
    stage.fact(
        "one of the two works all the time", [], gaps, say=f"verify: yes, {len(looks)} times"
    )
    shown = stage.stack.keyturn("rotations", "show", rotation.id)
    stage.fact("Jon's rotation", "completed", shown["state"], say="rotations show: completed")
    _told(stage, JON.email, "is being rotated")
    _told(stage, JON.email, "was asked for twice")


def killed_worker(stage: Stage) -> None:
    """SIGKILL in the middle of many events."""
    number = len(FLOOD) * ROUNDS
    stage.chapter(f"The worker is killed while it applies {number} events")
    stage.producers.flood(
        [_turn(person.email, turn) for turn in range(1, ROUNDS + 1) for person in FLOOD]
    )
    stage.until(FLOOD[-1], "account_held", f"{number} events; the worker has begun")
    killed_at, since = datetime.now(UTC), time.monotonic()
    stage.stack.kill_worker()
    for person in FLOOD:
        what = f"SIGKILL; {person.name.title()}, whose last event was to enable"
        stage.until(person, YES, what, since=since)
    found = wait(lambda: _flood(stage), _all_finished, every=0.3)
    times = [datetime.fromisoformat(one["finished_at"]) for one in found if one["finished_at"]]
    say = f"{number} sent, {len(times)} finished"
    stage.fact("no event is lost", (number, number), (len(found), len(times)), say=say)
    before = sum(one <= killed_at for one in times)
    say = f"{before} before the kill, {number - before} after"
    stage.fact("the kill was in the middle", True, 0 < before < number, say=say)


def _turn(email: str, turn: int) -> dict[str, str]:
    kind = "account.disabled" if turn % 2 else "account.enabled"
    name = f"{FLOOD_ID}-{email}-{turn}"
    return {"type": kind, "account": email, "id": name, "sequence": str(turn)}


def _flood(stage: Stage) -> list[Document]:
    return [one for one in stage.events() if str(one["event_id"]).startswith(FLOOD_ID)]


def _all_finished(found: list[Document]) -> bool:
    return bool(found) and all(one["finished_at"] for one in found)


def last_minute(stage: Stage) -> None:
    """The one-minute key: its owner is told, then it dies, in real time."""
    stage.chapter("The one-minute key ends")
    end = stage.keys[IRIS].expires_at
    look = stage.watch.first(MINUTE, "expired")
    late = (look.when - end).total_seconds()
    say = said("expired")
    stage.fact("Iris's minute is over", True, late >= 0, say=say, at=look.at, took=late)
    early = [one for one in stage.watch.looks(MINUTE) if one.when < end]
    refused = [one for one in early if one.answers[MINUTE] != YES]
    stage.fact("it worked until then", [], refused, say=f"verify: yes, {len(early)} times")
    _told(stage, IRIS.email, "expires in 30 seconds")
    notices = stage.stack.keyturn("notices", "list", "--account", IRIS.email)
    planned = [datetime.fromisoformat(one["planned_at"]) for one in notices if one["threshold"]]
    ahead = [round((end - one) / timedelta(seconds=1)) for one in planned]
    say = f"notices list: {' and '.join(map(str, ahead))} s before the end"
    stage.fact("told in time, once", True, len(ahead) == 1 and 0 < ahead[0] <= 30, say=say)
    status = wait(
        lambda: stage.stack.keyturn("keys", "show", stage.keys[IRIS].id)["status"],
        lambda seen: seen == "expired",
    )
    stage.fact("what operators see of it", "expired", status, say=f"keys show: {status}")


def what_is_left(stage: Stage) -> None:
    """Every key is as its story says, and nothing waits."""
    stage.chapter("What is left")
    held = stage.watch.first(DOOMED, "account_held")
    gone = stage.watch.first(DOOMED, "deleted")
    took = gone.at - held.at
    what = "nobody took Dan's deletion back: his key is deleted"
    stage.fact(what, True, took > DELAY - 1, say=said("deleted"), at=gone.at, took=took)
    ended = {DAN: "deleted", IRIS: "expired"}
    expected = {person.name: ended.get(person, YES) for person in EVERYBODY}
    seen = {person.name: stage.product.verify(stage.keys[person].text) for person in EVERYBODY}
    alive = sum(answer == YES for answer in seen.values())
    say = f"verify: yes of {alive}, no of {len(seen) - alive}"
    stage.fact("all twelve keys", expected, seen, say=say)
    events = stage.stack.keyturn("status")["events"]
    wanted = {"parked": 1, "rejected": 1}
    stage.fact("events that want a look", wanted, events, say="status: 1 parked, 1 rejected")


def _told(stage: Stage, email: str, words: str) -> None:
    """Check that there is a mail to this address with these words in its subject."""

    def ask() -> list[str]:
        subjects = [" ".join(str(mail["Subject"]).split()) for mail in stage.stack.mails(email)]
        return [subject for subject in subjects if words in subject]

    found = wait(ask, bool)
    stage.fact(f"a mail to {email}", 1, len(found), say=f"Maildir: {''.join(found)}")
