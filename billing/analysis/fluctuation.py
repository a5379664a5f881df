"""Use of a month against the month before, the same month a year ago, and what peers did: who stands out.

Compared are average daily uses, so that months of different length compare. A change common to all (weather, holidays)
is no finding: points are ranked by how far their change lies from the median change of their peers, those of the same
district and tariff.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

__all__ = ["ORDER", "WARN", "Fluctuation", "Use", "rank"]

WARN = Decimal("0.3")
"""A change of +-30 % beyond peers deserves a look."""
ORDER = Decimal("0.5")
"""A change of +-50 % beyond peers deserves a work order."""

_FEWEST_PEERS = 5  # a median of fewer says little
_LEAST_DAILY = Decimal("0.5")  # kWh a day; below it on both sides, a percentage is noise


@dataclass(frozen=True, slots=True)
class Use:
    """Average daily use of a usage point, kWh: this month, the one before, the same a year ago; None unknown."""

    point: str
    district: str
    tariff: str
    now: Decimal | None
    before: Decimal | None = None
    year_ago: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Fluctuation:
    """How a point's use changed. Changes are fractions (0.25: a quarter more), None when a side is unknown.

    peers: how many others of its district and tariff are known. peer_daily: their median daily use, kWh; peer_change:
    their median change; None when there are fewer than five. beyond: the change that is left when the peers' is taken
    out, against the month before, or against the year ago where that is not known. mark: "", "warn" or "order".
    """

    use: Use
    change: Decimal | None
    year_change: Decimal | None
    peers: int
    peer_daily: Decimal | None
    peer_change: Decimal | None
    beyond: Decimal | None
    mark: str


def rank(uses: Iterable[Use], *, warn: Decimal = WARN, order: Decimal = ORDER) -> list[Fluctuation]:
    """Every point, the farthest from its peers first (half counts as much as double), unknown last."""
    groups: dict[tuple[str, str], list[Use]] = defaultdict(list)
    for use in uses:
        groups[use.district, use.tariff].append(use)
    found = []
    for group in groups.values():
        daily = _Sorted(use.now for use in group)
        changes = _Sorted(_change(use.now, use.before) for use in group)
        year_changes = _Sorted(_change(use.now, use.year_ago) for use in group)
        found += [_of(use, daily, changes, year_changes, warn, order) for use in group]
    return sorted(found, key=lambda f: (f.mark != "order", f.mark != "warn", -_distance(f.beyond), f.use.point))


class _Sorted:
    """The known values of a group, for the median of all but one."""

    def __init__(self, values: Iterable[Decimal | None]) -> None:
        self._values = sorted(value for value in values if value is not None)

    def others(self, own: Decimal | None) -> int:
        """How many there are beside `own`."""
        return len(self._values) - (own is not None)

    def median(self, own: Decimal | None) -> Decimal | None:
        """The median without `own`; None of fewer than five."""
        values, count = self._values, self.others(own)
        if count < _FEWEST_PEERS:
            return None
        gap = len(values) if own is None else bisect_left(values, own)
        low, high = ((count - 1) // 2, count // 2)
        return (values[low + (low >= gap)] + values[high + (high >= gap)]) / 2


def _of(
    use: Use, daily: _Sorted, changes: _Sorted, year_changes: _Sorted, warn: Decimal, order: Decimal
) -> Fluctuation:
    change, year_change = _change(use.now, use.before), _change(use.now, use.year_ago)
    peer_change = changes.median(change)
    beyond = _beyond(change, peer_change)
    if change is None:
        beyond = _beyond(year_change, year_changes.median(year_change))
    small = max(side or Decimal(0) for side in (use.now, use.before, use.year_ago)) < _LEAST_DAILY
    mark = "" if small or beyond is None else "order" if abs(beyond) >= order else "warn" if abs(beyond) >= warn else ""
    peers = daily.others(use.now)
    return Fluctuation(use, change, year_change, peers, daily.median(use.now), peer_change, beyond, mark)


def _change(now: Decimal | None, then: Decimal | None) -> Decimal | None:
    return None if now is None or not then else now / then - 1


def _beyond(change: Decimal | None, peers: Decimal | None) -> Decimal | None:
    if change is None or peers is None or peers <= -1:
        return change
    return (1 + change) / (1 + peers) - 1


def _distance(beyond: Decimal | None) -> Decimal:
    """How far a ratio lies from 1, the same for the double and the half."""
    if beyond is None:
        return Decimal(-1)
    ratio = 1 + beyond
    if ratio <= 0:
        return Decimal("Infinity")
    return max(ratio, 1 / ratio) - 1
