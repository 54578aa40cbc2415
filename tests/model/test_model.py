"""Whatever happens, in whatever order: `verify` and the records say what the rules say."""

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.model.conftest import MODEL, PARTS
from tests.model.machine import Installation
from tests.model.real import Real


@pytest.mark.usefixtures("quiet_logs")
@pytest.mark.parametrize("part", range(PARTS))
def test_any_history_ends_as_the_rules_say(real: Real, part: int) -> None:
    """In parts, so that several processes share the histories: each begins from another seed,
    which Hypothesis makes from the name of the machine.
    """
    Installation.real = real
    named = type(f"Installation{part}", (Installation,), {})
    run_state_machine_as_test(named, settings=MODEL)
