"""Every flow of the matrix. A new one joins by its entry, here or in the tuple of its noun."""

from typing import Final

from tests.faults.audit_flows import AUDIT_FLOWS
from tests.faults.event_flows import EVENT_FLOWS
from tests.faults.key_flows import KEY_FLOWS
from tests.faults.rotation_flows import ROTATION_FLOWS

FLOWS: Final = {
    flow.name: flow for flow in (*EVENT_FLOWS, *KEY_FLOWS, *ROTATION_FLOWS, *AUDIT_FLOWS)
}
