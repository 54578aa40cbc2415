"""Whether a message is really its producer's: looked at as raw bytes, before anything is parsed.

Each scheme is a class in a module of its own; `verifier` makes the one that a source's settings ask
for. What fails is `Unverified`, with the reason, and nothing else comes out but `KeysUnavailable`:
then the message is to be kept and tried again.
"""

import time
from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Final

import structlog

from worker.intake.verification.envelope import opened
from worker.intake.verification.message import (
    KeysUnavailable,
    Message,
    Unverified,
    Verifier,
    without_secrets,
)
from worker.setting_proofs import (
    EcdsaProof,
    FusionAuthProof,
    HeaderProof,
    HmacProof,
    JwsProof,
)

if TYPE_CHECKING:
    from worker.settings import Settings

__all__ = [
    "TRANSPORT",
    "KeysUnavailable",
    "Message",
    "Unverified",
    "Verifier",
    "opened",
    "tell",
    "verifier",
    "verify",
    "without_secrets",
]

log = structlog.get_logger()

TELL_EVERY: Final = 60.0
"""Seconds between two alarms about messages of one source."""


class _Transport:
    """Whoever may write to the stream is believed."""

    hidden: frozenset[str] = frozenset()

    def __call__(self, message: Message) -> None:
        return


TRANSPORT: Final[Verifier] = _Transport()


def verifier(settings: "Settings", name: str) -> Verifier:
    """What proves the messages of a source. Misconfigured where its secrets or keys are unusable.

    The libraries come in here: whoever trusts the transport does without them.
    """
    proof = settings.sources[name].proof
    if proof == "transport":
        return TRANSPORT
    if isinstance(proof, EcdsaProof):
        from worker.intake.verification.ecdsa import EcdsaVerifier

        return EcdsaVerifier(proof, name)
    if isinstance(proof, JwsProof):
        from worker.intake.verification.jws import JwsVerifier

        return JwsVerifier(proof, name)
    from worker.intake.verification.shared_secrets import SharedSecrets

    if isinstance(proof, FusionAuthProof) and proof.keys:
        secrets = None
    else:
        secrets = SharedSecrets(name, settings.secrets_dir, proof.secret_files)
    if isinstance(proof, FusionAuthProof):
        from worker.intake.verification.jws import FusionAuthVerifier

        return FusionAuthVerifier(proof, name, secrets)
    assert secrets is not None
    from worker.intake.verification import digests

    if isinstance(proof, HeaderProof):
        return digests.HeaderVerifier(proof, secrets)
    if isinstance(proof, HmacProof):
        return digests.HmacVerifier(proof, secrets)
    return digests.StandardVerifier(proof, secrets)


def verify(settings: "Settings", name: str, headers: Mapping[str, str], body: bytes) -> None:
    """Whether a message at hand would be believed of a source, by its secrets as they stand now.

    `headers` have names in small letters; a relay's envelope is `opened` before. Raises Unverified,
    KeysUnavailable or Misconfigured.
    """
    verifier(settings, name)(Message(headers, body))


_told: dict[str, tuple[float, int]] = {}
_telling = Lock()


def tell(source: str, why: str) -> None:
    """Raise the alarm about an unproven message, at most once in TELL_EVERY for each source."""
    now = time.monotonic()
    with _telling:
        since, count = _told.get(source, (float("-inf"), 0))
        due = now - since >= TELL_EVERY
        _told[source] = (now, 0) if due else (since, count + 1)
    if due:
        log.error("alarm", alarm="event_unverified", source=source, why=why, more=count)
