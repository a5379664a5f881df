"""The maximum demand of a period, from the store: by the meter's own register, or by the highest block of intervals.

A meter keeps its maximum at a settlement and begins anew. So the register tells the month's demand only where the meter
settled at both ends of it; settlements in between are parts of the month, and the highest of them counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import pairwise

from billing.charges import DemandCharge
from billing.gathering.intervals import INTERVALS, Curves, Hours
from billing.gathering.places import Installed, when_text
from billing.model import Determinant, Hold, IntervalPart, RegisterEnd, RegisterPart
from billing.names import MAXIMUM, demand_name
from headend.model import Quality, Window
from headend.quantities import from_units, to_units
from headend.store.readings import RegisterValue

__all__ = ["by_intervals", "by_register", "highest"]

_SECONDS_PER_HOUR = 3600


def highest(name: str, candidates: Sequence[Determinant]) -> Determinant:
    """The highest of the demands of meters that stood there one after the other; the counts of all."""
    if len(candidates) == 1 and candidates[0].name == name:
        return candidates[0]
    top = max(candidates, key=lambda found: found.value)
    counts: Counter[Quality] = sum((Counter(dict(found.counts)) for found in candidates), Counter())
    return Determinant(name, top.value, "kW", None, tuple(sorted(counts.items())), top.parents)


def by_register(
    part: Installed, settled: Mapping[int, Sequence[RegisterValue]], zone_name: str
) -> tuple[Determinant | None, list[Hold]]:
    """The highest demand that a meter kept at its settlements in its stay, its end included.

    settled: by meter's key, what was kept at settlements, by time.
    """
    window, meter = part.window, part.meter
    kept = [row for row in settled.get(meter.key, ()) if window.start <= row.at <= window.end]
    there = {row.at for row in kept if row.quality is not Quality.MISSING}
    holds = [
        Hold(
            "demand_absent",
            f"no {MAXIMUM} of a settlement at {when_text(at, zone_name)}",
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
            what = f"the {MAXIMUM} of the settlement at {when_text(end.at, zone_name)} is suspect"
            remedy = "read the meter's settlements again, then close again"
            holds.append(Hold("demand_suspect", what, remedy, meter.id, end.at, end.at, 1))
    if holds:
        return None, holds
    wrap_units, multiplier = to_units(meter.register_wrap), part.installation.multiplier
    spans = [
        RegisterPart(meter.key, meter.id, MAXIMUM, start, end, wrap_units, multiplier) for start, end in pairwise(ends)
    ]
    counts = Counter(span.end.quality for span in spans)
    top = max(spans, key=lambda span: span.value)
    return Determinant(MAXIMUM, top.value, "kW", None, tuple(sorted(counts.items())), (top,)), []


def by_intervals(
    part: Installed,
    curves: Curves,
    charge: DemandCharge,
    hours: Sequence[Hours],
    counts: Counter[Quality],
    zone_name: str,
    as_of: int,
) -> tuple[Determinant | None, list[Hold]]:
    """The highest mean power over a block of `block_min` minutes; blocks are counted from the start of the stay.

    With `slide_min` they start every so many minutes; with a period, only what is used in its `hours` counts, in each
    piece of the stay by the tariff that holds then. Every interval of the stay must be there: the caller has seen to
    that, and gives their counts.
    """
    meter, window = part.meter, part.window
    step_s, block_s, slide_s = meter.curve_step_s, charge.block_min * 60, charge.slide_min * 60
    block = timedelta(seconds=block_s)
    if block_s % step_s or slide_s % step_s or window.end - window.start < block:
        what = f"a demand over {charge.block_min} minutes can't be told from intervals of {step_s} s"
        if not block_s % step_s:
            what += f", sliding by {charge.slide_min} minutes" if slide_s % step_s else " in less time than that"
        remedy = "bill by the meter's own maximum, read a finer curve, or correct block_min"
        return None, [Hold("demand_step", what, remedy, meter.id, window.start, window.end)]
    per_block = block_s // step_s
    first, total = curves.highest(part, per_block, slide_s // step_s, hours, charge.period, zone_name)
    start = window.start + first * timedelta(seconds=step_s)
    place = (meter.key, meter.id, INTERVALS, Window(start, start + block))
    multiplier = part.installation.multiplier
    found = IntervalPart(*place, step_s, per_block, total, to_units(meter.register_wrap), multiplier, as_of)
    value = from_units(total) * multiplier * _SECONDS_PER_HOUR / block_s
    name = demand_name(charge.period)
    return Determinant(name, value, "kW", None, tuple(sorted(counts.items())), (found,)), []
