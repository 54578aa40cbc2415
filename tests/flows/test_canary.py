"""No secret comes to light: not in a log, a queue, a table, a mail, an error or a repr.

Everything is used and broken once, on real servers that write down all they are told; then every
place is searched for every secret, in every form. The same search finds a secret put there.
"""

import base64
import json
import pickle
import secrets
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import redis
from psycopg import sql

from models import secret_files
from models.key_text import mint
from models.operator import Operator
from models.sealing import BrokenSeal
from tests.eventually import eventually
from tests.flows import canary_sinks
from tests.flows.canaries import Canaries, Places, Wire
from tests.flows.canary_site import Site, accepts, refuses
from tests.flows.processes import environment
from tests.flows.releases import Release
from tests.flows.stack import ROOT
from tests.servers import FAST, free_port, temporary_home
from tests.worker.channels.outgoing import notice
from worker.app import make_app
from worker.channels.smtp import Smtp, SmtpServer
from worker.embedded.postgres import Postgres
from worker.embedded.valkey import Valkey
from worker.settings import Settings, load_settings

SOON: Final = 60.0
ADA, BOB = "ada@example.com", "bob@example.com"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Servers of its own, with passwords, whose PostgreSQL logs every statement."""
    with temporary_home() as home, ExitStack() as stack:
        postgres, valkey = Postgres(home, options={**FAST, **TALKATIVE}), Valkey(home)
        for server in (postgres, valkey):
            stack.callback(server.stop)
            server.start()
        canaries = Canaries()
        database_url = with_password(postgres, canaries)
        canaries.add("broker password", valkey.url().partition(":@")[0] or valkey.url())
        canaries.add("broker password", valkey.url().split(":")[2].partition("@")[0])
        place = home.own_directory("secrets")
        for name in secret_files.NAMES:
            path = secret_files.make(place, name)
            canaries.add(path.name, secret_files.read_versioned(place, name).by_version[1])
        logs = home.own_directory("logs")
        settings = environment(
            database_url,
            valkey.url(),
            place,
            KEYTURN_LOG_LEVEL="debug",
            KEYTURN_MAIL_CHANNEL="maildir",
            KEYTURN_MAILDIR=str(logs / "mail"),
            KEYTURN_CONFIG=str(canary_sinks.settings(home.own_directory("sinks"))),
        )
        operator = stack.enter_context(Operator(database_url, secrets_dir=place))
        wire = stack.enter_context(Wire(valkey.url()).tapped())
        log = home.path / "log" / "postgres.log"
        yield Site(Release(ROOT, settings, logs), operator, canaries, wire, log)


TALKATIVE: Final = {
    "log_statement": "all",
    "log_parameter_max_length": "-1",
    "log_parameter_max_length_on_error": "-1",
    "log_min_error_statement": "debug5",
    "log_connections": "on",
}


def with_password(postgres: Postgres, canaries: Canaries) -> str:
    """The URL of a role that has to give its password."""
    password = secrets.token_urlsafe(24)
    canaries.add("database password", password)
    with postgres.connect() as connection:
        connection.execute("SET log_statement = 'none'")
        statement = sql.SQL("CREATE ROLE canary SUPERUSER LOGIN PASSWORD {}")
        connection.execute(statement.format(sql.Literal(password)))
        rules = postgres.data / "pg_hba.conf"
        rules.write_text(f"local all canary scram-sha-256\n{rules.read_text()}")
        connection.execute("SELECT pg_reload_conf()")
    url = postgres.url().replace("postgresql://keyturn@", f"postgresql://canary:{password}@")
    eventually(lambda: accepts(url))
    wrong = url.replace(password, "wrong")
    eventually(lambda: refuses(wrong))
    return url


def test_no_secret_comes_to_light(site: Site) -> None:
    site.command("migrate")
    with site.release.services("first"):
        texts = live(site)
        break_everything(site, texts)
    look_at_objects(site)
    places = site.places()
    searched_something(places)
    assert site.canaries.found(places) == set()
    for place in ("log", "mail", "table", "statement", "stream", "wire", "repr"):
        is_found_where_one_is_put(site, place)  # after the search: what is planted stays


def is_found_where_one_is_put(site: Site, place: str) -> None:
    text = mint("kt").reveal()
    site.canaries.add(f"planted in a {place}", text)
    plants: dict[str, Callable[[str], object]] = {
        "log": lambda it: (site.release.logs / "planted.log").write_text(f'{{"event": "{it}"}}'),
        "mail": lambda it: (site.release.logs / "mail" / "planted").write_text(it),
        "table": lambda it: execute(site, "UPDATE keyturn.audit SET why = :it", it=it),
        "statement": lambda it: execute(site, "SELECT CAST(:it AS text)", it=it),
        "stream": lambda it: xadd(site, text=it),
        "wire": lambda it: publish(site, it),
        "repr": lambda it: site.show("planted", {"inner": it}),
    }
    plants[place](text)
    expected = {
        "log": "planted.log",
        "mail": "planted",
        "table": "table audit",
        "statement": "postgres.log",
        "stream": "broker planted",
        "wire": "wire",
        "repr": "repr planted",
    }
    where = eventually(
        lambda: {at for name, at in site.canaries.found(site.places()) if place in name}
    )
    assert expected[place] in where


@pytest.mark.parametrize("form", ["hex", "base64", "in base64", "urlsafe", "escaped", "part"])
def test_a_secret_is_found_in_every_form(form: str) -> None:
    secret, text = b"\xfb\xff\xbf" + secrets.token_bytes(29), mint("kt").reveal()
    canaries = Canaries()
    canaries.add("it", text if form == "part" else secret)
    forms = {
        "hex": secret.hex().encode(),
        "base64": base64.b64encode(secret),
        "in base64": base64.b64encode(b"\0user\0" + secret + b"\0"),
        "urlsafe": base64.urlsafe_b64encode(secret),
        "escaped": str({"key": secret}).encode(),
        "part": text[3:-6].encode(),
    }
    assert canaries.found({"here": b"before " + forms[form] + b" after"}) == {("it", "here")}
    assert canaries.found({"here": b"before and after"}) == set()


def live(site: Site) -> list[str]:
    """Each thing that is done with keys, by command and by library; the texts of live keys."""
    for account in (ADA, BOB):
        site.command("accounts", "create", account, "--role", "member")
    texts = []

    def known(name: str, text: str) -> str:
        site.canaries.add(name, text)
        texts.append(text)
        return text

    first = known("first key", created(site, "first"))
    site.command("keys", "verify", stdin=first)
    site.command("keys", "rotate", "-", stdin=first)
    successor = known("its successor", claimed(site, first))
    site.command("keys", "verify", stdin=successor)
    second = known(
        "second key", site.operator.create_api_key("b", BOB, "viewer", 8_000_000).text.reveal()
    )
    site.operator.rotate(second)
    third = site.operator.claim(second).secret.reveal()
    known("second successor", third)
    assert site.operator.verify(third).valid
    waiting = known("waiting key", created(site, "waiting"))
    site.operator.rotate(waiting)
    xadd(site, "keyturn:in", type="account.disabled", account=BOB, id="1")
    eventually(lambda: site.operator.verify(third).reason == "account_held", within=SOON)
    xadd(site, "keyturn:in", type="account.enabled", account=BOB, id="2")
    eventually(lambda: site.operator.verify(third).valid, within=SOON)
    canary_sinks.hand_over(site, ADA)
    mails = site.release.logs / "mail" / "new"
    eventually(lambda: len(list(mails.iterdir())) >= 2, within=SOON)
    site.command("status")
    site.command("doctor")
    site.command("secrets", "list")
    site.command("secrets", "add", "pepper")
    following = Path(site.release.environment["KEYTURN_SECRETS_DIR"]) / "pepper-2.next"
    site.canaries.add(
        "pepper-2", secret_files.read_versioned(following.parent, "pepper").by_version[2]
    )
    return texts


def break_everything(site: Site, texts: list[str]) -> None:
    """Errors of every layer, each while a secret is at hand."""
    first, waiting = texts[0], texts[-1]
    site.command("keys", "show", first, fails=True)
    site.command("keys", "verify", first, fails=True)
    site.command("keys", "claim", stdin=first, fails=True)
    url = site.release.environment["KEYTURN_DATABASE_URL"]
    wrong = secrets.token_urlsafe(24)
    site.canaries.add("wrong password", wrong)
    password = url.partition("//canary:")[2].partition("@")[0]
    site.command("status", fails=True, KEYTURN_DATABASE_URL=url.replace(password, wrong))
    closed = f"redis://:{wrong}@127.0.0.1:{free_port()}/0"
    site.command("events", "send", "account.enabled", ADA, fails=True, KEYTURN_BROKER_URL=closed)
    site.command("status", fails=True, KEYTURN_DATABASE_URL=f"postgresql://canary:{wrong}@[::1/x")
    site.raised("wrong password", lambda: Operator(url.replace(password, wrong)).verify(first))
    with renamed(site, "audit"):
        site.command(
            "keys",
            "create",
            "x",
            "--user",
            ADA,
            "--role",
            "viewer",
            "--validity",
            "3600",
            fails=True,
        )
        site.raised("in SQL", lambda: site.operator.create_api_key("x", ADA, "viewer", 3600))
        site.raised("in SQL of a claim", lambda: site.operator.claim(waiting))
        xadd(site, "keyturn:in", type="account.disabled", account=ADA, id="3")
        log = site.release.logs / "first-worker.log"
        eventually(lambda: "failed" in log.read_text(), within=SOON)
    eventually(lambda: site.operator.verify(first).reason == "account_held", within=SOON)
    sealed = site.operator.create_api_key("sealed", BOB, "viewer", 8_000_000)
    text = sealed.text.reveal()
    site.canaries.add("key of a broken seal", text)
    site.operator.rotate(sealed.id)
    broken = "sealed = overlay(sealed placing 'x' from 20)"
    execute(site, f"UPDATE keyturn.rotations SET {broken} WHERE old_key_id = :id", id=sealed.id)
    site.raised("broken seal", lambda: site.operator.claim(text), BrokenSeal)
    site.command("keys", "claim", stdin=text, fails=True)
    chatty_mail_server(site)


def chatty_mail_server(site: Site) -> None:
    """A server that refuses the login and says back what it was told, as some do in an error."""
    password = secrets.token_urlsafe(24)
    site.canaries.add("mail password", password)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"smtp://user:{password}@127.0.0.1:{server.server_address[1]}"
        channel = Smtp(SmtpServer.from_url(url), "Keyturn <keyturn@example.com>")
        site.show("mail channel", channel, SmtpServer.from_url(url))
        [delivery] = channel.send([notice()])
        server.shutdown()
    assert delivery.state == "retry"
    assert "535" in str(delivery.error)
    site.show("delivery", delivery)


class Echo(socketserver.StreamRequestHandler):
    """Says every line back; refuses what looks like a login."""

    def handle(self) -> None:
        self.wfile.write(b"220 hello\r\n")
        for line in self.rfile:
            if line.upper().startswith(b"EHLO"):
                self.wfile.write(b"250-here\r\n250 AUTH PLAIN\r\n")
            elif line.upper().startswith(b"QUIT"):
                self.wfile.write(b"221 bye\r\n")
                return
            else:
                self.wfile.write(b"535 5.7.8 bad: " + line.strip() + b"\r\n")


def look_at_objects(site: Site) -> None:
    """What a product or a log line may show of the library, and of the settings."""
    operator = site.operator
    new = operator.create_api_key("shown", BOB, "viewer", 8_000_000)
    site.canaries.add("shown key", new.text.reveal())
    rotation = operator.rotate(new.id)
    claimed = operator.claim(new.text.reveal())
    site.canaries.add("shown successor", claimed.secret.reveal())
    ring = operator.keyring
    verdict = operator.verify(new.text.reveal())
    site.show("of keys", new, new.text, rotation, claimed, verdict, *operator.get_api_keys())
    site.show("of secrets", ring, ring.peppers, ring.sealer)
    site.show("of the library", operator, operator.database, operator.database.engine)
    site.show("of objects", vars(new), vars(operator), operator.status(), *operator.rotations())
    place = Path(site.release.environment["KEYTURN_SECRETS_DIR"])
    site.show(
        "of files", *(secret_files.read_versioned(place, name) for name in secret_files.NAMES)
    )
    for one in (new.text, ring, ring.peppers, ring.sealer):
        site.raised("pickling", partial(pickle.dumps, one), TypeError)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in site.release.environment.items():
            patch.setenv(name, value)
        settings = load_settings()
    site.show("of settings", settings, make_app(settings))
    site.show("of the app", make_app(settings).conf.humanize(with_defaults=False))
    crash_with_secrets_at_hand(site, settings)


def crash_with_secrets_at_hand(site: Site, settings: Settings) -> None:
    """An exception whose frames hold secrets, as a process logs one that nobody caught."""
    text = mint(settings.key_prefix).reveal()
    site.canaries.add("a local", text)
    code = (
        "import sys, threading, os; from worker.logs import configure_logging;"
        "configure_logging('debug', sys.argv[1]);\n"
        "def crash(text, pepper):\n    held = [text, pepper]; raise LookupError(len(held))\n"
        "thread = threading.Thread(target=crash, args=(sys.stdin.readline(), 'p'));"
        "thread.start(); thread.join(); crash(os.environ['TEXT'], os.environ)"
    )
    for form in ("json", "console"):
        done = subprocess.run(
            [sys.executable, "-c", code, form],
            cwd=ROOT,
            env={**site.release.environment, "TEXT": text, "PYTHONPATH": str(ROOT)},
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr.count("LookupError") >= 2, done.stderr
        site.saw(f"a crash in {form}", (done.stdout + done.stderr).encode())


def searched_something(places: Places) -> None:
    """The search went through what it says it does."""
    assert b"INSERT INTO keyturn.api_keys" in places["postgres.log"]
    assert b"Parameters: $1" in places["postgres.log"]
    assert b"XADD" in places["wire"]
    assert b"accounts.apply_events" in places["wire"]
    assert b"DETAIL" in places["postgres.log"]
    assert places["table audit"].count(b"\n") > 10
    assert b'"level": "debug"' in places["first-worker.log"]


def created(site: Site, name: str) -> str:
    out = site.command(
        "keys",
        "create",
        name,
        "--user",
        ADA,
        "--role",
        "viewer",
        "--validity",
        "90",
        "--time-unit",
        "day",
        "--json",
    )
    return str(json.loads(out)["text"])


def claimed(site: Site, old: str) -> str:
    return str(json.loads(site.command("keys", "claim", "--json", stdin=old))["text"])


def execute(site: Site, statement: str, **values: object) -> None:
    with site.operator.database.begin() as tx:
        tx.execute(statement, **values)


@contextmanager
def renamed(site: Site, table: str) -> Iterator[None]:
    """Without this table everything that writes to it fails."""
    execute(site, f"ALTER TABLE keyturn.{table} RENAME TO away")
    try:
        yield
    finally:
        execute(site, f"ALTER TABLE keyturn.away RENAME TO {table}")


def xadd(site: Site, stream: str = "planted", **fields: str) -> None:
    with redis.Redis.from_url(site.release.environment["KEYTURN_BROKER_URL"]) as client:
        client.xadd(stream, {**fields})


def publish(site: Site, text: str) -> None:
    with redis.Redis.from_url(site.release.environment["KEYTURN_BROKER_URL"]) as client:
        client.publish("planted", text)
