"""Bills of what happens within a month, from a store given what meters of the demo town show: equal to its truth.

No line and no protocol here, so any month can be closed; `headend demo` does the whole way for the last one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest

from billing import store as bills
from billing.model import Bill, Derived, IntervalPart, RegisterPart
from billing.run import bill_number, close_period
from config.imports import import_files
from headend import ingest
from headend.cli.common import check_address, tariffs_of
from headend.cli.demo import month_begins
from headend.cli.demo_site import by_intervals, write_site, write_tariffs
from headend.model import Meter, MeterModel, Outcome, Reading, ReadJob, ReadKind, Source, Status, Window
from headend.store import Store, open_store, registry
from simulators.clock import SettableClock
from simulators.dlt645_meter import Dlt645Meter
from simulators.town import Town, load_town

DEMO = Path(__file__).parent.parent / "simulators" / "towns" / "demo.toml"
ZONE = timezone(timedelta(hours=8))
LINE = "server-5"
ALSO = ("M2017", "M2018")  # a shop within another, on another line


def part_of_demo(folder: Path, now: datetime, *, settled: bool = True) -> Town:
    """The demo town with its one line of industry and of things that happen, and two shops."""
    blocks = re.split(r"^(?=\[\[(?:line|group|meter)\]\]|# -- tariffs)", DEMO.read_text("utf-8"), flags=re.MULTILINE)
    wanted = [f'"{LINE}"', 'name = "server-2"', *(f'meter_id = "{meter}"' for meter in ALSO)]
    others = [b for b in blocks if b.startswith("[[") and not any(word in b for word in wanted)]
    path, text = folder / "town.toml", "".join(block for block in blocks if block not in others)
    path.write_text(text if settled else by_intervals(text), "utf-8")
    return load_town(path, now=SettableClock(now.timestamp()))


def instant(at_s: int) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)


def outcome(meter: Meter, kind: ReadKind, readings: list[Reading]) -> Outcome:
    window = Window(readings[0].at, readings[-1].at + timedelta(seconds=1))
    return Outcome(
        ReadJob(meter, kind, (readings[0].quantity,), window), Status.OK, readings[-1].taken_at, 0.5, tuple(readings)
    )


def settlements(town: Town, meter_id: str) -> list[Decimal]:
    """What the meter answers for the demand of the settlement before the last one, and of the last one."""
    meter, found = town.meters[meter_id], []
    assert isinstance(meter, Dlt645Meter)
    for nth in (2, 1):
        answer = meter.answer(meter.address, 0x11, bytes((nth, 0x00, 0x01, 0x01)))
        assert answer is not None
        digits = bytes((b - 0x33) & 0xFF for b in answer[18:21])[::-1].hex()
        found.append(Decimal(digits).scaleb(-4))
    return found


def read_all(store: Store, town: Town, start_s: int, end_s: int, kept: Mapping[str, list[Decimal]]) -> None:
    """What the meters show over the month, as their curves, daily freezes and settlements give it."""
    with store.write() as conn:
        known = {row.id: row for row in registry.meters(conn)}
        outcomes = []
        for plan in town.plan.meters:
            row, show = known[plan.meter_id], town.registers[plan.meter_id].shown
            model = MeterModel(row.model, row.protocol, row.register_wrap, Decimal(100))
            meter = Meter(row.key, row.id, row.address, row.protocol, row.line, model, row.clock_zone)
            taken_at = instant(end_s + 3600)

            def reading(
                quantity: str, at_s: int, source: Source, step_s: int, cents: int, when: datetime = taken_at
            ) -> Reading:
                return Reading(quantity, Decimal(cents).scaleb(-2), instant(at_s), when, source, step_s)

            times = range(max(start_s, installed_s(town, plan.meter_id)), end_s + 1, 900)
            curve = [reading("import_kwh", at_s, Source.CURVE, 900, show(at_s)) for at_s in times]
            percent = plan.spec.reactive_percent
            midnights = (start_s, end_s)
            frozen = [
                reading("import_kvarh", at_s, Source.DAILY_FREEZE, 0, show(at_s) * percent // 100) for at_s in midnights
            ]
            outcomes += [outcome(meter, ReadKind.CURVE, curve), outcome(meter, ReadKind.DAILY_FREEZE, frozen)]
            if plan.meter_id in kept:
                settled = [
                    Reading("import_max_kw", value, instant(at_s), taken_at, Source.SETTLEMENT)
                    for at_s, value in zip(midnights, kept[plan.meter_id], strict=True)
                ]
                outcomes.append(outcome(meter, ReadKind.SETTLEMENT, settled))
        ingest.write(conn, outcomes, ingest.EvidencePolicy())


def installed_s(town: Town, meter_id: str) -> int:
    return next(stand.since_s for stand in town.stands if stand.meter.meter_id == meter_id)


def billed(folder: Path, town: Town, *, settled: bool = True) -> dict[str, Bill]:
    """The closed month's bills. settled: the meters' settlements could be read."""
    year, month = town.closed_month()
    start_s, end_s = town.month_span(year, month)
    write_tariffs(folder / "tariffs", instant(start_s).astimezone(ZONE).date().replace(day=16), settled=settled)
    lines = [
        {"line": line.name, "kind": "tcp", "endpoint": f"tcp://127.0.0.1:{number}"}
        for number, line in enumerate(town.plan.lines, start=1)
    ]
    site = write_site(folder, lines, 1, 1)
    tariffs = tariffs_of(site)
    store = open_store(f"sqlite:///{folder / 'headend.db'}")
    try:
        import_files(
            store,
            site,
            meters=folder / "truth" / "meters.csv",
            usage_points=folder / "truth" / "usage_points.csv",
            accounts=folder / "truth" / "accounts.csv",
            terms=folder / "truth" / "terms.csv",
            supplies=folder / "truth" / "supplies.csv",
            submeters=folder / "truth" / "submeters.csv",
            tariffs={tariff.id for tariff in tariffs},
            check_address=check_address,
        )
        read_all(store, town, start_s, end_s, {"M5202": settlements(town, "M5202")} if settled else {})
        report = close_period(store, tariffs, year, month, now=instant(town.opened_s))
        assert report.held == ()
        with store.read() as conn:
            found = {name: bills.bill(conn, bill_number(name, year, month)) for name in town.accounts}
    finally:
        store.close()
    return {name: bill for name, bill in found.items() if bill is not None}


@pytest.mark.parametrize(
    "now",
    [
        datetime(2026, 3, 9, 9, tzinfo=ZONE),  # February: 28 days
        datetime(2026, 8, 31, 23, tzinfo=ZONE),  # July: sharp at noon
        datetime(2027, 1, 1, 0, 5, tzinfo=ZONE),  # December: sharp in the evening; the meters are just settling
    ],
)
def test_every_line_of_every_bill_is_the_towns_truth(tmp_path: Path, now: datetime) -> None:
    settled = not month_begins(now)
    assert settled == (now.year == 2026)
    _bills_are_true(tmp_path, now, settled=settled)


@pytest.mark.slow
@pytest.mark.parametrize("month", range(1, 13))
def test_and_so_in_every_month_of_the_year(tmp_path: Path, month: int) -> None:
    _bills_are_true(tmp_path, datetime(2028, month, 1, 0, 30, tzinfo=ZONE), settled=True)


def _bills_are_true(tmp_path: Path, now: datetime, *, settled: bool) -> None:
    town = part_of_demo(tmp_path, now, settled=settled)
    town.write_truth(tmp_path / "truth")
    found = billed(tmp_path, town, settled=settled)
    true_bills = json.loads((tmp_path / "truth" / "bills.json").read_text("utf-8"))["bills"]
    assert len(true_bills) == len(found) == 10
    for row in true_bills:
        bill = found[row["account"]]
        true_lines = [(line["code"], Decimal(line["quantity"]), Decimal(line["amount"])) for line in row["lines"]]
        assert [(line.code, line.quantity, line.amount) for line in bill.lines] == true_lines, row["account"]
        assert bill.total == Decimal(row["total"])
    parents = [part for one in found["A-M5101"].determinants for part in one.parents]
    assert {part.meter for part in parents if isinstance(part, RegisterPart)} == {"M5101", "M5102"}
    assert len(found["A-M5104"].segments) == 2
    assert found["A-M5103"].window.end == found["A-M5103-2"].window.start
    of = {name: {one.name: one for one in bill.determinants} for name, bill in found.items()}
    assert isinstance(of["A-M5202"]["import_max_kw"].parents[0], RegisterPart if settled else IntervalPart)
    assert of["A-M5203"]["loss_kwh"].value > 400  # the iron alone: 0.57 kW in 28 days are 383 kWh
    assert Derived("loss_kwh", of["A-M5203"]["loss_kwh"].value) in of["A-M5203"]["import_kwh_flat"].parents
    taken = Derived("submeter UP-M2017", -of["A-M2017"]["import_kwh"].value)
    assert taken in of["A-M2018"]["import_kwh"].parents


@pytest.mark.parametrize(
    ("at", "begins"),
    [
        ("2026-11-30T23:47", False),
        ("2026-11-30T23:49", True),
        ("2026-12-01T00:11", True),
        ("2026-12-01T00:12", False),
        ("2026-11-15T00:05", False),
    ],
)
def test_around_midnight_of_the_first_no_settlement_is_counted_on(at: str, begins: bool) -> None:
    assert month_begins(datetime.fromisoformat(f"{at}+08:00")) is begins
