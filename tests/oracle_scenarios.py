"""Random accounts for the biller of `tests.oracle_biller`: tariffs as files, meters and readings as rows of a store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from billing.charges import Tariff
from config.tariff_files import load_tariffs
from headend import ingest
from headend.model import Meter, MeterModel, Outcome, Reading, ReadJob, ReadKind, Source, Status, Window
from headend.store import Store, registry
from headend.store.terms import AccountTerm, put_terms
from tests.oracle_plan import Charge, Plan, Stay, Version, midnight, month_edges

ZONES = ("Asia/Shanghai", "Europe/Berlin")
WRAP = Decimal("1000000")
QUANTITIES = ("import_kwh", "export_kwh", "import_kvarh", "export_kvarh")
DAY = timedelta(days=1)
KEEP_NONE = ingest.EvidencePolicy(keep_good_every=10**9)


# -- tariffs -----------------------------------------------------------------------------------------------------------


def price(chance: Random, top: int = 120, places: int = 4, least: int = 1) -> str:
    return str(Decimal(chance.randint(least, top * 10 ** (places - 2))).scaleb(-places))


def spans(chance: Random, names: Sequence[str]) -> dict[str, list[str]]:
    """Hours of each period: a day cut at whole hours, one span of them over midnight now and then."""
    cuts = sorted(chance.sample(range(1, 24), len(names) + chance.randint(0, 2)))
    found: dict[str, list[str]] = {name: [] for name in names}
    over_midnight = chance.random() < 0.5
    edges = [*cuts, cuts[0]] if over_midnight else [0, *cuts[1:], 24]
    for number in range(len(edges) - 1):
        found[names[number % len(names)]].append(f"{edges[number]:02d}:00-{edges[number + 1]:02d}:00")
    return {name: spans for name, spans in found.items() if spans}


def seasons(chance: Random, names: Sequence[str], months: Sequence[int]) -> list[Charge]:
    kinds = chance.choice([["all"], ["weekday", "weekend"], ["weekday", "weekend", "holiday"], ["all", "holiday"]])
    groups: list[list[int] | None] = [None]
    if chance.random() < 0.4:
        first = sorted({*chance.sample(range(1, 13), 5), months[0]} - {months[-1]} or {months[0]})
        groups = [first, sorted(set(range(1, 13)) - set(first))]
    found = []
    for group in groups:
        for kind in kinds:
            season: Charge = {"days": kind, "periods": spans(chance, names)}
            found.append({"months": group, **season} if group else season)
    return found


def events(chance: Random, names: Sequence[str], version: tuple[date, date], day: date) -> list[Charge]:
    at = datetime.fromisoformat(f"{day}T{chance.randint(0, 20):02d}:00")
    if chance.random() < 0.7 or not version[0] <= day < version[1] - DAY:
        return []
    end = at + timedelta(hours=chance.randint(1, 6))
    return [{"period": chance.choice(names), "start": f"{at:%Y-%m-%dT%H:%M}", "end": f"{end:%Y-%m-%dT%H:%M}"}]


def tables(chance: Random, yearly: bool, priced: Any) -> list[Charge]:
    """Steps; a month's in two tables now and then. priced: makes what a step asks."""
    groups: list[list[int] | None] = [None]
    if not yearly and chance.random() < 0.4:
        groups = [[1, 3, 5, 7, 9, 11], [2, 4, 6, 8, 10, 12]]
    found = []
    for group in groups:
        limits = sorted(chance.sample(range(50, 1500 if yearly else 900), chance.randint(1, 3)))
        steps = [{"up_to": f"{limit}{chance.choice(['', '.5'])}", **priced()} for limit in limits] + [priced()]
        found.append({"months": group, "steps": steps} if group else {"steps": steps})
    return found


def stepped(chance: Random, kind: str, yearly: bool, year_start: str, part: str, large: Charge | None) -> Charge:
    zero = kind == "step_adder" and chance.random() < 0.6
    free = iter([{"price": "0"}] if zero else [])

    def priced() -> Charge:
        return next(free, {"price": price(chance)})

    return {
        "kind": kind,
        "unit": "kWh",
        **filling(yearly, year_start, part, large),
        "tables": tables(chance, yearly, priced),
    }


def filling(yearly: bool, year_start: str, part: str, large: Charge | None) -> Charge:
    found: Charge = {"period": "year" if yearly else "month"}
    found |= {"year_start": year_start} if yearly else {}
    found |= {"part": part} if part != "whole" else {}
    return found | ({"household": large} if large else {})


NAMES = ("peak", "flat", "valley", "deep")


class Maker:
    """Makes a plan from a seed: what all versions of its tariff have in common, then each of them."""

    def __init__(self, seed: int, zone: str, months: Sequence[tuple[int, int]], step_s: int = 3600) -> None:
        self.chance = chance = Random(seed)
        self.months, self.step_s, self.zone = list(months), step_s, zone
        self.kind = chance.choice(["energy", "tou", "tou", "step", "tou+step_adder", "energy+step_adder", "step_tou"])
        self.split = chance.choice(["pro_rata", "chronological"])
        self.yearly = chance.random() < 0.5
        self.net = self.kind in ("energy", "step", "energy+step_adder") and chance.random() < 0.4
        self.yearly = self.yearly and not self.net
        self.carry, self.year_start = chance.random() < 0.6, f"{chance.choice([1, months[-1][1], 7]):02d}-01"
        self.part = chance.choice(["whole", "months" if self.yearly else "days"])
        self.large = {"people": 5, "kwh": chance.choice(["100", "33.3"])} if chance.random() < 0.3 else None
        self.names = NAMES[: chance.randint(2, 4)]
        self.rounding = chance.choice(["line", "line", "bill"])
        self.part_month = chance.choice(["days", "days", "whole"])
        self.extras = {name for name in EXTRAS if chance.random() < 0.3}
        self.demand = {
            "block_min": 60 if step_s == 3600 else chance.choice([30, 60]),
            "look": {"months": 2, "percent": chance.choice(["80", "66", "100"])} if chance.random() < 0.5 else None,
            "kind": chance.choice(["price", "steps", "contract", "account"]),
            "hours": chance.random() < 0.3 and self.kind in ("tou", "step_tou"),
        }

    def version(self, first: date, end: date | None) -> Version:
        chance, months = self.chance, [month for _, month in self.months]
        day = date(*self.months[0], chance.randint(2, 27))
        free = [date(*self.months[0], 1) + timedelta(days=number) for number in chance.sample(range(28), 3)]
        version = Version(first, end, [], self.rounding, self.part_month)
        version.holidays = [free[0]] if chance.random() < 0.5 else []
        version.workdays = sorted(one for one in free[1:] if one.weekday() >= 5)
        charges, periods = version.charges, seasons(chance, self.names, months)
        called = events(chance, self.names, (first, end or date(2099, 1, 1)), day)
        shape = (self.yearly, self.year_start, self.part, self.large)
        for kind in self.kind.split("+"):
            if kind == "energy":
                charges.append({"kind": "energy", "unit": "kWh", "price": price(chance)})
            elif kind == "tou":
                prices = {name: price(chance) for name in self.names}
                charges.append({"kind": "tou", "unit": "kWh", "prices": prices, "seasons": periods, "events": called})
            elif kind == "step_tou":
                steps = tables(chance, self.yearly, lambda: {"prices": {n: price(chance) for n in self.names}})
                body = {"kind": "step_tou", "unit": "kWh", **filling(*shape), "split": self.split, "tables": steps}
                charges.append(body | {"seasons": periods, "events": called})
            else:
                charges.append(stepped(chance, kind, *shape))
        if self.net:
            one: Charge = {"kind": "net_metering", "unit": "kWh", "price": price(chance), "carry": self.carry}
            charges.append(one | ({"year_start": self.year_start} if self.carry else {}))
        for name in EXTRAS:
            if name in self.extras and not (self.net and name in ("export", "market")):
                charges += self.extra(name, version, periods)
        if chance.random() < 0.3:
            chance.shuffle(charges)
        return version

    def extra(self, name: str, version: Version, periods: list[Charge]) -> list[Charge]:
        chance = self.chance
        month: Charge = {"unit": "month"}
        if name == "fixed":
            return [{"kind": "fixed", **month, "code": "service", "amount": price(chance, 5000, 2)}]
        if name == "minimum":
            base = chance.choice([None, ["energy"], ["energy", "fixed"] if "fixed" in self.extras else ["energy"]])
            least: Charge = {"kind": "minimum", **month, "amount": price(chance, 50000, 2)}
            return [least | ({"base": base} if base else {})]
        if name == "capacity":
            kva = chance.choice(["630", "account"])
            return [{"kind": "capacity", "unit": "kVA", "price": price(chance, 3000, 2), "capacity_kva": kva}]
        if name == "power_factor":
            base = chance.choice([["energy", "demand"], ["energy"]])
            reactive = chance.choice([["import_kvarh"], ["import_kvarh", "export_kvarh"]])
            standard = chance.choice(["0.90", "0.85", "0.80"])
            return [{"kind": "power_factor", "unit": "%", "standard": standard, "base": base, "reactive": reactive}]
        if name == "surcharge":
            adjusted = chance.random() < 0.5 and "power_factor" in self.extras
            fund: Charge = {"kind": "surcharge", "unit": "kWh", "code": "fund", "price": price(chance, 3, 5)}
            return [fund | {"adjusted": adjusted}, fund | {"code": "levy", "price": "0.0107"}]
        if name == "tax":
            base = chance.choice([None, ["energy"], ["energy", "surcharge"] if "surcharge" in self.extras else None])
            vat: Charge = {"kind": "tax", "unit": "%", "code": "vat", "percent": chance.choice(["13", "19", "7.25"])}
            return [vat | ({"base": base} if base else {})]
        if name == "export":
            return [{"kind": "export_credit", "unit": "kWh", "price": price(chance)}]
        if name == "market":
            return [self.market(version)]
        return [self.demanded(periods)]

    def market(self, version: Version) -> Charge:
        chance, tz = self.chance, ZoneInfo(self.zone)
        year, month = self.months[-1]
        version.end = version.end or date(year + month // 12, month % 12 + 1, 2)
        at, end = midnight(version.first, tz), midnight(version.end, tz)
        rows, name = [], f"spot-{version.first}.csv"
        while at < end:
            rows.append((at, str(Decimal(chance.randint(-900, 9000)).scaleb(-4))))
            at += timedelta(hours=1)
        version.series[name] = rows
        return {"kind": "market", "unit": "kWh", "code": "spot", "series": name, "factor": "1.02", "adder": "0.0185"}

    def demanded(self, periods: list[Charge]) -> Charge:
        chance, told = self.chance, self.demand
        one: Charge = {"kind": "demand", "unit": "kW", "measured_by": "intervals", "block_min": told["block_min"]}
        if told["block_min"] == 60 and self.step_s < 3600:
            one["sliding_min"] = 30
        if told["hours"]:
            one |= {"period": self.names[0], "seasons": periods, "code": "peak_demand"}
        if told["look"]:
            one["ratchet"] = told["look"]
        if told["kind"] == "steps":
            return one | {"steps": [{"up_to": "2.5", "price": price(chance, 900, 2)}, {"price": price(chance, 900, 2)}]}
        one["price"] = price(chance, 4000, 2)
        if told["kind"] in ("contract", "account"):
            one["contract_kw"] = "3" if told["kind"] == "contract" else "account"
            one["excess_above"] = chance.choice(["allowance", "contract"])
            one |= {"allowance": "1.10", "excess_factor": "1.5"} if chance.random() < 0.5 else {}
            one |= {"discount_hours": "150", "discount_percent": "10"} if chance.random() < 0.5 else {}
        return one

    def plan(self) -> Plan:
        chance, tz = self.chance, ZoneInfo(self.zone)
        start, end = month_edges(*self.months[0], tz)[0], month_edges(*self.months[-1], tz)[1]
        first = start.astimezone(tz).date()
        span = (end - start).days
        edge = midnight(first + timedelta(days=chance.randint(1, span - 1)), tz)
        versions = [self.version(first, None)]
        if chance.random() < 0.5:
            day = edge.astimezone(tz).date()
            versions = [self.version(first, day), self.version(day, None)]
        since = start
        if chance.random() < 0.3:
            hour = timedelta(hours=chance.choice([0, 0, 12]))
            since = midnight(first + timedelta(days=chance.randint(1, 26)), tz) + hour
        until = None
        if chance.random() < 0.15:
            days = chance.randint(1, max((end - since).days - 1, 1))
            until = midnight(end.astimezone(tz).date() - timedelta(days=days), tz)
            until = until if until > since else None
        told = {"contract_kw": "2.5", "capacity_kva": "400", "people": str(chance.choice([3, 5, 6]))}
        terms = [(since, told)]
        if chance.random() < 0.4:
            at = edge if chance.random() < 0.5 else midnight(first + timedelta(days=chance.randint(1, span - 1)), tz)
            if at > since and (until is None or at < until):
                terms.append((at, {chance.choice(list(told)): str(chance.randint(2, 9))}))
        used = str(chance.randint(0, 4000)) + ".25" if since.astimezone(tz).month != int(self.year_start[:2]) else "0"
        return Plan(self.zone, versions, since, until, terms, self.stays(start, end, edge), used, self.months)

    def stays(self, start: datetime, end: datetime, edge: datetime) -> list[Stay]:
        chance = self.chance
        cuts = [start, end]
        if chance.random() < 0.4:
            cuts.insert(1, edge if chance.random() < 0.4 else edge + timedelta(hours=chance.randint(0, 23)))
            cuts = sorted(set(cuts)) if cuts[1] < end else [start, end]
        found, load = [], chance.choice([0, 100, 250, 250, 400])
        back = chance.choice([0, 100, 250, 500])
        for number in range(len(cuts) - 1):
            count = int((cuts[number + 1] - cuts[number]).total_seconds()) // self.step_s
            rows = [
                (_unit(chance, load), _unit(chance, back), _unit(chance, load), _unit(chance, 60)) for _ in range(count)
            ]
            multiplier = chance.choice(["1", "1", "2", "1.2345"])
            found.append(Stay(cuts[number], self.step_s, multiplier, rows))
        return found


def _unit(chance: Random, top: int) -> Decimal:
    return Decimal(int(chance.random() * chance.random() * (top + 1))).scaleb(-2)


EXTRAS = ("market", "demand", "capacity", "fixed", "export", "power_factor", "surcharge", "minimum", "tax")


# -- files -------------------------------------------------------------------------------------------------------------


def toml(value: object) -> str:
    """A value of a tariff as TOML writes it."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(toml(one) for one in value) + "]"
    return value.isoformat() if isinstance(value, date) else json.dumps(value)


def written(folder: Path, plan: Plan) -> None:
    """The plan's tariff as files."""
    for number, version in enumerate(plan.versions, start=1):
        head = {
            "id": plan.name,
            "version": str(number),
            "title": plan.name,
            "source": "a test",
            "source_date": date(2026, 1, 1),
            "verified": True,
            "valid_from": version.first,
            **({} if version.end is None else {"valid_to": version.end}),
            "zone": plan.zone,
            "currency": "EUR",
            "holidays": version.holidays,
            "workdays": version.workdays,
            "rounding": version.rounding,
            "part_month": version.part_month,
        }
        text = "".join(f"{key} = {toml(value)}\n" for key, value in head.items())
        for charge in version.charges:
            series = {"series": f"{plan.name}-{charge['series']}"} if "series" in charge else {}
            text += "\n[[charges]]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in (charge | series).items())
        (folder / f"{plan.name}@{number}.toml").write_text(text, encoding="utf-8")
        for name, rows in version.series.items():
            prices = "".join(f"{at.isoformat()},{one}\n" for at, one in rows)
            (folder / f"{plan.name}-{name}").write_text(f"start,price\n{prices}", encoding="utf-8")


# -- store -------------------------------------------------------------------------------------------------------------


def stored(store: Store, folder: Path, plans: Sequence[Plan]) -> list[Tariff]:
    """Every plan in the store, through the registry and the door that readings come in by; the tariffs from files."""
    for plan in plans:
        written(folder, plan)
    with store.write() as conn:
        meters: list[registry.MeterRow] = []
        installed: list[registry.InstallationRow] = []
        for plan in plans:
            for number, stay in enumerate(plan.stays, start=1):
                name = f"{plan.name}-M{number}"
                address = f"{len(meters) + 1:012d}"
                meters.append(registry.MeterRow(name, "dlt645", address, "L1", "t", plan.zone, WRAP, stay.step_s))
                until = stay.end if number < len(plan.stays) else None
                row = registry.InstallationRow(plan.name, name, stay.start, until, Decimal(stay.multiplier))
                installed.append(row)
        registry.put_meters(conn, meters)
        registry.put_usage_points(conn, [registry.UsagePointRow(plan.name) for plan in plans])
        registry.put_installations(conn, installed)
        accounts, terms = [], []
        for plan in plans:
            used = None if plan.used is None else Decimal(plan.used)
            at = None if used is None else plan.since
            accounts.append(registry.AccountRow(plan.name, plan.name, "C", plan.name, plan.since, plan.until, used, at))
            for since, told in plan.terms:
                numbers: dict[str, Any] = {key: Decimal(one) for key, one in told.items() if key != "people"}
                numbers |= {"people": int(told["people"])} if "people" in told else {}
                terms.append(AccountTerm(plan.name, since, **numbers))
        registry.put_accounts(conn, accounts)
        put_terms(conn, terms)
        ingest.write(conn, outcomes_of(conn, *plans), KEEP_NONE)
    return load_tariffs(folder)


def outcomes_of(conn: Connection, *plans: Plan) -> list[Outcome]:
    """Everything that the plans' meters tell."""
    keys = {row.id: row.key for row in registry.meters(conn)}
    found: list[Outcome] = []
    for plan in plans:
        for number, stay in enumerate(plan.stays, start=1):
            name = f"{plan.name}-M{number}"
            model = MeterModel("t", "dlt645", WRAP, Decimal(10))
            meter = Meter(keys[name], name, name, "dlt645", "L1", model, plan.zone)
            found += told_by(meter, plan, stay, Random(name))
    return found


def told_by(meter: Meter, plan: Plan, stay: Stay, chance: Random) -> Iterable[Outcome]:
    """What a meter tells of its stay: its import register as a curve, the others as freezes where a bill is cut."""
    begins = [Decimal(chance.choice([0, 12345, 99999000])).scaleb(-2) for _ in QUANTITIES]
    step = timedelta(seconds=stay.step_s)
    registers = [
        [value % WRAP for value in accumulate((row[which] for row in stay.rows), initial=begin)]
        for which, begin in enumerate(begins)
    ]
    late = timedelta(minutes=2)
    curve = [
        Reading(
            "import_kwh",
            value,
            stay.start + step * number,
            stay.start + step * number + late,
            Source.CURVE,
            stay.step_s,
        )
        for number, value in enumerate(registers[0])
    ]
    yield _outcome(meter, ReadKind.CURVE, curve)
    for at in cuts_of(plan, stay):
        place = (at - stay.start) // step
        rows = [
            Reading(name, registers[which][place], at, at + late, Source.DAILY_FREEZE)
            for which, name in enumerate(QUANTITIES)
        ]
        yield _outcome(meter, ReadKind.DAILY_FREEZE, rows)


def cuts_of(plan: Plan, stay: Stay) -> list[datetime]:
    """Instants at which a bill needs the registers of a stay."""
    days = [day for version in plan.versions for day in (version.first, version.end) if day is not None]
    found = {midnight(day, plan.tz) for day in days} | {at for at, _ in plan.terms}
    found |= {plan.since, plan.until or plan.since, stay.start, stay.end}
    found |= {edge for month in plan.months for edge in month_edges(*month, plan.tz)}
    return sorted(at for at in found if stay.start <= at <= stay.end)


def _outcome(meter: Meter, kind: ReadKind, rows: Sequence[Reading]) -> Outcome:
    window = Window(rows[0].at, rows[-1].at + timedelta(seconds=1))
    names = tuple(dict.fromkeys(row.quantity for row in rows))
    job = ReadJob(meter, kind, names, window)
    return Outcome(job, Status.OK, rows[-1].taken_at, 0.5, tuple(rows), (), ())


def plans(
    seed: int, count: int, months: Sequence[tuple[int, int]], step_s: int = 3600, *, mixed: bool = False
) -> list[Plan]:
    """So many random accounts. mixed: a second version has other kinds of charges than the first."""
    found = []
    for number in range(count):
        plan = Maker(seed * 1000 + number, ZONES[number % 2], months, step_s).plan()
        plan.name = f"s{seed}n{number}"
        if mixed and len(plan.versions) == 2:
            other = Maker(seed * 7777 + number, plan.zone, months, step_s)
            plan.versions[1] = other.version(plan.versions[1].first, None)
        found.append(plan)
    return found
