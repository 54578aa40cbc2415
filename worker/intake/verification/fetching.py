"""One GET over TLS, for public keys: small, in bounded time, and to no other place than named."""

import http.client
import ssl
import time
from typing import Final
from urllib.parse import urlsplit

TIMEOUT: Final = 5.0
"""Seconds for one step: to connect, or to get the next bytes."""

LONGEST: Final = 10.0
"""Seconds for all of it."""

LARGEST: Final = 256 * 1024
"""Bytes: many times what a provider's keys take."""


class FetchFailed(Exception):
    """Why there is no answer, in words."""


def fetch(url: str) -> bytes:
    """What `url` answers with status 200. No redirect is followed. Raises FetchFailed."""
    parts = urlsplit(url)
    try:
        connection = _connection(parts.scheme, parts.hostname or "", parts.port)
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            headers = {"Accept": "application/json", "User-Agent": "keyturn"}
            connection.request("GET", path, headers=headers)
            return _answer(connection.getresponse())
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FetchFailed(f"{parts.hostname} does not answer ({type(error).__name__})") from None


def _connection(scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    if scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)
    return http.client.HTTPConnection(host, port, timeout=TIMEOUT)  # the settings: loopback only


def _answer(response: http.client.HTTPResponse) -> bytes:
    if response.status != http.client.OK:
        moved = 300 <= response.status < 400
        hint = ", a redirect, which is not followed: name the place itself" if moved else ""
        raise FetchFailed(f"it answers with status {response.status}{hint}")
    until = time.monotonic() + LONGEST
    found = bytearray()
    while part := response.read1(LARGEST):
        found += part
        if len(found) > LARGEST:
            raise FetchFailed(f"it answers with over {LARGEST} bytes")
        if time.monotonic() > until:
            raise FetchFailed(f"it takes over {LONGEST:.0f} seconds")
    return bytes(found)
