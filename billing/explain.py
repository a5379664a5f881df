"""From a bill back to the bytes: line, determinant, registers and intervals, outcomes, frames.

Shows what was billed, as it is kept with the bill, and says where the store now holds something else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta, tzinfo
from decimal import Decimal
from difflib import get_close_matches

from sqlalchemy import Connection, select

from billing import schema, store
from billing.calendar import PeriodSpan
from billing.model import Bill, BillLine, Determinant, Hold, IntervalPart, RegisterEnd, RegisterPart, UsedBefore
from billing.rate import EXPORT, MAXIMUM, NET, PERCENT, POWER_FACTOR, SURPLUS, TOTAL, tou_name
from headend.civil import zone
from headend.errors import UsageError
from headend.model import FrameRecord, Interval, Quality, Window
from headend.quantities import QUANTITIES, Kind, from_units
from headend.store import readings, registry

__all__ = ["Node", "explain"]

_DERIVED = {
    POWER_FACTOR: (TOTAL, "import_kvarh", "export_kvarh"),
    NET: (TOTAL, EXPORT),
    SURPLUS: (TOTAL, EXPORT),
}
_DERIVED_TEXT = {
    POWER_FACTOR: "active / sqrt(active^2 + reactive^2), half-up to two places",
    NET: "import less export, 0 where more was exported",
    SURPLUS: "export less import, 0 where more was imported",
}


@dataclass(frozen=True, slots=True)
class Node:
    """One step of an explanation. frames: the bytes of an outcome, in `protocol`'s language; others have none."""

    title: str
    detail: tuple[str, ...] = ()
    children: tuple[Node, ...] = ()
    frames: tuple[FrameRecord, ...] = ()
    protocol: str = ""


@dataclass(slots=True)
class _Walk:
    """What one explanation has read so far."""

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


def explain(conn: Connection, number: str, day: date | None = None) -> Node:
    """The bill `number` as a tree down to its frames; `day` opens the intervals of one civil day of the tariff's zone.

    A held bill shows why it was held, and when. `UsageError` for an unknown bill and a day outside its period.
    """
    bill = store.bill(conn, number)
    if bill is None:
        near = get_close_matches(number, list(conn.scalars(select(schema.bill.c.number))), n=1)
        raise UsageError(
            f"unknown bill {number!r}", remedy=f"did you mean {near[0]}?" if near else "list the bills first"
        )
    protocols = {meter.key: meter.protocol for meter in registry.meters(conn)}
    walk = _Walk(conn, bill, day, protocols, store.tariff_spans(conn, bill.tariff_sha, bill.window))
    first = bill.window.start.astimezone(walk.tz).date()
    last = (bill.window.end - timedelta(seconds=1)).astimezone(walk.tz).date()
    if day is not None and not first <= day <= last:
        remedy = f"choose a day from {first} to {last}"
        raise UsageError(f"{day} is not in the period of bill {number}", remedy=remedy)
    detail: tuple[str, ...] = (
        f"account {bill.account}, usage point {bill.usage_point}",
        f"{walk.when(bill.window.start)} to {walk.when(bill.window.end)}",
        f"tariff {bill.tariff}, version {bill.tariff_version}, file {bill.tariff_sha}",
    )
    if bill.state != "issued":
        held = [_held_node(walk, at, holds) for at, holds in store.hold_history(conn, number)]
        return Node(f"bill {number}: {bill.state}", detail, tuple(held))
    assert bill.issued_at is not None, "an issued bill has its time"
    detail = (*detail, f"issued {walk.when(bill.issued_at)} from what was there up to outcome {bill.as_of}")
    parents = {determinant.name: _determinant_node(walk, determinant) for determinant in bill.determinants}
    for made, of in _DERIVED.items():
        if made in parents:
            children = tuple(parents[name] for name in of if name in parents)
            parents[made] = replace(parents[made], detail=(_DERIVED_TEXT[made],), children=children)
    lines = [_line_node(bill, line, parents) for line in bill.lines]
    billed = {line.determinant for line in bill.lines}
    for made, of in _DERIVED.items():
        billed |= set(of) if made in billed else set()
    lines += [
        Node(f"checked against {node.title}", node.detail, node.children)
        for name, node in parents.items()
        if name not in billed
    ]
    return Node(f"bill {number}: {bill.total} {bill.currency}", detail, tuple(lines))


def _held_node(walk: _Walk, at: datetime, holds: Sequence[Hold]) -> Node:
    return Node(f"held {walk.when(at)}", tuple(str(hold) for hold in holds))


def _line_node(bill: Bill, line: BillLine, parents: dict[str, Node]) -> Node:
    sign = "of" if line.unit == PERCENT else "x"
    arithmetic = f"{_plain(line.quantity)} {line.unit} {sign} {line.price} = {line.amount} {bill.currency}"
    parent = parents.get(line.determinant)
    return Node(f"{line.code}: {line.amount} {bill.currency}", (line.text, arithmetic), (parent,) if parent else ())


def _determinant_node(walk: _Walk, determinant: Determinant) -> Node:
    terms = [part.value for part in determinant.parents if not isinstance(part, UsedBefore)]
    detail = [f"{' + '.join(_plain(term) for term in terms)} = {_plain(determinant.value)}"] if len(terms) > 1 else []
    if determinant.counts:
        kind = "intervals" if any(isinstance(part, IntervalPart) for part in determinant.parents) else "registers"
        detail.append(f"{kind}: {_quality_text(dict(determinant.counts))}")
    children = []
    for part in determinant.parents:
        match part:
            case RegisterPart():
                children.append(_register_node(walk, part))
            case IntervalPart():
                children.append(_interval_node(walk, part, determinant.name))
            case UsedBefore():
                pass
    if determinant.used_before is not None:
        children.append(_used_node(walk, determinant))
    title = f"{determinant.name} = {_plain(determinant.value)} {determinant.unit}".rstrip()
    return Node(title, tuple(detail), tuple(children))


def _used_node(walk: _Walk, determinant: Determinant) -> Node:
    assert determinant.used_before is not None
    detail = tuple(
        f"bill {part.number}: {_plain(part.energy)} kWh"
        if part.number
        else f"declared on the account at {walk.when(part.at)}: {_plain(part.energy)} kWh"
        for part in determinant.parents
        if isinstance(part, UsedBefore)
    )
    return Node(f"used before in the step year: {_plain(determinant.used_before)} kWh", detail)


# -- registers ---------------------------------------------------------------------------------------------------------


def _register_node(walk: _Walk, part: RegisterPart) -> Node:
    unit = QUANTITIES[part.quantity].unit
    if QUANTITIES[part.quantity].kind is Kind.DEMAND:
        return _demand_node(walk, part, unit)
    start, end = from_units(part.start.units).normalize(), from_units(part.end.units).normalize()
    wrap = f" + {_plain(from_units(part.wrap_units))} (rollover)" if part.end.units < part.start.units else ""
    arithmetic = f"{_kwh(end)} - {_kwh(start)}{wrap} = {_kwh(part.difference)} {unit} x {_plain(part.multiplier)}"
    children = tuple(_end_node(walk, part, register) for register in (part.start, part.end))
    return Node(f"meter {part.meter}: {arithmetic}", (f"= {_plain(part.value)} {unit}",), children)


def _demand_node(walk: _Walk, part: RegisterPart, unit: str) -> Node:
    """A maximum that the meter kept at a settlement, and the settlement before at which it began anew."""
    span = f"between the settlements at {walk.when(part.start.at)} and {walk.when(part.end.at)}"
    title = f"meter {part.meter}: the highest {_kwh(part.difference)} {unit} x {_plain(part.multiplier)}"
    children = tuple(_end_node(walk, part, register) for register in (part.start, part.end))
    return Node(title, (f"= {_plain(part.value)} {unit}, {span}",), children)


def _end_node(walk: _Walk, part: RegisterPart, register: RegisterEnd) -> Node:
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


def _outcome_node(walk: _Walk, outcome_id: int) -> Node:
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


def _interval_node(walk: _Walk, part: IntervalPart, name: str) -> Node:
    rows = list(_rows_of(walk, part, name))
    total = from_units(part.sum_units)
    title = (
        f"meter {part.meter}: {part.count} intervals of {part.step_s} s = {_kwh(total)} kWh x {_plain(part.multiplier)}"
    )
    detail = [f"= {_plain(part.value)} kWh"]
    if name == MAXIMUM:
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


def _rows_of(walk: _Walk, part: IntervalPart, name: str) -> Iterator[Interval]:
    """The intervals of a part that start in the TOU period of the determinant called `name`."""
    key = (part.meter_key, part.window)
    if key not in walk.intervals:
        walk.intervals[key] = readings.intervals(
            walk.conn, part.meter_key, part.quantity, part.window, step_s=part.step_s, wrap_units=part.wrap_units
        )
    if name == MAXIMUM:
        yield from walk.intervals[key]
        return
    own = iter(span for span in walk.spans if tou_name(span.period) == name)
    span = next(own, None)
    for row in walk.intervals[key]:
        while span is not None and span.end <= row.start:
            span = next(own, None)
        if span is not None and span.start <= row.start:
            yield row


def _day_node(walk: _Walk, day: date, rows: Sequence[Interval]) -> Node:
    total = sum((from_units(row.units) for row in rows if row.units is not None), Decimal(0))
    quality = _quality_text(Counter(row.quality for row in rows))
    parents = sorted({parent for row in rows for parent in row.parents})
    title = f"{day}: {len(rows)} intervals, {_kwh(total)} kWh, {quality}, from {len(parents)} outcomes"
    if day != walk.day:
        return Node(title)
    detail = (f"first {walk.when(rows[0].start)}, last {walk.when(rows[-1].start)}",)
    points = tuple(_point_node(walk, row) for row in rows)
    return Node(title, detail, (*points, *(_outcome_node(walk, parent) for parent in parents)))


def _point_node(walk: _Walk, row: Interval) -> Node:
    value = "no value" if row.units is None else f"{_kwh(from_units(row.units))} kWh"
    parents = f", outcome {', '.join(map(str, row.parents))}" if row.parents else ""
    return Node(f"{walk.when(row.start)}: {value} ({row.quality.name.lower()}{parents})")


def _quality_text(counts: Counter[Quality] | dict[Quality, int]) -> str:
    return ", ".join(f"{count} {quality.name.lower()}" for quality, count in sorted(counts.items()))


def _kwh(value: Decimal) -> str:
    """Meter energy with at least two places."""
    places = _plain(value).partition(".")[2]
    return f"{value:.2f}" if len(places) < 2 else _plain(value)


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
