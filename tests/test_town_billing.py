"""Bills of what happens within a month, from a store given what meters of the demo town show: equal to its truth.

No line and no protocol here, so any month can be closed; `headend demo` does the whole way for the last one.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest

from billing import store as bills
from billing.model import Bill, RegisterPart
from billing.run import bill_number, close_period
from config.imports import import_files
from headend import ingest
from headend.cli.common import check_address, tariffs_of
from headend.cli.demo_site import write_site, write_tariffs
from headend.model import Meter, MeterModel, Outcome, Reading, ReadJob, ReadKind, Source, Status, Window
from headend.store import Store, open_store, registry
from simulators.clock import SettableClock
from simulators.town import Town, load_town

DEMO = Path(__file__).parent.parent / "simulators" / "towns" / "demo.toml"
ZONE = timezone(timedelta(hours=8))
LINE = "server-5"


def part_of_demo(folder: Path, now: datetime) -> Town:
    """The demo town with its one line of industry and of things that happen."""
    blocks = re.split(r"^(?=\[\[(?:line|group|meter)\]\]|# -- tariffs)", DEMO.read_text("utf-8"), flags=re.MULTILINE)
    others = [b for b in blocks if b.startswith("[[") and f'"{LINE}"' not in b]
    path = folder / "town.toml"
    path.write_text("".join(block for block in blocks if block not in others), "utf-8")
    return load_town(path, now=SettableClock(now.timestamp()))


def instant(at_s: int) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)


def outcome(meter: Meter, kind: ReadKind, readings: list[Reading]) -> Outcome:
    window = Window(readings[0].at, readings[-1].at + timedelta(seconds=1))
    return Outcome(
        ReadJob(meter, kind, (readings[0].quantity,), window), Status.OK, readings[-1].taken_at, 0.5, tuple(readings)
    )


def read_all(store: Store, town: Town, start_s: int, end_s: int) -> None:
    """What the meters of the line show over the month, as their curves and their daily freezes give it."""
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
        ingest.write(conn, outcomes, ingest.EvidencePolicy())


def installed_s(town: Town, meter_id: str) -> int:
    return next(stand.since_s for stand in town.stands if stand.meter.meter_id == meter_id)


def billed(folder: Path, town: Town) -> dict[str, Bill]:
    """The closed month's bills."""
    year, month = town.closed_month()
    start_s, end_s = town.month_span(year, month)
    write_tariffs(folder / "tariffs", instant(start_s).astimezone(ZONE).date().replace(day=16))
    site = write_site(folder, [{"line": LINE, "kind": "tcp", "endpoint": "tcp://127.0.0.1:1"}], 1, 1)
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
            tariffs={tariff.id for tariff in tariffs},
            check_address=check_address,
        )
        read_all(store, town, start_s, end_s)
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
        datetime(2027, 1, 1, 1, tzinfo=ZONE),  # December: sharp in the evening
    ],
)
def test_every_line_of_every_bill_is_the_towns_truth(tmp_path: Path, now: datetime) -> None:
    town = part_of_demo(tmp_path, now)
    town.write_truth(tmp_path / "truth")
    found = billed(tmp_path, town)
    true_bills = json.loads((tmp_path / "truth" / "bills.json").read_text("utf-8"))["bills"]
    assert len(true_bills) == len(found) == 8
    for row in true_bills:
        bill = found[row["account"]]
        true_lines = [(line["code"], Decimal(line["quantity"]), Decimal(line["amount"])) for line in row["lines"]]
        assert [(line.code, line.quantity, line.amount) for line in bill.lines] == true_lines, row["account"]
        assert bill.total == Decimal(row["total"])
    parents = [part for one in found["A-M5101"].determinants for part in one.parents]
    assert {part.meter for part in parents if isinstance(part, RegisterPart)} == {"M5101", "M5102"}
    assert len(found["A-M5104"].segments) == 2
    assert found["A-M5103"].window.end == found["A-M5103-2"].window.start
