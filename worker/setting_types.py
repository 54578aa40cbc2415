"""The kinds of values that settings have, each refused with a word on how to write it."""

import ipaddress
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from models.durations import parse_duration

REDIS_SCHEMES: Final = ("redis", "rediss")
AMQP_SCHEMES: Final = ("amqp", "amqps")
ENCRYPTED: Final = ("require", "verify-ca", "verify-full")
"""The values of `sslmode` with which libpq sends nothing in clear."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        raise ValueError("not a duration: write it in quotes and with its unit, such as '15m'")
    return parse_duration(value)


def _some_time(value: timedelta) -> timedelta:
    if value < timedelta(seconds=1):
        raise ValueError("too short: write 1s or more")
    return value


def home_path(path: Path) -> Path:
    """The path, `~` replaced by the home directory that it names; raises ValueError."""
    one_line(str(path))
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError("names the home directory of nobody here: write the whole path") from None


def _thresholds(value: object) -> tuple[timedelta, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not parts:
        raise ValueError("not a list of durations: write it like '30d,7d,1d'")
    thresholds = tuple(_duration(p.strip() if isinstance(p, str) else p) for p in parts)
    if list(thresholds) != sorted(set(thresholds), reverse=True):
        raise ValueError("unsorted or repeated: write each once, the longest first ('30d,7d,1d')")
    return tuple(_some_time(threshold) for threshold in thresholds)


def one_line(value: str) -> str:
    """`value`, if it has no control character; raises ValueError."""
    if _CONTROL.search(value):
        raise ValueError("has a newline or another control character: write one plain line")
    return value


def split_url(url: str, schemes: tuple[str, ...], example: str) -> SplitResult:
    """The parts of a URL of one of `schemes` that names a host; raises ValueError without it.

    The message never holds the URL, which may carry a password.
    """
    try:
        parts = urlsplit(one_line(url))
        usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"not a usable URL (its value is not shown): write it like {example}")
    return parts


def is_loopback(host: str) -> bool:
    """Whether what is sent to `host` stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _database_url(url: str) -> str:
    example = "postgresql://user:password@host:5432/name"
    try:
        urlsplit(one_line(url))
        parts = make_url(url)
    except (ValueError, ArgumentError):
        parts = None
    # The host may be missing: a URL may name the directory of a socket in its query instead.
    if parts is None or parts.drivername not in ("postgresql", "postgresql+psycopg"):
        raise ValueError(f"not a PostgreSQL URL (its value is not shown): write it like {example}")
    if "@" in (parts.host or ""):  # the driver would show it as a host that it cannot find
        raise ValueError("two signs @ (its value is not shown): write that of a password as %40")
    return url


def unencrypted_host(url: str, environment: Mapping[str, str]) -> str | None:
    """The host beyond this machine that this database URL may reach without TLS, if there is one.

    What the URL leaves open libpq takes from its own variables, or from a service's file.
    """
    parts = make_url(url)

    def given(name: str, variable: str) -> list[str]:
        named = parts.query.get(name) or environment.get(variable) or ""
        texts = (named,) if isinstance(named, str) else named
        return [one for text in texts for one in text.split(",") if one]

    if set(given("sslmode", "PGSSLMODE")) & set(ENCRYPTED):
        return None
    named = [parts.host] if parts.host else given("host", "PGHOST")
    hosts = [*given("hostaddr", "PGHOSTADDR"), *(_bare(one) for one in named)]
    elsewhere = [one for one in hosts if not one.startswith(("/", "@")) and not is_loopback(one)]
    service = [f"the service {one}" for one in given("service", "PGSERVICE")]
    return next(iter(elsewhere or service), None)


def _bare(host: str) -> str:
    """A host without the port that SQLAlchemy lets stand behind it."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host


def _broker_url(url: str) -> str:
    split_url(url, REDIS_SCHEMES + AMQP_SCHEMES, "rediss://host:6379/0 or amqps://host:5671//")
    return url


def _stream_url(url: str) -> str:
    split_url(url, REDIS_SCHEMES, "rediss://host:6379/0")
    return url


def _amqp_url(url: str) -> str:
    split_url(url, AMQP_SCHEMES, "amqps://user:password@host:5671/vhost")
    return url


def _smtp_url(url: str) -> str:
    split_url(url, ("smtp", "smtps"), "smtps://user:password@host:465")
    return url


Duration = Annotated[timedelta, BeforeValidator(_duration)]
"""A length of time that may be nothing."""

Period = Annotated[timedelta, BeforeValidator(_duration), AfterValidator(_some_time)]
"""A length of time of a second or more."""

Thresholds = Annotated[tuple[timedelta, ...], NoDecode, BeforeValidator(_thresholds)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Batch = Annotated[int, Field(ge=1, le=100_000)]
Rate = Annotated[float, Field(ge=0.01, le=1000)]
Share = Annotated[float, Field(gt=0, lt=1)]
DatabaseUrl = Annotated[str, AfterValidator(_database_url)]
BrokerUrl = Annotated[str, AfterValidator(_broker_url)]
StreamUrl = Annotated[str, AfterValidator(_stream_url)]
AmqpUrl = Annotated[str, AfterValidator(_amqp_url)]
SmtpUrl = Annotated[str, AfterValidator(_smtp_url)]
Level = Annotated[
    Literal["debug", "info", "warning", "error"],
    BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value),
]
Line = Annotated[str, AfterValidator(one_line)]
HomePath = Annotated[Path, AfterValidator(home_path)]
