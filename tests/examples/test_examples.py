"""The examples do what they show, with the library as it is shipped, on the real database."""

import os
import subprocess
from pathlib import Path

import pytest

from models import TimeUnit, roles
from models.keyring import Keyring
from models.operator import Operator
from tests import product
from tests.servers import free_port
from tests.world import ADA, ROLES
from worker.embedded.home import PROJECT

EXAMPLES = ("fastapi", "django")
BOB = "bob@example.com"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a product runs by."""
    return product.make(tmp_path_factory.mktemp("product"))


def told(
    python: Path, example: str, url: str, secrets: Path, *story: str
) -> subprocess.CompletedProcess[str]:
    """Tell an example a story; whatever it says."""
    places = [PROJECT / "examples" / example, PROJECT / "tests" / "examples"]
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, places)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "KEYTURN_DATABASE_URL": url,
        "KEYTURN_SECRETS_DIR": str(secrets),
    }
    run = [str(python), str(PROJECT / "tests" / "examples" / f"drive_{example}.py"), *story]
    return subprocess.run(
        run, cwd=secrets, env=env, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_key_lives_its_life(
    python: Path, example: str, database_url: str, secrets_dir: Path
) -> None:
    keyring = Keyring.from_directory(secrets_dir)
    with Operator(database_url, keyring=lambda: keyring) as operator:
        operator.database.run(lambda tx: roles.sync(tx, ROLES))
        for email in (ADA, BOB):
            operator.create_account(email, "member")
        made = [
            operator.create_api_key("first", email, role, 30, TimeUnit.DAY)
            for email, role in ((ADA, "member"), (ADA, "viewer"), (BOB, "viewer"))
        ]
    member, viewer = (one.text.reveal() for one in made[:2])
    done = told(
        *(python, example, database_url, secrets_dir), "whole", member, viewer, str(made[2].id)
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "told\n"
    assert member not in done.stderr + done.stdout


@pytest.mark.parametrize("example", EXAMPLES)
def test_nobody_comes_in_where_the_database_is_away(
    python: Path, example: str, secrets_dir: Path
) -> None:
    from models.key_text import mint

    url = f"postgresql://keyturn@127.0.0.1:{free_port()}/keyturn"
    done = told(python, example, url, secrets_dir, "away", mint("kt").reveal())
    assert done.returncode == 0, done.stderr
    assert done.stdout == "told\n"
