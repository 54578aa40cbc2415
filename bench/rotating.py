"""Keys are rotated, each from the request to the end, with nothing to wait for on the way.

One client asks, claims and uses, one after the other; then the flow ends all of them. Beside it
the same rows are written by one who knows what to write: nothing is read, nothing is checked.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import Final

import psycopg

from models import Client, Keyring
from models.identity import new_id
from models.key_text import digest, hint, mint
from models.policy import Policy
from models.recording import Use
from models.rotation_policy import DEFAULT, RotationPolicy
from tasks import flows, run

from . import raw_rotation, seeds
from .rounds import Figures, interleave, timed
from .servers import Servers
from .sizes import Sizes

NOW: Final = timedelta(0)
POLICY: Final = Policy(
    rotation_overlap=NOW,
    rotation_quiet=NOW,
    undo_for=NOW,
    rotation_policies={DEFAULT: RotationPolicy()},  # known to both: no worker is asked for them
)


def measure(servers: Servers, sizes: Sizes) -> Figures:
    """The library's verbs and the flow against the writes alone."""
    rotating = Rotating(servers, sizes.rotations)
    with servers.seed(rotating.fill) as seed:
        found = interleave(
            sizes.rounds,
            {"ours": partial(rotating.ours, seed), "raw": partial(rotating.raw, seed)},
        )
    return Figures(
        {"rotation_vs_raw_sql": found["ours"] / found["raw"]},
        {
            "rotations_per_second": found["ours"],
            "rotation_raw_sql_per_second": found["raw"],
        },
    )


@dataclass(frozen=True)
class Rotating:
    """So many keys, each of an account of its own."""

    servers: Servers
    keys: int

    @cached_property
    def texts(self) -> Sequence[str]:
        """What their holders have."""
        return [mint("kt").reveal() for _ in range(self.keys)]

    def fill(self, connection: psycopg.Connection) -> None:
        """The keys, and as many others that stand by; their ids are later ones."""
        peppers = Keyring.from_directory(self.servers.secrets).peppers
        digests = [digest(text, peppers[peppers.current]) for text in self.texts]
        seeds.begin(connection)
        seeds.add(connection, accounts=self.keys, each=1, digests=digests)
        seeds.add(connection, first=seeds.BYSTANDERS, accounts=self.keys, each=1)
        seeds.finish(connection)

    def ours(self, seed: str) -> float:
        """Rotations a second by `rotate`, `claim`, `report_use` and the flow."""
        with (
            self.servers.copy(seed) as url,
            Client(url, secrets_dir=self.servers.secrets, policy=POLICY) as client,
            self.servers.runtime(url, POLICY) as runtime,
        ):
            client.verify(self.texts[0], record=False)  # connected
            with timed() as timer:
                for text in self.texts:
                    client.rotate(text)
                    claimed = client.claim(text)
                    client.report_use([Use(claimed.key_id, datetime.now(UTC))])
                run(flows()["rotations.advance"], runtime)
            check(url, self.keys)
        return self.keys / timer.seconds

    def raw(self, seed: str) -> float:
        """The same on an open connection, in as many transactions.

        What ends a batch is sent statement by statement for all of its rotations: the driver does
        not wait for an answer to each.
        """
        with self.servers.copy(seed) as url, closing(psycopg.connect(url)) as connection:
            rows = connection.execute(raw_rotation.KEYS, [self.keys]).fetchall()
            connection.commit()
            work = [_successor(*row) for row in rows]
            with timed() as timer:
                for one in work:
                    for part in (raw_rotation.REQUEST, raw_rotation.CLAIM, raw_rotation.USE):
                        _write(connection, part, one)
                        connection.commit()
                for start in range(0, len(work), raw_rotation.BATCH):
                    batch = work[start : start + raw_rotation.BATCH]
                    for statement in raw_rotation.END:
                        connection.cursor().executemany(statement.encode(), batch)
                    connection.commit()
            check(url, self.keys)
        return self.keys / timer.seconds


def _successor(
    account: object, key: object, name: str, old_hint: str, ends: datetime, email: str
) -> dict[str, object]:
    """What is to be written of one rotation: made beforehand, ids, digest and sealed text too."""
    text = mint("kt").reveal()
    made = {"new": new_id(), "rotation": new_id(), "hold": new_id(), "box": bytes(80)}
    ids = {f"message_{number}": new_id() for number in range(5)}
    old = {"account": account, "old": key, "name": name, "old_hint": old_hint, "ends": ends}
    new = {"digest": digest(text, b"p" * 32), "hint": hint(text), "email": email}
    return {**old, **new, **made, **ids}


def _write(
    connection: psycopg.Connection, statements: Sequence[str], values: dict[str, object]
) -> None:
    for statement in statements:
        connection.execute(statement.encode(), values)


def check(url: str, keys: int) -> None:
    """Raise unless so many rotations are completed, with all that is written of them."""
    with psycopg.connect(url) as connection:
        rows: list[tuple[str, int]] = connection.execute(raw_rotation.WRITTEN).fetchall()
    found = dict(rows)
    if found != dict.fromkeys(raw_rotation.EACH, keys):
        raise RuntimeError(f"{keys} keys were to be rotated, with a row of each; found {found}")
