"""The analysis on simulated districts whose thief is known: it ranks first, and without one nobody is accused."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache

import pytest

from billing.analysis.district import judge
from billing.analysis.gather import Series
from billing.analysis.irregular import CLEAR, Suspect, suspects
from headend.civil import day_start, zone
from headend.model import Window
from simulators.household import Household, Load

TZ = zone("+08:00")
FIRST = date(2026, 9, 1)  # September and October
DAYS, MONTH_BEGINS = 61, 30
POINTS = 60
THIEF = "U00"


@cache
def _pool() -> tuple[tuple[float, ...], ...]:
    """The true hourly use of 240 homes over both months, kWh."""
    homes = []
    installed = FIRST.toordinal() - date(1970, 1, 1).toordinal()
    for number in range(240):
        chance = random.Random(number)
        daily_wh = chance.choice((4_000, 7_000, 10_000, 14_000)) * chance.randint(70, 130) // 100
        home = Household(Load(seed=1000 + number, daily_wh=daily_wh, installed_day=installed))
        curves = [home.curve(day) for day in range(DAYS)]
        homes.append(tuple((c[12 * h + 12] - c[12 * h]) / 10_000 for c in curves for h in range(24)))
    return tuple(homes)


@dataclass
class Theft:
    """Point 0 hides `share` of its use from `day` on; or a constant `kw` at most."""

    share: float = 0.0
    day: int = 0
    kw: float = 0.0

    def counted(self, hour: int, use: float) -> float:
        if hour < self.day * 24:
            return use
        return use * (1 - self.share) if not self.kw else max(use - self.kw, 0.0)


def _shown(values: list[float], resolution: float) -> Series:
    """Differences of a register that shows whole steps of `resolution`."""
    total, before, found = 0.0, 0, Series()
    for value in values:
        total += value
        now = int(total / resolution)
        found.append(Decimal(now - before) * Decimal(str(resolution)))
        before = now
    return found


def _sums(values: Series) -> Series:
    return [sum((v or Decimal(0) for v in values[i : i + 24]), Decimal(0)) for i in range(0, len(values), 24)]


def _suspects(seed: int, theft: Theft | None, *, hourly: bool = True) -> list[Suspect]:
    """A district of 60 homes: iron losses, copper losses of about 3 % that wander by a tenth, and perhaps a thief."""
    chance = random.Random(seed)
    true = [_pool()[k] for k in chance.sample(range(len(_pool())), POINTS)]
    load = [sum(row) for row in zip(*true, strict=True)]
    mean = sum(load) / len(load)
    supply = [use + 0.002 * mean + 0.028 * use * use / mean * chance.uniform(0.9, 1.1) for use in load]
    counted = [list(row) for row in true]
    if theft is not None:
        counted[0] = [theft.counted(hour, use) for hour, use in enumerate(true[0])]
    flow = _shown(supply, 0.1)  # behind current transformers
    uses = {f"U{k:02d}": _shown(row, 0.01) for k, row in enumerate(counted)}
    month = Window(_midnight(MONTH_BEGINS), _midnight(DAYS))

    def hours(window: Window) -> tuple[Series, dict[str, Series]]:
        if not hourly:
            return [], {}
        first = (window.start - _midnight(0)) // timedelta(hours=1)
        last = (window.end - _midnight(0)) // timedelta(hours=1)
        return flow[first:last], {point: row[first:last] for point, row in uses.items()}

    days = [FIRST + timedelta(days=i) for i in range(DAYS)]
    daily = {point: _sums(row) for point, row in uses.items()}
    _, found = judge("D1", days, _sums(flow), daily, hours, {}, month, TZ)
    return suspects(found, TZ)


def _midnight(day: int) -> datetime:
    return day_start(FIRST + timedelta(days=day), TZ)


def _rate(theft: Theft | None, districts: int, *, hourly: bool = True) -> tuple[int, int]:
    """In how many districts the thief is the first and a suspect, and how many others are suspects."""
    first = others = 0
    for seed in range(districts):
        found = _suspects(seed, theft, hourly=hourly)
        accused = [suspect.point for suspect in found if suspect.score >= CLEAR]
        guilty = theft is not None and accused[:1] == [THIEF]
        first += guilty
        others += len(accused) - (theft is not None and THIEF in accused)
    return first, others


THEFTS = [
    Theft(share=0.2),
    Theft(share=0.5, day=MONTH_BEGINS + 15),
    Theft(share=0.5, day=MONTH_BEGINS - 10),
    Theft(share=0.8, day=MONTH_BEGINS + 20),
]
MORE_THEFTS = [Theft(share=0.5), Theft(share=0.8), Theft(share=0.3, day=MONTH_BEGINS + 10)]


@pytest.mark.parametrize("theft", THEFTS, ids=str)
def test_a_thief_ranks_first(theft: Theft) -> None:
    first, others = _rate(theft, 20)
    assert first >= 19
    assert others <= 4


def test_nobody_is_a_suspect_where_nobody_steals() -> None:
    assert _rate(None, 25)[1] <= 1


def test_days_alone_find_a_thief_that_takes_half() -> None:
    assert _rate(Theft(share=0.5), 20, hourly=False)[0] >= 16


def test_a_constant_load_around_the_meter_is_found_by_its_fall() -> None:
    assert _rate(Theft(kw=0.15, day=MONTH_BEGINS + 5), 20)[0] >= 16


@pytest.mark.slow
@pytest.mark.parametrize("theft", THEFTS + MORE_THEFTS, ids=str)
def test_a_thief_ranks_first_in_ninety_five_of_a_hundred_districts(theft: Theft) -> None:
    first, others = _rate(theft, 100)
    assert first >= 95
    assert others <= 15


@pytest.mark.slow
def test_an_honest_district_has_no_suspect_in_ninety_five_of_a_hundred() -> None:
    assert _rate(None, 100)[1] <= 5
