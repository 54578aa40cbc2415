"""Settings: where they come from, what is refused and how, and that the documentation is true."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import worker.embedded
from models.durations import format_duration
from models.errors import Misconfigured
from models.events import RESTRICTIVE, Action
from models.policy import Policy
from models.roles import Role
from worker import setup
from worker.embedded import Embedded
from worker.setting_tables import RoleTable, RotationPolicyTable, Source
from worker.settings import Settings, load_settings

DOCS = Path(__file__).parents[2] / "docs"
CANARY = "hush-hush"

BINDING = 'exchange = "amq.topic"\nrouting_keys = ["a.#"]\n'
BOUND = f'[sources.hr]\nprovider = "native"\n{BINDING}'
SOURCE = '[sources.hr]\nprovider = "native"\nstream = "hr"\n'


@pytest.fixture(autouse=True)
def place(no_settings: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, where nothing is set and nothing runs."""
    monkeypatch.setattr(worker.embedded, "running", lambda data_dir: None)
    return no_settings


def write(text: str) -> None:
    Path("keyturn.toml").write_text(text, "utf-8")


def faults() -> list[str]:
    """The lines with which the settings are refused, without the count."""
    with pytest.raises(Misconfigured) as refusal:
        load_settings()
    assert refusal.value.__cause__ is None
    first, *lines = str(refusal.value).splitlines()
    assert first == (
        "a setting is wrong:" if len(lines) == 1 else f"{len(lines)} settings are wrong:"
    )
    return [line.strip() for line in lines]


def test_defaults_are_those_of_the_rules() -> None:
    settings = load_settings()
    assert settings.policy() == Policy()
    assert settings.lease == timedelta(seconds=120)
    assert settings.visibility_timeout == timedelta(seconds=600)
    assert {name: source.stream for name, source in settings.sources.items()} == {
        "native": "keyturn:in",
        "okta": "keyturn:in:okta",
        "keycloak": "keyturn:in:keycloak",
    }
    assert settings.roles == {
        "viewer": Role("viewer", ("read",)),
        "member": Role("member", ("read", "write")),
        "admin": Role("admin", ("read", "write", "admin")),
    }


def test_environment_wins_over_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write('undo_for = "2d"\nrotation_overlap = "36h"\n')
    monkeypatch.setenv("KEYTURN_UNDO_FOR", "5s")
    policy = load_settings().policy()
    assert policy.undo_for == timedelta(seconds=5)
    assert policy.rotation_overlap == timedelta(hours=36)


def test_config_names_the_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write('key_prefix = "not_read"\n')
    other = place / "other.toml"
    other.write_text('key_prefix = "acme"\n')
    monkeypatch.setenv("KEYTURN_CONFIG", str(other))
    assert load_settings().key_prefix == "acme"


def test_thresholds_from_environment_and_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write('notice_thresholds = ["2d", "4h"]\n')
    assert load_settings().notice_thresholds == (timedelta(days=2), timedelta(hours=4))
    monkeypatch.setenv("KEYTURN_NOTICE_THRESHOLDS", "20s, 5s")
    assert load_settings().notice_thresholds == (timedelta(seconds=20), timedelta(seconds=5))


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("DATABSE_URL", "x", "no such setting; did you mean KEYTURN_DATABASE_URL?"),
        ("SETTLE_EVRY", "5s", "no such setting; did you mean KEYTURN_SETTLE_EVERY?"),
        ("GIVEN_DATABASE_URL", "postgresql://h/d", "did you mean KEYTURN_DATABASE_URL?"),
        ("ZZZ", "1", "no such setting; docs/configuration.md lists them all"),
        ("DATABASE_URL", "", "is set but empty; give it a value, or unset it"),
        ("LOG_LEVEL", "  ", "is set but empty; give it a value, or unset it"),
        ("CONFIG", "", "is set but empty; give it a value, or unset it"),
        ("CONFIG", "/nowhere/keyturn.toml", "there is no file /nowhere/keyturn.toml; correct"),
        ("SOURCES", "{}", "write [sources.NAME] in keyturn.toml instead, and unset it"),
        ("ROLES", "not json", "write [roles.NAME] in keyturn.toml instead, and unset it"),
        ("UNDO_FOR", "7x", "not a duration: write a whole number and one unit"),
        ("UNDO_FOR", "-1s", "not a duration: write a whole number and one unit"),
        ("UNDO_FOR", "521w", "the duration is too long"),
        ("UNDO_FOR", "P1Y", "not a duration"),
        ("SETTLE_EVERY", "0s", "too short: write 1s or more"),
        ("SETTLE_BATCH", "0", "greater than or equal to 1"),
        ("SETTLE_BATCH", "many", "valid integer"),
        ("NOTICE_LAST_SHARE", "20", "less than 1"),
        ("NOTICE_THRESHOLDS", "1d,7d", "unsorted or repeated: write each once, the longest first"),
        ("NOTICE_THRESHOLDS", "7d,1w", "unsorted or repeated"),
        ("NOTICE_THRESHOLDS", "7d,0s", "too short"),
        ("NOTICE_THRESHOLDS", "7d,", "not a duration"),
        ("LEASE", "15s", "must be longer than statement_timeout (15s): raise it"),
        ("STATEMENT_TIMEOUT", "2m", "must be longer than statement_timeout (2m): raise it"),
        ("VISIBILITY_TIMEOUT", "2m", "must be longer than lease (2m): raise it"),
        ("DATABASE_URL", "mysql://h/d", "write it like postgresql://user:password@host:5432/name"),
        ("DATABASE_URL", "postgresql://[::1/d", "not a PostgreSQL URL"),
        ("BROKER_URL", "kafka://localhost", "write it like rediss://host:6379/0 or amqps://"),
        ("BROKER_URL", "memory://", "write it like rediss://host:6379/0 or amqps://"),
        ("BROKER_URL", "redis:///0", "write it like rediss://"),
        ("BROKER_URL", "redis://localhost:x/0", "not a usable URL"),
        ("DATABASE_URL", "postgresql://u@db.example.com/d", "db.example.com might be reached"),
        ("DATABASE_URL", "postgresql://u@10.0.0.5/d?sslmode=prefer", "add ?sslmode=verify-full"),
        ("DATABASE_URL", "postgresql:///d?host=/run,10.0.0.5", "10.0.0.5 might be reached"),
        ("DATABASE_URL", "postgresql:///d?host=/run&host=a.example:5432", "a.example might be"),
        ("DATABASE_URL", "postgresql://localhost/d?hostaddr=10.0.0.5", "10.0.0.5 might be"),
        ("DATABASE_URL", "postgresql:///d?service=x", "set KEYTURN_ALLOW_PLAINTEXT_DATABASE=true"),
        ("BROKER_URL", "redis://10.0.0.5/0", "10.0.0.5 would be reached without TLS"),
        ("BROKER_URL", "amqp://mq.example.com//", "write amqps://, or, inside a private network"),
        ("BROKER_URL", "redis://localhost.example.com", "set KEYTURN_ALLOW_PLAINTEXT_BROKER=true"),
        ("STREAM_URL", "redis://10.0.0.5/0", "10.0.0.5 would be reached without TLS"),
        ("STREAM_URL", "amqps://mq.example.com//", "write it like rediss://host:6379/0"),
        ("AMQP_URL", "amqp://mq.example.com//", "write amqps://, or, inside a private network"),
        ("AMQP_URL", "redis://localhost/0", "write it like amqps://user:password@host:5671/vhost"),
        ("KEY_PREFIX", "Ké", "the prefix of keys is not usable"),
        ("MAIL_FROM", "a@example.com\nBcc: b@example.com", "has a newline or another control"),
        ("MAIL_FROM", "a@example.com, b@example.com", "not one address: write it like"),
        ("MAIL_FROM", "nobody", "not one address: write it like"),
        ("SMTP_URL", "smtp://localhost", "set KEYTURN_MAIL_FROM as well"),
        ("SMTP_URL", "http://localhost", "write it like smtps://user:password@host:465"),
        ("SMTP_URL", "smtp://u:p@mail.example.com", "the password would travel in clear"),
        ("MAIL_CHANNEL", "smtp", "'smtp' needs a server: set KEYTURN_SMTP_URL as well"),
        ("MAIL_CHANNEL", "pigeon", "'maildir', 'smtp' or 'none'"),
        ("LOG_FORMAT", "xml", "'json' or 'console'"),
        ("CONCURRENCY", "0", "greater than or equal to 1"),
        ("ALLOW_PLAINTEXT_BROKER", "perhaps", "valid boolean"),
    ],
)
def test_refuses_and_says_how_to_mend(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, fault: str
) -> None:
    monkeypatch.setenv(f"KEYTURN_{name}", value)
    (line,) = faults()
    where, _, said = line.partition(": ")
    assert where.startswith("KEYTURN_")
    assert fault in said


def test_no_source_reads_what_keyturn_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTURN_OUT_STREAM", "keyturn:in")
    (line,) = faults()
    assert line.startswith("keyturn.toml: sources: native reads 'keyturn:in', which is that of")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('settle_evry = "5s"', "keyturn.toml: settle_evry: there is no such setting; did you mean"),
        ('KEYTURN_UNDO_FOR = "5s"', "keyturn.toml: KEYTURN_UNDO_FOR: there is no such setting"),
        ("undo_for = 5", "keyturn.toml: undo_for: not a duration: write it in quotes"),
        ("undo_for = 2026-01-01", "keyturn.toml: undo_for: not a duration: write it in quotes"),
        ("undo_for = 7d", "keyturn.toml: is not TOML ("),
        (
            SOURCE + 'trsut = "any"',
            "[sources.hr] trsut: there is no such setting; did you mean trust",
        ),
        (
            SOURCE.replace("native", "mapped") + '[sources.hr.mapping]\ntrust = []\ntype = "kind"\n'
            'account = [{value = "id"}]\ntypes = {gone = "disabled"}',
            "[sources.hr] mapping trust: a mapping has no such member; docs/adding-a-provider.md",
        ),
        (SOURCE.replace("native", "mapped") + 'mapping = "x.toml"', "not the name of a file but"),
        (SOURCE + 'trust = "all"', "[sources.hr] trust: not a trust: write 'any', 'restrictive'"),
        (SOURCE + "trust = []", "[sources.hr] trust: not a trust"),
        (SOURCE + 'trust = ["disable"]', "some of: disabled, enabled, deleted"),
        (SOURCE + 'proof = "jwt"', "[sources.hr] proof: input should be 'transport'"),
        ('[sources.hr]\nprovider = "native"', "[sources.hr]: it names neither a stream nor an"),
        (SOURCE + BINDING, "[sources.hr]: it names both a stream and an exchange: add `stream`"),
        (SOURCE + 'routing_keys = ["#"]', "routing_keys: only an exchange has them"),
        (BOUND.replace('["a.#"]', "[]"), "routing_keys: an exchange needs them; with `exchange`"),
        (BOUND.replace('["a.#"]', '"a.#"'), "[sources.hr] routing_keys: input should be"),
        (BOUND.replace('"a.#"', f'"{"a" * 256}"'), "routing_keys 0: too long: AMQP has 255 bytes"),
        (BOUND.replace('"a.#"', '"a\\nb"'), "routing_keys 0: has a newline or another control"),
        (BOUND.replace('"amq.topic"', '""'), "[sources.hr] exchange: string should have at least"),
        (BOUND.replace("amq.topic", "keyturn"), "exchange: that exchange is Keyturn's own"),
        (BOUND.replace("amq.topic", "keyturn.out"), "exchange: that exchange is Keyturn's own"),
        (SOURCE.replace('"native"', '"ldap"'), "unknown provider: write one of auth0, clerk"),
        (SOURCE.replace('"hr"', '""'), "[sources.hr] stream: string should have at least 1"),
        (SOURCE.replace(".hr]", ".operator]"), "[sources.operator]: the name is Keyturn's own"),
        (SOURCE.replace(".hr]", ".HR]"), "[sources.HR]: not a usable name"),
        (SOURCE.replace('"hr"', '"keyturn:out"'), "which is that of Keyturn's own events"),
        (SOURCE + SOURCE.replace(".hr]", ".pay]"), "pay reads 'hr', which is that of hr"),
        ("[roles.reader]", "[roles.reader] permissions: is missing; add it"),
        ('[roles.reader]\npermissions = "read"', "[roles.reader] permissions: input should be"),
        ("[roles.reader]\npermissions = [1]", "[roles.reader] permissions 0: input should be"),
    ],
)
def test_refuses_what_the_file_says(text: str, fault: str) -> None:
    write(text)
    (line,) = faults()
    assert fault in line


def test_file_that_is_no_text() -> None:
    Path("keyturn.toml").write_bytes(b'key_prefix = "\xff"')
    assert faults() == [
        "keyturn.toml: cannot be read (it is not UTF-8); make it a text file that Keyturn may read"
    ]


def test_all_faults_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    write('undo_fro = "1s"\nlease = "1s"\n[sources.operator]\nprovider = "x"\nstream = "s"\n')
    monkeypatch.setenv("KEYTURN_LOG_LEVEL", "loud")
    monkeypatch.setenv("KEYTURN_BROKER_URL", "redis://broker.example.com/0")
    monkeypatch.setenv("KEYTURN_TYPO", "1")
    places = [line.partition(": there is no")[0].split(":")[:2] for line in faults()]
    assert [": ".join(part.strip() for part in place[:2]) for place in places] == [
        "KEYTURN_TYPO",
        "KEYTURN_BROKER_URL: broker.example.com would be reached without TLS",
        "keyturn.toml: lease",
        "KEYTURN_LOG_LEVEL: input should be 'debug', 'info', 'warning' or 'error'",
        "keyturn.toml: [sources.operator]",
        "keyturn.toml: [sources.operator] provider",
        "keyturn.toml: undo_fro",
    ]


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:6379/0",
        "redis://127.9.9.9/0",
        "redis://localhost/0",
        "redis://[::1]:6379/0",
        "amqp://guest:guest@localhost//",
        "rediss://broker.example.com/0",
        "amqps://broker.example.com//",
    ],
)
def test_brokers_that_need_no_leave(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("KEYTURN_BROKER_URL", url)
    assert load_settings().broker_url == url


def test_plaintext_broker_where_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTURN_BROKER_URL", "redis://valkey:6379/0")
    monkeypatch.setenv("KEYTURN_ALLOW_PLAINTEXT_BROKER", "true")
    assert load_settings().broker_url == "redis://valkey:6379/0"


@pytest.mark.parametrize(
    "name", ["DATABASE_URL", "BROKER_URL", "STREAM_URL", "AMQP_URL", "SMTP_URL"]
)
@pytest.mark.parametrize("scheme", ["postgresql", "redis", "rediss", "amqps", "smtps", "what"])
@pytest.mark.parametrize("host", ["host.example.com", "localhost:99999", "[::1", ""])
def test_passwords_show_nowhere(
    monkeypatch: pytest.MonkeyPatch, name: str, scheme: str, host: str
) -> None:
    monkeypatch.setenv(f"KEYTURN_{name}", f"{scheme}://user:{CANARY}@{host}/x")
    monkeypatch.setenv("KEYTURN_MAIL_FROM", "keys@example.com")
    try:
        shown = repr(load_settings()) + str(load_settings())
    except Misconfigured as error:
        shown = repr(error) + str(error)
    assert CANARY not in shown


def test_embedded_servers_stand_in(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded = Embedded(place, "postgresql://e/d", "redis://localhost:1/0", place / "secrets")
    monkeypatch.setattr(worker.embedded, "running", lambda data_dir: embedded)
    settings = load_settings()
    assert settings.database_url == embedded.database_url
    assert settings.broker_url == settings.stream_url == embedded.broker_url
    assert settings.secrets_dir == embedded.secrets_dir
    monkeypatch.setenv("KEYTURN_DATABASE_URL", "postgresql://localhost/given")
    assert load_settings().database_url == "postgresql://localhost/given"


@pytest.mark.parametrize("name", ["database_url", "broker_url", "stream_url", "secrets_dir"])
def test_nothing_set_and_nothing_runs(name: str) -> None:
    settings = load_settings()
    with pytest.raises(Misconfigured, match=r"start `make run`, or set KEYTURN_\w+$"):
        getattr(settings, name)


def test_streams_need_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTURN_BROKER_URL", "amqp://localhost//")
    with pytest.raises(Misconfigured, match="set KEYTURN_STREAM_URL to one, such as redis://"):
        _ = load_settings().stream_url
    monkeypatch.setenv("KEYTURN_STREAM_URL", "redis://localhost/0")
    assert load_settings().stream_url == "redis://localhost/0"


def test_exchanges_need_rabbitmq(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTURN_BROKER_URL", "redis://localhost/0")
    with pytest.raises(Misconfigured, match="set KEYTURN_AMQP_URL to one, such as amqp://"):
        _ = load_settings().amqp_url
    monkeypatch.setenv("KEYTURN_AMQP_URL", "amqp://localhost/idp")
    assert load_settings().amqp_url == "amqp://localhost/idp"
    monkeypatch.setenv("KEYTURN_BROKER_URL", "amqp://localhost//")
    monkeypatch.delenv("KEYTURN_AMQP_URL")
    assert load_settings().amqp_url == "amqp://localhost//"


def test_two_sources_may_share_an_exchange() -> None:
    write(BOUND + BOUND.replace(".hr]", ".pay]").replace("a.#", "b.*"))
    sources = load_settings().sources
    assert {one.exchange for one in sources.values()} == {"amq.topic"}
    assert sources["pay"].routing_keys == ("b.*",)


def test_sources_of_the_file_are_all_there_are() -> None:
    write(SOURCE + '[sources.idp]\nprovider = "okta"\nstream = "idp"\ntrust = "restrictive"\n')
    assert load_settings().sources == {
        "hr": Source(provider="native", stream="hr", trust=frozenset(Action)),
        "idp": Source(provider="okta", stream="idp", trust=RESTRICTIVE),
    }


def test_trust_may_be_a_list_of_actions() -> None:
    write(SOURCE + 'trust = ["disabled", "enabled"]\n')
    assert load_settings().sources["hr"].trust == {Action.DISABLED, Action.ENABLED}


def test_mail_channel_follows_the_server(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTURN_DATA_DIR", str(place / "data"))
    settings = load_settings()
    assert (settings.mail_channel, settings.maildir_path) == ("maildir", place / "data" / "mail")
    monkeypatch.setenv("KEYTURN_MAIL_FROM", "keys@example.com")
    monkeypatch.setenv("KEYTURN_SMTP_URL", "smtp://mail.example.com")
    assert load_settings().mail_channel == "smtp"
    monkeypatch.setenv("KEYTURN_MAIL_CHANNEL", "none")
    assert load_settings().mail_channel == "none"


def test_secrets_are_read_from_their_directory(
    secrets_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYTURN_SECRETS_DIR", str(secrets_dir))
    keyring = setup.keyring(load_settings())
    assert keyring.peppers.versions == (1,)
    assert keyring.sealer.versions == (1,)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{CANARY}@localhost/d",
        f"postgresql://localhost/d?user=u&password={CANARY}",
    ],
)
def test_a_file_that_others_can_read_may_hold_no_password(url: str) -> None:
    write(f'database_url = "{url}"\nlog_level = "debug"\n')
    file = Path("keyturn.toml")
    file.chmod(0o640)
    [line] = faults()
    assert line == (
        "keyturn.toml: holds a password (database_url) and is open to group or others; "
        "run `chmod 600 keyturn.toml`, or set KEYTURN_DATABASE_URL instead"
    )
    file.chmod(0o600)
    assert load_settings().database_url == url
    write('database_url = "postgresql://u@localhost/d"')
    file.chmod(0o644)
    assert load_settings().database_url == "postgresql://u@localhost/d"


def test_settings_do_not_change() -> None:
    settings: Any = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.key_prefix = "other"


# --- policies of rotation


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('rotate = "yearly"', "rotation_policies.early] rotate: not a time to rotate: write"),
        ('rotate = "3/2"', "a share of life between 0 and 1"),
        ('rotate = "14d"\nwindow = "mon-fri 09:00-17:00"', "window: not a window; write days"),
        ('window = "mon 09:00-09:00 UTC"', "is empty: for the whole day write 00:00-24:00"),
        ('window = "mon 09:00-17:00 Mars/Olympus"', "there is no timezone 'Mars/Olympus'"),
    ],
)
def test_a_policy_that_cannot_be_read_is_refused(text: str, fault: str) -> None:
    write(f"[rotation_policies.early]\n{text}\n")
    [line] = faults()
    assert fault in line


def test_a_role_names_a_policy_that_is_there() -> None:
    role = '[roles.reader]\npermissions = ["read"]\nrotation_policy = "early"\n'
    write(role)
    [line] = faults()
    assert "role reader names the rotation policy 'early', which is none of default" in line
    write(f'{role}[rotation_policies.early]\nrotate = "14d"\n')
    assert load_settings().roles["reader"].rotation_policy == "early"
    assert str(load_settings().rotation_policies["early"].rotate) == "2w"


# --- the documentation


def documented(name: str, field: FieldInfo) -> tuple[str, str, str]:
    """The row of a setting in docs/configuration.md."""
    return (name, _written(field.default), field.description or "")


def _written(default: object) -> str:
    match default:
        case None:
            return "unset"
        case _ if default is PydanticUndefined:
            return "needed"
        case bool():
            return f"`{str(default).lower()}`"
        case timedelta():
            return f"`{_duration(default)}`"
        case ():
            return "none"
        case tuple():
            return f"`{','.join(_duration(part) for part in default)}`"
        case frozenset():
            return "`any`"
        case dict():
            return "see below"
        case _:
            return f"`{default}`"


def _duration(duration: timedelta) -> str:
    """As the rules write it: days, not weeks."""
    text = format_duration(duration)
    return f"{int(text[:-1]) * 7}d" if text.endswith("w") else text


def rows(of: str) -> list[tuple[str, str, str]]:
    """The rows of the chapter `of` and its tables; the first chapters are those of Settings."""
    text = (DOCS / "configuration.md").read_text("utf-8")
    chapters = re.split(r"(?m)^## (?=Sources|Roles|Rotation policies)", text)
    part = next((chapter for chapter in chapters if chapter.startswith(of)), chapters[0])
    return re.findall(r"(?m)^\| `(\w+)` \| (.*?) \| (.*) \|$", part)


@pytest.mark.parametrize(
    ("chapter", "model"),
    [
        ("Settings", Settings),
        ("Sources", Source),
        ("Roles", RoleTable),
        ("Rotation policies", RotationPolicyTable),
    ],
)
def test_configuration_is_documented(chapter: str, model: type[BaseModel]) -> None:
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    assert rows(chapter) == [documented(name, field) for name, field in fields.items()]


def test_example_file_states_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    default = load_settings()
    example = DOCS / "keyturn.example.toml"
    monkeypatch.setenv("KEYTURN_CONFIG", str(example))
    assert load_settings() == default
    text = example.read_text("utf-8")
    for name, field in Settings.model_fields.items():
        assert re.search(rf"(?m)^(# )?\[?{field.alias or name}\b", text), f"{name} is not in it"


def test_every_limit_of_the_rules_can_be_set() -> None:
    names = {field.alias or name for name, field in Settings.model_fields.items()}
    names.add("silent_after")  # of each source in its table
    assert set(Policy.__dataclass_fields__) <= names
