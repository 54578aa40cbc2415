"""How the keys of one kind are rotated: what an operator chooses for a key, account or role."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from .rotation_times import Rotate
from .windows import Window

DEFAULT: Final = "default"
"""The policy of keys for which nobody chose one, at the key, its account or its role."""

CLAIM: Final = "claim"
"""The hand-over in which the holder fetches the new key with the old one (rule 5.3)."""

UNDECIDED: Final = "undecided"
"""No sink is chosen yet: a product asked for the rotation, and only a worker knows the policies."""

OnCompromise: TypeAlias = Literal["hold", "hold_and_issue"]
InUse: TypeAlias = Literal["wait", "retire"]


@dataclass(frozen=True, kw_only=True)
class RotationPolicy:
    """A named choice. The key's own name of one wins over its account's, and that over its role's.

    `sink` names the hand-over. `on_compromise` says what follows a report that a key is known to
    others: its hold alone, or a successor too (rule 5.9). `in_use` says what happens to an old key
    that is still used at its deadline (rule 5.5). `rotate` says when the schedule rotates a key by
    itself, if it ever does, and `window` in which hours.
    """

    sink: str = CLAIM
    on_compromise: OnCompromise = "hold"
    in_use: InUse = "wait"
    rotate: Rotate = None
    window: Window | None = None


def chosen(policies: Mapping[str, RotationPolicy], name: str | None) -> RotationPolicy:
    """The policy of a name; the default one where the name is not, or no longer, in use."""
    return policies.get(name or DEFAULT) or policies.get(DEFAULT) or RotationPolicy()
