"""One run: load and faults side by side, then quiet, then the reckoning."""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Final

from models.invariants import Violation, check
from models.operator import Operator
from tests.chaos import canaries, duplicates, evidence
from tests.chaos.delivery import Far, far_side
from tests.chaos.faults import Fault, Faults, schedule
from tests.chaos.ledger import Evidence, Ledger, Posted
from tests.chaos.load import Load, Story, again
from tests.chaos.rotation_stories import ROTATIONS
from tests.chaos.scorecard import Scorecard
from tests.chaos.sinks import found
from tests.chaos.site import Site
from tests.chaos.stories import STORIES
from tests.eventually import eventually
from tests.flows.invariants import TOLERANCE
from tests.flows.stack import ROOT

CONVERGES_WITHIN: Final = 60.0
CALM_MAIL: Final = 30.0
"""Seconds before the end of the load from which on the mail server behaves: a mail that was refused
often rests for longer than a run converges."""
FORBIDDEN_ALARMS: Final = ("intake_failed", "adapter_failed", "event_not_stored")


class Run:
    """A site under load and faults, and what became of it."""

    def __init__(self, site: Site, far: Far, operator: Operator, ledger: Ledger, seed: int) -> None:
        self.site = site
        self.far = far
        self.operator = operator
        self.ledger = ledger
        self.faults = Faults(site, far)
        self.load = Load(operator, far, ledger, site.sinks, seed)
        self._seed = seed
        self._failures: list[str] = []

    def go(self, minutes: float, only: str = "", stories: str = "") -> None:
        """Load and faults for that long; afterwards nothing is broken any more."""
        until = time.monotonic() + minutes * 60
        evil = threading.Thread(target=self._do_faults, args=(until, only), name="faults")
        evil.start()
        try:
            self.load.run(until, _named(STORIES, stories), _named(ROTATIONS, stories))
        finally:
            evil.join()

    def _do_faults(self, until: float, only: str) -> None:
        for pause, kind, seconds in schedule(self.site.broker_kind, self._seed, only):
            time.sleep(pause)
            left = until - time.monotonic() - seconds
            if left < (CALM_MAIL if kind.kind == "mail server" else 0):
                if left < 0:
                    return
                continue
            _say(kind.name + (f" for {seconds:.1f} s" if seconds else ""))
            try:
                fault = self.faults.do(kind, seconds)
            except Exception as error:
                self._failures.append(f"{kind.name}: {type(error).__name__}: {error}")
                return
            self._recover(fault)

    def _recover(self, fault: Fault) -> None:
        """How long until an event that is published now has its effect."""
        try:
            if self.load.probe() is not None:
                fault.recovery = time.time() - fault.ended
        except Exception as error:
            self._failures.append(f"after {fault.name}: {type(error).__name__}: {error}")

    def reckon(self, card: Scorecard) -> None:
        """Wait until all is well, or for as long as that may take, and write down how it is."""
        began = time.monotonic()
        try:
            eventually(self._all_is_well, within=self._patience(), every=1)
            card.converged_after = time.monotonic() - began
        except AssertionError:
            card.broken.append(f"it did not converge within {CONVERGES_WITHIN:g} s")
        final = self._evidence()
        card.add_findings(self.ledger.judge(final))
        self._count(card, final)
        card.add_faults(self.faults.done)
        card.add_refusals(self.load.refusals)
        card.looks_of_guard = self.load.guard.looks
        card.add_duplicates(
            duplicates.of_events(final.told, self.faults.done)
            + duplicates.of_mails(final.posted, self.faults.done)
        )
        card.broken += [f"fault without recovery: {f.name}" for f in self._unrecovered()]
        card.broken += [*self.load.failures, *self._failures]
        self._check_invariants(card)

    def _patience(self) -> float:
        """A minute; longer only for what rests between two tries: a message, or a hand-over.

        A letter about a rotation that has not been tried yet may wait for an hour, to be one with
        others.
        """
        with self.operator.database.begin() as tx:
            rest = tx.scalar(
                "SELECT extract(epoch FROM max(due_at) - :now) FROM ("
                " SELECT due_at FROM keyturn.outbox WHERE state = 'waiting' AND attempts > 0"
                " UNION ALL"
                " SELECT due_at FROM keyturn.hand_overs WHERE state = 'waiting') AS to_do"
            )
        return max(CONVERGES_WITHIN, float(rest or 0) + 15)

    def _unrecovered(self) -> list[Fault]:
        return [fault for fault in self.faults.done if fault.recovery is None]

    def _all_is_well(self) -> bool:
        """The ledger alone does not say it: it knows of no message that is late."""
        return not self.ledger.judge(self._evidence()).unmet and not self._broken()

    def _broken(self) -> list[Violation]:
        return check(self.operator.database, self.operator.policy, full=True, tolerance=TOLERANCE)

    def _evidence(self) -> Evidence:
        with self.site.postgres.connect("keyturn") as connection:
            gathered = evidence.gather(connection)
        self.ledger.refused_mail |= self.site.mailbox.refused
        mails = self.site.mailbox.mails()
        accounts = list(self.ledger.accounts.values())
        return replace(
            gathered,
            told=self.far.told(),
            posted=[Posted(one.message_id, one.to, one.subject, one.at) for one in mails],
            valid={
                text: again(lambda text=text: self.operator.verify(text, record=False).valid)  # type: ignore[misc]
                for account in accounts
                for text in account.texts
            },
            files={file: found(file) for account in accounts for file in account.files},
        )

    def _count(self, card: Scorecard, final: Evidence) -> None:
        events = self.ledger.events()
        card.events = len(events)
        card.deliveries = sum(len(event.deliveries) for event in events)
        card.keys = len(final.keys)
        card.stories = dict(sorted(Counter(self.load.told).items()))
        card.outgoing_events = len({one.id for one in final.told})
        card.mails = len({one.message_id for one in final.posted})

    def _check_invariants(self, card: Scorecard) -> None:
        """The promises by a full check of ours, and as `keyturn doctor` says."""
        broken = self._broken()
        card.invariants_broken = len(broken)
        card.broken += [f"invariant {one.name}: {one.count} {one.rows[:3]}" for one in broken]
        doctor = subprocess.run(
            [sys.executable, "-m", "worker.cli", "doctor", "--full", "--json"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if doctor.returncode:
            card.broken.append(f"keyturn doctor: exit code {doctor.returncode}: {doctor.stdout}")

    def search(self, card: Scorecard) -> None:
        """Look for secrets wherever something was written; and for alarms in the logs."""
        texts = [text for one in self.ledger.accounts.values() for text in one.texts]
        secrets = canaries.of_site(self.site, texts)
        card.canaries = secrets.count
        for place, content in self._places():
            card.canaries_searched_bytes += len(content)
            for name in secrets.found(content):
                card.canaries_found += 1
                card.broken.append(f"{name} is in {place}")
        card.alarms = alarms(content for _, content in canaries.logs(self.site))
        card.broken += [
            f"alarm {name}: {number} times"
            for name, number in card.alarms.items()
            if name in FORBIDDEN_ALARMS
        ]

    def _places(self) -> Iterator[tuple[str, bytes]]:
        with self.site.postgres.connect("keyturn") as connection:
            yield from canaries.database(connection)
        mails = ((f"the mail {mail.message_id}", mail.raw) for mail in self.site.mailbox.mails())
        yield from chain(canaries.logs(self.site), self.far.dump(), mails)


def _named(stories: Sequence[Story], names: str) -> Sequence[Story]:
    """Those of these names, with commas between them; all where none is given."""
    wanted = names.split(",") if names else [story.name for story in stories]
    return [story for story in stories if story.name in wanted]


def alarms(logs: Iterator[bytes]) -> dict[str, int]:
    """How often each alarm was raised; of a promise that looked broken, by its name."""
    found: Counter[str] = Counter()
    for content in logs:
        for line in content.splitlines():
            if b'"alarm"' in line:
                try:
                    said = json.loads(line)
                except ValueError:
                    continue  # a line of a process that was killed while it wrote
                found[" ".join(filter(None, (str(said.get("alarm")), said.get("invariant"))))] += 1
    return dict(sorted(found.items()))


def run(site: Site, minutes: float, seed: int, *, only: str = "", stories: str = "") -> Scorecard:
    """All of it, on a site that runs."""
    card = Scorecard(site.broker_kind, seed, minutes)
    ledger = Ledger()
    with far_side(site, ledger) as far, site.operator() as operator:
        one = Run(site, far, operator, ledger, seed)
        one.go(minutes, only, stories)
        _say("the load is over")
        one.reckon(card)
        one.search(card)
    return card


def _say(what: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {what}\n")


def shown(broken: Sequence[str], most: int = 40) -> str:
    """The first of what is wrong, a line each."""
    more = [f"... and {len(broken) - most} more"] if len(broken) > most else []
    return "".join(f"  {one}\n" for one in [*broken[:most], *more])
