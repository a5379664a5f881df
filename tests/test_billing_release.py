"""Runs: what is odd waits for a person, what is missing for data; bills follow each other; work is shared out."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import event, func, select

from billing import adjustments, ledger, run, schema
from billing import store as bills
from billing.charges import EnergyCharge
from billing.model import Bill, Hold
from billing.release import code_of, covers, release, released_else, seen
from billing.run import CloseReport, close_period, pool
from billing.run_log import runs
from headend.errors import UsageError
from headend.model import Meter, MeterModel, Quality, ReadKind
from headend.store import Store, registry
from tests.billing_support import NOW, WRAP, add_meter, connect, feed, freeze, month, shipped

FLAT = replace(shipped("example-flat"), charges=(EnergyCharge(Decimal("0.5")),))
LATER = NOW + timedelta(days=1)


def registers(store: Store, account: str, values: dict[tuple[int, int], str]) -> None:
    """A meter for an account, and its register at the start of civil months."""
    meter = add_meter(store, f"M-{account}")
    connect(store, meter, FLAT, account=account)
    rows = [freeze(month(number, year).start, value) for (year, number), value in values.items()]
    feed(store, meter, ReadKind.DAILY_FREEZE, rows)


def shown(store: Store, number: str) -> Bill:
    with store.read() as conn:
        found = bills.bill(conn, number)
    assert found is not None
    return found


ODD = {
    (2025, 6): "0",
    (2025, 7): "300",
    (2026, 5): "1000",
    (2026, 6): "1300",
    (2026, 7): "2500",
    (2026, 8): "2800",
    (2026, 9): "3100",
}


@pytest.fixture
def odd(store: Store) -> Store:
    """Account A1 used 300 kWh in June last year and in May, and 1200 kWh in June."""
    registers(store, "A1", ODD)
    assert close_period(store, [FLAT], 2025, 6, now=NOW).issued
    assert close_period(store, [FLAT], 2026, 5, now=NOW).issued
    return store


def test_an_odd_bill_is_held_until_a_person_releases_it(odd: Store) -> None:
    report = close_period(odd, [FLAT], 2026, 6, now=NOW)
    ((number, (hold,)),) = report.held
    assert (number, hold.code, hold.review) == ("A1-2026-06", "use_change", True)
    assert close_period(odd, [FLAT], 2026, 6, now=NOW).held == report.held  # asking again changes nothing
    with odd.write() as conn:
        made, others = release(conn, number, "a new heat pump, seen", "Li", NOW)
    assert ([code_of(line) for line in made.codes], others) == (["use_change"], ())
    assert shown(odd, number).state == "held"  # the next close issues it
    assert close_period(odd, [FLAT], 2026, 6, now=LATER).issued == (number,)
    bill = shown(odd, number)
    assert (bill.total, [kept.code for kept in bill.holds]) == (Decimal("600.00"), ["use_change"])
    with odd.read() as conn:
        (kept,) = bills.releases(conn, number)
        assert (kept.by, kept.reason, kept.at) == ("Li", "a new heat pump, seen", NOW)
        assert len(bills.hold_history(conn, number)) == 1
        assert bills.bills(conn, month(6), odd=True) == [bill]
        assert bills.bills(conn, month(5), odd=True) == []


def test_a_release_is_for_what_was_found_and_no_more(odd: Store) -> None:
    close_period(odd, [FLAT], 2026, 6, now=NOW)
    with odd.write() as conn:
        for wrong, message in (("", "a release needs a reason"), (" ", "a release needs a reason")):
            with pytest.raises(UsageError, match=message):
                release(conn, "A1-2026-06", wrong, "Li", NOW)
        with pytest.raises(UsageError, match="unknown bill 'A1-2026-12'"):
            release(conn, "A1-2026-12", "x", "Li", NOW)
        with pytest.raises(UsageError, match="bill A1-2026-05 is issued, there is nothing to release"):
            release(conn, "A1-2026-05", "x", "Li", NOW)
        key = conn.scalar(select(schema.bill.c.key).where(schema.bill.c.number == "A1-2026-06"))
        row = {"number": "A1-2026-06", "codes": "zero_use", "reason": "x", "released_by": "Li", "at": 0}
        conn.execute(schema.bill_release.insert(), [row])
    assert key is not None
    assert close_period(odd, [FLAT], 2026, 6, now=LATER).held  # released for something else


def test_a_release_covers_the_finding_as_it_was_seen(odd: Store) -> None:
    """Released at 1200 kWh; a read that comes later makes it 1500: that nobody has seen, and the bill is held again."""
    ((number, (hold,)),) = close_period(odd, [FLAT], 2026, 6, now=NOW).held
    with odd.write() as conn:
        release(conn, number, "a new heat pump", "Li", NOW)
        (released,) = bills.releases(conn, number)
    assert released.codes == (f"use_change\t{hold.what}",)
    assert hold.what.startswith("1200 kWh: ")
    with odd.read() as conn:
        found = registry.meter(conn, "M-A1")
    assert found is not None
    meter = Meter(found.key, "M-A1", found.address, "dlt645", "L1", MeterModel("test", "dlt645", WRAP, Decimal(10)))
    late = freeze(month(7).start, "2800", quality=Quality.EDITED, taken_at=NOW)
    feed(odd, meter, ReadKind.DAILY_FREEZE, [late])
    ((_, (other,)),) = close_period(odd, [FLAT], 2026, 6, now=LATER).held
    assert (other.code, other.what.startswith("1500 kWh: ")) == ("use_change", True)
    assert covers(released.codes, hold)
    assert not covers(released.codes, other)
    assert released_else(released.codes, other) == (hold.what,)
    with odd.write() as conn:
        release(conn, number, "two of them", "Li", LATER)
    assert close_period(odd, [FLAT], 2026, 6, now=LATER).issued == (number,)


def test_a_release_kept_as_a_code_alone_covers_all_of_it(odd: Store) -> None:
    """As releases were kept before they named what was seen."""
    close_period(odd, [FLAT], 2026, 6, now=NOW)
    with odd.write() as conn:
        row = {"number": "A1-2026-06", "codes": "zero_use\nuse_change", "reason": "x", "released_by": "Li", "at": 0}
        conn.execute(schema.bill_release.insert(), [row])
    assert close_period(odd, [FLAT], 2026, 6, now=LATER).issued == ("A1-2026-06",)


def test_what_a_release_keeps_stays_on_one_line() -> None:
    hold = Hold("tou_check", "one\u2028two\tthree\r\nfour", review=True)
    assert seen(hold) == "tou_check\tone two three four"
    assert covers(seen(hold).splitlines(), hold)
    assert released_else(["use_change\tx", "tou_check\ty"], hold) == ("y",)
    assert released_else(["tou_check\ty", "tou_check"], hold) == ()


@pytest.mark.parametrize(
    ("reason", "by", "message"),
    [
        ("a" * 501, "Li", "the reason for a release has 501 characters -> write at most 500"),
        ("a\nb", "Li", "the reason for a release is no plain text -> write it in one line"),
        ("\x1b[31mred", "Li", "the reason for a release is no plain text"),
        ("\udcff", "Li", "the reason for a release is no plain text"),
        ("fine", " ", "a decision needs the name of who makes it -> say it with --by"),
        ("fine", "L\x07i", "the name of who decides is no plain text"),
    ],
)
def test_words_for_the_record_are_plain_and_short(sqlite_store: Store, reason: str, by: str, message: str) -> None:
    with pytest.raises(UsageError) as refused, sqlite_store.write() as conn:
        release(conn, "A1-2026-06", reason, by, NOW)
    assert message in str(refused.value)


def test_missing_data_can_not_be_released(store: Store) -> None:
    registers(store, "A1", {(2026, 6): "0"})
    assert close_period(store, [FLAT], 2026, 6, now=NOW).held
    with pytest.raises(UsageError) as refused, store.write() as conn:
        release(conn, "A1-2026-06", "never mind", "Li", NOW)
    assert str(refused.value) == (
        "bill A1-2026-06 can't be released, something is missing: no import_kwh register at 2026-07-01T00:00+08:00 -> "
        "read the meter's freeze or curve for that time, then close again"
    )


def test_a_month_whose_bill_was_reversed_is_billed_anew_and_once(odd: Store) -> None:
    with odd.write() as conn:
        ledger.reverse(conn, "A1-2026-05", "wrong tariff", NOW)
    dearer = replace(FLAT, charges=(EnergyCharge(Decimal("0.6")),))
    for number, again in (("A1-2026-05.1", "A1-2026-05.2"), ("A1-2026-05.2", "A1-2026-05.3")):
        assert close_period(odd, [dearer], 2026, 5, now=LATER).issued == (number,)
        assert close_period(odd, [dearer], 2026, 5, now=LATER).already == (number,)
        with odd.write() as conn:
            ledger.reverse(conn, number, f"then {again}", LATER)
    first, second, third = (shown(odd, f"A1-2026-05{tail}") for tail in ("", ".1", ".2"))
    assert (first.sequence, first.replaces, first.total) == (0, "", Decimal("150.00"))
    assert (second.sequence, second.replaces, second.total) == (1, "A1-2026-05", Decimal("180.00"))
    assert (third.sequence, third.replaces) == (2, "A1-2026-05.1")
    assert [first.reversed_by, second.reversed_by, third.reversed_by] == ["R000001", "R000002", "R000003"]
    with odd.read() as conn:
        assert bills.issued_energy(conn, "A1", "import_kwh", month(5)) == []
        assert ledger.statement(conn, "A1").balances == (("CNY", Decimal("150.00")),)  # June of last year
        assert bills.invoices(conn, ["A1-2026-05.1", "A1-2026-12"]) == {"A1-2026-05.1": "B000003"}


def test_later_bills_rest_on_the_bill_that_stands(odd: Store) -> None:
    """Of May only the second bill counts, of a year of which both are there."""
    with odd.write() as conn:
        ledger.reverse(conn, "A1-2026-05", "wrong", NOW)
    close_period(odd, [FLAT], 2026, 5, now=NOW)
    with odd.read() as conn:
        found = bills.issued_values(conn, ["A1", "A2"], ["import_kwh"], month(5))
    assert [(one.number, one.value) for one in found["A1"]] == [("A1-2026-05.1", Decimal(300))]
    assert "A2" not in found


def test_an_adjustment_goes_on_the_next_bill_and_is_free_again_when_that_is_reversed(odd: Store) -> None:
    with odd.write() as conn:
        made = adjustments.make(conn, "A1-2026-05", amount=Decimal("-20.50"), reason="fee", made_by="Li", now=NOW)
    close_period(odd, [FLAT], 2026, 7, now=NOW)
    bill = shown(odd, "A1-2026-07")
    assert [(line.code, str(line.amount)) for line in bill.lines] == [("energy", "150.00"), ("adjustment", "-20.50")]
    assert bill.total == Decimal("129.50")
    with odd.write() as conn:
        assert adjustments.pending(conn, ["A1"]) == {}
        ledger.reverse(conn, "A1-2026-07", "wrong", NOW)
        (free,) = adjustments.pending(conn, ["A1"])["A1"]
        assert free.number == made.adjustment.number
    close_period(odd, [FLAT], 2026, 7, now=NOW)
    assert shown(odd, "A1-2026-07.1").total == Decimal("129.50")


def test_an_adjustment_is_taken_on_once_though_two_months_are_closed_at_once(
    odd: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While July is made ready, another close issues August with the adjustment: July is made again, without."""
    with odd.write() as conn:
        adjustments.make(conn, "A1-2026-05", amount=Decimal(5), reason="fee", made_by="Li", now=NOW)
    prepare, other = run.prepare, iter([True])

    def late(*words: object, **more: object) -> object:
        made = prepare(*words, **more)  # type: ignore[arg-type]
        if next(other, False):
            assert close_period(odd, [FLAT], 2026, 8, now=NOW).issued == ("A1-2026-08",)
        return made

    monkeypatch.setattr(run, "prepare", late)
    assert close_period(odd, [FLAT], 2026, 7, now=NOW).issued == ("A1-2026-07",)
    assert [line.code for line in shown(odd, "A1-2026-08").lines] == ["energy", "adjustment"]
    assert [line.code for line in shown(odd, "A1-2026-07").lines] == ["energy"]


@contextmanager
def threads(count: int) -> Iterator[Executor]:
    with ThreadPoolExecutor(count) as executor:
        yield executor


@pytest.mark.parametrize("kind", ["here", "threads", "processes"])
def test_the_work_can_be_shared_out(store: Store, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(run, "_BATCH", 3)
    monkeypatch.setattr(run, "_LEAST_CHUNK", 4)
    for index in range(10):
        registers(store, f"A{index}", {(2026, 6): "0", (2026, 7): str(100 + index)} if index != 7 else {(2026, 6): "0"})
    steps: list[tuple[int, int]] = []
    kinds: dict[str, AbstractContextManager[Executor | None]] = {
        "here": nullcontext(None),
        "threads": threads(2),
        "processes": pool(2),
    }
    with kinds[kind] as executor:
        report = close_period(
            store,
            [FLAT],
            2026,
            6,
            now=NOW,
            executor=executor,
            progress=lambda done, total: steps.append((done, total)),
        )
    assert report.issued == tuple(f"A{index}-2026-06" for index in range(10) if index != 7)
    assert [number for number, _ in report.held] == ["A7-2026-06"]
    assert steps == [(done, 10) for done in ((3, 6, 9, 10) if kind == "here" else (4, 8, 10))]
    assert shown(store, "A9-2026-06").total == Decimal("54.50")
    with store.read() as conn:
        entries = schema.ledger_entry
        assert conn.scalars(select(entries.c.number).order_by(entries.c.number)).all() == [
            f"B{number:06d}" for number in range(1, 10)
        ]
        (row,) = runs(conn)
    assert (row.issued, row.held, row.already, row.detail) == (9, 1, 0, "")


def test_a_run_that_is_stopped_loses_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_BATCH", 2)
    for index in range(6):
        registers(store, f"A{index}", {(2026, 6): "0", (2026, 7): "100"})

    def stop(done: int, _total: int) -> None:
        if done == 4:
            raise UsageError("the power is out")

    with pytest.raises(UsageError, match="the power is out"):
        close_period(store, [FLAT], 2026, 6, now=NOW, progress=stop)
    with store.read() as conn:
        (row,) = runs(conn)
        assert conn.scalar(select(func.count()).select_from(schema.bill)) == 4
    assert (row.issued, row.ended_at, row.detail) == (4, NOW, "stopped: the power is out")
    report = close_period(store, [FLAT], 2026, 6, now=NOW)
    assert (len(report.already), report.issued) == (4, ("A4-2026-06", "A5-2026-06"))
    assert close_period(store, [FLAT], 2026, 6, now=NOW) == CloseReport(
        already=tuple(sorted(report.already + report.issued))
    )


def test_a_batch_costs_no_statement_an_account(sqlite_store: Store) -> None:
    """Closing sixty accounts takes hardly more statements than closing six."""
    counted: list[int] = []
    for size, prefix in ((6, "A"), (60, "B")):
        for index in range(size):
            registers(sqlite_store, f"{prefix}{index}", {(2026, 6): "0", (2026, 7): "100"})
        names = [f"{prefix}{index}" for index in range(size)]
        statements: list[str] = []

        def count(_c: object, _cursor: object, statement: str, *_rest: object, said: list[str] = statements) -> None:
            said.append(statement)

        event.listen(sqlite_store.engine, "before_cursor_execute", count)
        assert len(close_period(sqlite_store, [FLAT], 2026, 6, names, now=NOW).issued) == size
        event.remove(sqlite_store.engine, "before_cursor_execute", count)
        counted.append(len(statements))
    assert counted[1] <= counted[0] + 5
