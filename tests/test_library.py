"""A stranger's product, with a package of its own named `models`, uses the library `keyturn`."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests import product
from worker.embedded.home import PROJECT

PRODUCT = """
import sys
import models
assert models.__file__ == {models!r}, models.__file__
assert models.WHOSE == "the product's own"

import keyturn
from keyturn import Client, Refused
assert "/site-packages/keyturn/" in keyturn.__file__, keyturn.__file__
assert not any(name.startswith("models.") for name in sys.modules)

from keyturn import migrations
migrations.upgrade({empty!r})

client = Client({url!r})
try:
    client.create_api_key(name="", user="", role="", validity=1, time_unit="day")
except Refused as refusal:
    print("refused:", refusal.code)
print("verdict:", bool(client.verify("kt_no-such-key")))
client.close()
"""


def packages_of_the_library() -> set[str]:
    """Each directory of `models` that holds code, by its name in a product."""
    root = PROJECT / "models"
    places = {path.parent.relative_to(root) for path in root.rglob("*.py")}
    return {".".join(("keyturn", *place.parts)) for place in places if "build" not in place.parts}


@pytest.fixture(scope="module")
def product_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a product runs by."""
    return product.make(tmp_path_factory.mktemp("product"))


def test_a_product_with_models_of_its_own_uses_the_library(
    product_python: Path, tmp_path: Path, database_url: str, empty_database_url: str
) -> None:
    own = tmp_path / "models" / "__init__.py"
    own.parent.mkdir()
    own.write_text('WHOSE = "the product\'s own"\n')
    (tmp_path / "product.py").write_text(
        PRODUCT.format(models=str(own), url=database_url, empty=empty_database_url)
    )
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = [str(product_python), "product.py"]
    done = subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["refused: name_empty", "verdict: False"]


def test_the_library_is_shipped_whole() -> None:
    shipped = tomllib.loads((PROJECT / "models" / "pyproject.toml").read_text())
    assert set(shipped["tool"]["setuptools"]["packages"]) == packages_of_the_library()


def test_the_library_asks_for_no_other_versions_than_the_worker() -> None:
    worker = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    library = tomllib.loads((PROJECT / "models" / "pyproject.toml").read_text())["project"]
    assert set(library["dependencies"]) <= set(worker["dependencies"])
    assert library["version"] == worker["version"]


def test_the_worker_is_never_published() -> None:
    worker = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert "Private :: Do Not Upload" in worker["classifiers"]


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-test.lock"])
def test_a_lock_names_no_host_and_has_a_hash_for_everything(lock: str) -> None:
    text = (PROJECT / lock).read_text()
    assert "://" not in text
    requirements = text.replace("\\\n", " ").splitlines()
    assert len(requirements) > 40
    assert all("==" in line and "--hash=sha256:" in line for line in requirements)


def test_the_lock_of_the_tests_contains_the_other() -> None:
    def pinned(name: str) -> set[str]:
        lines = (PROJECT / name).read_text().splitlines()
        return {line.split()[0] for line in lines if "==" in line}

    assert pinned("requirements.lock") < pinned("requirements-test.lock")
