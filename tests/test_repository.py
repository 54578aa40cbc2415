"""What the files of the repository keep to: sizes, names, imports, locks, no traces of a place.

Each rule is a function that names the offences in a text; it is shown one that it must find.
"""

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
RINGS: Final = ("models", "tasks", "worker")
RUN: Final = (*RINGS, "bench")
OURS: Final = (*RUN, "tests")
LONGEST_MODULE, LONGEST_FUNCTION, LONGEST_TASK = 400, 60, 15  # lines, none of them reached
READS_ENVIRONMENT: Final = re.compile(r"worker/(settings\w*\.py|embedded/\w+\.py)")
VAGUE_NAMES: Final = {
    *("util", "utils", "common", "helper", "helpers", "misc"),
    *("celery", "logging", "secrets"),  # each hides a package of that name
}
# In pieces, so that this file does not hold them.
PLACES: Final = re.compile(
    "|".join(
        [
            r"(?<![\w.])/wo" + r"rk/",
            r"(?<![\w.])/ro" + r"ot/",
            r"/tmp/pl" + "an",
            r"/opt/py" + "pi",
            r"py" + r"pi\.org",
            r"python" + r"hosted\.org",
            r"registry\.np" + "mjs",
        ]
    )
)

Check = Callable[[ast.Module], list[str]]


@cache
def tracked() -> tuple[Path, ...]:
    """What is, or would be, committed: all that .gitignore does not exclude."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return tuple(path for path in paths if path.is_file())


def modules(*packages: str) -> list[Path]:
    """The Python files of these directories."""
    return [
        path
        for path in tracked()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in packages
    ]


def offences(check: Check, *packages: str) -> list[str]:
    """What `check` finds in the modules of these directories."""
    found = modules(*packages)
    assert found, "nothing to look at"
    return [f"{name(path)}: {one}" for path in found for one in check(read(path))]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def read(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How long a function is, its decorators aside."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def long_functions(tree: ast.Module) -> list[str]:
    return [
        f"{one.name} has {lines(one)} lines"
        for one in functions(tree)
        if lines(one) >= LONGEST_FUNCTION
    ]


def long_tasks(tree: ast.Module) -> list[str]:
    return [
        f"{one.name} has {lines(one)} lines" for one in tasks(tree) if lines(one) >= LONGEST_TASK
    ]


def tasks(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions that are flows, by their decorator."""
    return [
        one
        for one in functions(tree)
        if any(
            "flow" in ast.unparse(decorator).partition("(")[0] for decorator in one.decorator_list
        )
    ]


def delayed_messages(tree: ast.Module) -> list[str]:
    """Due times live in rows, never in a message (rule 6.2)."""
    return [
        f"line {node.value.lineno}: {node.arg}="
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg in ("eta", "countdown")
    ]


def environment_reads(tree: ast.Module) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv"):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            taken = [one.name for one in node.names if one.name in ("environ", "getenv")]
            found += [f"line {node.lineno}: from os import {one}" for one in taken]
    return found


def own_absolute_imports(tree: ast.Module) -> list[str]:
    """`models` is shipped under another name too, so it must not know what it is called."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append(node.module or "")
    return [f"imports {one}" for one in found if one.partition(".")[0] in (*RINGS, "keyturn")]


def vague(path: Path) -> bool:
    return path.stem in VAGUE_NAMES or path.parent.name in VAGUE_NAMES


def unlocked(text: str) -> list[str]:
    """Requirements of a lock file without a hash, and lines that are no requirement."""
    found = []
    for requirement in text.replace("\\\n", " ").splitlines():
        if re.match(r"\s*(#|$)", requirement):
            continue
        pinned = re.match(r"[\w.-]+(\[[\w,.-]+\])?==[\w.!+]+\s", requirement)
        rest = requirement.partition("--hash")[2]
        if not pinned or not re.fullmatch(r"(=sha256:[0-9a-f]{64}(\s+--hash|\s*$))+", rest):
            found.append(requirement[:60])
    return found


@pytest.mark.parametrize(
    ("check", "source"),
    [
        (long_functions, "def f():\n" + "    pass\n" * (LONGEST_FUNCTION - 1)),
        (long_tasks, "@flow('x')\ndef f(run):\n" + "    pass\n" * (LONGEST_TASK - 1)),
        (delayed_messages, "task.apply_async(eta=tomorrow)"),
        (delayed_messages, "task.apply_async(countdown=5)"),
        (environment_reads, "import os\nx = os.environ['X']"),
        (environment_reads, "from os import getenv"),
        (own_absolute_imports, "from models.base import Tx"),
        (own_absolute_imports, "import worker.settings"),
        (own_absolute_imports, "def f():\n    from keyturn import Client"),
    ],
)
def test_checks_find_what_they_look_for(check: Check, source: str) -> None:
    assert check(ast.parse(source))


@pytest.mark.parametrize(
    "line",
    [
        "celery==5.7.0",
        "celery>=5.7 --hash=sha256:" + "0" * 64,
        "celery==5.7.0 \\\n    --hash=sha256:" + "0" * 63,
        "celery==5.7.0 \\\n    --hash=md5:" + "0" * 32,
        "--index-url somewhere",
    ],
)
def test_unlocked_requirements_are_found(line: str) -> None:
    assert unlocked(line)


def test_modules_are_short() -> None:
    counted = {name(path): len(path.read_text("utf-8").splitlines()) for path in modules(*RUN)}
    assert {module: count for module, count in counted.items() if count >= LONGEST_MODULE} == {}


def test_functions_are_short() -> None:
    assert offences(long_functions, *RUN) == []


def test_tasks_are_short_scripts() -> None:
    assert any(tasks(read(path)) for path in modules("tasks")), "no task was found"
    assert offences(long_tasks, "tasks") == []


def test_no_message_carries_a_due_time() -> None:
    assert offences(delayed_messages, *OURS) == []


def test_only_the_settings_read_the_environment() -> None:
    found = offences(environment_reads, *RINGS)
    assert [one for one in found if not READS_ENVIRONMENT.match(one)] == []


def test_models_imports_itself_relatively_and_nothing_above() -> None:
    assert offences(own_absolute_imports, "models") == []


def test_names_say_what_is_inside() -> None:
    assert [name(path) for path in modules(*OURS) if vague(path)] == []
    assert vague(ROOT / "worker/utils/text.py")


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-test.lock"])
def test_lock_files_have_hashes_and_no_hosts(lock: str) -> None:
    text = (ROOT / lock).read_text("utf-8")
    assert "://" not in text
    assert text.count("==") > 20
    assert unlocked(text) == []


def test_no_lock_file_that_names_hosts() -> None:
    assert [path.name for path in tracked() if path.name in ("uv.lock", "pylock.toml")] == []


def test_nothing_tells_of_the_place_where_it_was_written() -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{name(path)}: {match[0]}" for match in PLACES.finditer(text)]
    assert found == []
    assert PLACES.search("see /wo" + "rk/x")
    assert not PLACES.search("a frame/work/x")
