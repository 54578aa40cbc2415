"""What the model says of rotations by policy: whom the schedule may rotate, and whom it must.

When exactly it looks at a key is its own affair: the model follows what it did.
"""

from datetime import timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from tests.model import handover
from tests.model.facts import OPEN, Key

if TYPE_CHECKING:
    from tests.model.installation import Model

SCHEDULED: Final = "scheduled"
"""The role whose keys are rotated by the schedule."""
SHARE: Final = Fraction(1, 2)
"""At this share of their life, or up to a tenth of that time earlier."""
LOOKED_AT_AGAIN: Final = timedelta(days=1)
"""The longest pause after which a key that could not be rotated is looked at once more."""


def may_start(model: "Model", key: Key) -> bool:
    """Whether its time may have come."""
    return key.role == SCHEDULED and model.now >= key.created + key.life * float(SHARE) * 0.9


def must_have_started(model: "Model", key: Key) -> bool:
    """Whether the schedule, having looked at every key just now, cannot have left it out."""
    rotations = model.of_family(key)
    return (
        key.role == SCHEDULED
        and model.now >= key.created + key.life * float(SHARE)
        and key.life >= handover.MIN_LIFE
        and model.works(key)
        and not any(one.state in OPEN for one in rotations)
        and not any(one.old is key for one in rotations)
    )
