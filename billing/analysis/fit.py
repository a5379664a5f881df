"""Least squares, as much of it as is needed here: the slope of one column beside others, and how sure it is.

Each candidate is judged by itself beside the known columns (the Frisch-Waugh theorem): the known ones are projected out
of it and of the target, so that a district of hundreds of meters with a month of days is no problem of more unknowns
than equations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from operator import mul

__all__ = ["Column", "Slope", "slopes"]

Column = Sequence[float]

_LEAST_FREEDOM = 3
_NOTHING = 1e-9  # a column of which less than this share is left is a sum of the known ones


@dataclass(frozen=True, slots=True)
class Slope:
    """What the target rises by for each one of a column. t: the slope over its standard error; 0 when unknown."""

    value: float
    t: float


def slopes(target: Column, known: Sequence[Column], candidates: Sequence[Column]) -> list[Slope]:
    """The slope of `target` on each candidate beside the `known` columns, each candidate by itself."""
    basis = _orthonormal(known)
    rest = _without(target, basis)
    freedom = len(target) - len(basis) - 1
    whole = _dot(rest, rest)
    return [_slope(rest, whole, column, basis, freedom) for column in candidates]


def _slope(rest: Column, whole: float, column: Column, basis: Sequence[Column], freedom: int) -> Slope:
    own = _without(column, basis)
    square = _dot(own, own)
    if freedom < _LEAST_FREEDOM or square <= _NOTHING * _dot(column, column):
        return Slope(0.0, 0.0)
    value = _dot(own, rest) / square
    # An exact fit leaves nothing to estimate the error from: a billionth of the whole stands for it.
    left = max(whole - value * value * square, _NOTHING * whole, 1e-12)
    return Slope(value, value / sqrt(left / freedom / square))


def _orthonormal(columns: Sequence[Column]) -> list[Column]:
    basis: list[Column] = []
    for column in columns:
        own = _without(_without(column, basis), basis)  # twice: rounding
        square = _dot(own, own)
        if square > _NOTHING * _dot(column, column):
            length = sqrt(square)
            basis.append([x / length for x in own])
    return basis


def _without(column: Column, basis: Sequence[Column]) -> Column:
    for direction in basis:
        share = _dot(column, direction)
        column = [x - share * y for x, y in zip(column, direction, strict=True)]
    return column


def _dot(a: Column, b: Column) -> float:
    return float(sum(map(mul, a, b)))
