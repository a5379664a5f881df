"""Billing treated roughly: killed in the middle, called at once by several; nothing is lost, nothing doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import func, select

from billing import adjustments, corrections, ledger, recompute, run, schema
from billing import store as bills
from billing.charges import Tariff
from billing.run import close_period
from headend.errors import UsageError
from headend.model import ReadKind
from headend.store import Store
from tests.billing_support import NOW, add_meter, connect, feed, freeze, month, written
from tests.corrections_kit import FLAT, LATER, D, adjust, again, bill, close, correct, customer, edit, owed

STEPS = """
zone = "Asia/Shanghai"
[[charges]]
kind = "step"
unit = "kWh"
period = "year"
tables = [{ months = [1,2,3,4,5,6,7,8,9,10,11,12], steps = [{ up_to = "150", price = "0.5" }, { price = "1" }] }]
"""


@pytest.fixture
def steps(tmp_path: Path) -> Tariff:
    return written(tmp_path, "steps", STEPS)


def check_books(store: Store) -> None:
    """What must hold whatever was done: one bill that stands for each account and month at most, each entry numbered
    without a gap, accounts that owe what their standing bills come to, adjustments on one standing bill at most."""
    entry, table, taken = schema.ledger_entry, schema.bill, schema.bill_adjusted
    with store.read() as conn:
        standing = conn.execute(
            select(table.c.account, table.c.period_start, func.count(), func.sum(table.c.total_minor))
            .where(bills.standing())
            .group_by(table.c.account, table.c.period_start)
        ).all()
        assert [count for *_, count, _ in standing] == [1] * len(standing)
        for kind in ("bill", "reversal", "payment"):
            numbers = conn.scalars(
                select(entry.c.sequence).where(entry.c.kind == kind).order_by(entry.c.sequence)
            ).all()
            assert list(numbers) == list(range(1, len(numbers) + 1))
        sums: dict[str, Decimal] = {}
        for account, _, _, minor in standing:
            sums[account] = sums.get(account, D(0)) + Decimal(int(minor)).scaleb(-2)
        for account, due in sums.items():
            assert sum(amount for _, amount in ledger.statement(conn, account).balances) == due
        issued = conn.scalar(select(func.count()).select_from(table).where(table.c.state == "issued"))
        assert issued == conn.scalar(select(func.count()).select_from(entry).where(entry.c.kind == "bill"))
        on = select(taken.c.adjustment).join(table, table.c.key == taken.c.bill_key).where(bills.standing())
        numbers_on = conn.scalars(on).all()
        assert len(numbers_on) == len(set(numbers_on))


def check_rests(store: Store) -> None:
    """Bills that stand rest on bills that stand. A correction leaves one alone of which it changes no line."""
    table, used = schema.bill, schema.bill_used
    with store.read() as conn:
        stand = set(conn.scalars(select(table.c.number).where(bills.standing())))
        resting = select(used.c.number).join(table, table.c.key == used.c.bill_key).where(bills.standing())
        # "": energy that was declared for the account
        assert set(conn.scalars(resting)) <= stand | {""}


# -- several at once ---------------------------------------------------------------------------------------------------


def together(*deeds: Callable[[], object]) -> None:
    """Do these at once, each in a thread; what a person would be refused is no failure."""
    failed: list[BaseException] = []
    start = threading.Barrier(len(deeds))

    def one(deed: Callable[[], object]) -> None:
        start.wait()
        try:
            deed()
        except UsageError:
            pass
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=one, args=(deed,)) for deed in deeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_closing_correcting_adjusting_and_reversing_at_once(store: Store, steps: Tariff) -> None:
    names = [f"A{index}" for index in range(6)]
    for name in names:
        meter = customer(store, "100", "200", "300", account=name, tariff=steps, used="0")
        close_period(store, [steps], 2026, 6, [name], now=NOW)
        edit(store, meter, 7, "230")

    def corrected() -> None:
        for name in names[:3]:
            correct(store, f"{name}-2026-06", steps, chain=True)

    def adjusted() -> None:
        for name in names:
            with suppress(UsageError), store.write() as conn:
                adjust(conn, f"{name}-2026-06", amount=D("3.50"))

    def reversed_() -> None:
        for name in names[3:]:
            with store.write() as conn:
                ledger.reverse(conn, f"{name}-2026-06", "wrong", LATER)

    def closed() -> None:
        close_period(store, [steps], 2026, 7, now=LATER)

    together(corrected, adjusted, reversed_, closed, closed)
    close_period(store, [steps], 2026, 6, now=LATER)
    close_period(store, [steps], 2026, 7, now=LATER)
    for name in names:  # a July made before its June was reversed is told by it; corrected it rests on what stands
        with store.read() as conn:
            later = corrections.resting_on(conn, f"{name}-2026-06")
        for number in later:
            with suppress(UsageError):
                correct(store, number, steps)
    check_books(store)
    check_rests(store)


def test_a_bill_is_made_again_when_one_it_rests_on_is_taken_back_meanwhile(
    store: Store, steps: Tariff, monkeypatch: pytest.MonkeyPatch
) -> None:
    """July is being closed, made from June's 100 kWh, when June is corrected to 130: July rests on the new bill."""
    meter = customer(store, "100", "200", "300", tariff=steps, used="0")
    close(store, steps, 6)
    edit(store, meter, 7, "230")
    prepare, other = run.prepare, iter([True])

    def late(*words: object, **more: object) -> object:
        made = prepare(*words, **more)  # type: ignore[arg-type]
        if next(other, False):
            found = correct(store, "A1-2026-06", steps)
            assert ([item.new.number for item in found.made], found.later) == (["A1-2026-06.1"], ())
        return made

    monkeypatch.setattr(run, "prepare", late)
    assert close_period(store, [steps], 2026, 7, now=LATER).issued == ("A1-2026-07",)
    assert bill(store, "A1-2026-07").total == D(60)  # 20 below the limit, 50 above
    check_books(store)
    check_rests(store)


def test_two_corrections_of_a_bill_at_once_make_one(store: Store) -> None:
    meter = customer(store, "0", "100")
    close(store, FLAT, 6)
    edit(store, meter, 7, "130")
    made: list[int] = []
    together(*(lambda: made.append(len(correct(store, "A1-2026-06").made)) for _ in range(2)))
    assert made == [1]  # the other one is told that the bill was reversed
    check_books(store)


def test_a_bill_is_not_put_right_twice_by_an_adjustment_and_a_correction_at_once(store: Store) -> None:
    for index in range(4):
        meter = customer(store, "0", "100", account=f"A{index}")
        close_period(store, [FLAT], 2026, 6, [f"A{index}"], now=NOW)
        edit(store, meter, 7, "130")

    def adjusted() -> None:
        for index in range(4):
            with suppress(UsageError), store.write() as conn:
                adjust(conn, f"A{index}-2026-06", amount=D(5))

    def corrected() -> None:
        for index in range(4):
            with suppress(UsageError):
                correct(store, f"A{index}-2026-06")

    together(adjusted, corrected)
    for index in range(4):
        with store.read() as conn:
            sum_of = adjustments.open_sum(conn, f"A{index}-2026-06")
            new = bills.bill(conn, f"A{index}-2026-06.1")
        assert (sum_of != 0) != (new is not None)
    check_books(store)


def test_a_chain_of_corrections_keeps_its_later_bills_right(sqlite_store: Store, steps: Tariff) -> None:
    """June is corrected three times, with an adjustment that July has taken on; July and August follow each time."""
    store = sqlite_store
    meter = customer(store, "100", "200", "300", "400", tariff=steps, used="0")
    close(store, steps, 6)
    with store.write() as conn:
        adjust(conn, "A1-2026-06", amount=D(7))
        adjust(conn, "A1-2026-06", amount=D(-7))
    close(store, steps, 7, 8)
    for turn, value in enumerate(("160", "170", "120"), 1):
        edit(store, meter, 6, value)
        tail = f".{turn - 1}" if turn > 1 else ""
        found = correct(store, f"A1-2026-06{tail}", steps, chain=True)
        assert found.made[0].new.number == f"A1-2026-06.{turn}"
        # All energy up to September at the steps of one year: 150 at 0.5, what is left at 1.
        assert sum(balances(store)) == 400 - int(value) - 75
        check_books(store)
    # Between 160 and 170 no line of July changes: it stays as it is, and its second correction is the last one.
    with store.read() as conn:
        assert [one.taken_by for one in adjustments.adjustments(conn)] == ["A1-2026-07.2"] * 2


def balances(store: Store) -> list[Decimal]:
    with store.read() as conn:
        return [amount for _, amount in ledger.statement(conn, "A1").balances]


def test_an_adjustment_outlives_the_bills_that_took_it_on(store: Store) -> None:
    """Each bill that took it on is reversed; it is on one bill that stands all the time, or waits."""
    customer(store, "0", "100", "200")
    close(store, FLAT, 6)
    with store.write() as conn:
        adjust(conn, "A1-2026-06", amount=D("9.99"))
    june = owed(store)
    for tail in ("", ".1", ".2"):
        close(store, FLAT, 7)
        assert bill(store, f"A1-2026-07{tail}").lines[-1].amount == D("9.99")
        check_books(store)
        with store.write() as conn:
            ledger.reverse(conn, f"A1-2026-07{tail}", "wrong", LATER)
        assert owed(store) == june
        with store.read() as conn:
            assert len(adjustments.pending(conn, ["A1"])["A1"]) == 1


def test_a_late_value_shows_against_today_alone_and_in_full(sqlite_store: Store) -> None:
    meter = customer(sqlite_store, "100", "200")
    close(sqlite_store, FLAT, 6)
    assert again(sqlite_store) == []
    late = edit(sqlite_store, meter, 7, "230.5")
    assert again(sqlite_store) == []
    with sqlite_store.read() as conn:
        found = recompute.recompute_now(conn, "A1-2026-06", [FLAT])
    told = {one.item: (one.then, one.now) for one in found.differences}
    assert list(told) == ["determinant", "register", "line", "total"]
    assert told["determinant"] == ("100 kWh", "130.5 kWh")
    assert f"outcome {late}" in told["register"][1]
    assert told["total"] == ("64.25 CNY", "83.85 CNY")  # 130.5 x 0.6425 = 83.84625


# -- killed ------------------------------------------------------------------------------------------------------------

_CLOSE = """
import sys
from billing import run
from billing.run import close_period, pool
from headend.store import open_store
from tests.billing_support import NOW
from tests.corrections_kit import FLAT

if __name__ == "__main__":
    store = open_store(sys.argv[1], migrate=False)
    with pool(2) as executor:
        close_period(store, [FLAT], 2026, 6, now=NOW, executor=executor)
"""


@pytest.mark.slow
@pytest.mark.parametrize("orphans", [False, True], ids=["all-processes", "parent-alone"])
def test_a_run_killed_in_the_middle_loses_and_doubles_nothing(store: Store, tmp_path: Path, orphans: bool) -> None:
    """SIGKILL to the run and its workers, or to the run alone: its workers may then be at work while it runs again."""
    count = 400
    for index in range(count):
        meter = add_meter(store, f"M{index}")
        connect(store, meter, FLAT, account=f"A{index}")
        feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(month(6).start, "0"), freeze(month(6).end, str(index + 1))])
    script = tmp_path / "close.py"
    script.write_text(_CLOSE, "utf-8")
    url = store.engine.url.render_as_string(hide_password=False)
    root = str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": root}
    killed = subprocess.Popen([sys.executable, str(script), url], env=environment, cwd=root, start_new_session=True)
    limit = time.monotonic() + 60
    while killed.poll() is None and time.monotonic() < limit:
        with store.read() as conn:
            if conn.scalar(select(func.count()).select_from(schema.bill)):
                break
    if orphans:
        killed.kill()
    else:
        os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    with store.read() as conn:
        done = conn.scalar(select(func.count()).select_from(schema.bill)) or 0
    assert 0 < done < count, "it was killed too early or too late to tell anything"
    report = close_period(store, [FLAT], 2026, 6, now=NOW)
    assert report.held == ()
    assert len(report.issued) + len(report.already) == count
    with suppress(ProcessLookupError):
        os.killpg(killed.pid, signal.SIGKILL)
    with store.read() as conn:
        assert conn.scalar(select(func.count()).select_from(schema.bill_line)) == count
        values = schema.bill_determinant.c
        energies = conn.scalars(select(values.value).where(values.name == "import_kwh"))
        assert sorted(map(Decimal, energies)) == list(range(1, count + 1))
        first, last = conn.execute(select(schema.billing_run.c.ended_at).order_by(schema.billing_run.c.key)).all()
    assert (first.ended_at, last.ended_at is not None) == (None, True)
    check_books(store)
