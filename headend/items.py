"""Reading one identifier of a meter's own protocol, for a person: values with their names, shown and not stored.

What is billed and watched are quantities (`headend.collect`); this is for everything else a meter can tell.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from headend.access import NO_ACCESS, Access
from headend.errors import HeadendError, LineDown, NoAccess, NoAnswer, ProtocolError, Refused, UsageError, WrongMeter
from headend.line import Line
from headend.model import FrameRecord, Meter, Status
from headend.protocols import PROTOCOLS

__all__ = ["run_item"]

_STATUS: tuple[tuple[type[HeadendError], Status], ...] = (
    (NoAnswer, Status.NO_ANSWER),
    (WrongMeter, Status.WRONG_METER),
    (Refused, Status.REFUSED),
    (NoAccess, Status.NO_ACCESS),
    (LineDown, Status.LINE_DOWN),
)


async def run_item(line: Line, meter: Meter, identifier: str, *, access: Access = NO_ACCESS) -> dict[str, Any]:
    """Ask `meter` on `line` for `identifier`; plain data: status, detail, duration, items, frames.

    access: the meter's keys and counters. Raises `UsageError` when that is no identifier of the meter's protocol; a
    meter or a line that fails is told in the status.
    """
    driver = PROTOCOLS[meter.protocol]
    if driver.read_item is None or driver.decode_item is None:
        raise UsageError(f"{meter.protocol} has no identifiers to read", remedy="read quantities by name")
    frames: list[FrameRecord] = []
    items: list[dict[str, Any]] = []
    status, detail = Status.OK, ""
    started = time.monotonic()
    try:
        more = {"meter": meter, "access": access} if driver.needs_access else {}
        conversation = driver.read_item(meter.address, identifier, **more)
        data = await line.run(conversation, frames, serial=meter.serial, meter=meter.id)
        items = [asdict(value) for value in driver.decode_item(identifier.upper(), data)]
    except (ProtocolError, LineDown) as error:
        status, detail = _status(error), str(error)
    return {
        "meter": meter.id,
        "di": identifier.upper(),
        "status": status.value,
        "detail": detail,
        "duration_s": round(time.monotonic() - started, 3),
        "items": items,
        "frames": [{"at": f.at.isoformat(), "direction": f.direction, "hex": f.data.hex().upper()} for f in frames],
    }


def _status(error: HeadendError) -> Status:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), Status.BAD_FRAME)
