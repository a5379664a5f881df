"""What a district is supplied with and its meters don't count: per day, when it changed, and whom it follows.

A meter that counts only a part of what is used makes a loss with the shape of its own use. So the loss is regressed on
each meter's use, beside what losses without theft look like: a constant (iron), a part of the load, a part of its
square (copper). The meter the loss follows most surely is taken in, and the others are judged again beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from billing.analysis.fit import Column, slopes

__all__ = ["Balance", "Follower", "LossChange", "LossDay", "balance", "followers", "loss_change", "loss_days", "usable"]

SURE_T = 5.0
"""From this t value on, that the loss follows a meter is a clear reason: chance makes one in some 100 districts."""

_LEAST_ROWS = 14
_LEAST_SIDE_DAYS = 5
_MOST_TAKEN = 5  # meters whose own part is taken out before the others are judged
_LEAST_SLOPE = 0.03  # below it, less than 3 % of the meter's use would be hidden


@dataclass(frozen=True, slots=True)
class LossDay:
    """A day of a district, kWh. supply and metered: None when a part of it is not known; missing: the points that
    lack it."""

    day: date
    supply: Decimal | None
    metered: Decimal | None
    missing: tuple[str, ...] = ()

    @property
    def loss(self) -> Decimal | None:
        """Supply less what was metered; None when either is not known."""
        return None if self.supply is None or self.metered is None else self.supply - self.metered


@dataclass(frozen=True, slots=True)
class Balance:
    """The days of a district that are wholly known, together. share: the loss as a part of the supply, None without."""

    days: int
    supply: Decimal
    loss: Decimal

    @property
    def share(self) -> Decimal | None:
        """Loss over supply."""
        return self.loss / self.supply if self.supply else None


@dataclass(frozen=True, slots=True)
class LossChange:
    """From `day` on, the district's loss is another. Shares are of the supply. t: positive when the loss rose."""

    day: date
    before: Balance
    after: Balance
    t: float


@dataclass(frozen=True, slots=True)
class Follower:
    """How surely the loss follows a point's use. hidden: the part of its use that would not be counted, 0 to 1.
    hidden_kwh: that in kWh over the rows looked at. rows: how many."""

    point: str
    slope: float
    t: float
    hidden: float
    hidden_kwh: float
    rows: int


def loss_days(
    days: Sequence[date], supply: Sequence[Decimal | None], uses: Mapping[str, Sequence[Decimal | None]]
) -> list[LossDay]:
    """The balance of every day: one value a day of the sum meter and of every point."""
    found = []
    for i, day in enumerate(days):
        known = [use[i] for use in uses.values()]
        missing = tuple(point for point, value in zip(uses, known, strict=True) if value is None)
        metered = None if missing else sum((value for value in known if value is not None), Decimal(0))
        found.append(LossDay(day, supply[i], metered, missing))
    return found


def balance(days: Sequence[LossDay]) -> Balance:
    """The days that are wholly known, summed."""
    whole = [day for day in days if day.loss is not None]
    supply = sum((day.supply for day in whole if day.supply is not None), Decimal(0))
    return Balance(len(whole), supply, sum((day.loss for day in whole if day.loss is not None), Decimal(0)))


def loss_change(days: Sequence[LossDay], *, sure_t: float = SURE_T) -> LossChange | None:
    """The day from which on the loss, as a part of the load, rose or fell most surely; None if on none surely.

    Five known days must lie on either side.
    """
    whole = [day for day in days if day.loss is not None]
    splits = range(_LEAST_SIDE_DAYS, len(whole) - _LEAST_SIDE_DAYS + 1)
    if len(whole) < _LEAST_ROWS or not splits:
        return None
    load = [float(day.metered or 0) for day in whole]
    loss = [float(day.loss or 0) for day in whole]
    steps = [[use if i >= split else 0.0 for i, use in enumerate(load)] for split in splits]
    judged = slopes(loss, _ordinary(load), steps)
    best = max(range(len(judged)), key=lambda i: abs(judged[i].t))
    if abs(judged[best].t) < sure_t:
        return None
    cut = splits[best]
    return LossChange(whole[cut].day, balance(whole[:cut]), balance(whole[cut:]), judged[best].t)


def usable(supply: Sequence[Decimal | None], uses: Mapping[str, Sequence[Decimal | None]]) -> list[int]:
    """The rows in which supply and every point are known."""
    return [
        i for i, value in enumerate(supply) if value is not None and all(use[i] is not None for use in uses.values())
    ]


def followers(supply: Sequence[Decimal | None], uses: Mapping[str, Sequence[Decimal | None]]) -> list[Follower]:
    """How surely the loss follows each point, the surest first; [] when fewer than 14 rows are wholly known.

    supply and uses: kWh by row, an hour or a day each; rows with anything unknown are left out.
    """
    rows = usable(supply, uses)
    if len(rows) < _LEAST_ROWS:
        return []
    points = list(uses)
    columns = [[float(use[i] or 0) for i in rows] for use in uses.values()]
    load = [sum(row) for row in zip(*columns, strict=True)] if columns else [0.0] * len(rows)
    loss = [float(supply[i] or 0) - used for i, used in zip(rows, load, strict=True)]
    known = _ordinary(load)
    found: list[Follower] = []
    left = list(range(len(points)))
    while left:
        judged = slopes(loss, known, [columns[k] for k in left])
        follow = [_follower(points[k], s.value, s.t, columns[k]) for k, s in zip(left, judged, strict=True)]
        best = max(range(len(left)), key=lambda i: follow[i].t)
        if len(found) == _MOST_TAKEN or follow[best].t < SURE_T:
            return found + sorted(follow, key=lambda f: (-f.t, f.point))
        found.append(follow[best])
        known = [*known, columns[left.pop(best)]]
    return found


def _ordinary(load: Column) -> list[Column]:
    """What losses without theft are made of: a constant, the load, its square."""
    return [[1.0] * len(load), load, [use * use for use in load]]


def _follower(point: str, slope: float, t: float, column: Column) -> Follower:
    t = t if slope >= _LEAST_SLOPE else min(t, 0.0)
    hidden = slope / (1 + slope) if slope > 0 else 0.0
    return Follower(point, slope, t, hidden, max(slope, 0.0) * sum(column), len(column))
