"""Without beat, workers tick by themselves: what is due is done, a little later."""

from pathlib import Path

from models import TimeUnit
from models.operator import Operator
from tests.eventually import eventually
from tests.flows.processes import environment, worker
from tests.world import ADA, World


def test_a_key_expires_and_its_status_follows_though_no_beat_runs(
    database_url: str, broker_url: str, secrets_dir: Path
) -> None:
    with Operator(database_url) as operator:
        World(operator.database).account()
        key = operator.create_api_key("short", ADA, "viewer", 60, TimeUnit.SECOND)
        with operator.database.begin() as tx:
            tx.execute(
                "UPDATE keyturn.api_keys SET created_at = created_at - interval '1 hour', "
                "expires_at = expires_at - interval '1 hour'"
            )
        assert operator.verify(key.text.reveal()).reason == "expired"  # nobody had to do anything
        with worker(environment(database_url, broker_url, secrets_dir)):
            eventually(lambda: operator.key(str(key.id)).status == "expired")
