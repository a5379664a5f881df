"""Registers frozen at midnights and at the first of months, kept in blocks, newest first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from simulators.modbus_meter import ModbusMeter, Point

__all__ = ["Frozen", "blocks", "frozen_at", "stamp"]

_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Frozen:
    """kind: `daily` or `monthly`. points: their addresses count from the start of a block. form: how its time is
    written in front: `ym-dh` or `ym-dh-ms`, a byte each."""

    kind: str
    stride: int
    count: int
    points: tuple[Point, ...]
    form: str = "ym-dh"


def stamp(local_s: int, form: str) -> bytes:
    """Local time as it stands in registers: year of the century and month, day and hour, minute and second."""
    at = datetime.fromtimestamp(local_s, UTC)
    data = bytes((at.year % 100, at.month, at.day, at.hour))
    return data + bytes((at.minute, at.second)) if form.endswith("ms") else data


def frozen_at(kind: str, local_s: int, count: int) -> list[int]:
    """The last `count` local instants of freezing, newest first, as local seconds."""
    midnight = local_s - local_s % _DAY_S
    if kind == "daily":
        return [midnight - k * _DAY_S for k in range(count)]
    first = datetime.fromtimestamp(midnight, UTC).replace(day=1)
    found = []
    for _ in range(count):
        found.append(int(first.timestamp()))
        first = (first - timedelta(days=1)).replace(day=1)
    return found


def blocks(frozen: Frozen, meter: ModbusMeter, at_s: int) -> bytes:
    """All blocks as they stand at `at_s`. What was before the meter was installed is zero, time and all."""
    offset_s = meter.local_s(0)
    installed_s = meter.truth.register.household.load.installed_day * _DAY_S
    out = bytearray()
    for local_s in frozen_at(frozen.kind, meter.local_s(at_s), frozen.count):
        block = bytearray(2 * frozen.stride)
        if local_s >= installed_s:
            head = stamp(local_s, frozen.form)
            block[: len(head)] = head
            for point in frozen.points:
                data = meter.number(point, local_s - offset_s)
                block[2 * point.address : 2 * point.address + len(data)] = data
        out += block
    return bytes(out)
