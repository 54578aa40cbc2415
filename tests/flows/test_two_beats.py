"""Two beats over three slots: one notice, and no second audit row (rule 6.4)."""

from datetime import datetime, timedelta
from email import message_from_bytes
from pathlib import Path

from models import Client, TimeUnit
from models.operator import Operator
from tests.eventually import eventually
from tests.flows.processes import beat, environment, worker
from tests.world import ADA, World
from worker.schedule import TICK


def test_two_beats_over_three_slots_give_one_notice_and_no_second_audit_row(
    database_url: str, broker_url: str, secrets_dir: Path, tmp_path: Path
) -> None:
    env = environment(
        database_url,
        broker_url,
        secrets_dir,
        KEYTURN_MAIL_CHANNEL="maildir",
        KEYTURN_MAILDIR=str(tmp_path / "mail"),
        KEYTURN_NOTICE_THRESHOLDS="60s",
    )
    with Operator(database_url) as operator:
        World(operator.database).account()
        with worker(env), beat(env), beat(env):
            first = eventually(lambda: slot(operator))
            key = operator.create_api_key("short", ADA, "viewer", 120, TimeUnit.SECOND)
            make_due(operator)
            seen = {first}
            while len(seen) < 4:  # the slot it began in and three whole ones
                eventually(lambda: slot(operator) not in seen)
                seen.add(slot(operator))
            eventually(lambda: operator.key(str(key.id)).status == "expired", within=120)
            eventually(lambda: len(subjects(tmp_path)) >= len(ENDED))
            told_in = slot(operator)  # nothing more comes of a whole one after it
            eventually(lambda: slot(operator) > told_in + timedelta(seconds=3))
        assert subjects(tmp_path) == ENDED
        with operator.database.begin() as tx:
            rows = tx.rows("SELECT threshold_seconds, state FROM keyturn.notices ORDER BY 1")
            audited = tx.execute(
                "SELECT action FROM keyturn.audit WHERE key_id = :key ORDER BY version", key=key.id
            )
            assert list(audited.scalars()) == ["key.created", "key.expired"]
        assert [(row["threshold_seconds"], row["state"]) for row in rows] == [
            (0, "sent"),
            (60, "sent"),
        ]


ENDED = ["Your API key expires in 1 minute or less", "Your API key has expired"]


def subjects(tmp_path: Path) -> list[str]:
    """What the mails are about, in the order in which they came."""
    files = sorted((tmp_path / "mail" / "new").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    return [str(message_from_bytes(file.read_bytes())["Subject"]) for file in files]


def make_due(client: Client) -> None:
    """Let the key have 50 seconds left of its two minutes: past its threshold of 60."""
    with client.database.begin() as tx:
        tx.execute(
            "UPDATE keyturn.api_keys SET created_at = created_at - interval '70 s', "
            "expires_at = expires_at - interval '70 s'"
        )


def slot(operator: Operator) -> datetime:
    """When the schedule last ticked."""
    [tick] = [run for run in operator.status().runs if run.job == TICK]
    assert tick.started_at is not None
    return tick.started_at
