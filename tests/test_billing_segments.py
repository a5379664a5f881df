"""Periods of bills: where they are cut, what holds in each part, who is not billed and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.charges import (
    CapacityCharge,
    Charge,
    EnergyCharge,
    FixedCharge,
    Policy,
    Step,
    StepCharge,
    StepTable,
    Tariff,
)
from billing.model import Hold
from billing.segments import Case, Terms, case_of, cases_of, in_force, month_of
from headend.store.registry import AccountRow
from headend.store.terms import AccountTerm
from tests.billing_support import SHANGHAI, local, month

SINCE = local("2025-01-01T00:00")
ACCOUNT = AccountRow("A", "U", "Wang", "t", SINCE)
STEPS = (StepTable(tuple(range(1, 13)), (Step(Decimal(2760), Decimal("0.538")), Step(None, Decimal("0.838")))),)


def version(name: str = "1", *charges: Charge, first: str = "2020-01-01", end: str | None = None) -> Tariff:
    held = (date.fromisoformat(first), date.fromisoformat(end) if end else None)
    charges = charges or (EnergyCharge(Decimal("0.5")),)
    return Tariff("t", name, "t", "a test", held[0], True, *held, SHANGHAI, "CNY", charges)


def case(
    tariffs: Sequence[Tariff], terms: Sequence[AccountTerm] = (), account: AccountRow = ACCOUNT, number: int = 6
) -> Case:
    found = case_of(account, terms, tariffs, 2026, number)
    assert isinstance(found, Case), found
    return found


def held(
    tariffs: Sequence[Tariff], terms: Sequence[AccountTerm] = (), account: AccountRow = ACCOUNT
) -> tuple[Hold, ...]:
    found = case_of(account, terms, tariffs, 2026, 6)
    assert not isinstance(found, Case), found
    return found


def days(found: Case) -> list[tuple[str, int]]:
    """Label and civil days of each segment."""
    return [(s.label, (s.window.end - s.window.start) // timedelta(days=1)) for s in found.period.segments]


def test_a_month_of_one_version_is_one_part_without_a_label() -> None:
    found = case([version()])
    assert (found.account, found.period.window, found.period.month) == (ACCOUNT, month(6), month(6))
    assert days(found) == [("", 30)]
    assert found.terms == (Terms(),)
    assert found.period.year_months == 12


def test_a_price_that_changes_within_the_month_cuts_it_at_the_civil_midnight() -> None:
    old, new = version("1", end="2026-06-16"), version("2", first="2026-06-16")
    found = case([new, old])
    assert days(found) == [("2026-06-01", 15), ("2026-06-16", 15)]
    assert [segment.tariff for segment in found.period.segments] == [old, new]
    assert found.period.segments[1].window.start == local("2026-06-16T00:00")
    assert found.period.tariff is new
    assert [days(case([new, old], number=number)) for number in (5, 7)] == [[("", 31)], [("", 31)]]


def test_of_two_versions_at_once_the_newer_holds() -> None:
    old, new = version("1"), version("2", first="2026-06-16")
    for tariffs in ([old, new], [new, old]):
        assert [segment.tariff.version for segment in case(tariffs).period.segments] == ["1", "2"]


def test_a_larger_transformer_is_paid_for_from_its_day_on() -> None:
    """315 kVA for 18 of 30 days, then 400 kVA for 12: 189 + 160 = 349 kVA months."""
    tariff = version("1", CapacityCharge(Decimal(24), None))
    terms = [
        AccountTerm("A", local("2026-06-19T00:00"), capacity_kva=Decimal(400)),
        AccountTerm("A", SINCE, capacity_kva=Decimal(315), contract_kw=Decimal(200)),
    ]
    found = case([tariff], terms)
    assert days(found) == [("2026-06-01", 18), ("2026-06-19", 12)]
    assert found.terms == (Terms(Decimal(200), Decimal(315)), Terms(Decimal(200), Decimal(400)))
    months = [
        count * (terms.capacity_kva or 0) / 30 for (_, count), terms in zip(days(found), found.terms, strict=True)
    ]
    assert months == [189, 160]
    assert case([tariff], terms, number=7).terms == (Terms(Decimal(200), Decimal(400)),)
    assert case([tariff], terms, number=5).terms == (Terms(Decimal(200), Decimal(315)),)


def test_a_term_changes_the_tariff_and_the_rest_goes_on() -> None:
    other = replace(version("9", FixedCharge("service", Decimal(1))), id="other")
    terms = [
        AccountTerm("A", SINCE, people=5),
        AccountTerm("A", local("2026-06-11T00:00"), tariff="other"),
    ]
    found = case([version(), other], terms)
    assert [segment.tariff for segment in found.period.segments] == [version(), other]
    assert found.terms == (Terms(people=5), Terms(people=5))
    assert case([version(), other], terms, number=7).period.tariff is other


def test_terms_that_change_nothing_cut_nothing() -> None:
    terms = [AccountTerm("A", local(day), people=5) for day in ("2026-05-01T00:00", "2026-06-11T00:00")]
    terms.append(AccountTerm("A", local("2026-06-12T00:00"), tariff="t"))
    assert days(case([version()], terms)) == [("", 30)]


def test_two_changes_on_one_day_cut_once() -> None:
    tariffs = [version("1", end="2026-06-16"), version("2", first="2026-06-16")]
    found = case(tariffs, [AccountTerm("A", local("2026-06-16T00:00"), contract_kw=Decimal(1))])
    assert days(found) == [("2026-06-01", 15), ("2026-06-16", 15)]


def test_an_account_that_moves_in_or_out_is_billed_for_its_days() -> None:
    moved_in = replace(ACCOUNT, since=local("2026-06-10T00:00"))
    moved_out = replace(ACCOUNT, until=local("2026-06-10T00:00"))
    assert days(case([version()], account=moved_in)) == [("", 21)]
    assert days(case([version()], account=moved_out)) == [("", 9)]
    assert case([version()], account=moved_in).period.month == month(6)
    assert [in_force(moved_out, month(number)) for number in (5, 6, 7)] == [True, True, False]
    with pytest.raises(ValueError, match="not in force in 2026-05"):
        case_of(moved_in, (), [version()], 2026, 5)
    with pytest.raises(ValueError, match="not in force in 2026-06"):
        case_of(replace(ACCOUNT, until=month(6).start), (), [version()], 2026, 6)


def test_a_tariff_may_leave_a_part_month_to_a_person() -> None:
    fixed = replace(version("1", FixedCharge("service", Decimal(12))), policy=Policy(part_month="hold"))
    moved_in = replace(ACCOUNT, since=local("2026-06-10T00:00"))
    (hold,) = held([fixed], account=moved_in)
    assert (hold.code, hold.start, hold.end) == ("part_month", moved_in.since, month(6).end)
    assert "2026-06-10 00:00 to 2026-06-30 23:59" in hold.what
    assert days(case([fixed])) == [("", 30)]
    for part, expected in (("whole", "part_month"), ("days", "")):
        steps = version("1", StepCharge("month", STEPS, part=part))
        found = case_of(moved_in, (), [replace(steps, policy=Policy(part_month="hold"))], 2026, 6)
        assert ("" if isinstance(found, Case) else found[0].code) == expected
    energy_only = replace(version(), policy=Policy(part_month="hold"))
    assert days(case([energy_only], account=moved_in)) == [("", 21)]
    by_days = replace(fixed, policy=Policy(part_month="days"))
    assert days(case([by_days], account=moved_in)) == [("", 21)]


def test_what_no_version_holds_for_is_told_with_its_days() -> None:
    (hold,) = held([])
    assert hold.what == "no version of tariff 't' holds for the whole of 2026-06"
    gap = [version("1", end="2026-06-11"), version("2", first="2026-06-16")]
    (hold,) = held(gap)
    assert (hold.code, hold.what) == ("no_tariff", "no version of tariff 't' holds from 2026-06-11 to 2026-06-15")
    assert (hold.start, hold.end) == (local("2026-06-11T00:00"), local("2026-06-16T00:00"))
    (hold,) = held([version()], [AccountTerm("A", local("2026-06-21T00:00"), tariff="gone")])
    assert hold.what == "no version of tariff 'gone' holds from 2026-06-21 to 2026-06-30"


def test_zones_and_currencies_do_not_mix_on_one_bill() -> None:
    berlin = replace(version("1"), id="other", zone="Europe/Berlin", currency="EUR")
    change = [AccountTerm("A", local("2026-06-16T00:00"), tariff="other")]
    assert [hold.code for hold in held([version(), berlin], change)] == ["mixed_zones", "mixed_currencies"]
    ended = replace(ACCOUNT, until=local("2026-06-10T00:00"))  # before the change
    assert case([version(), berlin], change, ended).period.month == month(6)
    at_month_end = [AccountTerm("A", local("2026-06-01T00:00", "Europe/Berlin"), tariff="other")]
    assert month_of(ACCOUNT, at_month_end, [version(), berlin], 2026, 6) == month(6, zone_name="Europe/Berlin")
    assert days(case([version(), berlin], at_month_end)) == [("", 30)]


def test_two_step_years_do_not_stand_on_one_bill() -> None:
    """What was used before is one number a bill: it can't be that of two years."""
    steps = [StepCharge("year", STEPS, year_start=start) for start in ((1, 1), (7, 1))]
    old, new = version("1", steps[0], end="2026-06-16"), version("2", steps[1], first="2026-06-16")
    assert [hold.code for hold in held([old, new])] == ["mixed_step_years"]
    assert "01-01, 07-01" in held([old, new])[0].what
    assert days(case([old, new], number=7)) == [("", 31)]
    assert len(days(case([old, version("2", steps[0], EnergyCharge(Decimal(1)), first="2026-06-16")]))) == 2


def test_terms_within_a_day_are_held() -> None:
    (hold,) = held([version()], [AccountTerm("A", local("2026-06-16T08:00"), people=5)])
    assert hold.code == "terms_within_day"
    assert "2026-06-16 08:00:00 of Asia/Shanghai" in hold.what
    at_first = replace(ACCOUNT, since=local("2026-06-16T08:00"))
    assert len(case([version()], [AccountTerm("A", at_first.since, people=5)], at_first).terms) == 1


@pytest.mark.parametrize(
    ("since", "until", "year_start", "months"),
    [
        ("2025-01-01", None, (1, 1), 12),
        ("2026-01-01", None, (1, 1), 12),
        ("2026-04-01", None, (1, 1), 9),
        ("2026-03-31", None, (1, 1), 10),  # a month begun
        ("2025-01-01", "2026-07-01", (1, 1), 6),
        ("2025-01-01", "2026-07-02", (1, 1), 7),
        ("2026-06-10", "2026-06-20", (1, 1), 1),
        ("2026-04-01", None, (7, 1), 3),  # the step year of June ends with it
        ("2025-12-15", "2026-06-30", (4, 15), 3),  # months from the 15th: the one of 15 April to that of 15 June
        ("2025-01-01", None, (8, 31), 12),
        ("2026-05-30", None, (8, 31), 4),  # from 30 April, 31 May, 30 June and 31 July
    ],
)
def test_months_begun_of_the_step_year(since: str, until: str | None, year_start: tuple[int, int], months: int) -> None:
    tariff = version("1", StepCharge("year", STEPS, year_start, part="months"))
    row = replace(ACCOUNT, since=local(f"{since}T00:00"), until=local(f"{until}T00:00") if until else None)
    assert case([tariff], account=row).period.year_months == months


def test_periods_that_are_alike_are_one_object() -> None:
    rows = [replace(ACCOUNT, id=name) for name in "ABC"]
    terms = {"C": [AccountTerm("C", local("2026-06-19T00:00"), capacity_kva=Decimal(400))]}
    found = cases_of(rows, terms, [version()], 2026, 6)
    cases = [one for one in found if isinstance(one, Case)]
    assert [one.account.id for one in cases] == ["A", "B", "C"]
    assert cases[0].period is cases[1].period
    assert days(cases[2]) == [("2026-06-01", 18), ("2026-06-19", 12)]


_DAYS = st.integers(1, 30)


@settings(max_examples=60, deadline=None)
@given(st.sets(_DAYS, max_size=3), st.sets(_DAYS, max_size=3), _DAYS, st.integers(1, 31))
def test_parts_cover_the_period_without_gap_at_civil_midnights(
    versions: set[int], changes: set[int], first: int, last: int
) -> None:
    """Any versions, terms, move-in and move-out: parts follow each other, labels tell them apart, terms are as told."""
    if first >= last:
        return
    edges = ["2020-01-01", *(f"2026-06-{day:02}" for day in sorted(versions)), None]
    tariffs = [version(str(n), first=start or "", end=end) for n, (start, end) in enumerate(pairwise(edges))]
    terms = [AccountTerm("A", local(f"2026-06-{day:02}T00:00"), people=day) for day in sorted(changes)]

    def at(day: int) -> datetime:
        return month(6).end if day == 31 else local(f"2026-06-{day:02}T00:00")

    found = case(tariffs, terms, replace(ACCOUNT, since=at(first), until=at(last)))
    segments = found.period.segments
    assert (segments[0].window.start, segments[-1].window.end) == (at(first), at(last))
    assert all(a.window.end == b.window.start for a, b in pairwise(segments))
    assert len({segment.label for segment in segments}) == len(segments) == len(found.terms)
    cuts = {day for day in versions | changes if first < day < last}
    assert {segment.window.start for segment in segments[1:]} == {at(day) for day in cuts}
    for segment, held_terms in zip(segments, found.terms, strict=True):
        day = (segment.window.start + timedelta(hours=8)).date()  # in Shanghai
        assert segment.tariff.valid_from <= day < (segment.tariff.valid_to or date.max)
        assert held_terms.people == max((change for change in changes if change <= day.day), default=None)
