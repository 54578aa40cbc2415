"""Every measure runs, and both of its sides do the same work. How long that takes is not tested."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import psycopg
import pytest

from bench import cascade, idle, one_by_one, report, rotating, sweep, verify
from bench.__main__ import MEASURES
from bench.rounds import Figures, interleave
from bench.servers import Servers
from bench.settling import Settling, check
from bench.sizes import Sizes
from models import invariants
from worker.embedded.home import Home
from worker.embedded.postgres import Postgres
from worker.embedded.valkey import Valkey

ID_OR_TIME = re.compile(r'"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"|"20\d\d-[^"]*[+]00:00"')
TINY = Sizes(
    rounds=1,
    slow_rounds=1,
    keys=600,  # two pages
    task_keys=20,
    accounts=20,
    keys_an_account=3,
    noop_tasks=50,
    denials=2,
    rotations=5,
    bulk_keys=60,
    few_keys=2_000,
    very_many_keys=4_000,
    mass=600,
    urgent_every=0.02,
    few_settled=100,
    very_many_settled=1_000,
    few_events=20,
    many_events=40,
)


@pytest.fixture
def servers(servers_home: Home, postgres: Postgres, valkey: Valkey, secrets_dir: Path) -> Servers:
    return Servers(servers_home, postgres, valkey, secrets_dir)


def written(url: str, found: list[object], pages: bool = True) -> None:
    """Add what is in the tables that settling writes, without what is random or a time."""
    with psycopg.connect(url) as connection:
        read = connection.execute
        found.append(
            [
                read("SELECT id, status, version FROM keyturn.api_keys ORDER BY id").fetchall(),
                read(
                    "SELECT actor, action, account_id, key_id, version, before, after, why"
                    " FROM keyturn.audit WHERE version > 1 ORDER BY key_id"
                ).fetchall(),
                read(
                    "SELECT channel, kind, priority, account_id, state, payload"
                    " FROM keyturn.outbox ORDER BY account_id, payload"
                    if pages
                    else "SELECT channel, kind, priority, account_id, state, key"
                    " FROM keyturn.outbox, jsonb_array_elements(payload->'key_ids') AS key"
                    " ORDER BY key"
                ).fetchall(),
            ]
        )


@pytest.mark.parametrize(
    ("settling", "fill"),
    [
        (cascade.cascade(TINY.keys), partial(cascade.fill, keys=TINY.keys)),
        (sweep.sweep(TINY.keys), partial(sweep.fill, keys=TINY.keys, each=TINY.keys_of_one)),
    ],
    ids=["cascade", "sweep"],
)
def test_settling_writes_what_the_raw_statement_writes(
    servers: Servers, settling: Settling, fill: Callable[[psycopg.Connection], None]
) -> None:
    found: list[object] = []
    both = replace(settling, after=lambda url, keys: written(url, found))
    with servers.seed(fill) as seed:
        both.ours(servers, seed)
        both.raw(servers, seed)
    ours, raw = found
    assert ours == raw


ROTATED = """
    SELECT 'api_keys', to_jsonb(k) - 'digest' FROM keyturn.api_keys k
        WHERE EXISTS (SELECT FROM keyturn.rotations WHERE k.id IN (old_key_id, new_key_id))
    UNION ALL SELECT 'key_uses', to_jsonb(u) FROM keyturn.key_uses u
        WHERE EXISTS (SELECT FROM keyturn.rotations WHERE key_id IN (old_key_id, new_key_id))
    UNION ALL SELECT 'audit', to_jsonb(e) - 'id' - 'transaction_id' FROM keyturn.audit e
        WHERE actor <> 'bench'
    UNION ALL SELECT 'outbox', to_jsonb(m) FROM keyturn.outbox m
    UNION ALL SELECT 'holds', to_jsonb(h) FROM keyturn.holds h
    UNION ALL SELECT 'rotations', to_jsonb(r) FROM keyturn.rotations r
    UNION ALL SELECT 'hand_overs', to_jsonb(o) FROM keyturn.hand_overs o
"""
NAMES = """
    SELECT r.id, 'the rotation', r.old_key_id, 'the old key', r.new_key_id, 'the new key',
        k.hint, '"its hint"'
    FROM keyturn.rotations r JOIN keyturn.api_keys k ON k.id = r.new_key_id
"""


def rotated(url: str) -> list[tuple[str, str]]:
    """All that one rotation has written, with names for ids; any other id or time is `*`."""
    with psycopg.connect(url) as connection:
        names = [str(one) for one in connection.execute(NAMES).fetchone() or ()]
        names[-2] = json.dumps(names[-2])
        rows = [(table, json.dumps(row)) for table, row in connection.execute(ROTATED)]
    for text, name in zip(names[::2], names[1::2], strict=True):
        rows = [(table, row.replace(text, name)) for table, row in rows]
    return sorted((table, ID_OR_TIME.sub('"*"', row)) for table, row in rows)


def test_rotating_writes_what_the_raw_statements_write(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    monkeypatch.setattr(rotating, "check", lambda url, _: found.append(rotated(url)))
    work = rotating.Rotating(servers, 1)
    with servers.seed(work.fill) as seed:
        work.ours(seed)
        work.raw(seed)
    ours, raw = found
    assert raw == ours
    assert len(ours) == 2 + 2 + 9 + 5 + 1 + 1


def test_a_task_for_each_key_writes_the_same_rows_in_pages_of_one(servers: Servers) -> None:
    found: list[object] = []

    def after(url: str, keys: int) -> None:
        written(url, found, pages=False)

    keys = TINY.task_keys
    with servers.seed(partial(cascade.fill, keys=keys)) as seed:
        replace(cascade.cascade(keys), after=after).ours(servers, seed)
        one_by_one.Disabling(servers, seed, keys, after).rate()
    ours, tasks = found
    assert ours == tasks


def test_work_left_undone_earns_no_figure(servers: Servers) -> None:
    with (
        servers.seed(partial(cascade.fill, keys=100)) as seed,
        servers.copy(seed) as url,
        pytest.raises(RuntimeError, match="100 keys were to settle"),
    ):
        check(url, 100)


def test_a_use_that_is_not_recorded_earns_no_figure(servers: Servers) -> None:
    with (
        servers.seed(partial(cascade.fill, keys=100)) as seed,
        servers.copy(seed) as url,
        pytest.raises(RuntimeError, match="100 uses were to be recorded"),
    ):
        verify.check(url, 100)


def test_the_population_that_lies_idle_keeps_every_promise(servers: Servers) -> None:
    with (
        servers.seed(partial(idle.fill, keys=4_000)) as seed,
        servers.runtime(servers.postgres.url(seed)) as runtime,
    ):
        assert invariants.check(runtime.database, runtime.policy, full=True) == []


def test_a_sweep_asks_no_account(servers: Servers) -> None:
    with (
        servers.seed(partial(idle.fill, keys=2_000)) as seed,
        servers.runtime(servers.postgres.url(seed)) as runtime,
        runtime.database.connect_autocommit() as other,
        other.transaction(),
    ):
        other.execute("LOCK TABLE keyturn.accounts IN ACCESS EXCLUSIVE MODE")
        assert idle.seconds_of(idle.SWEEP, runtime) > 0


def test_a_run_that_finds_something_is_no_idle_run(servers: Servers) -> None:
    with (
        servers.seed(partial(sweep.fill, keys=200, each=100)) as seed,
        servers.runtime(servers.postgres.url(seed)) as runtime,
        pytest.raises(RuntimeError, match="was to find nothing, and found 200"),
    ):
        idle.seconds_of(idle.SWEEP, runtime)


@pytest.mark.parametrize("name", list(MEASURES))
def test_every_measure_runs(servers: Servers, name: str) -> None:
    found = MEASURES[name](servers, TINY)
    assert found.ratios
    figures = [*found.ratios.values(), *found.rates.values()]
    assert all(math.isfinite(figure) and figure >= 0 for figure in figures)
    assert all(ratio > 0 for ratio in found.ratios.values())
    assert found.ratios.keys() <= {*report.LEAST, *report.MOST, *report.REPORTED}


def test_each_side_of_a_round_comes_in_its_turn() -> None:
    turns: list[str] = []

    def side(name: str, figures: list[float]) -> float:
        turns.append(name)
        return figures.pop()

    ours, raw = [3.0, 1.0, 2.0], [6.0, 4.0, 5.0]
    found = interleave(3, {"a": lambda: side("a", ours), "b": lambda: side("b", raw)})
    assert turns == ["a", "b"] * 3
    assert found == {"a": 2.0, "b": 5.0}


def test_the_file_for_programs(tmp_path: Path) -> None:
    figures = Figures({"sweep_vs_raw_sql": 0.69, "deny_latency_vs_floor": 30.0}, {"x": 1.234})
    report.write(tmp_path / "results.json", figures, {"cores": 2})
    assert json.loads((tmp_path / "results.json").read_text()) == {
        "ratios": {"sweep_vs_raw_sql": 0.69, "deny_latency_vs_floor": 30.0},
        "rates": {"x": 1.23},
        "machine": {"cores": 2},
    }
    assert report.missed(figures) == ["sweep_vs_raw_sql"]
    assert report.missed(Figures(rates={"cascade_peak_mb_over_idle": 51.0})) != []
    assert report.missed(Figures({"outbox_1m_vs_10k": 1.6})) == ["outbox_1m_vs_10k"]
    assert report.missed(Figures({"outbox_1m_vs_10k": 1.4, "sweep_vs_raw_sql": 0.71})) == []
