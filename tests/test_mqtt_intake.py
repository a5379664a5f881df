"""From a message to the store: placed, checked, kept aside with a reason; the same by the quick way as by the rules."""

from __future__ import annotations

import json
from array import array
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headend.civil import from_epoch_s
from headend.ingest import EvidencePolicy
from headend.model import Cause, Meter, Quality, Reading, SlotState, Source, Window
from headend.mqtt.gaps import Gaps
from headend.mqtt.interpret import Understood
from headend.mqtt.judge import Anchors, judged
from headend.mqtt.place import Place, Places
from headend.mqtt.quick import Quick
from headend.mqtt.replay import replay
from headend.quantities import from_units
from headend.store import Store, readings
from headend.store.curve_reads import curve
from headend.store.events import MeterEvent, meter_events
from headend.store.ledger import SlotSet, open_slots
from headend.store.sequences import sequence_state
from headend.store.sheets import Sheet, Written, write_messages
from headend.store.unplaced import unplaced
from headend.validation.plausible import Anchor, doubtful
from tests.mqtt_kit import BASE, MODEL, NOW, add_meters, address_of, interpreter, message, points, rows

ONE = address_of("C0001", 1)
READS = "hes/v1/C0001/up/reads"
POLICY = EvidencePolicy()
ALL = Window(datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC))


def keep(store: Store, understood: Understood) -> Written:
    with store.write() as conn:
        return write_messages(conn, [understood.message], POLICY)[0]


def aside(store: Store) -> list[tuple[str, str, int]]:
    with store.read() as conn:
        return [(row.peer, row.reason, row.times) for row in unplaced(conn, channels="mqtt ")]


# -- what is stored ----------------------------------------------------------------------------------------------------


def test_intervals_become_a_curve_and_sent_again_change_nothing(store: Store) -> None:
    meters = add_meters(store)
    understand = interpreter(meters).understand
    payload = message(meters=[rows(ONE, (BASE + 1800, 103), (BASE, 100), (BASE + 900, 101))])
    first = keep(store, understand(READS, payload, NOW))
    again = keep(store, understand(READS, payload, NOW))
    assert (first.new, first.same, again.new, again.same) == (3, 0, 0, 3)
    assert points(store, meters[0]) == {BASE: (10_000, 1), BASE + 900: (10_100, 1), BASE + 1800: (10_300, 1)}
    assert (first.upto, again.upto, aside(store)) == (1, 1, [])


def test_bits_say_how_far_a_value_may_be_trusted(store: Store) -> None:
    meters = add_meters(store)
    values = [(BASE + 900 * n, 100 + n, bits) for n, bits in enumerate((0, 1, 2, 8, 3, 4, 16))]
    keep(store, interpreter(meters).understand(READS, message(meters=[rows(ONE, *values)]), NOW))
    told = [points(store, meters[0]).get(BASE + 900 * n, (0, 0))[1] for n in range(7)]
    assert told == [
        Quality.VALID,
        Quality.ESTIMATED,
        Quality.SUSPECT,
        Quality.SUSPECT,
        Quality.SUSPECT,
        Quality.MISSING,
        Quality.VALID,
    ]


def test_nulls_say_why_a_slot_is_still_due(store: Store) -> None:
    meters = add_meters(store)
    instants = tuple(from_epoch_s(BASE + 900 * n) for n in range(3))
    with store.write() as conn:
        open_slots(conn, [SlotSet(meters[0].key, "import_kwh", Source.CURVE, 900, instants)])
    payload = message(meters=[rows(ONE, (BASE, 100), (BASE + 900, [None], 4), (BASE + 1800, [None]))])
    keep(store, interpreter(meters).understand(READS, payload, NOW))
    with store.read() as conn:
        found = curve(conn, meters[0].key, "import_kwh", Window(instants[0], instants[2] + timedelta(seconds=1)))
    assert [(p.state, p.cause) for p in found[1:]] == [(SlotState.DUE, Cause.NULL_VALUE)] * 2


def test_consumption_stands_at_the_start_of_its_interval(store: Store) -> None:
    meters = add_meters(store)
    payload = message(cols=[["1-0:1.29.0", "Wh", 0]], meters=[rows(ONE, (BASE + 900, 250))])
    keep(store, interpreter(meters).understand(READS, payload, NOW))
    assert points(store, meters[0], "import_interval_kwh") == {BASE: (2_500, 1)}


@pytest.mark.parametrize(
    ("kind", "at", "source", "instant"),
    [
        ("register", BASE + 77, Source.CURRENT, BASE + 77),
        ("ondemand", BASE + 77, Source.CURRENT, BASE + 77),
        ("daily_freeze", BASE, Source.DAILY_FREEZE, BASE),
        ("daily_freeze", BASE + 60, Source.DAILY_FREEZE, BASE),
        ("monthly_freeze", BASE + 5, Source.TIMED_FREEZE, BASE + 5),
        ("billing_reset", BASE + 5, Source.SETTLEMENT, BASE + 5),
    ],
)
def test_each_kind_goes_where_it_belongs(store: Store, kind: str, at: int, source: Source, instant: int) -> None:
    meters = add_meters(store)
    payload = message(kind=kind, meters=[rows(ONE, (at, 123_456))])
    understood = interpreter(meters).understand(READS, payload, NOW)
    keep(store, understood)
    with store.read() as conn:
        (row,) = readings.snapshots(conn, meters[0].key, "import_kwh", ALL)
    assert (row.source, int(row.at.timestamp()), row.units) == (source, instant, 12_345_600)
    assert understood.reason == ""


def test_momentary_values_are_instants_and_a_clock_offset_is_kept(store: Store) -> None:
    meters = add_meters(store)
    part = {**rows(ONE, (BASE + 900, [2301])), "clk": -42}
    payload = message(kind="register", cols=[["1-0:32.7.0", "V", -1]], meters=[part])
    keep(store, interpreter(meters).understand(READS, payload, NOW))
    with store.read() as conn:
        volts = readings.snapshots(conn, meters[0].key, "voltage_v_a", ALL)
        clock = readings.snapshots(conn, meters[0].key, "clock_offset_s", ALL)
    assert [(row.source, row.units) for row in volts] == [(Source.INSTANT, 2_301_000)]
    assert [(int(row.at.timestamp()), row.units) for row in clock] == [(BASE + 900, -420_000)]


def test_events_are_kept_once_with_what_told_them(store: Store) -> None:
    meters = add_meters(store)
    told = [
        {"m": ONE, "t": BASE + 5, "code": "cover_open", "phase": "start"},
        {"m": ONE, "t": BASE + 9, "code": "phase_loss", "phase": "end", "data": {"phase": "B"}},
        {"m": ONE, "t": BASE + 9, "code": "phase_loss", "phase": "end", "data": {"phase": "C"}},
        {"m": "nobody", "t": BASE + 9, "code": "x\0y"},
    ]
    said = {**json.loads(message(seq=4)), "type": "events", "events": told}
    understand = interpreter(meters).understand
    understood = understand("hes/v1/C0001/up/events", json.dumps(said).encode(), NOW)
    first = keep(store, understood)
    keep(store, understand("hes/v1/C0001/up/events", json.dumps(said).encode(), NOW))
    with store.read() as conn:
        found = meter_events(conn, meters[0].key, ALL)
    outcome = first.outcome_ids[meters[0].key]
    assert found[0] == MeterEvent(meters[0].key, from_epoch_s(BASE + 5), "cover_open", "start", {}, outcome)
    assert sorted(event.data.get("phase", "") for event in found) == ["", "B", "C"]
    assert understood.reason == "unknown meter nobody"


# -- what is kept aside ------------------------------------------------------------------------------------------------


def bad_messages() -> dict[str, tuple[str, bytes, str]]:
    """Topic, payload and the beginning of the reason, by name."""
    good = rows(ONE, (BASE, 100))
    other = address_of("C0002", 1)
    future = int(NOW.timestamp()) + 601
    return {
        "malformed": (READS, b"{nonsense", "no JSON: "),
        "wrong type": (READS, message(seq="1"), "not as the protocol says: "),  # type: ignore[arg-type]
        "identity": ("hes/v1/C0002/up/reads", message(meters=[good]), "its topic is of C0002, but it says it is C0001"),
        "unknown meter": (READS, message(meters=[good, rows("9", (BASE, 1))]), "unknown meter 9"),
        "another's meter": (
            READS,
            message(meters=[good, rows(other, (BASE, 1))]),
            f"meter {other} is registered behind concentrator C0002",
        ),
        "future": (READS, message(meters=[rows(ONE, (BASE, 100), (future, 1))]), f"{ONE}: dated in the future: "),
        "scaler": (
            READS,
            message(cols=[["1-0:1.8.0", "kWh", -2], ["1-0:2.8.0", "kWh", 99]], meters=[rows(ONE, (BASE, [100, 1]))]),
            "unknown scaler 99 of 1-0:2.8.0",
        ),
        "too fine": (
            READS,
            message(cols=[["1-0:1.8.0", "kWh", -2], ["1-0:2.8.0", "Wh", -2]], meters=[rows(ONE, (BASE, [100, 7]))]),
            f"{ONE}: export_kwh is finer than the store's 0.0001",
        ),
        "too large": (
            READS,
            message(cols=[["1-0:1.8.0", "kWh", -2], ["1-0:2.8.0", "kWh", 9]], meters=[rows(ONE, (BASE, [100, 10**9]))]),
            f"{ONE}: export_kwh is too large for the store",
        ),
        "off the grid": (READS, message(meters=[rows(ONE, (BASE, 100), (BASE + 7, 1))]), f"{ONE}: times off the grid"),
        "torn": (
            READS,
            message(meters=[rows(ONE, (BASE, 100), (BASE + 900, 101), (BASE + 900, 102))]),
            f"{ONE}: two rows of 2025-11-23 16:15:00 UTC differ",
        ),
        "foreign topic": ("some/where/else", message(meters=[good]), "no dialect of this broker takes this topic"),
    }


WHOLE = ("malformed", "wrong type", "identity", "foreign topic")


@pytest.mark.parametrize("name", bad_messages())
def test_what_cannot_be_used_is_kept_aside_with_its_reason(sqlite_store: Store, name: str) -> None:
    meters = add_meters(sqlite_store, ("C0001", "C0002"))
    topic, payload, reason = bad_messages()[name]
    understand = interpreter(meters).understand
    for _ in range(3):
        keep(sqlite_store, understand(topic, payload, NOW))
    (kept,) = aside(sqlite_store)
    assert (kept[0], kept[2]) == (topic, 3)  # the same thing again is counted, not kept again
    assert kept[1].startswith(reason)
    assert points(sqlite_store, meters[0]) == ({} if name in WHOLE else {BASE: (10_000, 1)})
    with sqlite_store.read() as conn:
        assert (sequence_state(conn, "C0001") is None) == (name in WHOLE)


def test_what_is_too_large_is_kept_in_its_beginning(sqlite_store: Store) -> None:
    meters = add_meters(sqlite_store)
    understood = interpreter(meters, max_message_bytes=1000).understand(READS, b"x" * 64, NOW, size=10_000_000)
    assert understood.reason == "10000000 bytes are more than max_message_bytes (1000); the first 64 are kept"
    assert understood.message.sheets == ()


def test_a_dialect_that_breaks_stops_nothing() -> None:
    class Broken:
        name = "broken"
        filters = ("x/#",)

        def decode(self, topic: str, payload: bytes, received_at: datetime) -> Any:
            raise KeyError("oops")

    made = interpreter([])
    made._patterns = [("x/#", Broken())]
    assert made.understand("x/1", b"", NOW).reason == "not understood: KeyError: 'oops'"


def test_a_retained_message_has_no_place_in_the_numbering(sqlite_store: Store) -> None:
    meters = add_meters(sqlite_store)
    payload = message(meters=[rows(ONE, (BASE, 1))])
    understand = interpreter(meters).understand
    assert understand(READS, payload, NOW, retained=True).message.sequence is None
    assert understand(READS, payload, NOW).message.sequence == ("C0001", 1, 1)


def test_what_waits_is_stored_once_its_meter_is_known(store: Store) -> None:
    meters = add_meters(store)
    stranger = address_of("C0001", 4)
    payload = message(meters=[rows(ONE, (BASE, 100)), rows(stranger, (BASE, 7))])
    keep(store, interpreter(meters).understand(READS, payload, NOW))
    with store.read() as conn:
        (row,) = unplaced(conn, channels="mqtt ")
    assert replay(store, interpreter(meters), row, POLICY, NOW) == f"unknown meter {stranger}"
    assert len(aside(store)) == 1
    meters = add_meters(store, count=4)
    assert replay(store, interpreter(meters), row, POLICY, NOW) == ""
    assert aside(store) == []
    assert points(store, next(m for m in meters if m.address == stranger)) == {BASE: (700, 1)}
    assert points(store, meters[0]) == {BASE: (10_000, 1)}


def test_the_bucket_is_the_first_level_of_every_topic(sqlite_store: Store) -> None:
    meters = add_meters(sqlite_store)
    understand = interpreter(meters, bucket="b07").understand
    assert understand(f"b07/{READS}", message(meters=[rows(ONE, (BASE, 1))]), NOW).reason == ""


# -- plausibility ------------------------------------------------------------------------------------------------------


def place_of(meter: Meter) -> Place:
    return Places([meter]).of(meter.line)[meter.address]


def test_a_register_that_falls_is_suspect_and_the_next_is_believed_again(sqlite_store: Store) -> None:
    meters = add_meters(sqlite_store)
    understand = interpreter(meters).understand
    for number, value in enumerate((100, 101, 50, 51, 52)):
        payload = message(seq=number + 1, meters=[rows(ONE, (BASE + 900 * number, value))])
        keep(sqlite_store, understand(READS, payload, NOW))
    told = [points(sqlite_store, meters[0])[BASE + 900 * n][1] for n in range(5)]
    assert told == [1, 1, Quality.SUSPECT, 1, 1]


def test_a_leap_no_wire_can_carry_is_suspect(sqlite_store: Store) -> None:
    meters = add_meters(sqlite_store)
    most = int(Decimal("15.84") / 4 * 100) + 2  # kWh/100 in a quarter of an hour, and the slack
    values = [(BASE, 0), (BASE + 900, most), (BASE + 1800, 2 * most + 50), (BASE + 2700, most + 1)]
    keep(sqlite_store, interpreter(meters).understand(READS, message(meters=[rows(ONE, *values)]), NOW))
    assert [quality for _, quality in points(sqlite_store, meters[0]).values()] == [1, 1, Quality.SUSPECT, 1]


_STEP = 900
_NAMES = (
    "import_kwh",
    "import_kwh_t1",
    "import_kwh_t2",
    "import_kwh_t3",
    "import_kwh_t4",
    "import_kvarh",
    "voltage_v_a",
)


@st.composite
def sheets_of(draw: st.DrawFn) -> list[Sheet]:
    source = draw(st.sampled_from([Source.CURVE, Source.CURRENT, Source.DAILY_FREEZE]))
    names = draw(st.lists(st.sampled_from(_NAMES), unique=True, min_size=1, max_size=len(_NAMES)))
    slots = sorted(draw(st.sets(st.integers(0, 8), min_size=1, max_size=6)))
    step = 86_400 if source is Source.DAILY_FREEZE else _STEP
    steps = st.integers(0, 400) | st.sampled_from([0, -1, 39_600, 39_800, 39_801, 10**9, -(10**6), 9_999_999_999])
    made = []
    for name in names:
        value, units = draw(st.integers(0, 10_000)), []
        for _ in slots:
            value += draw(steps)
            units.append(value)
        times = array("q", [BASE + step * slot for slot in slots])
        qualities = bytes(draw(st.sampled_from([1, 1, 1, 2, 4])) for _ in slots)
        grid = _STEP if source is Source.CURVE else 0
        made.append(Sheet(1, name, source, grid, times, array("q", units), qualities))
    return made


@given(sheets_of(), st.lists(st.tuples(st.integers(-4, 12), st.integers(0, 12_000)), max_size=4))
@settings(max_examples=400)
def test_the_quick_way_marks_what_the_rules_mark(sheets: list[Sheet], held: list[tuple[int, int]]) -> None:
    meter = Meter(1, "M", "1", "hes-mqtt", "C0001", MODEL, "+08:00")
    anchors = Anchors()
    for slot, units in held:
        anchors.add(1, "import_kwh", BASE + _STEP * slot, units)
    flat = [
        Reading(s.quantity, from_units(units), from_epoch_s(at), from_epoch_s(at), s.source, step_s=s.step_s)
        for s in sheets
        for at, units in zip(s.times, s.units, strict=True)
    ]
    known = {"import_kwh": [Anchor(from_epoch_s(BASE + _STEP * slot), from_units(units)) for slot, units in held]}
    bad = doubtful(flat, known, MODEL)
    given_ = [quality for sheet in sheets for quality in sheet.qualities]
    expected = [int(Quality.SUSPECT) if index in bad else quality for index, quality in enumerate(given_)]
    found = [quality for sheet in judged(sheets, place_of(meter), anchors) for quality in sheet.qualities]
    assert found == expected


@given(
    st.lists(st.tuples(st.integers(-4, 4), st.integers(0, 60_000)), max_size=4),
    st.integers(0, 60_000) | st.sampled_from([-1, 10**8, 10**17, None]),
    st.integers(-1, 5_000) | st.none(),
    st.sampled_from([0, 0, 0, 1, 2, 4]),
    st.sampled_from([0, 0, 7]),
)
@settings(max_examples=300)
def test_the_short_way_comes_to_the_same_as_the_long_one(
    held: list[tuple[int, int]], first: int | None, second: int | None, bits: int, off: int
) -> None:
    meter = Meter(1, "M", ONE, "hes-mqtt", "C0001", MODEL, "+08:00")
    cols = [["1-0:1.8.0", "kWh", -2], ["1-0:32.7.0", "V", -1]]
    payload = message(cols=cols, meters=[rows(ONE, (BASE + off, [first, second], bits))])
    told = []
    for quick in (True, False):
        anchors = Anchors()
        for slot, units in held:
            anchors.add(1, "import_kwh", BASE + _STEP * slot, units * 100)
        if quick:
            understood = interpreter([meter], anchors).understand(READS, payload, NOW)
        else:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Quick, "sheets", lambda *_: None)
                understood = interpreter([meter], anchors).understand(READS, payload, NOW)
        told.append((understood.message, understood.reason, list(anchors.of(1, "import_kwh"))))
    assert told[0] == told[1]


# -- gaps --------------------------------------------------------------------------------------------------------------


def test_a_gap_is_asked_for_at_growing_intervals_and_not_for_ever() -> None:
    gaps = Gaps()
    gaps.note("C1", 7, [3, 4], 0.0)
    assert list(gaps.due(2.9)) == []  # it may only be late
    asked = []
    for second in range(3, 200_000):
        if second != 10_000:  # then it is away for a moment
            gaps.note("C1", 7, [3, 4], float(second))
        for ask in gaps.due(float(second)):
            assert (ask.concentrator, ask.boot, ask.numbers) == ("C1", 7, (3, 4))
            asked.append(second)
    assert asked == [3, 33, 333, 3933, 25533]
    assert gaps.given_up("C1", 7) == {3, 4}
    gaps.note("C2", 1, [9], 0.0)
    assert [ask.numbers for ask in gaps.due(5.0)] == [(9,)]
    assert list(gaps.due(500_000.0)) == []  # who is not heard can't answer


def test_what_has_come_is_not_asked_for_and_one_request_is_not_too_long() -> None:
    gaps = Gaps()
    gaps.note("C1", 7, range(500), 0.0)
    gaps.note("C1", 7, range(100, 500), 1.0)
    (first,) = gaps.due(10.0)
    assert first.numbers == tuple(range(100, 300))
    gaps.note("C1", 7, range(100, 500), 10.5)
    assert list(gaps.due(11.0)) == []  # one request in two seconds
    (second,) = gaps.due(12.5)
    assert second.numbers == tuple(range(300, 500))
    gaps.note("C1", 7, [], 13.0)
    assert gaps.count("C1") == 0
