"""How the values a bill was made from are explained: registers, intervals, the outcomes and frames they came in.

Shows what was billed, as it is kept with the bill, and says where the store now holds something else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, tzinfo
from decimal import Decimal

from sqlalchemy import Connection

from billing.calendar import PeriodSpan
from billing.model import Bill, IntervalPart, RegisterEnd, RegisterPart
from billing.names import MAXIMUM, TOTAL
from headend.civil import zone
from headend.model import FrameRecord, Interval, Quality, Window
from headend.quantities import QUANTITIES, Kind, from_units
from headend.store import readings

__all__ = ["Node", "Walk", "interval_node", "is_demand", "plain", "quality_text", "register_node"]


@dataclass(frozen=True, slots=True)
class Node:
    """One step of an explanation. frames: the bytes of an outcome, in `protocol`'s language; others have none."""

    title: str
    detail: tuple[str, ...] = ()
    children: tuple[Node, ...] = ()
    frames: tuple[FrameRecord, ...] = ()
    protocol: str = ""


@dataclass(slots=True)
class Walk:
    """What one explanation has read so far. spans: how the TOU periods split the billing period."""

    conn: Connection
    bill: Bill
    day: date | None
    protocols: dict[int, str]
    spans: tuple[PeriodSpan, ...]
    outcomes: dict[int, Node] = field(default_factory=dict)
    intervals: dict[tuple[int, Window], list[Interval]] = field(default_factory=dict)

    @property
    def tz(self) -> tzinfo:
        return zone(self.bill.zone)

    def when(self, moment: datetime) -> str:
        return moment.astimezone(self.tz).isoformat(timespec="minutes")


# -- registers ---------------------------------------------------------------------------------------------------------


def register_node(walk: Walk, part: RegisterPart) -> Node:
    unit = QUANTITIES[part.quantity].unit
    if QUANTITIES[part.quantity].kind is Kind.DEMAND:
        return _demand_node(walk, part, unit)
    start, end = from_units(part.start.units).normalize(), from_units(part.end.units).normalize()
    wrap = f" + {plain(from_units(part.wrap_units))} (rollover)" if part.end.units < part.start.units else ""
    arithmetic = f"{_kwh(end)} - {_kwh(start)}{wrap} = {_kwh(part.difference)} {unit} x {plain(part.multiplier)}"
    children = tuple(_end_node(walk, part, register) for register in (part.start, part.end))
    return Node(f"meter {part.meter}: {arithmetic}", (f"= {plain(part.value)} {unit}",), children)


def _demand_node(walk: Walk, part: RegisterPart, unit: str) -> Node:
    """A maximum that the meter kept at a settlement, and the settlement before at which it began anew."""
    span = f"between the settlements at {walk.when(part.start.at)} and {walk.when(part.end.at)}"
    title = f"meter {part.meter}: the highest {_kwh(part.difference)} {unit} x {plain(part.multiplier)}"
    children = tuple(_end_node(walk, part, register) for register in (part.start, part.end))
    return Node(title, (f"= {plain(part.value)} {unit}, {span}",), children)


def _end_node(walk: Walk, part: RegisterPart, register: RegisterEnd) -> Node:
    value = _kwh(from_units(register.units))
    kind = f"{register.source.name.lower().replace('_', ' ')}, {register.quality.name.lower()}"
    unit = QUANTITIES[part.quantity].unit
    title = f"{part.quantity} at {walk.when(register.at)}: {value} {unit} ({kind})"
    now = readings.register_at(walk.conn, part.meter_key, part.quantity, register.at)
    detail: tuple[str, ...] = ()
    if now is None or now.units != register.units:
        held = "nothing" if now is None else f"{_kwh(from_units(now.units))} {unit} from outcome {now.outcome_id}"
        detail = (f"changed since the bill was issued: the store now holds {held}",)
    return Node(title, detail, (_outcome_node(walk, register.outcome_id),))


def _outcome_node(walk: Walk, outcome_id: int) -> Node:
    if outcome_id not in walk.outcomes:
        row = readings.outcome(walk.conn, outcome_id)
        if row is None:
            return Node(f"outcome {outcome_id}: not in the store")
        frames = readings.frames(walk.conn, outcome_id)
        detail = [f"attempt {row.attempt}" + (f" of schedule {row.schedule}" if row.schedule else "")]
        detail += [row.detail] if row.detail else []
        carrier = None if row.message_key is None else readings.message(walk.conn, row.message_key)
        if carrier is not None:
            detail.append(f"came in message {carrier.key} of {carrier.size} bytes, {carrier.channel}, {carrier.topic}")
        detail += [] if frames else [f"its {'frames were' if carrier is None else 'bytes were'} not kept"]
        walk.outcomes[outcome_id] = Node(
            f"outcome {outcome_id}: {row.kind.value}, {row.status.value}, {walk.when(row.started_at)}",
            tuple(detail),
            frames=frames,
            protocol=walk.protocols.get(row.meter_key, ""),
        )
    return walk.outcomes[outcome_id]


# -- intervals ---------------------------------------------------------------------------------------------------------


def interval_node(walk: Walk, part: IntervalPart, name: str) -> Node:
    rows = list(_rows_of(walk, part, name))
    total = from_units(part.sum_units)
    title = (
        f"meter {part.meter}: {part.count} intervals of {part.step_s} s = {_kwh(total)} kWh x {plain(part.multiplier)}"
    )
    detail = [f"= {plain(part.value)} kWh"]
    if is_demand(name):
        seconds = int((part.window.end - part.window.start).total_seconds())
        block = f"{walk.when(part.window.start)} to {walk.when(part.window.end)}"
        detail = [f"{detail[0]} in the highest block, {block}: x 3600 s / {seconds} s = its mean power"]
    now = sum(row.units for row in rows if row.units is not None)
    if now != part.sum_units:
        changed = f"changed since the bill was issued (after outcome {part.as_of})"
        detail.append(f"{changed}: the intervals now sum to {_kwh(from_units(now))} kWh")
    days: dict[date, list[Interval]] = {}
    for row in rows:
        days.setdefault(row.start.astimezone(walk.tz).date(), []).append(row)
    return Node(title, tuple(detail), tuple(_day_node(walk, day, found) for day, found in days.items()))


def _rows_of(walk: Walk, part: IntervalPart, name: str) -> Iterator[Interval]:
    """The intervals of a part that start in the TOU period of the determinant called `name`."""
    key = (part.meter_key, part.window)
    if key not in walk.intervals:
        walk.intervals[key] = readings.intervals(
            walk.conn, part.meter_key, part.quantity, part.window, step_s=part.step_s, wrap_units=part.wrap_units
        )
    period = _period_of(name)
    if period not in {span.period for span in walk.spans}:
        yield from walk.intervals[key]
        return
    own = iter(span for span in walk.spans if span.period == period)
    span = next(own, None)
    for row in walk.intervals[key]:
        while span is not None and span.end <= row.start:
            span = next(own, None)
        if span is not None and span.start <= row.start:
            yield row


def _period_of(name: str) -> str:
    """The TOU period in the name of a determinant of energy or demand; "" for all of the time."""
    plain_name = name.partition("@")[0]
    for whole in (MAXIMUM, TOTAL):
        if plain_name.startswith(f"{whole}_"):
            return plain_name.removeprefix(f"{whole}_")
    return ""


def is_demand(name: str) -> bool:
    """Whether a determinant is a maximum demand."""
    return name == MAXIMUM or name.startswith(f"{MAXIMUM}_")


def _day_node(walk: Walk, day: date, rows: Sequence[Interval]) -> Node:
    total = sum((from_units(row.units) for row in rows if row.units is not None), Decimal(0))
    quality = quality_text(Counter(row.quality for row in rows))
    parents = sorted({parent for row in rows for parent in row.parents})
    title = f"{day}: {len(rows)} intervals, {_kwh(total)} kWh, {quality}, from {len(parents)} outcomes"
    if day != walk.day:
        return Node(title)
    detail = (f"first {walk.when(rows[0].start)}, last {walk.when(rows[-1].start)}",)
    points = tuple(_point_node(walk, row) for row in rows)
    return Node(title, detail, (*points, *(_outcome_node(walk, parent) for parent in parents)))


def _point_node(walk: Walk, row: Interval) -> Node:
    value = "no value" if row.units is None else f"{_kwh(from_units(row.units))} kWh"
    parents = f", outcome {', '.join(map(str, row.parents))}" if row.parents else ""
    return Node(f"{walk.when(row.start)}: {value} ({row.quality.name.lower()}{parents})")


def quality_text(counts: Counter[Quality] | dict[Quality, int]) -> str:
    return ", ".join(f"{count} {quality.name.lower()}" for quality, count in sorted(counts.items()))


def _kwh(value: Decimal) -> str:
    """Meter energy with at least two places."""
    places = plain(value).partition(".")[2]
    return f"{value:.2f}" if len(places) < 2 else plain(value)


def plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
