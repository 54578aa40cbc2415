"""Structured logs without secrets: one JSON object a line on stderr, times in UTC.

Everything passes one pipeline, that of the standard library's loggers (Celery, SQLAlchemy,
Alembic) included, and nothing leaves it without redaction.
"""

import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor

HIDDEN: Final = "[redacted]"
_DEEPEST: Final = 8  # levels of a nested value that are looked into one by one

# Whatever has the form of a key of any prefix: 27 random and 6 more characters in base62; a
# little less counts too, for a text that somebody has cut off.
_ANY_KEY = r"(?<=_)[0-9A-Za-z]{24,}"
_URL_PASSWORD = re.compile(r"(?<=://)([^\s:/@]*):\S+@")
_DSN_PASSWORD = re.compile(r"(?i)\b(password|passwd|pwd)=('[^']*'|[^\s&]+)")

_QUIET: Final = {
    # Celery's lines of each task say less than ours, and would hold its arguments.
    "celery.app.trace": logging.WARNING,
    "celery.worker.strategy": logging.WARNING,
    "sqlalchemy": logging.WARNING,
    "alembic": logging.WARNING,
    "kombu": logging.WARNING,
    "amqp": logging.WARNING,
    # At level debug these write down what they send: new keys.
    "botocore": logging.WARNING,
    "boto3": logging.WARNING,
    "urllib3": logging.WARNING,
    "hvac": logging.WARNING,
}


def redactor(key_prefix: str) -> Callable[[str], str]:
    """A function that hides what looks like a key, or like the password of a URL, in a text.

    Of keys that begin with `key_prefix` it hides shorter pieces too.
    """
    own_key = rf"(?<=(?<![0-9A-Za-z]){re.escape(key_prefix)}_)[0-9A-Za-z]{{8,}}"
    keys = re.compile(f"{_ANY_KEY}|{own_key}")

    def redact(text: str) -> str:
        text = keys.sub(HIDDEN, text)
        text = _URL_PASSWORD.sub(rf"\1:{HIDDEN}@", text)
        return _DSN_PASSWORD.sub(rf"\1={HIDDEN}", text)

    return redact


def configure_logging(
    level: str = "info",
    format: Literal["json", "console"] = "json",
    key_prefix: str = "kt",
    stream: TextIO | None = None,
) -> None:
    """Send all logs of this process to `stream` (stderr), and uncaught exceptions too.

    Takes the place of every handler of the root logger: another one would write unredacted.
    """
    out = stream or sys.stderr
    handler = _Handler(out)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=_shared(),
            processors=[
                ProcessorFormatter.remove_processors_meta,
                structlog.processors.StackInfoRenderer(),
                structlog.processors.format_exc_info,
                _Redaction(redactor(key_prefix)),
                _renderer(format, out),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    sys.excepthook = _log_crash
    threading.excepthook = _log_thread_crash


def keep_celery_out() -> None:
    """Keep Celery from setting up logging of its own, by the signal it has for that."""
    from celery.signals import setup_logging  # only a worker has Celery loaded

    setup_logging.connect(_do_nothing, weak=False)


def _do_nothing(**kwargs: object) -> None:
    """A receiver is all it takes."""


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _renderer(format: str, stream: TextIO) -> Processor:
    if format == "json":
        return structlog.processors.JSONRenderer(json.dumps)
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
    )


class _Redaction:
    """The last processor before rendering: nothing but redacted text, numbers and None passes."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact

    def __call__(self, logger: object, method: str, event: EventDict) -> EventDict:
        return {self._redact(str(name)): self._clean(value) for name, value in event.items()}

    def _clean(self, value: Any, depth: int = 0) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return self._redact(str(value))
        if depth < _DEEPEST and isinstance(value, Mapping):
            return {
                self._redact(str(name)): self._clean(inner, depth + 1)
                for name, inner in value.items()
            }
        if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
            return [self._clean(inner, depth + 1) for inner in value]
        return self._redact(repr(value) if isinstance(value, bytes | bytearray) else str(value))


class _Handler(logging.StreamHandler[TextIO]):
    """Writes a line; what cannot be formed into one is not printed raw, as the base class would."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        kind = sys.exc_info()[0]
        line = {
            "event": "a log line could not be written",
            "level": "error",
            "logger": record.name,
            "where": f"{record.module}:{record.lineno}",
            "why": kind.__name__ if kind else None,
        }
        with suppress(Exception):  # where the stream itself is broken, nothing is left to do
            self.stream.write(json.dumps(line) + self.terminator)
            self.flush()


def _log_crash(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return  # asked for
    structlog.get_logger("keyturn").critical("crashed", exc_info=(kind, error, trace))


def _log_thread_crash(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
        name = args.thread.name if args.thread else None
        info = (args.exc_type, args.exc_value, args.exc_traceback)
        structlog.get_logger("keyturn").critical("thread crashed", thread=name, exc_info=info)
