"""The 1997 driver: registers, demands, the clock, discovery, telling the versions apart, and what it does not have."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headend.civil import zone
from headend.conversation import play
from headend.errors import BadFrame, HeadendError, NoAnswer, Refused, Unsupported, UsageError, WrongMeter
from headend.model import Cause, Harvest, ReadKind, Source
from headend.protocols import PROTOCOLS, dlt645
from headend.protocols.dlt645.bcd import past_stamp
from headend.protocols.dlt645.catalogue import find, items, items_1997, of_1997
from headend.protocols.dlt645.values import decode_item
from headend.quantities import QUANTITIES
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
    meter_1997,
    read_answer,
    refusal,
    utc,
    wire,
)

DRIVER = PROTOCOLS["dlt645-1997"]
ANY = "A" * 12
BEIJING = zone("Asia/Shanghai")
TOU = tuple(f"import_kwh{suffix}" for suffix in ("", "_t1", "_t2", "_t3", "_t4"))
TOU_BLOCK = b"".join(map(kwh, ("10793.30", "1000.00", "2000.00", "3000.00", "4793.30")))


def registers(slave: Slave, *names: str) -> Harvest:
    return converse(DRIVER.read(meter_1997(), job(ReadKind.REGISTERS, *names, of=meter_1997()), now=NOW), slave)


def values(harvest: Harvest) -> dict[str, str]:
    return {r.quantity: str(r.value) for r in harvest.readings}


def causes(harvest: Harvest) -> dict[str, Cause]:
    return {f.quantity: f.cause for f in harvest.faults}


def request(di: str, address: str = ADDRESS) -> bytes:
    return wire(address, 0x01, di_bytes(di))


def answer(di: str, data: bytes, address: str = ADDRESS, control: int = 0x81) -> bytes:
    return read_answer(di, data, address, control)


# --- registers ----------------------------------------------------------------------------------------------------


def test_one_register() -> None:
    transcript = [(">", request("9010")), ("<", answer("9010", kwh("230.93")))]
    device = meter_1997()
    harvest = play(DRIVER.read(device, job(ReadKind.REGISTERS, "import_kwh", of=device), now=NOW), transcript)
    (reading,) = harvest.readings
    assert (reading.quantity, reading.value, reading.at, reading.source) == (
        "import_kwh",
        Decimal("230.93"),
        NOW,
        Source.CURRENT,
    )


@pytest.mark.parametrize("end", [b"", b"\xaa"])
def test_a_block_may_end_with_aa(end: bytes) -> None:
    slave = Slave({"901F": TOU_BLOCK + end})
    harvest = registers(slave, *TOU)
    assert slave.asked == ["901F"]
    assert values(harvest) == dict(zip(TOU, ("10793.30", "1000.00", "2000.00", "3000.00", "4793.30"), strict=True))
    assert harvest.faults == ()


def test_an_aa_that_is_data_is_not_taken_off() -> None:
    harvest = registers(Slave({"901F": TOU_BLOCK[:-1] + b"\xaa"}), *TOU)
    assert causes(harvest) == {"import_kwh_t4": Cause.BAD_FRAME}
    assert len(harvest.readings) == 4


def test_a_single_register_may_end_with_aa_too() -> None:
    assert values(registers(Slave({"9010": kwh("1.23") + b"\xaa"}), "import_kwh")) == {"import_kwh": "1.23"}


def test_a_block_refused_is_asked_one_by_one() -> None:
    slave = Slave({"9010": kwh("3.00"), "9011": kwh("1.00"), "9012": kwh("2.00")})
    harvest = registers(slave, *TOU)
    assert slave.asked == ["901F", "9010", "9011", "9012", "9013", "9014"]
    assert list(values(harvest)) == list(TOU[:3])
    assert causes(harvest) == dict.fromkeys(TOU[3:], Cause.REFUSED)
    assert "no such identifier" in harvest.faults[0].detail
    assert "disagree" in harvest.faults[0].detail


def test_a_block_of_fewer_rates() -> None:
    harvest = registers(Slave({"901F": TOU_BLOCK[:12] + b"\xaa"}), *TOU)
    assert list(values(harvest)) == list(TOU[:3])
    assert causes(harvest) == dict.fromkeys(TOU[3:], Cause.UNSUPPORTED)


def test_momentary_values_have_the_places_of_1997() -> None:
    slave = Slave(
        {
            "B611": bcd("223", 2),
            "B621": bcd("0499", 2),
            "B630": bcd("002512", 3),
            "B640": bcd("0433", 2),
            "B650": bcd("0501", 2),
        }
    )
    harvest = registers(slave, "voltage_v_a", "current_a_a", "power_kw", "reactive_kvar", "power_factor")
    assert values(harvest) == {
        "voltage_v_a": "223",
        "current_a_a": "4.99",
        "power_kw": "0.2512",
        "reactive_kvar": "4.33",
        "power_factor": "0.501",
    }
    assert {r.source for r in harvest.readings} == {Source.INSTANT}


def test_quadrants_are_numbered_otherwise() -> None:
    slave = Slave({f"91{d}0": kwh(f"{d}.00") for d in range(1, 7)})
    harvest = registers(slave, "import_kvarh", "export_kvarh", "q1_kvarh", "q2_kvarh", "q3_kvarh", "q4_kvarh")
    assert values(harvest) == {
        "import_kvarh": "1.00",
        "export_kvarh": "2.00",
        "q1_kvarh": "3.00",
        "q4_kvarh": "4.00",
        "q2_kvarh": "5.00",
        "q3_kvarh": "6.00",
    }


def test_what_1997_does_not_have() -> None:
    harvest = registers(Slave({"9010": kwh("1.00")}), "import_kwh", "combined_kwh", "status_word_3", "frequency_hz")
    assert values(harvest) == {"import_kwh": "1.00"}
    assert causes(harvest) == dict.fromkeys(("combined_kwh", "status_word_3", "frequency_hz"), Cause.UNSUPPORTED)


@pytest.mark.parametrize("kind", [ReadKind.CURVE, ReadKind.DAILY_FREEZE, ReadKind.SETTLEMENT])
def test_other_jobs_are_refused_before_anything_is_sent(kind: ReadKind) -> None:
    with pytest.raises(Unsupported, match=f"has no {kind.value.replace('_', ' ')}"):
        next(DRIVER.read(meter_1997(), job(kind, "import_kwh", of=meter_1997()), now=NOW))


@pytest.mark.parametrize("data", [b"", kwh("1.00")[:3], kwh("1.00") + b"\0", kwh("1.00") * 2])
def test_another_length_is_no_value(data: bytes) -> None:
    assert causes(registers(Slave({"9010": data}), "import_kwh")) == {"import_kwh": Cause.BAD_FRAME}


def test_null_and_damage_are_no_values() -> None:
    assert causes(registers(Slave({"9010": b"\xff" * 4}), "import_kwh")) == {"import_kwh": Cause.NULL_VALUE}
    assert causes(registers(Slave({"9010": b"\0\x0e\0\0"}), "import_kwh")) == {"import_kwh": Cause.BAD_FRAME}


def test_what_came_before_the_silence_is_kept() -> None:
    slave = Slave({"9010": kwh("1.00")})

    def reply(frame: bytes) -> Iterable[bytes]:
        return slave(frame) if frame == request("9010") else []

    device = meter_1997()
    wanted = job(ReadKind.REGISTERS, "import_kwh", "power_kw", "voltage_v_a", of=device)
    harvest = converse(DRIVER.read(device, wanted, now=NOW), reply)
    assert values(harvest) == {"import_kwh": "1.00"}
    assert causes(harvest) == {"power_kw": Cause.NO_ANSWER, "voltage_v_a": Cause.NO_ANSWER}


def test_when_all_is_refused_it_is_raised_as_not_sure() -> None:
    with pytest.raises(Refused, match=r"wrong password .*disagree") as caught:
        converse(
            DRIVER.read(meter_1997(), job(ReadKind.REGISTERS, "import_kwh", of=meter_1997()), now=NOW),
            lambda _: [refusal(0x04, control=0xC1)],
        )
    assert caught.value.code == 0x04


# --- what counts as the answer ------------------------------------------------------------------------------------

GOOD = answer("9010", kwh("1.23"))


@pytest.mark.parametrize(
    "stray",
    [
        answer("9020", kwh("9.99")),
        answer("9010", kwh("9.99"), "000000193601"),
        answer("9010", kwh("9.99"), control=0x82),
        answer("9010", kwh("9.99"), control=0x91),  # of 2007
        wire(ADDRESS, 0x81, b"\x10"),
        request("9010"),
        refusal(0x02, control=0xD1),
    ],
)
def test_a_stray_frame_is_dropped(stray: bytes) -> None:
    assert converse(dlt645.read_item_1997(ADDRESS, "9010"), lambda _: [stray + GOOD]) == kwh("1.23")
    with pytest.raises(HeadendError):
        converse(dlt645.read_item_1997(ADDRESS, "9010"), lambda _: [stray])


def test_an_answer_of_1997_is_none_to_a_question_of_2007() -> None:
    frame = wire(ADDRESS, 0x81, di_bytes("00010000") + kwh("9.99"))
    with pytest.raises(NoAnswer):
        converse(dlt645.read_item(ADDRESS, "00010000"), lambda _: [frame])


def test_follow_up_frames_are_joined() -> None:
    more = (">", wire(ADDRESS, 0x02, di_bytes("901F")))
    transcript = [
        (">", request("901F")),
        ("<", answer("901F", b"ab", control=0xA1)),
        more,
        ("<", answer("901F", b"cd", control=0xA2)),
        more,
        ("<", answer("901F", b"e", control=0x82)),
    ]
    assert play(dlt645.read_item_1997(ADDRESS, "901F"), transcript) == b"abcde"


def test_a_lost_follow_up_starts_the_whole_again() -> None:
    ask, first = (">", request("901F")), ("<", answer("901F", b"ab", control=0xA1))
    more = (">", wire(ADDRESS, 0x02, di_bytes("901F")))
    last = ("<", answer("901F", b"cd", control=0x82))
    assert play(dlt645.read_item_1997(ADDRESS, "901F"), [ask, first, more, ask, first, more, last]) == b"abcd"


@pytest.mark.parametrize("di", ["90", "00010000", "XYZW", ""])
def test_read_item_refuses_what_is_no_identifier(di: str) -> None:
    with pytest.raises(UsageError, match="four hex digits"):
        next(dlt645.read_item_1997(ADDRESS, di))


# --- demands ------------------------------------------------------------------------------------------------------


def wire_moment(moment: datetime) -> bytes:
    """`mm hh DD MM` of a local time."""
    return bytes(int(f"{n:02d}", 16) for n in (moment.minute, moment.hour, moment.day, moment.month))


def test_a_demand_and_its_time_are_one_reading() -> None:
    slave = Slave({"A010": bcd("123456", 3), "B010": wire_moment(local(2025, 6, 15, 18, 30))})
    (reading,) = registers(slave, "import_max_kw").readings
    assert slave.asked == ["A010", "B010", "A010"]
    assert (reading.quantity, reading.value, reading.at) == ("import_max_kw", Decimal("12.3456"), NOW)
    assert reading.occurred_at == utc(local(2025, 6, 15, 18, 30))


def test_a_demand_that_grew_meanwhile_takes_the_new_time() -> None:
    answers = iter(
        [
            answer("A010", bcd("100000", 3)),
            answer("B010", wire_moment(local(2025, 11, 1, 8))),
            answer("A010", bcd("200000", 3)),
            answer("B010", wire_moment(local(2025, 11, 2, 9))),
            answer("A010", bcd("200000", 3)),
        ]
    )
    conversation = DRIVER.read(meter_1997(), job(ReadKind.REGISTERS, "import_max_kw", of=meter_1997()), now=NOW)
    (reading,) = converse(conversation, lambda _: [next(answers)]).readings
    assert (reading.value, reading.occurred_at) == (Decimal("20.0000"), utc(local(2025, 11, 2, 9)))


def test_a_demand_that_never_stands_still_is_no_value() -> None:
    count = iter(range(1, 100))

    def reply(frame: bytes) -> Iterable[bytes]:
        if frame == request("A010"):
            return [answer("A010", bcd(next(count), 3))]
        return [answer("B010", wire_moment(local(2025, 11, 1)))]

    conversation = DRIVER.read(meter_1997(), job(ReadKind.REGISTERS, "import_max_kw", of=meter_1997()), now=NOW)
    assert causes(converse(conversation, reply)) == {"import_max_kw": Cause.BAD_FRAME}


@pytest.mark.parametrize("time", [bytes(4), b"\xff" * 4, None])
def test_a_demand_without_a_time(time: bytes | None) -> None:
    slave = Slave({"A010": bcd("000000", 3)} | ({} if time is None else {"B010": time}))
    (reading,) = registers(slave, "import_max_kw").readings
    assert (reading.value, reading.occurred_at) == (Decimal(0), None)


@pytest.mark.parametrize("time", ["00183215", "60181506", "30241506", "3018150A", "30183002", "301506"])
def test_a_demand_with_an_impossible_time_is_no_value(time: str) -> None:
    slave = Slave({"A010": bcd("123456", 3), "B010": bytes.fromhex(time)})
    assert causes(registers(slave, "import_max_kw")) == {"import_max_kw": Cause.BAD_FRAME}


@pytest.mark.parametrize(
    ("shown", "moment"),
    [
        ((11, 2, 12, 30), local(2025, 11, 2, 12, 30)),  # this very minute
        ((11, 2, 12, 31), local(2024, 11, 2, 12, 31)),  # a minute from now: it was last year's
        ((12, 31, 23, 59), local(2024, 12, 31, 23, 59)),
        ((1, 1, 0, 0), local(2025, 1, 1)),
        ((2, 29, 10, 0), local(2024, 2, 29, 10)),  # only leap years have it
    ],
)
def test_the_year_is_that_of_the_latest_such_moment(shown: tuple[int, int, int, int], moment: datetime) -> None:
    month, day, hour, minute = shown
    raw = bytes(int(f"{n:02d}", 16) for n in (minute, hour, day, month))
    assert past_stamp(raw, BEIJING, NOW) == utc(moment)


@given(st.datetimes(datetime(2001, 1, 1), datetime(2099, 12, 30)), st.integers(0, 364 * 1440))  # noqa: DTZ001
def test_a_moment_within_the_year_comes_back(moment: datetime, later_min: int) -> None:
    instant = moment.replace(second=0, microsecond=0, tzinfo=UTC)
    now = datetime.fromtimestamp(instant.timestamp() + later_min * 60, UTC)
    assert past_stamp(wire_moment(instant.astimezone(BEIJING)), BEIJING, now) == instant


# --- clock, discovery, version ------------------------------------------------------------------------------------


def test_the_clock() -> None:
    slave = Slave({"C010": bytes.fromhex("00021125"), "C011": bytes.fromhex("073012")})
    device = meter_1997()
    harvest = converse(DRIVER.read(device, job(ReadKind.CLOCK, "clock_offset_s", of=device), now=NOW), slave)
    assert values(harvest) == {"clock_offset_s": "7"}
    assert slave.asked == ["C010", "C011"]
    beside = registers(Slave({**slave.items, "9010": kwh("1.00")}), "import_kwh", "clock_offset_s")
    assert values(beside) == {"import_kwh": "1.00", "clock_offset_s": "7"}


def test_discovery_takes_the_address_of_the_answer() -> None:
    ask = (">", request("9010", ANY))
    assert play(DRIVER.discover(), [ask, ("<", answer("9010", kwh("1.00")))]) == ADDRESS
    assert play(DRIVER.discover(), [ask, ("<", refusal(0x02, control=0xC1))]) == ADDRESS


def test_a_meter_that_answers_as_the_wildcard_has_no_address_to_tell() -> None:
    with pytest.raises(BadFrame, match="it answers as AAAAAAAAAAAA"):
        converse(DRIVER.discover(), lambda _: [answer("9010", kwh("1.00"), ANY)])


ASK_2007, ASK_1997 = wire(ANY, 0x13), request("9010", ANY)


def test_detection() -> None:
    raw = bytes(reversed(bytes.fromhex(ADDRESS)))
    new = [(">", ASK_2007), ("<", wire(ADDRESS, 0x93, raw))]
    old = [(">", ASK_2007), (">", ASK_2007), (">", ASK_1997), ("<", answer("9010", kwh("1.00")))]
    refused = [(">", ASK_2007), ("<", refusal(0x02, control=0xD3)), (">", ASK_1997), ("<", GOOD)]
    assert play(dlt645.detect(), new) == ("2007", ADDRESS)
    assert play(dlt645.detect(), old) == ("1997", ADDRESS)
    assert play(dlt645.detect(), refused) == ("1997", ADDRESS)


def test_detection_never_writes_and_gives_up() -> None:
    sent: list[bytes] = []

    def silent(frame: bytes) -> list[bytes]:
        sent.append(frame)
        return []

    with pytest.raises(NoAnswer):
        converse(dlt645.detect(), silent)
    assert sent == [ASK_2007, ASK_2007, ASK_1997, ASK_1997]


def test_detection_does_not_go_on_where_two_meters_answer_at_once() -> None:
    with pytest.raises(BadFrame):
        converse(dlt645.detect(), lambda _: [b"\x68\x55\x10\x99"])


def test_a_wrong_meter_is_named() -> None:
    with pytest.raises(WrongMeter, match="000000193601"):
        converse(dlt645.read_item_1997(ADDRESS, "9010"), lambda _: [answer("9010", kwh("1.00"), "000000193601")])


# --- the catalogue ------------------------------------------------------------------------------------------------


def test_the_catalogue_is_whole_and_sizes_fit_formats() -> None:
    table = items_1997()
    assert len(table) == 1215
    for item in table.values():
        assert item.name, item.di
        assert item.name_zh, item.di
        if item.kind == "num" and item.size is not None and set(item.format) == {"X", "."}:
            assert -(-len(item.format.replace(".", "")) // 2) == item.size, item.di
    assert not set(table) & set(items())


def test_every_map_leads_to_an_item_of_2007_in_the_same_unit() -> None:
    for item in items_1997().values():
        target = find(item.maps_to) if item.maps_to else None
        if target is None:
            continue
        if item.di[0] in "9A" and item.di[3] != "F":
            assert target.unit == item.unit, item.di
        assert target.kind in (item.kind, "demand", "event"), item.di


def test_quantities_find_their_identifier() -> None:
    pairs = {name: of_1997(one.di) for name, one in QUANTITIES.items() if one.di}
    assert pairs["import_kwh"] == "9010"
    assert pairs["export_kwh_t3"] == "9023"
    assert pairs["q4_kvarh_t1"] == "9141"
    assert pairs["import_max_kw"] == "A010"
    assert pairs["voltage_v_c"] == "B613"
    assert pairs["combined_kwh"] == ""
    assert sum(bool(di) for di in pairs.values()) == 51


def test_blocks_are_named_one_by_one() -> None:
    found = decode_item("901F", TOU_BLOCK + b"\xaa")
    assert [v.di for v in found] == [f"901{r}" for r in range(5)]
    assert [v.value for v in found] == ["10793.30", "1000.00", "2000.00", "3000.00", "4793.30"]
    assert [v.value for v in decode_item("B01F", bytes.fromhex("30180206 00000000"))] == ["06-02 18:30", "00-00 00:00"]


@given(st.sampled_from(sorted(items_1997())), st.binary(max_size=80))
@example("901F", b"\xaa")
def test_any_bytes_under_any_identifier_are_put_into_words(di: str, data: bytes) -> None:
    found = decode_item(di, data)
    assert found
    assert all(v.value is not None or v.note for v in found)


@given(st.binary(max_size=40))
def test_no_bytes_crash_a_read(data: bytes) -> None:
    names = ("import_kwh", "import_kwh_t1", "import_max_kw", "voltage_v_a", "clock_offset_s")
    slave = Slave(dict.fromkeys(("901F", "A010", "B010", "B611", "C010", "C011"), data))
    harvest = registers(slave, *names)
    assert {r.quantity for r in harvest.readings} | set(causes(harvest)) == set(names)
