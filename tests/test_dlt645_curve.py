"""Load profiles in both forms: every value under the time the meter said, everything else a fault with its cause."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headend.conversation import play
from headend.errors import BadFrame, HeadendError, NoAnswer, Refused, Unsupported, UsageError
from headend.model import Cause, Harvest, ReadKind, Source, Window
from headend.protocols import PROTOCOLS
from tests.dlt645_wire import (
    ADDRESS,
    NOW,
    STEP_S,
    Slave,
    converse,
    di_bytes,
    job,
    kwh,
    local,
    meter,
    minute,
    read_answer,
    read_request,
    refusal,
    utc,
    wire,
)

DRIVER = PROTOCOLS["dlt645-2007"]
STEP = timedelta(seconds=STEP_S)
START = utc(local(2025, 11, 1))
IMPORT, EXPORT, RECORD = "06100601", "06100602", "06040001"
Answer = Callable[[bytes], Iterable[bytes]]


def window(points: int, start: datetime = START) -> Window:
    return Window(start, start + points * STEP)


def value_at(moment: datetime, quantity: str = "import_kwh") -> Decimal:
    """A register reading that tells its time and quantity."""
    slot = (moment - datetime(2025, 1, 1, tzinfo=UTC)) // STEP
    return Decimal(slot * 4 + ("import_kwh", "export_kwh", "import_kvarh", "export_kvarh").index(quantity)) / 100


def points(start: datetime, count: int, quantity: str = "import_kwh") -> bytes:
    return b"".join(kwh(str(value_at(start + i * STEP, quantity))) for i in range(count))


def curve(start: datetime, count: int, quantity: str = "import_kwh") -> bytes:
    return minute(start.astimezone(local(2025, 1, 1).tzinfo)) + points(start, count, quantity)


def record(start: datetime, *, body: bytes | None = None, mark: int = 0xA0, long: bool = False) -> bytes:
    """One load record with class 4, as appendix B has it; `long` with all six classes."""
    names = ("import_kwh", "export_kwh", "import_kvarh", "export_kvarh")
    if body is None:
        body = b"".join(kwh(str(value_at(start, name))) for name in names)
    before, after = (b"\xaa" * 3, b"\xaa" * 3)
    if long:
        before = bytes(17) + b"\xaa" + bytes(24) + b"\xaa" + bytes(8) + b"\xaa"
        after = b"\xaa" + bytes(16) + b"\xaa" + bytes(6) + b"\xaa"
    inner = minute(start.astimezone(local(2025, 1, 1).tzinfo)) + before + body + after
    whole = bytes((mark, mark, len(inner))) + inner
    return whole + bytes((sum(whole) % 256, 0xE5))


def records(start: datetime, count: int) -> bytes:
    return b"".join(record(start + i * STEP) for i in range(count))


def read(answer: Answer, span: Window, *names: str, form: str = "0610") -> Harvest:
    device = meter(form)
    work = job(ReadKind.CURVE, *(names or ("import_kwh",)), window=span, of=device)
    return converse(DRIVER.read(device, work, now=NOW), answer)


def got(harvest: Harvest, quantity: str = "import_kwh") -> dict[datetime, Decimal]:
    for reading in harvest.readings:
        assert (reading.source, reading.step_s, reading.taken_at) == (Source.CURVE, STEP_S, NOW)
    return {r.at: r.value for r in harvest.readings if r.quantity == quantity}


def want(start: datetime, count: int, quantity: str = "import_kwh") -> dict[datetime, Decimal]:
    return {start + i * STEP: value_at(start + i * STEP, quantity) for i in range(count)}


def missed(harvest: Harvest, quantity: str = "import_kwh") -> dict[datetime, Cause]:
    """Each missing slot and its cause; a slot is told once."""
    slots: dict[datetime, Cause] = {}
    for fault in harvest.faults:
        if fault.quantity == quantity:
            assert fault.window is not None
            at = fault.window.start
            while at < fault.window.end:
                assert at not in slots
                slots[at] = fault.cause
                at += STEP
    return slots


class Memory:
    """A meter that holds curve points from `first` to `last` and gives at most `limit` at once."""

    def __init__(self, first: datetime, last: datetime, limit: int = 255) -> None:
        self.first, self.last, self.limit = first, last, limit

    def load(self, di: str, count: int, at: datetime) -> bytes:
        start = max(utc(at), self.first)
        count = min(count, self.limit, (self.last - start) // STEP + 1)
        if count <= 0:
            return b""
        if di == RECORD:
            return records(start, count)
        return curve(start, count, "import_kwh" if di == IMPORT else "export_kwh")


# --- curves of the supplement -------------------------------------------------------------------------------------


def test_one_frame_of_47_points() -> None:
    request = read_request(IMPORT, bytes([47]) + minute(local(2025, 11, 1)))
    answer = read_answer(IMPORT, curve(START, 47))
    assert len(answer) == 4 + 12 + 4 + 5 + 47 * 4
    work = job(ReadKind.CURVE, "import_kwh", window=window(47))
    harvest = play(DRIVER.read(meter(), work, now=NOW), [(">", request), ("<", answer)])
    assert got(harvest) == want(START, 47)
    assert harvest.faults == ()


def test_a_day_is_three_frames() -> None:
    asked: list[tuple[int, datetime]] = []
    memory = Memory(START - STEP, START + 400 * STEP)

    def load(di: str, count: int, at: datetime) -> bytes:
        asked.append((count, utc(at)))
        return memory.load(di, count, at)

    assert got(read(Slave(load=load), window(96))) == want(START, 96)
    assert asked == [(47, START), (47, START + 47 * STEP), (2, START + 94 * STEP)]


def test_both_directions() -> None:
    slave = Slave(load=Memory(START, START + 400 * STEP).load)
    harvest = read(slave, window(10), "import_kwh", "export_kwh")
    assert got(harvest) == want(START, 10)
    assert got(harvest, "export_kwh") == want(START, 10, "export_kwh")
    assert slave.asked == [IMPORT, EXPORT]


def test_ff_is_a_null_and_a_bad_digit_is_damage() -> None:
    data = curve(START, 2) + b"\xff" * 4 + b"\x00\x00\x0c\x00" + points(START + 4 * STEP, 1)
    harvest = read(lambda _: [read_answer(IMPORT, data)], window(5))
    assert got(harvest) == {**want(START, 2), **want(START + 4 * STEP, 1)}
    assert missed(harvest) == {START + 2 * STEP: Cause.NULL_VALUE, START + 3 * STEP: Cause.BAD_FRAME}


def test_adjacent_nulls_are_one_fault() -> None:
    data = curve(START, 1) + b"\xff" * 12
    harvest = read(lambda _: [read_answer(IMPORT, data)], window(4))
    (fault,) = harvest.faults
    assert fault.window == Window(START + STEP, START + 4 * STEP)


def test_what_the_meter_does_not_hold_is_not_in_memory() -> None:
    harvest = read(lambda _: [read_answer(IMPORT, b"")], window(100))
    assert harvest.readings == ()
    assert missed(harvest) == dict.fromkeys(want(START, 100), Cause.NOT_IN_MEMORY)


def test_an_empty_curve_of_ff_is_not_in_memory() -> None:
    harvest = read(lambda _: [read_answer(IMPORT, b"\xff" * (5 + 4 * 3))], window(3))
    assert missed(harvest) == dict.fromkeys(want(START, 3), Cause.NOT_IN_MEMORY)


@pytest.mark.parametrize(("first", "last"), [(5, 400), (0, 30), (60, 80), (10, 10), (47, 93)])
def test_the_edges_of_the_memory(first: int, last: int) -> None:
    slave = Slave(load=Memory(START + first * STEP, START + last * STEP).load)
    harvest = read(slave, window(96))
    held = {t: v for t, v in want(START, 96).items() if START + first * STEP <= t <= START + last * STEP}
    assert got(harvest) == held
    assert missed(harvest) == {t: Cause.NOT_IN_MEMORY for t in want(START, 96) if t not in held}


def test_a_meter_that_gives_few_points_at_once_is_asked_on() -> None:
    slave = Slave(load=Memory(START, START + 400 * STEP, limit=10).load)
    assert got(read(slave, window(96))) == want(START, 96)
    assert len(slave.asked) == 10


@pytest.mark.parametrize(
    "start",
    [
        START - STEP,  # an answer to an earlier question
        START - 47 * STEP,
        START + timedelta(minutes=5),  # off the grid
        START + timedelta(days=365),
    ],
)
def test_a_curve_of_other_times_is_not_taken(start: datetime) -> None:
    with pytest.raises(BadFrame, match="meter"):
        read(lambda _: [read_answer(IMPORT, curve(start, 5))], window(5))


def test_a_late_answer_is_dropped_and_the_right_one_awaited() -> None:
    late = read_answer(IMPORT, curve(START - 5 * STEP, 5))
    harvest = read(lambda _: [late, read_answer(IMPORT, curve(START, 5))], window(5))
    assert got(harvest) == want(START, 5)


def test_not_held_or_held_only_later_is_believed_when_said_twice() -> None:
    later, nothing, right = (read_answer(IMPORT, data) for data in (curve(START + 3 * STEP, 5), b"", curve(START, 5)))
    for first in (later, nothing):
        answers = iter([[first], [right]])
        assert got(read(lambda _, a=answers: next(a), window(5))) == want(START, 5)  # type: ignore[misc]
    harvest = read(lambda _: [later], window(5))
    assert got(harvest) == want(START + 3 * STEP, 2)
    assert missed(harvest) == dict.fromkeys(want(START, 3), Cause.NOT_IN_MEMORY)
    restless = iter([[read_answer(IMPORT, curve(START + n * STEP, 5))] for n in (1, 2, 3, 4)])
    with pytest.raises(BadFrame, match="somewhere else each time"):
        read(lambda _: next(restless), window(5))


def test_a_late_answer_of_a_later_window_costs_no_slot() -> None:
    """The answer to a timed-out question for newer points comes while older ones are asked for."""
    late = read_answer(IMPORT, curve(START + 40 * STEP, 4))
    answers = iter([[late], [read_answer(IMPORT, curve(START, 5))]])
    harvest = read(lambda _: next(answers), window(5))
    assert got(harvest) == want(START, 5)
    assert harvest.faults == ()


def test_points_beyond_what_was_asked_are_not_taken() -> None:
    harvest = read(lambda _: [read_answer(IMPORT, curve(START, 9))], window(5))
    assert got(harvest) == want(START, 5)


@pytest.mark.parametrize("data", [b"\x00", curve(START, 1)[:-1], bytes(5) + points(START, 2), b"\x00\x00\x99\x11\x25"])
def test_a_curve_that_makes_no_sense_is_a_bad_frame(data: bytes) -> None:
    with pytest.raises(BadFrame):
        read(lambda _: [read_answer(IMPORT, data)], window(2))


def test_follow_up_frames_continue_the_curve() -> None:
    whole = curve(START, 40)
    transcript = [
        (">", read_request(IMPORT, bytes([40]) + minute(local(2025, 11, 1)))),
        ("<", read_answer(IMPORT, whole[: 5 + 80], control=0xB1)),
        (">", wire(ADDRESS, 0x12, di_bytes(IMPORT) + b"\x01")),
        ("<", wire(ADDRESS, 0x92, di_bytes(IMPORT) + whole[5 + 80 :] + b"\x01")),
    ]
    work = job(ReadKind.CURVE, "import_kwh", window=window(40))
    assert got(play(DRIVER.read(meter(), work, now=NOW), transcript)) == want(START, 40)


def test_silence_after_the_first_frame_keeps_it() -> None:
    frames = iter([[read_answer(IMPORT, curve(START, 47))]])
    harvest = read(lambda _: next(frames, []), window(96), "import_kwh", "export_kwh")
    assert got(harvest) == want(START, 47)
    assert missed(harvest) == dict.fromkeys(want(START + 47 * STEP, 49), Cause.NO_ANSWER)
    assert missed(harvest, "export_kwh") == dict.fromkeys(want(START, 96), Cause.NO_ANSWER)


def test_silence_at_once_is_raised() -> None:
    with pytest.raises(NoAnswer):
        read(lambda _: [], window(5))


def test_refused_at_once_is_raised_refused_later_is_a_fault() -> None:
    with pytest.raises(Refused, match="no such data"):
        read(lambda _: [refusal()], window(5))
    slave = Slave(load=Memory(START, START + 400 * STEP).load)

    def only_import(request: bytes) -> Iterable[bytes]:
        return slave(request) if di_bytes(IMPORT) in bytes((b - 0x33) & 0xFF for b in request) else [refusal()]

    harvest = read(only_import, window(5), "import_kwh", "export_kwh")
    assert got(harvest) == want(START, 5)
    assert missed(harvest, "export_kwh") == dict.fromkeys(want(START, 5), Cause.REFUSED)


def test_what_a_form_does_not_hold_is_unsupported() -> None:
    slave = Slave(load=Memory(START, START + 400 * STEP).load)
    harvest = read(slave, window(5), "import_kwh", "voltage_v_a")
    assert [(f.quantity, f.cause) for f in harvest.faults] == [("voltage_v_a", Cause.UNSUPPORTED)]
    work = job(ReadKind.CURVE, "import_kwh", window=window(5), of=meter(None))
    with pytest.raises(Unsupported, match="no load profile"):
        next(DRIVER.read(meter(None), work, now=NOW))
    with pytest.raises(Unsupported, match="0610, record"):
        next(DRIVER.read(meter("tape"), work, now=NOW))
    with pytest.raises(UsageError, match="needs a window"):
        next(DRIVER.read(meter(), job(ReadKind.CURVE, "import_kwh"), now=NOW))


# --- load records of appendix B -----------------------------------------------------------------------------------

ALL = ("import_kwh", "export_kwh", "import_kvarh", "export_kvarh")


def test_records_give_all_four_energies_in_one_go() -> None:
    slave = Slave(load=Memory(START, START + 400 * STEP).load)
    harvest = read(slave, window(12), *ALL, form="record")
    assert slave.asked == [RECORD, RECORD]
    for name in ALL:
        assert got(harvest, name) == want(START, 12, name)


def test_reactive_energy_of_a_record_is_signed_active_is_not() -> None:
    body = bytes.fromhex("00000085") + bytes(4) + bytes.fromhex("34120080") + bytes(4)
    harvest = read(lambda _: [read_answer(RECORD, record(START, body=body))], window(1), *ALL, form="record")
    assert {r.quantity: str(r.value) for r in harvest.readings} == {
        "import_kwh": "850000.00",
        "export_kwh": "0.00",
        "import_kvarh": "-12.34",
        "export_kvarh": "0.00",
    }


@pytest.mark.parametrize(("first", "last"), [(5, 400), (0, 7), (6, 11), (3, 3)])
def test_the_edges_of_a_record_memory(first: int, last: int) -> None:
    slave = Slave(load=Memory(START + first * STEP, START + last * STEP).load)
    harvest = read(slave, window(20), form="record")
    held = {t: v for t, v in want(START, 20).items() if START + first * STEP <= t <= START + last * STEP}
    assert got(harvest) == held
    assert missed(harvest) == {t: Cause.NOT_IN_MEMORY for t in want(START, 20) if t not in held}


def test_a_power_cut_leaves_a_hole() -> None:
    data = records(START, 2) + records(START + 6 * STEP, 4)
    harvest = read(lambda _: [read_answer(RECORD, data)], window(8), form="record")
    assert got(harvest) == {**want(START, 2), **want(START + 6 * STEP, 2)}
    assert missed(harvest) == dict.fromkeys(want(START + 2 * STEP, 4), Cause.NOT_IN_MEMORY)


def test_records_with_every_class_stored() -> None:
    data = record(START, long=True)
    assert len(data) == 103
    harvest = read(lambda _: [read_answer(RECORD, data)], window(1), *ALL, form="record")
    assert {r.quantity: r.value for r in harvest.readings} == {name: value_at(START, name) for name in ALL}


def test_records_without_the_other_classes_separators() -> None:
    inner = record(START)[3:8] + record(START)[11:27] + b"\xaa"
    whole = bytes((0xA0, 0xA0, len(inner))) + inner
    data = whole + bytes((sum(whole) % 256, 0xE5))
    assert got(read(lambda _: [read_answer(RECORD, data)], window(1), form="record")) == want(START, 1)


def test_records_that_hold_no_energies() -> None:
    inner = record(START)[3:8] + bytes(17) + b"\xaa" * 6
    whole = bytes((0xA0, 0xA0, len(inner))) + inner
    data = whole + bytes((sum(whole) % 256, 0xE5))
    harvest = read(lambda _: [read_answer(RECORD, data)], window(1), form="record")
    assert missed(harvest) == {START: Cause.UNSUPPORTED}


def spoilt_sum(start: datetime) -> bytes:
    good = record(start)
    return good[:-2] + bytes((good[-2] ^ 1, 0xE5))


@pytest.mark.parametrize("bad", [record(START + STEP, mark=0xE0), spoilt_sum(START + STEP)])
def test_a_bad_record_costs_its_slot_and_no_other(bad: bytes) -> None:
    data = record(START) + bad + records(START + 2 * STEP, 2)
    harvest = read(lambda _: [read_answer(RECORD, data)], window(4), form="record")
    assert got(harvest) == {**want(START, 1), **want(START + 2 * STEP, 2)}
    assert missed(harvest) == {START + STEP: Cause.BAD_FRAME}


@pytest.mark.parametrize("tail", [record(START + STEP)[:-3], b"\x12\x34\x56", record(START + STEP)[:-1] + b"\x00"])
def test_records_that_lose_their_framing_end_there(tail: bytes) -> None:
    harvest = read(lambda _: [read_answer(RECORD, records(START, 1) + tail)], window(1), form="record")
    assert got(harvest) == want(START, 1)
    only_tail = read(lambda _: [read_answer(RECORD, tail)], window(1), form="record")
    assert missed(only_tail) == {START: Cause.BAD_FRAME}


@pytest.mark.parametrize("times", [(-1,), (0, -1), (0, 0), (1, 0)])
def test_records_out_of_order_or_before_what_was_asked_are_not_taken(times: tuple[int, ...]) -> None:
    data = b"".join(record(START + n * STEP) for n in times)
    with pytest.raises(BadFrame):
        read(lambda _: [read_answer(RECORD, data)], window(3), form="record")


def test_records_off_the_grid_are_not_taken() -> None:
    with pytest.raises(BadFrame, match="not on the grid of 15 min"):
        read(lambda _: [read_answer(RECORD, record(START + timedelta(minutes=5)))], window(3), form="record")


def test_records_go_on_in_follow_up_frames_cut_anywhere() -> None:
    whole = records(START, 6)
    transcript = [
        (">", read_request(RECORD, bytes([6]) + minute(local(2025, 11, 1)))),
        ("<", read_answer(RECORD, whole[:70], control=0xB1)),
        (">", wire(ADDRESS, 0x12, di_bytes(RECORD) + b"\x01")),
        ("<", wire(ADDRESS, 0x92, di_bytes(RECORD) + whole[70:] + b"\x01")),
    ]
    device = meter("record")
    work = job(ReadKind.CURVE, "import_kwh", window=window(6), of=device)
    assert got(play(DRIVER.read(device, work, now=NOW), transcript)) == want(START, 6)


# --- maltreated ---------------------------------------------------------------------------------------------------

FORMS = [
    pytest.param("0610", read_answer(IMPORT, curve(START, 47)), 47, id="0610"),
    pytest.param("0610", read_answer(IMPORT, curve(START, 3)), 3, id="0610-short"),
    pytest.param("record", read_answer(RECORD, records(START, 6)), 6, id="record"),
]
maltreat = pytest.mark.parametrize(("form", "answer", "count"), FORMS)


@maltreat
def test_byte_by_byte_after_noise_and_echo(form: str, answer: bytes, count: int) -> None:
    expected = want(START, count)
    assert got(read(lambda _: [bytes((b,)) for b in answer], window(count), form=form)) == expected
    assert got(read(lambda _: [b"\x68\x16\x00" * 30 + answer], window(count), form=form)) == expected
    assert got(read(lambda request: [request[4:] + answer], window(count), form=form)) == expected


@maltreat
def test_cut_at_every_length_it_is_an_error(form: str, answer: bytes, count: int) -> None:
    for length in range(len(answer)):
        with pytest.raises((NoAnswer, BadFrame)):
            read(lambda _, n=length: [answer[:n]], window(count), form=form)  # type: ignore[misc]


@maltreat
def test_any_single_bit_flipped_is_the_right_values_or_an_error(form: str, answer: bytes, count: int) -> None:
    expected = want(START, count)
    for bit in range(8 * len(answer)):
        spoilt = bytearray(answer)
        spoilt[bit // 8] ^= 1 << bit % 8
        try:
            harvest = read(lambda _, data=bytes(spoilt): [data], window(count), form=form)  # type: ignore[misc]
        except HeadendError:
            continue
        assert got(harvest) == expected, f"bit {bit}"


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["0610", "record"]),
    st.lists(st.binary(max_size=80), max_size=6),
    st.integers(1, 60),
)
def test_whatever_data_come_every_slot_is_told_once(form: str, answers: list[bytes], count: int) -> None:
    di = IMPORT if form == "0610" else RECORD
    frames = iter(answers)

    def answer(_: bytes) -> Iterable[bytes]:
        data = next(frames, None)
        return [] if data is None else [read_answer(di, data)]

    try:
        harvest = read(answer, window(count), form=form)
    except HeadendError:
        return
    slots = set(want(START, count))
    assert got(harvest).keys() | missed(harvest).keys() == slots
    assert not got(harvest).keys() & missed(harvest).keys()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["0610", "record"]),
    st.integers(-5, 120),
    st.integers(-5, 120),
    st.integers(1, 60),
    st.integers(1, 110),
)
def test_any_memory_and_any_window_agree(form: str, first: int, last: int, limit: int, count: int) -> None:
    slave = Slave(load=Memory(START + first * STEP, START + last * STEP, limit).load)
    harvest = read(slave, window(count), form=form)
    held = {t for t in want(START, count) if START + first * STEP <= t <= START + last * STEP}
    assert got(harvest) == {t: value_at(t) for t in held}
    assert missed(harvest) == {t: Cause.NOT_IN_MEMORY for t in want(START, count) if t not in held}
