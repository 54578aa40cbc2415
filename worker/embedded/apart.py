"""The environment of a Keyturn that shares nothing with the one that its user may have."""

import os
import sys
from pathlib import Path
from typing import Final

PREFIX: Final = "KEYTURN_"
KEPT: Final = ("KEYTURN_PG_BIN",)  # names programs, not data


def apart(data_dir: Path, config: Path) -> dict[str, str]:
    """This process's environment, with a data directory and a file of settings of its own.

    No other setting of Keyturn's is passed on. Where Python may not keep its compiled code (every
    process would compile all of it anew) it is kept beside the data.
    """
    given = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(PREFIX) or name in KEPT
    }
    if sys.dont_write_bytecode:
        given.pop("PYTHONDONTWRITEBYTECODE", None)
        given["PYTHONPYCACHEPREFIX"] = str(data_dir.parent / "compiled")
    return given | {f"{PREFIX}DATA_DIR": str(data_dir), f"{PREFIX}CONFIG": str(config)}
