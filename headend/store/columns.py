"""Reading for many meters at once, into arrays: the same values as `headend.store.readings` gives one by one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from headend.civil import from_epoch_s, to_epoch_s
from headend.model import Quality, Source, Window
from headend.quantities import QUANTITIES, from_units, to_units
from headend.store import schema
from headend.store.block_arrays import Flags, ints
from headend.store.blocks import DAY_S, damaged, place
from headend.store.codes import code_of
from headend.store.portable import chunks, rows_among, rows_at
from headend.store.readings import RegisterValue
from headend.store.registry import InstallationRow, MeterRow

__all__ = ["Intervals", "Place", "installed_at", "interval_matrix", "registers_at", "settlements_at"]

_METERS = 2_000
"""Meters in one statement."""


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """Consumption of M meters in the N grid steps that start in a window, counted from its start.

    units: (M, N) ten-thousandths, 0 where there is none; quality: (M, N) numbers of `Quality`. own: (M,) whose values
    the meter delivers as intervals; of the others they are differences of its register's curve.
    """

    units: NDArray[np.int64]
    quality: NDArray[np.uint8]
    own: NDArray[np.bool_]


# -- intervals ---------------------------------------------------------------------------------------------------------

_SEVERITY = np.array([4, 0, 2, 1, 3], dtype=np.uint8)
"""By quality, which of two ends tells the quality of what lies between them: the higher."""
_QUALITY = np.array(
    [Quality.VALID, Quality.EDITED, Quality.ESTIMATED, Quality.SUSPECT, Quality.MISSING], dtype=np.uint8
)
"""By severity."""


def interval_matrix(
    conn: Connection,
    meters: Sequence[MeterRow],
    quantity: str,
    window: Window,
    step_s: int,
    *,
    as_of: int | None = None,
) -> Intervals:
    """What `readings.intervals(..., step_s=step_s)` gives for each of the meters, on the grid that starts at `window`'s
    start; what the meter's own grid holds apart from it is not there. No meter twice.

    as_of: as the store stood when this was its highest outcome id. `StoreError` for a step that does not divide a day,
    and for a damaged block.
    """
    place(0, step_s)
    start, end = to_epoch_s(window.start), to_epoch_s(window.end)
    count = max(0, -((start - end) // step_s))
    keys = [meter.key for meter in meters]
    units, quality, own = _points(conn, keys, quantity, start, count, step_s, as_of)
    register = QUANTITIES[quantity].register if quantity in QUANTITIES else ""
    others = np.flatnonzero(~own).tolist()
    if others and register and count:
        asked = [keys[row] for row in others]
        points, found, _ = _points(conn, asked, register, start, count + 1, step_s, as_of)
        wraps = np.array([to_units(meters[row].register_wrap) for row in others], dtype=np.int64)
        units[others], quality[others] = _differences(points, found, wraps)
    return Intervals(units, quality, own)


def _differences(
    points: NDArray[np.int64], quality: NDArray[np.uint8], wraps: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    rises = points[:, 1:] - points[:, :-1]
    back = rises < 0
    if back.any():
        rises += back * wraps[:, None]
    if (quality == Quality.VALID).all():
        return rises, quality[:, 1:]
    severity = _SEVERITY[quality]
    worse = _QUALITY[np.maximum(severity[:, 1:], severity[:, :-1])]
    rises[worse == Quality.MISSING] = 0
    return rises, worse


def _points(
    conn: Connection, keys: Sequence[int], quantity: str, start: int, count: int, step_s: int, as_of: int | None
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.bool_]]:
    """The values at `count` instants from `start` on, and which meters have any in the days they fall in."""
    units = np.zeros((len(keys), count), dtype=np.int64)
    quality = np.zeros((len(keys), count), dtype=np.uint8)
    held = np.zeros(len(keys), dtype=np.bool_)
    code = code_of(conn, quantity)
    if code is None or not count:
        return units, quality, held
    rows = np.array(keys, dtype=np.int64)
    order = np.argsort(rows)
    ranked = rows[order]
    asked = ranked.tolist()
    last = start + (count - 1) * step_s
    flags = Flags()
    for day in range(start // DAY_S, last // DAY_S + 1):
        for blocks in _blocks(conn, day, code, step_s, asked, flags, as_of):
            offset = day * DAY_S + blocks.phase_s - start
            at = _run(order[np.searchsorted(ranked, blocks.keys)])
            held[at] |= blocks.quality.any(axis=1)
            if offset % step_s:
                continue
            first = offset // step_s
            low, high = max(0, first), min(count, first + blocks.units.shape[1])
            if low < high:
                units[at, low:high] = blocks.units[:, low - first : high - first]
                quality[at, low:high] = blocks.quality[:, low - first : high - first]
    return units, quality, held


def _run(rows: NDArray[np.intp]) -> NDArray[np.intp] | slice:
    """Rows that follow each other as a slice: numpy copies that at once."""
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if np.array_equal(rows, np.arange(first, last + 1)) else rows


@dataclass(slots=True, eq=False)
class _Blocks:
    """Blocks of one day, quantity, step and phase: values by meter and slot; without a value units are 0."""

    keys: NDArray[np.int64]
    phase_s: int
    units: NDArray[np.int64]
    quality: NDArray[np.uint8]


_COLUMNS = ("meter_key", "phase_s", "slots", "units", "qualities")


def _blocks(
    conn: Connection, day: int, code: int, step_s: int, keys: Sequence[int], flags: Flags, as_of: int | None
) -> Iterator[_Blocks]:
    columns = _COLUMNS if as_of is None else (*_COLUMNS, "outcome_ids")
    for chunk in chunks(keys, _METERS):
        rows = rows_among(conn, schema.curve, columns, "meter_key", chunk, day=day, quantity_code=code, step_s=step_s)
        shapes = dict.fromkeys([row[1:3] for row in rows])
        for phase_s, slots in shapes:
            alike = rows if len(shapes) == 1 else [row for row in rows if row[1:3] == (phase_s, slots)]
            held, _, _, units, qualities, *rest = zip(*alike, strict=True)
            try:
                found = _Blocks(
                    np.array(held, dtype=np.int64), phase_s, ints(units, slots), flags.rows(qualities, slots)
                )
                ids = None if as_of is None else ints(rest[0], slots)
            except ValueError as error:
                raise damaged(error, day, held[0], code) from error
            if ids is not None and as_of is not None:
                _step_back(conn, day, code, step_s, found, ids, as_of)
            yield found


# -- as it stood -------------------------------------------------------------------------------------------------------

_Stood = dict[tuple[int, int, int, int], tuple[int, int, int]]
"""Meter key, instant, source and step of a value; the units, quality and outcome id it had."""


def _stood(conn: Connection, keys: Collection[tuple[int, int, int]], as_of: int) -> _Stood:
    """The revisions of values (meter key, quantity code, instant) that stood when `as_of` was the highest outcome."""
    found: _Stood = {}
    for row in rows_at(conn, schema.revision, ("meter_key", "quantity_code", "at"), keys):
        if row["outcome_id"] <= as_of < row["replaced_by"]:
            key = (row["meter_key"], row["at"], row["source"], row["step_s"])
            found[key] = (row["units"], row["quality"], row["outcome_id"])
    return found


def _step_back(
    conn: Connection, day: int, code: int, step_s: int, blocks: _Blocks, ids: NDArray[np.int64], as_of: int
) -> None:
    """Take the place of values that came later by what stood there, or by nothing."""
    late = np.argwhere((blocks.quality != 0) & (ids > as_of))
    if not len(late):
        return
    origin = day * DAY_S + blocks.phase_s
    places = [(int(blocks.keys[row]), origin + int(slot) * step_s) for row, slot in late]
    stood = _stood(conn, {(key, code, at) for key, at in places}, as_of)
    blocks.quality = np.array(blocks.quality)
    for (row, slot), (key, at) in zip(late, places, strict=True):
        units, quality, _ = stood.get((key, at, int(Source.CURVE), step_s), (0, 0, 0))
        blocks.units[row, slot], blocks.quality[row, slot] = units, quality


# -- registers ---------------------------------------------------------------------------------------------------------

_BEFORE_CURVE = (Source.DAILY_FREEZE, Source.SETTLEMENT, Source.TIMED_FREEZE)
_AFTER_CURVE = (Source.CURVE, Source.CURRENT, Source.INSTANT)
Place = tuple[int, datetime]
"""A meter's key and an instant."""


def registers_at(
    conn: Connection, places: Collection[Place], quantity: str, *, as_of: int | None = None
) -> dict[Place, RegisterValue]:
    """What `readings.register_at` gives for each meter and instant; places without a value are left out.

    as_of: as the store stood when this was its highest outcome id.
    """
    code = code_of(conn, quantity)
    if code is None or not places:
        return {}
    wanted = {(key, to_epoch_s(at)) for key, at in places}
    alone = _snapshots_at(conn, wanted, quantity, code, as_of)
    rest = {place for place in wanted if not _good(alone.get(place, {}), _BEFORE_CURVE)}
    points = _curve_points_at(conn, rest, quantity, code, as_of)
    found: dict[Place, RegisterValue] = {}
    for place_ in wanted:
        own = alone.get(place_, {})
        values = [own[source] for source in _BEFORE_CURVE if source in own]
        values += points.get(place_, [])
        values += [own[source] for source in _AFTER_CURVE if source in own]
        if values:
            best = next((value for value in values if value.quality is not Quality.SUSPECT), values[0])
            found[place_[0], best.at] = best
    return found


def _good(values: dict[Source, RegisterValue], sources: Iterable[Source]) -> bool:
    return any(source in values and values[source].quality is not Quality.SUSPECT for source in sources)


def _snapshots_at(
    conn: Connection, wanted: Collection[tuple[int, int]], quantity: str, code: int, as_of: int | None
) -> dict[tuple[int, int], dict[Source, RegisterValue]]:
    names = ("at", "meter_key", "source", "units", "quality", "outcome_id")
    by_instant: dict[int, list[int]] = defaultdict(list)
    for key, at in wanted:
        by_instant[at].append(key)
    rows: list[tuple[int, ...]] = []
    if len(by_instant) * 8 > len(wanted):
        keys = [(at, key, code) for key, at in wanted]
        for row in rows_at(conn, schema.snapshot, ("at", "meter_key", "quantity_code"), keys):
            rows.append(tuple(row[name] for name in names))
    else:
        for at, keys_at in by_instant.items():
            for chunk in chunks(sorted(keys_at), _METERS):
                rows += rows_among(conn, schema.snapshot, names, "meter_key", chunk, at=at, quantity_code=code)
    found: dict[tuple[int, int], dict[Source, RegisterValue]] = defaultdict(dict)
    for at, key, source, units, quality, outcome_id in _rows_as_of(conn, code, rows, as_of):
        value = RegisterValue(quantity, from_epoch_s(at), units, Quality(quality), Source(source), outcome_id)
        found[key, at][Source(source)] = value
    return found


def _rows_as_of(
    conn: Connection, code: int, rows: Sequence[tuple[int, ...]], as_of: int | None
) -> Iterator[tuple[int, ...]]:
    """Rows (at, meter key, source, units, quality, outcome id) of `snapshot` as they stood."""
    if as_of is None:
        yield from rows
        return
    late = {(row[1], code, row[0]) for row in rows if row[5] > as_of}
    stood = {key[:3]: value for key, value in _stood(conn, late, as_of).items()}
    for row in rows:
        if row[5] <= as_of:
            yield row
        elif (before := stood.get((row[1], row[0], row[2]))) is not None:
            yield (*row[:3], *before)


def _curve_points_at(
    conn: Connection, wanted: Collection[tuple[int, int]], quantity: str, code: int, as_of: int | None
) -> dict[tuple[int, int], list[RegisterValue]]:
    """The values of every curve that has one at the instant, finest first."""
    names = ("meter_key", "step_s", "phase_s", "slots", "units", "qualities", "outcome_ids")
    by_day: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for key, at in wanted:
        by_day[at // DAY_S][key].append(at)
    flags = Flags()
    values: list[tuple[int, ...]] = []
    for day, instants in by_day.items():
        for chunk in chunks(sorted(instants), _METERS):
            for row in rows_among(conn, schema.curve, names, "meter_key", chunk, day=day, quantity_code=code):
                values += _values_in(day, code, row, instants[row[0]], flags)
    found: dict[tuple[int, int], list[RegisterValue]] = defaultdict(list)
    for at, key, step_s, units, quality, outcome_id in sorted(_points_as_of(conn, code, values, as_of)):
        del step_s  # sorted by it
        value = RegisterValue(quantity, from_epoch_s(at), units, Quality(quality), Source.CURVE, outcome_id)
        found[key, at].append(value)
    return found


def _values_in(
    day: int, code: int, row: tuple[Any, ...], instants: Sequence[int], flags: Flags
) -> Iterator[tuple[int, ...]]:
    """At, meter key, step, units, quality and outcome id of the values a block holds at `instants`."""
    key, step_s, phase_s, slots, units, qualities, outcome_ids = row
    slots_at = [(at, (at - day * DAY_S - phase_s) // step_s) for at in instants if (at - phase_s) % step_s == 0]
    if not slots_at:
        return
    try:
        quality, values, ids = flags.row(qualities, slots), ints([units], slots)[0], ints([outcome_ids], slots)[0]
    except ValueError as error:
        raise damaged(error, day, key, code) from error
    for at, slot in slots_at:
        if 0 <= slot < slots and quality[slot]:
            yield at, key, step_s, int(values[slot]), int(quality[slot]), int(ids[slot])


def _points_as_of(
    conn: Connection, code: int, values: Sequence[tuple[int, ...]], as_of: int | None
) -> Iterator[tuple[int, ...]]:
    if as_of is None:
        yield from values
        return
    late = {(value[1], code, value[0]) for value in values if value[5] > as_of}
    stood = _stood(conn, late, as_of)
    for value in values:
        if value[5] <= as_of:
            yield value
        elif (before := stood.get((value[1], value[0], int(Source.CURVE), value[2]))) is not None:
            yield (*value[:3], *before)


def settlements_at(
    conn: Connection, meter_keys: Collection[int], quantity: str, window: Window, *, as_of: int | None = None
) -> dict[int, list[RegisterValue]]:
    """What the meters kept at their settlements from the window's start up to its end, both included, by time."""
    code = code_of(conn, quantity)
    table = schema.snapshot
    if code is None:
        return {}
    rows: list[tuple[int, ...]] = []
    for chunk in chunks(sorted(set(meter_keys))):
        query = (
            select(table.c.at, table.c.meter_key, table.c.source, table.c.units, table.c.quality, table.c.outcome_id)
            .where(table.c.meter_key.in_(chunk), table.c.quantity_code == code)
            .where(table.c.at >= to_epoch_s(window.start), table.c.at <= to_epoch_s(window.end))
            .where(table.c.source == int(Source.SETTLEMENT))
        )
        rows += [tuple(row) for row in conn.execute(query)]
    found: dict[int, list[RegisterValue]] = defaultdict(list)
    for at, key, source, units, quality, outcome_id in sorted(_rows_as_of(conn, code, rows, as_of)):
        value = RegisterValue(quantity, from_epoch_s(at), units, Quality(quality), Source(source), outcome_id)
        found[key].append(value)
    return found


# -- who stands where --------------------------------------------------------------------------------------------------


def installed_at(conn: Connection, usage_points: Collection[str]) -> dict[str, list[tuple[InstallationRow, MeterRow]]]:
    """The meters of each usage point, past and present, by `since`."""
    table, point, device = schema.installation, schema.usage_point, schema.meter
    found: dict[str, list[tuple[InstallationRow, MeterRow]]] = {one: [] for one in usage_points}
    for chunk in chunks(sorted(found)):
        query = (
            select(table.c.key, table.c.since, table.c.until, table.c.multiplier, point.c.id.label("point_id"), device)
            .add_columns(device.c.key.label("of_meter"))
            .join(point, point.c.key == table.c.usage_point_key)
            .join(device, device.c.key == table.c.meter_key)
            .where(point.c.id.in_(chunk))
            .order_by(point.c.id, table.c.since, device.c.id)
        )
        for row in conn.execute(query):
            until = None if row.until is None else from_epoch_s(row.until)
            meter = MeterRow(
                row.id,
                row.protocol,
                row.address,
                row.line,
                row.model,
                row.clock_zone,
                from_units(row.register_wrap),
                row.curve_step_s,
                row.of_meter,
                row.serial,
                row.options,
            )
            multiplier = from_units(row.multiplier)
            since = from_epoch_s(row.since)
            place = InstallationRow(row.point_id, row.id, since, until, multiplier, row[0], row.of_meter)
            found[row.point_id].append((place, meter))
    return found
