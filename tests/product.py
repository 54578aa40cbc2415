"""A stranger's environment: the library as it is shipped, as the package `keyturn`."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from worker.embedded.home import PROJECT


def make(place: Path) -> Path:
    """A Python with the library installed, our dependencies, and nothing else of Keyturn."""
    venv.create(place / "venv", with_pip=False)
    python = place / "venv" / "bin" / "python"
    site = next((place / "venv" / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    copy = shutil.copytree(  # building writes into the source
        PROJECT / "models", place / "source", ignore=shutil.ignore_patterns("build", "*.egg-info")
    )
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([*pip, *offline, str(copy)], check=True)
    return python
