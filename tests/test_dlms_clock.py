"""Times of COSEM meters, read and written: deviation both ways, open parts, summer time, and what is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headend.errors import BadFrame
from headend.protocols.dlms.axdr import NULL, Datum, Tag
from headend.protocols.dlms.clock import clock_time, is_time, parse_time, range_time, stamp_text
from headend.protocols.dlms.settings import DlmsSettings

PLAIN = DlmsSettings()
REVERSED = DlmsSettings(deviation_reversed=True)
IGNORED = DlmsSettings(ignore_deviation=True)


def _at(text: str, settings: DlmsSettings = PLAIN, zone: str = "Asia/Shanghai") -> str:
    at = parse_time(bytes.fromhex(text), settings, zone).at
    return "" if at is None else at.strftime("%Y-%m-%dT%H:%M:%S")


# Bytes from published captures (tests/vectors/dlms_captures.jsonl), with the instant they are.
@pytest.mark.parametrize(
    ("text", "zone", "instant"),
    [
        ("07e5091b01092f0f00ff8880", "UTC", "2021-09-27T07:47:15"),  # Kaifa MA309M, AT, summer: deviation -120
        ("07e704010615202300ff8880", "UTC", "2023-04-01T19:32:35"),  # Iskraemeco AM550, SI
        ("07e60b0c0610360000ffc400", "UTC", "2022-11-12T15:54:00"),  # Kaifa MA110M, AT, winter: -60
        ("07e60b03ff0f2619ffff4cff", "UTC", "2022-11-03T12:38:25"),  # Energomera, RU: -180, weekday and 1/100 s open
        ("07e60c1c03170100ff800000", "Europe/Stockholm", "2022-12-28T22:01:00"),  # Kamstrup: no deviation
        ("07e30c1001073b28ff8000ff", "Europe/Stockholm", "2019-12-16T06:59:40"),  # Aidon: no deviation, no status
    ],
)
def test_times_of_real_meters(text: str, zone: str, instant: str) -> None:
    assert _at(text, zone=zone) == instant


def test_the_deviation_is_added_or_where_the_meter_has_it_wrong_taken_off() -> None:
    beijing = "07e8010101080000 00 {} 00".replace(" ", "")
    assert _at(beijing.format("fe20")) == "2024-01-01T00:00:00"  # -480 by the Blue Book
    assert _at(beijing.format("01e0"), REVERSED) == "2024-01-01T00:00:00"  # +480, meant as UTC+8
    assert _at(beijing.format("01e0")) == "2024-01-01T16:00:00"
    assert _at(beijing.format("01e0"), IGNORED) == "2024-01-01T00:00:00"
    assert _at(beijing.format("0000")) == "2024-01-01T08:00:00"  # a meter that runs on UTC
    assert _at(beijing.format("8000")) == "2024-01-01T00:00:00"
    assert _at(beijing.format("8000"), zone="+07:00") == "2024-01-01T01:00:00"


def test_a_deviation_no_zone_has_is_refused_unless_it_is_ignored() -> None:
    with pytest.raises(BadFrame, match="deviation of 5000"):
        _at("07e801010108000000138800")
    assert _at("07e801010108000000138800", IGNORED) == "2024-01-01T00:00:00"


@pytest.mark.parametrize(
    "raw",
    [
        Datum(Tag.OCTET_STRING, bytes.fromhex("07e80101ff08000000800000")),
        Datum(Tag.DATE_TIME, bytes.fromhex("07e80101ff08000000800000")),
        bytes.fromhex("090c07e80101ff08000000800000"),
        bytes.fromhex("0c07e80101ff08000000800000"),
        bytes.fromhex("1907e80101ff08000000800000"),
        Datum(Tag.DOUBLE_LONG_UNSIGNED, 1_704_067_200),
        1_704_067_200,
        Datum(Tag.OCTET_STRING, (1_704_067_200).to_bytes(4, "big")),
    ],
)
def test_every_wrapping_of_a_time_is_taken(raw: Datum | bytes | int) -> None:
    assert parse_time(raw, PLAIN, "Asia/Shanghai").at == datetime(2024, 1, 1, tzinfo=UTC)


def test_a_date_is_its_midnight_and_a_time_of_day_no_instant() -> None:
    assert _at("07e8010201") == "2024-01-01T16:00:00"
    assert parse_time(Datum(Tag.DATE, bytes.fromhex("07e80102ff")), PLAIN, "UTC").at == datetime(2024, 1, 2, tzinfo=UTC)
    assert parse_time(Datum(Tag.TIME, bytes.fromhex("0c1e0000")), PLAIN, "UTC").at is None
    assert parse_time(bytes.fromhex("0c1e0000"), PLAIN, "UTC").at is None


@pytest.mark.parametrize(
    "text",
    [
        "ffffffffffffffffff8000ff",
        "ffff0101ff00000000800000",  # any year
        "07e8ff01ff00000000800000",  # any month
        "07e8fd01ff00000000800000",  # the month summer time ends
        "07e801ffff00000000800000",
        "07e80101ffff000000800000",
        "07e80101ff00ff0000800000",
        "000000000000000000000000",  # a maximum that never occurred
        "00000000",
        "ffffffff",
        "",
    ],
)
def test_open_and_empty_times_are_no_instant(text: str) -> None:
    assert parse_time(bytes.fromhex(text), PLAIN, "UTC").at is None


def test_null_is_no_time_and_zero_seconds_neither() -> None:
    assert parse_time(NULL, PLAIN, "UTC").at is None
    assert parse_time(0, PLAIN, "UTC").at is None


def test_open_seconds_and_hundredths_count_as_none() -> None:
    assert _at("07e80101ff0800ffffff8800", zone="UTC") == "2024-01-01T06:00:00"
    stamp = parse_time(bytes.fromhex("07e80101ff08000a32800000"), PLAIN, "UTC")
    assert stamp.at == datetime(2024, 1, 1, 8, 0, 10, 500_000, tzinfo=UTC)


def test_last_days_of_a_month_and_hour_24() -> None:
    assert _at("07e802feff00000000800000", zone="UTC") == "2024-02-29T00:00:00"
    assert _at("07e802fdff00000000800000", zone="UTC") == "2024-02-28T00:00:00"
    assert _at("07e70cfeff00000000800000", zone="UTC") == "2023-12-31T00:00:00"
    assert _at("07e70c1fff18000000800000", zone="UTC") == "2024-01-01T00:00:00"


@pytest.mark.parametrize(
    "raw",
    [
        bytes.fromhex("07e80d01ff00000000800000"),  # month 13
        bytes.fromhex("07e7021dff00000000800000"),  # 29 February 2023
        bytes.fromhex("07e80101ff18010000800000"),  # 24:01
        bytes.fromhex("07e80101ff003c0000800000"),  # minute 60
        bytes.fromhex("07e80101ff00000064800000"),  # hundredth 100
        bytes.fromhex("270f0c1fff17000000034800"),  # year 9999, pushed over its end
        bytes.fromhex("fffe0101ff00000000800000"),
        bytes(7),
        Datum(Tag.VISIBLE_STRING, "2024-01-01"),
        Datum(Tag.BOOLEAN, True),
        -1,
        2**32,
    ],
)
def test_what_is_no_time_is_refused(raw: Datum | bytes | int) -> None:
    with pytest.raises(BadFrame):
        parse_time(raw, PLAIN, "UTC")


def test_the_status_byte_in_words() -> None:
    stamp = parse_time(bytes.fromhex("07e80101ff0000000080008f"), PLAIN, "UTC")
    assert stamp.invalid
    assert stamp.doubtful
    assert stamp.dst
    assert stamp.status_words == (
        "invalid",
        "doubtful",
        "different clock base",
        "invalid clock status",
        "daylight saving",
    )
    silent = parse_time(bytes.fromhex("07e80101ff000000008000ff"), PLAIN, "UTC")
    assert (silent.status, silent.dst, silent.invalid, silent.status_words) == (None, None, False, ())


def test_the_hour_that_comes_twice_is_told_apart_by_the_meters_summer_bit() -> None:
    twice = "07e60a1e07021e0000 8000 {}".replace(" ", "")  # 30 October 2022, 02:30
    assert _at(twice.format("80"), zone="Europe/Berlin") == "2022-10-30T00:30:00"
    assert _at(twice.format("00"), zone="Europe/Berlin") == "2022-10-30T01:30:00"
    unsaid = parse_time(bytes.fromhex(twice.format("ff")), PLAIN, "Europe/Berlin")
    assert unsaid.ambiguous
    assert unsaid.at == datetime(2022, 10, 30, 0, 30, tzinfo=UTC)
    once = parse_time(bytes.fromhex("07e60a1e07041e00008000ff"), PLAIN, "Europe/Berlin")
    assert not once.ambiguous


# --- written --------------------------------------------------------------------------------------------------------

NOON = datetime(2024, 7, 1, 10, tzinfo=UTC)


def test_a_range_is_named_as_the_meter_wants_it() -> None:
    def told(settings: DlmsSettings) -> str:
        return range_time(NOON, settings, "Europe/Berlin").hex()

    assert told(PLAIN) == "07e80701010c000000ff8880"  # 12:00 summer, deviation -120
    assert told(REVERSED) == "07e80701010c000000007880"
    assert told(DlmsSettings(range_deviation="unspecified")) == "07e80701010c000000800080"
    assert told(DlmsSettings(range_local=False)) == "07e80701010a000000000000"
    assert told(DlmsSettings(range_local=False, range_deviation="unspecified")) == "07e80701010a000000800000"


def test_a_clock_is_set_to_its_local_time() -> None:
    assert clock_time(NOON, PLAIN, "Asia/Shanghai").hex() == "07e807010112000000fe2000"
    assert clock_time(NOON, IGNORED, "Asia/Shanghai").hex() == "07e807010112000000800000"
    with pytest.raises(ValueError, match="naive"):
        clock_time(datetime(2024, 7, 1), PLAIN, "Asia/Shanghai")  # noqa: DTZ001


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.sampled_from(["Asia/Shanghai", "Europe/Berlin", "America/St_Johns", "+05:45", "UTC"]),
    st.booleans(),
    st.sampled_from(["meter", "unspecified"]),
    st.booleans(),
)
def test_what_is_written_reads_back(at: datetime, zone: str, reverse: bool, deviation: str, local: bool) -> None:
    at -= timedelta(microseconds=at.microsecond % 10_000)
    settings = DlmsSettings(
        deviation_reversed=reverse,
        range_deviation="meter" if deviation == "meter" else "unspecified",
        range_local=local,
    )
    back = zone if local else "UTC"
    assert parse_time(range_time(at, settings, zone), settings, back).at == at
    assert parse_time(clock_time(at, settings, zone), settings, zone).at == at


# --- looked at --------------------------------------------------------------------------------------------------------


def test_a_time_is_told_from_other_octet_strings() -> None:
    assert is_time(Datum(Tag.OCTET_STRING, bytes.fromhex("07e5091b01092f0f00ff8880")))
    assert is_time(Datum(Tag.OCTET_STRING, bytes.fromhex("ffffffffffffffffff8000ff")))
    assert not is_time(Datum(Tag.OCTET_STRING, b"181220000009"))  # a meter's number
    assert not is_time(Datum(Tag.OCTET_STRING, b"KFM1200200234804"))
    assert not is_time(Datum(Tag.UNSIGNED, 12))


def test_a_time_as_text_shows_what_is_open() -> None:
    assert stamp_text(bytes.fromhex("07e5091b01092f0f00ff8880")) == (
        "2021-09-27 09:47:15, deviation -120 min, daylight saving"
    )
    assert stamp_text(bytes.fromhex("ffffff feff ffffffff 8000ff".replace(" ", ""))) == (
        "****-**-last **:**:**, deviation not specified"
    )
    assert stamp_text(bytes.fromhex("07e80101ff0800003280008f")).endswith(
        "08:00:00.50, deviation not specified, invalid, doubtful, different clock base, invalid clock status, "
        "daylight saving"
    )
    assert stamp_text(1_704_067_200) == "2024-01-01 00:00:00 UTC"


@given(st.one_of(st.binary(max_size=16), st.integers()))
def test_any_bytes_are_a_time_or_a_bad_frame(raw: bytes | int) -> None:
    stamp_text(raw)
    for settings in (PLAIN, REVERSED, IGNORED):
        try:
            stamp = parse_time(raw, settings, "Europe/Berlin")
        except BadFrame:
            continue
        assert stamp.at is None or stamp.at.utcoffset() == timedelta()
