"""The DLMS meter simulator's profiles, clock and relay against its household's truth."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from simulators.dlms_meter import DlmsMeter
from simulators.dlms_spec import DlmsSpec
from tests.sim_dlms_kit import (
    NOW_S,
    OPEN,
    Wrapper,
    blocks_of,
    meter_of,
    name,
    rows_of,
    selection_entry,
    selection_range,
    spec_with,
)

IMPORT, CLOCK, LOAD, RELAY = "1.0.1.8.0.255", "0.0.1.0.0.255", "1.0.99.1.0.255", "0.0.96.3.10.255"
SHORT = DlmsSpec(clients=(OPEN,), memory_days=2)


def _when(cell: object) -> datetime:
    assert isinstance(cell, bytes)
    return datetime(int.from_bytes(cell[:2], "big"), *cell[2:4], *cell[5:8])  # noqa: DTZ001


def _stamp(when: datetime, deviation: str = "fe20") -> str:
    fields = (when.month, when.day, 0xFF, when.hour, when.minute, when.second, 0)
    return f"{when.year:04x}" + bytes(fields).hex() + deviation + "00"


def _rows(meter: DlmsMeter, selection: str, obis: str = LOAD) -> list[list[int | bytes | None]]:
    wire = Wrapper(meter).open()
    answer = wire.get(7, obis, 2, selection)
    if answer[1] == 2:
        return rows_of(blocks_of(wire, answer)[1])
    assert answer[3] == 0, answer.hex()
    return rows_of(answer[4:])


FROM, TO = datetime(2026, 9, 21, 8), datetime(2026, 9, 21, 10)  # noqa: DTZ001
FROM_S = int(datetime(2026, 9, 21, 0, tzinfo=UTC).timestamp())  # 08:00 in the meter's zone


@pytest.mark.parametrize(
    ("quirks", "deviation", "shift_h"),
    [
        ({}, "fe20", 0),
        ({}, "8000", 0),
        ({}, "0000", 8),
        ({"deviation": "reversed"}, "01e0", 0),
        ({"range_times": "local"}, "0000", 0),
        ({"range_times": "utc"}, "fe20", 8),
    ],
)
def test_a_range_of_rows_is_the_truth(quirks: dict[str, Any], deviation: str, shift_h: int) -> None:
    meter = meter_of(spec_with(**quirks))
    rows = _rows(meter, selection_range(_stamp(FROM, deviation), _stamp(TO, deviation)))
    start_s = FROM_S + shift_h * 3600
    assert [row[2] for row in rows] == [meter.register.units(start_s + 900 * k) // 10 for k in range(9)][: len(rows)]
    assert len(rows) == 9
    assert _when(rows[0][0]).hour == 8 + shift_h
    assert isinstance(rows[0][0], bytes)
    assert rows[0][0][9:11].hex() == ("01e0" if quirks.get("deviation") == "reversed" else "fe20")


def test_ranges_it_does_not_take() -> None:
    span = selection_range(_stamp(FROM, "8000"), _stamp(TO, "8000"))
    refusals: list[dict[str, Any]] = [
        {"selective": "refuse"},
        {"selective": "entry-only"},
        {"range_deviation": "required"},
    ]
    for quirks in refusals:
        assert Wrapper(meter_of(spec_with(**quirks))).open().get(7, LOAD, 2, span)[3:] == b"\x01\x0d"
    assert len(_rows(meter_of(spec_with(SHORT, selective="ignore")), span)) == 192


def test_entries_and_columns_count_from_one() -> None:
    meter = meter_of(SHORT)
    rows = _rows(meter, selection_entry(191, 0, 1, 1))
    assert [len(row) for row in rows] == [1, 1]
    assert _when(rows[-1][0]) == datetime(2026, 9, 21, 22)  # noqa: DTZ001
    (row,) = _rows(meter, selection_entry(192, 192, 3, 3))
    assert row == [meter.register.units(NOW_S // 900 * 900) // 10]


def test_nulls_gaps_and_marks() -> None:
    meter = meter_of(spec_with(null_rows=True))
    meter.set_value(IMPORT, b"\x06\x00\x00\x00\x01")
    meter.lose_rows(FROM_S + 1800, FROM_S + 3600)
    meter.mark_rows(FROM_S + 3600, FROM_S + 4500, 0x80)
    rows = _rows(meter, selection_range(_stamp(FROM), _stamp(TO)))
    assert len(rows) == 7
    assert isinstance(rows[0][0], bytes)
    assert [row[0] for row in rows[1:]] == [None] * 6
    assert [row[1] for row in rows] == [0, None, 0x80, 0, None, None, None]
    assert rows[0][2] == meter.register.units(FROM_S) // 10


def test_times_of_rows_have_other_tags() -> None:
    for tag, first in (("date-time", b"\x19\x07\xea"), ("unix", b"\x06\x6a\xb1")):
        meter = meter_of(spec_with(SHORT, time_tag=tag))
        answer = Wrapper(meter).open().get(7, LOAD, 2, selection_entry(192, 192))
        assert answer[4:8] == b"\x01\x01\x02\x03"
        assert answer[8:11] == first


def test_days_and_months_are_local_even_over_a_change_of_the_clock() -> None:
    """Amsterdam, November 2026: the clock goes back on 25 October."""
    spec = DlmsSpec(clients=(OPEN,), zone="Europe/Amsterdam", daily_days=40)
    meter = meter_of(spec, datetime(2026, 11, 2, 12, tzinfo=UTC).timestamp())
    rows = _rows(meter, "00", "1.0.99.2.0.255")
    assert {(_when(row[0]).hour, _when(row[0]).minute) for row in rows} == {(0, 0)}
    by_day = {_when(row[0]).date().isoformat(): row for row in rows}
    for day, utc, deviation in (
        ("2026-10-25", datetime(2026, 10, 24, 22, tzinfo=UTC), "ff8880"),
        ("2026-10-26", datetime(2026, 10, 25, 23, tzinfo=UTC), "ffc400"),
    ):
        stamp = by_day[day][0]
        assert isinstance(stamp, bytes)
        assert stamp[9:].hex() == deviation
        assert by_day[day][2] == meter.register.units(int(utc.timestamp())) // 10
    months = _rows(meter, "00", "0.0.98.1.0.255")
    assert _when(months[-1][0]) == datetime(2026, 11, 1)  # noqa: DTZ001
    assert len(months) == 12
    quarters = _rows(meter, selection_entry(1, 0))
    assert len(quarters) == 62 * 96


# -- clock and relay -------------------------------------------------------------------------------------------------


def test_the_clock_is_set_shifted_and_logged() -> None:
    meter = meter_of(DlmsSpec(clients=(OPEN,), clock_error_s=90))
    wire = Wrapper(meter).open()
    assert wire.get(8, CLOCK)[6:].hex() == "07ea091501160e3200fe2000"
    assert wire.ask(f"c301c10008{name(CLOCK)}060110ffd8") == b"\xc7\x01\xc1\x00\x00"
    assert meter.clock.error_s == 50
    assert wire.ask(f"c301c10008{name(CLOCK)}06011003e8") == b"\xc7\x01\xc1\x0c\x00"
    assert wire.ask(f"c101c10008{name(CLOCK)}0200090c07ea091501160d1400fe2000") == b"\xc5\x01\xc1\x00"
    assert meter.clock.error_s == 0
    assert wire.get(8, CLOCK, 3)[4:] == b"\x10\xfe\x20"
    assert [row[1] for row in rows_of(wire.get(7, "0.0.99.98.0.255")[4:])] == [4, 5, 4, 5]


@pytest.mark.parametrize(("mode", "after"), [(4, b"\x16\x01"), (1, b"\x16\x02")])
def test_the_relay_opens_and_closes_by_its_mode(mode: int, after: bytes) -> None:
    meter = meter_of(DlmsSpec(clients=(OPEN,), control_mode=mode))
    wire = Wrapper(meter).open()
    assert wire.get(70, RELAY)[4:] == b"\x03\x01"
    assert wire.ask(f"c301c10046{name(RELAY)}01010f00") == b"\xc7\x01\xc1\x00\x00"
    assert (wire.get(70, RELAY)[4:], wire.get(70, RELAY, 3)[4:]) == (b"\x03\x00", b"\x16\x00")
    wire.ask(f"c301c10046{name(RELAY)}02010f00")
    assert wire.get(70, RELAY, 3)[4:] == after
    meter.press_button()
    assert wire.get(70, RELAY)[4:] == b"\x03\x01"


def test_a_stuck_relay_and_one_that_is_not_remote() -> None:
    stuck = Wrapper(meter_of(DlmsSpec(clients=(OPEN,), relay="stuck"))).open()
    stuck.ask(f"c301c10046{name(RELAY)}01010f00")
    assert (stuck.get(70, RELAY)[4:], stuck.get(70, RELAY, 3)[4:]) == (b"\x03\x01", b"\x16\x00")
    none = Wrapper(meter_of(DlmsSpec(clients=(OPEN,), control_mode=0))).open()
    assert none.ask(f"c301c10046{name(RELAY)}01010f00") == b"\xc7\x01\xc1\x03\x00"
