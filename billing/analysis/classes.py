"""How many usage points use how much: consumption classes, or the distribution over the steps of a tariff."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

from headend.errors import UsageError

__all__ = ["EDGES", "UseClass", "class_of", "classes"]

EDGES = tuple(map(Decimal, ("0", "50", "100", "200", "400", "800")))
"""Upper limits of the classes, kWh a month. The first, 0, is for points that used nothing."""


@dataclass(frozen=True, slots=True)
class UseClass:
    """Points whose month's use lies above `above` (None: no lower limit) and up to `up_to` (None: no upper one).

    energy: what they used together, kWh. in_band: what all points used of this band, kWh: the energy that falls into a
    step of these limits.
    """

    above: Decimal | None
    up_to: Decimal | None
    points: int
    energy: Decimal
    in_band: Decimal


def class_of(use: Decimal, edges: Sequence[Decimal] = EDGES) -> int:
    """The number of the class of a month's use; a limit belongs to the class below it."""
    return bisect_left(edges, use)


def classes(uses: Mapping[str, Decimal], edges: Sequence[Decimal] = EDGES) -> list[UseClass]:
    """The classes between `edges` with their points and energies, lowest first. `UsageError` unless edges rise."""
    if any(low >= high for low, high in pairwise(edges)) or (edges and edges[0] < 0):
        raise UsageError("the limits of classes must rise, from 0 or more", remedy="write them like 0,230,400")
    limits: list[Decimal | None] = [None, *edges, None]
    found = []
    for number, (above, up_to) in enumerate(pairwise(limits)):
        members = [use for use in uses.values() if class_of(use, edges) == number]
        in_band = sum((_in_band(use, above, up_to) for use in uses.values()), Decimal(0))
        found.append(UseClass(above, up_to, len(members), sum(members, Decimal(0)), in_band))
    return found


def _in_band(use: Decimal, above: Decimal | None, up_to: Decimal | None) -> Decimal:
    top = use if up_to is None else min(use, up_to)
    return max(top - (above or Decimal(0)), Decimal(0))
