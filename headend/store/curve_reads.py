"""Reading curves: their points as stored, and the intervals between them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from headend.civil import from_epoch_s, to_epoch_s, zone
from headend.model import Cause, Interval, Quality, SlotState, Window
from headend.quantities import QUANTITIES
from headend.store import schema
from headend.store.blocks import DAY_S, Block, at_s, has_values, place, slots_between, unpack
from headend.store.codes import code_of
from headend.store.portable import rows_at

__all__ = ["Point", "curve", "intervals", "points_at"]


@dataclass(frozen=True, slots=True)
class Point:
    """One slot of a curve. units None: no value; then state and cause say why."""

    at: datetime
    units: int | None
    quality: Quality
    state: SlotState
    cause: Cause
    outcome_id: int | None


def curve(conn: Connection, meter_key: int, quantity: str, window: Window, step_s: int = 0) -> list[Point]:
    """Every stored grid slot in the window, in order. step_s 0: each day's finest curve that holds values."""
    code = code_of(conn, quantity)
    start, end = to_epoch_s(window.start), to_epoch_s(window.end)
    if code is None or end <= start:
        return []
    days = _chosen(_blocks(conn, meter_key, code, start // DAY_S, (end - 1) // DAY_S, step_s))
    return [point for day in sorted(days) for point in _points(day, days[day], start, end)]


def points_at(conn: Connection, meter_key: int, quantity: str, at: datetime) -> list[Point]:
    """The slot at exactly `at` of every curve that has one there, finest first."""
    code = code_of(conn, quantity)
    seconds = to_epoch_s(at)
    day = seconds // DAY_S
    blocks = [] if code is None else _blocks(conn, meter_key, code, day, day)
    return [point for _, block in blocks for point in _points(day, block, seconds, seconds + 1)]


def _blocks(
    conn: Connection, meter_key: int, code: int, first: int, last: int, step_s: int = 0
) -> list[tuple[int, Block]]:
    """The blocks of days `first` to `last`, both included, of one step or of all, by day and step.

    Asked for day by day: the table's key begins with the day, and a range of days would pass over every meter's blocks.
    """
    keys = [(day, meter_key, code) for day in range(first, last + 1)]
    rows = rows_at(conn, schema.curve, ("day", "meter_key", "quantity_code"), keys)
    wanted = [row for row in rows if step_s in (0, row["step_s"])]
    return [(row["day"], unpack(row)) for row in sorted(wanted, key=lambda row: (row["day"], row["step_s"]))]


def _chosen(blocks: Iterable[tuple[int, Block]]) -> dict[int, Block]:
    """For each day the finest block that holds a value, or the finest there is. `blocks` come finest first."""
    days: dict[int, Block] = {}
    for day, block in blocks:
        if day not in days or (has_values(block) and not has_values(days[day])):
            days[day] = block
    return days


def _points(day: int, block: Block, start: int, end: int) -> Iterable[Point]:
    for slot in slots_between(day, block.phase_s, block.step_s, start, end):
        quality = Quality(block.qualities[slot])
        there = quality is not Quality.MISSING
        yield Point(
            from_epoch_s(at_s(day, block, slot)),
            block.units[slot] if there else None,
            quality,
            SlotState(block.states[slot]),
            Cause(block.causes[slot]),
            block.outcome_ids[slot] if there else None,
        )


# -- intervals ---------------------------------------------------------------------------------------------------------

_End = tuple[int, Quality, int]  # units, quality, outcome id of a value


def intervals(
    conn: Connection, meter_key: int, interval_quantity: str, window: Window, *, step_s: int = 0, wrap_units: int
) -> list[Interval]:
    """Consumption per grid step, one interval for every step that starts in the window.

    Values the meter delivers as intervals are used as they are (slot = start of the interval). Otherwise an interval
    is the difference of neighbouring points of the quantity's register; when it is negative the register has passed
    its end, and `wrap_units` (ten-thousandths at which it returns to 0) is added. MISSING when an end is missing, else
    the worse quality of the two ends. step_s 0: each day's finest curve; days without any use the step around them,
    or the one the registry has for the meter.
    """
    start, end = to_epoch_s(window.start), to_epoch_s(window.end)
    if end <= start:
        return []
    own = code_of(conn, interval_quantity)
    days = {} if own is None else _with_values(conn, meter_key, own, start, end, step_s)
    if days:
        grid = _grid(conn, meter_key, days, start, end, step_s)
        return _delivered(interval_quantity, days, grid)
    register = QUANTITIES[interval_quantity].register if interval_quantity in QUANTITIES else ""
    code = code_of(conn, register)
    days = {} if code is None else _chosen(_blocks(conn, meter_key, code, start // DAY_S, end // DAY_S + 1, step_s))
    grid = _grid(conn, meter_key, days, start, end, step_s)
    return _differences(interval_quantity, _ends(days), grid, wrap_units)


def _with_values(conn: Connection, meter_key: int, code: int, start: int, end: int, step_s: int) -> dict[int, Block]:
    days = _chosen(_blocks(conn, meter_key, code, start // DAY_S, (end - 1) // DAY_S, step_s))
    return days if any(has_values(block) for block in days.values()) else {}


def _grid(
    conn: Connection, meter_key: int, days: dict[int, Block], start: int, end: int, step_s: int
) -> list[tuple[int, int]]:
    """Start and length of every grid step that starts in `[start, end)`, also on days without a block."""
    if days:
        first = days[min(days)]
        step_s, phase_s = first.step_s, first.phase_s
    else:
        step_s, phase_s = _registered_grid(conn, meter_key, start, step_s)
    grid = []
    for day in range(start // DAY_S, (end - 1) // DAY_S + 1) if step_s else ():
        if day in days:
            step_s, phase_s = days[day].step_s, days[day].phase_s
        origin = day * DAY_S + phase_s
        grid += [(origin + slot * step_s, step_s) for slot in slots_between(day, phase_s, step_s, start, end)]
    return grid


def _registered_grid(conn: Connection, meter_key: int, at: int, step_s: int) -> tuple[int, int]:
    """Step and phase the meter's curve should have: its boundaries are whole steps of the meter's own midnight."""
    table = schema.meter
    row = conn.execute(select(table.c.curve_step_s, table.c.clock_zone).where(table.c.key == meter_key)).one_or_none()
    step_s = step_s or (0 if row is None else row.curve_step_s)
    if row is None or not step_s:
        return step_s, 0
    place(at, step_s)  # refuses a step that does not divide a day
    offset = from_epoch_s(at).astimezone(zone(row.clock_zone)).utcoffset() or timedelta()
    return step_s, -(offset // timedelta(seconds=1)) % step_s


def _ends(days: dict[int, Block]) -> dict[int, _End]:
    """Every value in the blocks, by its instant."""
    ends: dict[int, _End] = {}
    for day, block in days.items():
        for slot, quality in enumerate(block.qualities):
            if quality:
                ends[at_s(day, block, slot)] = block.units[slot], Quality(quality), block.outcome_ids[slot]
    return ends


def _delivered(quantity: str, days: dict[int, Block], grid: list[tuple[int, int]]) -> list[Interval]:
    values = _ends(days)
    found = []
    for start, step_s in grid:
        units, quality, outcome_id = values.get(start, (None, Quality.MISSING, 0))
        parents = (outcome_id,) if units is not None else ()
        found.append(Interval(quantity, from_epoch_s(start), step_s, units, quality, parents))
    return found


_WORST_FIRST = (Quality.SUSPECT, Quality.ESTIMATED, Quality.EDITED)


def _differences(quantity: str, ends: dict[int, _End], grid: list[tuple[int, int]], wrap_units: int) -> list[Interval]:
    found = []
    for start, step_s in grid:
        first, second = ends.get(start), ends.get(start + step_s)
        if first is None or second is None:
            parents = tuple(end[2] for end in (first, second) if end is not None)
            found.append(Interval(quantity, from_epoch_s(start), step_s, None, Quality.MISSING, parents))
            continue
        units = second[0] - first[0]
        if units < 0:
            units += wrap_units
        both = (first[1], second[1])
        quality = next((worse for worse in _WORST_FIRST if worse in both), Quality.VALID)
        parents = tuple(sorted({first[2], second[2]}))
        found.append(Interval(quantity, from_epoch_s(start), step_s, units, quality, parents))
    return found
