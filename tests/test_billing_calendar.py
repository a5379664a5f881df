"""Time-of-use spans: they cover a window exactly once and follow the wall clock, through both changes of the clock."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.calendar import (
    billing_month,
    day_kind,
    overlaps,
    period_at,
    period_index,
    spans,
    step_year_start,
    uncovered,
)
from billing.charges import Calendar, PeriodEvent, PeriodWindow, Schedule, Season
from headend.civil import zone
from headend.model import Window

ALL_MONTHS = tuple(range(1, 13))
ZONES = ("Asia/Shanghai", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "+05:30")


def cut(*edges: int) -> tuple[PeriodWindow, ...]:
    """A day cut at `edges` (minutes), the pieces called p0, p1, p2, p0, ..."""
    marks = [0, *sorted(edges), 1440]
    return tuple(PeriodWindow(f"p{n % 3}", a, b) for n, (a, b) in enumerate(pairwise(marks)))


def all_year(*windows: PeriodWindow) -> Schedule:
    return Schedule((Season(ALL_MONTHS, "all", windows),))


def name_by_clock(schedule: Schedule, moment: datetime, zone_name: str) -> str:
    """The period by a plain look at the wall clock, to check against."""
    local = moment.astimezone(zone(zone_name))
    minute = local.hour * 60 + local.minute
    days = "weekend" if local.strftime("%a") in ("Sat", "Sun") else "weekday"
    for season in schedule.seasons:
        if local.month in season.months and season.days in ("all", days):
            return next(w.period for w in season.windows if w.start_min <= minute < w.end_min)
    raise AssertionError(local)


edges = st.sets(st.integers(1, 1439).map(lambda minute: minute // 5 * 5 or 5), max_size=6)
starts = st.datetimes(datetime(2024, 1, 1), datetime(2027, 12, 1)).map(  # noqa: DTZ001
    lambda moment: moment.replace(second=0, microsecond=0, tzinfo=UTC)
)


@given(edges, edges, starts, st.integers(1, 4000), st.sampled_from(ZONES))
def test_spans_cover_a_window_exactly_once_by_the_wall_clock(
    workdays: set[int], weekends: set[int], start: datetime, minutes: int, zone_name: str
) -> None:
    schedule = Schedule((Season(ALL_MONTHS, "weekday", cut(*workdays)), Season(ALL_MONTHS, "weekend", cut(*weekends))))
    window = Window(start, start + timedelta(minutes=minutes))
    found = spans(schedule, window, zone_name)
    assert found[0].start == window.start
    assert found[-1].end == window.end
    for before, after in pairwise(found):
        assert before.end == after.start
        assert before.period != after.period
    for span in found:
        assert span.start < span.end
        moments = [span.start, span.start + (span.end - span.start) / 2, span.end - timedelta(minutes=1)]
        assert {name_by_clock(schedule, moment, zone_name) for moment in moments} == {span.period}


@pytest.mark.parametrize(
    ("month", "hours", "night"),
    [(3, 31 * 24 - 1, 31 * 8 - 1), (10, 31 * 24 + 1, 31 * 8 + 1), (6, 30 * 24, 30 * 8)],
)
def test_months_with_a_change_of_the_clock_have_an_hour_less_or_more(month: int, hours: int, night: int) -> None:
    schedule = all_year(
        PeriodWindow("night", 0, 360), PeriodWindow("day", 360, 1320), PeriodWindow("night", 1320, 1440)
    )
    window = billing_month(2026, month, "Europe/Berlin")
    totals = {"night": timedelta(), "day": timedelta()}
    for span in spans(schedule, window, "Europe/Berlin"):
        totals[span.period] += span.end - span.start
    assert totals["night"] == timedelta(hours=night)
    assert sum(totals.values(), timedelta()) == window.end - window.start == timedelta(hours=hours)


def test_an_hour_that_comes_twice_is_what_its_clock_shows_both_times() -> None:
    # 25 October 2026, Berlin: 02:00-03:00 comes as CEST (from 00:00Z) and as CET (from 01:00Z).
    schedule = all_year(PeriodWindow("a", 0, 150), PeriodWindow("b", 150, 1440))
    window = Window(datetime(2026, 10, 24, 22, tzinfo=UTC), datetime(2026, 10, 25, 23, tzinfo=UTC))
    found = [(f"{span.start:%H:%M}", span.period) for span in spans(schedule, window, "Europe/Berlin")]
    assert found == [("22:00", "a"), ("00:30", "b"), ("01:00", "a"), ("01:30", "b")]


def test_a_boundary_in_an_hour_left_out_falls_on_the_change() -> None:
    # 29 March 2026, Berlin: 02:00-03:00 is not there; 01:00Z is 03:00.
    schedule = all_year(PeriodWindow("a", 0, 150), PeriodWindow("b", 150, 1440))
    window = Window(datetime(2026, 3, 28, 23, tzinfo=UTC), datetime(2026, 3, 29, 22, tzinfo=UTC))
    found = [(f"{span.start:%H:%M}", span.period) for span in spans(schedule, window, "Europe/Berlin")]
    assert found == [("23:00", "a"), ("01:00", "b")]


def test_weekends_and_seasons_choose_their_own_windows() -> None:
    schedule = Schedule(
        (
            Season((7, 8, 9), "weekday", (PeriodWindow("summer", 0, 1440),)),
            Season((1, 2, 3, 4, 5, 6, 10, 11, 12), "weekday", (PeriodWindow("winter", 0, 1440),)),
            Season(ALL_MONTHS, "weekend", (PeriodWindow("rest", 0, 1440),)),
        )
    )
    tz = zone("Asia/Shanghai")

    def at(month: int, day: int, hour: int) -> str:
        return period_at(schedule, datetime(2026, month, day, hour, tzinfo=tz).astimezone(UTC), tz)[0]

    assert at(6, 30, 23) == "winter"  # a Tuesday
    assert at(7, 1, 0) == "summer"
    assert at(7, 3, 23) == "summer"  # a Friday
    assert at(7, 4, 0) == "rest"
    assert at(7, 5, 23) == "rest"
    assert at(7, 6, 0) == "summer"


@pytest.mark.parametrize(
    ("local", "year_start", "expected"),
    [
        ("2026-01-01T00:00", (1, 1), "2026-01-01"),
        ("2026-12-31T23:59", (1, 1), "2026-01-01"),
        ("2026-06-30T23:59", (7, 1), "2025-07-01"),
        ("2026-07-01T00:00", (7, 1), "2026-07-01"),
    ],
)
def test_the_step_year_starts_at_local_midnight(local: str, year_start: tuple[int, int], expected: str) -> None:
    tz = zone("Asia/Shanghai")
    moment = datetime.fromisoformat(local).replace(tzinfo=tz).astimezone(UTC)
    found = step_year_start(moment, year_start, "Asia/Shanghai")
    assert found.astimezone(tz).isoformat() == f"{expected}T00:00:00+08:00"


def test_gaps_and_overlaps_of_a_day_are_found() -> None:
    windows = (PeriodWindow("a", 0, 600), PeriodWindow("b", 540, 720), PeriodWindow("c", 780, 1380))
    assert uncovered(windows) == [(720, 780), (1380, 1440)]
    assert overlaps(windows) == [(540, 600, ("a", "b"))]
    assert uncovered(cut(300)) == []
    assert overlaps(cut(300)) == []
    assert overlaps((PeriodWindow("a", 0, 1440), PeriodWindow("a", 60, 120))) == [(60, 120, ("a",))]


# -- holidays, days worked, events

DAY = PeriodWindow("day", 480, 1200)
QUIET = (PeriodWindow("night", 0, 480), DAY, PeriodWindow("night", 1200, 1440))
REST = (PeriodWindow("rest", 0, 1440),)
FEAST = (PeriodWindow("feast", 0, 1440),)


def test_holidays_have_their_own_hours_where_a_season_is_for_them_else_those_of_a_weekend() -> None:
    calendar = Calendar((date(2026, 5, 1), date(2026, 10, 1)), (date(2026, 10, 10),))
    schedule = Schedule(
        (
            Season(ALL_MONTHS, "weekday", QUIET),
            Season(ALL_MONTHS, "weekend", REST),
            Season((10,), "holiday", FEAST),
        ),
        calendar,
    )
    tz = zone("Asia/Shanghai")

    def noon(month: int, day: int) -> str:
        return period_at(schedule, datetime(2026, month, day, 12, tzinfo=tz), tz)[0]

    assert noon(5, 1) == "rest"  # a Friday; May has no season for holidays
    assert noon(10, 1) == "feast"  # a Thursday
    assert noon(10, 2) == "day"
    assert noon(10, 10) == "day"  # a Saturday that is worked
    assert noon(10, 11) == "rest"
    assert [day_kind(schedule, date(2026, 10, day)) for day in (1, 2, 10, 11)] == [
        "holiday", "weekday", "weekday", "weekend",
    ]  # fmt: skip


def test_a_season_for_all_days_holds_on_holidays_too() -> None:
    schedule = Schedule((Season(ALL_MONTHS, "all", QUIET),), Calendar((date(2026, 10, 1),)))
    window = billing_month(2026, 10, "Asia/Shanghai")
    assert spans(schedule, window, "Asia/Shanghai") == spans(all_year(*QUIET), window, "Asia/Shanghai")


@given(
    edges,
    starts,
    st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 600)), min_size=1, max_size=3),
    st.sampled_from(ZONES),
)
def test_an_event_cuts_the_hours_and_nothing_else(
    cuts: set[int], start: datetime, called: list[tuple[int, int]], zone_name: str
) -> None:
    window = Window(start, start + timedelta(minutes=4000))
    events, reached = [], start
    for after, minutes in called:
        begin = reached + timedelta(minutes=after)
        reached = begin + timedelta(minutes=minutes)
        events.append(PeriodEvent("called", begin, reached))
    plain = all_year(*cut(*cuts))
    schedule = Schedule(plain.seasons, Calendar(), tuple(events))
    found = spans(schedule, window, zone_name)
    assert (found[0].start, found[-1].end) == (window.start, window.end)
    for before, after_ in pairwise(found):
        assert before.end == after_.start
        assert before.period != after_.period
    inside = sum((max(min(e.end, window.end) - max(e.start, window.start), timedelta()) for e in events), timedelta())
    assert sum((s.end - s.start for s in found if s.period == "called"), timedelta()) == inside
    for span in found:
        moment = span.start + (span.end - span.start) / 2
        assert period_at(schedule, moment, zone(zone_name))[0] == span.period
        if span.period != "called":
            assert name_by_clock(plain, moment, zone_name) == span.period


@pytest.mark.parametrize(("month", "zone_name"), [(3, "Europe/Berlin"), (10, "Europe/Berlin"), (7, "Asia/Shanghai")])
def test_every_interval_has_the_number_of_its_period(month: int, zone_name: str) -> None:
    tz = zone(zone_name)
    called = datetime(2026, month, 15, 14, tzinfo=tz).astimezone(UTC)
    schedule = Schedule(
        (Season(ALL_MONTHS, "weekday", QUIET), Season(ALL_MONTHS, "weekend", REST)),
        Calendar((date(2026, month, 3),)),
        (PeriodEvent("called", called, called + timedelta(minutes=45)),),
    )
    window = billing_month(2026, month, zone_name)
    periods = ("called", "day", "night", "rest")
    found = period_index(schedule, window, zone_name, 900, periods)
    moments = [window.start + n * timedelta(minutes=15) for n in range(len(found))]
    assert moments[-1] + timedelta(minutes=15) == window.end
    assert [periods[n] for n in found] == [period_at(schedule, moment, tz)[0] for moment in moments]
    assert [periods[n] for n in found].count("called") == 3


def test_intervals_across_a_boundary_have_no_number() -> None:
    schedule = all_year(PeriodWindow("a", 0, 510), PeriodWindow("b", 510, 1440))
    window = billing_month(2026, 7, "Asia/Shanghai")
    assert len(period_index(schedule, window, "Asia/Shanghai", 1800, ("a", "b"))) == 31 * 48
    with pytest.raises(ValueError, match="an interval of 3600 s lies across 2026-07-01 08:30, where a period begins"):
        period_index(schedule, window, "Asia/Shanghai", 3600, ("a", "b"))
    with pytest.raises(ValueError, match="the period 'b' is not among a"):
        period_index(schedule, window, "Asia/Shanghai", 1800, ("a",))
    with pytest.raises(ValueError, match="no whole number of intervals of 7000 s"):
        period_index(schedule, window, "Asia/Shanghai", 7000, ("a", "b"))
