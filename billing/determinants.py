"""What a bill is computed from, gathered from the store; what can't be had is a `Hold`, never a guess.

The energy of a period is the difference of the register at its ends, for each meter that stood there, times its
multiplier. The energy of a TOU period is the sum of the intervals that start in it; the sums must meet the register
difference: exactly where both come from one curve, within one 0.01 kWh at each end where the meter gave them apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection

from billing import demand, store
from billing.calendar import PeriodSpan, spans, step_year_start
from billing.model import (
    CapacityCharge,
    DemandCharge,
    Determinant,
    ExportCredit,
    FixedCharge,
    Hold,
    IntervalPart,
    MinimumCharge,
    NetMetering,
    PowerFactorCharge,
    RegisterEnd,
    RegisterPart,
    StepAdder,
    StepCharge,
    Tariff,
    Tax,
    UsedBefore,
)
from billing.power_factor import power_factor
from billing.rate import (
    EXPORT,
    NET,
    POWER_FACTOR,
    SURPLUS,
    TOTAL,
    one_of,
    periods_of,
    tou_charge,
    tou_name,
    yearly_steps,
)
from headend.civil import zone
from headend.model import Quality, Source, Window
from headend.quantities import QUANTITIES, from_units, to_units
from headend.store import readings, registry
from headend.store.registry import AccountRow, InstallationRow, MeterRow

__all__ = ["INTERVALS", "Gathered", "Installed", "gather", "installed", "part_month", "used_before"]

INTERVALS = "import_interval_kwh"
"""The interval quantity whose sums are the TOU energies."""

_RESOLUTION = Decimal("0.01")
_RUNS_SHOWN = 5

_READ_AGAIN = "read the meter's freeze or curve for that time, then close again"


@dataclass(frozen=True, slots=True)
class Installed:
    """A meter at the usage point for a part of the billing period."""

    installation: InstallationRow
    meter: MeterRow
    window: Window


@dataclass(frozen=True, slots=True)
class Gathered:
    """The determinants of one bill, or why there are none."""

    determinants: tuple[Determinant, ...] = ()
    holds: tuple[Hold, ...] = ()


@dataclass(slots=True)
class _Sums:
    """Intervals of one meter, summed by TOU period."""

    units: Counter[str] = field(default_factory=Counter)
    counts: Counter[tuple[str, Quality]] = field(default_factory=Counter)


def gather(conn: Connection, account: AccountRow, tariff: Tariff, window: Window, *, as_of: int) -> Gathered:
    """Determinants of `account` for the billing period `window` under `tariff`, or every reason found against them.

    as_of: the highest outcome id in the store, kept with the interval sums.
    """
    if all(isinstance(charge, (FixedCharge, CapacityCharge, MinimumCharge, Tax)) for charge in tariff.charges):
        return Gathered()
    parts, holds = installed(conn, account, window, tariff.zone)
    registers, found = _registers(conn, parts, tariff.zone, TOTAL)
    holds += found
    used, chain = None, tuple[UsedBefore, ...]()
    if (steps := yearly_steps(tariff)) is not None:
        used, chain, found = used_before(conn, account, steps, window, tariff.zone)
        holds += found
    determinants = [_total(registers, used, chain)]
    more, found = _more(conn, parts, tariff, determinants[0])
    determinants, holds = determinants + more, holds + found
    charge, asked, torn = tou_charge(tariff), one_of(tariff, DemandCharge), list[Hold]()
    if charge is not None or (asked is not None and asked.source == "intervals"):
        whole = (PeriodSpan(window.start, window.end, ""),)
        split = spans(charge.schedule, window, tariff.zone) if charge else whole
        intervals: list[tuple[str, IntervalPart, Counter[Quality]]] = []
        for part in parts:
            sums, found = _interval_sums(conn, part, split, tariff.zone)
            register = next((r for r in registers if r.start.at == part.window.start), None)
            if not found and register is not None:
                found = _sum_check(conn, part, register, sum(sums.units.values()), tariff.zone)
            torn += found
            intervals += _interval_parts(part, sums, as_of)
        names = periods_of(charge, window, tariff.zone) if charge else ()
        determinants += [_tou(name, [(p, c) for period, p, c in intervals if period == name]) for name in names]
    if asked is not None and (asked.source == "register" or not torn):
        candidates, found = _demands(conn, parts, asked, tariff.zone, as_of)
        determinants += [demand.highest(candidates)] if candidates else []
        holds += found
    holds += torn
    return Gathered(holds=tuple(holds)) if holds else Gathered(tuple(determinants))


def part_month(tariff: Tariff, account: AccountRow, month: Window) -> tuple[Window, list[Hold]]:
    """The part of a billing month in which an account is in force, held if a charge has no rule for a part month."""
    start = max(month.start, account.since)
    end = month.end if account.until is None else min(month.end, account.until)
    window = Window(start, end)
    if window == month:
        return window, []
    for charge in tariff.charges:
        if isinstance(charge, (FixedCharge, DemandCharge, MinimumCharge)) or (
            isinstance(charge, (StepCharge, StepAdder)) and charge.period == "month"
        ):
            what = f"the account is in force for a part of the month only ({_span(window, tariff.zone)})"
            remedy = "monthly steps, fixed charges, demand and minimum have no rule for a part month: bill it by hand"
            return window, [Hold("part_month", what, remedy, start=start, end=end)]
    return window, []


def installed(
    conn: Connection, account: AccountRow, window: Window, zone_name: str
) -> tuple[list[Installed], list[Hold]]:
    """The meters at the account's usage point, in order; together they must cover `window` exactly once."""
    meters = {}
    parts, holds = [], []
    reached = window.start
    for row in sorted(registry.installations(conn, account.usage_point), key=lambda i: i.since):
        start = max(row.since, window.start)
        end = window.end if row.until is None else min(row.until, window.end)
        if start >= end:
            continue
        if row.meter not in meters:
            meters[row.meter] = registry.meter(conn, row.meter)
        meter = meters[row.meter]
        assert meter is not None, "an installation names a meter"
        if start > reached:
            holds.append(_no_meter(account, Window(reached, start), zone_name))
        if start < reached:
            both = Window(start, min(reached, end))
            what = f"stands at {account.usage_point} together with another meter ({_span(both, zone_name)})"
            remedy = "end the earlier installation where the later one starts"
            holds.append(Hold("two_meters", what, remedy, row.meter, both.start, both.end))
        reached = max(reached, end)
        parts.append(Installed(row, meter, Window(start, end)))
    if reached < window.end:
        holds.append(_no_meter(account, Window(reached, window.end), zone_name))
    return parts, holds


def used_before(
    conn: Connection, account: AccountRow, charge: StepCharge | StepAdder, window: Window, zone_name: str
) -> tuple[Decimal | None, tuple[UsedBefore, ...], list[Hold]]:
    """Energy used in the step year before `window`: by issued bills since the year's start, without a gap.

    Where the bills do not reach back that far, what the account declares (`step_used`) and the bills since then.
    """
    year = step_year_start(window.start, charge.year_start, zone_name)
    issued = store.issued_energy(conn, account.id, TOTAL, Window(year, window.start))
    anchors: list[tuple[datetime, tuple[UsedBefore, ...]]] = [(year, ())]
    if account.step_used is not None and account.step_used_at is not None and account.step_used_at >= year:
        anchors.append((account.step_used_at, (UsedBefore("", account.step_used, account.step_used_at),)))
    reached = year
    for anchor, declared in anchors:
        chain, reached = declared, anchor
        for number, billed, energy in issued:
            if billed.start == reached:
                chain, reached = (*chain, UsedBefore(number, energy, billed.end)), billed.end
        if reached == window.start:
            return sum((part.energy for part in chain), Decimal(0)), chain, []
    what = (
        f"the energy used in the step year since {_when(year, zone_name)} is not known: issued bills and the account's "
        f"step_used reach {_when(reached, zone_name)}, not {_when(window.start, zone_name)}"
    )
    remedy = "issue the earlier months first, or set step_used and step_used_at on the account"
    return None, (), [Hold("step_year_unknown", what, remedy, start=year, end=window.start)]


def _no_meter(account: AccountRow, window: Window, zone_name: str) -> Hold:
    what = f"no meter stands at {account.usage_point} ({_span(window, zone_name)})"
    return Hold("no_meter", what, "correct the installations", start=window.start, end=window.end)


def _more(
    conn: Connection, parts: Sequence[Installed], tariff: Tariff, total: Determinant
) -> tuple[list[Determinant], list[Hold]]:
    """What the other charges need: reactive energy and power factor, energy exported."""
    found, holds = list[Determinant](), list[Hold]()
    adjusts = one_of(tariff, PowerFactorCharge)
    exports = one_of(tariff, ExportCredit) or one_of(tariff, NetMetering)
    for name in (*(adjusts.reactive if adjusts else ()), *((EXPORT,) if exports else ())):
        registers, missing = _registers(conn, parts, tariff.zone, name)
        holds += missing
        found.append(_total(registers, None, (), name))
    by_name = {one.name: one.value for one in found}
    if adjusts is not None:
        factor = power_factor(total.value, sum((by_name[name] for name in adjusts.reactive), Decimal(0)))
        found += [Determinant(POWER_FACTOR, factor, "")] if factor is not None else []
    if one_of(tariff, NetMetering) is not None:
        net = total.value - by_name[EXPORT]
        found += [Determinant(NET, max(net, Decimal(0)), "kWh"), Determinant(SURPLUS, max(-net, Decimal(0)), "kWh")]
    return found, holds


def _demands(
    conn: Connection, parts: Sequence[Installed], charge: DemandCharge, zone_name: str, as_of: int
) -> tuple[list[Determinant], list[Hold]]:
    """The maximum demand of each meter, each by its own multiplier."""
    found, holds = list[Determinant](), list[Hold]()
    for part in parts:
        place = (conn, part.meter, part.installation.multiplier, part.window)
        if charge.source == "register":
            one, missing = demand.by_register(*place, zone_name)
        else:
            one, missing = demand.by_intervals(*place, block_min=charge.block_min, as_of=as_of)
        found += [one] if one else []
        holds += missing
    return found, holds


def _registers(
    conn: Connection, parts: Sequence[Installed], zone_name: str, quantity: str
) -> tuple[list[RegisterPart], list[Hold]]:
    found, holds = list[RegisterPart](), list[Hold]()
    for part in parts:
        register, missing = _register_part(conn, part, zone_name, quantity)
        found += [register] if register else []
        holds += missing
    return found, holds


def _register_part(
    conn: Connection, part: Installed, zone_name: str, quantity: str
) -> tuple[RegisterPart | None, list[Hold]]:
    ends, holds, unit = [], [], _unit(quantity)
    remedy = _READ_AGAIN if quantity == TOTAL else f"have {quantity} read for that time as well, then close again"
    for at in (part.window.start, part.window.end):
        value = readings.register_at(conn, part.meter.key, quantity, at)
        if value is None or value.quality is Quality.MISSING:
            what = f"no {quantity} register at {_when(at, zone_name)}"
            holds.append(Hold("register_absent", what, remedy, part.meter.id, at, at, 1))
        elif value.quality is Quality.SUSPECT:
            what = f"the {quantity} register at {_when(at, zone_name)} is suspect ({from_units(value.units)} {unit})"
            holds.append(Hold("register_suspect", what, remedy, part.meter.id, at, at, 1))
        else:
            ends.append(RegisterEnd(value.at, value.units, value.quality, value.source, value.outcome_id))
    if holds:
        return None, holds
    register = RegisterPart(
        part.meter.key,
        part.meter.id,
        quantity,
        ends[0],
        ends[1],
        to_units(part.meter.register_wrap),
        part.installation.multiplier,
    )
    return register, _rollover(register, part, zone_name)


def _rollover(register: RegisterPart, part: Installed, zone_name: str) -> list[Hold]:
    """A register that runs back is a rollover only if that makes less than half of its range."""
    if register.end.units >= register.start.units or register.difference * 2 < part.meter.register_wrap:
        return []
    start, end, unit = from_units(register.start.units), from_units(register.end.units), _unit(register.quantity)
    what = (
        f"the {register.quantity} register runs back from {start} to {end} {unit} "
        f"({_span(part.window, zone_name)}); as a rollover it would make {register.difference} {unit}"
    )
    remedy = "check both registers, the installation's dates and the meter model's register_wrap"
    return [Hold("register_back", what, remedy, part.meter.id, part.window.start, part.window.end, 2)]


def _unit(quantity: str) -> str:
    return QUANTITIES[quantity].unit


def _total(
    registers: Sequence[RegisterPart], used: Decimal | None, chain: tuple[UsedBefore, ...], name: str = TOTAL
) -> Determinant:
    counts = Counter(end.quality for part in registers for end in (part.start, part.end))
    value = sum((part.value for part in registers), Decimal(0))
    return Determinant(name, value, _unit(name), used, _counts(counts), (*registers, *chain))


def _tou(period: str, parts: Sequence[tuple[IntervalPart, Counter[Quality]]]) -> Determinant:
    counts: Counter[Quality] = sum((count for _, count in parts), Counter())
    value = sum((part.value for part, _ in parts), Decimal(0))
    return Determinant(tou_name(period), value, "kWh", None, _counts(counts), tuple(part for part, _ in parts))


def _counts(counts: Counter[Quality]) -> tuple[tuple[Quality, int], ...]:
    return tuple(sorted(counts.items()))


def _interval_parts(part: Installed, sums: _Sums, as_of: int) -> Iterator[tuple[str, IntervalPart, Counter[Quality]]]:
    for period, units in sums.units.items():
        counts = Counter({quality: n for (name, quality), n in sums.counts.items() if name == period})
        yield (
            period,
            IntervalPart(
                part.meter.key,
                part.meter.id,
                INTERVALS,
                part.window,
                part.meter.curve_step_s,
                counts.total(),
                units,
                to_units(part.meter.register_wrap),
                part.installation.multiplier,
                as_of,
            ),
            counts,
        )


def _interval_sums(
    conn: Connection, part: Installed, split: Sequence[PeriodSpan], zone_name: str
) -> tuple[_Sums, list[Hold]]:
    """Intervals of one meter by TOU period, each by its start; holds for what is missing, suspect or undecidable."""
    step_s = part.meter.curve_step_s
    if step_s == 0:
        what = "the tariff needs intervals, and the meter keeps no curve"
        return _Sums(), [Hold("no_curve", what, "change the tariff or the meter", part.meter.id)]
    step = timedelta(seconds=step_s)
    wrap_units = to_units(part.meter.register_wrap)
    rows = readings.intervals(conn, part.meter.key, INTERVALS, part.window, step_s=step_s, wrap_units=wrap_units)
    by_start = {row.start: row for row in rows}
    own = [replace(s, start=max(s.start, part.window.start), end=min(s.end, part.window.end)) for s in split]
    own = [span for span in own if span.start < span.end]
    sums, missing, suspect, expected = _Sums(), list[datetime](), list[datetime](), 0
    for span in own:
        if (span.end - part.window.start) % step:
            return _Sums(), [_straddle(part, own, step, zone_name)]
        moment = span.start
        while moment < span.end:
            expected += 1
            row = by_start.get(moment)
            if row is None or row.units is None or row.quality is Quality.MISSING:
                missing.append(moment)
            elif row.quality is Quality.SUSPECT:
                suspect.append(moment)
            else:
                sums.units[span.period] += row.units
                sums.counts[span.period, row.quality] += 1
            moment += step
    holds = [
        _interval_hold(code, word, part, starts, expected, zone_name)
        for code, word, starts in (("interval_missing", "missing", missing), ("interval_suspect", "suspect", suspect))
        if starts
    ]
    return sums, holds


def _interval_hold(
    code: str, word: str, part: Installed, starts: Sequence[datetime], expected: int, zone_name: str
) -> Hold:
    step = timedelta(seconds=part.meter.curve_step_s)
    runs = list(_runs(starts, step))
    shown = "; ".join(_span(run, zone_name) for run in runs[:_RUNS_SHOWN])
    more = f"; and {len(runs) - _RUNS_SHOWN} more gaps" if len(runs) > _RUNS_SHOWN else ""
    what = f"{len(starts)} of {expected} intervals {word}: {shown}{more}"
    return Hold(code, what, _READ_AGAIN, part.meter.id, starts[0], starts[-1] + step, len(starts))


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


def _straddle(part: Installed, own: Sequence[PeriodSpan], step: timedelta, zone_name: str) -> Hold:
    torn = [span.end for span in own if (span.end - part.window.start) % step]
    what = f"intervals of {part.meter.curve_step_s} s straddle {len(torn)} TOU boundaries, the first at "
    what += _when(torn[0], zone_name)
    remedy = "read a curve with a finer step, or correct the tariff's hours"
    return Hold("interval_straddles", what, remedy, part.meter.id, torn[0], torn[-1], len(torn))


def _sum_check(conn: Connection, part: Installed, register: RegisterPart, sum_units: int, zone_name: str) -> list[Hold]:
    """Interval sums against the register difference of the same meter and span."""
    summed, difference = from_units(sum_units), register.difference
    if summed == difference:
        return []
    tolerance = Decimal(0) if _one_curve(conn, part, register) else 2 * _RESOLUTION
    if abs(summed - difference) <= tolerance:
        return []
    what = (
        f"the intervals sum to {summed} kWh, the register rose by {difference} kWh ({_span(part.window, zone_name)}); "
        f"{tolerance} kWh may lie between them"
    )
    remedy = "check the curve and both registers, read again what is wrong"
    return [Hold("sum_check", what, remedy, part.meter.id, part.window.start, part.window.end)]


def _one_curve(conn: Connection, part: Installed, register: RegisterPart) -> bool:
    """Whether registers and intervals are the same curve points: then nothing may lie between them."""
    if {register.start.source, register.end.source} != {Source.CURVE}:
        return False
    return not readings.curve(conn, part.meter.key, INTERVALS, part.window)


def _when(moment: datetime, zone_name: str) -> str:
    return moment.astimezone(zone(zone_name)).isoformat(timespec="minutes")


def _span(window: Window, zone_name: str) -> str:
    return f"{_when(window.start, zone_name)} to {_when(window.end, zone_name)}"
