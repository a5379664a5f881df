"""Bills that were issued and are not right: adjusted, reversed and made anew, computed again; on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from billing import adjustments, corrections, ledger
from billing.adjustments import line_of
from billing.charges import Tariff
from billing.corrections import Correction
from billing.model import Bill, BillLine, Determinant
from billing.prepare import Book, prepare
from billing.run import close_period
from headend.errors import StoreError, UsageError
from headend.model import Quality, ReadKind
from headend.store import Store, open_store, registry
from tests.billing_support import NOW, feed, freeze, month, shipped, written
from tests.corrections_kit import (
    FLAT,
    LATER,
    RULES,
    D,
    adjust,
    again,
    bill,
    close,
    correct,
    customer,
    edit,
    issued_bills,
    owed,
    written_rows,
)

# -- adjustments -------------------------------------------------------------------------------------------------------


def test_an_adjustment_is_numbered_kept_and_made_once(store: Store) -> None:
    customer(store, "0", "100", "200")
    close(store, FLAT, 6)
    with store.write() as conn:
        first = adjustments.make(
            conn, "A1-2026-06", kwh=D(500), price=D("0.538"), reason="meter slow", made_by="Li", now=NOW,
            basis={"cause": "error"},
        )  # fmt: skip
        again = adjustments.make(
            conn, "A1-2026-06", kwh=D("500.0"), price=D("0.538"), reason="meter slow", made_by="Wang", now=LATER
        )
        credit = adjust(conn, "A1-2026-06", "goodwill", amount=D("-12.30"))
    assert (first.new, again.new, again.adjustment) == (True, False, first.adjustment)
    item = first.adjustment
    assert (item.number, item.account, item.amount, item.currency) == ("ADJ000001", "A1", D("269.00"), "CNY")  # X01
    assert (item.made_by, item.made_at, item.basis, item.taken_by) == ("Li", NOW, {"cause": "error"}, "")
    assert item.text == "adjustment for bill A1-2026-06: meter slow"
    assert (credit.number, credit.amount, credit.unit) == ("ADJ000002", D("-12.30"), "")
    with store.read() as conn:
        assert adjustments.pending(conn, ["A1", "A2"]) == {"A1": (item, credit)}
        assert adjustments.adjustments(conn, "A1") == adjustments.adjustments(conn) == [item, credit]
        assert adjustments.open_sum(conn, "A1-2026-06") == D("256.70")
    line = line_of(item)
    assert (line.code, line.determinant, line.amount) == ("adjustment", "adjustment:ADJ000001", D("269.00"))


@pytest.mark.parametrize(
    ("number", "words", "message"),
    [
        ("A1-2026-07", {"amount": D(1)}, "unknown bill 'A1-2026-07'"),
        ("A2-2026-06", {"amount": D(1)}, "bill A2-2026-06 is held: it was not issued"),
        ("A1-2026-06", {"amount": D(0)}, "0 can't be an amount of CNY of an adjustment"),
        ("A1-2026-06", {"amount": D("0.005")}, "with at most 2 decimals"),
        ("A1-2026-06", {"amount": D("NaN")}, "NaN can't be an amount of CNY"),
        ("A1-2026-06", {"kwh": D(5)}, "an adjustment is an amount, or energy and its price"),
        ("A1-2026-06", {"kwh": D(5), "price": D(1), "amount": D(1)}, "an adjustment is an amount, or energy"),
        ("A1-2026-06", {"kwh": D("0.00001"), "price": D(1)}, "with at most 4 decimals"),
        ("A1-2026-06", {"kwh": D(5), "price": D(-1)}, "-1 is no price"),
        ("A1-2026-06", {"kwh": D("0.001"), "price": D("0.5")}, "an adjustment of 0.00 CNY can't be made"),
        ("A1-2026-06", {"amount": D(1), "reason": " "}, "an adjustment needs a reason"),
    ],
)
def test_adjustments_that_make_no_sense(
    sqlite_store: Store, number: str, words: dict[str, object], message: str
) -> None:
    customer(sqlite_store, "0", "100")
    customer(sqlite_store, account="A2")
    close(sqlite_store, FLAT, 6)
    with pytest.raises(UsageError) as error, sqlite_store.write() as conn:
        adjust(conn, number, **({"reason": "why"} | words))  # type: ignore[arg-type]
    assert message in str(error.value)
    with sqlite_store.read() as conn:
        assert adjustments.adjustments(conn) == []


def test_the_database_keeps_adjustments(store: Store) -> None:
    customer(store, "0", "100")
    close(store, FLAT, 6)
    with store.write() as conn:
        adjust(conn, "A1-2026-06")
    for statement in ("UPDATE bill_adjustment SET amount_minor = 1", "DELETE FROM bill_adjustment"):
        with pytest.raises(StoreError, match="never changed or deleted"), store.write() as conn:
            conn.execute(text(statement))


def test_the_next_bill_takes_an_adjustment_on_and_a_reversal_sets_it_free(store: Store) -> None:
    customer(store, "0", "100", "200", "300")
    close(store, FLAT, 6)
    before = bill(store, "A1-2026-06")
    with store.write() as conn:
        item = adjust(conn, "A1-2026-06", kwh=D(-10), price=D("0.5"))
    close(store, FLAT, 7)
    july = bill(store, "A1-2026-07")
    assert july.lines[-1] == line_of(item)
    assert july.total == D("64.25") - 5
    assert bill(store, "A1-2026-06") == before
    with store.write() as conn:
        assert adjustments.pending(conn, ["A1"]) == {}
        assert adjustments.adjustments(conn)[0].taken_by == "A1-2026-07"
        assert ("revenue", "correction", D(5)) in {(t.book, t.part, t.amount) for t in ledger.totals(conn)}
        ledger.reverse(conn, "A1-2026-07", "wrong", LATER)
        assert adjustments.pending(conn, ["A1"]) == {"A1": (item,)}
        with pytest.raises(UsageError, match=r"bill A1-2026-07 was reversed by R000001 -> adjust the bill that took"):
            adjust(conn, "A1-2026-07")
    close(store, FLAT, 8)
    assert bill(store, "A1-2026-08").lines[-1] == line_of(item)
    # It went on the bill of August: July's, billed anew, has it no more.
    assert close(store, FLAT, 7) == ["A1-2026-07.1"]
    assert bill(store, "A1-2026-07.1").total == D("64.25")


def test_the_average_price_is_of_energy_alone() -> None:
    lines = [("energy_step1", "30", "kWh"), ("energy_peak", "10", "kWh"), ("step2_adder", "2", "kWh"),
             ("fund", "7", "kWh"), ("basic_demand", "90", "kW"), ("vat", "6", "%")]  # fmt: skip
    made = tuple(
        BillLine(code, code, D(1), unit, D(amount), D(amount), "" if unit == "%" else "import_kwh")
        for code, amount, unit in lines
    )
    whole = Bill(
        "X", "A1", "U", month(6), "issued", "t", "1", "s", "UTC", "CNY", lines=made,
        determinants=(Determinant("import_kwh", D(90), "kWh"),),
    )  # fmt: skip
    assert adjustments.average_price(whole) == D("0.46666667")
    for empty in (replace(whole, lines=()), replace(whole, determinants=())):
        with pytest.raises(UsageError, match="bill X has no average price of energy -> say the price with --price"):
            adjustments.average_price(empty)


# -- correcting --------------------------------------------------------------------------------------------------------


def test_a_correction_reverses_and_bills_anew(store: Store) -> None:
    meter = customer(store, "0", "100", "200")
    close(store, FLAT, 6)
    before = bill(store, "A1-2026-06")
    edit(store, meter, 7, "90")
    found = correct(store, "A1-2026-06")
    (made,) = found.made
    assert (made.reversal, made.difference, found.later) == ("R000001", D("57.83") - D("64.25"), ())
    assert (made.new.number, made.new.sequence, made.new.replaces) == ("A1-2026-06.1", 1, "A1-2026-06")
    assert bill(store, "A1-2026-06.1") == made.new
    assert bill(store, "A1-2026-06") == replace(before, reversed_by="R000001")
    assert owed(store) == made.new.total == D("57.83")
    # And once more, from the one that stands; the old one is done with.
    edit(store, meter, 7, "80")
    with pytest.raises(UsageError, match="bill A1-2026-06 was reversed by R000001"):
        correct(store, "A1-2026-06")
    again = correct(store, "A1-2026-06.1").made[0].new
    assert (again.number, again.sequence, again.replaces) == ("A1-2026-06.2", 2, "A1-2026-06.1")
    assert owed(store) == again.total


def test_nothing_to_correct_writes_nothing(store: Store) -> None:
    customer(store, "0", "100")
    close(store, FLAT, 6)
    before = written_rows(store)
    assert correct(store, "A1-2026-06") == Correction()
    assert written_rows(store) == before
    assert bill(store, "A1-2026-06").reversed_by == ""


def test_what_would_be_held_is_not_corrected(sqlite_store: Store) -> None:
    store = sqlite_store
    customer(store, "0", "100")
    close(store, FLAT, 6)
    before = written_rows(store)
    with pytest.raises(UsageError, match=r"bill A1-2026-06 can't be made anew: .*no version of tariff"):
        correct(store, "A1-2026-06", shipped("cn-beijing-residential-step"))
    with pytest.raises(UsageError, match="unknown bill 'A1-2026-07'"):
        correct(store, "A1-2026-07")
    assert written_rows(store) == before
    assert owed(store) == D("64.25")


def test_what_an_adjustment_put_right_is_not_corrected_too(sqlite_store: Store) -> None:
    store = sqlite_store
    meter = customer(store, "0", "100")
    close(store, FLAT, 6)
    edit(store, meter, 7, "90")
    with store.write() as conn:
        adjust(conn, "A1-2026-06", amount=D(-6))
    with pytest.raises(UsageError, match=r"adjustments of -6.00 CNY were made for bill A1-2026-06"):
        correct(store, "A1-2026-06")
    with store.write() as conn:
        adjust(conn, "A1-2026-06", "undone", amount=D(6))
    assert correct(store, "A1-2026-06").made[0].new.total == D("57.83")
    with store.read() as conn:  # they wait for the next bill, where they come to nothing
        assert [item.amount for item in adjustments.pending(conn, ["A1"])["A1"]] == [-6, 6]


def test_an_adjustment_goes_with_the_bill_that_took_it_on(sqlite_store: Store) -> None:
    store = sqlite_store
    meter = customer(store, "0", "100", "200")
    close(store, FLAT, 6)
    with store.write() as conn:
        item = adjust(conn, "A1-2026-06", amount=D(7))
    close(store, FLAT, 7)
    edit(store, meter, 8, "190")
    new = correct(store, "A1-2026-07").made[0].new
    assert new.lines[-1] == line_of(item)
    assert new.total == D("57.83") + 7
    with store.read() as conn:
        assert adjustments.adjustments(conn)[0].taken_by == new.number


STEPS = """
[[charges]]
kind = "step"
unit = "kWh"
period = "year"
tables = [{ months = [1,2,3,4,5,6,7,8,9,10,11,12], steps = [{ up_to = "150", price = "0.5" }, { price = "1" }] }]
"""


@pytest.fixture
def steps(tmp_path: Path) -> Tariff:
    return replace(written(tmp_path, "steps", 'zone = "Asia/Shanghai"\n' + STEPS), currency="CNY")


def test_later_bills_that_rest_on_it_are_told_or_corrected_too(sqlite_store: Store, steps: Tariff) -> None:
    """100 kWh a month in yearly steps of 150: 50, then 25 + 50, then 100. June was 60 too much."""
    store = sqlite_store
    meter = customer(store, "100", "200", "300", "400", tariff=steps, used="0")
    close(store, steps, 6, 7, 8)
    assert [bill(store, f"A1-2026-0{n}").total for n in (6, 7, 8)] == [50, 75, 100]
    edit(store, meter, 6, "160")
    with pytest.raises(UsageError, match="needs a reason"), store.write() as conn:
        corrections.correct(conn, "A1-2026-06", " ", [steps], RULES, now=NOW)
    found = correct(store, "A1-2026-06", steps)
    assert found.later == ("A1-2026-07", "A1-2026-08")
    assert [item.new.total for item in found.made] == [20]
    with store.read() as conn:
        assert corrections.resting_on(conn, "A1-2026-06") == ["A1-2026-07", "A1-2026-08"]
    # What rests on the first bill of June is found from the one that took its place.
    edit(store, meter, 6, "170")
    chain = correct(store, "A1-2026-06.1", steps, chain=True)
    assert [(item.new.number, str(item.new.total)) for item in chain.made] == [
        ("A1-2026-06.2", "15.00"),  # 30 kWh
        ("A1-2026-07.1", "50.00"),  # 100 after 30
        ("A1-2026-08.1", "90.00"),  # 20 below the limit, 80 above
    ]


def test_a_chain_is_corrected_in_order_and_as_a_whole(store: Store, steps: Tariff) -> None:
    meter = customer(store, "100", "200", "300", "400", tariff=steps, used="0")
    close(store, steps, 6, 7, 8)
    edit(store, meter, 6, "160")
    found = correct(store, "A1-2026-06", steps, chain=True)
    assert [(item.old.number, str(item.new.total)) for item in found.made] == [
        ("A1-2026-06", "20.00"),  # 40 kWh
        ("A1-2026-07", "50.00"),  # 100 kWh after 40
        ("A1-2026-08", "95.00"),  # 10 below the limit, 90 above
    ]
    assert owed(store) == 165
    used = bill(store, "A1-2026-08.1").determinants[0]
    assert used.used_before == 140
    assert {parent.number for parent in used.parents if hasattr(parent, "number")} >= {"A1-2026-06.1", "A1-2026-07.1"}
    with store.read() as conn:
        texts = [e.text for e in ledger.statement(conn, "A1").entries if e.kind == "reversal"]
    assert texts == ["wrong register", *["wrong register (after A1-2026-06)"] * 2]


def test_after_a_reversal_the_month_is_billed_anew(store: Store) -> None:
    customer(store, "0", "100")
    close(store, FLAT, 6)
    with store.write() as conn:
        ledger.reverse(conn, "A1-2026-06", "wrong meter", LATER)
    assert owed(store) == 0
    assert close(store, FLAT, 6, now=LATER) == ["A1-2026-06.1"]
    assert bill(store, "A1-2026-06.1").replaces == "A1-2026-06"
    assert close_period(store, [FLAT], 2026, 6, now=LATER).already == ("A1-2026-06.1",)
    assert owed(store) == D("64.25")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for all examples of a property; each has an account of its own."""
    opened = open_store(f"sqlite:///{tmp_path_factory.mktemp('corrections') / 'headend.db'}")
    yield opened
    opened.close()


_ACCOUNTS = count()


@settings(max_examples=8, deadline=None)
@given(values=st.lists(st.integers(0, 5000), min_size=1, max_size=4))
def test_reversal_and_new_bill_come_to_the_difference(shared: Store, values: list[int]) -> None:
    """Whatever the register is corrected to, and however often: what stands is what is owed, and all sums to zero."""
    store, account = shared, f"P{next(_ACCOUNTS)}"
    meter = customer(store, "0", "100", account=account)
    close_period(store, [FLAT], 2026, 6, [account], now=NOW)
    number, moved = f"{account}-2026-06", D(0)
    first = bill(store, number).total or D(0)
    for nth, value in enumerate(values):
        taken = {"quality": Quality.EDITED, "taken_at": NOW + timedelta(hours=nth)}
        feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(month(7).start, str(value), **taken)])
        for made in correct(store, number).made:
            number, moved = made.new.number, moved + made.difference
    last = bill(store, number)
    assert last.determinants[0].value == values[-1]
    assert owed(store, account) == last.total == first + moved
    with store.read() as conn:
        assert sum(total.amount for total in ledger.totals(conn)) == 0
        kinds = [entry.kind for entry in ledger.statement(conn, account).entries]
    assert kinds.count("bill") == 1 + kinds.count("reversal")


_DEEDS = st.lists(
    st.one_of(
        st.tuples(st.just("close"), st.integers(6, 8), st.just(0)),
        st.tuples(st.just("edit"), st.integers(6, 9), st.integers(-40, 40)),
        st.tuples(st.just("correct"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("reverse"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("adjust"), st.integers(0, 9), st.integers(-3, 3).filter(bool)),
        st.tuples(st.just("pay"), st.integers(1, 500), st.just(0)),
    ),
    min_size=4,
    max_size=14,
)


@settings(max_examples=6, deadline=None)
@given(deeds=_DEEDS)
def test_whatever_is_done_the_books_and_the_bills_agree(shared: Store, deeds: list[tuple[str, int, int]]) -> None:
    """What is owed is what stands less what was paid; a month has one bill that stands, an adjustment goes on one; and
    every bill ever issued comes out again as it was."""
    account, paid = f"W{next(_ACCOUNTS)}", D(0)
    meter = customer(shared, "1000", "1100", "1200", "1300", account=account)
    for nth, (deed, which, much) in enumerate([*deeds, *(("close", n, 0) for n in (6, 7, 8))]):
        now = NOW + timedelta(hours=nth)
        issued = sorted(item.number for item in issued_bills(shared, account))
        number = issued[which % len(issued)] if issued else ""
        if deed == "close":
            close_period(shared, [FLAT], 2026, which, [account], now=now)
            continue
        if deed == "edit":
            value = freeze(month(which).start, str(1000 + 100 * (which - 6) + much))
            feed(shared, meter, ReadKind.DAILY_FREEZE, [replace(value, quality=Quality.EDITED, taken_at=now)])
            continue
        with suppress(UsageError), shared.write() as conn:
            if deed == "correct":
                corrections.correct(conn, number, "why", [FLAT], RULES, now=now)
            elif deed == "reverse":
                ledger.reverse(conn, number, "why", now)
            elif deed == "adjust":
                adjust(conn, number, f"reason {nth}", amount=D(much))
            else:
                ledger.pay(conn, account, D(which), "CNY", f"T{nth}", now)
                paid += which
    found = issued_bills(shared, account)
    standing = [item for item in found if not item.reversed_by]
    assert owed(shared, account) == sum((item.total or D(0) for item in standing), -paid)
    assert len({item.window for item in standing}) == len(standing) == 3
    taken = [line.determinant for item in standing for line in item.lines if line.code == "adjustment"]
    assert len(set(taken)) == len(taken)
    with shared.read() as conn:
        made = adjustments.adjustments(conn, account)
        assert {f"adjustment:{item.number}" for item in made if item.taken_by} == set(taken)
        assert sum(total.amount for total in ledger.totals(conn)) == 0
    assert [again(shared, item.number) for item in found] == [[]] * len(found)


def test_correcting_and_preparing_are_one_path(sqlite_store: Store) -> None:
    """What a correction issues is what preparing the month gives, but for number and state of the ledger."""
    store = sqlite_store
    meter = customer(store, "0", "100")
    close(store, FLAT, 6)
    edit(store, meter, 7, "90")
    with store.read() as conn:
        account = registry.account(conn, "A1")
        assert account is not None
        (prepared,) = prepare(conn, Book.read(conn, [FLAT], RULES), [account], 2026, 6)
    new = correct(store, "A1-2026-06").made[0].new
    assert new.lines == prepared.bill.lines
    assert new.determinants == prepared.bill.determinants
