"""Proofs by a secret that both sides know: sent as it is, or as a keyed digest of the body."""

import base64
import binascii
import hmac
import re
from datetime import datetime
from typing import Final

from standardwebhooks.webhooks import Webhook

from models.errors import Misconfigured
from worker.intake.verification.message import Message, Unverified, fingerprint
from worker.intake.verification.shared_secrets import SharedSecrets
from worker.intake.verification.window import check_age, instant
from worker.setting_proofs import HeaderProof, HmacProof, StandardProof

_WRONG: Final = "the signature is wrong: the message was altered, or signed with another secret"
_MAX_SIGNATURES: Final = 10
_PLACE: Final = re.compile(r"(\{[a-z]+\})")
_SECONDS: Final = re.compile(r"[1-9][0-9]{0,10}")


class HeaderVerifier:
    """The header holds the secret itself."""

    def __init__(self, proof: HeaderProof, secrets: SharedSecrets) -> None:
        self._proof = proof
        self._secrets = secrets
        self.hidden = frozenset({proof.header})

    def __call__(self, message: Message) -> None:
        given = message.header(self._proof.header)
        kept = given if message.replayed else fingerprint(given)
        due = [
            fingerprint(self._proof.prefix + secret.decode("utf-8", "replace"))
            for secret in self._secrets.all()
        ]
        if not _any_equal(kept, due):
            raise Unverified(
                f"the header {self._proof.header} does not hold the secret of this source"
            )


class HmacVerifier:
    """The header holds a digest of the body, keyed with the secret."""

    hidden: frozenset[str] = frozenset()

    def __init__(self, proof: HmacProof, secrets: SharedSecrets) -> None:
        self._proof = proof
        self._secrets = secrets

    def __call__(self, message: Message) -> None:
        proof = self._proof
        signatures, time = self._given(message)
        values = {"{timestamp}": time.encode("utf-8", "replace"), "{body}": message.body}
        signed = _filled(proof.signed, values)
        due = []
        for secret in self._secrets.all():
            key = _filled(proof.key, values | {"{secret}": secret})
            due.append(self._written(hmac.digest(key, signed, proof.digest)))
        given = [one.lower() if proof.encoding == "hex" else one for one in signatures]
        if all(len(one) != len(due[0]) for one in given):
            raise Unverified(
                f"the header {proof.header} holds no {proof.digest} in {proof.encoding}: if its "
                "producer signs otherwise, correct `digest` or `encoding` in the source's proof"
            )
        if not any(_any_equal(one, due) for one in given):
            raise Unverified(_WRONG)
        if time:
            check_age(message, instant(time), proof.max_age)

    def _given(self, message: Message) -> tuple[list[str], str]:
        """The signatures, any of which may be right, and the time as it is written."""
        proof = self._proof
        value = message.header(proof.header)
        time = message.header(proof.timestamp_header) if proof.timestamp_header else ""
        if proof.signature_field is None:
            signatures = [value]
        else:
            signatures = _fields(value, proof.signature_field)
            if proof.timestamp_field is not None:
                times = _fields(value, proof.timestamp_field)
                if len(times) > 1:
                    raise Unverified(f"the header {proof.header} names two times")
                [time] = times
        return [self._without_prefix(one) for one in signatures], time

    def _without_prefix(self, signature: str) -> str:
        prefix = self._proof.prefix
        if not signature.startswith(prefix):
            raise Unverified(f"the header {self._proof.header} does not begin with {prefix!r}")
        return signature.removeprefix(prefix)

    def _written(self, digest: bytes) -> str:
        if self._proof.encoding == "hex":
            return digest.hex()
        return base64.b64encode(digest).decode("ascii")


class StandardVerifier:
    """Standard Webhooks: `webhook-id`, `webhook-timestamp` and `webhook-signature`, or `svix-*`.

    The library signs; it is not asked to verify, since it holds every message against this moment
    and knows nothing of queues.
    """

    hidden: frozenset[str] = frozenset()

    def __init__(self, proof: StandardProof, secrets: SharedSecrets) -> None:
        """Raises Misconfigured where a secret is none of Standard Webhooks."""
        self._proof = proof
        self._secrets = secrets
        if not all(map(_standard_key, secrets.all())):
            raise Misconfigured(
                f"a secret of source {secrets.source} is none of Standard Webhooks, which begin "
                "with whsec_, base64 after that; put it into its file as the producer shows it"
            )

    def __call__(self, message: Message) -> None:
        family = "webhook" if "webhook-signature" in message.headers else "svix"
        if f"{family}-signature" not in message.headers:
            raise Unverified("the header webhook-signature is missing: have the relay pass it on")
        identity = message.header(f"{family}-id")
        time = message.header(f"{family}-timestamp")
        if not _SECONDS.fullmatch(time):
            raise Unverified(f"the header {family}-timestamp is no number of seconds")
        signed_at = instant(time)
        keys = [key for key in map(_standard_key, self._secrets.all()) if key]
        due = [self._signature(key, identity, signed_at, message) for key in keys]
        given = message.header(f"{family}-signature").split()[:_MAX_SIGNATURES]
        if not any(_any_equal(one, due) for one in given):
            raise Unverified(_WRONG)
        check_age(message, signed_at, self._proof.max_age)

    @staticmethod
    def _signature(key: bytes, identity: str, signed_at: datetime, message: Message) -> str:
        try:
            return Webhook(key).sign(identity, signed_at, message.body.decode("utf-8"))
        except UnicodeError:
            raise Unverified("the id or the body is not UTF-8, as Standard Webhooks are") from None


def _standard_key(secret: bytes) -> bytes | None:
    """The key that a secret like `whsec_...` stands for; the library would guess at any text."""
    text = secret.removeprefix(b"whsec_").rstrip(b"=")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True) or None
    except binascii.Error:
        return None


def _fields(value: str, name: str) -> list[str]:
    """The values of `name` in a header like `t=1,v1=ab,v1=cd`."""
    pairs = [part.strip().partition("=") for part in value.split(",", 2 * _MAX_SIGNATURES)]
    found = [text for key, sign, text in pairs if key == name and sign and text]
    if not found:
        raise Unverified(f"the header of the signature names no {name}=")
    return found[:_MAX_SIGNATURES]


def _filled(template: str, values: dict[str, bytes]) -> bytes:
    parts = _PLACE.split(template)
    return b"".join(values.get(part, part.encode()) for part in parts)


def _any_equal(given: str, due: list[str]) -> bool:
    """Whether it is one of these, in a time that does not tell how near it came."""
    raw = given.encode("utf-8", "replace")
    return any(hmac.compare_digest(raw, one.encode("utf-8")) for one in due)
