"""GitHub: its webhooks, and the alerts that secret scanning sends to the partners who issue keys.

An alert holds the leaked token itself. It is hashed here, on arrival: what leaves this module is
its SHA-256, and what is kept of a message that could not be read holds no token either.
"""

import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from models.events import AccountEvent, Action

from . import mapping, reading, values
from .reading import Result, Unreadable

_MEND = "send GitHub's alerts unchanged: an array of {token, type, url}"


def parse(
    headers: Mapping[str, str], body: bytes, webhooks: mapping.Mapping | None = None
) -> list[Result]:
    """The events of a webhook, or those of an array of alerts, one for each token."""
    body = _unwrapped(body)
    message = reading.json_value(body)
    if isinstance(message, list):
        return reading.each(message, _alert)
    if isinstance(message, dict) and ("token" in message or "token_sha256" in message):
        return [_alert(message)[0]]
    return (webhooks or mapping.shipped()["github"]).parse(headers, body)


def _unwrapped(body: bytes) -> bytes:
    """The JSON in a form (`payload=...`): what GitHub's webhooks send unless they are told else."""
    if not body.startswith(b"payload=") or len(body) > reading.MAX_BODY:
        return body
    return unquote_to_bytes(body.removeprefix(b"payload=").replace(b"+", b" "))


def is_alert(message: Any) -> bool:
    """Whether a member of an array is an alert."""
    return isinstance(message, dict) and "type" in message and (
        "token" in message or "token_sha256" in message
    )  # fmt: skip


def _alert(raw: Any) -> list[Result]:
    alert = reading.an_object(raw)
    digest = _digest(alert)
    url = alert.get("url") if isinstance(alert.get("url"), str) else ""
    place = hashlib.sha256(str(url).encode("utf-8", "replace")).hexdigest()[:16]
    return [
        AccountEvent(
            action=Action.KEY_LEAKED,
            key_digest=digest,
            # GitHub gives no id: the same token in the same place is the same alert.
            event_id=f"{digest}@{place}",
            raw_type=values.needed_text(alert.get("type"), "type", "missing_type", _MEND),
            reason=values.note(_without(alert.get("token"), url)),
        )
    ]


def _digest(alert: Mapping[str, Any]) -> str:
    token = alert.get("token")
    if token is None and "token_sha256" in alert:
        return values.sha256(alert["token_sha256"])
    if not isinstance(token, str) or not token.strip():
        raise Unreadable("missing_digest", f"the alert holds no token; {_MEND}")
    return hashlib.sha256(token.strip().encode("utf-8", "surrogatepass")).hexdigest()


def _without(token: Any, url: Any) -> str | None:
    """Where it was found; nothing where the place itself repeats the token."""
    if not isinstance(url, str) or (isinstance(token, str) and token.strip() in url):
        return None
    return url
