"""Reading the present of a DLMS meter: registers, demands, clock, single attributes, orders; against the simulator."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from headend.access import memory_access
from headend.conversation import play
from headend.errors import NoAccess, NoAnswer, ProtocolError, Refused, Unsupported, UsageError
from headend.model import Cause, CurveSpec, Harvest, Quality, ReadJob, ReadKind, Source, SwitchState, Window
from headend.protocols.dlms.axdr import Datum, Tag
from headend.protocols.dlms.clock_task import ClockChange, change_clock
from headend.protocols.dlms.control import switch
from headend.protocols.dlms.events import Event, read_events
from headend.protocols.dlms.items import decode_item, is_item, parse_item, read_item
from headend.protocols.dlms.objects import Scale, number_of, object_of, quantity_at
from headend.protocols.dlms.read import discover, read
from headend.protocols.dlms.settings import DlmsObject, DlmsSettings, EventLog
from headend.quantities import QUANTITIES, quantity
from simulators import dlms_axdr as axdr
from simulators.dlms_spec import DlmsSpec
from tests.dlms_kit import MANAGER, NOW, READER, Bench, bench
from tests.dlms_talk import AARE, AARQ, WRAPPER, script

GET, GET_LIST, GET_NEXT = b"\xc0\x01", b"\xc0\x03", b"\xc0\x02"


def registers(on: Bench, *names: str, kind: ReadKind = ReadKind.REGISTERS) -> Harvest:
    job = ReadJob(on.meter, kind, names)
    return on.run(read(on.meter, job, now=NOW, access=on.access))


def values(harvest: Harvest) -> dict[str, Decimal]:
    return {reading.quantity: reading.value for reading in harvest.readings}


def services(on: Bench) -> Counter[str]:
    """Requests sent since the last count, by service; wrapper without ciphering."""
    kinds = Counter({GET: "get", GET_LIST: "list", GET_NEXT: "next"}.get(sent[8:10], "other") for sent in on.sent)
    on.sent.clear()
    return kinds


# --- registers ------------------------------------------------------------------------------------------------------

BILLING = ("import_kwh", "import_kwh_t1", "import_kwh_t2", "import_kwh_t3", "import_kwh_t4")


def test_a_billing_read_is_one_round_trip_once_scalers_are_known() -> None:
    on = bench(replace(READER, with_list_max=20))
    first = registers(on, *BILLING)
    assert not first.faults
    assert values(first)["import_kwh"] == on.kwh(NOW)
    rates = on.sim.register.units_rates(int(NOW.timestamp()))
    assert [values(first)[f"import_kwh_t{n}"] for n in range(1, 5)] == [Decimal(u // 10).scaleb(-3) for u in rates]
    assert {reading.source for reading in first.readings if reading.quantity != "clock_offset_s"} == {Source.CURRENT}
    assert {reading.at for reading in first.readings} == {NOW}
    assert services(on) == {"list": 1, "other": 1}  # the AARQ
    length = len(on.sent)
    assert registers(on, *BILLING) == first
    assert services(on) == {"list": 1, "other": 1}
    assert length == 0


def test_what_is_known_of_scalers_is_not_asked_again() -> None:
    on = bench()
    registers(on, "import_kwh")
    with_scaler = sum(map(len, on.sent))
    on.sent.clear()
    registers(on, "import_kwh")
    assert with_scaler - sum(map(len, on.sent)) == 10  # one attribute descriptor


def test_a_scaler_that_is_set_is_never_asked_for() -> None:
    place = DlmsObject("import_kwh", "1.0.1.8.0.255", scaler=-1, unit=30)
    on = bench(replace(READER, objects=(place,)))
    assert values(registers(on, "import_kwh"))["import_kwh"] == on.kwh(NOW) / 10
    assert on.access.memo == {}


@pytest.mark.parametrize(("scaler", "cut"), [(-1, 1), (0, 10), (3, 10_000), (1, 100)])
def test_scalers_give_the_true_energy_cut_as_the_meter_shows_it(scaler: int, cut: int) -> None:
    on = bench(spec=DlmsSpec(scaler=scaler))
    units = on.units(NOW) // cut * cut
    assert values(registers(on, "import_kwh"))["import_kwh"] * 10_000 == units


@pytest.mark.parametrize("how", ["exception", "refuse"])
def test_lists_refused_are_asked_one_by_one_and_remembered(how: str) -> None:
    on = bench(with_list=how)
    first = registers(on, *BILLING)
    assert values(first)["import_kwh"] == on.kwh(NOW)
    assert len(first.readings) == 6
    on.sent.clear()
    registers(on, *BILLING)
    assert services(on)["list"] == 0


def test_each_refusal_is_the_fault_of_its_own_quantity() -> None:
    on = bench()
    harvest = registers(on, "import_kwh", "q1_kvarh", "voltage_v_b")
    assert {fault.quantity: fault.cause for fault in harvest.faults} == {
        "q1_kvarh": Cause.UNSUPPORTED,
        "voltage_v_b": Cause.UNSUPPORTED,
    }
    assert "object undefined" in harvest.faults[0].detail
    assert values(harvest)["import_kwh"] == on.kwh(NOW)


def test_null_data_is_a_value_that_is_not_there() -> None:
    on = bench()
    on.sim.set_value("1.0.1.8.0.255", b"\x00")
    (fault,) = registers(on, "import_kwh").faults
    assert (fault.quantity, fault.cause) == ("import_kwh", Cause.NULL_VALUE)


def test_text_where_a_number_is_due_is_refused() -> None:
    on = bench()
    on.sim.set_value("1.0.1.8.0.255", axdr.octets(b"1234"))
    (fault,) = registers(on, "import_kwh").faults
    assert (fault.cause, fault.detail) == (
        Cause.BAD_FRAME,
        "the meter gives octet-string for import_kwh, a number is due",
    )


def test_another_unit_is_no_value_of_this_quantity() -> None:
    wrong = DlmsObject("import_kwh", "1.0.1.7.0.255")  # a power
    on = bench(replace(READER, objects=(wrong,)))
    (fault,) = registers(on, "import_kwh").faults
    assert fault.cause is Cause.UNSUPPORTED
    assert "the meter gives W where kWh is due" in fault.detail


def test_a_channel_is_another_object() -> None:
    on = bench(replace(READER, objects=(DlmsObject("import_kwh", "1.1.1.8.0.255"),)))
    (fault,) = registers(on, "import_kwh").faults
    assert fault.cause is Cause.UNSUPPORTED
    settings = on.meter.details
    assert isinstance(settings, DlmsSettings)
    assert quantity_at(settings, bytes((1, 0, 1, 8, 0, 255))) is None  # it is elsewhere in this meter
    moved = quantity_at(settings, bytes((1, 1, 1, 8, 0, 255)))
    assert moved is not None
    assert moved[0].name == "import_kwh"
    assert quantity_at(DlmsSettings(), bytes((1, 0, 1, 8, 0, 101))) is None  # a billing period that is over


def test_momentary_values_are_of_the_instant() -> None:
    on = bench()
    harvest = registers(on, "voltage_v_a", "frequency_hz", "power_factor")
    assert values(harvest)["frequency_hz"] == 50
    assert 190 < values(harvest)["voltage_v_a"] < 260
    assert all(reading.source is Source.INSTANT for reading in harvest.readings)


def test_every_quantity_has_an_object_or_none_is_known() -> None:
    without = {name for name in QUANTITIES if object_of(DlmsSettings(), name) is None}
    assert without == {name for name, one in QUANTITIES.items() if not one.obis}
    assert {f"status_word_{n}" for n in range(2, 8)} <= without
    classes = {name: place.class_id for name in QUANTITIES if (place := object_of(DlmsSettings(), name))}
    assert (classes["import_kwh"], classes["import_max_kw"], classes["demand_kw"]) == (3, 4, 5)
    assert classes["status_word_1"] == 1


# --- the clock ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error_s", [0, 7, -125])
@pytest.mark.parametrize("deviation", ["blue-book", "unspecified"])
@pytest.mark.parametrize("time_tag", ["octets", "date-time"])
def test_the_clocks_offset(error_s: int, deviation: str, time_tag: str) -> None:
    on = bench(spec=DlmsSpec(clock_error_s=error_s), deviation=deviation, time_tag=time_tag)
    assert values(registers(on, kind=ReadKind.CLOCK)) == {"clock_offset_s": error_s}


def test_a_reversed_deviation_is_a_knob() -> None:
    assert values(registers(bench(deviation="reversed"), kind=ReadKind.CLOCK)) == {"clock_offset_s": 57_600}
    on = bench(replace(READER, deviation_reversed=True), deviation="reversed")
    assert values(registers(on, kind=ReadKind.CLOCK)) == {"clock_offset_s": 0}


def test_a_clock_that_shows_nothing_is_a_fault_only_where_it_was_asked_for() -> None:
    on = bench()
    on.sim.set_value("0.0.1.0.0.255", axdr.octets(b"\xff" * 12))
    assert registers(on, "import_kwh").faults == ()
    (fault,) = registers(on, kind=ReadKind.CLOCK).faults
    assert (fault.quantity, fault.cause) == ("clock_offset_s", Cause.NULL_VALUE)


def test_a_sample_stands_for_its_boundary() -> None:
    boundary = NOW.replace(minute=0, second=0)
    on = bench(model=lambda model: replace(model, curve=CurveSpec("sample", 900, 1)))
    job = ReadJob(on.meter, ReadKind.SAMPLE, ("import_kwh",), Window(boundary, boundary + timedelta(minutes=15)))
    (reading,) = on.run(read(on.meter, job, now=NOW, access=on.access)).readings
    assert (reading.at, reading.taken_at, reading.source, reading.step_s) == (boundary, NOW, Source.CURVE, 900)
    assert reading.value == on.kwh(NOW)


CLOCK_ITEM, DEMAND = "000800000100 00FF0200", "00040100010600FF"


def test_a_demand_comes_with_the_time_it_occurred() -> None:
    """By hand: one GET with a list of clock, value, capture time, scaler and unit of class 4, 1-0:1.6.0."""
    ask = "C003C104" + CLOCK_ITEM + "".join(f"{DEMAND}{n:02X}00" for n in (2, 5, 3))
    time, occurred = "07EA030A020C071E00FE2000", "07EA0305041200000 0FE2000"
    answer = f"C403C104 00090C{time} 0006000010E1 00090C{occurred} 0002020F001 61B"
    meter = replace(bench().meter, address="1", details=WRAPPER)
    job = ReadJob(meter, ReadKind.REGISTERS, ("import_max_kw",))
    talk = script(f">{AARQ}", f"<{AARE}", f">{ask}", f"<{answer.replace(' ', '')}")
    demand, clock = play(read(meter, job, now=NOW, access=memory_access()), talk).readings
    assert (demand.value, demand.occurred_at) == (Decimal("4.321"), datetime(2026, 3, 5, 10, 0, tzinfo=UTC))
    assert (demand.at, clock.value) == (NOW, Decimal(0))


# --- who is let in --------------------------------------------------------------------------------------------------


def test_a_ciphered_association_gives_the_same_values() -> None:
    on = bench(MANAGER)
    assert values(registers(on, "import_kwh"))["import_kwh"] == on.kwh(NOW)
    assert on.access.counter("tx").value > 0


def test_a_wrong_password_is_no_access_and_stays_secret() -> None:
    on = bench()
    job = ReadJob(on.meter, ReadKind.REGISTERS, ("import_kwh",))
    with pytest.raises(NoAccess) as caught:
        on.run(read(on.meter, job, now=NOW, access=memory_access({"password": b"87654321"})))
    assert "87654321" not in str(caught.value)


def test_a_silent_meter_is_no_answer() -> None:
    on = bench(fail_at="get", fail_how="silent")
    with pytest.raises(NoAnswer):
        registers(on, "import_kwh")


def test_an_association_is_closed_after_an_error_too() -> None:
    on = bench(replace(READER, interface="hdlc"), fail_at="get", fail_how="garbage")
    with pytest.raises(ProtocolError):
        registers(on, "import_kwh")
    assert on.sent[-1][6] == 0x53  # DISC


def test_what_a_dlms_meter_has_not() -> None:
    on = bench()
    with pytest.raises(Unsupported, match="timed freeze"):
        registers(on, "import_kwh", kind=ReadKind.TIMED_FREEZE)
    with pytest.raises(Unsupported, match="address"):
        on.run(discover())


# --- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("datum", "scale", "name", "value"),
    [
        (Datum(Tag.DOUBLE_LONG_UNSIGNED, 123_456_789), Scale(0, 30), "import_kwh", "123456.789"),
        (Datum(Tag.LONG64_UNSIGNED, 1_234_567), Scale(-2, 30), "import_kwh", "12.3456"),  # cut, not rounded
        (Datum(Tag.LONG_UNSIGNED, 12_345), Scale(-4, 35), "voltage_v_a", "1.2345"),
        (Datum(Tag.LONG_UNSIGNED, 12_345), Scale(-5, 35), "voltage_v_a", "0.1234"),  # half to even
        (Datum(Tag.FLOAT32, Decimal("230.15")), Scale(0, 35), "voltage_v_a", "230.15"),
        (Datum(Tag.DOUBLE_LONG, -1500), Scale(0, 27), "power_kw", "-1.5"),
        (Datum(Tag.LONG, 990), Scale(-3, 255), "power_factor", "0.99"),
        (Datum(Tag.NULL, None), Scale(0, 30), "import_kwh", None),
        (Datum(Tag.DOUBLE_LONG_UNSIGNED, 7), Scale(3, 0), "import_kwh", "7"),  # unit not told: Wh
    ],
)
def test_numbers_become_ours_exactly(datum: Datum, scale: Scale, name: str, value: str | None) -> None:
    assert number_of(datum, quantity(name), scale) == (None if value is None else Decimal(value))


# --- single attributes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("0.0.96.1.0.255", "1/0.0.96.1.0.255/2"),
        ("1-0:1.8.0", "3/1.0.1.8.0.255/2"),
        ("3/1.0.1.8.0.255/3", "3/1.0.1.8.0.255/3"),
        ("1.0.99.1.0.255/3", "7/1.0.99.1.0.255/3"),
        ("70/0.0.96.3.10.255/4", "70/0.0.96.3.10.255/4"),
    ],
)
def test_an_attribute_is_named_with_or_without_class(text: str, named: str) -> None:
    assert str(parse_item(text)) == named


@pytest.mark.parametrize(
    "text", ["import_kwh", "1.2", "1.0.1.8.0.999", "0/1.0.1.8.0.255", "3/1.0.1.8.0.255/0", "/2", ""]
)
def test_what_names_no_attribute(text: str) -> None:
    assert not is_item(text)
    with pytest.raises(UsageError):
        parse_item(text)


def test_an_attribute_is_shown_with_its_unit() -> None:
    on = bench()
    data = on.run(read_item("1/17", "1.0.1.8.0.255", meter=on.meter, access=on.access))
    (value,) = decode_item("1.0.1.8.0.255", data)
    assert (value.value, value.unit, value.obis) == (f"{on.kwh(NOW) * 1000:.0f}", "Wh", "1.0.1.8.0.255")
    assert "active energy import" in value.name


def test_names_and_times_are_shown_as_such() -> None:
    on = bench()
    told = {}
    for text in ("0.0.96.1.0.255", "0.0.1.0.0.255"):
        data = on.run(read_item("1/17", text, meter=on.meter, access=on.access))
        told[text] = [value.value for value in decode_item(text, data)]
    assert told == {
        "0.0.96.1.0.255": ["12345678"],
        "0.0.1.0.0.255": ["2026-03-10 12:07:30, deviation -480 min"],
    }


def test_a_structure_is_shown_part_by_part() -> None:
    on = bench()
    data = on.run(read_item("1/17", "1.0.99.1.0.255/3", meter=on.meter, access=on.access))
    shown = decode_item("1.0.99.1.0.255/3", data)
    assert len(shown) == 3 * 4
    assert (shown[1].name.rsplit(" ", 1)[1], shown[1].value) == ("[1.2]", "0.0.1.0.0.255")


def test_an_attribute_that_is_refused_says_so() -> None:
    on = bench()
    with pytest.raises(Refused, match="object undefined"):
        on.run(read_item("1/17", "1/0.0.96.7.21.255/2", meter=on.meter, access=on.access))


def test_bytes_that_are_no_data_are_told_not_raised() -> None:
    (value,) = decode_item("1.0.1.8.0.255", bytes.fromhex("0600"))
    assert value.value is None
    assert value.note


# --- setting the clock, the switch, events --------------------------------------------------------------------------


def test_a_clock_a_little_off_is_shifted() -> None:
    on = bench(MANAGER, spec=DlmsSpec(clock_error_s=95))
    assert on.run(change_clock(on.meter, NOW, on.access)) == ClockChange(95, 0, "shift")
    assert on.sim.clock.error_s == 0


def test_a_clock_far_off_is_set() -> None:
    on = bench(MANAGER, spec=DlmsSpec(clock_error_s=-4000))
    assert on.run(change_clock(on.meter, lambda: NOW, on.access)) == ClockChange(-4000, 0, "time")


def test_a_shift_longer_than_allowed_is_a_time() -> None:
    on = bench(replace(MANAGER, clock_shift_max_s=60), spec=DlmsSpec(clock_error_s=95))
    assert on.run(change_clock(on.meter, NOW, on.access)).way == "time"
    on = bench(replace(MANAGER, clock_set="time"), spec=DlmsSpec(clock_error_s=5))
    assert on.run(change_clock(on.meter, NOW, on.access)) == ClockChange(5, 0, "time")


def test_a_clock_that_is_right_is_left_alone() -> None:
    on = bench(MANAGER)
    assert on.run(change_clock(on.meter, NOW, on.access)) == ClockChange(0, 0, "")
    assert on.sim.heard["set"] == 0
    assert on.sim.heard["action"] == 0


def test_an_order_without_an_answer_is_sent_once_and_said_to_be_unknown() -> None:
    on = bench(MANAGER, spec=DlmsSpec(clock_error_s=-4000), fail_at="set", fail_how="silent")
    with pytest.raises(NoAnswer, match="it may have been done"):
        on.run(change_clock(on.meter, NOW, on.access))
    assert on.sim.heard["set"] == 1


def test_a_client_that_may_only_read_is_refused() -> None:
    on = bench(MANAGER, spec=DlmsSpec(clock_error_s=-4000))
    reader = replace(on.sim.spec, clients=tuple(replace(client, access="read") for client in on.sim.spec.clients))
    on.sim.spec = reader
    with pytest.raises(Refused, match="denied"):
        on.run(change_clock(on.meter, NOW, on.access))


def test_the_switch_goes_off_and_on() -> None:
    on = bench(MANAGER)
    told = [on.run(switch(on.meter, action, on.access)) for action in ("state", "disconnect", "reconnect")]
    assert [(state.connected, state.ready) for state in told if isinstance(state, SwitchState)] == [
        (True, False),
        (False, False),
        (True, False),
    ]
    assert "mode 4" in str(told[0])


def test_a_switch_that_sticks_is_seen() -> None:
    on = bench(MANAGER, spec=DlmsSpec(relay="stuck"))
    state = on.run(switch(on.meter, "disconnect", on.access))
    assert state is not None
    assert state.connected


def test_a_mode_that_waits_for_a_hand() -> None:
    on = bench(MANAGER, spec=DlmsSpec(control_mode=3))
    on.run(switch(on.meter, "disconnect", on.access))
    state = on.run(switch(on.meter, "reconnect", on.access))
    assert state is not None
    assert (state.connected, state.ready) == (False, True)


def test_events_of_a_window_in_words() -> None:
    log = EventLog("standard", "0.0.99.98.0.255", ((62, "disconnected"), (63, "connected")))
    on = bench(replace(READER, event_logs=(log,)))
    start = int(NOW.timestamp()) - 86_400
    for at_s, code in ((start - 10, 63), (start + 60, 62), (start + 120, 63), (start + 180, 77)):
        on.sim.happen(code, at_s)
    window = Window(datetime.fromtimestamp(start, UTC), NOW)
    assert on.run(read_events(on.meter, window, on.access)) == [
        Event("standard", datetime.fromtimestamp(start + 60, UTC), 62, "disconnected"),
        Event("standard", datetime.fromtimestamp(start + 120, UTC), 63, "connected"),
        Event("standard", datetime.fromtimestamp(start + 180, UTC), 77, ""),
    ]


def test_a_model_without_logs_says_what_to_add() -> None:
    on = bench()
    with pytest.raises(Unsupported, match="event_log"):
        on.run(read_events(on.meter, Window(NOW, NOW), on.access))


def test_quality_of_the_present_is_valid() -> None:
    assert {reading.quality for reading in registers(bench(), "import_kwh").readings} == {Quality.VALID}
