"""Sums of intervals by TOU period, for a batch of bills: one matrix for all meters of one span and step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from billing import kernel
from billing.calendar import PeriodSpan, period_index, spans
from billing.charges import Schedule
from billing.gathering.places import Installed, Piece, span_text, when_text
from billing.gathering.registers import READ_AGAIN
from billing.model import Hold, IntervalPart, RegisterPart
from headend.model import Quality, Source, Window
from headend.quantities import from_units, to_units
from headend.store.columns import Intervals, interval_matrix
from headend.store.registry import MeterRow

__all__ = ["INTERVALS", "Curves", "Hours", "PieceSums", "Rows", "sum_check"]

INTERVALS: Final = "import_interval_kwh"
"""The interval quantity whose sums are the TOU energies."""

Hours = tuple[Window, Schedule]
"""A piece of a stay, and the hours that hold in it."""

_RESOLUTION = Decimal("0.01")
_RUNS_SHOWN = 5
_BAD = (Quality.MISSING, Quality.SUSPECT)


@dataclass(slots=True, eq=False)
class _Group:
    """All meters that stood for the same span with the same step. sums: what was asked of it already."""

    window: Window
    step_s: int
    meters: dict[int, MeterRow] = field(default_factory=dict)
    row: dict[int, int] = field(default_factory=dict)
    matrix: Intervals | None = None
    torn: dict[tuple[Window, int], list[datetime]] = field(default_factory=dict)
    sums: dict[tuple[Window, int], _Sums] = field(default_factory=dict)
    highest: dict[tuple[object, ...], tuple[kernel.Ints, kernel.Ints]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """By meter and period: units, and how many values of which quality. bad: which meters lack something.

    counted: the counts of a meter as `PieceSums` has them, made once for all that are alike.
    """

    periods: tuple[str, ...]
    units: NDArray[np.int64]
    counts: NDArray[np.int64]
    bad: NDArray[np.bool_]
    counted: dict[bytes, Mapping[str, Counter[Quality]]] = field(default_factory=dict)

    def of(self, row: int) -> PieceSums:
        """Those of one meter."""
        numbers = self.counts[row]
        key = numbers.tobytes()
        if key not in self.counted:
            self.counted[key] = {
                period: Counter({Quality(q): int(c) for q, c in enumerate(numbers[n]) if c})
                for n, period in enumerate(self.periods)
            }
        return PieceSums(dict(zip(self.periods, self.units[row].tolist(), strict=True)), self.counted[key])


@dataclass(frozen=True, slots=True)
class PieceSums:
    """Intervals of one meter in a piece, by TOU period ("" where there is no schedule). counts: not to be changed."""

    units: Mapping[str, int]
    counts: Mapping[str, Counter[Quality]]

    def part(self, piece: Piece, period: str, as_of: int) -> IntervalPart:
        """The sum of one period as what a determinant comes from."""
        meter = piece.meter
        place = (meter.key, meter.id, INTERVALS, piece.window, meter.curve_step_s)
        wrap_units, multiplier = to_units(meter.register_wrap), piece.installed.installation.multiplier
        count = self.counts[period].total()
        return IntervalPart(*place, count, self.units[period], wrap_units, multiplier, as_of)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The intervals of one meter's stay: units and qualities, from `start` on every `step_s` seconds."""

    start: datetime
    step_s: int
    units: NDArray[np.int64]
    quality: NDArray[np.uint8]

    def cut(self, window: Window) -> Rows:
        """Those that start in `window`."""
        step = timedelta(seconds=self.step_s)
        low = -((self.start - window.start) // step)
        high = -((self.start - window.end) // step)
        return Rows(self.start + low * step, self.step_s, self.units[low:high], self.quality[low:high])


class Curves:
    """Intervals of a batch: `want` all of them, `read` once, then ask of each."""

    def __init__(self, conn: Connection, as_of: int | None) -> None:
        self._conn, self._as_of = conn, as_of
        self._groups: dict[tuple[Window, int], _Group] = {}

    def want(self, part: Installed) -> None:
        """Note that the intervals of this stay will be asked of."""
        if step_s := part.meter.curve_step_s:
            group = self._groups.setdefault((part.window, step_s), _Group(part.window, step_s))
            group.meters[part.meter.key] = part.meter

    def read(self) -> None:
        """Read what is wanted."""
        for group in self._groups.values():
            meters = list(group.meters.values())
            group.row = {meter.key: row for row, meter in enumerate(meters)}
            group.matrix = interval_matrix(self._conn, meters, INTERVALS, group.window, group.step_s, as_of=self._as_of)

    def _group(self, part: Installed) -> tuple[_Group, Intervals, int]:
        group = self._groups[part.window, part.meter.curve_step_s]
        assert group.matrix is not None, "read before it is asked"
        return group, group.matrix, group.row[part.meter.key]

    def rows(self, part: Installed) -> Rows:
        """The intervals of a stay one by one."""
        group, matrix, row = self._group(part)
        return Rows(group.window.start, group.step_s, matrix.units[row], matrix.quality[row])

    def delivered(self, part: Installed) -> bool:
        """Whether the meter gave them as intervals, and not as points of its register."""
        _, matrix, row = self._group(part)
        return bool(matrix.own[row])

    def sums(self, piece: Piece, schedule: Schedule | None, zone_name: str) -> tuple[PieceSums | None, list[Hold]]:
        """Intervals of a piece by TOU period, each by its start; holds for what is missing, suspect or undecidable."""
        if piece.meter.curve_step_s == 0:
            what = "the tariff needs intervals, and the meter keeps no curve"
            return None, [Hold("no_curve", what, "change the tariff or the meter", piece.meter.id)]
        group, matrix, row = self._group(piece.installed)
        key = (piece.window, id(schedule))  # schedules are those of the batch's tariffs: comparing them takes long
        if key not in group.torn:
            group.torn[key] = _torn(_split(schedule, piece.window, zone_name), piece)
        if torn := group.torn[key]:
            return None, [_straddle(piece, torn, zone_name)]
        sums = _group_sums(group, matrix, piece.window, schedule, zone_name)
        if sums.bad[row]:
            return None, list(_bad_holds(self.rows(piece.installed).cut(piece.window), piece, zone_name))
        return sums.of(row), []

    def highest(
        self, part: Installed, per_block: int, hop: int, hours: Sequence[Hours], period: str, zone_name: str
    ) -> tuple[int, int]:
        """The first interval of the block that holds most of a stay, and its units; of one TOU period only, if given.

        hours: which hours the period has in each piece of the stay, () where all of the time counts. All of the stay's
        intervals must be there, and a block must fit in it.
        """
        group, matrix, row = self._group(part)
        key = (per_block, hop, period, *((window, id(schedule)) for window, schedule in hours))
        if key not in group.highest:
            units = matrix.units
            if hours:
                units = units * np.concatenate([_inside(group.step_s, *one, period, zone_name) for one in hours])
            group.highest[key] = kernel.highest_block(units, per_block, hop)
        first, top = group.highest[key]
        return int(first[row]), int(top[row])


def _inside(step_s: int, window: Window, schedule: Schedule, period: str, zone_name: str) -> NDArray[np.bool_]:
    """Which intervals of `window` are in a TOU period."""
    names = tuple(dict.fromkeys(span.period for span in spans(schedule, window, zone_name)))
    place = names.index(period) if period in names else -1
    found: NDArray[np.bool_] = period_index(schedule, window, zone_name, step_s, names) == place
    return found


def _split(schedule: Schedule | None, window: Window, zone_name: str) -> tuple[PeriodSpan, ...]:
    return spans(schedule, window, zone_name) if schedule else (PeriodSpan(window.start, window.end, ""),)


def _torn(split: Sequence[PeriodSpan], piece: Piece) -> list[datetime]:
    """Ends of spans that lie within an interval."""
    step = timedelta(seconds=piece.meter.curve_step_s)
    ends = (piece.window.start, *(span.end for span in split))
    return [end for end in ends if (end - piece.origin) % step]


def _group_sums(group: _Group, matrix: Intervals, window: Window, schedule: Schedule | None, zone_name: str) -> _Sums:
    """The sums of all meters of a group over `window`, worked out once."""
    key = (window, id(schedule))
    if key in group.sums:
        return group.sums[key]
    split = _split(schedule, window, zone_name)
    periods = tuple(dict.fromkeys(span.period for span in split))
    step = timedelta(seconds=group.step_s)
    low, high = (window.start - group.window.start) // step, (window.end - group.window.start) // step
    units, quality = matrix.units[:, low:high], matrix.quality[:, low:high]
    if schedule is None:
        index = np.zeros(high - low, dtype=np.intp)
    else:
        index = period_index(schedule, window, zone_name, group.step_s, periods)
    counts = np.zeros((len(units), len(periods), len(Quality)), dtype=np.int64)
    for number in Quality:
        counts[:, :, number] = _counted(quality == number, index, len(periods))
    bad: NDArray[np.bool_] = np.asarray(counts[:, :, list(_BAD)].any(axis=(1, 2)))
    found = _Sums(periods, kernel.period_sums(units, index, len(periods)), counts, bad)
    group.sums[key] = found
    return found


def _counted(mine: NDArray[np.bool_], index: NDArray[np.intp], periods: int) -> NDArray[np.int64]:
    """By meter and period how many are `mine`."""
    if not mine.any():
        return np.zeros((len(mine), periods), dtype=np.int64)
    if mine.all():
        return np.broadcast_to(np.bincount(index, minlength=periods), (len(mine), periods))
    return kernel.period_sums(mine.astype(np.int64), index, periods)


def _bad_holds(rows: Rows, piece: Piece, zone_name: str) -> Iterator[Hold]:
    step = timedelta(seconds=rows.step_s)
    for code, word, quality in (
        ("interval_missing", "missing", Quality.MISSING),
        ("interval_suspect", "suspect", Quality.SUSPECT),
    ):
        starts = [rows.start + int(n) * step for n in np.flatnonzero(rows.quality == quality)]
        if not starts:
            continue
        runs = list(_runs(starts, step))
        shown = "; ".join(span_text(run, zone_name) for run in runs[:_RUNS_SHOWN])
        more = f"; and {len(runs) - _RUNS_SHOWN} more gaps" if len(runs) > _RUNS_SHOWN else ""
        what = f"{len(starts)} of {len(rows.units)} intervals {word}: {shown}{more}"
        yield Hold(code, what, READ_AGAIN, piece.meter.id, starts[0], starts[-1] + step, len(starts))


def _runs(starts: Iterable[datetime], step: timedelta) -> Iterator[Window]:
    """Neighbouring intervals as one window each."""
    run: Window | None = None
    for start in starts:
        if run is not None and run.end == start:
            run = Window(run.start, start + step)
            continue
        if run is not None:
            yield run
        run = Window(start, start + step)
    if run is not None:
        yield run


def _straddle(piece: Piece, torn: Sequence[datetime], zone_name: str) -> Hold:
    what = f"intervals of {piece.meter.curve_step_s} s straddle {len(torn)} TOU boundaries, the first at "
    what += when_text(torn[0], zone_name)
    remedy = "read a curve with a finer step, or correct the tariff's hours"
    return Hold("interval_straddles", what, remedy, piece.meter.id, torn[0], torn[-1], len(torn))


def sum_check(curves: Curves, piece: Piece, register: RegisterPart, sums: PieceSums, zone_name: str) -> list[Hold]:
    """Interval sums against the register difference of the same meter and span."""
    summed, difference = from_units(sum(sums.units.values())), register.difference
    if summed == difference:
        return []
    # Where both are the same curve points, nothing may lie between them.
    from_curve = {register.start.source, register.end.source} == {Source.CURVE}
    one = from_curve and not curves.delivered(piece.installed)
    tolerance = Decimal(0) if one else 2 * _RESOLUTION
    if abs(summed - difference) <= tolerance:
        return []
    what = (
        f"the intervals sum to {summed} kWh, the register rose by {difference} kWh "
        f"({span_text(piece.window, zone_name)}); {tolerance} kWh may lie between them"
    )
    remedy = "check the curve and both registers, read again what is wrong"
    return [Hold("sum_check", what, remedy, piece.meter.id, piece.window.start, piece.window.end)]
