"""Bill a load curve by a tariff, without a meter or a store: the same rating, from energies that are given. Pure.

What the store would tell beside the curve (contract, capacity, people, what was used before) is given; what is not is
assumed, and a note says how.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from billing.calendar import billing_month, spans, step_year_start
from billing.charges import (
    CapacityCharge,
    DemandCharge,
    ExportCredit,
    MarketCharge,
    NetMetering,
    PowerFactorCharge,
    Schedule,
    Step,
    StepAdder,
    StepCharge,
    StepTouCharge,
    Tariff,
    TouCharge,
)
from billing.model import BillLine, Determinant
from billing.names import (
    CAPACITY,
    CONTRACT,
    EXPORT,
    NET,
    PEOPLE,
    RATCHET,
    SURPLUS,
    TOTAL,
    demand_name,
    market_name,
    step_tou_name,
    tou_name,
)
from billing.rating.rate import lines, one_of, periods_of, split_steps, step_tou_table, yearly_steps
from headend.civil import zone
from headend.errors import UsageError
from headend.model import Window

__all__ = ["Curve", "Given", "Trial", "months_of", "part_months_of", "try_month"]

_FINER = "give a curve of shorter intervals, on the clock"


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
        return sum(self.between(start, end), Decimal(0))

    def between(self, start: datetime, end: datetime) -> tuple[Decimal, ...]:
        """The energies of the intervals that start in `[start, end)`, as far as the curve reaches."""
        first, last = self._index(start), self._index(end)
        return self.values[max(first, 0) : max(last, 0)]

    def _index(self, moment: datetime) -> int:
        """Number of the first interval that starts at `moment` or later."""
        return -((self.start - moment) // timedelta(seconds=self.step_s))


@dataclass(frozen=True, slots=True)
class Given:
    """What an account would tell; None: not told. contract_kw: contracted demand; capacity_kva: installed capacity;
    people: size of the household."""

    contract_kw: Decimal | None = None
    capacity_kva: Decimal | None = None
    people: int | None = None


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


def try_month(
    tariff: Tariff, curve: Curve, window: Window, used_before: Decimal | None = None, given: Given | None = None
) -> Trial:
    """The bill for one month of `curve`.

    used_before: kWh used in the step year before the curve starts; None: unknown, taken as 0, which a note tells.
    `UsageError` where the month is not whole in the curve, where an interval lies across a boundary of the tariff's
    hours, and where a charge needs what neither the curve nor `given` tells.
    """
    if not _covers(curve, window):
        raise UsageError("the curve does not cover the whole month", remedy="give all of its intervals")
    given = given or Given()
    _check_boundaries(tariff, curve, window)
    used, notes = _used_before(tariff, curve, window, used_before)
    energy = curve.energy(window.start, window.end)
    found = {TOTAL: Determinant(TOTAL, energy, "kWh", used)}
    found |= {one.name: one for one in _energies(tariff, curve, window, used or Decimal(0), given)}
    found |= {one.name: one for one in _of_account(tariff, given)}
    notes += _demands(tariff, curve, window, found)
    notes += _assume_no_export(tariff, found)
    notes += _not_told(tariff, given)
    try:
        billed = tuple(lines(tariff, found, window))
    except KeyError as error:
        what = f"tariff {tariff.id} needs {error.args[0]!r}, which a load curve does not tell"
        raise UsageError(what, remedy="try a tariff without the charge that asks for it") from None
    return Trial(window, energy, used, billed, sum((line.amount for line in billed), Decimal(0)), notes)


# -- energy ------------------------------------------------------------------------------------------------------------


def _energies(tariff: Tariff, curve: Curve, window: Window, used: Decimal, given: Given) -> Iterator[Determinant]:
    """Energy by TOU period, by step and period, and at market prices, as far as the charges ask for it."""
    for charge in tariff.charges:
        if isinstance(charge, MarketCharge):
            yield Determinant(market_name(charge.code), _market(charge, tariff, curve, window), tariff.currency)
        elif isinstance(charge, StepTouCharge) and charge.split == "chronological":
            yield from _by_step_and_period(charge, tariff, curve, window, used, given)
        elif isinstance(charge, (TouCharge, StepTouCharge)):
            yield from _by_period(tariff, charge, curve, window)


def _by_period(
    tariff: Tariff, charge: TouCharge | StepTouCharge, curve: Curve, window: Window
) -> Iterator[Determinant]:
    sums = dict.fromkeys(periods_of(charge, window, tariff.zone), Decimal(0))
    for span in spans(charge.schedule, window, tariff.zone):
        sums[span.period] += curve.energy(span.start, span.end)
    return (Determinant(tou_name(period), energy, "kWh") for period, energy in sums.items())


def _by_step_and_period(
    charge: StepTouCharge, tariff: Tariff, curve: Curve, window: Window, used: Decimal, given: Given
) -> Iterator[Determinant]:
    """The steps filled in the order of time; within one stretch of a period the order of its intervals is all one."""
    steps = _limits(charge, tariff, window, given)
    sums = {
        (number, period): Decimal(0)
        for number in range(1, len(steps) + 1)
        for period in periods_of(charge, window, tariff.zone)
    }
    reached = used if charge.period == "year" else Decimal(0)
    for span in spans(charge.schedule, window, tariff.zone):
        energy = curve.energy(span.start, span.end)
        for number, _, part in split_steps(steps, reached, energy):
            sums[number, span.period] += part
        reached += energy
    for (number, period), total in sums.items():
        yield Determinant(step_tou_name(number, period), total, "kWh")


def _limits(charge: StepTouCharge, tariff: Tariff, window: Window, given: Given) -> tuple[Step, ...]:
    """The limits of the month's steps, raised for a large household."""
    more = Decimal(0)
    if charge.household is not None and (given.people or 0) >= charge.household.people:
        more = charge.household.kwh * (12 if charge.period == "year" else 1)
    steps = step_tou_table(charge, window, tariff.zone).steps
    return tuple(Step(None if step.up_to is None else step.up_to + more, Decimal(0)) for step in steps)


def _market(charge: MarketCharge, tariff: Tariff, curve: Curve, window: Window) -> Decimal:
    """Each interval's energy times the price of its time, summed."""
    series, step = charge.series, timedelta(seconds=curve.step_s)
    if series.step_s % curve.step_s or (curve.start - series.start) % step:
        what = f"intervals of {curve.step_s} s lie across changes of the market's price, every {series.step_s} s"
        raise UsageError(what, remedy=_FINER)
    per_price, first = series.step_s // curve.step_s, (window.start - series.start) // step
    values = curve.between(window.start, window.end)
    if first < 0 or (first + len(values) - 1) // per_price >= len(series.prices):
        what = f"the prices of {series.name} do not reach over the whole month"
        raise UsageError(what, remedy=f"add them to the file beside tariff {tariff.id}")
    return sum(
        (value * series.prices[(first + number) // per_price] for number, value in enumerate(values)), Decimal(0)
    )


# -- demand ------------------------------------------------------------------------------------------------------------


def _demands(tariff: Tariff, curve: Curve, window: Window, found: dict[str, Determinant]) -> tuple[str, ...]:
    """The maximum demands that the month's charges ask for, into `found`; how they were told, as notes."""
    notes: list[str] = []
    month = window.start.astimezone(zone(tariff.zone)).month
    for charge in tariff.charges:
        if not isinstance(charge, DemandCharge) or month not in charge.months:
            continue
        name = demand_name(charge.period)
        found[name] = Determinant(name, _maximum(charge, tariff, curve, window), "kW")
        which = f" in {charge.period}" if charge.period else ""
        slides = f", one every {charge.slide_min} minutes" if charge.slide_min else ""
        note = f"the maximum demand{which} is the highest of the month's blocks of {charge.block_min} minutes{slides}"
        notes += [note, *_ratchet(charge, tariff, curve, window, found)]
    return tuple(dict.fromkeys(notes))


def _maximum(charge: DemandCharge, tariff: Tariff, curve: Curve, window: Window) -> Decimal:
    """The highest mean power over a block, in kW; blocks are counted from the month's start. Of a TOU period only the
    energy in its time counts."""
    block_s, hop_s = charge.block_min * 60, (charge.slide_min or charge.block_min) * 60
    if block_s % curve.step_s or hop_s % curve.step_s:
        what = f"a demand over {charge.block_min} minutes can't be told from intervals of {curve.step_s} s"
        raise UsageError(what, remedy="give a curve whose step divides it")
    values = list(curve.between(window.start, window.end))
    if charge.schedule is not None:
        values = _only(values, charge.schedule, charge.period, tariff, curve, window)
    running = [Decimal(0)]
    for value in values:
        running.append(running[-1] + value)
    per_block, hop = block_s // curve.step_s, hop_s // curve.step_s
    starts = range(0, len(values) - per_block + 1, hop)
    highest = max((running[at + per_block] - running[at] for at in starts), default=Decimal(0))
    return highest * 60 / charge.block_min


def _only(
    values: Sequence[Decimal], schedule: Schedule, period: str, tariff: Tariff, curve: Curve, window: Window
) -> list[Decimal]:
    """The month's energies, with nothing outside the hours of `period`."""
    kept = [Decimal(0)] * len(values)
    step = timedelta(seconds=curve.step_s)
    for span in spans(schedule, window, tariff.zone):
        if span.period == period:
            first, last = (span.start - window.start) // step, (span.end - window.start) // step
            kept[first:last] = values[first:last]
    return kept


def _ratchet(
    charge: DemandCharge, tariff: Tariff, curve: Curve, window: Window, found: dict[str, Determinant]
) -> Iterator[str]:
    """The highest demand of the months a ratchet looks back at, of those that are whole in the curve."""
    if charge.ratchet is None:
        return
    local = window.start.astimezone(zone(tariff.zone))
    year, month, absent = local.year, local.month, 0
    known: list[Decimal] = []
    for _ in range(charge.ratchet.months):
        year, month = (year, month - 1) if month > 1 else (year - 1, 12)
        if month not in charge.ratchet.of_months:
            continue
        earlier = billing_month(year, month, tariff.zone)
        if _covers(curve, earlier):
            known.append(_maximum(charge, tariff, curve, earlier))
        else:
            absent += 1
    if known:
        found[RATCHET] = Determinant(RATCHET, max(known), "kW")
    if absent:
        yield f"demands of {absent} of the months the ratchet looks back at are not in the curve: left out"


# -- what a curve does not tell ----------------------------------------------------------------------------------------


def _of_account(tariff: Tariff, given: Given) -> Iterator[Determinant]:
    """Contract, capacity and people, where a charge asks for the account's own."""
    demands = [c for c in tariff.charges if isinstance(c, DemandCharge) and c.contracted]
    capacity = one_of(tariff, CapacityCharge)
    wanted = [
        (CONTRACT, given.contract_kw, "kW", bool(demands), "--contract-kw"),
        (CAPACITY, given.capacity_kva, "kVA", capacity is not None and capacity.capacity_kva is None, "--capacity-kva"),
    ]
    for name, value, unit, asked, option in wanted:
        if asked and value is None:
            what = f"tariff {tariff.id} needs {name!r} of the account, which a load curve does not tell"
            raise UsageError(what, remedy=f"give it: {option} 500")
        if asked and value is not None:
            yield Determinant(name, value, unit)
    if given.people is not None:
        yield Determinant(PEOPLE, Decimal(given.people), "")


def _not_told(tariff: Tariff, given: Given) -> tuple[str, ...]:
    notes = []
    steps = (c for c in tariff.charges if isinstance(c, (StepCharge, StepAdder, StepTouCharge)))
    if given.people is None and any(charge.household is not None for charge in steps):
        notes.append("the limits are those of a small household: its size is not given")
    if one_of(tariff, PowerFactorCharge) is not None:
        notes.append("the power-factor adjustment is left out: a load curve does not tell reactive energy")
    return tuple(notes)


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
    edges = {window.start, window.end}
    for charge in tariff.charges:
        schedule = getattr(charge, "schedule", None)
        if isinstance(schedule, Schedule):
            edges |= {later.start for _, later in pairwise(spans(schedule, window, tariff.zone))}
    step = timedelta(seconds=curve.step_s)
    if across := sorted(edge for edge in edges if (edge - curve.start) % step):
        local = across[0].astimezone(zone(tariff.zone))
        what = f"intervals of {curve.step_s} s lie across {local:%Y-%m-%d %H:%M}, where the tariff's price changes"
        raise UsageError(what, remedy=_FINER)


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
