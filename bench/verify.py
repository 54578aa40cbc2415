"""`verify` of very many different keys, one after the other, with recording on."""

from collections.abc import Sequence

import psycopg

from models import Client, Keyring
from models.key_text import digest, mint

from . import seeds
from .rounds import Figures, interleave, timed
from .servers import Servers
from .sizes import Sizes

BARE = """
    SELECT id, account_id, role, allowed_ips, held, status, expires_at, deleted_at
    FROM keyturn.api_keys WHERE digest = %(digest)s
"""
"""What `verify` reads of the key's own row, by the unique index: no account, no role, no rule."""


def measure(servers: Servers, sizes: Sizes) -> Figures:
    """The library's `verify` against the bare look-up, each key once."""
    peppers = Keyring.from_directory(servers.secrets).peppers
    texts = [mint("kt").reveal() for _ in range(sizes.keys)]
    digests = [digest(text, peppers[peppers.current]) for text in texts]

    def fill(connection: psycopg.Connection) -> None:
        seeds.begin(connection)
        accounts = max(1, sizes.keys // sizes.keys_an_account)
        seeds.add(connection, accounts=accounts, each=sizes.keys_an_account, digests=digests)
        seeds.finish(connection)

    with servers.seed(fill) as seed:
        found = interleave(
            sizes.rounds,
            {
                "ours": lambda: ours(servers, seed, texts),
                "bare": lambda: bare(servers, seed, digests),
                "reusing": lambda: bare(servers, seed, digests, reuse=True),
            },
        )
    return Figures(
        {"verify_vs_bare_select": found["ours"] / found["bare"]},
        {
            "verify_per_second": found["ours"],
            "bare_select_per_second": found["bare"],
            "bare_select_reusing_its_cursor_per_second": found["reusing"],
        },
    )


def ours(servers: Servers, seed: str, texts: Sequence[str]) -> float:
    """Keys a second by `Client.verify`, until every use is recorded."""
    with servers.copy(seed) as url, Client(url, secrets_dir=servers.secrets) as client:
        client.verify(texts[0], record=False)  # connected
        with timed() as timer:
            for text in texts:
                if not client.verify(text):
                    raise RuntimeError("a key that works was refused")
            client.flush_uses()
        check(url, len(texts))
    return len(texts) / timer.seconds


def bare(servers: Servers, seed: str, digests: Sequence[bytes], reuse: bool = False) -> float:
    """Rows a second by the same driver, on one open connection.

    With a cursor for each look-up, as one writes it; or, with `reuse`, with one for all.
    """
    with servers.copy(seed) as url, psycopg.connect(url, autocommit=True) as connection:
        only = connection.cursor(binary=True)
        with timed() as timer:
            for one in digests:
                cursor = only if reuse else connection.cursor()
                cursor.execute(BARE, {"digest": one})
                if cursor.fetchone() is None:
                    raise RuntimeError("a key was not found")
    return len(digests) / timer.seconds


def check(url: str, keys: int) -> None:
    """Raise unless each use was recorded, once."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT count(*) FROM keyturn.key_uses WHERE uses = 1 AND last_used_at IS NOT NULL"
        ).fetchone()
    if found != (keys,):
        raise RuntimeError(f"{keys} uses were to be recorded, and {found} were")
