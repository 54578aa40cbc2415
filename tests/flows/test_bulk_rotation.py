"""Two worker processes carry out one plan, and one of them is killed on the way (rule 6.3)."""

import os
import signal
from collections import Counter
from datetime import timedelta
from email import message_from_bytes
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

from models.operations import Selection
from models.operator import Operator
from tests.eventually import eventually
from tests.flows.processes import beat, environment, worker
from tests.world import ADA, World

BOB = "bob@example.com"
RATE = 5
KEYS = 60


def test_a_plan_survives_a_killed_worker_and_keeps_its_pace(
    database_url: str, broker_url: str, secrets_dir: Path, tmp_path: Path
) -> None:
    env = environment(
        database_url,
        broker_url,
        secrets_dir,
        KEYTURN_MAIL_CHANNEL="maildir",
        KEYTURN_MAILDIR=str(tmp_path / "mail"),
        KEYTURN_OPERATIONS_EVERY="1s",
        KEYTURN_BULK_RATE=str(RATE),
    )
    with Operator(database_url, secrets_dir=secrets_dir) as operator:
        keys = _keys(operator)
        plan = operator.operations.plan(Selection(everything=True))
        name = str(plan.id)
        assert (plan.keys, plan.owners, plan.waves) == (KEYS, 2, 3)
        with worker(env, "w1"), beat(env):
            doomed = worker(env, "w2")
            dying = doomed.__enter__()
            operator.operations.apply(name)
            eventually(lambda: operator.operations.find(name).issued >= 20, within=120)
            os.kill(dying.pid, signal.SIGKILL)
            dying.wait(timeout=15)
            eventually(lambda: operator.operations.find(name).ended, within=180, every=0.5)
            eventually(lambda: len(_letters(tmp_path)) >= 6, within=60)
        found = operator.operations.find(name)
        assert (found.state, found.issued, found.skipped, found.failed) == ("completed", KEYS, 0, 0)
        rotations = _rows(operator, "SELECT old_key_id, issued_at FROM keyturn.rotations")
        assert Counter(row["old_key_id"] for row in rotations) == Counter(keys)
        moments = sorted(row["issued_at"] for row in rotations)
        assert min(b - a for a, b in pairwise(moments)) >= timedelta(seconds=1 / RATE)
        seconds = Counter(int((one - moments[0]).total_seconds()) for one in moments)
        assert max(seconds.values()) <= RATE
        assert Counter(_letters(tmp_path)) == {ADA: 3, BOB: 3}


def _keys(operator: Operator) -> list[UUID]:
    world = World(operator.database, peppers=operator.keyring.peppers)
    for email in (ADA, BOB):
        world.account(email)
    return [world.key(email)[0] for _ in range(KEYS // 2) for email in (ADA, BOB)]


def _rows(operator: Operator, sql: str) -> list[Any]:
    with operator.database.begin() as tx:
        return list(tx.rows(sql))


def _letters(tmp_path: Path) -> list[str]:
    """To whom mails about new keys went."""
    files = (tmp_path / "mail" / "new").glob("*")
    mails = [message_from_bytes(file.read_bytes()) for file in files]
    return [str(one["To"]) for one in mails if "being rotated" in str(one["Subject"])]
