"""Energies of a usage point in each segment of a period: measured, lost before the meter, taken off for those behind.

The loss is worked out from all that the point's meter registered; then what usage points behind it have of their own is
taken off, and the loss added. One without a meter of its own has a part of its parent's energies.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from billing.gathering import losses, submeters
from billing.gathering.places import Spot, span_text, spots
from billing.gathering.registers import Amount
from billing.model import Derived, Hold, Period
from billing.names import LOSS, LOSS_REACTIVE, REACTIVE, TOTAL, at, tou_name
from headend.model import Window
from headend.store import terms
from headend.store.terms import SubmeterRow, SupplyRow

__all__ = ["Behind", "Energies", "Measures", "Network", "pro_rata", "shared"]

_PLACES = Decimal("0.0001")
_FLAT = "flat"
_T = TypeVar("_T")


@dataclass(slots=True)
class Energies:
    """Amounts by the plain names of their determinants; what is against them. torn: of intervals, told last."""

    amounts: dict[str, Amount] = field(default_factory=dict)
    holds: list[Hold] = field(default_factory=list)
    torn: list[Hold] = field(default_factory=list)

    @property
    def barred(self) -> bool:
        """Whether something is missing; what is only odd is for a person to look at."""
        return any(not hold.review for hold in (*self.holds, *self.torn))

    def split(self) -> dict[str, Amount]:
        """The energies that sum to the total: by TOU period."""
        return {name: one for name, one in self.amounts.items() if name.startswith(f"{TOTAL}_")}


class Measures(Protocol):
    """What the meters at a spot registered in a segment; own: all that is asked of the bill's own usage point."""

    def __call__(self, spot: Spot, segment: int, *, own: bool) -> Energies: ...


@dataclass(frozen=True, slots=True)
class Behind:
    """How the usage points of a batch hang together."""

    parent: Mapping[str, tuple[SubmeterRow, ...]]
    children: Mapping[str, tuple[SubmeterRow, ...]]
    supplies: Mapping[str, tuple[SupplyRow, ...]]


@dataclass(slots=True)
class Network:
    """Every spot that the bills of a batch need, their own and those before or behind them."""

    behind: Behind
    spots: dict[tuple[str, int], Spot]

    @classmethod
    def read(cls, conn: Connection, wanted: Collection[tuple[str, Period]]) -> Network:
        """The spots for usage points and periods, with all they depend on."""
        periods = {id(period): period for _, period in wanted}
        parent, children = dict[str, list[SubmeterRow]](), dict[str, list[SubmeterRow]]()
        supplies = dict[str, list[SupplyRow]]()
        for row in terms.submeters(conn):
            parent.setdefault(row.usage_point, []).append(row)
            children.setdefault(row.parent, []).append(row)
        for supply in terms.supplies(conn):
            supplies.setdefault(supply.usage_point, []).append(supply)
        behind = Behind(_frozen(parent), _frozen(children), _frozen(supplies))
        needed = {(point, id(period)) for point, period in wanted}
        new = set(needed)
        while new:
            near = {(point, period) for at_, period in new for point in _near(behind, at_)}
            new = near - needed
            needed |= new
        found = spots(conn, [(point, periods[period]) for point, period in needed])
        return cls(behind, dict(zip(needed, found, strict=True)))

    def spot(self, point: str, period: Period) -> Spot:
        """The usage point in a period of those that were read: the very object, as comparing them takes long."""
        return self.spots[point, id(period)]

    def transformed(self, spot: Spot) -> bool:
        """Whether a transformer stands before this spot: its loss depends on reactive energy as well."""
        window = spot.period.window
        return any(row.rated_kva and _overlaps(row, window) for row in self.behind.supplies.get(spot.point, ()))

    def before(self, spot: Spot, window: Window) -> SubmeterRow | None:
        """The relation by which a point without a meter of its own has a part of its parent's energy."""
        rows = (row for row in self.behind.parent.get(spot.point, ()) if row.method != "metered")
        return next((row for row in rows if _overlaps(row, window)), None)


def _frozen(rows: Mapping[str, Iterable[_T]]) -> dict[str, tuple[_T, ...]]:
    return {name: tuple(found) for name, found in rows.items()}


def _near(behind: Behind, point: str) -> Iterable[str]:
    """Points whose energies are needed for those of `point`."""
    yield from (row.parent for row in behind.parent.get(point, ()) if row.method != "metered")
    yield from (row.usage_point for row in behind.children.get(point, ()) if row.method == "metered")


def _overlaps(row: SubmeterRow | SupplyRow, window: Window) -> bool:
    return row.since < window.end and (row.until is None or row.until > window.start)


def _covers(row: SubmeterRow | SupplyRow, window: Window) -> bool:
    return row.since <= window.start and (row.until is None or row.until >= window.end)


def shared(network: Network, measure: Measures, spot: Spot, segment: int) -> tuple[Energies, Energies]:
    """What is billed of the spot in a segment, and what its meter registered, both with the loss."""
    whole = _own(network, measure, spot, segment, own=True)
    loss = _loss(network, spot, segment, whole)
    rest = _rest(network, measure, spot, segment, whole)
    for energies in (whole, rest) if rest is not whole else (whole,):
        _add_loss(energies, loss, spot, segment)
    return rest, whole


def _own(network: Network, measure: Measures, spot: Spot, segment: int, *, own: bool) -> Energies:
    """What the spot's meter registered, or its part of what its parent's did."""
    window = spot.period.segments[segment].window
    row = network.before(spot, window)
    if row is None:
        return measure(spot, segment, own=own)
    parent = network.spot(row.parent, spot.period)
    whole = _own(network, measure, parent, segment, own=False)
    found = Energies(holds=[*parent.holds, *whole.holds, *_partly(row, spot, segment)], torn=list(whole.torn))
    parts, _, missing = _parts(network, measure, parent, segment)
    found.holds += missing
    if found.barred:
        return found
    try:
        taken = submeters.share_out(_values(whole), parts).taken
    except ValueError as error:
        found.holds.append(_too_much(error, window))
        return found
    number = [part.point for part in parts].index(spot.point)
    for name, value in taken[number].items():
        one = Amount(counts=whole.amounts[name].counts.copy())
        one.value, one.parents = value, [Derived(f"submeter {row.parent}", value)]
        found.amounts[name] = one
    return found


def _values(energies: Energies) -> dict[str, Decimal]:
    names = (TOTAL, *energies.split())
    return {name: energies.amounts[name].value for name in names}


def _parts(
    network: Network, measure: Measures, spot: Spot, segment: int
) -> tuple[list[submeters.Part], list[SubmeterRow], list[Hold]]:
    """The parts of a spot's energies that belong to points behind it."""
    window = spot.period.segments[segment].window
    rows = [row for row in network.behind.children.get(spot.point, ()) if _overlaps(row, window)]
    parts, holds = list[submeters.Part](), list[Hold]()
    for row in sorted(rows, key=lambda one: one.usage_point):
        holds += _partly(row, spot, segment)
        energies: dict[str, Decimal] = {}
        if row.method == "metered":
            child = network.spot(row.usage_point, spot.period)
            found = measure(child, segment, own=False)
            holds += [*child.holds, *found.holds, *found.torn]
            energies = {name: one.value for name, one in found.amounts.items()}
        amount = _quantity(row, spot.period, window) if row.method == "quantity" else row.amount
        parts.append(submeters.Part(row.usage_point, row.method, amount, energies))
    return parts, rows, holds


def _quantity(row: SubmeterRow, period: Period, window: Window) -> Decimal:
    """What of a month's quantity falls in `window`, by time: the parts of a month sum to the whole."""
    month = period.month

    def upto(moment: datetime) -> Decimal:
        seconds = Decimal(int((moment - month.start).total_seconds()))
        whole = Decimal(int((month.end - month.start).total_seconds()))
        return (row.amount * seconds / whole).quantize(_PLACES, rounding=ROUND_HALF_UP)

    return upto(window.end) - upto(window.start)


def _rest(network: Network, measure: Measures, spot: Spot, segment: int, whole: Energies) -> Energies:
    """What is left of `whole` when the points behind the meter have their parts."""
    parts, _, holds = _parts(network, measure, spot, segment)
    if not parts:
        return whole
    found = Energies(holds=[*whole.holds, *holds], torn=list(whole.torn))
    if found.barred:
        return found
    try:
        out = submeters.share_out(_values(whole), parts)
    except ValueError as error:
        found.holds.append(_too_much(error, spot.period.segments[segment].window))
        return found
    for name, one in whole.amounts.items():
        left = Amount(one.value, list(one.parents), one.counts.copy())
        for part, taken in zip(parts, out.taken, strict=True):
            left.add(f"submeter {part.point}", -taken.get(name, Decimal(0)))
        found.amounts[name] = left
    return found


def _partly(row: SubmeterRow, spot: Spot, segment: int) -> list[Hold]:
    window = spot.period.segments[segment].window
    if _covers(row, window):
        return []
    what = f"usage point {row.usage_point} is behind {row.parent} for a part of the time only"
    what += f" ({span_text(window, spot.zone)})"
    remedy = "let it begin and end with a month, or with a term of the account"
    return [Hold("submeter_part", what, remedy, start=window.start, end=window.end)]


def _too_much(error: ValueError, window: Window) -> Hold:
    remedy = "check the meters and the sub-meter relations"
    return Hold("submeter_energy", str(error), remedy, start=window.start, end=window.end)


# -- losses ------------------------------------------------------------------------------------------------------------


def _loss(network: Network, spot: Spot, segment: int, whole: Energies) -> losses.Loss | None:
    """What transformer and line lose in a segment; None where there is neither. Adds to the holds of `whole`."""
    window = spot.period.segments[segment].window
    rows = [row for row in network.behind.supplies.get(spot.point, ()) if _overlaps(row, window)]
    if not rows or whole.holds or TOTAL not in whole.amounts:
        return None
    if len(rows) > 1 or not _covers(rows[0], window):
        what = f"the transformer or line of {spot.point} changes within {span_text(window, spot.zone)}"
        remedy = "let it change with a month, or with a term of the account"
        whole.holds.append(Hold("supply_part", what, remedy, start=window.start, end=window.end))
        return None
    reactive = whole.amounts.get(REACTIVE, Amount()).value
    try:
        return losses.loss(rows[0], whole.amounts[TOTAL].value, reactive, _hours(window), _hours(spot.period.month))
    except ValueError as error:
        whole.holds.append(Hold("supply_loss", str(error), "check the meter and the supply's numbers"))
        return None


def _hours(window: Window) -> Decimal:
    return Decimal(int((window.end - window.start).total_seconds())) / 3600


def _add_loss(energies: Energies, loss: losses.Loss | None, spot: Spot, segment: int) -> None:
    """The loss into the total and the period that takes it: the charge's rest, `flat`, or all of them pro rata."""
    if loss is None or TOTAL not in energies.amounts:
        return
    label = spot.period.segments[segment].label
    name = at(LOSS, label)
    energies.amounts[TOTAL].add(name, loss.active_kwh)
    for period, part in _laid(energies, loss.active_kwh, spot, segment).items():
        energies.amounts[period].add(name, part)
    for kind, value in ((LOSS, loss.active_kwh), (LOSS_REACTIVE, loss.reactive_kvarh)):
        one = Amount()
        one.value, one.parents = value, [Derived(loss.source, value)]
        energies.amounts[kind] = one
    if REACTIVE in energies.amounts:
        energies.amounts[REACTIVE].add(at(LOSS_REACTIVE, label), loss.reactive_kvarh)


def _laid(energies: Energies, loss: Decimal, spot: Spot, segment: int) -> dict[str, Decimal]:
    split = energies.split()
    rests = [getattr(charge, "rest", "") for charge in spot.period.segments[segment].tariff.charges]
    for period in (*rests, _FLAT):
        if period and tou_name(period) in split:
            return {tou_name(period): loss}
    return pro_rata(loss, {name: one.value for name, one in split.items()})


def pro_rata(whole: Decimal, by: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """`whole` shared out in proportion, to four places; the last takes the rest, and all where there is nothing."""
    total, found = sum(by.values(), Decimal(0)), dict[str, Decimal]()
    names: Sequence[str] = list(by)
    for name in names[:-1]:
        share = whole * by[name] / total if total else Decimal(0)
        found[name] = share.quantize(_PLACES, rounding=ROUND_HALF_UP)
    if names:
        found[names[-1]] = whole - sum(found.values(), Decimal(0))
    return found
