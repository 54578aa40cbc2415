"""Logs: one line of JSON for each event, in UTC, and never a secret in it, whoever logs it."""

import io
import json
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, Literal

import pytest
import structlog
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from models.key_text import mint
from worker.logs import HIDDEN, configure_logging, keep_celery_out, redactor

KEY = mint("kt").reveal()
FOREIGN_KEY = mint("acme_live").reveal()
PASSWORD = "hush-hush"
CANARIES = (KEY.partition("_")[2], FOREIGN_KEY.rpartition("_")[2], PASSWORD)
TEXTS = {
    "key": KEY,
    "foreign key": FOREIGN_KEY,
    "url": f"postgresql://user:{PASSWORD}@host:5432/name",
    "dsn": f"host=h password={PASSWORD}",
    "between lines": f"\n{KEY}\t",
}
URL = TEXTS["url"]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Logging is global: what a test sets up goes away with it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook
    yield
    root.handlers, root.level = handlers, level
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(False)
    structlog.reset_defaults()
    for name in ("celery.app.trace", "celery.worker.strategy", "sqlalchemy", "kombu", "amqp"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def configured(format: Literal["json", "console"]) -> io.StringIO:
    """Where logs go from now on. In the test itself, since pytest adds handlers just before it."""
    stream = io.StringIO()
    configure_logging("debug", format, "kt", stream)
    return stream


@pytest.fixture(params=["json", "console"])
def format(request: pytest.FixtureRequest) -> Literal["json", "console"]:
    return "json" if request.param == "json" else "console"


def json_lines() -> Callable[[], list[dict[str, Any]]]:
    """What is logged from now on, as programs read it."""
    stream = io.StringIO()
    configure_logging(stream=stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def fail(text: str) -> None:
    try:
        raise LookupError(f"inner {text}")
    except LookupError as error:
        raise RuntimeError(f"outer {text}") from error


def log_exception(log: Any, text: str) -> None:
    try:
        fail(text)
    except RuntimeError:
        log.exception("failed")


class Shy:
    def __repr__(self) -> str:
        return f"Shy({KEY}, {URL})"


WAYS: dict[str, Callable[[Any, str], object]] = {
    "message": lambda log, text: log.info(f"see {text}"),
    "argument": lambda log, text: log.info("see %s", text),
    "not a number": lambda log, text: log.warning("see %d", text),
    "exception": log_exception,
    "stack": lambda log, text: log.info(text, stack_info=True),
}
STRUCTURED: dict[str, Callable[[Any, str], object]] = {
    "value": lambda log, text: log.info("see", it=text),
    "nested": lambda log, text: log.info("see", it={"a": [{"b": (text, {text})}]}),
    "name": lambda log, text: log.info("see", it={text: 1}, **{text: 1}),
    "bytes": lambda log, text: log.info("see", it=text.encode()),
    "object": lambda log, text: log.info("see", it=Shy()),
    "exception value": lambda log, text: log.info("see", it=ValueError(text)),
    "deep": lambda log, text: log.info("see", it=_deep(text)),
    "bound": lambda log, text: log.bind(it=text).info("see"),
}


def _deep(text: str) -> list[Any]:
    value: list[Any] = [text]
    for _ in range(50):
        value = [value]
    return value


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("logger", [structlog.get_logger, logging.getLogger])
def test_no_secret_in_any_line(
    format: Literal["json", "console"], logger: Callable[[str], Any], way: str, text: str
) -> None:
    out = configured(format)
    WAYS[way](logger("celery.something"), text)
    assert_logged_without_secret(out)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("way", STRUCTURED)
def test_no_secret_in_any_value(format: Literal["json", "console"], way: str, text: str) -> None:
    out = configured(format)
    STRUCTURED[way](structlog.get_logger("x"), text)
    assert_logged_without_secret(out)


def test_no_secret_of_the_context(format: Literal["json", "console"]) -> None:
    out = configured(format)
    with structlog.contextvars.bound_contextvars(request=KEY):
        structlog.get_logger("x").info("see")
    assert_logged_without_secret(out)


def test_no_secret_of_a_warning(format: Literal["json", "console"]) -> None:
    out = configured(format)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(KEY, stacklevel=1)
    assert_logged_without_secret(out)


def test_no_secret_of_a_thread_that_crashed(format: Literal["json", "console"]) -> None:
    out = configured(format)
    thread = threading.Thread(target=fail, args=(KEY,))
    thread.start()
    thread.join()
    assert_logged_without_secret(out)


def assert_logged_without_secret(out: io.StringIO) -> None:
    written = out.getvalue()
    assert written, "nothing was logged, so nothing was tested"
    assert not [canary for canary in CANARIES if canary in written]


def test_no_secret_of_a_process_that_crashed() -> None:
    program = (
        "from worker.logs import configure_logging\n"
        "configure_logging()\n"
        "import sys\n"
        "raise RuntimeError(sys.argv[1])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, KEY], capture_output=True, text=True, check=False
    )
    (line,) = ended.stderr.splitlines()
    assert json.loads(line)["event"] == "crashed"
    assert HIDDEN in json.loads(line)["exception"]
    assert KEY not in line
    assert ended.returncode == 1


def test_a_line_is_json_with_time_level_and_logger() -> None:
    lines = json_lines()
    structlog.get_logger("keyturn.settle").info(
        "settled", keys=5000, share=0.5, none=None, yes=True
    )
    logging.getLogger("celery.worker").warning("from %s", "celery")
    first, second = lines()
    assert first.items() >= {
        "event": "settled", "level": "info", "logger": "keyturn.settle",
        "keys": 5000, "share": 0.5, "none": None, "yes": True,
    }.items()  # fmt: skip
    assert second["event"] == "from celery"
    assert second.keys() == {"event", "level", "logger", "timestamp"}
    for line in (first, second):
        assert datetime.fromisoformat(line["timestamp"]).utcoffset() == timedelta(0)


def test_an_exception_is_one_line() -> None:
    lines = json_lines()
    log_exception(structlog.get_logger("x"), "this")
    (line,) = lines()
    assert "LookupError: inner this" in line["exception"]
    assert "RuntimeError: outer this" in line["exception"]


def test_a_line_that_cannot_be_formed_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    lines = json_lines()
    logging.getLogger("x").warning("%d keys", KEY)
    (line,) = lines()
    assert line["event"] == "a log line could not be written"
    assert line["where"].startswith("test_logs:")
    assert capsys.readouterr().err == ""


def test_levels() -> None:
    lines = json_lines()
    structlog.get_logger("x").debug("quiet")
    logging.getLogger("x").debug("quiet")
    logging.getLogger("celery.app.trace").info("quiet")
    logging.getLogger("sqlalchemy.engine").info("quiet")
    logging.getLogger("celery.worker").info("heard")
    assert [line["event"] for line in lines()] == ["heard"]


def test_celery_leaves_the_root_logger_alone() -> None:
    lines = json_lines()
    keep_celery_out()
    handlers = logging.getLogger().handlers[:]
    app = Celery("test", set_as_current=False)
    app.log.already_setup = False
    app.log.setup(loglevel="DEBUG", redirect_stdouts=True)
    assert logging.getLogger().handlers == handlers
    assert sys.stdout is not None
    assert type(sys.stdout).__name__ != "LoggingProxy"
    logging.getLogger("celery.task").warning("with %s", KEY)
    assert [line["event"] for line in lines()] == [f"with kt_{HIDDEN}"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"the key {KEY}, again", f"the key kt_{HIDDEN}, again"),
        (f"cut off: {KEY[:14]}", f"cut off: kt_{HIDDEN}"),
        (f"{FOREIGN_KEY}", f"acme_live_{HIDDEN}"),
        (URL, f"postgresql://user:{HIDDEN}@host:5432/name"),
        ("redis://:p@ss/w:rd@host:1/0", f"redis://:{HIDDEN}@host:1/0"),
        (f"host=h password='a b' PASSWORD={KEY}", f"host=h password={HIDDEN} PASSWORD={HIDDEN}"),
    ],
    ids=["key", "piece", "foreign key", "url", "odd url", "dsn"],
)
def test_what_is_hidden(text: str, shown: str) -> None:
    assert redactor("kt")(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "celery.worker.strategy task_received",
        "redis://localhost:6379/0",
        "018f3c2e-7b1a-7c3d-9e4f-0123456789ab",
        "kt_live is a prefix",
        "mail to ada@example.com",
        "packt_publishing",
    ],
)
def test_what_is_not_hidden(text: str) -> None:
    assert redactor("kt")(text) == text


@given(prefix=st.from_regex(r"[a-z][a-z0-9_]{0,23}", fullmatch=True), around=st.text())
def test_no_key_of_any_prefix_gets_through(prefix: str, around: str) -> None:
    key = mint(prefix).reveal()
    assert key[len(prefix) + 1 :] not in redactor("kt")(f"{around}{key}\n{around}")
