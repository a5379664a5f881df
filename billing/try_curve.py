"""Bill a load curve by a tariff, without a meter or a store: the same rating, from energies that are given. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from billing.calendar import billing_month, spans, step_year_start
from billing.model import (
    BillLine,
    DemandCharge,
    Determinant,
    ExportCredit,
    NetMetering,
    PowerFactorCharge,
    Tariff,
    TouCharge,
)
from billing.rate import (
    EXPORT,
    MAXIMUM,
    NET,
    SURPLUS,
    TOTAL,
    lines,
    one_of,
    periods_of,
    tou_charge,
    tou_name,
    yearly_steps,
)
from headend.civil import zone
from headend.errors import UsageError
from headend.model import Window

__all__ = ["Curve", "Trial", "months_of", "part_months_of", "try_month"]


@dataclass(frozen=True, slots=True)
class Curve:
    """Energy of consecutive intervals of one length.

    start: the instant at which the first interval starts (UTC). step_s: their length in seconds. values: kWh of each.
    """

    start: datetime
    step_s: int
    values: tuple[Decimal, ...]

    @property
    def end(self) -> datetime:
        """The instant at which the last interval ends."""
        return self.start + len(self.values) * timedelta(seconds=self.step_s)

    def energy(self, start: datetime, end: datetime) -> Decimal:
        """kWh of the intervals that start in `[start, end)`, as far as the curve reaches."""
        first, last = self._index(start), self._index(end)
        return sum(self.values[max(first, 0) : max(last, 0)], Decimal(0))

    def _index(self, moment: datetime) -> int:
        """Number of the first interval that starts at `moment` or later."""
        return -((self.start - moment) // timedelta(seconds=self.step_s))


@dataclass(frozen=True, slots=True)
class Trial:
    """A month of a curve, billed. used_before: kWh earlier in the step year; None if no charge asks for it."""

    window: Window
    energy: Decimal
    used_before: Decimal | None
    lines: tuple[BillLine, ...]
    total: Decimal
    notes: tuple[str, ...] = ()


def months_of(curve: Curve, zone_name: str) -> list[tuple[int, int]]:
    """The civil months of a zone that the curve covers from their start to their end."""
    return [month for month, window in _touched(curve, zone_name) if _covers(curve, window)]


def part_months_of(curve: Curve, zone_name: str) -> list[tuple[int, int]]:
    """The civil months of a zone of which the curve covers a part only."""
    return [month for month, window in _touched(curve, zone_name) if not _covers(curve, window)]


def _touched(curve: Curve, zone_name: str) -> Iterator[tuple[tuple[int, int], Window]]:
    first = curve.start.astimezone(zone(zone_name))
    year, month = first.year, first.month
    while (window := billing_month(year, month, zone_name)).start < curve.end:
        yield (year, month), window
        year, month = year + month // 12, month % 12 + 1


def _covers(curve: Curve, window: Window) -> bool:
    return curve.start <= window.start and window.end <= curve.end


def try_month(tariff: Tariff, curve: Curve, window: Window, used_before: Decimal | None = None) -> Trial:
    """The bill for one month of `curve`.

    used_before: kWh used in the step year before the curve starts; None: unknown, taken as 0, which a note tells.
    `UsageError` where the month is not whole in the curve, where an interval lies across a boundary of the tariff's
    hours, and where a charge needs what a load curve can't tell.
    """
    if not _covers(curve, window):
        raise UsageError("the curve does not cover the whole month", remedy="give all of its intervals")
    _check_boundaries(tariff, curve, window)
    used, notes = _used_before(tariff, curve, window, used_before)
    energy = curve.energy(window.start, window.end)
    found = {TOTAL: Determinant(TOTAL, energy, "kWh", used)}
    if (charge := tou_charge(tariff)) is not None:
        found |= {d.name: d for d in _by_period(tariff, charge, curve, window)}
    if (demand := one_of(tariff, DemandCharge)) is not None:
        found[MAXIMUM] = Determinant(MAXIMUM, _maximum(demand, curve, window), "kW")
        notes += (f"the maximum demand is the highest of the month's blocks of {demand.block_min} minutes",)
    notes += _assume_no_export(tariff, found)
    if one_of(tariff, PowerFactorCharge) is not None:
        notes += ("the power-factor adjustment is left out: a load curve does not tell reactive energy",)
    try:
        billed = tuple(lines(tariff, found, window))
    except KeyError as error:
        what = f"tariff {tariff.id} needs {error.args[0]!r}, which a load curve does not tell"
        raise UsageError(what, remedy="try a tariff without the charge that asks for it") from None
    return Trial(window, energy, used, billed, sum((line.amount for line in billed), Decimal(0)), notes)


def _maximum(charge: DemandCharge, curve: Curve, window: Window) -> Decimal:
    """The highest mean power over a block, in kW; blocks are counted from the month's start."""
    block = timedelta(minutes=charge.block_min)
    if block % timedelta(seconds=curve.step_s):
        what = f"a demand over {charge.block_min} minutes can't be told from intervals of {curve.step_s} s"
        raise UsageError(what, remedy="give a curve whose step divides it")
    highest, start = Decimal(0), window.start
    while start + block <= window.end:
        highest = max(highest, curve.energy(start, start + block))
        start += block
    return highest * 60 / charge.block_min


def _assume_no_export(tariff: Tariff, found: dict[str, Determinant]) -> tuple[str, ...]:
    """Determinants of what was fed in, which a curve of consumption does not hold: 0 kWh, and a note that says so."""
    net, credit = one_of(tariff, NetMetering), one_of(tariff, ExportCredit)
    if net is None and credit is None:
        return ()
    nothing = Decimal(0)
    found[EXPORT] = Determinant(EXPORT, nothing, "kWh")
    if net is not None:
        found[NET] = Determinant(NET, found[TOTAL].value, "kWh", found[TOTAL].used_before)
        found[SURPLUS] = Determinant(SURPLUS, nothing, "kWh")
    return ("energy fed in is taken as 0 kWh: the curve holds consumption only",)


def _check_boundaries(tariff: Tariff, curve: Curve, window: Window) -> None:
    """Intervals must not lie across the ends of the month or of a TOU period."""
    charge = tou_charge(tariff)
    edges = {window.start, window.end}
    if charge is not None:
        edges |= {later.start for _, later in pairwise(spans(charge.schedule, window, tariff.zone))}
    step = timedelta(seconds=curve.step_s)
    if across := sorted(edge for edge in edges if (edge - curve.start) % step):
        local = across[0].astimezone(zone(tariff.zone))
        what = f"intervals of {curve.step_s} s lie across {local:%Y-%m-%d %H:%M}, where the tariff's price changes"
        raise UsageError(what, remedy="give a curve of shorter intervals, on the clock")


def _used_before(
    tariff: Tariff, curve: Curve, window: Window, given: Decimal | None
) -> tuple[Decimal | None, tuple[str, ...]]:
    steps = yearly_steps(tariff)
    if steps is None:
        return None, ()
    start = step_year_start(window.start, steps.year_start, tariff.zone)
    if curve.start <= start:
        return curve.energy(start, window.start), ()
    inside = curve.energy(curve.start, window.start)
    if given is not None:
        return given + inside, ()
    day = curve.start.astimezone(zone(tariff.zone))
    note = f"what was used in the step year before {day:%Y-%m-%d %H:%M} is taken as 0 kWh"
    return inside, (note,)


def _by_period(tariff: Tariff, charge: TouCharge, curve: Curve, window: Window) -> Iterator[Determinant]:
    sums = dict.fromkeys(periods_of(charge, window, tariff.zone), Decimal(0))
    for span in spans(charge.schedule, window, tariff.zone):
        sums[span.period] += curve.energy(span.start, span.end)
    return (Determinant(tou_name(period), energy, "kWh") for period, energy in sums.items())
