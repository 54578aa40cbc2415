"""New keys sealed to the public key of their account, as compact JWE (RFC 7516)."""

from collections.abc import Mapping, Sequence
from typing import Final

from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from models import outbox
from models.key_text import Secret
from models.public_keys import ALGORITHMS
from models.sinks import HandOver, Outcome, Told

ENCRYPTION: Final = "A256GCM"
LINE: Final = 64  # characters; a JWE in a mail is broken into lines, as PEM is
_KEYS: Final[Mapping[str, type[RSAKey | ECKey | OKPKey]]] = {
    "RSA": RSAKey,
    "EC": ECKey,
    "OKP": OKPKey,
}


class Sealed:
    """Commits the sealed key as an outgoing message together with its own receipt.

    So a rotation sends one message of each kind, whatever breaks on the way.
    """

    def __init__(self, send: Sequence[str]) -> None:
        self._send = send

    def deliver(self, hand_over: HandOver, secret: Secret) -> Outcome:
        jwk = hand_over.public_key
        if jwk is None:
            why = (
                f"the account {hand_over.account} has no public key: register one with "
                f"`keyturn accounts public-key {hand_over.account} FILE`"
            )
            return Outcome(state="failed", error=why)
        try:
            sealed = sealed_to(jwk, secret)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            why = f"nothing can be sealed to the account's public key ({type(error).__name__})"
            return Outcome(state="failed", error=f"{why}: register another one")
        messages = [_message(channel, hand_over, jwk, sealed) for channel in self._send]
        receipt = f"sealed to the key {jwk['kid']}, sent by {' and '.join(self._send)}"
        return Outcome(state="taken", receipt=receipt, messages=messages)


def sealed_to(jwk: Mapping[str, str], secret: Secret) -> str:
    """The secret as a compact JWE that the owner of this public key alone can open."""
    algorithm = ALGORITHMS[jwk["kty"]]
    header = {
        "alg": algorithm,
        "enc": ENCRYPTION,
        "kid": jwk["kid"],
        "cty": "text/plain",
    }
    key = _KEYS[jwk["kty"]].import_key({**jwk})
    content = secret.reveal().encode()
    return jwe.encrypt_compact(header, content, key, algorithms=[algorithm, ENCRYPTION])


def _message(channel: str, hand_over: HandOver, jwk: Mapping[str, str], sealed: str) -> Told:
    if channel == outbox.EVENTS:
        payload = {
            "account_id": str(hand_over.account_id),
            "rotation_id": str(hand_over.rotation_id),
            "key_ids": [str(hand_over.key_id)],
            "old_key_id": str(hand_over.old_key_id),
            "expires_at": hand_over.expires_at.isoformat(),
            "jwe": sealed,
        }
        return Told(channel=outbox.EVENTS, kind="key.sealed", payload=payload)
    lines = [sealed[at : at + LINE] for at in range(0, len(sealed), LINE)]
    mail = {
        "account": hand_over.account,
        "rotation_id": str(hand_over.rotation_id),
        "key": {
            "id": str(hand_over.key_id),
            "name": hand_over.key_name,
            "hint": hand_over.key_hint,
            "expires_at": hand_over.expires_at.isoformat(),
        },
        "kid": jwk["kid"],
        "lines": lines,
    }
    return Told(channel=outbox.MAIL, kind="rotation.sealed", payload=mail)
