"""Whatever happens, in whatever order: `verify` and the records say what the rules say."""

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.model.conftest import MODEL
from tests.model.machine import Installation
from tests.model.real import Real


@pytest.mark.usefixtures("quiet_logs")
def test_any_history_ends_as_the_rules_say(real: Real) -> None:
    Installation.real = real
    run_state_machine_as_test(Installation, settings=MODEL)
