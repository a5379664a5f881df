"""Load profile, daily registers and billing periods: asked in every way, against the simulator's truth and by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from headend.errors import BadFrame, NoAnswer, Refused, Unsupported
from headend.model import Cause, CurveSpec, Harvest, Quality, ReadJob, ReadKind, Source, Window
from headend.protocols.dlms.clock import clock_time
from headend.protocols.dlms.read import read
from headend.protocols.dlms.settings import DlmsObject, DlmsProfile, DlmsSettings
from simulators.dlms_profile import Profile as Memory
from simulators.dlms_spec import DlmsQuirks, DlmsSpec
from tests.dlms_kit import MANAGER, NOW, READER, Bench, bench, curve_settings

STEP = timedelta(minutes=15)
DAY = timedelta(days=1)
EDGE = NOW.replace(minute=0, second=0)  # a boundary shortly before now

CLOCK, STATUS, IMPORT = "0.0.1.0.0.255", "0.0.96.10.1.255", "1.0.1.8.0.255"


def curve(on: Bench, start: datetime, end: datetime, *names: str) -> Harvest:
    job = ReadJob(on.meter, ReadKind.CURVE, names or ("import_kwh",), Window(start, end))
    return on.run(read(on.meter, job, now=NOW, access=on.access))


def frozen(on: Bench, kind: ReadKind, start: datetime, end: datetime, *names: str) -> Harvest:
    job = ReadJob(on.meter, kind, names or ("import_kwh",), Window(start, end))
    return on.run(read(on.meter, job, now=NOW, access=on.access))


def points(harvest: Harvest) -> dict[datetime, Decimal]:
    return {reading.at: reading.value for reading in harvest.readings}


def truth(on: Bench, start: datetime, end: datetime, step: timedelta = STEP) -> dict[datetime, Decimal]:
    count = -(-(end - start) // step)
    return {start + i * step: on.kwh(start + i * step) for i in range(count)}


# --- every way to ask -----------------------------------------------------------------------------------------------

WAYS = {
    "range": ({}, {}),
    "range, specified UTC": ({"range_local": False}, {}),
    "range, no deviation": ({"range_deviation": "unspecified"}, {"range_deviation": "refused"}),
    "range taken as local": ({"range_deviation": "unspecified"}, {"range_times": "local"}),
    "range taken as UTC": ({"range_local": False}, {"range_times": "utc"}),
    "range refused": ({}, {"selective": "entry-only"}),
    "reversed deviation": ({"deviation_reversed": True}, {"deviation": "reversed"}),
    "no deviation": ({"range_deviation": "unspecified"}, {"deviation": "unspecified"}),
    "compressed": ({}, {"null_rows": True}),
    "date-time": ({}, {"time_tag": "date-time"}),
    "unix": ({}, {"time_tag": "unix"}),
    "blocks": ({"max_pdu": 128}, {"always_blocks": True}),
    "no list": ({}, {"with_list": "exception"}),
    "HDLC": ({"interface": "hdlc"}, {}),
    "HDLC, compressed, long frames": ({"interface": "hdlc", "max_info_rx": 1024, "window_rx": 3}, {"null_rows": True}),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_day_of_the_load_profile_is_the_truth(way: str) -> None:
    knobs, quirks = WAYS[way]
    on = bench(curve_settings(replace(READER, **knobs)), **quirks)  # type: ignore[arg-type]
    harvest = curve(on, EDGE - DAY, EDGE)
    assert harvest.faults == ()
    assert points(harvest) == truth(on, EDGE - DAY, EDGE)
    assert {(r.source, r.step_s, r.quality, r.taken_at) for r in harvest.readings} == {
        (Source.CURVE, 900, Quality.VALID, NOW)
    }


@pytest.mark.parametrize("selective", ["entry", "none"])
@pytest.mark.parametrize("null_rows", [False, True])
def test_without_a_range_the_values_are_the_same(selective: str, null_rows: bool) -> None:
    on = bench(curve_settings(selective=selective), spec=DlmsSpec(memory_days=5), null_rows=null_rows)
    harvest = curve(on, EDGE - 2 * DAY, EDGE - DAY)
    assert harvest.faults == ()
    assert points(harvest) == truth(on, EDGE - 2 * DAY, EDGE - DAY)


def test_entries_are_found_in_few_questions() -> None:
    on = bench(curve_settings(selective="entry"))
    curve(on, EDGE - 20 * DAY, EDGE - 20 * DAY + 4 * STEP)  # columns and scalers are known now
    before = on.sim.heard["get"]
    harvest = curve(on, EDGE - 30 * DAY, EDGE - 30 * DAY + 8 * STEP)
    assert points(harvest) == truth(on, EDGE - 30 * DAY, EDGE - 30 * DAY + 8 * STEP)
    assert on.sim.heard["get"] - before <= 7  # entries in use, both ends, two probes, the rows


def test_entries_are_found_where_rows_are_missing() -> None:
    on = bench(curve_settings(selective="entry"), spec=DlmsSpec(memory_days=20))
    gap = (EDGE - 9 * DAY, EDGE - 5 * DAY)
    on.sim.lose_rows(int(gap[0].timestamp()), int(gap[1].timestamp()))
    start, end = EDGE - 10 * DAY, EDGE - 4 * DAY
    harvest = curve(on, start, end)
    expected = {at: value for at, value in truth(on, start, end).items() if not gap[0] <= at < gap[1]}
    assert points(harvest) == expected
    (fault,) = harvest.faults
    assert (fault.cause, fault.window) == (Cause.NOT_IN_MEMORY, Window(*gap))


def test_a_refused_range_is_remembered() -> None:
    on = bench(curve_settings(), selective="entry-only")
    curve(on, EDGE - 4 * STEP, EDGE)
    on.sent.clear()
    curve(on, EDGE - 4 * STEP, EDGE)
    ranges = [data for data in on.sent if data[8:10] == b"\xc0\x01" and data[20:22] == b"\x01\x01"]
    assert ranges == []


def test_a_meter_that_refuses_every_selection_says_so() -> None:
    on = bench(curve_settings(), selective="refuse")
    with pytest.raises(Refused, match="scope of access violated"):
        curve(on, EDGE - DAY, EDGE)


def test_a_meter_that_ignores_the_range_is_read_all_the_same() -> None:
    on = bench(curve_settings(), spec=DlmsSpec(memory_days=3), selective="ignore")
    assert points(curve(on, EDGE - DAY, EDGE)) == truth(on, EDGE - DAY, EDGE)


def test_a_ciphered_profile() -> None:
    on = bench(curve_settings(MANAGER))
    assert points(curve(on, EDGE - DAY, EDGE)) == truth(on, EDGE - DAY, EDGE)


# --- columns and scalers --------------------------------------------------------------------------------------------


def test_columns_and_scalers_that_are_set_are_never_asked_for() -> None:
    on = bench(curve_settings(columns=(CLOCK, STATUS, IMPORT), scalers=(0, 0, -1)))
    harvest = curve(on, EDGE - DAY, EDGE)
    assert points(harvest) == {at: value / 10 for at, value in truth(on, EDGE - DAY, EDGE).items()}
    assert on.sim.heard["get"] == 1


def test_columns_and_scalers_are_asked_once() -> None:
    on = bench(curve_settings())
    curve(on, EDGE - DAY, EDGE)
    asked = on.sim.heard["get"]
    curve(on, EDGE - DAY, EDGE)
    assert on.sim.heard["get"] - asked == 1
    assert asked == 3  # columns and period, scaler, rows


def test_columns_that_changed_are_noticed_not_misread() -> None:
    on = bench(curve_settings())
    curve(on, EDGE - DAY, EDGE)
    other = replace(on.sim.spec, columns=(CLOCK, "1.0.2.8.0.255", STATUS, IMPORT))
    changed = bench(curve_settings(), spec=other)
    changed.access = on.access
    with pytest.raises(BadFrame, match="holds 4 values, its columns are 3"):
        curve(changed, EDGE - DAY, EDGE)
    assert points(curve(changed, EDGE - DAY, EDGE)) == truth(changed, EDGE - DAY, EDGE)


def test_a_quantity_the_profile_does_not_hold() -> None:
    harvest = curve(bench(curve_settings()), EDGE - DAY, EDGE, "import_kwh", "voltage_v_a")
    (fault,) = harvest.faults
    assert (fault.quantity, fault.cause) == ("voltage_v_a", Cause.UNSUPPORTED)
    assert len(harvest.readings) == 96


def test_two_columns() -> None:
    spec = DlmsSpec(columns=(CLOCK, STATUS, IMPORT, "1.0.1.8.2.255"))
    on = bench(curve_settings(), spec=spec)
    harvest = curve(on, EDGE - 4 * STEP, EDGE, "import_kwh_t2", "import_kwh")
    rate = {
        EDGE - n * STEP: Decimal(on.sim.register.units_rates(int((EDGE - n * STEP).timestamp()))[1] // 10).scaleb(-3)
        for n in range(1, 5)
    }
    assert {r.at: r.value for r in harvest.readings if r.quantity == "import_kwh_t2"} == rate
    assert {r.at: r.value for r in harvest.readings if r.quantity == "import_kwh"} == truth(on, EDGE - 4 * STEP, EDGE)


def test_a_profile_of_another_step_than_the_model_is_refused() -> None:
    def hourly(model):  # type: ignore[no-untyped-def]
        return replace(model, curve=CurveSpec("profile", 3600, 62))

    with pytest.raises(Unsupported, match="every 900 s, its model says 3600 s"):
        curve(bench(curve_settings(), model=hourly), EDGE - DAY, EDGE)


def test_a_model_without_such_a_memory() -> None:
    on = bench(READER, model=lambda model: replace(model, curve=None))
    for kind, what in (
        (ReadKind.CURVE, "no load profile"),
        (ReadKind.DAILY_FREEZE, "no daily profile"),
        (ReadKind.SETTLEMENT, "no billing profile"),
    ):
        with pytest.raises(Unsupported, match=what):
            frozen(on, kind, EDGE - DAY, EDGE)


# --- what is missing or marked --------------------------------------------------------------------------------------


def test_missing_slots_are_one_window() -> None:
    on = bench(curve_settings())
    gap = (EDGE - 40 * STEP, EDGE - 30 * STEP)
    on.sim.lose_rows(int(gap[0].timestamp()), int(gap[1].timestamp()))
    harvest = curve(on, EDGE - DAY, EDGE)
    (fault,) = harvest.faults
    assert (fault.quantity, fault.cause, fault.window) == ("import_kwh", Cause.NOT_IN_MEMORY, Window(*gap))
    assert len(harvest.readings) == 86


@pytest.mark.parametrize(
    ("bits", "quality"),
    [
        (0x01, Quality.SUSPECT),  # critical error
        (0x02, Quality.SUSPECT),  # clock invalid
        (0x04, Quality.SUSPECT),  # data not valid
        (0x08, Quality.VALID),  # daylight saving
        (0x20, Quality.VALID),  # clock adjusted
        (0x80, Quality.VALID),  # power down
    ],
)
def test_the_profile_status_tells_what_to_doubt(bits: int, quality: Quality) -> None:
    on = bench(curve_settings())
    marked = EDGE - 10 * STEP
    on.sim.mark_rows(int(marked.timestamp()), int((marked + STEP).timestamp()), bits)
    harvest = curve(on, EDGE - DAY, EDGE)
    assert {r.at for r in harvest.readings if r.quality is not Quality.VALID} == (
        {marked} if quality is Quality.SUSPECT else set()
    )
    assert len(harvest.readings) == 96


def test_rows_off_the_grid_are_in_no_slot() -> None:
    harvest = by_hand([(EDGE - 2 * STEP, 100), (EDGE - STEP + timedelta(minutes=7), 200)], EDGE - 2 * STEP, EDGE)
    assert points(harvest) == {EDGE - 2 * STEP: Decimal("0.1")}
    (fault,) = harvest.faults
    assert (fault.cause, fault.window) == (Cause.NOT_IN_MEMORY, Window(EDGE - STEP, EDGE))
    assert "is not on the grid" in fault.detail


def test_two_rows_of_one_time_that_differ_are_doubted() -> None:
    harvest = by_hand([(EDGE - STEP, 100), (EDGE - STEP, 105)], EDGE - STEP, EDGE)
    (reading,) = harvest.readings
    assert reading.quality is Quality.SUSPECT


def test_rows_for_other_times_are_no_proof_that_there_are_none() -> None:
    far = EDGE - 10 * DAY
    harvest = by_hand([(far, 100), (far + STEP, 105)], EDGE - 4 * STEP, EDGE)
    (fault,) = harvest.faults
    assert fault.cause is Cause.BAD_FRAME
    assert "range_local" in fault.detail


def test_an_hour_off_is_not_filed_under_the_hour_asked() -> None:
    """A meter that takes local times for UTC answers for other hours; nothing of it may be moved."""
    on = bench(curve_settings(), range_times="utc")
    harvest = curve(on, EDGE - 2 * DAY, EDGE - 2 * DAY + 4 * STEP)
    assert harvest.readings == ()
    assert {fault.cause for fault in harvest.faults} == {Cause.BAD_FRAME}


def test_what_came_before_a_failure_stands() -> None:
    on = bench(curve_settings(), fail_at="get", fail_how="silent", fail_after=3)
    start = EDGE - 8 * DAY
    harvest = curve(on, start, EDGE)
    assert points(harvest) == truth(on, start, start + 384 * STEP)
    (fault,) = harvest.faults
    assert (fault.cause, fault.window) == (Cause.NO_ANSWER, Window(start + 384 * STEP, EDGE))


def test_nothing_before_a_failure_is_the_failure() -> None:
    on = bench(curve_settings(), fail_at="get", fail_how="silent")
    with pytest.raises(NoAnswer):
        curve(on, EDGE - DAY, EDGE)


def test_an_invalid_clock_makes_its_rows_doubtful() -> None:
    on = bench(curve_settings())
    on.sim.clock.status = 1
    harvest = curve(on, EDGE - DAY, EDGE)
    assert {reading.quality for reading in harvest.readings} == {Quality.SUSPECT}


# --- stamps, intervals ----------------------------------------------------------------------------------------------


class ByHand(Memory):
    """A profile whose buffer is one cell, written beforehand, whatever is asked."""

    def rows(self, times: Sequence[int], quirks: DlmsQuirks, wanted: Sequence[int] | None = None) -> bytes:
        return self.cell(0, "")


def by_hand(
    rows: list[tuple[datetime, int]],
    start: datetime,
    end: datetime,
    *,
    obis: str = IMPORT,
    name: str = "import_kwh",
    **spec: str,
) -> Harvest:
    """The harvest of a load profile that holds these rows, whatever is asked: times and Wh."""
    columns = (CLOCK, obis)
    place = DlmsObject(name, obis, scaler=0, unit=30)
    on = bench(replace(READER, objects=(place,), profile=DlmsProfile(columns=columns, **spec)), columns=(name,))  # type: ignore[arg-type]
    own = on.meter.details
    assert isinstance(own, DlmsSettings)

    body = bytes((0x01, len(rows)))
    for at, wh in rows:
        body += b"\x02\x02\x09\x0c" + clock_time(at, own, "+08:00") + b"\x06" + wh.to_bytes(4, "big")
    load = on.sim.profiles["1.0.99.1.0.255"]
    on.sim.profiles["1.0.99.1.0.255"] = ByHand(load.obis, columns, 900, 9, lambda: (), lambda at, column: body)
    return curve(on, start, end, name)


def test_a_stamp_at_the_start_of_its_interval_is_a_boundary_later() -> None:
    harvest = by_hand([(EDGE - 3 * STEP, 100), (EDGE - 2 * STEP, 105)], EDGE - 2 * STEP, EDGE, stamp="start")
    assert points(harvest) == {EDGE - 2 * STEP: Decimal("0.1"), EDGE - STEP: Decimal("0.105")}


@pytest.mark.parametrize(("stamp", "shift"), [("end", STEP), ("start", timedelta())])
def test_consumption_is_filed_under_the_start_of_its_interval(stamp: str, shift: timedelta) -> None:
    start = EDGE - 2 * STEP
    harvest = by_hand(
        [(start + shift, 30), (start + STEP + shift, 40)],
        start,
        EDGE,
        obis="1.0.1.29.0.255",
        name="import_interval_kwh",
        stamp=stamp,
    )
    assert points(harvest) == {start: Decimal("0.03"), start + STEP: Decimal("0.04")}
    assert harvest.faults == ()


# --- daily registers and billing periods ----------------------------------------------------------------------------

LOCAL_MIDNIGHT = datetime(2026, 3, 9, 16, 0, tzinfo=UTC)  # 2026-03-10 00:00 +08:00


@pytest.mark.parametrize("selective", ["range", "entry", "none"])
def test_daily_registers_at_local_midnights(selective: str) -> None:
    daily = DlmsProfile(obis="1.0.99.2.0.255", selective=selective)  # type: ignore[arg-type]
    on = bench(replace(READER, daily=daily), spec=DlmsSpec(daily_days=30))
    start = LOCAL_MIDNIGHT - 10 * DAY
    harvest = frozen(on, ReadKind.DAILY_FREEZE, start, LOCAL_MIDNIGHT + timedelta(seconds=1))
    assert harvest.faults == ()
    assert points(harvest) == {start + n * DAY: on.kwh(start + n * DAY) for n in range(11)}
    assert {reading.source for reading in harvest.readings} == {Source.DAILY_FREEZE}


def test_days_before_the_memory_are_not_held() -> None:
    on = bench(curve_settings(), spec=DlmsSpec(daily_days=3))
    start = LOCAL_MIDNIGHT - 5 * DAY
    harvest = frozen(on, ReadKind.DAILY_FREEZE, start, LOCAL_MIDNIGHT + STEP)
    assert len(harvest.readings) == 3
    (fault,) = harvest.faults
    assert (fault.cause, fault.window) == (Cause.NOT_IN_MEMORY, Window(start, start + 3 * DAY))


def test_daily_registers_over_a_change_of_daylight_saving() -> None:
    now = datetime(2026, 4, 2, 8, 0, tzinfo=UTC)
    on = bench(curve_settings(), spec=DlmsSpec(zone="Europe/Prague"), now=now)
    start = datetime(2026, 3, 26, 23, 0, tzinfo=UTC)  # 2026-03-27 00:00 +01:00
    job = ReadJob(on.meter, ReadKind.DAILY_FREEZE, ("import_kwh",), Window(start, now))
    harvest = on.run(read(on.meter, job, now=now, access=on.access))
    midnights = [datetime(2026, 3, day, 23, tzinfo=UTC) for day in (26, 27, 28)]
    midnights += [datetime(2026, 3, day, 22, tzinfo=UTC) for day in (29, 30, 31)]
    midnights += [datetime(2026, 4, 1, 22, tzinfo=UTC)]
    assert points(harvest) == {at: on.kwh(at) for at in midnights}
    assert harvest.faults == ()


def test_billing_periods_at_the_meters_own_times() -> None:
    on = bench(curve_settings())
    start, end = datetime(2025, 12, 15, tzinfo=UTC), NOW
    harvest = frozen(on, ReadKind.SETTLEMENT, start, end, "import_kwh", "import_kwh_t1")
    ends = [
        datetime(2025, 12, 31, 16, tzinfo=UTC),
        datetime(2026, 1, 31, 16, tzinfo=UTC),
        datetime(2026, 2, 28, 16, tzinfo=UTC),
    ]
    assert {r.at: r.value for r in harvest.readings if r.quantity == "import_kwh"} == {at: on.kwh(at) for at in ends}
    assert {r.source for r in harvest.readings} == {Source.SETTLEMENT}
    assert len(harvest.readings) == 6
    assert harvest.faults == ()


def test_a_demand_of_a_billing_period_comes_with_its_time() -> None:
    """An object that stands twice among the columns is its value and when that occurred."""
    demand = "1.0.1.6.0.255"
    end, occurred = datetime(2026, 2, 28, 16, 0, tzinfo=UTC), datetime(2026, 2, 11, 10, 30, tzinfo=UTC)
    spec = DlmsProfile(obis="0.0.98.1.0.255", columns=(CLOCK, demand, demand, ""))
    place = DlmsObject("import_max_kw", demand, 4, scaler=0, unit=27)
    own = replace(READER, objects=(place,), billing=spec)
    on = bench(own)
    stamps = [b"\x09\x0c" + clock_time(at, own, "+08:00") for at in (end, occurred)]
    body = b"\x01\x01\x02\x04" + stamps[0] + b"\x06\x00\x00\x10\xe1" + stamps[1] + b"\x11\x07"
    on.sim.profiles[spec.obis] = ByHand(spec.obis, (CLOCK, demand), 0, 9, lambda: (), lambda at, column: body)
    (reading,) = frozen(on, ReadKind.SETTLEMENT, end - DAY, end + DAY, "import_max_kw").readings
    assert (reading.value, reading.at, reading.occurred_at) == (Decimal("4.321"), end, occurred)


def test_no_billing_period_in_the_window() -> None:
    on = bench(curve_settings())
    (fault,) = frozen(on, ReadKind.SETTLEMENT, NOW - DAY, NOW).faults
    assert fault.cause is Cause.NOT_IN_MEMORY
