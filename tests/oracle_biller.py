"""A slow biller of the tests' own, interval by interval in fractions, written from docs/tariffs.md and docs/billing.md.

It shares no code with the product: tariffs are plain dictionaries with the keys of a tariff file, energies are lists.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise

from tests.oracle_plan import (
    GROUP,
    NOTHING,
    ZERO,
    Billed,
    Charge,
    Line,
    Part,
    Plan,
    by_period,
    cumulated,
    local_days,
    midnight,
    month_edges,
    period_at,
    rounded,
)


class Biller:
    """Bills the months of a plan in their order, and keeps what later ones need."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.tz = plan, plan.tz
        self.past: list[tuple[tuple[int, int], Fraction, dict[str, Fraction]]] = []
        self.carried = ZERO

    def bill(self, year: int, month: int) -> Billed:
        start, end = month_edges(year, month, self.tz)
        self.year, self.month = year, month
        self.month_days = local_days(start, end, self.tz)
        self.start = max(start, self.plan.since)
        self.end = end if self.plan.until is None else min(end, self.plan.until)
        self.whole = (self.start, self.end) == (start, end)
        self.parts = self.cut()
        self.lines: list[Line] = []
        self.energies = [part.energy() for part in self.parts]
        self.total_kwh = sum(self.energies, ZERO)
        self.priced = self.net()
        self.maxima: dict[str, Fraction] = {}
        for number, part in enumerate(self.parts):
            for charge in part.version.charges:
                getattr(self, f"_{charge['kind']}", self.nothing)(charge, part, number)
        self.once()
        for number, part in enumerate(self.parts):
            for charge in part.version.of("tax"):
                self._vat(charge, number)
        self.past.append(((year, month), self.total_kwh, self.maxima))
        return self.summed()

    def nothing(self, charge: Charge, part: Part, number: int) -> None:
        """Kinds that are worked out once for the period, or after the others."""

    def summed(self) -> Billed:
        total = sum((line.amount for line in self.lines), ZERO)
        if self.parts[-1].version.rounding == "bill":
            true = rounded(sum((line.exact for line in self.lines), ZERO), 2)
            if true != total:
                self.lines.append(Line("rounding", "", true - total, true - total, len(self.parts) - 1))
            total = true
        return Billed(self.lines, total)

    def cut(self) -> list[Part]:
        edges = {self.start, self.end, *(at for at, _ in self.plan.terms)}
        for version in self.plan.versions:
            edges |= {midnight(day, self.tz) for day in (version.first, version.end) if day is not None}
        parts: list[Part] = []
        for start, end in pairwise(sorted(edge for edge in edges if self.start <= edge <= self.end)):
            day = start.astimezone(self.tz).date()
            (version,) = [v for v in self.plan.versions if v.first <= day and (v.end is None or day < v.end)]
            terms: dict[str, str] = {}
            for at, told in sorted(self.plan.terms, key=lambda term: term[0]):
                terms.update(told if at <= start else {})
            if parts and parts[-1].version is version and parts[-1].terms == terms:
                parts[-1].end = end
            else:
                parts.append(Part(start, end, version, terms))
        for part in parts:
            part.days = local_days(part.start, part.end, self.tz)
            for stay in self.plan.stays:
                times = Decimal(stay.multiplier)
                for number, row in enumerate(stay.rows):
                    at = stay.start + timedelta(seconds=stay.step_s * number)
                    if part.start <= at < part.end:
                        part.rows.append((at, [one * times for one in row]))
        return parts

    def add(self, code: str, charge: Charge, quantity: Fraction, price: Fraction | str, number: int) -> None:
        group, adjusted = GROUP[charge["kind"]], bool(charge.get("adjusted"))
        self.lines.append(Line(code, group, quantity, quantity * Fraction(price), number, adjusted))

    def share(self, price: Fraction | str, part: Part) -> Fraction:
        """A monthly price for the days of a part, to eight places."""
        window = sum(one.days for one in self.parts)
        of = window if part.version.part_month == "whole" else self.month_days
        return Fraction(price) if part.days == of else rounded(Fraction(price) * part.days / of, 8)

    # -- energy --------------------------------------------------------------------------------------------------------

    def net(self) -> list[Fraction]:
        """Energy of each part that has a price, after net metering."""
        charges = self.parts[-1].version.of("net_metering")
        self.surplus = ZERO
        if not charges:
            return list(self.energies)
        (charge,) = charges
        carry = charge.get("carry", False)
        if self.month == int(charge.get("year_start", "01-01")[:2]):
            self.carried = ZERO  # credited with the month before
        net = self.total_kwh - sum((part.energy(1) for part in self.parts), ZERO) - (self.carried if carry else ZERO)
        left = max(-net, ZERO)
        kept = carry and self.month % 12 + 1 != int(charge.get("year_start", "01-01")[:2])
        kept = kept and (self.plan.until is None or self.plan.until > self.end)
        self.carried, self.surplus = (left, ZERO) if kept else (ZERO, left)
        net = max(net, ZERO)
        if not self.total_kwh:
            return [ZERO] * len(self.parts)
        marks = [ZERO]
        for number in range(len(self.parts)):
            marks.append(cumulated(net, sum(self.energies[: number + 1], ZERO), self.total_kwh))
        return [b - a for a, b in pairwise(marks)]

    def _energy(self, charge: Charge, part: Part, number: int) -> None:
        self.add("energy", charge, self.priced[number], charge["price"], number)

    def _tou(self, charge: Charge, part: Part, number: int) -> None:
        for name, energy in by_period(part, charge, self.tz).items():
            self.add(f"energy_{name}", charge, energy, charge["prices"][name], number)

    def used(self, charge: Charge, number: int) -> Fraction:
        """Energy that fills the steps before a part of the period."""
        before = sum(self.priced[:number], ZERO)
        if charge.get("period") != "year":
            return before
        first = self.year_start(charge)
        if self.plan.since > midnight(first, self.tz):
            before += Fraction(self.plan.used or 0)
        return before + sum((kwh for (year, month), kwh, _ in self.past if date(year, month, 1) >= first), ZERO)

    def year_start(self, charge: Charge) -> date:
        month = int(charge.get("year_start", "01-01")[:2])
        return date(self.year if self.month >= month else self.year - 1, month, 1)

    def limits(self, charge: Charge, part: Part) -> list[tuple[Fraction | None, Charge]]:
        """The steps of the month, with the limits that hold for this account."""
        month = self.start.astimezone(self.tz).month
        (table,) = [t for t in charge["tables"] if month in t.get("months", range(1, 13))]
        yearly, more, share = charge.get("period") == "year", ZERO, Fraction(1)
        large = charge.get("household")
        if large and "people" in part.terms and int(part.terms["people"]) >= large["people"]:
            more = Fraction(large["kwh"]) * (12 if yearly else 1)
        if charge.get("part") == "months" and yearly:
            share = Fraction(self.begun(self.year_start(charge)), 12)
        if charge.get("part") == "days" and not yearly:
            share = Fraction(sum(one.days for one in self.parts), self.month_days)
        return [
            (rounded((Fraction(step["up_to"]) + more) * share, 4) if "up_to" in step else None, step)
            for step in table["steps"]
        ]

    def begun(self, first: date) -> int:
        count = 0
        for number in range(12):
            month = first.month - 1 + number
            start, end = month_edges(first.year + month // 12, month % 12 + 1, self.tz)
            count += self.plan.since < end and (self.plan.until is None or self.plan.until > start)
        return count

    def filled(self, charge: Charge, part: Part, used: Fraction, energy: Fraction) -> list[tuple[Fraction, Charge]]:
        found, floor = [], ZERO
        for limit, step in self.limits(charge, part):
            top = used + energy if limit is None else min(limit, used + energy)
            found.append((max(top - max(floor, used), ZERO), step))
            floor = floor if limit is None else limit
        return found

    def _step(self, charge: Charge, part: Part, number: int) -> None:
        filled = self.filled(charge, part, self.used(charge, number), self.priced[number])
        for place, (energy, step) in enumerate(filled, start=1):
            if energy:
                self.add(f"energy_step{place}", charge, energy, step["price"], number)

    def _step_adder(self, charge: Charge, part: Part, number: int) -> None:
        filled = self.filled(charge, part, self.used(charge, number), self.priced[number])
        for place, (energy, step) in enumerate(filled, start=1):
            if energy and Fraction(step["price"]):
                self.add(f"step{place}_adder", charge, energy, step["price"], number)

    def _step_tou(self, charge: Charge, part: Part, number: int) -> None:
        used = self.used(charge, number)
        found: dict[tuple[int, str], Fraction] = {}
        if charge["split"] == "chronological":
            for at, row in part.rows:
                name = period_at(at, charge, part.version, self.tz)
                for place, (energy, _) in enumerate(self.filled(charge, part, used, Fraction(row[0])), start=1):
                    found[place, name] = found.get((place, name), ZERO) + energy
                used += Fraction(row[0])
        else:
            periods, total = by_period(part, charge, self.tz), part.energy()
            for place, (energy, _) in enumerate(self.filled(charge, part, used, total), start=1):
                reached, before = ZERO, ZERO
                for name, kwh in periods.items():
                    reached += kwh
                    mark = cumulated(energy, reached, total)
                    found[place, name] = mark - before
                    before = mark
        steps = [step for _, step in self.limits(charge, part)]
        for (place, name), energy in found.items():
            if energy:
                self.add(f"energy_step{place}_{name}", charge, energy, steps[place - 1]["prices"][name], number)

    def _market(self, charge: Charge, part: Part, number: int) -> None:
        series, value = part.version.series[charge["series"]], NOTHING
        for at, row in part.rows:
            value += row[0] * Decimal(series[bisect_right(series, (at, "~")) - 1][1])
        self.add(charge["code"], charge, Fraction(value), charge.get("factor", "1"), number)
        if Fraction(charge.get("adder", "0")):
            self.add(f"{charge['code']}_adder", charge, part.energy(), charge["adder"], number)

    def _surcharge(self, charge: Charge, part: Part, number: int) -> None:
        self.add(charge["code"], charge, part.energy(), charge["price"], number)

    def _export_credit(self, charge: Charge, part: Part, number: int) -> None:
        self.add("export_credit", charge, part.energy(1), "-" + charge["price"], number)

    # -- months --------------------------------------------------------------------------------------------------------

    def _fixed(self, charge: Charge, part: Part, number: int) -> None:
        self.add(charge["code"], charge, Fraction(1), self.share(charge["amount"], part), number)

    def _capacity(self, charge: Charge, part: Part, number: int) -> None:
        told = charge["capacity_kva"]
        kva, of = Fraction(part.terms["capacity_kva"] if told == "account" else told), charge.get("month_days", 30)
        if self.whole and len(self.parts) == 1:
            self.add("basic_capacity", charge, kva, charge["price"], number)
            return
        before = min(sum(one.days for one in self.parts[:number]), of)
        days = min(part.days, of - before)
        if self.whole and part is self.parts[-1]:
            days = of - before
        if not days:
            return
        self.add("basic_capacity", charge, Fraction(days), rounded(kva * Fraction(charge["price"]) / of, 8), number)

    def measured(self, charge: Charge) -> Fraction:
        """The highest block of each meter's stay; of a period of hours only the energy in it counts."""
        length, highest = charge.get("block_min", 15), ZERO
        slide = timedelta(minutes=charge.get("sliding_min") or length)
        for stay in self.plan.stays:
            at, end = max(self.start, stay.start), min(self.end, stay.end)
            rows = [(p, row) for p in self.parts for row in p.rows if at <= row[0] < end]
            while at + timedelta(minutes=length) <= end:
                upto, energy = at + timedelta(minutes=length), NOTHING
                for part, (start, row) in rows:
                    if start >= upto:
                        break
                    if not charge.get("period") or self.counts(charge["period"], start, part):
                        energy += row[0]
                highest = max(highest, Fraction(energy) * 60 / length)
                at += slide
                while rows and rows[0][1][0] < at:
                    rows.pop(0)
        return highest

    def counts(self, period: str, at: datetime, part: Part) -> bool:
        """Whether an instant is in a period of demand, by the hours of the tariff that holds then; by those of the
        last one that has such a demand, where that has none."""
        for version in (part.version, *(other.version for other in reversed(self.parts))):
            for charge in version.of("demand"):
                if charge.get("period") == period:
                    return period_at(at, charge, version, self.tz) == period
        raise AssertionError(period)

    def looked_back(self, charge: Charge) -> Fraction:
        """What a ratchet asks for at least."""
        least, look = ZERO, charge.get("ratchet", {"months": 0})
        for (year, month), _, maxima in self.past:
            ago = (self.year - year) * 12 + self.month - month
            if ago <= look["months"] and month in look.get("of_months", range(1, 13)):
                least = max(least, maxima[charge.get("period", "")] * Fraction(look["percent"]) / 100)
        return least

    def _demand(self, charge: Charge, part: Part, number: int) -> None:
        if self.start.astimezone(self.tz).month not in charge.get("months", range(1, 13)):
            return
        period = charge.get("period", "")
        if period not in self.maxima:
            self.maxima[period] = self.measured(charge)
        demand, code = self.maxima[period], charge.get("code", "basic_demand")
        least = self.looked_back(charge)
        if "steps" in charge:
            floor, demand = ZERO, max(demand, least)
            for place, step in enumerate(charge["steps"], start=1):
                top = min(demand, Fraction(step["up_to"])) if "up_to" in step else demand
                if top > floor:
                    self.add(f"{code}_step{place}", charge, top - floor, self.share(step["price"], part), number)
                    floor = top
            return
        base = "basic" if code == "basic_demand" else code
        price, excess = self.share(charge["price"], part), ZERO
        contract = charge.get("contract_kw")
        kw = demand
        if contract is not None:
            agreed = Fraction(part.terms["contract_kw"] if contract == "account" else contract)
            limit = agreed * Fraction(charge.get("allowance", "1.05"))
            kw = agreed
            if demand > limit:
                excess = demand - (limit if charge.get("excess_above", "allowance") == "allowance" else agreed)
        kw, first = max(kw, least - excess), len(self.lines)
        self.add(code, charge, kw, price, number)
        if excess:
            dear = self.share(Fraction(charge["price"]) * Fraction(charge.get("excess_factor", "2")), part)
            self.add(f"{base}_excess", charge, excess, dear, number)
        if "discount_hours" in charge and self.total_kwh >= Fraction(charge["discount_hours"]) * agreed:
            value = self.value(self.lines[first:])
            self.add(f"{base}_discount", charge, -Fraction(charge["discount_percent"]), value / 100, number)

    # -- once ----------------------------------------------------------------------------------------------------------

    def value(self, lines: Sequence[Line]) -> Fraction:
        """What lines come to, as printed."""
        return sum((line.amount for line in lines), ZERO)

    def once(self) -> None:
        """Charges made once for the period, by the tariff at its end."""
        last, version = len(self.parts) - 1, self.parts[-1].version
        for charge in version.of("net_metering"):
            if self.surplus:
                self.add("export_credit", charge, self.surplus, "-" + charge.get("price", "0"), last)
        for charge in version.of("power_factor"):
            names = charge.get("reactive", ["import_kvarh"])
            places = [2 if name == "import_kvarh" else 3 for name in names]
            reactive = sum((part.energy(place) for part in self.parts for place in places), ZERO)
            if not self.total_kwh and not reactive:
                continue
            percent = factor_percent(self.total_kwh, reactive, charge["standard"])
            base = charge.get("base", ["energy", "demand"])
            value = self.value([line for line in self.lines if line.group in base or line.adjusted])
            self.add("pf_adjust", charge, percent, value / 100, last)
        for charge in version.of("minimum"):
            groups = ["energy", "demand", "fixed", "surcharge", "power_factor"]
            value = self.value([line for line in self.lines if line.group in charge.get("base", groups)])
            days = sum(part.days for part in self.parts)
            least = Fraction(charge["amount"])
            if not self.whole and version.part_month == "days" and days != self.month_days:
                least = rounded(least * days / self.month_days, 2)
            if value < least:
                self.add("minimum", charge, Fraction(1), least - value, last)

    def _vat(self, charge: Charge, number: int) -> None:
        groups = ["energy", "demand", "fixed", "surcharge", "power_factor", "minimum", "export"]
        base = [line for line in self.lines if line.part == number and line.group in charge.get("base", groups)]
        percent, value = Fraction(charge["percent"]), self.value(base)
        self.lines.append(Line(charge["code"], "tax", percent, percent * value / 100, number))


def factor_percent(active: Fraction, reactive: Fraction, standard: str) -> Fraction:
    """Percent by (83) 水电财字第215号: more below the standard, less above it."""
    with localcontext() as context:
        context.prec = 60
        a = Decimal(active.numerator) / Decimal(active.denominator)
        r = Decimal(reactive.numerator) / Decimal(reactive.denominator)
        root = (a * a + r * r).sqrt()
        points = int(rounded(Fraction(a / root), 2) * 100)
    own = round(float(standard) * 100)
    tenths = 0
    if points >= own:
        top = {90: 95, 85: 94, 80: 92}[own]
        for point in range(own + 1, min(points, top) + 1):
            tenths -= 15 if point > 90 else 10
        return Fraction(tenths, 100)
    for point in range(own - 1, points - 1, -1):
        tenths += 50 if point >= own - 20 else 100 if point >= own - 25 else 200
    return Fraction(tenths, 100)
