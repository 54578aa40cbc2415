"""Whether every promise is kept by a running installation, soon after whatever it went through."""

from datetime import timedelta
from typing import Final

from models.invariants import Tolerance, Violation, check
from models.operator import Operator
from tests.eventually import eventually

SECONDS: Final = timedelta(seconds=10)
TOLERANCE: Final = Tolerance(
    in_flight=SECONDS, settle=SECONDS, event=SECONDS, rotation=SECONDS, message=SECONDS
)
"""What second-sized settings ask for. Notices keep their hours: a life is over before they end."""


def assert_invariants(operator: Operator, within: float = 30) -> None:
    """A full check finds nothing, at the latest when what a crash left behind was taken up."""
    found: list[Violation] = []

    def kept() -> bool:
        found[:] = check(operator.database, operator.policy, full=True, tolerance=TOLERANCE)
        return not found

    try:
        eventually(kept, within=within, every=1)
    except AssertionError as error:
        raise AssertionError(f"broken for {within} s: {found}") from error
