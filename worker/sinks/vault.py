"""New keys in the KV store, version 2, of HashiCorp Vault or OpenBao."""

import os
import stat
from pathlib import Path
from typing import Any, Final

from models.key_text import Secret
from models.sinks import HandOver, Outcome
from worker.setting_sinks import VaultSink
from worker.sink_names import Unnameable, named

from .optional import loaded, needed

TIMEOUT: Final = 10.0  # seconds for connecting, and for each answer
LONGEST_TOKEN: Final = 4096  # bytes; those of Vault have about 100

_RETRIED: Final = {
    401: "it does not know the token",
    403: "its policy does not let the token do this, or the token has ended",
    429: "it is asked too often",
    500: "it has an error of its own",
    501: "it is not initialised",
    502: "it cannot reach what it needs",
    503: "it is sealed or down",
}
"""Answers after which a later try may do: tokens are renewed, and servers unsealed."""


class _Unusable(Exception):
    """The token cannot be used. Says why, and how to mend it."""


class Vault:
    """One secret for each key, and one version of it for each rotation.

    The secret names the rotation that wrote it, and is written by check-and-set: a repetition finds
    its own version there, and nobody's version is overwritten unseen. Raises Misconfigured where
    the package hvac is not installed.
    """

    def __init__(self, table: VaultSink, *, timeout: float = TIMEOUT) -> None:
        needed("hvac", "vault")
        self._table = table
        self._timeout = timeout

    def deliver(self, hand_over: HandOver, secret: Secret) -> Outcome:
        errors, requests = loaded("hvac.exceptions"), loaded("requests.exceptions")
        try:
            path = named(self._table.path, hand_over)
            return self._put(path, hand_over, secret, errors)
        except (Unnameable, _Unusable) as error:
            return Outcome(state="failed", error=str(error))
        except errors.VaultError as error:
            return _refused(error, errors)
        except requests.RequestException as error:
            return _later(f"cannot be reached ({type(error).__name__})")

    def _put(self, path: str, hand_over: HandOver, secret: Secret, errors: Any) -> Outcome:
        store = self._store()
        version, mine = self._present(store, path, hand_over, errors)
        if mine:
            return self._taken(path, version)
        content = {
            self._table.field: secret.reveal(),
            "rotation_id": str(hand_over.rotation_id),
            "key_id": str(hand_over.key_id),
            "expires_at": hand_over.expires_at.isoformat(),
        }
        try:
            answer = store.create_or_update_secret(
                path, content, cas=version, mount_point=self._table.mount
            )
        except errors.InvalidRequest:
            now, mine = self._present(store, path, hand_over, errors)
            if mine:
                return self._taken(path, now)
            if now != version:
                return _later("has another version, which was written meanwhile")
            raise
        if not isinstance(answer, dict):
            return _later("gave an answer that is none of its API: is `address` the server's own?")
        return self._taken(path, answer["data"]["version"])

    def _store(self) -> Any:
        verify = True if self._table.ca_file is None else str(self._table.ca_file)
        client = loaded("hvac").Client(
            url=self._table.address,
            token=_token(self._table.token_file),
            namespace=self._table.namespace,
            verify=verify,
            timeout=self._timeout,
            allow_redirects=False,  # the token goes to the server that the settings name alone
        )
        return client.secrets.kv.v2

    def _present(self, store: Any, path: str, hand_over: HandOver, errors: Any) -> tuple[int, bool]:
        """The newest version that there is, 0 for none, and whether this rotation wrote it."""
        try:
            answer = store.read_secret_version(
                path, mount_point=self._table.mount, raise_on_deleted_version=False
            )
        except errors.InvalidPath as error:
            answer = error.json  # of one that was destroyed; of one that never was it says nothing
        found = answer.get("data") if isinstance(answer, dict) else None
        if not found or "metadata" not in found:
            return 0, False
        content = found.get("data") or {}
        mine = content.get("rotation_id") == str(hand_over.rotation_id)
        return int(found["metadata"]["version"]), mine

    def _taken(self, path: str, version: int) -> Outcome:
        return Outcome(state="taken", receipt=f"{self._table.mount}/{path}, version {version}")


def _token(file: Path) -> str:
    """What the file holds now: an agent beside it renews it. Raises _Unusable."""
    try:
        with file.open("rb") as opened:
            status = os.fstat(opened.fileno())
            text = opened.read(LONGEST_TOKEN + 1).strip()
    except OSError as error:
        raise _Unusable(f"the token in {file} cannot be read ({error.strerror})") from None
    if status.st_mode & stat.S_IRWXO:
        raise _Unusable(f"the token in {file} is open to everybody: run `chmod o= {file}`")
    if not 0 < len(text) <= LONGEST_TOKEN or not text.isascii() or len(text.split()) != 1:
        raise _Unusable(f"{file} does not hold a token, and nothing but a token")
    return text.decode()


def _refused(error: Any, errors: Any) -> Outcome:
    """What an answer other than success means. Its own words are not told: they may quote ours."""
    if isinstance(error, errors.InvalidPath):
        why = "has no KV store of version 2 there: correct `mount`"
        return Outcome(state="failed", error=f"the server {why}")
    if isinstance(error, errors.InvalidRequest):
        why = "refused the secret (400): are `mount` and `path` right, and is its size allowed?"
        return Outcome(state="failed", error=f"the server {why}")
    kinds = {type(errors.VaultError.from_status(code)): code for code in _RETRIED}
    code = kinds.get(type(error))
    return _later(f"did not take it: {_RETRIED.get(code or 0, 'its answer is unknown')}")


def _later(why: str) -> Outcome:
    return Outcome(state="retry", error=f"the server {why}")
