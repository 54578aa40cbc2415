"""What Keyturn tells other systems, as the text of a CloudEvent."""

import json

from models.events import KeyEvent, outgoing
from models.messages import Outgoing


def cloud_event(message: Outgoing, source: str) -> str:
    """The event in JSON. Raises ValueError or TypeError for a message that cannot be one."""
    event = outgoing(
        id=message.id,
        type=KeyEvent(message.kind),
        source=source,
        subject=str(message.account_id or ""),
        time=message.created_at,
        data=message.payload,
    )
    return json.dumps(event, separators=(",", ":"))
