"""`python -m tests.chaos --minutes M --broker valkey|rabbitmq`: Keyturn under fire.

Ends with 0 where all was kept, else with 1, after saying what was not, the seed that repeats the
run, and where its logs are.
"""

import argparse
import logging
import random
import sys
import warnings
from pathlib import Path

from tests.chaos.faults import kinds
from tests.chaos.mailbox import Mailbox
from tests.chaos.rotation_stories import ROTATIONS
from tests.chaos.run import run, shown
from tests.chaos.site import Site, directory
from tests.chaos.stories import STORIES


class _Broken(Exception):
    """Something was not kept."""


def main() -> int:
    """One run; returns the exit code."""
    given = _arguments()
    logging.getLogger("mail").setLevel(logging.ERROR)  # a login without TLS is meant here
    warnings.filterwarnings("ignore", module="aiosmtpd")
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    try:
        with directory() as home:
            sys.stderr.write(f"chaos on {given.broker}, seed {seed}, in {home.path}\n")
            with Site(home, given.broker, Mailbox()).started() as site:
                card = run(site, given.minutes, seed, only=given.only, stories=given.stories)
            sys.stdout.write(card.text())
            if given.out:
                given.out.write_text(card.as_json() + "\n")
            if card.broken:
                raise _Broken
    except _Broken:
        again = f"--minutes {given.minutes:g} --broker {given.broker} --seed {seed}"
        sys.stderr.write(
            f"\nBROKEN:\n{shown(card.broken)}"
            f"Repeat it: python -m tests.chaos {again}\nIts logs: {home.path / 'log'}\n"
        )
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long the load lasts")
    parser.add_argument("--broker", choices=("valkey", "rabbitmq"), default="valkey")
    parser.add_argument("--seed", type=int, help="to repeat a run")
    parser.add_argument("--only", default="", help="only faults whose name has this in it")
    parser.add_argument("--stories", default="", help="only these, with commas between them")
    parser.add_argument("--out", type=Path, help="a file for the scorecard in JSON")
    given = parser.parse_args()
    if not any(given.only in kind.name for kind in kinds(given.broker)):
        names = "\n  ".join(kind.name for kind in kinds(given.broker))
        parser.error(f"--only {given.only!r} fits no fault; these are all:\n  {names}")
    known = {story.name for story in (*STORIES, *ROTATIONS)}
    if given.stories and not known.issuperset(given.stories.split(",")):
        parser.error(f"--stories {given.stories!r}: these are all: {', '.join(sorted(known))}")
    return given


if __name__ == "__main__":
    sys.exit(main())
