"""DLMS/COSEM over HDLC, the wrapper and IEC 62056-21 mode E: logical names, GET, SET, ACTION, profiles, pushes.

No IO, no clock, no tasks here.
"""

from __future__ import annotations

from headend.protocols.dlms.browse import browse
from headend.protocols.dlms.clock_task import ClockChange, change_clock, set_clock
from headend.protocols.dlms.control import switch
from headend.protocols.dlms.draft import draft_model
from headend.protocols.dlms.events import Event, read_events
from headend.protocols.dlms.explain import explain
from headend.protocols.dlms.items import decode_item, is_item, read_item
from headend.protocols.dlms.link import check_address
from headend.protocols.dlms.read import discover, read

__all__ = [
    "ClockChange",
    "Event",
    "browse",
    "change_clock",
    "check_address",
    "decode_item",
    "discover",
    "draft_model",
    "explain",
    "is_item",
    "read",
    "read_events",
    "read_item",
    "set_clock",
    "switch",
]
