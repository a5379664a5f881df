"""The maximum demand of a month, from the store: by the meter's own register, or by the highest block of intervals.

A meter keeps its maximum at a settlement and begins anew. So the register tells the month's demand only where the meter
settled at both ends of it; settlements in between are parts of the month, and the highest of them counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from sqlalchemy import Connection

from billing.model import Determinant, Hold, IntervalPart, RegisterEnd, RegisterPart
from billing.rate import MAXIMUM
from headend.civil import zone
from headend.model import Quality, Source, Window
from headend.quantities import from_units, to_units
from headend.store import readings
from headend.store.registry import MeterRow

__all__ = ["by_intervals", "by_register", "highest", "highest_block"]

_INTERVALS = "import_interval_kwh"
_SECONDS_PER_HOUR = 3600
_JUST_AFTER = timedelta(seconds=1)


def highest(candidates: Sequence[Determinant]) -> Determinant:
    """The highest of the demands of meters that stood there one after the other; the counts of all."""
    top = max(candidates, key=lambda found: found.value)
    counts: Counter[Quality] = sum((Counter(dict(found.counts)) for found in candidates), Counter())
    return Determinant(MAXIMUM, top.value, "kW", None, tuple(sorted(counts.items())), top.parents)


def highest_block(units: Sequence[int], per_block: int) -> tuple[int, int]:
    """Which block of `per_block` neighbouring intervals holds most, the earliest of equals, and its sum.

    The blocks follow each other without overlap; an unfinished one at the end is left out, as it is no full block.
    """
    sums = [sum(units[first : first + per_block]) for first in range(0, len(units) - per_block + 1, per_block)]
    top = max(sums)
    return sums.index(top), top


def by_register(
    conn: Connection, meter: MeterRow, multiplier: Decimal, window: Window, zone_name: str
) -> tuple[Determinant | None, list[Hold]]:
    """The highest demand that the meter kept at its settlements in `window`, its end included."""
    rows = readings.snapshots(conn, meter.key, MAXIMUM, Window(window.start, window.end + _JUST_AFTER))
    kept = [row for row in rows if row.source is Source.SETTLEMENT]
    there = {row.at for row in kept if row.quality is not Quality.MISSING}
    holds = [
        Hold(
            "demand_absent",
            f"no {MAXIMUM} of a settlement at {_when(at, zone_name)}",
            "set the meter's settlement day to the month's end and read its settlements, or bill by intervals",
            meter.id,
            at,
            at,
            1,
        )
        for at in (window.start, window.end)
        if at not in there
    ]
    ends = [RegisterEnd(row.at, row.units, row.quality, row.source, row.outcome_id) for row in kept]
    for end in ends[1:]:  # the first is of the time before
        if end.quality is Quality.SUSPECT:
            what = f"the {MAXIMUM} of the settlement at {_when(end.at, zone_name)} is suspect"
            remedy = "read the meter's settlements again, then close again"
            holds.append(Hold("demand_suspect", what, remedy, meter.id, end.at, end.at, 1))
    if holds:
        return None, holds
    wrap_units = to_units(meter.register_wrap)
    spans = [
        RegisterPart(meter.key, meter.id, MAXIMUM, start, end, wrap_units, multiplier) for start, end in pairwise(ends)
    ]
    counts = Counter(span.end.quality for span in spans)
    top = max(spans, key=lambda span: span.value)
    return Determinant(MAXIMUM, top.value, "kW", None, tuple(sorted(counts.items())), (top,)), []


def by_intervals(
    conn: Connection, meter: MeterRow, multiplier: Decimal, window: Window, *, block_min: int, as_of: int
) -> tuple[Determinant | None, list[Hold]]:
    """The highest mean power over a block of `block_min` minutes; blocks are counted from the window's start.

    Every interval of the window must be there: the caller has seen to that.
    """
    step_s, block_s = meter.curve_step_s, block_min * 60
    step, block = timedelta(seconds=step_s), timedelta(seconds=block_s)
    if block_s % step_s or window.end - window.start < block:
        what = f"a demand over {block_min} minutes can't be told from intervals of {step_s} s"
        what += "" if block_s % step_s else " in less time than that"
        remedy = "bill by the meter's own maximum, read a finer curve, or correct block_min"
        return None, [Hold("demand_step", what, remedy, meter.id, window.start, window.end)]
    wrap_units = to_units(meter.register_wrap)
    rows = readings.intervals(conn, meter.key, _INTERVALS, window, step_s=step_s, wrap_units=wrap_units)
    units = [row.units for row in rows if row.units is not None]
    assert len(units) == (window.end - window.start) // step, "the intervals were found complete before"
    number, total = highest_block(units, block_s // step_s)
    start = window.start + number * block
    place = (meter.key, meter.id, _INTERVALS, Window(start, start + block))
    part = IntervalPart(*place, step_s, block_s // step_s, total, wrap_units, multiplier, as_of)
    counts = Counter(row.quality for row in rows)
    value = from_units(total) * (_SECONDS_PER_HOUR // block_s) * multiplier
    return Determinant(MAXIMUM, value, "kW", None, tuple(sorted(counts.items())), (part,)), []


def _when(moment: datetime, zone_name: str) -> str:
    return moment.astimezone(zone(zone_name)).isoformat(timespec="minutes")
