"""The ledger on both databases: it sums to zero, has no gaps, takes everything once, and never changes."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, func, select, text

from billing import ledger, schema
from billing import store as bills
from billing.ledger import Recorded, Total
from billing.model import Bill, BillLine
from billing.run import close_period
from headend.cli import cli
from headend.errors import HeadendError, StoreError, UsageError
from headend.model import ReadKind
from headend.store import Store, open_store
from tests.billing_support import NOW, add_meter, connect, feed, freeze, month, shipped

FLAT = shipped("example-flat")
TOWN = shipped("example-commercial-tou")
LATER = NOW + timedelta(days=1)


def customer(store: Store, account: str = "A1", *registers: str) -> None:
    """An account on the flat tariff, whose meter stood at `registers` on the first of June and the months after."""
    meter = add_meter(store, f"M-{account}")
    connect(store, meter, FLAT, account=account)
    ends = [freeze(month(6 + n).start, value) for n, value in enumerate(registers)]
    if ends:
        feed(store, meter, ReadKind.DAILY_FREEZE, ends)


def issue(conn: Connection, number: str, amounts: dict[str, str], account: str = "A1") -> None:
    """An issued bill with these lines, not in the ledger."""
    months = {"service": "month", "minimum": "month"}
    units = {"vat": "%", "pf_adjust": "%"}
    sources = months | {"vat": "", "pf_adjust": "power_factor", "fund": "import_kwh"}
    lines = tuple(
        BillLine(
            code, code, Decimal(1), units.get(code, months.get(code, "kWh")), Decimal(amount), Decimal(amount),
            sources.get(code, code),
        )
        for code, amount in amounts.items()
    )  # fmt: skip
    nth = len(conn.execute(select(schema.bill.c.key)).all())
    window = month(nth % 12 + 1, 2000 + nth // 12)
    bill = Bill(
        number, account, f"U-{account}", window, "issued", TOWN.id, TOWN.version, TOWN.sha, "UTC", "CNY", lines=lines
    )
    bills.put_tariff(conn, TOWN, {}, NOW)
    assert bills.put(conn, bill, NOW) == "issued"


def owed(store: Store, account: str = "A1") -> Decimal:
    with store.read() as conn:
        return dict(ledger.statement(conn, account).balances).get("CNY", Decimal(0))


def books(store: Store) -> dict[tuple[str, str], Decimal]:
    with store.read() as conn:
        return {(total.book, total.part): total.amount for total in ledger.totals(conn)}


def refused(store: Store, *statements: str) -> str:
    """What the database says to these statements in one transaction."""

    def run() -> None:
        with store.write() as conn:
            for statement in statements:
                conn.execute(text(statement))

    with pytest.raises(StoreError) as error:
        run()
    return str(error.value)


def test_a_bill_is_posted_when_it_is_issued_and_once(store: Store) -> None:
    customer(store, "A1", "100.00", "350.00")
    customer(store, "A2")  # no reads: held, and not in the ledger
    assert close_period(store, [FLAT], 2026, 6, now=NOW).issued == ("A1-2026-06",)
    assert close_period(store, [FLAT], 2026, 6, now=LATER).already == ("A1-2026-06",)
    assert ledger.post_missing(store, LATER) == 0
    with store.write() as conn:
        assert ledger.post_bills(conn, ["A1-2026-06", "A2-2026-06"], LATER) == 0
    with store.read() as conn:
        found = ledger.statement(conn, "A1")
        assert ledger.statement(conn, "A2").entries == ()
    (entry,) = found.entries
    assert (entry.number, entry.kind, entry.reference, entry.at) == ("B000001", "bill", "A1-2026-06", NOW)
    assert entry.amount == entry.balance == Decimal("160.63")
    assert books(store) == {("receivable", ""): Decimal("160.63"), ("revenue", "energy"): Decimal("-160.63")}


def test_every_kind_of_charge_has_its_book(store: Store) -> None:
    amounts = {"energy_peak": "10.01", "energy_valley": "2.00", "step2_adder": "0.50", "basic_demand": "40.00"}
    amounts |= {"basic_discount": "-4.00", "service": "12.00", "minimum": "1.10", "pf_adjust": "-0.75", "fund": "0.33"}
    amounts |= {"export_credit": "-3.00", "vat": "7.19", "odd": "0.02"}
    with store.write() as conn:
        issue(conn, "X", amounts)
        assert ledger.post_bills(conn, ["X"], NOW) == 1
    assert books(store) == {
        ("receivable", ""): Decimal("65.40"),
        ("revenue", "energy"): Decimal("-12.51"),
        ("revenue", "demand"): Decimal("-36.00"),
        ("revenue", "fixed"): Decimal("-12.00"),
        ("revenue", "minimum"): Decimal("-1.10"),
        ("revenue", "adjustment"): Decimal("0.75"),
        ("revenue", "surcharge"): Decimal("-0.33"),
        ("revenue", "export"): Decimal("3.00"),
        ("revenue", "other"): Decimal("-0.02"),
        ("tax", ""): Decimal("-7.19"),
    }


@pytest.mark.parametrize(
    ("code", "unit", "determinant", "kind"),
    [
        ("energy_step2_peak", "kWh", "import_kwh_peak", "energy"),
        ("energy", "kWh", "net_kwh", "energy"),
        ("step2_adder", "kWh", "import_kwh@2026-10-16", "energy"),
        ("spot", "", "market_value_spot", "energy"),
        ("spot", "", "market_value_spot@2026-10-16", "energy"),
        ("spot_adder", "kWh", "import_kwh", "energy"),
        ("basic_demand_step2", "kW", "import_max_kw", "demand"),
        ("summer_peak", "kW", "import_max_kw_peak@2026-10-16", "demand"),
        ("summer_peak", "kW", "ratchet_kw", "demand"),
        ("summer_peak", "kW", "contract_kw", "demand"),
        ("summer_peak_discount", "%", "import_kwh", "demand"),
        ("basic_capacity", "day", "", "demand"),
        ("fund", "kWh", "import_kwh@2026-10-16", "surcharge"),
        ("service", "month", "month", "fixed"),
        ("minimum", "month", "month", "minimum"),
        ("pf_adjust", "%", "power_factor", "adjustment"),
        ("export_credit", "kWh", "surplus_kwh", "export"),
        ("adjustment", "kWh", "adjustment:ADJ000001", "correction"),
        ("rounding", "", "", "rounding"),
        ("vat", "%", "", "tax"),
        ("odd", "h", "hours", "other"),
    ],
)
def test_kinds_of_charges(code: str, unit: str, determinant: str, kind: str) -> None:
    assert ledger.charge_kind(code, unit, determinant) == kind


@pytest.mark.parametrize("amounts", [{}, {"energy": "0.00"}])
def test_a_bill_of_nothing_is_posted_too(store: Store, amounts: dict[str, str]) -> None:
    with store.write() as conn:
        issue(conn, "X", amounts)
        assert ledger.post_bills(conn, ["X"], NOW) == 1
        assert ledger.post_bills(conn, ["X"], NOW) == 0
    assert owed(store) == 0


def test_bills_issued_before_the_ledger_are_posted_later(store: Store) -> None:
    with store.write() as conn:
        for number in range(450):
            issue(conn, f"X{number:03d}", {"energy": "1.25", "service": "0.50"})
    assert owed(store) == 0
    assert ledger.post_missing(store, LATER) == 450
    assert ledger.post_missing(store, LATER) == 0
    assert owed(store) == 450 * Decimal("1.75")
    with store.read() as conn:
        entries = ledger.statement(conn, "A1").entries
    assert [entry.number for entry in entries] == [f"B{n:06d}" for n in range(1, 451)]
    assert {entry.at for entry in entries} == {NOW}


def test_a_payment_is_recorded_once(store: Store) -> None:
    customer(store, "A1", "0", "100")
    customer(store, "A2")
    close_period(store, [FLAT], 2026, 6, now=NOW)
    for expected in (Recorded("P000001", "A1", True), Recorded("P000001", "A1", False)):
        with store.write() as conn:
            assert ledger.pay(conn, "A1", Decimal("100.5"), "CNY", " T-17 ", LATER) == expected
    assert owed(store) == Decimal("-36.25")
    with store.write() as conn:  # another payer may use the same reference
        assert ledger.pay(conn, "A2", Decimal(1), "CNY", "T-17", LATER).number == "P000002"
    for amount, currency in ((Decimal("100.51"), "CNY"), (Decimal("100.5"), "EUR")):
        with pytest.raises(UsageError) as other, store.write() as conn:
            ledger.pay(conn, "A1", amount, currency, "T-17", LATER)
        assert str(other.value) == (
            "payment 'T-17' of account A1 is recorded already, as P000001, of another sum "
            "-> give another reference, or reverse the other one first"
        )
    assert books(store)["cash", ""] == Decimal("101.50")


@pytest.mark.parametrize(
    ("account", "amount", "currency", "reference", "message"),
    [
        ("A11", "1", "CNY", "T", "unknown account 'A11' -> did you mean A1?"),
        ("A1", "0", "CNY", "T", "0 CNY can't be paid -> give an amount above zero, as in 120.50"),
        ("A1", "-5", "CNY", "T", "-5 CNY can't be paid -> give an amount above zero, as in 120.50"),
        ("A1", "NaN", "CNY", "T", "NaN CNY can't be paid -> give an amount above zero, as in 120.50"),
        ("A1", "1E+30", "CNY", "T", "1E+30 CNY can't be paid -> at most 10000000000000.00 at once"),
        ("A1", "0.005", "CNY", "T", "0.005 CNY is finer than the currency -> give at most 2 decimals"),
        ("A1", "1", "XXX", "T", "unknown currency 'XXX' -> use one of CNY, EUR, GBP, USD"),
        ("A1", "1", "CNY", "  ", "a payment needs a reference -> give the number of the receipt or transfer"),
    ],
)
def test_payments_that_make_no_sense(
    sqlite_store: Store, account: str, amount: str, currency: str, reference: str, message: str
) -> None:
    customer(sqlite_store)
    with pytest.raises(UsageError) as error, sqlite_store.write() as conn:
        ledger.pay(conn, account, Decimal(amount), currency, reference, NOW)
    assert str(error.value) == message
    assert books(sqlite_store) == {}


def test_a_reversal_takes_back_all_and_names_what(store: Store) -> None:
    customer(store, "A1", "0", "100")
    close_period(store, [FLAT], 2026, 6, now=NOW)
    with store.write() as conn:
        before = bills.bill(conn, "A1-2026-06")
        ledger.pay(conn, "A1", Decimal(50), "CNY", "T-1", LATER)
        assert ledger.reverse(conn, "A1-2026-06", "wrong meter", LATER) == Recorded("R000001", "A1", True)
        assert ledger.reverse(conn, "B000001", "again", LATER) == Recorded("R000001", "A1", False)
        assert ledger.reverse(conn, "P000001", "cheque bounced", LATER).number == "R000002"
        with pytest.raises(UsageError, match="R000001 is a reversal itself, and stays"):
            ledger.reverse(conn, "R000001", "x", LATER)
        with pytest.raises(UsageError, match="nothing in the ledger is called 'A1-2026-07'"):
            ledger.reverse(conn, "A1-2026-07", "x", LATER)
        with pytest.raises(UsageError, match="a reversal needs a reason"):
            ledger.reverse(conn, "A1-2026-06", " ", LATER)
    with store.read() as conn:
        entries = ledger.statement(conn, "A1").entries
        assert before is not None
        assert bills.bill(conn, "A1-2026-06") == replace(before, reversed_by="R000001")
    assert [(e.number, e.reference, e.text, str(e.amount), str(e.balance)) for e in entries] == [
        ("B000001", "A1-2026-06", "example-flat", "64.25", "64.25"),
        ("P000001", "T-1", "", "-50.00", "14.25"),
        ("R000001", "A1-2026-06", "wrong meter", "-64.25", "-50.00"),
        ("R000002", "P000001", "cheque bounced", "50.00", "0.00"),
    ]
    assert set(books(store).values()) == {Decimal("0.00")}
    with store.read() as conn:
        assert ledger.reversed_by(conn, ["A1-2026-06", "A1-2026-07"]) == {"A1-2026-06": "R000001"}
    # The bill stays as it was issued, and its month may be billed anew.
    assert close_period(store, [FLAT], 2026, 6, now=LATER).issued == ("A1-2026-06.1",)


_AMOUNT = st.integers(1, 10**9).map(lambda n: Decimal(n).scaleb(-2))
_CODES = st.sampled_from(["energy", "energy_peak", "service", "vat", "pf_adjust", "export_credit", "odd"])
_LINES = st.dictionaries(_CODES, st.integers(-(10**9), 10**9).map(lambda n: str(Decimal(n).scaleb(-2))), max_size=6)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("bill"), st.sampled_from(["A1", "A2"]), _LINES),
        st.tuples(st.just("pay"), st.sampled_from(["A1", "A2"]), _AMOUNT),
        st.tuples(st.just("reverse"), st.integers(0, 30), st.none()),
        st.tuples(st.just("post"), st.none(), st.none()),
    ),
    max_size=25,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for all examples of a property; each has accounts of its own."""
    opened = open_store(f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'headend.db'}")
    yield opened
    opened.close()


_EXAMPLES = count()


@settings(max_examples=40, deadline=None)
@given(steps=_STEPS)
def test_whatever_happens_it_sums_to_zero_and_the_balance_is_bills_less_payments(
    shared: Store, steps: list[tuple[str, object, object]]
) -> None:
    store, own = shared, f"E{next(_EXAMPLES)}-"
    steps = [(step, own + who if isinstance(who, str) else who, what) for step, who, what in steps]
    customer(store, own + "A1")
    customer(store, own + "A2")
    # account: document: amount in cents
    truth: dict[str, Counter[str]] = {own + "A1": Counter(), own + "A2": Counter()}
    owner: dict[str, str] = {}
    gone: set[str] = set()
    for nth, (step, who, what) in enumerate(steps):
        with store.write() as conn:
            if step == "bill":
                assert isinstance(who, str)
                assert isinstance(what, dict)
                issue(conn, f"{own}X{nth}", what, who)
                if nth % 2:
                    ledger.post_bills(conn, [f"{own}X{nth}"], NOW)
                    owner[f"{own}X{nth}"] = who
                truth[who][f"{own}X{nth}"] = sum(int(Decimal(amount) * 100) for amount in what.values())
            elif step == "pay":
                assert isinstance(who, str)
                assert isinstance(what, Decimal)
                number = ledger.pay(conn, who, what, "CNY", f"T{nth}", NOW).number
                owner[number], truth[who][number] = who, -int(what * 100)
            elif step == "reverse" and owner:
                assert isinstance(who, int)
                number = sorted(owner)[who % len(owner)]
                assert ledger.reverse(conn, number, "why", NOW).new == (number not in gone)
                gone.add(number)
        if step == "post":
            ledger.post_missing(store, NOW)
            owner |= {number: name for name, amounts in truth.items() for number in amounts}
    ledger.post_missing(store, NOW)
    for account, amounts in truth.items():
        left = sum(cents for number, cents in amounts.items() if number not in gone)
        assert owed(store, account) == Decimal(left).scaleb(-2)
    assert sum(books(store).values()) == 0
    with store.read() as conn:
        sums = conn.execute(
            select(func.sum(schema.ledger_posting.c.amount_minor)).group_by(schema.ledger_posting.c.entry)
        )
        assert {total for (total,) in sums} <= {0}
        for kind in ("bill", "payment", "reversal"):
            numbers = conn.scalars(
                select(schema.ledger_entry.c.sequence).where(schema.ledger_entry.c.kind == kind).order_by("sequence")
            )
            found = list(numbers)
            assert found == list(range(1, len(found) + 1))


def test_a_failed_transaction_leaves_no_gap(store: Store) -> None:
    customer(store)

    def failing() -> None:
        with store.write() as conn:
            assert ledger.pay(conn, "A1", Decimal(1), "CNY", "T-1", NOW).number == "P000001"
            raise KeyError("in the middle")

    with pytest.raises(KeyError):
        failing()
    with store.write() as conn:
        assert ledger.pay(conn, "A1", Decimal(1), "CNY", "T-2", NOW).number == "P000001"


def test_payments_at_once_take_turns(store: Store) -> None:
    customer(store)
    numbers: list[str] = []
    start = threading.Barrier(4)

    def work(worker: int) -> None:
        start.wait()
        for nth in range(5):
            with store.write() as conn:
                numbers.append(ledger.pay(conn, "A1", Decimal(1), "CNY", f"T-{worker}-{nth}", NOW).number)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == [f"P{n:06d}" for n in range(1, 21)]
    assert owed(store) == -20


# -- the database itself -----------------------------------------------------------------------------------------------

_POSTING = "INSERT INTO ledger_posting (entry, line, book, part, amount_minor) VALUES "
_ENTRY = (
    "INSERT INTO ledger_entry (number, kind, sequence, account, currency, reference, text, at, posted_at) VALUES "
    "('{0}', 'payment', {1}, 'A1', 'CNY', '{0}', '', 0, 0)"
)


@pytest.fixture
def paid(store: Store) -> Store:
    customer(store)
    with store.write() as conn:
        ledger.pay(conn, "A1", Decimal(5), "CNY", "T-1", NOW)
    return store


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["UPDATE ledger_entry SET account = 'A2'"], "the ledger only grows"),
        (["DELETE FROM ledger_entry"], "the ledger only grows"),
        (["UPDATE ledger_posting SET amount_minor = 0"], "the ledger only grows"),
        (["DELETE FROM ledger_posting"], "the ledger only grows"),
        ([_POSTING + "('P000001', 3, 'cash', '', 0)"], "a ledger entry takes no further postings"),
        ([_ENTRY.format("P2", 2)], "the postings of a ledger entry sum to zero"),
        (
            [_POSTING + "('P2', 1, 'cash', '', 5), ('P2', 2, 'receivable', 'A1', -4)", _ENTRY.format("P2", 2)],
            "the postings of a ledger entry sum to zero",
        ),
        (
            [_POSTING + "('P3', 1, 'cash', '', 5), ('P3', 2, 'receivable', 'A1', -5)", _ENTRY.format("P3", 3)],
            "a ledger entry takes the next number of its kind",
        ),
        ([_POSTING + "('P2', 1, 'cash', '', 5), ('P2', 2, 'receivable', 'A1', -5)"], "(?i)foreign key"),
        ([_POSTING + "('P2', 1, 'pocket', '', 0)"], "(?i)check constraint"),
    ],
)
def test_the_database_itself_keeps_the_ledger(paid: Store, statements: list[str], message: str) -> None:
    before = books(paid)
    said = refused(paid, *statements)
    assert re.search(message, said), said
    assert books(paid) == before
    with paid.write() as conn:  # and it goes on
        assert ledger.pay(conn, "A1", Decimal(1), "CNY", "T-2", NOW).number == "P000002"


def test_sound_statements_are_taken(paid: Store) -> None:
    """What the refusals above have in common is not the reason for them."""
    with paid.write() as conn:
        conn.execute(text(_POSTING + "('P2', 1, 'cash', '', 5), ('P2', 2, 'receivable', 'A1', -5)"))
        conn.execute(text(_ENTRY.format("P2", 2)))
    assert books(paid)["cash", ""] == Decimal("5.05")


def test_the_ledger_on_postgresql_can_not_be_emptied_or_joined_late(new_pg_url: str) -> None:
    store = open_store(new_pg_url)
    for table in ("ledger_entry", "ledger_posting"):
        assert "the ledger only grows" in refused(store, f"TRUNCATE {table} CASCADE")
    customer(store)

    def join_late() -> None:
        with store.write() as late, store.write() as conn:  # the first to begin ends last
            ledger.pay(conn, "A1", Decimal(5), "CNY", "T-1", NOW)
            late.execute(text(_POSTING + "('P000001', 9, 'cash', '', 7)"))  # the entry can't be seen yet

    with pytest.raises(StoreError, match="sum to zero"):
        join_late()
    assert books(store)["cash", ""] == 5
    store.close()


# -- the verbs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.toml"
    path.write_text('[site]\nname = "Town"\nzone = "Asia/Shanghai"\nstore = "sqlite:///headend.db"\n', encoding="utf-8")
    return path


def test_the_verbs(site: Path, tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'headend.db'}")
    customer(store, "A1")
    customer(store, "pay")
    with store.write() as conn:
        issue(conn, "A1-2000-01", {"energy": "100.00", "vat": "6.00"})  # before there was a ledger
    store.close()

    def run(*args: str) -> str:
        result = CliRunner().invoke(cli, [args[0], *args[1:], "-s", str(site)])
        if isinstance(result.exception, HeadendError):
            return f"error: {result.exception}"
        assert result.exit_code == 0, result.output
        return result.output

    assert json.loads(run("account", "A1", "--json"))["balances"] == {"CNY": "106.00"}
    pay = ("account", "pay", "A1", "100.50", "--reference", "T-1")
    assert run(*pay) == "recorded as P000001; account A1 owes 5.50 CNY\n"
    assert run(*pay) == "recorded before as P000001; account A1 owes 5.50 CNY\n"
    shown = run("account", "A1")
    assert all(word in shown for word in ("B000001", "A1-2000-01", "P000001", "T-1", "-100.50 CNY", "owes 5.50 CNY"))
    assert run("account", "reverse", "A1-2000-01", "--reason", "[b]wrong") == (
        "recorded as R000001; account A1 owes -100.50 CNY\n"
    )
    entries = {entry["number"]: entry for entry in json.loads(run("account", "show", "A1", "--json"))["entries"]}
    assert set(entries) == {"B000001", "P000001", "R000001"}
    assert {key: entries["R000001"][key] for key in ("kind", "reference", "text", "currency", "amount")} == {
        "kind": "reversal",
        "reference": "A1-2000-01",
        "text": "[b]wrong",
        "currency": "CNY",
        "amount": "-106.00",
    }
    assert "[b]wrong" in run("account", "A1")
    totals = [Total(**row) for row in json.loads(run("account", "totals", "--json"))]
    assert sum(Decimal(total.amount) for total in totals) == 0
    assert {total.book for total in totals} == {"cash", "receivable", "revenue", "tax"}
    assert "revenue" in run("account", "totals")
    assert run("account", "show", "pay") == "account pay owes nothing: no entries\n"
    assert run("account", "A11") == "error: unknown account 'A11' -> did you mean A1?"
    assert run("account", "pay", "A1", "1e3", "--reference", "T-2") == (
        "error: '1e3' is no amount -> write it like 120.50"
    )
