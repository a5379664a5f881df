"""What is odd about bills that could be issued: found in batches, from the bills an account had before.

A finding warns, and is kept with the bill, or holds it until a person releases it. An account without bills before is
compared with nothing, and little use is left alone. The thresholds are the site's: `Rules`, docs/billing.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from sqlalchemy import Connection

from billing import store
from billing.calendar import step_year_start
from billing.charges import ExportCredit, NetMetering, StepAdder, StepCharge, StepTouCharge
from billing.model import BillLine, Determinant, Hold
from billing.names import EXPORT, MAXIMUM, TOTAL
from billing.segments import Case
from billing.store import Issued
from headend.civil import zone
from headend.model import Quality, Window
from headend.quantities import from_units
from headend.store import schema
from headend.store.codes import code_of
from headend.store.columns import installed_at, registers_at
from headend.store.portable import chunks, rows_among

__all__ = ["LEVELS", "Reviewed", "Rules", "findings", "weight"]

LEVELS: Final = ("off", "warn", "hold")
"""What a finding without a measure does, as a site may set it."""

_ORDER: Final = (
    "step_jump",
    "use_change",
    "estimated_cap",
    "estimated_row",
    "over_capacity",
    "tou_check",
    "reverse_energy",
    "zero_use",
    "estimated_share",
    "step_early",
)
_LEAST_DAYS: Final = 20
"""A shorter part of a month is compared with nothing."""
_YEAR: Final = timedelta(days=400)
_TWO_YEARS: Final = timedelta(days=800)
_STEP: Final = re.compile(r"(?:energy_)?step(\d+)")
_STEPS: Final = (StepCharge, StepAdder, StepTouCharge)


@dataclass(frozen=True, slots=True)
class Rules:
    """What is looked for, and from where on it warns or holds.

    least_kwh: energy of both months compared below which an account is left alone. change_*: percent by which the
    energy of a day differs from the last month's and from the same month's of last year; the lesser counts, and while
    one of them is not known a change only warns. zero_use, reverse_energy: `off`, `warn` or `hold`; reverse_kwh: so
    much is no reverse energy yet. capacity_*: percent of the contract or the capacity the demand comes to. step_jump:
    steps above the highest of the year so far that hold, 0: never; early_months: a yearly step reached so many months
    before last year's warns, 0: never. estimated_*_percent: share of estimated values. estimated_bills: so many
    estimated bills in a row are let pass. estimated_cap_percent: of the same month last year, or the average, an
    estimated bill may come to.
    """

    enabled: bool = True
    least_kwh: Decimal = Decimal(100)
    change_warn_percent: int = 30
    change_hold_percent: int = 50
    zero_use: str = "warn"
    reverse_energy: str = "warn"
    reverse_kwh: Decimal = Decimal(1)
    capacity_warn_percent: int = 120
    capacity_hold_percent: int = 200
    step_jump: int = 2
    early_months: int = 3
    estimated_warn_percent: int = 5
    estimated_hold_percent: int = 50
    estimated_bills: int = 2
    estimated_cap_percent: int = 200


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A bill that could be issued."""

    case: Case
    determinants: Mapping[str, Determinant]
    lines: tuple[BillLine, ...]


@dataclass(frozen=True, slots=True)
class _Before:
    """The bills of one account before the one that is looked at: their energy, and the codes of their lines."""

    energies: list[Issued] = field(default_factory=list)
    codes: list[tuple[Window, set[str]]] = field(default_factory=list)
    reverse: tuple[Decimal, str] | None = None


def findings(conn: Connection, rules: Rules, bills: Sequence[Reviewed]) -> list[tuple[Hold, ...]]:
    """What is odd about each of `bills`, in their order. `Hold.review`: it holds the bill; else it only warns."""
    if not rules.enabled or not bills:
        return [()] * len(bills)
    before = _history(conn, rules, bills)
    return [tuple(_findings(rules, one, before[index])) for index, one in enumerate(bills)]


def weight(hold: Hold) -> tuple[int, int, int]:
    """Sorts findings: the gravest first."""
    place = _ORDER.index(hold.code) if hold.code in _ORDER else len(_ORDER)
    return (0 if hold.review else 1, place, -hold.count)


def _findings(rules: Rules, bill: Reviewed, before: _Before) -> Iterator[Hold]:
    for found in (
        _change(rules, bill, before),
        _zero(rules, bill, before),
        _reverse(rules, bill, before),
        _capacity(rules, bill),
        _steps(rules, bill, before),
        _early(rules, bill, before),
        _share(rules, bill),
        _in_a_row(rules, bill, before),
        _cap(rules, bill, before),
    ):
        if found is not None:
            yield found


def _hold(bill: Reviewed, code: str, what: str, remedy: str, *, holds: bool, size: Decimal | int = 0) -> Hold:
    window = bill.case.period.window
    count = int(size) if Decimal(size).is_finite() else 0
    return Hold(code, what, remedy, "", window.start, window.end, count, holds)


# -- what was before ---------------------------------------------------------------------------------------------------


def _history(conn: Connection, rules: Rules, bills: Sequence[Reviewed]) -> list[_Before]:
    starts = [bill.case.period.window.start for bill in bills]
    accounts = list(dict.fromkeys(bill.case.account.id for bill in bills))
    stepped = list(dict.fromkeys(bill.case.account.id for bill in bills if _step_charge(bill) is not None))
    energies = store.issued_values(conn, accounts, [TOTAL], Window(min(starts) - _YEAR, max(starts)))
    codes = store.issued_codes(conn, stepped, Window(min(starts) - _TWO_YEARS, max(starts)))
    reverse = _reversed_energies(conn, rules, bills)
    found = []
    for index, (bill, start) in enumerate(zip(bills, starts, strict=True)):
        account = bill.case.account.id
        earlier = [one for one in energies.get(account, []) if one.window.end <= start]
        lines = [one for one in codes.get(account, {}).values() if one[0].end <= start]
        found.append(_Before(earlier, lines, reverse.get(index)))
    return found


def _reversed_energies(conn: Connection, rules: Rules, bills: Sequence[Reviewed]) -> dict[int, tuple[Decimal, str]]:
    """By place in `bills` the energy exported by an account that is not credited for it, and the meter."""
    code = code_of(conn, EXPORT)
    if rules.reverse_energy == "off" or code is None:
        return {}
    chosen = {index: bill for index, bill in enumerate(bills) if not _exports(bill)}
    installed = installed_at(conn, [bill.case.account.usage_point for bill in chosen.values()])
    keys = {meter.key for places in installed.values() for _, meter in places}
    ever: set[int] = set()
    for chunk in chunks(sorted(keys), 2_000):
        rows = rows_among(conn, schema.last_value, ("meter_key", "units"), "meter_key", chunk, quantity_code=code)
        ever.update(int(key) for key, units in rows if units)
    ends: list[tuple[int, str, Decimal, int, datetime, datetime]] = []
    for index, bill in chosen.items():
        window = bill.case.period.window
        for place, meter in installed[bill.case.account.usage_point]:
            start = max(place.since, window.start)
            end = window.end if place.until is None else min(place.until, window.end)
            if meter.key in ever and start < end:
                ends.append((index, meter.id, place.multiplier, meter.key, start, end))
    places = {(key, at) for *_, key, start, end in ends for at in (start, end)}
    values = registers_at(conn, places, EXPORT)
    found: dict[int, tuple[Decimal, str]] = {}
    for index, meter_id, multiplier, key, start, end in ends:
        first, last = values.get((key, start)), values.get((key, end))
        if first is None or last is None or last.units <= first.units:
            continue
        energy = from_units(last.units - first.units) * multiplier
        found[index] = (found.get(index, (Decimal(0), ""))[0] + energy, meter_id)
    return found


def _exports(bill: Reviewed) -> bool:
    segments = bill.case.period.segments
    return any(isinstance(charge, (ExportCredit, NetMetering)) for part in segments for charge in part.tariff.charges)


def _step_charge(bill: Reviewed) -> StepCharge | StepAdder | StepTouCharge | None:
    return next((charge for charge in bill.case.period.tariff.charges if isinstance(charge, _STEPS)), None)


def _month_number(moment: datetime, bill: Reviewed) -> int:
    """Months since year 0 of an instant in the tariff's zone."""
    local = moment.astimezone(zone(bill.case.period.tariff.zone))
    return local.year * 12 + local.month


def _months_back(bill: Reviewed, before: _Before, months: int) -> Issued | None:
    """The bill of so many months before, if it covers most of its month."""
    wanted = _month_number(bill.case.period.window.start, bill) - months
    for one in reversed(before.energies):
        if _month_number(one.window.start, bill) == wanted and _long(one.window):
            return one
    return None


def _long(window: Window) -> bool:
    return window.end - window.start >= timedelta(days=_LEAST_DAYS)


def _energy(bill: Reviewed) -> Decimal | None:
    total = bill.determinants.get(TOTAL)
    return None if total is None else total.value


def _plain(value: Decimal) -> str:
    """At most two decimals, without noughts at the end."""
    return f"{value.quantize(Decimal('0.01'), ROUND_HALF_UP).normalize():f}"


# -- the findings ------------------------------------------------------------------------------------------------------


def _difference(energy: Decimal, window: Window, before: Issued) -> Decimal:
    """By how many percent the energy of a day differs from that of the bill before."""
    if before.value == 0:
        return Decimal("Infinity") if energy else Decimal(0)
    seconds, earlier = (int((w.end - w.start).total_seconds()) for w in (window, before.window))
    return (energy * earlier * 100) / (before.value * seconds) - 100


def _change(rules: Rules, bill: Reviewed, before: _Before) -> Hold | None:
    energy, window = _energy(bill), bill.case.period.window
    if not energy or not _long(window):
        return None
    known = [
        (_difference(energy, window, one), one, words)
        for months, words in ((1, "last month"), (12, "the same month last year"))
        if (one := _months_back(bill, before, months)) is not None
    ]
    if not known or max(energy, *(one.value for _, one, _ in known)) < rules.least_kwh:
        return None
    least = min(known, key=lambda item: abs(item[0]))
    size = abs(least[0])
    if size <= rules.change_warn_percent:
        return None
    told = "; ".join(
        f"{'+' if change > 0 else ''}{_plain(change)} % a day against {words} ({_plain(one.value)} kWh)"
        if change.is_finite()
        else f"none in {words}"
        for change, one, words in known
    )
    holds = len(known) == 2 and size > rules.change_hold_percent
    remedy = "compare the registers with the meter and ask the customer; release the bill if it is right"
    return _hold(bill, "use_change", f"{_plain(energy)} kWh: {told}", remedy, holds=holds, size=size)


def _zero(rules: Rules, bill: Reviewed, before: _Before) -> Hold | None:
    last = _months_back(bill, before, 1)
    if rules.zero_use == "off" or _energy(bill) != 0 or last is None or last.value < rules.least_kwh:
        return None
    what = f"no energy after {_plain(last.value)} kWh last month"
    remedy = "see whether the meter stands still, was passed by, or the place is empty"
    return _hold(bill, "zero_use", what, remedy, holds=rules.zero_use == "hold", size=last.value)


def _reverse(rules: Rules, bill: Reviewed, before: _Before) -> Hold | None:
    if before.reverse is None or before.reverse[0] <= rules.reverse_kwh:
        return None
    energy, meter = before.reverse
    what = f"{_plain(energy)} kWh were exported (meter {meter}), and the tariff has no charge for export"
    remedy = "look for a generator, a wrong connection, or the wrong tariff"
    return _hold(bill, "reverse_energy", what, remedy, holds=rules.reverse_energy == "hold", size=energy)


def _capacity(rules: Rules, bill: Reviewed) -> Hold | None:
    terms = bill.case.terms
    limits = [(one, "kW", "contract") for part in terms if (one := part.contract_kw)]
    limits += [(one, "kVA", "capacity") for part in terms if (one := part.capacity_kva)]
    demand, words = bill.determinants.get(MAXIMUM), "maximum demand"
    value = None if demand is None else demand.value
    window = bill.case.period.window
    if value is None and (energy := _energy(bill)) is not None:
        hours = Decimal(int((window.end - window.start).total_seconds())) / 3600
        value, words = energy / hours, "mean power"
    if not limits or value is None:
        return None
    limit, unit, name = max(limits)
    percent = value * 100 / limit
    if percent <= rules.capacity_warn_percent:
        return None
    what = f"{words} {_plain(value)} kW is {_plain(percent)} % of the {name} of {_plain(limit)} {unit}"
    remedy = f"check the multiplier and the account's {name}"
    return _hold(bill, "over_capacity", what, remedy, holds=percent > rules.capacity_hold_percent, size=percent)


def _highest(codes: set[str]) -> int:
    """The highest step among line codes."""
    return max((int(match[1]) for code in codes if (match := _STEP.match(code))), default=1)


def _steps(rules: Rules, bill: Reviewed, before: _Before) -> Hold | None:
    charge = _step_charge(bill)
    if charge is None or not rules.step_jump:
        return None
    start = bill.case.period.window.start
    since = start - timedelta(days=366)
    if charge.period == "year":
        since = step_year_start(start, charge.year_start, bill.case.period.tariff.zone)
    reached = [_highest(codes) for window, codes in before.codes if window.start >= since]
    now = _highest({line.code for line in bill.lines})
    if not reached or now - max(reached) < rules.step_jump:
        return None
    what = f"reaches step {now}, and no earlier bill of the year passed step {max(reached)}"
    remedy = "check the registers, and the energy used before in the step year; release the bill if it is right"
    return _hold(bill, "step_jump", what, remedy, holds=True, size=now - max(reached))


def _early(rules: Rules, bill: Reviewed, before: _Before) -> Hold | None:
    charge = _step_charge(bill)
    now = _highest({line.code for line in bill.lines})
    if charge is None or charge.period != "year" or not rules.early_months or now == 1:
        return None
    start, zone_name = bill.case.period.window.start, bill.case.period.tariff.zone
    year = step_year_start(start, charge.year_start, zone_name)
    last_year = step_year_start(year - timedelta(days=1), charge.year_start, zone_name)
    if any(window.start >= year and _highest(codes) >= now for window, codes in before.codes):
        return None  # told when it was reached
    then = [window.start for window, codes in before.codes if last_year <= window.start < year]
    first = [w.start for w, codes in before.codes if last_year <= w.start < year and _highest(codes) >= now]
    if not then or min(then) > last_year + timedelta(days=31):
        return None  # last year is not known from its start
    months = _month_number(start, bill) - _month_number(year, bill) + 1
    earlier = (_month_number(min(first), bill) - _month_number(last_year, bill) + 1 if first else 13) - months
    if earlier < rules.early_months:
        return None
    before_text = f"{earlier} months earlier than last year" if first else "last year it was never reached"
    what = f"reaches step {now} in month {months} of the step year, {before_text}"
    return _hold(bill, "step_early", what, "compare with last year's use", holds=False, size=earlier)


def _share(rules: Rules, bill: Reviewed) -> Hold | None:
    counted = [one for one in bill.determinants.values() if one.counts]
    detailed = [one for one in counted if not one.name.startswith(TOTAL + "@") and one.name != TOTAL] or counted
    whole = sum(count for one in detailed for _, count in one.counts)
    made = sum(count for one in detailed for quality, count in one.counts if quality is Quality.ESTIMATED)
    if not whole or made * 100 <= rules.estimated_warn_percent * whole:
        return None
    percent = Decimal(made * 100) / whole
    what = f"{_plain(percent)} % of the values are estimated ({made} of {whole})"
    remedy = "read the meter, or release the bill and correct it once there is a read"
    return _hold(bill, "estimated_share", what, remedy, holds=percent > rules.estimated_hold_percent, size=percent)


def _estimated(counts: Sequence[tuple[Quality, int]]) -> bool:
    """Whether an end of the period's register is an estimate."""
    return any(quality is Quality.ESTIMATED and count for quality, count in counts)


def _in_a_row(rules: Rules, bill: Reviewed, before: _Before) -> Hold | None:
    total = bill.determinants.get(TOTAL)
    if total is None or not _estimated(total.counts):
        return None
    row, start = 1, bill.case.period.window.start
    for one in reversed(before.energies):
        if one.window.end != start or not _estimated(one.counts):
            break
        row, start = row + 1, one.window.start
    if row <= rules.estimated_bills:
        return None
    what = f"bill {row} in a row that ends on an estimated register"
    return _hold(bill, "estimated_row", what, "have the meter read at its place", holds=True, size=row)


def _cap(rules: Rules, bill: Reviewed, before: _Before) -> Hold | None:
    total = bill.determinants.get(TOTAL)
    if total is None or not _estimated(total.counts) or total.value < rules.least_kwh:
        return None
    last_year = _months_back(bill, before, 12)
    known = [one for one in before.energies if _long(one.window) and not _estimated(one.counts)][-12:]
    if last_year is not None:
        base, words = last_year.value, "the same month last year"
    elif known:
        base, words = sum((one.value for one in known), Decimal(0)) / len(known), "the average of a month"
    else:
        return None
    if total.value * 100 <= base * rules.estimated_cap_percent:
        return None
    what = f"an estimate of {_plain(total.value)} kWh, more than {rules.estimated_cap_percent} % of {words}"
    what += f" ({_plain(base)} kWh)"
    remedy = "read the meter before this is billed"
    size = total.value * 100 / base if base else Decimal("Infinity")
    return _hold(bill, "estimated_cap", what, remedy, holds=True, size=size)
