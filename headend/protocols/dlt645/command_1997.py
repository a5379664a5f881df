"""What a master tells a DL/T 645-1997 meter to do, as far as it is sure. Sent once; see `command` for why.

The broadcast time is that of 2007 (`command.broadcast_time`). Writing the address, the password, the baud rate and
clearing demands exist (0A, 0F, 0C, 10), but their payloads stand in no two sources alike: they are only explained.
"""

from __future__ import annotations

import re

from headend.conversation import Conversation
from headend.errors import UsageError
from headend.protocols.dlt645.auth import Password
from headend.protocols.dlt645.command import Done, acknowledged
from headend.protocols.dlt645.command import broadcast_time as broadcast_time

__all__ = ["broadcast_time", "write"]

WRITE = 0x04
_MAX_WRITE = 50


def write(address: str, di: str, data: bytes, password: Password) -> Conversation[Done]:
    """Write `data`, as it lies on the wire (lowest byte first, without 33H), under `di`. Sent once."""
    if not re.fullmatch("[0-9A-Fa-f]{4}", di):
        raise UsageError(f"{di!r} is no data identifier of 1997", remedy="write four hex digits, such as C010")
    if not 0 < len(data) <= _MAX_WRITE - 6:
        raise UsageError(f"{len(data)} bytes to write under {di}", remedy=f"a write takes 1 to {_MAX_WRITE - 6} bytes")
    head = bytes.fromhex(di)[::-1]
    body, shown = head + password.sent + data, head + password.shown + data
    frame = yield from acknowledged(f"write {di.upper()}", address, WRITE, body, None, shown=shown)
    return Done(f"write {di.upper()}", frame.address)
