"""Event records: their layouts as the standard's table A.4 has them, and reading them while new ones come."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headend.civil import zone
from headend.errors import BadFrame, NoAnswer, Refused, UsageError
from headend.protocols.dlt645 import decode_item, read_events
from headend.protocols.dlt645.catalogue import Item, find, items
from headend.protocols.dlt645.events import decode_record
from tests.dlt645_wire import ADDRESS, Slave, bcd, converse, kwh, local, read_answer, refusal, utc

BEIJING = zone("Asia/Shanghai")


def second(moment: datetime) -> bytes:
    """`ss mm hh DD MM YY` of a local time."""
    parts = (moment.second, moment.minute, moment.hour, moment.day, moment.month, moment.year % 100)
    return bytes(int(f"{n:02d}", 16) for n in parts)


def outage(hour: int) -> bytes:
    return second(local(2025, 11, 1, hour)) + second(local(2025, 11, 1, hour, 30))


COVER = (
    second(local(2025, 10, 3, 9))
    + second(local(2025, 10, 3, 9, 5))
    + b"".join(kwh(f"{n}.00") for n in (100, 1, 2, 3, 4, 5))
    + b"".join(kwh(f"{n}.00") for n in (101, 1, 2, 3, 4, 6))
)


# --- layouts ------------------------------------------------------------------------------------------------------


RECORDS = [item for item in items().values() if item.kind == "event" and item.di.startswith("03")]


@pytest.mark.parametrize("item", RECORDS, ids=[item.di for item in RECORDS])
def test_every_record_of_the_catalogue_fits_its_length(item: Item) -> None:
    """The lengths are those of the standard and of a concentrator that reads such meters: not ours."""
    assert item.size is not None
    data = b"\x01" * item.size
    values = decode_item(item.di, data)
    assert all(v.value is not None for v in values), values
    assert "due" not in " ".join(v.note for v in values)


def test_a_cover_record() -> None:
    values = decode_item("03300D01", COVER)
    assert len(values) == 14
    assert [v.name for v in values[:3]] == ["start", "end", "forward active energy before"]
    assert [v.value for v in values[:3]] == ["2025-10-03 09:00:00", "2025-10-03 09:05:00", "100.00"]
    assert (values[8].name, values[8].value, values[8].unit) == ("forward active energy after", "101.00", "kWh")
    assert (values[-1].name_zh, values[-1].value, values[-1].unit) == ("开盖后第四象限无功电能", "6.00", "kvarh")


def test_a_phase_failure_record() -> None:
    phase = kwh("0.10") * 4 + bcd("0105", 2) + b"\x99\x49\x80" + bcd("012345", 3) + bcd("000001", 3) + bcd("0987", 2)
    data = outage(3) + kwh("0.30") * 4 + phase * 3 + kwh("1.00") * 4
    assert len(data) == 131
    by_name = {v.name: v for v in decode_item("03040201", data)}
    assert by_name["voltage phase B"].value == "10.5"
    assert by_name["current phase C"].value == "-4.999"
    assert by_name["power factor phase A"].value == "0.987"
    assert by_name["ampere-hours phase C"].value == "1.00"
    assert by_name["total forward active energy gained"].value == "0.30"
    assert len(by_name) == 2 + 4 + 3 * 9 + 4


def test_programming_records_name_the_operator() -> None:
    when = second(local(2025, 9, 1, 10))
    record = decode_record("03300001", when + bytes.fromhex("78563412") + b"\x01\x00\x00\x04" + b"\xff" * 36, BEIJING)
    assert record is not None
    assert (record.start, record.end, record.operator) == (utc(local(2025, 9, 1, 10)), None, "12345678")
    assert [v.value for v in record.values[2:]] == ["04000001", *[None] * 9]


def test_a_clock_setting_has_its_operator_first() -> None:
    data = bytes.fromhex("01000000") + second(local(2025, 9, 1, 10)) + second(local(2025, 9, 1, 10, 4))
    record = decode_record("03300401", data, BEIJING)
    assert record is not None
    assert (record.operator, record.start, record.end) == (
        "00000001",
        utc(local(2025, 9, 1, 10)),
        utc(local(2025, 9, 1, 10, 4)),
    )


@pytest.mark.parametrize(
    ("di", "wire", "values"),
    [
        ("03110000", "120000", ["12"]),
        ("03300D00", "270000", ["27"]),  # as captured
        ("03050000", "030000 150000", ["3", "15"]),
        ("03010000", "010000 020000 030000 040000 050000 060000", ["1", "2", "3", "4", "5", "6"]),
        ("1D000101", "000010150625", ["2025-06-15 10:00:00"]),
        ("03110001", "000000000000 000000000000", [None]),
        ("03110001", "ffffffffffff ffffffffffff", [None]),
        ("03350001", "000010150625 000011150625" + "00" * 16, ["2025-06-15 10:00:00", "2025-06-15 11:00:00", "0" * 32]),
    ],
)
def test_counters_and_short_records(di: str, wire: str, values: list[str | None]) -> None:
    assert [v.value for v in decode_item(di, bytes.fromhex(wire))] == values


def test_a_counter_says_what_it_counts() -> None:
    values = decode_item("03010000", bytes(18))
    assert [v.name for v in values][:2] == [
        "voltage loss A,B,C count + minutes, count phase A",
        "voltage loss A,B,C count + minutes, accumulated phase A",
    ]
    assert [v.unit for v in values] == ["", "min"] * 3


def test_an_event_that_still_lasts_has_no_end() -> None:
    record = decode_record("03110001", outage(3)[:6] + bytes(6), BEIJING)
    assert record is not None
    assert (record.start, record.end) == (utc(local(2025, 11, 1, 3)), None)
    assert record.values[1].note == "all 0: not happened"


@pytest.mark.parametrize("data", [outage(3)[:11], b"\x01", COVER[:59] + b"\x01\x01"])
def test_a_record_of_another_length_is_damage(data: bytes) -> None:
    with pytest.raises(BadFrame, match="are due"):
        decode_record("03300D01", data, BEIJING)


def test_an_impossible_time_is_damage() -> None:
    with pytest.raises(BadFrame, match="no date and time"):
        decode_record("03110001", bytes.fromhex("000010321325") + bytes(6), BEIJING)


# --- reading ------------------------------------------------------------------------------------------------------


def records(*hours: int) -> dict[str, bytes]:
    return {f"031100{nth:02X}": outage(hour) for nth, hour in enumerate(hours, start=1)}


def test_records_come_newest_first_and_the_newest_is_looked_at_again() -> None:
    slave = Slave(records(9, 7, 5))
    found = converse(read_events(ADDRESS, "031100", 2), slave)
    assert [record.start for record in found] == [utc(local(2025, 11, 1, 9)), utc(local(2025, 11, 1, 7))]
    assert slave.asked == ["03110001", "03110002", "03110001"]
    assert [(record.di, record.name) for record in found][1] == ("03110002", "power-off last start,end, 2 back")


@pytest.mark.parametrize("after", [None, bytes(12), b"\xff" * 12])
def test_reading_ends_where_the_meter_holds_no_more(after: bytes | None) -> None:
    slave = Slave(records(9, 7) | ({} if after is None else {"03110003": after}))
    assert len(converse(read_events(ADDRESS, "03110000"), slave)) == 2
    assert slave.asked == ["03110001", "03110002", "03110003", "03110001"]


@pytest.mark.parametrize(("group", "counter"), [("031100", "03110000"), ("030402", "03040000")])
def test_a_meter_without_any_event_says_so_with_its_counter(group: str, counter: str) -> None:
    for held in ({}, {f"{group}01": bytes(12)}, {f"{group}01": b""}):
        slave = Slave({counter: bytes(3)} | held)
        assert converse(read_events(ADDRESS, group), slave) == []
        assert slave.asked == [f"{group}01", counter, f"{group}01"]


def test_an_event_that_comes_meanwhile_starts_it_again() -> None:
    asked: list[bytes] = []

    def reply(request: bytes) -> Iterable[bytes]:
        asked.append(request)
        return Slave(records(7, 5) if len(asked) <= 1 else records(9, 7, 5))(request)

    found = converse(read_events(ADDRESS, "031100", 3), reply)
    starts = [record.start for record in found]
    assert starts == [utc(local(2025, 11, 1, hour)) for hour in (9, 7, 5)]
    assert all(a > b for a, b in pairwise(filter(None, starts)))


def test_a_meter_that_never_stands_still_is_given_up() -> None:
    count = iter(range(100))
    with pytest.raises(BadFrame, match="twice"):
        converse(read_events(ADDRESS, "031100", 1), lambda _: [read_answer("03110001", outage(1 + next(count) % 20))])


def test_refusal_and_silence_are_raised() -> None:
    with pytest.raises(Refused):
        converse(read_events(ADDRESS, "031100"), Slave({}))
    with pytest.raises(NoAnswer):
        converse(read_events(ADDRESS, "031100"), lambda _: [])
    frames = iter([read_answer("03110001", outage(1)), refusal(0x04)])
    with pytest.raises(Refused, match="password"):
        converse(read_events(ADDRESS, "031100"), lambda _: [next(frames)])


@pytest.mark.parametrize(("group", "count"), [("03", 1), ("000100", 1), ("03FF00", 1), ("031100", 0), ("031100", 11)])
def test_what_makes_no_sense_is_refused_before_anything_is_sent(group: str, count: int) -> None:
    with pytest.raises(UsageError):
        next(read_events(ADDRESS, group, count))


def test_records_further_back_are_in_the_catalogue() -> None:
    item = find("0330010A")
    assert item is not None
    assert (item.di, item.size, item.name_zh) == ("0330010A", 106, "(上10次)电表清零记录")
    assert find("0330010B") is None


def test_times_are_by_the_meters_clock() -> None:
    (record,) = converse(read_events(ADDRESS, "031100", 1, clock_zone="+09:00"), Slave(records(9)))
    assert record.start == datetime(2025, 11, 1, 0, tzinfo=UTC)


@given(st.sampled_from([di for di in items() if di.startswith("03")]), st.binary(max_size=210))
def test_any_bytes_are_a_record_nothing_or_damage(di: str, data: bytes) -> None:
    try:
        record = decode_record(di, data, BEIJING)
    except BadFrame:
        return
    assert record is None or record.values
