"""Timed freezes (`0500kknn`): monthly as a rule, each read with its time, from two independent meters."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from headend.model import Cause, ReadKind, Source, Window
from headend.protocols import PROTOCOLS
from simulators.dlt645_frame import take
from simulators.dlt645_meter import Dlt645Meter, MeterSpec
from simulators.household import Household, Load, Register
from tests.dlt645_wire import ADDRESS, NOW, Slave, converse, job, kwh, local, meter, minute, utc

READ = PROTOCOLS["dlt645-2007"].read


def test_monthly_freezes_equal_the_simulated_meters_truth() -> None:
    now = datetime(2026, 3, 10, 4, 7, tzinfo=UTC)
    now_s = int(now.timestamp())
    register = Register(Household(Load(seed=3)), 5_000_000)
    simulated = Dlt645Meter(MeterSpec(ADDRESS), register, lambda: now_s)

    def answer(request: bytes) -> Iterable[bytes]:
        heard = take(bytearray(request))
        assert heard is not None
        reply = simulated.answer(heard.address, heard.control, heard.data)
        return [reply] if reply else []

    window = Window(now - timedelta(days=100), now)
    harvest = converse(READ(meter(), job(ReadKind.TIMED_FREEZE, "import_kwh", window=window), now=now), answer)
    firsts = [utc(local(2026, month, 1)) for month in (3, 2, 1)] + [utc(local(2025, 12, 1))]
    assert [(r.at, r.source) for r in harvest.readings] == [(at, Source.TIMED_FREEZE) for at in firsts]
    for reading in harvest.readings:
        assert reading.value == Decimal(register.shown(int(reading.at.timestamp()))).scaleb(-2)
    assert harvest.faults == ()


def slave(months: list[int]) -> Slave:
    items = {}
    for nth, month in enumerate(months, start=1):
        items[f"050000{nth:02X}"] = minute(local(2025, month, 1))
        items[f"050001{nth:02X}"] = kwh(f"{1000 + month}.00")
    return Slave(items)


WINDOW = Window(utc(local(2025, 9, 1)), utc(local(2025, 11, 2)))


def test_only_what_lies_in_the_window_is_read() -> None:
    asked = slave([11, 10, 9, 8, 7])
    harvest = converse(READ(meter(), job(ReadKind.TIMED_FREEZE, "import_kwh", window=WINDOW), now=NOW), asked)
    assert [(r.at, r.value) for r in harvest.readings] == [
        (utc(local(2025, month, 1)), Decimal(f"{1000 + month}.00")) for month in (11, 10, 9)
    ]
    assert "05000105" not in asked.asked
    assert asked.asked[-1] == "05000001"  # the first time once more


def test_a_freeze_that_comes_in_the_middle_files_nothing_under_the_wrong_month() -> None:
    old, new = slave([10, 9, 8]), slave([11, 10, 9, 8])
    questions = 0

    def moving(request: bytes) -> Iterable[bytes]:
        nonlocal questions
        questions += 1
        return (old if questions <= 3 else new)(request)

    harvest = converse(READ(meter(), job(ReadKind.TIMED_FREEZE, "import_kwh", window=WINDOW), now=NOW), moving)
    assert {r.at: r.value for r in harvest.readings} == {
        utc(local(2025, month, 1)): Decimal(f"{1000 + month}.00") for month in (11, 10, 9)
    }


def test_a_meter_without_timed_freezes_says_so() -> None:
    harvest = converse(READ(meter(), job(ReadKind.TIMED_FREEZE, "import_kwh", window=WINDOW), now=NOW), Slave())
    assert harvest.readings == ()
    assert [(f.quantity, f.cause) for f in harvest.faults] == [("import_kwh", Cause.NOT_IN_MEMORY)]
