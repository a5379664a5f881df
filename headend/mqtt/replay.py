"""What was kept aside, understood again: after a meter was imported, or a mapping corrected."""

from __future__ import annotations

from datetime import datetime

from headend.ingest import EvidencePolicy
from headend.mqtt.interpret import Interpreter
from headend.store import Store
from headend.store.sheets import Message, write_messages
from headend.store.unplaced import UnplacedRow, mark_replayed, note_reason

__all__ = ["replay"]


def replay(store: Store, interpreter: Interpreter, row: UnplacedRow, policy: EvidencePolicy, now: datetime) -> str:
    """Store what can now be used of one message; why it still waits, "" if it does not.

    What could be used before is stored again, which changes nothing. Its number was noted when it came.
    """
    understood = interpreter.understand(row.peer, row.payload, row.received_at)
    message = understood.message
    stored = Message(
        received_at=message.received_at,
        channel=message.channel,
        topic=message.topic,
        payload=message.payload,
        sheets=message.sheets,
        faults=message.faults,
        events=message.events,
        detail="replayed",
    )
    with store.write() as conn:
        write_messages(conn, [stored], policy)
        if understood.reason:
            note_reason(conn, row.key, understood.reason)
        else:
            mark_replayed(conn, row.key, now)
    return understood.reason
