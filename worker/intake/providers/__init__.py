"""One adapter for each provider: a pure function from headers and raw bytes to normalised events.

Most producers differ only in where their JSON keeps things: those are files in `mappings/`, and
adding one is adding its file. The others are modules named here. An adapter raises nothing but
`Unreadable`, reads no clock and no configuration, and believes the type, not a state carried along.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from . import cloudevents, keycloak, leak_alerts, native, scim, ssf
from .keeping import kept
from .mapping import Effect, shipped, with_actions
from .mapping import Mapping as ProviderMapping
from .reading import Result, Unreadable

Parser = Callable[[Mapping[str, str], bytes], list[Result]]

PROVIDERS: Final[dict[str, Parser]] = {
    **{name: mapping.parse for name, mapping in shipped().items()},
    "cloudevents": cloudevents.parse,
    "github": leak_alerts.parse,
    "keycloak": keycloak.parse,
    "native": native.parse,
    "scim": scim.parse,
    "ssf": ssf.parse,
}
"""Every provider that can be read without more."""

MAPPED: Final = "mapped"
"""The provider whose mapping stands in its source."""

NAMES: Final = (*sorted(PROVIDERS), MAPPED)

__all__ = [
    "MAPPED", "NAMES", "PROVIDERS", "Effect", "Parser", "ProviderMapping", "Result", "Unreadable",
    "kept", "parse", "parser",
]  # fmt: skip


def parse(provider: str, headers: Mapping[str, str], body: bytes) -> list[Result]:
    """The events of one message, at least one; a batch's unreadable members stand among them.

    Raises `Unreadable` where the whole message cannot be read.
    """
    adapter = PROVIDERS.get(provider)
    if adapter is None:
        raise Unreadable(
            "unknown_provider", f"there is no such provider; name one of {', '.join(NAMES)}"
        )
    return adapter({name.lower(): value for name, value in headers.items()}, body)


def parser(
    provider: str,
    mapping: ProviderMapping | None = None,
    actions: Mapping[str, Effect] | None = None,
) -> Parser:
    """The adapter of one source: its provider's, with another meaning (`actions`) of some types.

    Raises ValueError where the provider needs a mapping, has none, or has no types to change.
    """
    adapter = _adapter(provider, mapping, actions or {})

    def read(headers: Mapping[str, str], body: bytes) -> list[Result]:
        return adapter({name.lower(): value for name, value in headers.items()}, body)

    return read


def _adapter(
    provider: str, mapping: ProviderMapping | None, actions: Mapping[str, Effect]
) -> Parser:
    if mapping is not None:
        if provider != MAPPED:
            raise ValueError(f"only the provider {MAPPED!r} has a table `mapping`: remove it")
        return with_actions(mapping, actions).parse
    if provider == MAPPED:
        raise ValueError(f"the provider {MAPPED!r} needs a table `mapping`: see the documentation")
    if not actions:
        return PROVIDERS[provider]
    if provider == "ssf":
        return partial(ssf.parse, actions=actions)
    if provider not in shipped():
        changeable = ", ".join(sorted([*shipped(), MAPPED, "ssf"]))
        raise ValueError(f"its events have no types to give a meaning to; these have: {changeable}")
    changed = with_actions(shipped()[provider], actions)
    if provider == "github":
        return partial(leak_alerts.parse, webhooks=changed)
    return changed.parse
