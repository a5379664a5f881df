"""Registers, the clock, discovery, and the rules of an exchange: what is an answer and what is not."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal

import pytest

from headend.conversation import play
from headend.errors import BadFrame, HeadendError, LineDown, NoAnswer, Refused, UsageError, WrongMeter
from headend.model import Cause, Harvest, ReadKind, Source
from headend.protocols import PROTOCOLS
from headend.protocols.dlt645 import read_item
from tests.dlt645_wire import (
    ADDRESS,
    NOW,
    Slave,
    bcd,
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
TOU = tuple(f"import_kwh{suffix}" for suffix in ("", "_t1", "_t2", "_t3", "_t4"))
TOU_BLOCK = b"".join(map(kwh, ("36.30", "2.56", "0.19", "0.38", "33.17")))


def registers(slave: Slave, *names: str) -> Harvest:
    return converse(DRIVER.read(meter(), job(ReadKind.REGISTERS, *names), now=NOW), slave)


def values(harvest: Harvest) -> dict[str, str]:
    return {r.quantity: str(r.value) for r in harvest.readings}


def causes(harvest: Harvest) -> dict[str, Cause]:
    return {f.quantity: f.cause for f in harvest.faults}


# --- registers ----------------------------------------------------------------------------------------------------


def test_a_register_is_a_current_reading_taken_now() -> None:
    transcript = [(">", read_request("00010000")), ("<", read_answer("00010000", kwh("230.93")))]
    harvest = play(DRIVER.read(meter(), job(ReadKind.REGISTERS, "import_kwh"), now=NOW), transcript)
    (reading,) = harvest.readings
    assert (reading.quantity, reading.value, reading.at, reading.taken_at) == (
        "import_kwh",
        Decimal("230.93"),
        NOW,
        NOW,
    )
    assert (reading.source, reading.step_s, reading.occurred_at) == (Source.CURRENT, 0, None)
    assert harvest.faults == ()


def test_registers_and_phases_are_read_as_blocks() -> None:
    slave = Slave(
        {
            "0001FF00": TOU_BLOCK,
            "0201FF00": bcd("2205", 2) + bcd("2198", 2) + bcd("2210", 2),
            "0202FF00": bcd("4999", 3) + b"\x99\x49\x80" + bcd("0", 3),
            "02030000": b"\x12\x25\x80",
        }
    )
    names = (*TOU, "voltage_v_a", "voltage_v_b", "voltage_v_c", "current_a_a", "current_a_b", "current_a_c", "power_kw")
    harvest = registers(slave, *names)
    assert slave.asked == ["0001FF00", "0201FF00", "0202FF00", "02030000"]
    assert values(harvest) == {
        **dict(zip(TOU, ("36.30", "2.56", "0.19", "0.38", "33.17"), strict=True)),
        "voltage_v_a": "220.5",
        "voltage_v_b": "219.8",
        "voltage_v_c": "221.0",
        "current_a_a": "4.999",
        "current_a_b": "-4.999",
        "current_a_c": "0.000",
        "power_kw": "-0.2512",
    }
    assert {r.source for r in harvest.readings if r.quantity.startswith("import")} == {Source.CURRENT}
    assert {r.source for r in harvest.readings if not r.quantity.startswith("import")} == {Source.INSTANT}


def test_a_block_refused_is_asked_item_by_item() -> None:
    slave = Slave({f"00010{i}00": kwh(v) for i, v in enumerate(("36.30", "2.56", "0.19"))})
    harvest = registers(slave, *TOU)
    assert slave.asked == ["0001FF00", *(f"00010{i}00" for i in range(5))]
    assert values(harvest) == {"import_kwh": "36.30", "import_kwh_t1": "2.56", "import_kwh_t2": "0.19"}
    assert causes(harvest) == {"import_kwh_t3": Cause.REFUSED, "import_kwh_t4": Cause.REFUSED}
    assert all("no such data" in f.detail for f in harvest.faults)


def test_a_block_is_as_long_as_the_meter_has_rates() -> None:
    harvest = registers(Slave({"0001FF00": TOU_BLOCK[:12]}), *TOU)
    assert list(values(harvest)) == list(TOU[:3])
    assert causes(harvest) == dict.fromkeys(TOU[3:], Cause.UNSUPPORTED)
    longer = registers(Slave({"0001FF00": TOU_BLOCK + kwh("9.99") * 8}), *TOU)
    assert list(values(longer)) == list(TOU)


def test_a_single_phase_meter_sends_one_voltage() -> None:
    harvest = registers(Slave({"0201FF00": bcd("2205", 2)}), "voltage_v_a", "voltage_v_b")
    assert values(harvest) == {"voltage_v_a": "220.5"}
    assert causes(harvest) == {"voltage_v_b": Cause.UNSUPPORTED}


def test_ff_is_not_a_number_and_neither_is_a_nibble_above_nine() -> None:
    slave = Slave({"0001FF00": kwh("1.00") + b"\xff" * 4 + b"\x00\x0a\x00\x00" + kwh("2.00") * 2})
    harvest = registers(slave, *TOU)
    assert values(harvest) == {"import_kwh": "1.00", "import_kwh_t3": "2.00", "import_kwh_t4": "2.00"}
    assert causes(harvest) == {"import_kwh_t1": Cause.NULL_VALUE, "import_kwh_t2": Cause.BAD_FRAME}


def test_all_ff_gives_only_faults() -> None:
    harvest = registers(Slave({"00010000": b"\xff" * 4}), "import_kwh")
    assert harvest.readings == ()
    assert causes(harvest) == {"import_kwh": Cause.NULL_VALUE}


@pytest.mark.parametrize("data", [b"", kwh("1.00")[:3], kwh("1.00") + b"\0", kwh("1.00") * 2])
def test_an_item_of_another_length_is_no_value(data: bytes) -> None:
    harvest = registers(Slave({"00010000": data}), "import_kwh")
    assert causes(harvest) == {"import_kwh": Cause.BAD_FRAME}


def test_the_top_bit_of_a_forward_register_is_no_sign() -> None:
    slave = Slave({"00010000": kwh("850000.00"), "00000000": bytes.fromhex("34120080")})
    assert values(registers(slave, "import_kwh", "combined_kwh")) == {
        "import_kwh": "850000.00",
        "combined_kwh": "-12.34",
    }


def test_a_demand_carries_its_time() -> None:
    slave = Slave({"01010000": bcd("123456", 3) + minute(local(2025, 6, 15, 18, 30)), "01020000": bytes(8)})
    harvest = registers(slave, "import_max_kw", "export_max_kw")
    first, second = harvest.readings
    assert (first.value, first.at, first.source) == (Decimal("12.3456"), NOW, Source.INSTANT)
    assert first.occurred_at == utc(local(2025, 6, 15, 18, 30))
    assert (second.value, second.occurred_at) == (Decimal(0), None)


def test_a_demand_with_an_impossible_time_is_no_value() -> None:
    slave = Slave({"01010000": bcd("123456", 3) + bytes.fromhex("3018321325")})
    assert causes(registers(slave, "import_max_kw")) == {"import_max_kw": Cause.BAD_FRAME}


def test_the_status_word_is_a_number() -> None:
    assert values(registers(Slave({"04000503": b"\x50\x00"}), "status_word_3")) == {"status_word_3": "80"}


def test_what_the_protocol_does_not_have_is_said() -> None:
    harvest = registers(Slave({"00010000": kwh("1.00")}), "import_interval_kwh", "import_kwh")
    assert causes(harvest) == {"import_interval_kwh": Cause.UNSUPPORTED}
    assert values(harvest) == {"import_kwh": "1.00"}


def test_when_all_is_refused_the_refusal_is_raised_with_its_bits_named() -> None:
    def answer(_: bytes) -> Iterable[bytes]:
        return [refusal(0x06)]

    conversation = DRIVER.read(meter(), job(ReadKind.REGISTERS, "import_kwh", "power_kw"), now=NOW)
    with pytest.raises(Refused, match="no such data, wrong password or not authorised") as caught:
        converse(conversation, answer)
    assert caught.value.code == 0x06


# --- when the meter falls silent ----------------------------------------------------------------------------------


def test_what_came_before_the_silence_is_kept() -> None:
    slave = Slave({"00010000": kwh("1.00")})

    def answer(request: bytes) -> Iterable[bytes]:
        return slave(request) if request == read_request("00010000") else []

    conversation = DRIVER.read(meter(), job(ReadKind.REGISTERS, "import_kwh", "power_kw", "frequency_hz"), now=NOW)
    harvest = converse(conversation, answer)
    assert values(harvest) == {"import_kwh": "1.00"}
    assert causes(harvest) == {"power_kw": Cause.NO_ANSWER, "frequency_hz": Cause.NO_ANSWER}


def test_silence_is_asked_twice_then_raised() -> None:
    request = (">", read_request("00010000"))
    with pytest.raises(NoAnswer, match="no answer"):
        play(DRIVER.read(meter(), job(ReadKind.REGISTERS, "import_kwh"), now=NOW), [request, request])


def failure(*chunks: bytes) -> HeadendError:
    with pytest.raises(HeadendError) as caught:
        converse(read_item(ADDRESS, "00010000"), lambda _: chunks)
    return caught.value


def test_the_error_says_what_kind_of_nothing_came() -> None:
    good = read_answer("00010000", kwh("1.00"))
    assert isinstance(failure(), NoAnswer)
    assert isinstance(failure(b"\xfe\xfe"), NoAnswer)
    assert isinstance(failure(read_request("00010000")), NoAnswer)  # only our echo
    assert isinstance(failure(b"\x00\x55"), BadFrame)
    assert isinstance(failure(good[:-1]), BadFrame)
    assert isinstance(failure(good[:-2] + bytes((good[-2] ^ 1, 0x16))), BadFrame)
    foreign = read_answer("00010000", kwh("1.00"), "000000193601")
    assert isinstance(failure(foreign), WrongMeter)
    assert "000000193601" in str(failure(foreign))
    assert isinstance(failure(foreign, b"\x12"), BadFrame)
    late = read_answer("02030000", b"\0\0\0")
    assert isinstance(failure(late), NoAnswer)
    assert all(ADDRESS in str(failure(*chunks)) for chunks in ((), (b"\x00",), (foreign,), (late,)))


def test_a_line_that_never_falls_silent_does_not_hold_the_job() -> None:
    def babble(_: bytes) -> Iterable[bytes]:
        while True:
            yield b"\x55" * 100

    with pytest.raises(BadFrame):
        converse(read_item(ADDRESS, "00010000"), babble)


def test_line_down_passes_through() -> None:
    conversation = DRIVER.read(meter(), job(ReadKind.REGISTERS, "import_kwh", "power_kw"), now=NOW)
    next(conversation)
    conversation.send(read_answer("00010000", kwh("1.00")))
    with pytest.raises(LineDown):
        conversation.throw(LineDown("closed"))


# --- what counts as the answer ------------------------------------------------------------------------------------


GOOD = read_answer("00010000", kwh("1.23"))


@pytest.mark.parametrize(
    "stray",
    [
        read_answer("02030000", b"\0\0\0"),  # to another question
        read_answer("00010000", kwh("9.99"), "000000193601"),  # of another meter
        wire(ADDRESS, 0x92, di_bytes("00010000") + kwh("9.99") + b"\x01"),  # of another function
        wire(ADDRESS, 0x93, b"\0\x36\x19\0\0\0"),
        wire(ADDRESS, 0x91, b"\0\0"),  # too short for an identifier
        refusal(0x02, "000000193601"),
        refusal(0x02, control=0xD4),
        read_request("00010000"),
        wire(ADDRESS, 0x11, di_bytes("00010000") + kwh("9.99")),  # D7 = 0: not from a meter
    ],
)
def test_a_stray_frame_is_dropped_and_the_wait_goes_on(stray: bytes) -> None:
    for chunks in ([stray, GOOD], [stray + GOOD], [stray + GOOD[:11], GOOD[11:]]):
        assert converse(read_item(ADDRESS, "00010000"), lambda _, c=chunks: c) == kwh("1.23")  # type: ignore[misc]
    with pytest.raises(HeadendError):
        converse(read_item(ADDRESS, "00010000"), lambda _: [stray])


def test_a_wildcard_takes_the_echo_of_aa_or_the_real_address() -> None:
    for who in ("AAAAAAAAAAAA", ADDRESS):
        answer = read_answer("00010000", kwh("1.23"), who)
        assert converse(read_item("AAAAAAAAAAAA", "00010000"), lambda _, a=answer: [a]) == kwh("1.23")  # type: ignore[misc]
    with pytest.raises(WrongMeter):
        converse(read_item("AAAAAAAA3601", "00010000"), lambda _: [GOOD])


def test_read_item_refuses_what_is_no_identifier() -> None:
    with pytest.raises(UsageError, match="eight hex digits"):
        next(read_item(ADDRESS, "0001"))


# --- follow-up frames ---------------------------------------------------------------------------------------------


def more(seq: int, data: bytes, last: bool = False, di: str = "00010000") -> bytes:
    return wire(ADDRESS, 0x92 if last else 0xB2, di_bytes(di) + data + bytes((seq,)))


def ask_more(seq: int, di: str = "00010000") -> bytes:
    return wire(ADDRESS, 0x12, di_bytes(di) + bytes((seq,)))


FIRST = (("<", read_answer("00010000", b"ab", control=0xB1)),)
ASK = (">", read_request("00010000"))


def test_follow_up_frames_are_joined() -> None:
    transcript = [
        ASK,
        *FIRST,
        (">", ask_more(1)),
        ("<", more(1, b"cd")),
        (">", ask_more(2)),
        ("<", more(2, b"e", True)),
    ]
    assert play(read_item(ADDRESS, "00010000"), transcript) == b"abcde"


def test_a_follow_up_of_another_sequence_is_dropped() -> None:
    transcript = [ASK, *FIRST, (">", ask_more(1)), ("<", more(2, b"XX") + more(1, b"cd", True))]
    assert play(read_item(ADDRESS, "00010000"), transcript) == b"abcd"


@pytest.mark.parametrize("lost", [[], [("<", more(2, b"XX", True))], [("<", more(1, b"cd", True)[:-2])]])
def test_a_lost_follow_up_starts_the_whole_again(lost: list[tuple[str, bytes]]) -> None:
    again = [ASK, *FIRST, (">", ask_more(1)), ("<", more(1, b"cd", True))]
    transcript = [ASK, *FIRST, (">", ask_more(1)), *lost, *again]
    assert play(read_item(ADDRESS, "00010000"), transcript) == b"abcd"


def test_a_follow_up_lost_twice_is_an_error() -> None:
    with pytest.raises(NoAnswer):
        play(read_item(ADDRESS, "00010000"), [ASK, *FIRST, (">", ask_more(1))] * 2)


def test_a_meter_that_always_has_more_is_stopped() -> None:
    def answer(request: bytes) -> Iterable[bytes]:
        frame = request.lstrip(b"\xfe")
        if frame[8] == 0x11:
            return [read_answer("00010000", b"ab", control=0xB1)]
        return [more((frame[14] - 0x33) & 0xFF, b"x")]

    with pytest.raises(BadFrame, match="255"):
        converse(read_item(ADDRESS, "00010000"), answer)


# --- discovery ----------------------------------------------------------------------------------------------------


def test_discover_asks_with_aa_and_returns_the_address() -> None:
    raw = bytes(reversed(bytes.fromhex(ADDRESS)))
    for who in (ADDRESS, "AAAAAAAAAAAA"):
        transcript = [(">", wire("AAAAAAAAAAAA", 0x13)), ("<", wire(who, 0x93, raw))]
        assert play(DRIVER.discover(), transcript) == ADDRESS


def test_discover_does_not_believe_a_frame_that_contradicts_itself() -> None:
    answer = wire("000000193601", 0x93, bytes(reversed(bytes.fromhex(ADDRESS))))
    with pytest.raises(NoAnswer):
        converse(DRIVER.discover(), lambda _: [answer])


# --- the clock ----------------------------------------------------------------------------------------------------


def clock(slave: Slave) -> Harvest:
    return converse(DRIVER.read(meter(), job(ReadKind.CLOCK, "clock_offset_s"), now=NOW), slave)


def wire_clock(offset_s: int) -> tuple[bytes, bytes]:
    shown = local(2025, 11, 2, 12, 30) + timedelta(seconds=offset_s)
    time = bytes(int(f"{n:02d}", 16) for n in (shown.second, shown.minute, shown.hour))
    weekday = shown.isoweekday() % 7
    return bytes((weekday, int(f"{shown:%d}", 16), int(f"{shown:%m}", 16), int(f"{shown:%y}", 16))), time


@pytest.mark.parametrize("offset_s", [0, 7, -7, 86_400, -50_000])
def test_the_clock_in_one_item_and_in_two(offset_s: int) -> None:
    date, time = wire_clock(offset_s)
    one = clock(Slave({"0400010C": time + date}))
    two = clock(Slave({"04000101": date, "04000102": time}))
    assert one == two
    (reading,) = one.readings
    assert (reading.quantity, reading.value, reading.at, reading.source) == (
        "clock_offset_s",
        Decimal(offset_s),
        NOW,
        Source.INSTANT,
    )


def test_midnight_between_date_and_time_is_not_a_day_off() -> None:
    now = utc(local(2025, 11, 3))
    answers = iter(
        [
            refusal(),
            read_answer("04000101", bytes.fromhex("00021125")),
            read_answer("04000102", bytes.fromhex("010000")),
            read_answer("04000101", bytes.fromhex("01031125")),
        ]
    )
    conversation = DRIVER.read(meter(), job(ReadKind.CLOCK, "clock_offset_s"), now=now)
    (reading,) = converse(conversation, lambda _: [next(answers)]).readings
    assert reading.value == 1


def test_a_clock_that_makes_no_sense_is_no_value() -> None:
    assert causes(clock(Slave({"0400010C": bytes(7)}))) == {"clock_offset_s": Cause.BAD_FRAME}
    assert causes(clock(Slave({"0400010C": b"\xff" * 7}))) == {"clock_offset_s": Cause.NULL_VALUE}


def test_the_clock_can_be_read_beside_registers() -> None:
    date, time = wire_clock(-3)
    harvest = registers(Slave({"0400010C": time + date, "00010000": kwh("1.00")}), "import_kwh", "clock_offset_s")
    assert values(harvest) == {"import_kwh": "1.00", "clock_offset_s": "-3"}


def test_the_driver_is_registered_whole() -> None:
    assert DRIVER.name == "dlt645-2007"
    assert DRIVER.check_address("193600") == ADDRESS
    assert DRIVER.explain(GOOD).ok
