"""Says what is wrong with the settings, all at once: where, why, and how to mend it."""

import difflib
import stat
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsError

from models.errors import Misconfigured
from worker.setting_fields import PREFIX
from worker.setting_proofs import PROOFS
from worker.setting_sinks import KINDS
from worker.setting_tables import RoleTable, RotationPolicyTable, Source

T = TypeVar("T", bound=BaseSettings)
TABLES: Final[Mapping[str, Iterable[str]]] = {
    "sources": {*Source.model_fields, *(name for table in PROOFS for name in table.model_fields)},
    "roles": RoleTable.model_fields,
    "sinks": {field for table in KINDS.values() for field in table.model_fields},
    "rotation_policies": RotationPolicyTable.model_fields,
}
"""Settings that are tables of the file, and what such a table may hold."""


def setting_names(settings: type[BaseSettings]) -> list[str]:
    """The names of all settings, as `keyturn.toml` has them."""
    return [field.alias or name for name, field in settings.model_fields.items()]


@dataclass(frozen=True)
class Given:
    """What was set, and where: in `variables` (upper case), or in the `file` at `path`."""

    variables: Mapping[str, str]
    file: Mapping[str, object]
    path: Path
    names: Collection[str]

    def place(self, name: str, inner: Sequence[str]) -> str:
        """Where the reader finds the setting to correct."""
        variable = PREFIX + name.upper()
        if name not in TABLES and (variable in self.variables or name not in self.file):
            return variable
        if name in TABLES and inner:
            name = " ".join([f"[{name}.{inner[0]}]", *inner[1:]])
        return f"{self.path.name}: {name}"


def checked(settings: type[T], path: Path, environ: Mapping[str, str]) -> T:
    """The settings from the environment, which is `environ`, and from the file at `path`.

    Raises Misconfigured with one line for each fault. No line shows the value of a setting that
    may hold a password.
    """
    variables = {name.upper(): value for name, value in environ.items()}
    file, faults = _read(path, named=bool(variables.get(f"{PREFIX}CONFIG", "").strip()))
    given = Given(variables, file, path, setting_names(settings))
    faults += [*_open_password_faults(given), *_variable_faults(given)]
    try:
        made = settings()
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        faults += [line for line in (_line(detail, given) for detail in details) if line]
    except (SettingsError, ValueError, OSError, RecursionError):
        if not faults:
            raise
    else:
        if not faults:
            return made
    count = "a setting is wrong" if len(faults) == 1 else f"{len(faults)} settings are wrong"
    raise Misconfigured("\n".join([f"{count}:", *(f"  {fault}" for fault in faults)])) from None


def _read(path: Path, *, named: bool) -> tuple[Mapping[str, object], list[str]]:
    try:
        text = path.read_text("utf-8")
        if text.startswith("\ufeff"):
            return {}, [f"{path}: begins with a byte order mark; save it as UTF-8 without one"]
        return tomllib.loads(text), []
    except FileNotFoundError:
        fault = f"{PREFIX}CONFIG: there is no file {path}; correct the path, or unset it"
        return {}, [fault] if named else []
    except tomllib.TOMLDecodeError as error:
        return {}, [f"{path}: is not TOML ({error}); correct that line"]
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        return {}, [f"{path}: cannot be read ({reason}); make it a text file that Keyturn may read"]
    except (ValueError, RecursionError):  # numbers and nesting without end
        return {}, [f"{path}: holds what no setting is, a number or a nesting too large; remove it"]


def _open_password_faults(given: Given) -> Iterator[str]:
    """A file that others can read may hold settings, but no password."""
    holding = [name for name, value in given.file.items() if _has_password(value)]
    if holding and given.path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        variables = " and ".join(f"{PREFIX}{name.upper()}" for name in holding)
        yield (
            f"{given.path}: holds a password ({', '.join(holding)}) and is open to group or "
            f"others; run `chmod 600 {given.path}`, or set {variables} instead"
        )


def _has_password(value: object) -> bool:
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
    except ValueError:
        return False  # no URL: is among the faults, if it should be one
    return bool(parts and (parts.password or "password=" in parts.query))


def _variable_faults(given: Given) -> Iterator[str]:
    known = {"config", *given.names} - set(TABLES)
    for variable, value in sorted(given.variables.items()):
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name in TABLES:
            yield f"{variable}: write [{name}.NAME] in keyturn.toml instead, and unset it"
        elif name not in known:
            yield f"{variable}: there is no such setting; {_nearest(name, known, PREFIX)}"
        elif not value.strip():
            yield f"{variable}: is set but empty; give it a value, or unset it"


def _line(detail: ErrorDetails, given: Given) -> str | None:
    name, *inner = [str(part) for part in detail["loc"] if part != "[key]"] or [""]
    if name == "sinks" and inner[1:2] and inner[1] in KINDS:
        del inner[1]  # the validator's own word for which table it is
    if name == "sources" and inner[1:2] == ["proof"]:
        del inner[2:3]  # the same
    variable = PREFIX + name.upper()
    if variable in given.variables and (name in TABLES or not given.variables[variable].strip()):
        return None  # said already
    where = given.place(name, inner)
    if detail["type"] == "extra_forbidden" and "mapping" in inner[:-1]:
        return f"{where}: a mapping has no such member; docs/adding-a-provider.md lists them"
    if detail["type"] == "model_type" and inner[-1:] == ["mapping"]:
        return f"{where}: is not the name of a file but a table, as docs/adding-a-provider.md shows"
    if detail["type"] == "extra_forbidden":
        known = list(TABLES[name]) if name in TABLES else given.names
        return f"{where}: there is no such setting; {_nearest([name, *inner][-1], known)}"
    if detail["type"] == "missing":
        return f"{where}: is missing; add it"
    if detail["type"].startswith("union_tag_"):
        return f"{where} kind: write one of {', '.join(KINDS)}"
    fault = detail.get("ctx", {}).get("error")
    message = str(fault) if fault is not None else detail["msg"][:1].lower() + detail["msg"][1:]
    return f"{where}: {message}"


def _nearest(name: str, known: Collection[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    if not close:
        return "docs/configuration.md lists them all"
    return f"did you mean {prefix + close[0].upper() if prefix else close[0]}?"
