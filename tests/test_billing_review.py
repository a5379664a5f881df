"""What is odd about a bill: each finding fires where it should, and stays silent where it should."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing import ledger
from billing import store as bills
from billing.calendar import billing_month
from billing.charges import EnergyCharge, ExportCredit, Step, StepCharge, StepTable, Tariff
from billing.model import Bill, BillLine, Determinant, Hold, Period
from billing.review import Reviewed, Rules, findings, weight
from billing.run import close_period
from billing.segments import Case, Terms
from headend.model import Quality, Reading, ReadKind, Source
from headend.store import Store, open_store, registry
from tests.billing_support import NOW, SHANGHAI, add_meter, connect, feed, freeze, month, shipped

FLAT = replace(shipped("example-flat"), charges=(EnergyCharge(Decimal("0.5")),))
YEARLY = replace(
    FLAT,
    charges=(
        StepCharge(
            "year",
            (
                StepTable(
                    tuple(range(1, 13)),
                    tuple(Step(None if limit is None else Decimal(limit), Decimal(1)) for limit in (2000, 4000, None)),
                ),
            ),
        ),
    ),
)
RULES, NO_TERMS = Rules(), Terms()
VALID = ((Quality.VALID, 2),)
ESTIMATED = ((Quality.VALID, 1), (Quality.ESTIMATED, 1))
Counts = tuple[tuple[Quality, int], ...]


def issue(
    store: Store, year: int, number: int, kwh: str, *, counts: Counts = VALID, codes: Sequence[str] = ("energy",)
) -> str:
    """An issued bill of account A1."""
    name = f"A1-{year}-{number:02d}"
    lines = tuple(BillLine(code, code, Decimal(kwh), "kWh", Decimal(1), Decimal(kwh), "import_kwh") for code in codes)
    total = Determinant("import_kwh", Decimal(kwh), "kWh", counts=counts)
    window = billing_month(year, number, SHANGHAI)
    place = (name, "A1", "U-A1", window, "issued", FLAT.id, "1", FLAT.sha, SHANGHAI, "CNY")
    with store.write() as conn:
        bills.put_tariff(conn, FLAT, {}, NOW)
        assert bills.put(conn, Bill(*place, lines=lines, determinants=(total,)), NOW) == "issued"
        ledger.post_bills(conn, [name], NOW)
    return name


def found(
    store: Store,
    kwh: str,
    *,
    year: int = 2026,
    number: int = 8,
    tariff: Tariff = FLAT,
    rules: Rules = RULES,
    counts: Counts = VALID,
    more: Sequence[Determinant] = (),
    codes: Sequence[str] = ("energy",),
    terms: Terms = NO_TERMS,
) -> dict[str, Hold]:
    """What is found about the bill of account A1 for August 2026 (or another month), by code."""
    window = billing_month(year, number, SHANGHAI)
    account = registry.AccountRow("A1", "U-A1", "C1", tariff.id, window.start - timedelta(days=900))
    total = Determinant("import_kwh", Decimal(kwh), "kWh", counts=counts)
    lines = tuple(BillLine(code, code, Decimal(1), "kWh", Decimal(1), Decimal(1), "import_kwh") for code in codes)
    case = Case(account, Period.of(tariff, window), (terms,))
    bill = Reviewed(case, {one.name: one for one in (total, *more)}, lines)
    with store.read() as conn:
        (holds,) = findings(conn, rules, [bill])
    assert len({hold.code for hold in holds}) == len(holds)
    return {hold.code: hold for hold in holds}


def test_an_account_without_bills_before_has_nothing_odd(sqlite_store: Store) -> None:
    assert found(sqlite_store, "0") == found(sqlite_store, "99999") == {}


@pytest.mark.parametrize(
    ("kwh", "level"),
    [("310", None), ("400", None), ("416", "warn"), ("200", "warn"), ("460", "warn"), ("480", "hold"), ("90", "hold")],
)
def test_a_change_against_last_month_and_last_year(sqlite_store: Store, kwh: str, level: str | None) -> None:
    """Both had 10 kWh a day. Up to 30 % (403 kWh in 31 days) is nothing, above 50 % (465 kWh) holds."""
    issue(sqlite_store, 2026, 7, "310")
    issue(sqlite_store, 2025, 8, "310")
    holds = found(sqlite_store, kwh)
    assert holds.keys() == ({"use_change"} if level else set())
    assert not level or holds["use_change"].review is (level == "hold")


def test_the_lesser_change_counts_and_one_alone_only_warns(sqlite_store: Store) -> None:
    issue(sqlite_store, 2026, 7, "310")
    hold = found(sqlite_store, "930")["use_change"]
    assert not hold.review
    assert hold.what == "930 kWh: +200 % a day against last month (310 kWh)"
    assert hold.count == 200
    issue(sqlite_store, 2025, 8, "900")  # last August was as hot
    assert found(sqlite_store, "930") == {}


def test_a_short_month_is_compared_by_the_day(sqlite_store: Store) -> None:
    issue(sqlite_store, 2026, 1, "310")
    assert found(sqlite_store, "280", number=2) == {}  # 28 days at 10 kWh
    assert "use_change" in found(sqlite_store, "370", number=2)  # 13.2 kWh a day


def test_little_use_is_left_alone(sqlite_store: Store) -> None:
    issue(sqlite_store, 2026, 7, "20")
    issue(sqlite_store, 2025, 8, "20")
    assert found(sqlite_store, "99") == {}
    assert found(sqlite_store, "101")["use_change"].review
    assert found(sqlite_store, "101", rules=Rules(least_kwh=Decimal(500))) == {}
    assert found(sqlite_store, "101", rules=Rules(enabled=False)) == {}


def test_a_reversed_bill_is_compared_with_nothing(sqlite_store: Store) -> None:
    name = issue(sqlite_store, 2026, 7, "310")
    issue(sqlite_store, 2025, 8, "310")
    assert found(sqlite_store, "900")["use_change"].review
    with sqlite_store.write() as conn:
        ledger.reverse(conn, name, "wrong meter", NOW)
    assert not found(sqlite_store, "900")["use_change"].review  # last year's alone


def test_no_energy_after_use(sqlite_store: Store) -> None:
    issue(sqlite_store, 2026, 7, "100")
    assert found(sqlite_store, "0")["zero_use"].review is False
    assert found(sqlite_store, "0", rules=Rules(zero_use="hold"))["zero_use"].review
    assert found(sqlite_store, "0", rules=Rules(zero_use="off")) == {}
    assert found(sqlite_store, "0", number=10) == {}  # the month before is not known


def test_demand_above_the_contract(sqlite_store: Store) -> None:
    terms = Terms(contract_kw=Decimal(100))

    def level(demand: str) -> bool | None:
        one = Determinant("import_max_kw", Decimal(demand), "kW")
        hold = found(sqlite_store, "100", more=[one], terms=terms).get("over_capacity")
        return hold.review if hold else None

    assert [level("120"), level("120.01"), level("200"), level("200.01")] == [None, False, False, True]
    # Without a demand the mean power tells: 744 hours at 201 kW.
    assert found(sqlite_store, str(744 * 201), terms=terms)["over_capacity"].review
    assert found(sqlite_store, str(744 * 201), terms=Terms(capacity_kva=Decimal(400))) == {}


def test_steps_that_are_jumped_over(sqlite_store: Store) -> None:
    issue(sqlite_store, 2025, 12, "100", codes=["energy_step3"])  # of the year before
    issue(sqlite_store, 2026, 7, "100", codes=["energy_step1"])
    assert found(sqlite_store, "110", tariff=YEARLY, codes=["energy_step1", "energy_step2"]) == {}
    hold = found(sqlite_store, "110", tariff=YEARLY, codes=["energy_step2", "energy_step3"])["step_jump"]
    assert hold.review
    assert hold.what == "reaches step 3, and no earlier bill of the year passed step 1"
    assert found(sqlite_store, "110", tariff=YEARLY, codes=["energy_step3"], rules=Rules(step_jump=0)) == {}
    assert found(sqlite_store, "110", codes=["energy_step3"]) == {}  # a tariff without steps
    issue(sqlite_store, 2026, 6, "100", codes=["step2_adder"])
    assert found(sqlite_store, "110", tariff=YEARLY, codes=["step3_adder"]) == {}


def test_a_yearly_step_reached_far_earlier_than_last_year(sqlite_store: Store) -> None:
    for number in range(1, 13):
        issue(sqlite_store, 2025, number, "90", codes=["energy_step2" if number >= 11 else "energy_step1"])
    codes = ["energy_step1", "energy_step2"]
    hold = found(sqlite_store, "95", number=8, tariff=YEARLY, codes=codes)["step_early"]
    assert hold.what == "reaches step 2 in month 8 of the step year, 3 months earlier than last year"
    assert not hold.review
    assert found(sqlite_store, "95", number=9, tariff=YEARLY, codes=codes) == {}
    issue(sqlite_store, 2026, 7, "90", codes=["energy_step2"])
    assert found(sqlite_store, "95", number=8, tariff=YEARLY, codes=["energy_step2"]) == {}  # told in July


@pytest.mark.parametrize(("estimated", "level"), [(50, None), (51, False), (500, False), (501, True)])
def test_the_share_of_estimates(sqlite_store: Store, estimated: int, level: bool | None) -> None:
    counts = ((Quality.VALID, 1000 - estimated), (Quality.ESTIMATED, estimated))
    peak = Determinant("import_kwh_peak", Decimal(1), "kWh", counts=counts)
    hold = found(sqlite_store, "100", more=[peak]).get("estimated_share")
    assert (hold.review if hold else None) is level


def test_estimated_bills_in_a_row(sqlite_store: Store) -> None:
    rules = Rules(estimated_warn_percent=100, estimated_hold_percent=100)
    issue(sqlite_store, 2026, 6, "90", counts=ESTIMATED)
    issue(sqlite_store, 2026, 7, "90", counts=ESTIMATED)
    hold = found(sqlite_store, "95", counts=ESTIMATED, rules=rules)["estimated_row"]
    assert (hold.review, hold.count) == (True, 3)
    assert found(sqlite_store, "95", rules=rules) == {}
    assert found(sqlite_store, "95", counts=ESTIMATED, rules=replace(rules, estimated_bills=3)) == {}
    assert found(sqlite_store, "95", number=9, counts=ESTIMATED, rules=rules) == {}  # August is between


def test_an_estimate_far_above_what_was_measured(sqlite_store: Store) -> None:
    quiet = Rules(estimated_warn_percent=100, estimated_hold_percent=100, change_warn_percent=10_000)
    quiet = replace(quiet, change_hold_percent=10_000)
    issue(sqlite_store, 2026, 5, "100")
    issue(sqlite_store, 2026, 7, "140")
    assert found(sqlite_store, "240", counts=ESTIMATED, rules=quiet) == {}  # twice the average of 120
    assert found(sqlite_store, "241", counts=ESTIMATED, rules=quiet)["estimated_cap"].review
    assert found(sqlite_store, "241", rules=quiet) == {}  # it was measured
    issue(sqlite_store, 2025, 8, "130")
    assert found(sqlite_store, "260", counts=ESTIMATED, rules=quiet) == {}
    assert "the same month last year" in found(sqlite_store, "261", counts=ESTIMATED, rules=quiet)["estimated_cap"].what


def test_energy_that_flows_back(store: Store) -> None:
    """A generator nobody told of: the export register rises by 12.5 kWh behind a multiplier of 4."""
    meter = add_meter(store)
    connect(store, meter, FLAT, multiplier="4")
    ends = [(month(7).start, "0", "3.00"), (month(7).end, "50", "15.50"), (month(8).end, "90", "15.60")]
    feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(at, value) for at, value, _ in ends])
    export = [
        Reading("export_kwh", Decimal(value), at, at + timedelta(minutes=5), Source.DAILY_FREEZE)
        for at, _, value in ends
    ]
    feed(store, meter, ReadKind.DAILY_FREEZE, export)
    assert close_period(store, [FLAT], 2026, 7, now=NOW).issued == ("A1-2026-07",)
    with store.read() as conn:
        bill = bills.bill(conn, "A1-2026-07")
    assert bill is not None
    (hold,) = bill.holds
    assert (hold.code, hold.review) == ("reverse_energy", False)
    assert hold.what == "50 kWh were exported (meter M1), and the tariff has no charge for export"
    rules = Rules(reverse_energy="hold")
    assert close_period(store, [FLAT], 2026, 8, now=NOW, rules=rules).issued  # 0.4 kWh are none yet
    credited = replace(FLAT, charges=(*FLAT.charges, ExportCredit(Decimal("0.3"))))
    assert found(store, "50", number=7, tariff=credited) == {}


def test_the_gravest_comes_first() -> None:
    warn, hold = Hold("use_change", "", count=90), Hold("zero_use", "", review=True)
    jump, other = Hold("step_jump", "", review=True), Hold("never_heard_of", "", review=True)
    more = Hold("use_change", "", count=400)
    assert sorted([other, warn, hold, more, jump], key=weight) == [jump, hold, other, more, warn]


@settings(max_examples=10, deadline=None)
@given(st.decimals("0", "100000", places=2), st.integers(1, 12))
def test_the_same_use_every_month_is_never_odd(
    tmp_path_factory: pytest.TempPathFactory, daily: Decimal, number: int
) -> None:
    """Whatever the use and the length of the months: nothing changes, so nothing is found."""
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('odd') / 'headend.db'}")

    def energy(year: int, of: int) -> str:
        window = billing_month(year, of, SHANGHAI)
        return f"{(daily * (window.end - window.start).days).quantize(Decimal('0.01'))}"

    before = (2025, 12) if number == 1 else (2026, number - 1)
    issue(store, *before, energy(*before))
    if before != (2025, number):
        issue(store, 2025, number, energy(2025, number))
    assert found(store, energy(2026, number), number=number) == {}
    store.close()
