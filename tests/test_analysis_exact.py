"""The arithmetic of the analysis on examples that can be checked by hand or against published answers."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from statistics import median

import pytest

from billing.analysis.classes import classes
from billing.analysis.fit import slopes
from billing.analysis.fluctuation import Use, rank
from billing.analysis.irregular import Findings, Sign, StepDown, step_down, suspects, typical
from billing.analysis.losses import balance, followers, loss_change, loss_days
from billing.analysis.signs import WordRead, event_sign, status_signs
from headend.civil import zone
from headend.errors import UsageError

TZ = zone("Asia/Shanghai")
DAY = date(2026, 9, 1)

# Anscombe (1973), set I. Published: slope 0.500, standard error 0.118, t 4.24.
ANSCOMBE_X = (10.0, 8.0, 13.0, 9.0, 11.0, 14.0, 6.0, 4.0, 12.0, 7.0, 5.0)
ANSCOMBE_Y = (8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68)

# Longley (1967), as NIST StRD has it: highly collinear, with certified coefficients and standard deviations.
LONGLEY = (
    (60323, 83.0, 234289, 2356, 1590, 107608, 1947),
    (61122, 88.5, 259426, 2325, 1456, 108632, 1948),
    (60171, 88.2, 258054, 3682, 1616, 109773, 1949),
    (61187, 89.5, 284599, 3351, 1650, 110929, 1950),
    (63221, 96.2, 328975, 2099, 3099, 112075, 1951),
    (63639, 98.1, 346999, 1932, 3594, 113270, 1952),
    (64989, 99.0, 365385, 1870, 3547, 115094, 1953),
    (63761, 100.0, 363112, 3578, 3350, 116219, 1954),
    (66019, 101.2, 397469, 2904, 3048, 117388, 1955),
    (67857, 104.6, 419180, 2822, 2857, 118734, 1956),
    (68169, 108.4, 442769, 2936, 2798, 120445, 1957),
    (66513, 110.8, 444546, 4681, 2637, 121950, 1958),
    (68655, 112.6, 482704, 3813, 2552, 123366, 1959),
    (69564, 114.2, 502601, 3931, 2514, 125368, 1960),
    (69331, 115.7, 518173, 4806, 2572, 127852, 1961),
    (70551, 116.9, 554894, 4007, 2827, 130081, 1962),
)
LONGLEY_CERTIFIED = (
    (15.0618722713733, 84.9149257747669),
    (-0.0358191792925910, 0.0334910077722432),
    (-2.02022980381683, 0.488399681651699),
    (-1.03322686717359, 0.214274163161675),
    (-0.0511041056535807, 0.226073200069370),
    (1829.15146461355, 455.478499142212),
)


def days(count: int) -> list[date]:
    return [DAY + timedelta(days=i) for i in range(count)]


def kwh(*values: float | str) -> list[Decimal | None]:
    return [Decimal(str(value)) for value in values]


# -- least squares -----------------------------------------------------------------------------------------------------


def test_a_slope_is_the_published_one() -> None:
    [found] = slopes(ANSCOMBE_Y, [[1.0] * 11], [ANSCOMBE_X])
    assert found.value == pytest.approx(0.5000909, abs=1e-6)
    assert found.t == pytest.approx(4.24, abs=0.005)


@pytest.mark.parametrize("number", range(6))
def test_a_slope_beside_collinear_columns_is_the_certified_one(number: int) -> None:
    target = [float(row[0]) for row in LONGLEY]
    columns = [[float(row[k]) for row in LONGLEY] for k in range(1, 7)]
    known = [[1.0] * 16, *columns[:number], *columns[number + 1 :]]
    [found] = slopes(target, known, [columns[number]])
    slope, deviation = LONGLEY_CERTIFIED[number]
    assert found.value == pytest.approx(slope, rel=1e-5)
    assert found.t == pytest.approx(slope / deviation, rel=1e-5)


def test_a_column_made_of_known_ones_has_no_slope() -> None:
    known = [[1.0] * 6, [1.0, 2.0, 3.0, 5.0, 8.0, 13.0]]
    [found] = slopes([3.0, 1.0, 4.0, 1.0, 5.0, 9.0], known, [[2 * x + 7 for x in known[1]]])
    assert (found.value, found.t) == (0.0, 0.0)


# -- fluctuation and classes -------------------------------------------------------------------------------------------


def peers(count: int, now: str, before: str) -> list[Use]:
    return [Use(f"P{i}", "D1", "t", Decimal(now), Decimal(before)) for i in range(count)]


def test_what_all_do_is_no_finding_and_who_does_otherwise_stands_first() -> None:
    """All use half more; one stays as it was: a third less than its peers."""
    same = Use("S", "D1", "t", Decimal(10), Decimal(10), Decimal(8))
    found = rank([*peers(9, "15", "10"), same])
    assert found[0].use.point == "S"
    assert found[0].change == 0
    assert found[0].year_change == Decimal("0.25")
    assert found[0].peers == 9
    assert found[0].peer_daily == 15
    assert found[0].peer_change == Decimal("0.5")
    assert found[0].beyond is not None
    assert round(found[0].beyond, 6) == Decimal("-0.333333")
    assert found[0].mark == "warn"
    assert all(f.beyond == 0 and f.mark == "" for f in found[1:])


def test_marks_begin_at_thirty_and_fifty_per_cent() -> None:
    changed = {name: Use(name, "", name, Decimal(now), Decimal(100)) for name, now in _NOW.items()}
    assert {f.use.point: f.mark for f in rank(changed.values())} == _MARKS


_NOW = {"a": "129.9", "b": "130", "c": "149.9", "d": "150", "e": "70.1", "f": "70", "g": "50", "h": "0"}
_MARKS = {"a": "", "b": "warn", "c": "warn", "d": "order", "e": "", "f": "warn", "g": "order", "h": "order"}


def test_peers_are_of_the_same_district_and_tariff_and_at_least_five() -> None:
    few = rank([Use("A", "D1", "t", Decimal(2), Decimal(1)), *peers(4, "1", "1"), Use("X", "D2", "t", Decimal(9))])
    assert few[0].use.point == "A"
    assert (few[0].peers, few[0].peer_daily, few[0].peer_change) == (4, None, None)
    assert few[0].beyond == 1


def test_half_counts_as_much_as_double_and_the_unknown_come_last() -> None:
    rows = [
        Use("unknown", "", "", None, Decimal(5)),
        Use("half", "", "h", Decimal(5), Decimal(10)),
        Use("more", "", "m", Decimal(19), Decimal(10)),
        Use("double", "", "d", Decimal(20), Decimal(10)),
        Use("tiny", "", "y", Decimal("0.4"), Decimal("0.1")),
    ]
    assert [f.use.point for f in rank(rows)] == ["double", "half", "more", "tiny", "unknown"]


def test_the_year_before_stands_in_for_a_month_not_known() -> None:
    [found] = rank([Use("A", "", "", Decimal(4), None, Decimal(10))])
    assert (found.change, found.beyond, found.mark) == (None, Decimal("-0.6"), "order")


def test_the_median_of_the_others_is_that_without_oneself() -> None:
    """Against the plain way: leave one out, take the median."""
    chance = random.Random(3)
    for size in (6, 7, 12):
        uses = [Use(f"P{i}", "", "", Decimal(chance.randint(1, 9)), Decimal(4)) for i in range(size)]
        for found in rank(uses):
            others = [use.now for use in uses if use is not found.use and use.now is not None]
            assert found.peer_daily == median(others)


def test_classes_and_steps() -> None:
    """Steps of 230 and 400 kWh: a limit belongs to the step below it, and energies fall into steps as they fill."""
    uses = {name: Decimal(use) for name, use in {"a": "0", "b": "230", "c": "231", "d": "500"}.items()}
    found = classes(uses, (Decimal(0), Decimal(230), Decimal(400)))
    rows = [tuple(map(str, (c.above, c.up_to, c.points, c.energy, c.in_band))) for c in found]
    assert rows == [
        ("None", "0", "1", "0", "0"),
        ("0", "230", "1", "230", "690"),
        ("230", "400", "1", "231", "171"),
        ("400", "None", "1", "500", "100"),
    ]
    assert sum(c.in_band for c in found) == sum(uses.values())


@pytest.mark.parametrize("edges", [(10, 10), (10, 5), (-1, 5)])
def test_classes_need_limits_that_rise(edges: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="rise"):
        classes({}, [Decimal(edge) for edge in edges])


# -- losses ------------------------------------------------------------------------------------------------------------


def test_a_day_is_known_when_all_its_parts_are() -> None:
    found = loss_days(days(3), kwh(10, 10, 10), {"A": kwh(4, 4, 4), "B": [Decimal("5.5"), None, Decimal(6)]})
    assert [(d.loss, d.missing) for d in found] == [(Decimal("0.5"), ()), (None, ("B",)), (0, ())]
    whole = balance(found)
    assert whole.days == 2
    assert (whole.supply, whole.loss, whole.share) == (Decimal(20), Decimal("0.5"), Decimal("0.025"))


def _load(count: int, seed: int = 1) -> list[float]:
    chance = random.Random(seed)
    return [chance.uniform(4, 12) for _ in range(count)]


def test_the_day_on_which_the_loss_rose_is_found() -> None:
    """2 % of the load, from day 20 on 6 %; told by the day, with both shares."""
    load = _load(40)
    supply = [use * (1.02 if i < 20 else 1.06) for i, use in enumerate(load)]
    found = loss_change(loss_days(days(40), kwh(*supply), {"A": kwh(*load)}))
    assert found is not None
    assert found.day == DAY + timedelta(days=20)
    assert found.t > 5
    assert found.before.share is not None
    assert found.after.share is not None
    assert float(found.before.share) == pytest.approx(0.02 / 1.02)
    assert float(found.after.share) == pytest.approx(0.06 / 1.06)
    back = loss_change(loss_days(days(40), kwh(*supply[::-1]), {"A": kwh(*load[::-1])}))
    assert back is not None
    assert back.t < -5


def test_a_steady_loss_has_no_day_of_change() -> None:
    chance, load = random.Random(5), _load(60)
    supply = [use * (1.03 + chance.uniform(-0.003, 0.003)) for use in load]
    assert loss_change(loss_days(days(60), kwh(*supply), {"A": kwh(*load)})) is None


def test_the_loss_follows_the_meter_that_counts_four_fifths() -> None:
    """Exact: 0.3 kWh an hour, 2 % of the load, and a quarter of what B counts: a fifth of its use is hidden."""
    uses = {name: _load(48, seed) for seed, name in enumerate("ABC")}
    load = [sum(row) for row in zip(*uses.values(), strict=True)]
    supply = [0.3 + 1.02 * use + 0.25 * b for use, b in zip(load, uses["B"], strict=True)]
    first, *others = followers(kwh(*supply), {name: kwh(*use) for name, use in uses.items()})
    assert first.point == "B"
    assert first.slope == pytest.approx(0.25)
    assert first.hidden == pytest.approx(0.2)
    assert first.hidden_kwh == pytest.approx(0.25 * sum(uses["B"]))
    assert first.rows == 48
    assert first.t > 100
    assert all(other.t < 5 for other in others)


def test_two_thieves_are_both_found_and_unknown_rows_left_out() -> None:
    chance = random.Random(8)
    uses = {name: kwh(*_load(200, seed)) for seed, name in enumerate("ABCDEF")}
    supply: list[Decimal | None] = [
        sum((row[k] or Decimal(0) for k in range(6)), Decimal(0))
        + Decimal("0.5") * (row[1] or 0)
        + Decimal("0.3") * (row[4] or 0)
        + Decimal(str(chance.gauss(0, 0.3)))
        for row in zip(*uses.values(), strict=True)
    ]
    supply[7] = None
    uses["A"][9] = None
    found = followers(supply, uses)
    assert [f.point for f in found[:2]] == ["B", "E"]
    assert {f.rows for f in found} == {198}
    assert all(f.t < 5 for f in found[2:])


def test_too_few_rows_tell_nothing() -> None:
    assert followers(kwh(*_load(13)), {"A": kwh(*_load(13, 2))}) == []


# -- irregular use -----------------------------------------------------------------------------------------------------


def test_a_fall_is_found_on_its_day_when_weather_is_taken_out() -> None:
    """All use twice as much from day 30 on; one also hides 60 % from day 20 on."""
    weather = [1.0 if i < 30 else 2.0 for i in range(60)]
    uses = {f"P{k}": kwh(*(part * use for part, use in zip(weather, _load(60, k), strict=True))) for k in range(9)}
    uses["T"] = kwh(*(w * (10 if i < 20 else 4) for i, w in enumerate(weather)))
    norm = typical(uses)
    found = step_down(days(60), uses["T"], norm)
    assert found is not None
    assert found.day == DAY + timedelta(days=20)
    assert found.fall == pytest.approx(0.6, abs=0.05)
    assert found.t > 8
    assert all(step_down(days(60), uses[f"P{k}"], norm) is None for k in range(9))


def test_a_rise_and_a_small_fall_are_none() -> None:
    flat = [1.0] * 30
    assert step_down(days(30), kwh(*[5] * 15, *[10] * 15), flat) is None
    assert step_down(days(30), kwh(*[10] * 15, *[8.5] * 15), flat) is None
    assert step_down(days(30), kwh(*[10] * 15, *[7.5] * 15), flat) is not None
    assert step_down(days(30), kwh(*[10] * 25, *[1] * 5), flat) is None, "five days are no new habit"
    assert step_down(days(40), kwh(*[10] * 15, *[1] * 15, *[10] * 10), [1.0] * 40) is None, "they came back"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=TZ).astimezone(UTC)


def test_status_bits_are_signs_when_they_come_to_be() -> None:
    reads = [
        WordRead(at("2026-10-01T08:00"), 0, 1),
        WordRead(at("2026-10-01T09:00"), 0b1000, 2),
        WordRead(at("2026-10-01T10:00"), 0b1001, 3),
        WordRead(at("2026-10-01T11:00"), 0b0001, 4),
    ]
    assert [(s.name, s.outcome_id, s.after) for s in status_signs(4, reads)] == [
        ("phase A current loss", 2, at("2026-10-01T08:00")),
        ("phase A voltage loss", 3, at("2026-10-01T09:00")),
    ]
    [first] = status_signs(7, [WordRead(at("2026-10-01T08:00"), 0b10, 5)])
    assert (first.name, first.after) == ("current sequence reversed", None)


def test_events_are_known_by_their_words() -> None:
    now = at("2026-10-01T08:00")
    told = {code: event_sign(now, code, "start", 1) for code in _CODES}
    assert {code: sign.weight if sign else None for code, sign in told.items()} == _CODES
    assert event_sign(now, "cover_open", "end", 1) is None


_CODES = {
    "cover_open": 0.8,
    "Terminal-Cover opened": 0.6,
    "magnetic_field": 1.0,
    "current reversal": 0.6,
    "电表开盖": 0.8,
    "power_down": None,
    "clock_set": None,
}


def test_reasons_add_up_to_one_ranked_list() -> None:
    """A fall with the same energy as a rise of the loss, and a cover: each with its numbers and dates."""
    load = kwh(*[100] * 40)
    chance = random.Random(1)
    supply = kwh(*(round(102 + (4 if i >= 20 else 0) + chance.uniform(-0.2, 0.2), 2) for i in range(40)))
    change = loss_change(loss_days(days(40), supply, {"A": load}))
    fall = StepDown(DAY + timedelta(days=21), 9.0, 5.0, 12.0)
    cover = Sign(at("2026-09-21T03:15"), "event cover_open", 0.8, 77)
    found = suspects(Findings("D1", change=change, falls={"A": fall}, signs={"A": [cover], "B": [cover, cover]}), TZ)
    assert [(s.point, s.district) for s in found] == [("A", "D1"), ("B", "D1")]
    first, second = found
    assert [(r.kind, round(r.weight, 2)) for r in first.reasons] == [
        ("step_down", 1.5),
        ("same_time", 1.0),
        ("sign", 0.8),
    ]
    assert first.score == pytest.approx(3.3)
    assert second.score == pytest.approx(0.9)
    texts = [reason.text for reason in first.reasons]
    assert texts[0].startswith("use fell from 9.00 to 5.00 kWh a day (-44%) on 2026-09-22 and stayed there (t 12.0;")
    assert texts[1].startswith(
        "its use fell by 4.00 kWh a day within three days of 2026-09-21, when the district's loss"
    )
    assert texts[2] == "event cover_open: 2026-09-21 03:15 (outcome 77)"
    assert first.reasons[1].since == date(2026, 9, 21)
    assert second.reasons[0].text == "event cover_open: 2026-09-21 03:15, 2 times, last 2026-09-21 03:15 (outcome 77)"
