"""The secrets that the domain needs: peppers for digests and keys for sealing."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, text

from .errors import Misconfigured
from .key_text import Peppers
from .sealing import Sealer
from .secret_files import read_versioned


@dataclass(frozen=True)
class Keyring:
    """Peppers and key-encryption keys, each by version."""

    peppers: Peppers
    sealer: Sealer

    @classmethod
    def from_directory(cls, directory: Path) -> "Keyring":
        """Read `pepper-N` and `kek-N`; Misconfigured where one is missing, short or not private."""
        return cls(
            Peppers(read_versioned(directory, "pepper")), Sealer(read_versioned(directory, "kek"))
        )

    @classmethod
    def known_to(cls, engine: Engine) -> "Keyring":
        """Read them where the database says that they lie (`make run` sets that)."""
        with engine.connect() as connection:
            found = connection.scalar(text("SELECT current_setting('keyturn.secrets_dir', true)"))
        if not found:
            raise Misconfigured(
                "the peppers are missing: pass Client(..., secrets_dir=...) with the directory "
                "that the worker reads (KEYTURN_SECRETS_DIR; files pepper-1 and kek-1)"
            )
        return cls.from_directory(Path(found))
