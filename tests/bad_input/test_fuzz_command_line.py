"""Any arguments, any stdin: a command ends with one of the exit codes, and shows no secret."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.main import get_command
from typer.testing import CliRunner

from tests.bad_input.inlet import examples
from tests.worker.cli.conftest import ADA, Cli
from worker.cli.app import app

ENDLESS = {("up",), ("demo",), ("intake",)}
EXIT_CODES = {0, 1, 2, 3, 4, 5, 130}

# What a process can be started with: no NUL, and bytes that are no UTF-8 as half surrogates.
ANY_TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20) | st.binary(
    max_size=8
).map(lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape"))
WORDS = st.sampled_from(
    [ADA, "", "-", "--", "--json", "--yes", "--help", "*", "%", "_", "..", "0", "-1", "1e9", "7d",
     "7x", "P1Y", "9" * 40, "\u0661", "member", "native", "okta:00u1", "account.disabled", "active",
     "00000000-0000-7000-8000-000000000000", "operator", "keys.expire_due", "10.0.0.0/8", "day",
     "2026-02-30", "2026-11-23T08:40:00Z", "x" * 5000, "\u202e", "\x1b[2J", "a\nb", "'; DROP", "1",
     "/dev/null", "/", "=", "--no-such", "--stat"]
)  # fmt: skip


def leaves(command: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], list[str]]]:
    """Every command that ends by itself, with the names of its options."""
    inner = getattr(command, "commands", None)
    if inner is None:
        options = [name for one in command.params for name in one.opts if name.startswith("-")]
        return [] if path in ENDLESS else [(path, options)]
    return [leaf for name, one in inner.items() for leaf in leaves(one, (*path, name))]


LEAVES = leaves(get_command(app))


@st.composite
def command_lines(draw: Any, values: st.SearchStrategy[str]) -> list[str]:
    path, options = draw(st.sampled_from(LEAVES))
    word = values | WORDS | ANY_TEXT
    given: list[str] = list(path)
    for _ in range(draw(st.integers(0, 6))):
        if options and draw(st.integers(0, 1)):
            given.append(draw(st.sampled_from(options)))
        given.append(draw(word))
    if draw(st.integers(0, 9)) == 0:
        del given[draw(st.integers(0, len(given) - 1))]
    return given


def test_the_tree_is_the_real_one() -> None:
    assert {("keys", "create"), ("events", "send"), ("migrate",)} <= {path for path, _ in LEAVES}


def test_any_command_line(cli: Cli) -> None:
    key = cli.new_key()
    text, secret = key["text"], key["text"].partition("_")[2]
    known = st.sampled_from([key["id"], key["id"].upper()])
    inputs = st.binary(max_size=40) | st.sampled_from([b"", b"y\n", text.encode(), b"\0", b"\r\n"])

    @settings(
        max_examples=examples(50),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(arguments=command_lines(known), stdin=inputs)
    def search(arguments: list[str], stdin: bytes) -> None:
        done = CliRunner().invoke(app, arguments, input=stdin, prog_name="keyturn")
        assert done.exception is None or isinstance(done.exception, SystemExit), repr(
            done.exception
        )
        assert done.exit_code in EXIT_CODES
        assert "Traceback" not in done.output
        assert secret not in done.output

    search()
    assert cli("keys", "list").exit_code == 0
