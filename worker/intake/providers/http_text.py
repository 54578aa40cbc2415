"""An HTTP request as text: the request line, the headers, a blank line, the body.

The request line becomes the headers `:method` and `:path`, as HTTP/2 names them.
"""

import re
from collections.abc import Mapping

_REQUEST = re.compile(
    rb"(?:[ \t]*(?:#|//)[^\n]*\n|[ \t]*\r?\n)*"
    rb"(GET|HEAD|OPTIONS|POST|PUT|PATCH|DELETE)[ \t]+([^\s]{1,4000})(?:[ \t]+HTTP/[0-9.]{1,3})?"
    rb"[ \t]*(?:\r?\n|$)"
)
_HEADER = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}):[ \t]*([^\r\n]{0,8000}?)[ \t]*(?:\r?\n|$)"
)
_BLANK = re.compile(rb"[ \t]*(?:\r?\n|$)")


def parsed(text: bytes) -> tuple[dict[str, str], bytes] | None:
    """Headers, by names in small letters, and body; None where the text is no request."""
    match = _REQUEST.match(text)
    if match is None:
        return None
    headers = {":method": match[1].decode(), ":path": match[2].decode("utf-8", "replace")}
    place = match.end()
    while (header := _HEADER.match(text, place)) is not None:
        headers.setdefault(header[1].decode().lower(), header[2].decode("utf-8", "replace"))
        place = header.end()
    blank = _BLANK.match(text, place)
    return headers, text[blank.end() if blank else place :]


def request_line(headers: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Method and path, from the request itself or from what proxies and relays note of it."""
    return _first(headers, _METHODS), _first(headers, _PATHS)


_METHODS = ("x-http-method-override", ":method", "x-original-method", "x-forwarded-method")
_PATHS = (":path", "x-original-uri", "x-original-url", "x-forwarded-uri", "x-envoy-original-path")


def _first(headers: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((headers[name] for name in names if headers.get(name, "").strip()), None)
