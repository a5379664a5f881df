"""Rows of profile generics by hand: left-out times and values, either order, the hour that comes twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headend.errors import BadFrame
from headend.protocols.dlms.axdr import NULL, Datum, Tag
from headend.protocols.dlms.buffer import Layout, Profile, layout_of, rows_of
from headend.protocols.dlms.clock import clock_time
from headend.protocols.dlms.cosem import Attribute, obis_bytes
from headend.protocols.dlms.settings import DlmsProfile, DlmsSettings
from tests.dlms_kit import NOW, READER, bench

STEP = timedelta(minutes=15)
EDGE = NOW.replace(minute=0, second=0)
CLOCK, IMPORT = "0.0.1.0.0.255", "1.0.1.8.0.255"


def profile(period_s: int = 900, *, newest_first: bool = False, nulls: str = "repeat", zone: str = "+08:00") -> Profile:
    on = bench()
    columns = (Attribute(8, obis_bytes(CLOCK), 2), Attribute(3, obis_bytes(IMPORT), 2))
    spec = DlmsProfile(nulls=nulls)  # type: ignore[arg-type]
    meter = replace(on.meter, clock_zone=zone)
    return Profile(meter, READER, spec, on.access, Layout(columns, period_s, newest_first), 0)


def row(at: datetime | None, value: int | None, zone: str = "+08:00", own: DlmsSettings = READER) -> Datum:
    time = NULL if at is None else Datum(Tag.OCTET_STRING, clock_time(at, own, zone))
    number = NULL if value is None else Datum(Tag.DOUBLE_LONG_UNSIGNED, value)
    return Datum(Tag.STRUCTURE, (time, number))


def taken(rows: list[Datum], of: Profile) -> list[tuple[datetime | None, int | None]]:
    return [(one.at, one.values[1].value) for one in rows_of(Datum(Tag.ARRAY, tuple(rows)), of)]


def test_nulls_go_on_from_the_row_before() -> None:
    rows = [row(EDGE, 5), row(None, None), row(None, 7), row(EDGE + 10 * STEP, None), row(None, 9)]
    assert taken(rows, profile()) == [
        (EDGE, 5),
        (EDGE + STEP, 5),
        (EDGE + 2 * STEP, 7),
        (EDGE + 10 * STEP, 7),
        (EDGE + 11 * STEP, 9),
    ]


def test_nulls_go_down_where_the_newest_row_comes_first() -> None:
    rows = [row(EDGE, 5), row(None, 4)]
    assert taken(rows, profile(newest_first=True)) == [(EDGE, 5), (EDGE - STEP, 4)]
    seen = [*rows, row(EDGE - 3 * STEP, 3)]  # two times say it too
    assert taken(seen, profile())[1] == (EDGE - STEP, 4)


def test_nulls_can_mean_that_nothing_is_there() -> None:
    assert taken([row(EDGE, 5), row(EDGE + STEP, None)], profile(nulls="missing")) == [(EDGE, 5), (EDGE + STEP, None)]


def test_a_time_that_can_not_be_counted_is_none() -> None:
    (first, second) = rows_of(Datum(Tag.ARRAY, (row(None, 5), row(None, 6))), profile())
    assert (first.at, second.at) == (None, None)
    assert first.problem
    (_, after) = rows_of(Datum(Tag.ARRAY, (row(EDGE, 5), row(None, 6))), profile(period_s=0))
    assert after.at is None


def test_the_hour_that_comes_twice_is_told_by_the_row_before() -> None:
    """Europe/Prague, 2026-10-25: 02:00 to 03:00 local comes twice; these stamps say no deviation and no status."""
    zone = "Europe/Prague"
    first = datetime(2026, 10, 25, 0, 0, tzinfo=UTC)  # 02:00 summer time

    def bare(at: datetime, value: int) -> Datum:
        time = bytearray(clock_time(at, replace(READER, ignore_deviation=True), zone))
        time[11] = 0xFF
        return Datum(Tag.STRUCTURE, (Datum(Tag.OCTET_STRING, bytes(time)), Datum(Tag.DOUBLE_LONG_UNSIGNED, value)))

    rows = [bare(first + n * STEP, n) for n in range(-1, 9)]
    assert [at for at, _ in taken(rows, profile(zone=zone))] == [first + n * STEP for n in range(-1, 9)]
    (alone,) = rows_of(Datum(Tag.ARRAY, (bare(first + 2 * STEP, 2),)), profile(zone=zone))
    assert alone.at is None
    assert "twice" in alone.problem


@pytest.mark.parametrize(
    "buffer",
    [
        Datum(Tag.STRUCTURE, ()),
        Datum(Tag.ARRAY, (Datum(Tag.DOUBLE_LONG_UNSIGNED, 1),)),
        Datum(Tag.ARRAY, (Datum(Tag.STRUCTURE, (NULL,)),)),
    ],
)
def test_a_buffer_that_does_not_fit_is_refused(buffer: Datum) -> None:
    with pytest.raises(BadFrame):
        rows_of(buffer, profile())


@pytest.mark.parametrize("objects", [NULL, Datum(Tag.ARRAY, ()), Datum(Tag.ARRAY, (NULL,))])
def test_columns_that_are_none_are_refused(objects: Datum) -> None:
    with pytest.raises(BadFrame):
        layout_of(objects)


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 2**32 - 1), st.booleans(), st.booleans()), max_size=40),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_compression_is_undone_whatever_the_order(steps: list[tuple[int, int, bool, bool]], down: bool) -> None:
    """Rows with gaps, compressed as far as the Blue Book allows, come back as they were."""
    plain: list[tuple[datetime, int]] = []
    at = EDGE
    for gap, value, same, _ in steps:
        at += gap * STEP
        plain.append((at, plain[-1][1] if same and plain else value))
    if down:
        plain.reverse()
    sign = -1 if down else 1
    sent = []
    for index, (time, value) in enumerate(plain):
        before = plain[index - 1] if index else None
        follows = before is not None and time == before[0] + sign * STEP and steps[index][3]
        repeats = before is not None and value == before[1]
        sent.append(row(None if follows else time, None if repeats else value))
    assert taken(sent, profile(newest_first=down)) == plain
