"""One adapter for each provider: a pure function from headers and raw bytes to normalised events.

To add one, write its module and name it in `PROVIDERS`. An adapter raises nothing but
`Unreadable`, reads no clock and no configuration, and believes the type, not a state carried along.
"""

from collections.abc import Callable, Mapping

from . import keycloak, native, okta
from .reading import Result, Unreadable

Parser = Callable[[Mapping[str, str], bytes], list[Result]]

PROVIDERS: dict[str, Parser] = {
    "keycloak": keycloak.parse,
    "native": native.parse,
    "okta": okta.parse,
}

__all__ = ["PROVIDERS", "Parser", "Result", "Unreadable", "parse"]


def parse(provider: str, headers: Mapping[str, str], body: bytes) -> list[Result]:
    """The events of one message, at least one; a batch's unreadable members stand among them.

    Raises `Unreadable` where the whole message cannot be read.
    """
    adapter = PROVIDERS.get(provider)
    if adapter is None:
        raise Unreadable(
            "unknown_provider", f"there is no such provider; name one of {', '.join(PROVIDERS)}"
        )
    return adapter(headers, body)
