"""docker-compose.yml and Dockerfile, as far as they can be proven without a Docker engine.

The file is held against the schema of the Compose Specification (see tests/fixtures/SOURCES.md),
and each of our services runs by its own command and health check, with the servers' addresses
replaced.
"""

import json
import re
import stat
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from jsonschema.validators import validator_for

from models import Misconfigured, roles
from models.operator import Operator
from models.roles import Role
from tests.compose_file import ROOT, Service, environment, filled_in, parsed, program
from tests.eventually import eventually
from tests.servers import free_port
from worker.embedded.binaries import find_valkey
from worker.embedded.home import Home
from worker.embedded.process import PidFile, spawn
from worker.first_secrets import make_first_secrets
from worker.settings import load_settings

ROLES = ("worker", "beat", "intake")
OURS = ("migrate", *ROLES)
GIVEN = {"POSTGRES_PASSWORD": "0123abcd"}
PORTS = {"postgres": 5432, "valkey": 6379, "mail": 1025}

Compose = Mapping[str, Any]


@pytest.fixture(scope="module")
def services() -> Compose:
    """The services of the file, by name."""
    found: Compose = parsed()["services"]
    return found


def refusals(document: Any) -> list[str]:
    schema = json.loads((ROOT / "tests/fixtures/compose-spec.json").read_text("utf-8"))
    validator = validator_for(schema)(schema)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


def test_file_keeps_to_the_compose_specification() -> None:
    assert refusals(parsed()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"comand": ["keyturn"]},
        {"healthcheck": {"test": ["CMD", "true"], "interval": 5}},
        {"depends_on": {"postgres": {"condition": "healthy"}}},
    ],
)
def test_schema_refuses_mistakes(wrong: dict[str, Any]) -> None:
    document = parsed()
    document["services"]["worker"] |= wrong
    assert refusals(document)


def test_services_are_those_of_the_design(services: Compose) -> None:
    assert set(services) == {"postgres", "valkey", "mail", *OURS}
    assert all("healthcheck" in one for name, one in services.items() if name != "migrate")


def test_every_wait_can_end(services: Compose) -> None:
    for service in services.values():
        for name, wait in service.get("depends_on", {}).items():
            if wait["condition"] == "service_healthy":
                assert "healthcheck" in services[name]
            else:
                assert wait["condition"] == "service_completed_successfully"
                assert services[name]["restart"] == "no"


def test_only_mail_can_be_reached_and_only_from_this_machine(services: Compose) -> None:
    published = {name: one["ports"] for name, one in services.items() if "ports" in one}
    assert published == {"mail": ["127.0.0.1:8025:8025"]}


def test_only_who_needs_the_secrets_sees_them(services: Compose) -> None:
    place = environment(services["worker"], GIVEN)["KEYTURN_SECRETS_DIR"]
    mounted = {
        name: volume.removeprefix(f"secrets:{place}")
        for name in OURS
        for volume in services[name].get("volumes", [])
    }
    assert mounted == {"migrate": "", "worker": ":ro"}


def test_volumes_are_declared(services: Compose) -> None:
    used = {
        volume.partition(":")[0]
        for service in services.values()
        for volume in service.get("volumes", [])
    }
    assert used == set(parsed()["volumes"])


@pytest.mark.parametrize("name", OURS)
def test_settings_are_accepted_as_they_stand(
    name: str, services: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable, value in environment(services[name], GIVEN).items():
        monkeypatch.setenv(variable, value)
    settings = load_settings()
    for url in (settings.database_url, settings.broker_url, settings.smtp_url or ""):
        parts = urlsplit(url)
        assert parts.hostname in services
        assert parts.port == PORTS[parts.hostname or ""]
    assert urlsplit(settings.database_url).password == GIVEN["POSTGRES_PASSWORD"]
    assert settings.mail_channel == "smtp"


def test_password_is_one_and_must_be_given(services: Compose) -> None:
    wanted = services["postgres"]["environment"]["POSTGRES_PASSWORD"]
    assert filled_in(wanted, GIVEN) == GIVEN["POSTGRES_PASSWORD"]
    with pytest.raises(AssertionError, match="POSTGRES_PASSWORD is not given"):
        filled_in(wanted, {})


def test_servers_mail_can_be_sent_elsewhere(services: Compose) -> None:
    given = {**GIVEN, "KEYTURN_SMTP_URL": "smtps://mail.example.com:465"}
    assert environment(services["worker"], given)["KEYTURN_SMTP_URL"] == given["KEYTURN_SMTP_URL"]


def translated(
    service: Mapping[str, Any], database_url: str, broker_url: str, directory: Path
) -> dict[str, str]:
    """The environment of a service with the servers of this run in place of the file's."""
    found = environment(service, GIVEN)
    assert found.keys() >= {"KEYTURN_DATABASE_URL", "KEYTURN_BROKER_URL", "KEYTURN_SECRETS_DIR"}
    return found | {
        "KEYTURN_DATABASE_URL": database_url,
        "KEYTURN_BROKER_URL": broker_url,
        "KEYTURN_SECRETS_DIR": str(directory / "secrets"),
        "KEYTURN_SMTP_URL": f"smtp://127.0.0.1:{free_port()}",
    }


def test_services_run_by_their_own_commands(
    services: Compose, empty_database_url: str, broker_url: str, tmp_path: Path
) -> None:
    """migrate ends well, twice; the roles get healthy, stay up, and end on SIGTERM."""
    with ExitStack() as stack:
        made = {
            name: stack.enter_context(
                Service(
                    name,
                    services[name],
                    translated(services[name], empty_database_url, broker_url, tmp_path),
                    tmp_path,
                )
            )
            for name in OURS
        }
        migrate_twice(made["migrate"], tmp_path / "secrets")
        assert not made["worker"].healthy(), "healthy before anything runs"
        assert not made["intake"].healthy(), "healthy before anything runs"
        roles = [made[name].start() for name in ROLES]
        for role in roles:
            eventually(role.healthy, within=60, every=0.5)
        assert [role.name for role in roles if not role.alive()] == []
        endings = {role.name: role.stop() for role in roles}
        assert endings == dict.fromkeys(ROLES, 0), "\n".join(role.words() for role in roles)


def migrate_twice(migrate: Service, secrets: Path) -> None:
    """The second run, as after an upgrade, leaves the secrets of the first as they are."""
    contents = []
    for _ in range(2):
        assert migrate.run(migrate.definition["command"]) == 0, migrate.words()
        contents.append({path.name: path.read_bytes() for path in secrets.iterdir()})
    assert contents[0] == contents[1]
    assert contents[0]["pepper-1"] != contents[0]["kek-1"]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in secrets.iterdir()}
    assert modes == {"pepper-1": 0o600, "kek-1": 0o600}


def test_lost_secrets_are_not_replaced(
    database_url: str, secrets_dir: Path, tmp_path: Path
) -> None:
    with Operator(database_url, secrets_dir=secrets_dir) as operator:
        assert [path.name for path in make_first_secrets(operator, tmp_path / "new")] == [
            "pepper-1",
            "kek-1",
        ]
        add_key(operator)
        with pytest.raises(Misconfigured, match="put the files back"):
            make_first_secrets(operator, tmp_path / "lost")
        assert make_first_secrets(operator, tmp_path / "new") == []
    assert not (tmp_path / "lost").exists()


def add_key(client: Operator) -> None:
    client.database.run(lambda tx: roles.sync(tx, {"member": Role("member", ("read",))}))
    client.create_account("ada@example.com", "member")
    client.create_api_key("one", "ada@example.com", "member", 3600)


def test_valkey_keeps_what_it_is_given(services: Compose, servers_home: Home) -> None:
    """The options of the file, given to the Valkey of this run."""
    first, *options = services["valkey"]["command"]
    assert first == "valkey-server"
    directory = servers_home.server_directory(servers_home.path / "compose-valkey")
    port = free_port()
    server = spawn(
        [str(find_valkey(servers_home)), "--port", str(port), "--bind", "127.0.0.1", *options],
        pid_file=PidFile(servers_home.own_directory("pids") / "compose-valkey.json"),
        log=servers_home.own_directory("log") / "compose-valkey.log",
        account=servers_home.account,
        env={"PATH": "/usr/bin:/bin"},
        cwd=directory,
    )
    try:
        with redis.Redis(port=port, decode_responses=True) as client:
            eventually(client.ping)
            settings: Any = client.config_get("maxmemory-policy", "appendonly", "save")
    finally:
        server.popen.terminate()
        server.popen.wait(10)
    assert settings == {"maxmemory-policy": "noeviction", "appendonly": "yes", "save": ""}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and what stands behind them, continued lines joined."""
    lines = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ").splitlines()
    steps = [line for line in lines if line.strip() and not line.startswith("#")]
    assert all(re.match(r"[A-Z]+ ", step) for step in steps)
    return [(step.partition(" ")[0], step.partition(" ")[2]) for step in steps]


def test_dockerfile_copies_what_there_is_and_nothing_else_gets_in() -> None:
    copied = [
        source
        for name, rest in instructions()
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]
    assert [source for source in copied if not (ROOT / source).exists()] == []
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert sorted(rule[1:] for rule in rules if rule.startswith("!")) == sorted(copied)


def test_dockerfile_installs_only_what_is_locked() -> None:
    installs = [rest for name, rest in instructions() if name == "RUN" and "pip install" in rest]
    assert len(installs) == 2
    for install in installs:
        assert "--require-hashes" in install or "--no-index" in install


def test_image_runs_unprivileged_and_knows_its_commands(services: Compose) -> None:
    steps = instructions()
    assert [rest for name, rest in steps if name == "USER"] == ["10001"]
    assert steps.index(("USER", "10001")) > max(
        place for place, (name, _) in enumerate(steps) if name in ("RUN", "FROM")
    )
    [entry] = [json.loads(rest) for name, rest in steps if name == "CMD"]
    commands = [entry] + [services[name]["command"] for name in OURS]
    assert [command[0] for command in commands if not known(command[0])] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert entry[0] in project["scripts"]


def known(name: str) -> bool:
    return name == "sh" or program(name)


def test_image_has_the_directory_that_the_secrets_volume_takes_over(services: Compose) -> None:
    place = environment(services["migrate"], GIVEN)["KEYTURN_SECRETS_DIR"]
    made = [rest for name, rest in instructions() if name == "RUN" and "--mode 0700" in rest]
    assert len(made) == 1
    assert place in made[0].split()


def test_health_names_a_role() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "worker.health", "postgres"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert "worker|intake" in ran.stderr
