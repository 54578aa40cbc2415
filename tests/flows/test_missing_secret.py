"""A pepper that stored keys need is missing: told at the start, and disabling goes on."""

from pathlib import Path

from models import secret_files
from models.operator import Operator
from tests.eventually import eventually
from tests.flows.processes import environment
from tests.flows.releases import Release
from tests.flows.stack import ROOT
from tests.world import ADA, World


def test_the_worker_alarms_and_cuts_off_all_the_same(
    database_url: str, broker_url: str, secrets_dir: Path, tmp_path: Path
) -> None:
    with Operator(database_url, secrets_dir=secrets_dir) as operator:
        World(operator.database).account()
        key = operator.create_api_key("old", ADA, "viewer", 8_000_000)
        waiting = operator.create_api_key("waiting", ADA, "viewer", 8_000_000)
        operator.rotate(waiting.id)
        lost = tmp_path / "secrets"
        for name in secret_files.NAMES:
            secret_files.make(lost, name).rename(lost / f"{name}-2")
        settings = environment(database_url, broker_url, lost)
        release = Release(ROOT, settings, tmp_path)
        with release.services("lost") as log:
            eventually(lambda: '"secret_missing"' in log.read_text(), within=60)
            told = log.read_text()
            assert '"missing": ["pepper-1", "kek-1"]' in told
            assert operator.disable_account(ADA, reason="a test")
            eventually(lambda: operator.key(str(key.id)).status == "disabled", within=60)
