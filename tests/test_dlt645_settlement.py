"""Settlements: registers of the n-th last settlement day, filed under a time only where that is sure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headend.civil import zone
from headend.errors import NoAnswer, Refused, UsageError
from headend.ingest import EvidencePolicy, write
from headend.model import Cause, Harvest, Outcome, ReadJob, ReadKind, Source, Status, Window
from headend.protocols import PROTOCOLS
from headend.protocols.dlt645.settlement import settlement_times
from headend.store import Store, readings
from tests.dlt645_wire import NOW, Slave, bcd, converse, job, kwh, local, meter, minute, read_answer, refusal, utc
from tests.helpers import registered

DRIVER = PROTOCOLS["dlt645-2007"]
BEIJING = zone("Asia/Shanghai")
TOU = tuple(f"import_kwh{suffix}" for suffix in ("", "_t1", "_t2", "_t3", "_t4"))
YEAR = Window(utc(local(2024, 11, 1)), utc(local(2025, 12, 1)))


def clock_at(moment: datetime) -> bytes:
    """`ss mm hh WW DD MM YY`."""
    parts = (moment.second, moment.minute, moment.hour, moment.isoweekday() % 7, moment.day, moment.month)
    return bytes(int(f"{n:02d}", 16) for n in (*parts, moment.year % 100))


def block(total: int) -> bytes:
    return b"".join(kwh(f"{value}.00") for value in (total, total - 6, 1, 2, 3))


def base(more: dict[str, bytes] | None = None, *, day: str = "0001", shown: datetime | None = None) -> dict[str, bytes]:
    """A meter that settles on the 1st at 00:00 and has its last three settlements (Nov, Oct, Sep)."""
    items = {"04000B01": bytes.fromhex(day), "0400010C": clock_at(shown or local(2025, 11, 2, 12, 30))}
    items |= {f"0001FF{nth:02X}": block(1000 - 100 * nth) for nth in (1, 2, 3)}
    items |= {f"000100{nth:02X}": kwh(f"{1000 - 100 * nth}.00") for nth in (1, 2, 3)}
    items["01010001"] = bcd("123456", 3) + minute(local(2025, 10, 15, 18, 30))
    return items | (more or {})


def read(slave: Slave, *names: str, window: Window = YEAR, now: datetime = NOW) -> Harvest:
    return converse(DRIVER.read(meter(), job(ReadKind.SETTLEMENT, *names, window=window), now=now), slave)


def month(number: int, year: int = 2025) -> Window:
    return Window(utc(local(year, number, 1)), utc(local(year, number, 28)))


# --- what is sure -------------------------------------------------------------------------------------------------


def test_a_settlement_is_filed_at_its_day() -> None:
    slave = Slave(base())
    harvest = read(slave, *TOU, "import_max_kw", window=month(11))
    assert slave.asked == ["04000B01", "04000B02", "04000B03", "0400010C", "03300C01", "0001FF01", "01010001"]
    assert [(r.quantity, r.value) for r in harvest.readings] == [
        *zip(TOU, map(Decimal, ("900", "894", "1", "2", "3")), strict=True),
        ("import_max_kw", Decimal("12.3456")),
    ]
    assert {(r.at, r.source, r.taken_at) for r in harvest.readings} == {
        (utc(local(2025, 11, 1)), Source.SETTLEMENT, NOW)
    }
    assert harvest.readings[-1].occurred_at == utc(local(2025, 10, 15, 18, 30))
    assert harvest.faults == ()


def test_the_window_selects_and_the_rest_is_said_to_be_missing() -> None:
    slave = Slave(base())
    harvest = read(slave, "import_kwh", window=Window(utc(local(2025, 9, 1)), utc(local(2025, 11, 1))))
    assert [r.at for r in harvest.readings] == [utc(local(2025, 10, 1)), utc(local(2025, 9, 1))]
    assert [str(r.value) for r in harvest.readings] == ["800.00", "700.00"]
    whole = read(Slave(base()), "import_kwh")
    assert len(whole.readings) == 3
    assert {f.cause for f in whole.faults} == {Cause.REFUSED}
    assert next((f.window.start, f.window.end - f.window.start) for f in whole.faults if f.window) == (
        utc(local(2025, 8, 1)),
        timedelta(days=1),
    )


def test_the_day_and_hour_are_the_meters() -> None:
    harvest = read(Slave(base(day="2215")), "import_kwh", window=month(10))
    assert [(r.at, str(r.value)) for r in harvest.readings] == [(utc(local(2025, 10, 15, 22)), "900.00")]


def test_more_than_one_settlement_day_a_month() -> None:
    items = base({"04000B02": bytes.fromhex("0011"), "04000B03": bytes.fromhex("9999")})
    harvest = read(Slave(items), "import_kwh", window=Window(utc(local(2025, 10, 1)), utc(local(2025, 11, 2))))
    assert [(r.at, str(r.value)) for r in harvest.readings] == [
        (utc(local(2025, 11, 1)), "900.00"),
        (utc(local(2025, 10, 11)), "800.00"),
        (utc(local(2025, 10, 1)), "700.00"),
    ]


def test_without_blocks_each_register_is_asked() -> None:
    items = {di: data for di, data in base().items() if not di.startswith("0001FF")}
    items["00010101"] = kwh("894.00")
    harvest = read(Slave(items), "import_kwh", "import_kwh_t1", "import_kwh_t2", window=month(11))
    assert [str(r.value) for r in harvest.readings] == ["900.00", "894.00"]
    assert [(f.quantity, f.cause) for f in harvest.faults] == [("import_kwh_t2", Cause.REFUSED)]


def test_the_meters_clock_counts_not_ours() -> None:
    """A meter whose clock is a month behind has not settled on November 1st: its last settlement is October's."""
    harvest = read(Slave(base(shown=local(2025, 10, 20))), "import_kwh", window=month(10))
    assert [(r.at, str(r.value)) for r in harvest.readings] == [(utc(local(2025, 10, 1)), "900.00")]


# --- what is not --------------------------------------------------------------------------------------------------


def only_faults(harvest: Harvest) -> set[tuple[str, Cause]]:
    assert harvest.readings == ()
    return {(f.quantity, f.cause) for f in harvest.faults}


@pytest.mark.parametrize("day", ["9999", "ffff"])
def test_no_settlement_day_no_readings(day: str) -> None:
    harvest = read(Slave(base(day=day)), "import_kwh", "import_max_kw")
    assert only_faults(harvest) == {("import_kwh", Cause.UNSUPPORTED), ("import_max_kw", Cause.UNSUPPORTED)}
    assert "no settlement day is set" in harvest.faults[0].detail


@pytest.mark.parametrize("day", ["2401", "0000", "0031", "0a01", "01", "000101"])
def test_a_settlement_day_that_is_none_no_readings(day: str) -> None:
    assert only_faults(read(Slave(base(day=day)), "import_kwh")) == {("import_kwh", Cause.BAD_FRAME)}


@pytest.mark.parametrize("minutes", [-9, 0, 9])
def test_close_to_a_settlement_nothing_is_filed(minutes: int) -> None:
    shown = local(2025, 11, 1) + timedelta(minutes=minutes)
    slave = Slave(base(shown=shown))
    assert only_faults(read(slave, "import_kwh", now=utc(shown))) == {("import_kwh", Cause.NOT_YET)}
    assert not any(di.startswith("0001") for di in slave.asked)


def test_what_was_frozen_before_the_settlement_day_was_changed_is_not_filed() -> None:
    changed = bytes.fromhex("000010051025") + bytes(4) + bytes.fromhex("0015 9999 9999")
    harvest = read(Slave(base({"03300C01": changed})), "import_kwh")
    assert [r.at for r in harvest.readings] == [utc(local(2025, 11, 1))]
    assert {f.cause for f in harvest.faults} == {Cause.NOT_IN_MEMORY}
    assert "changed on 2025-10-05 10:00" in harvest.faults[0].detail


def test_all_zero_is_not_filed_unless_the_meter_was_surely_running() -> None:
    zero = bytes(20)
    items = base({"0001FF03": zero, "00010003": bytes(4)}) | {"00020001": bytes(4), "00020003": bytes(4)}
    september = Window(utc(local(2025, 9, 1)), utc(local(2025, 9, 2)))
    harvest = read(Slave(items), "import_kwh", "import_kwh_t1", window=september)
    assert only_faults(harvest) == {("import_kwh", Cause.NULL_VALUE), ("import_kwh_t1", Cause.NULL_VALUE)}
    export = read(Slave(items), "export_kwh", window=month(11))  # zero, but the import register was not
    assert [str(r.value) for r in export.readings] == ["0.00"]
    assert only_faults(read(Slave(items), "export_kwh", window=september)) == {("export_kwh", Cause.NULL_VALUE)}


def test_null_damage_and_short_blocks() -> None:
    items = base({"0001FF01": kwh("900.00") + b"\xff" * 4 + b"\0\x0b\0\0", "01010001": b"\xff" * 8})
    harvest = read(Slave(items), *TOU[:4], "import_max_kw", "voltage_v_a", window=month(11))
    assert [str(r.value) for r in harvest.readings] == ["900.00"]
    assert {(f.quantity, f.cause) for f in harvest.faults} == {
        ("import_kwh_t1", Cause.NULL_VALUE),
        ("import_kwh_t2", Cause.BAD_FRAME),
        ("import_kwh_t3", Cause.UNSUPPORTED),
        ("import_max_kw", Cause.NULL_VALUE),
        ("voltage_v_a", Cause.UNSUPPORTED),
    }


def test_a_window_without_any_settlement() -> None:
    harvest = read(Slave(base()), "import_kwh", window=Window(utc(local(2025, 10, 3)), utc(local(2025, 10, 9))))
    assert only_faults(harvest) == {("import_kwh", Cause.NOT_IN_MEMORY)}
    assert "2024-12-01 00:00 to 2025-11-01 00:00" in harvest.faults[0].detail


def test_the_future_is_not_filed() -> None:
    """A clock a month ahead has settled on days that are still to come."""
    window = Window(utc(local(2025, 11, 1)), utc(local(2026, 1, 1)))
    harvest = read(Slave(base(shown=local(2025, 12, 20))), "import_kwh", window=window)
    assert [(r.at, str(r.value)) for r in harvest.readings] == [(utc(local(2025, 11, 1)), "800.00")]
    assert {f.cause for f in harvest.faults} == {Cause.NOT_YET}


def test_silence_halfway_keeps_what_came() -> None:
    slave = Slave(base())

    def reply(request: bytes) -> Iterable[bytes]:
        answer = list(slave(request))
        return [] if slave.asked[-1] == "00010002" else answer

    conversation = DRIVER.read(meter(), job(ReadKind.SETTLEMENT, "import_kwh", window=YEAR), now=NOW)
    harvest = converse(conversation, reply)
    assert [r.at for r in harvest.readings] == [utc(local(2025, 11, 1))]
    assert {f.cause for f in harvest.faults} == {Cause.NO_ANSWER}
    assert len(harvest.faults) == 11


def test_a_meter_that_says_no_to_everything() -> None:
    with pytest.raises(Refused):
        read(Slave({}), "import_kwh")
    with pytest.raises(Refused, match="password"):
        converse(
            DRIVER.read(meter(), job(ReadKind.SETTLEMENT, "import_kwh", window=YEAR), now=NOW),
            lambda _: [refusal(0x04)],
        )
    answers = iter([read_answer("04000B01", b"\0\1")])
    with pytest.raises(NoAnswer):
        converse(
            DRIVER.read(meter(), job(ReadKind.SETTLEMENT, "import_kwh", window=YEAR), now=NOW),
            lambda _: [chunk for chunk in (next(answers, b""),) if chunk],
        )


def test_a_window_is_needed() -> None:
    with pytest.raises(UsageError, match="window"):
        next(DRIVER.read(meter(), job(ReadKind.SETTLEMENT, "import_kwh"), now=NOW))


# --- times --------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(1, 28), st.integers(0, 23)), min_size=1, max_size=3, unique=True),
    st.datetimes(datetime(2002, 1, 1), datetime(2098, 1, 1)),  # noqa: DTZ001
)
def test_settlements_go_back_without_a_gap(days: list[tuple[int, int]], shown: datetime) -> None:
    before = utc(shown.replace(tzinfo=BEIJING))
    times = settlement_times(tuple(days), before, BEIJING, 12)
    assert len(times) == 12
    assert times == sorted(set(times), reverse=True)
    assert times[0] <= before
    assert all((at.astimezone(BEIJING).day, at.astimezone(BEIJING).hour) in days for at in times)
    assert times[0] - times[len(days)] <= timedelta(days=31)
    assert before - times[0] < timedelta(days=31)


def test_no_days_no_times() -> None:
    assert settlement_times((), NOW, BEIJING, 12) == []


# --- into the store -----------------------------------------------------------------------------------------------


def test_settlements_are_stored_as_such(sqlite_store: Store) -> None:
    (device,) = registered(sqlite_store)
    wanted = ReadJob(device, ReadKind.SETTLEMENT, ("import_kwh", "import_max_kw"), month(11))
    slave = Slave(base(), address=device.address)
    harvest = converse(DRIVER.read(device, wanted, now=NOW), slave)
    assert len(harvest.readings) == 2
    outcome = Outcome(wanted, Status.OK, NOW, 0.5, harvest.readings, harvest.faults)
    with sqlite_store.write() as conn:
        write(conn, [outcome], EvidencePolicy())
    with sqlite_store.read() as conn:
        energy, demand = (readings.snapshots(conn, device.key, name, month(11)) for name in wanted.quantities)
    assert [(r.units, r.source, r.at) for r in energy] == [(9_000_000, Source.SETTLEMENT, utc(local(2025, 11, 1)))]
    assert [(r.units, r.source) for r in demand] == [(123_456, Source.SETTLEMENT)]
