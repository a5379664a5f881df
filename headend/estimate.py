"""Estimates for curve points that will never come, between two that did. Stored as estimated, with how they were made.

Only the shape within the gap is estimated: its total is the difference of two registers the meter gave, and stays so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from headend.model import Meter, Outcome, Quality, Reading, ReadJob, ReadKind, SlotState, Source, Status, Window
from headend.quantities import Kind, from_units, quantity, to_units
from headend.store import Store, readings
from headend.validation.split import LIKE_DAYS, LINE_S, like_days_shape, line_shape, split

__all__ = ["estimates"]

_WEEK = timedelta(days=7)
_BELIEVED = frozenset({Quality.VALID, Quality.EDITED})


@dataclass(frozen=True, slots=True)
class _Gap:
    """Boundaries that will never come, between two registers. before, after: consumption of the steps beside it."""

    first: readings.Point
    last: readings.Point
    missing: tuple[datetime, ...]
    before: int | None
    after: int | None


def estimates(store: Store, meter: Meter, name: str, window: Window, now: datetime) -> list[Outcome]:
    """One outcome for every gap of waived points in the register curve `name` that begins within `window`.

    Nothing is stored here. A gap that lies at the end of what is known, or holds a point still to come, is left alone.
    """
    curve = meter.model.curve
    if curve is None or quantity(name).kind is not Kind.REGISTER:
        return []
    step = timedelta(seconds=curve.step_s)
    with store.read() as conn:
        reach = Window(window.start - LIKE_DAYS * _WEEK - step, window.end + step)
        points = {p.at: p for p in readings.curve(conn, meter.key, name, reach, curve.step_s)}
    wrap = to_units(meter.model.register_wrap)
    return [
        _outcome(meter, name, gap, points, step, wrap, now)
        for gap in _gaps(points, step, wrap)
        if window.start <= gap.missing[0] < window.end
    ]


def _gaps(points: Mapping[datetime, readings.Point], step: timedelta, wrap: int) -> Iterator[_Gap]:
    run: list[datetime] = []
    first: readings.Point | None = None
    for at in sorted(points):
        point = points[at]
        if point.quality in _BELIEVED:
            if first is not None and run and _whole(first.at, run, at, step):
                before, after = _used(points, first.at - step, step, wrap), _used(points, at, step, wrap)
                yield _Gap(first, point, tuple(run), before, after)
            first, run = point, []
        elif point.state is SlotState.WAIVED and point.units is None:
            run.append(at)
        else:  # still to come, suspect, or estimated already
            first, run = None, []


def _whole(first: datetime, run: list[datetime], last: datetime, step: timedelta) -> bool:
    """Whether the run is all that lies between its ends."""
    return last - first == step * (len(run) + 1)


def _used(points: Mapping[datetime, readings.Point], at: datetime, step: timedelta, wrap: int) -> int | None:
    """Consumption of the step from `at`, if both its ends may be believed."""
    ends = (points.get(at), points.get(at + step))
    units = [end.units for end in ends if end is not None and end.quality in _BELIEVED and end.units is not None]
    if len(units) < 2:
        return None
    return units[1] - units[0] if units[1] >= units[0] else units[1] - units[0] + wrap


def _outcome(
    meter: Meter,
    name: str,
    gap: _Gap,
    points: Mapping[datetime, readings.Point],
    step: timedelta,
    wrap: int,
    now: datetime,
) -> Outcome:
    assert gap.first.units is not None
    assert gap.last.units is not None
    count = len(gap.missing) + 1
    shape, how = _shape(gap, points, step, wrap, count)
    values = split(gap.first.units, gap.last.units, shape, wrap)
    made = tuple(
        Reading(name, from_units(units), at, now, Source.CURVE, int(step.total_seconds()), Quality.ESTIMATED)
        for at, units in zip(gap.missing, values, strict=True)
    )
    window = Window(gap.missing[0], gap.missing[-1] + step)
    detail = (
        f"{from_units(gap.first.units)} at {gap.first.at:%Y-%m-%d %H:%M} UTC (outcome {gap.first.outcome_id}) to "
        f"{from_units(gap.last.units)} at {gap.last.at:%Y-%m-%d %H:%M} UTC (outcome {gap.last.outcome_id}), {how}"
    )
    job = ReadJob(meter, ReadKind.ESTIMATE, (name,), window, schedule="estimate")
    return Outcome(job, Status.OK, now, 0.0, made, detail=detail)


def _shape(
    gap: _Gap, points: Mapping[datetime, readings.Point], step: timedelta, wrap: int, count: int
) -> tuple[tuple[int, ...], str]:
    """The weights of a gap's steps, and where they come from."""
    if step * count > timedelta(seconds=LINE_S):
        weeks = [
            [_used(points, gap.first.at - week * _WEEK + step * k, step, wrap) for k in range(count)]
            for week in range(1, LIKE_DAYS + 1)
        ]
        whole = sum(None not in week for week in weeks)
        if (shape := like_days_shape(weeks, count)) is not None:
            return shape, f"shaped by the same time of {whole} earlier week{'s' if whole > 1 else ''}"
    if gap.before is None and gap.after is None:
        return (1,) * count, "shared evenly: nothing beside it is known"
    return line_shape(gap.before, gap.after, count), "on a line between the steps beside it"
