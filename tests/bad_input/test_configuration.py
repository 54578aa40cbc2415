"""Settings, files and servers that are wrong: no process starts, and each line says the mend.

What each setting accepts is in `tests/worker/test_settings.py`; here is what the whole gets.
"""

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import Misconfigured
from tests.bad_input.inlet import examples
from tests.bad_input.processes import PROJECT, keyturn
from tests.flows.processes import environment
from worker.setting_fields import Fields
from worker.settings import load_settings
from worker.settings_file import TABLES

NAMES = sorted(field.alias or name for name, field in Fields.model_fields.items())
CANARY = "hush-hush"


@pytest.fixture(autouse=True)
def place(no_settings: Path) -> Path:
    """Where every test here finds nothing set."""
    return no_settings


def refusal() -> str:
    with pytest.raises(Misconfigured) as raised:
        load_settings()
    return str(raised.value)


FILES: dict[str, tuple[bytes, str]] = {
    "a byte order mark": (b"\xef\xbb\xbfkey_prefix = 'kt'\n", "begins with a byte order mark"),
    "UTF-16": ("key_prefix = 'kt'\n".encode("utf-16"), "it is not UTF-8"),
    "Latin-1": ("key_prefix = 'é'\n".encode("latin-1"), "it is not UTF-8"),
    "binary": (bytes(range(256)), "cannot be read"),
    "NUL": (b"key_prefix = 'k\0t'\n", "is not TOML"),
    "syntax": (b"key_prefix = \n", "is not TOML"),
    "JSON": (b'{"key_prefix": "kt"}', "is not TOML"),
    "YAML": (b"key_prefix: kt\n", "is not TOML"),
    "twice": (b"lease='3m'\nlease='4m'\n", "is not TOML"),
    "unknown table": (b"[nosuch.x]\na = 1\n", "nosuch: there is no such setting"),
    "unknown member": (b"[sources.hr]\nprovider='native'\nstream='x'\nkey=1\n", "[sources.hr] key"),
    "a text for a table": (b"sources = 'x'\n", "valid dictionary"),
    "a table for a text": (b"[key_prefix]\nx = 1\n", "key_prefix"),
    "nesting of 5,000": (b"a = " + b"[" * 5000 + b"]" * 5000, "nesting too large"),
    "5,000 digits": (b"concurrency = " + b"9" * 5000, "a number"),
    "NaN": (b"notice_last_share = nan\n", "notice_last_share"),
    "infinity": (b"concurrency = inf\n", "concurrency"),
    "a date": (b"lease = 2026-11-23\n", "lease"),
    "a path with a NUL": (b'secrets_dir = "a\\u0000b"\n', "control character"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_wrong(name: str) -> None:
    content, said = FILES[name]
    Path("keyturn.toml").write_bytes(content)
    told = refusal()
    assert "keyturn.toml" in told
    assert said in told


def a_directory(path: Path) -> None:
    path.mkdir()


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("make", [a_directory, a_link_to_itself])
def test_what_is_no_file(place: Path, make: Callable[[Path], None]) -> None:
    make(place / "keyturn.toml")
    assert "cannot be read" in refusal()


VALUES: dict[str, tuple[str, str, str]] = {
    "a home of nobody": ("DATA_DIR", "~nosuchuser/x", "home directory of nobody"),
    "a home of nobody for the file": ("CONFIG", "~nosuchuser/x", "home directory of nobody"),
    "a port as text": ("DATABASE_URL", f"postgresql://u:{CANARY}@h:abc/x", "not a PostgreSQL URL"),
    "two signs": ("DATABASE_URL", f"postgresql://u:a@{CANARY}@h/x", "%40"),
    "a source of two lines": ("EVENT_SOURCE", "a\nb", "newline"),
    "a quote as sender": ("MAIL_FROM", '"', "not one address"),
    "a bracket as sender": ("MAIL_FROM", "a@[b", "not one address"),
    "an angle as sender": ("MAIL_FROM", "<", "not one address"),
    "a header as sender": ("MAIL_FROM", "a@b.c\r\nBcc: d@e.f", "newline"),
    "NaN": ("NOTICE_LAST_SHARE", "nan", "less than 1"),
    "5,000 digits": ("CONCURRENCY", "9" * 5000, "integer"),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_that_is_wrong(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    setting, value, said = VALUES[name]
    monkeypatch.setenv(f"KEYTURN_{setting}", value)
    told = refusal()
    assert told.startswith("a setting is wrong:\n")
    assert said in told
    assert CANARY not in told


@pytest.mark.parametrize("name", [name for name in NAMES if name not in TABLES])
def test_set_but_empty(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for value in ("", " \t"):
        monkeypatch.setenv(f"KEYTURN_{name.upper()}", value)
        assert "is set but empty" in refusal()


def test_any_value_of_any_setting(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    words = st.sampled_from(
        ["~x", "/", "..", "1", "-1", "1e9", "7d", "7x", "nan", "true", "[]", "{}", '"', "<>", "@",
         "a@b", "a@[", "redis://", "amqps://[::1", "postgresql://@:/", "smtp://x", "9" * 400]
    )  # fmt: skip
    text = words | st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)

    @settings(max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck))
    @given(given=st.dictionaries(st.sampled_from(NAMES), text, max_size=3), file=st.binary())
    def search(given: dict[str, str], file: bytes) -> None:
        (place / "keyturn.toml").write_bytes(file if len(file) % 2 else b"")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in given.items():
                patch.setenv(f"KEYTURN_{name.upper()}", value)
            with suppress(Misconfigured):
                load_settings()

    search()


# --- processes that must not start


def worker(env: dict[str, str]) -> tuple[int, str]:
    command = [sys.executable, "-m", "celery", "-A", "worker.main", "worker", "-P", "threads"]
    done = subprocess.run(
        command, cwd=PROJECT, env=env, capture_output=True, text=True, timeout=90, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [("maxmemory-policy", "allkeys-lru", "noeviction"), ("appendonly", "no", "yes")],
)
def test_a_worker_does_not_start_on_a_broker_that_throws_away_or_forgets(
    database_url: str, broker_url: str, secrets_dir: Path, name: str, wrong: str, right: str
) -> None:
    with redis.Redis.from_url(broker_url) as client:
        client.config_set(name, wrong)
        try:
            code, told = worker(environment(database_url, broker_url, secrets_dir))
        finally:
            client.config_set(name, right)
    assert code != 0
    assert f"{name} {right}" in told
    assert "Traceback" not in told


SECRETS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no pepper": (lambda path: (path / "pepper-1").unlink(), "pepper-1 is missing"),
    "no key-encryption key": (lambda path: (path / "kek-1").unlink(), "kek-1 is missing"),
    "short": (lambda path: (path / "pepper-1").write_bytes(b"short"), "too short"),
    "empty": (lambda path: (path / "kek-1").write_bytes(b""), "is empty"),
    "open to others": (lambda path: (path / "kek-1").chmod(0o644), "chmod 600"),
    "misnamed": (lambda path: (path / "kek-1").rename(path / "kek-one"), "no version"),
    "large": (lambda path: (path / "pepper-1").write_bytes(b"x" * 5000), "larger than"),
}


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_that_are_no_use(
    database_url: str, broker_url: str, place: Path, name: str
) -> None:
    spoil, said = SECRETS[name]
    directory = place / "secrets"
    directory.mkdir(mode=0o700)
    for one in ("pepper-1", "kek-1"):
        (directory / one).write_bytes(b"s" * 32)
        (directory / one).chmod(0o600)
    spoil(directory)
    env = environment(database_url, broker_url, directory)
    done = keyturn("keys", "verify", stdin=b"kt_x", more=env)
    assert done.code == 1
    assert said in done.err
    if name == "open to others":
        code, told = worker(env)
        assert code != 0
        assert said in told
