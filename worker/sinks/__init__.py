"""The ways by which new keys get to where they are needed."""

from collections.abc import Mapping

from pydantic import BaseModel

from models.sinks import Sink
from worker.setting_sinks import AwsSink, ExecSink, FileSink, SealedSink, SinkTable, VaultSink

from .aws import AwsSecretsManager
from .file import File
from .program import Program
from .sealed import Sealed
from .vault import Vault

__all__ = ["AwsSecretsManager", "File", "Program", "Sealed", "Vault", "make_sinks"]


def make_sinks(tables: Mapping[str, SinkTable]) -> Mapping[str, Sink]:
    """The sinks of the settings, by name. Opens no connection.

    Raises Misconfigured where one cannot work: a directory or program that others may change, or a
    package that is not installed.
    """
    return {name: _made(name, table) for name, table in tables.items()}


def _made(name: str, table: BaseModel) -> Sink:
    match table:
        case SealedSink():
            return Sealed(("mail", "events") if table.send == "both" else (table.send,))
        case FileSink():
            return File(table.directory, table.name)
        case ExecSink():
            return Program(table.command, table.timeout.total_seconds())
        case VaultSink():
            return Vault(table)
        case AwsSink():
            return AwsSecretsManager(table)
    raise AssertionError(f"no sink of kind {type(table).__name__}, which {name} names")
