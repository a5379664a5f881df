"""DL/T 645, the Chinese meter protocol on RS-485, infrared and serial servers: 2007, and 1997 before it.

No IO, no clock, no tasks here.
"""

from __future__ import annotations

from headend.protocols.dlt645.control import set_clock, set_clock_1997, switch
from headend.protocols.dlt645.events import EventRecord, read_events
from headend.protocols.dlt645.explain import explain, explain_1997, explain_2007
from headend.protocols.dlt645.frame import check_address
from headend.protocols.dlt645.read import discover, read, read_item
from headend.protocols.dlt645.status import Change, Flag, events_of, status_flags
from headend.protocols.dlt645.v1997 import detect
from headend.protocols.dlt645.v1997 import discover as discover_1997
from headend.protocols.dlt645.v1997 import read as read_1997
from headend.protocols.dlt645.v1997 import read_item as read_item_1997
from headend.protocols.dlt645.values import decode_item

__all__ = [
    "Change",
    "EventRecord",
    "Flag",
    "check_address",
    "decode_item",
    "detect",
    "discover",
    "discover_1997",
    "events_of",
    "explain",
    "explain_1997",
    "explain_2007",
    "read",
    "read_1997",
    "read_events",
    "read_item",
    "read_item_1997",
    "set_clock",
    "set_clock_1997",
    "status_flags",
    "switch",
]
