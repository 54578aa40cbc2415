"""The documents are true: what they tell you to type exists, and what they tell you to run runs."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg
import pytest
import typer
from typer.core import TyperGroup

from models import roles
from models.operator import Operator
from models.roles import Role
from tests.compose_file import ROOT, parsed, program
from tests.roles import make_roles, own_cluster
from worker.cli.app import app
from worker.health import JOBS
from worker.setting_tables import DEFAULT_ROLES

DOCUMENTS: Final = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_INLINE = re.compile(r"`(keyturn (?:[a-z]+ )*[a-z][^`]*)`")
_SAID = re.compile(r"^\s*print\(.*\)  # (.+)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block of a document."""

    document: str
    language: str
    text: str


def blocks() -> Iterator[Block]:
    for path in DOCUMENTS:
        for language, text in _FENCE.findall(path.read_text("utf-8")):
            yield Block(path.name, language, text)


def of(document: str, language: str) -> str:
    """All blocks of one language in a document, one after the other."""
    found = [one.text for one in blocks() if (one.document, one.language) == (document, language)]
    assert found, f"{document} has no block of {language}"
    return "\n".join(found)


def typed() -> list[tuple[str, list[str]]]:
    """Every command of the documents' shell blocks, in words."""
    found = []
    for block in blocks():
        if block.language == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                words = shlex.split(line.strip("()"), comments=True)
                if words:
                    found.append((f"{block.document}: {line}", words))
    return found


COMMANDS: Final = typed()


def refusal(arguments: list[str]) -> str | None:
    """Why the command `keyturn` would not understand these arguments; None if it would."""
    command: Any = typer.main.get_command(app)
    parent: Any = None
    name: str | None = "keyturn"
    try:
        while isinstance(command, TyperGroup):
            parent = command.make_context(name, list(arguments), parent=parent)
            arguments = [*parent._protected_args, *parent.args]
            name, command, arguments = command.resolve_command(parent, arguments)
        command.make_context(name, list(arguments), parent=parent)
    except Exception as error:  # what a command line is refused with has no common type
        return str(error) or type(error).__name__
    return None


def own_part(words: list[str]) -> list[str]:
    """The arguments of a line without what the shell takes for itself."""
    for place, word in enumerate(words):
        if word in ("<", ">", "|", "&&"):
            return words[1:place]
    return words[1:]


def is_written_like(words: list[str], *first: str) -> bool:
    return words[: len(first)] == list(first)


@pytest.mark.parametrize(
    ("line", "words"), [(line, words) for line, words in COMMANDS if words[0] == "keyturn"]
)
def test_commands_are_understood(line: str, words: list[str]) -> None:
    assert refusal(own_part(words)) is None, line


@pytest.mark.parametrize(
    "line",
    ["keys explode", "keys create", "keys list --expirng 7d", "events show first", "rotate KEY"],
)
def test_a_wrong_command_is_noticed(line: str) -> None:
    assert refusal(line.split())


def test_every_command_is_in_the_readme() -> None:
    root: Any = typer.main.get_command(app)
    known = {
        f"{name} {inner}" if isinstance(command, TyperGroup) else name
        for name, command in root.commands.items()
        for inner in (command.commands if isinstance(command, TyperGroup) else [""])
    }
    written = " ".join(" ".join(words) for line, words in COMMANDS if line.startswith("README"))
    foreground = {"up", "intake", "demo"}  # that is `make run`, a process of it, and `make demo`
    aside = {"accounts link"}  # in docs/library.md, beside the identities that it is about
    missing = {one for one in known - foreground - aside if f"keyturn {one}" not in written}
    assert missing == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_within_sentences_exist(path: Path) -> None:
    root: Any = typer.main.get_command(app)
    for written in _INLINE.findall(path.read_text("utf-8")):
        command = root
        for word in written.split()[1:]:
            if isinstance(command, TyperGroup):
                assert word in command.commands, f"{path.name}: {written}"
                command = command.commands[word]


def test_other_commands_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    services = parsed()["services"]
    for line, words in COMMANDS:
        if words[0] == "make":
            assert words[1] in targets, line
        elif is_written_like(words, "docker", "compose", "exec"):
            assert words[3] in services, line
        elif words[0] == "celery":
            assert words[1:3] == ["--app", "worker.main"], line
        elif is_written_like(words, "python", "-m", "worker.health"):
            assert words[3] in JOBS, line
        elif words[0] not in {
            "keyturn",
            "docker",
            "pip",
            "python3",
            "echo",
            "umask",
            "openssl",
            "psql",
        }:
            assert words[0] in {"alias", "export", "set", "rm"}, line


def test_processes_are_those_of_the_compose_file() -> None:
    written = [words for line, words in COMMANDS if line.startswith("operations.md")]
    for role in ("worker", "beat", "intake"):
        assert parsed()["services"][role]["command"] in written
    assert program("celery")
    assert program("keyturn")


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "CHANGELOG.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in _LINK.findall(path.read_text("utf-8")):
        if "://" not in target:
            assert (path.parent / target.partition("#")[0]).exists(), target


def test_every_document_is_found_from_the_readme() -> None:
    linked = set(_LINK.findall((ROOT / "README.md").read_text("utf-8")))
    assert {f"docs/{path.name}" for path in DOCUMENTS[1:]} - linked == set()


def test_every_promise_names_its_proof() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| (.+) \| (.+) \|$", readme.partition("## The promises")[2], re.MULTILINE)
    promises = [proof for promise, proof in rows if promise not in ("promise", "---")]
    proofs = [proof for proof in promises if "docs/" not in proof and proof.startswith("[")]
    assert len(proofs) >= 10
    for proof in proofs:
        for target in _LINK.findall(proof):
            assert "\ndef test_" in (ROOT / target).read_text("utf-8"), target


def test_documents_are_read_to_the_end() -> None:
    """A fence that is never closed would hide what comes after it."""
    for path in DOCUMENTS:
        assert path.read_text("utf-8").count("\n```") % 2 == 0, path.name


@pytest.fixture
def prepared(database_url: str, secrets_dir: Path) -> str:
    """A database as the documents suppose it."""
    prepare(database_url)
    return database_url


def prepare(database_url: str) -> None:
    """Add the roles of the settings, and Ada's account."""
    known = {
        name: Role(name, role.permissions, role.grantable) for name, role in DEFAULT_ROLES.items()
    }
    with Operator(database_url) as operator:
        operator.database.run(lambda tx: roles.sync(tx, known))
        operator.create_account("ada@example.com", "member")


def product(directory: Path, script: str, database_url: str, secrets_dir: Path) -> list[str]:
    """What a product prints that has the library as `keyturn`, and nothing else of ours."""
    (directory / "keyturn").symlink_to(ROOT / "models")
    (directory / "product.py").write_text(script, "utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
    environ = {
        "KEYTURN_DATABASE_URL": database_url,
        "KEYTURN_SECRETS_DIR": str(secrets_dir),
        "PYTHONPATH": str(directory),
    }
    ran = subprocess.run(
        [sys.executable, "product.py"],
        cwd=directory,
        env=kept | environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_the_readmes_library_call(prepared: str, secrets_dir: Path, tmp_path: Path) -> None:
    script = of("README.md", "python")
    said = _SAID.findall(script)
    assert len(said) == 1
    assert product(tmp_path, script, prepared, secrets_dir) == said


_MIDDLEWARE_AT_WORK: Final = """
def application(environ, start_response):
    start_response("200 OK", [])
    return [environ["keyturn.account"].encode()]


def answer(header):
    statuses = []
    environ = {"HTTP_AUTHORIZATION": header, "REMOTE_ADDR": "192.0.2.9"}
    body = KeyAuth(application, keys)(environ, lambda status, headers: statuses.append(status))
    print(statuses[0], b"".join(body).decode().strip())


answer("Bearer " + claimed.secret.reveal())
answer("Bearer nonsense")
answer("")
print("reported", report([new.id]))
keys.close()
"""


def test_the_librarys_page(secrets_dir: Path, tmp_path: Path) -> None:
    """All of docs/library.md as one program, by a database role that has only what it grants."""
    script = of("library.md", "python").replace('create_account("ada@', 'create_account("eve@')
    said = _SAID.findall(script)
    assert len(said) == 6
    with own_cluster() as server:
        prepare(server.url())
        make_roles(server)
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE ROLE product LOGIN")
            connection.execute(of("library.md", "sql").encode())
        url = server.url().replace("://keyturn@", "://product@")
        assert url != server.url()
        printed = product(tmp_path, script + _MIDDLEWARE_AT_WORK, url, secrets_dir)
    assert printed[: len(said)] == said
    assert printed[len(said) :] == [
        "200 OK ada@example.com",
        "401 Unauthorized malformed",
        "401 Unauthorized malformed",
        "reported 1",
    ]


def test_the_operators_queries_run(prepared: str) -> None:
    queries = [text for text in of("operations.md", "sql").split(";") if text.strip()]
    with psycopg.connect(prepared) as connection:
        for query in queries:
            connection.execute(query.encode()).fetchall()
