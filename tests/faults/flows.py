"""Every flow of the matrix. A new one joins by its entry, here or in the tuple of its noun."""

from typing import Final

from tests.faults.audit_flows import AUDIT_FLOWS
from tests.faults.compromise_flows import COMPROMISE_FLOWS
from tests.faults.event_flows import EVENT_FLOWS
from tests.faults.hand_over_flows import HAND_OVER_FLOWS
from tests.faults.import_flows import IMPORT_FLOWS
from tests.faults.key_flows import KEY_FLOWS
from tests.faults.operation_flows import OPERATION_FLOWS
from tests.faults.rotation_flows import ROTATION_FLOWS
from tests.faults.schedule_flows import SCHEDULE_FLOWS
from tests.faults.tenant_flows import TENANT_FLOWS

FLOWS: Final = {
    flow.name: flow
    for flow in (
        *EVENT_FLOWS,
        *KEY_FLOWS,
        *ROTATION_FLOWS,
        *HAND_OVER_FLOWS,
        *OPERATION_FLOWS,
        *SCHEDULE_FLOWS,
        *COMPROMISE_FLOWS,
        *AUDIT_FLOWS,
        *IMPORT_FLOWS,
        *TENANT_FLOWS,
    )
}
