"""Energy of usage points behind another's meter, taken off what that meter registered. Pure.

The order is that of Chinese suppliers: fixed quantities first, then ratios of what is left, then the meters behind
("total minus parts"). What is taken and what is left sum to the whole exactly, for every name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from billing.names import TOTAL

__all__ = ["Part", "Shared", "share_out"]

_PLACES: Final = 4


@dataclass(frozen=True, slots=True)
class Part:
    """One usage point behind the meter.

    method, amount: as of `headend.store.terms.SubmeterRow`, for the period in hand: a fixed quantity of a part of a
    month is the caller's to cut. energies: by name, of its own meter, where the method is `metered`.
    """

    point: str
    method: str
    amount: Decimal = Decimal(0)
    energies: Mapping[str, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shared:
    """rest: what is left for the parent, by name. taken: what each part has, in the order of the parts."""

    rest: Mapping[str, Decimal]
    taken: tuple[Mapping[str, Decimal], ...]


def share_out(own: Mapping[str, Decimal], parts: Sequence[Part]) -> Shared:
    """Take the parts off the energies `own` of the parent's meter.

    own: `import_kwh`, and beside it the names that begin with it, which split it (by TOU period). A quantity or a ratio
    is taken from the total, and from what splits it pro rata: in four places (or as many as the energies have), the
    last name takes the rest. Other names (reactive energy, export) are reduced by the meters behind only.

    `ValueError`, in words for a `Hold`, if more is taken than there is, or a meter behind lacks one of the names.
    """
    numbers = [*own.values(), *(value for part in parts for value in part.energies.values())]
    places = max(_PLACES, *map(_places, numbers))
    rest = {name: _integer(value, places) for name, value in own.items()}
    split = [name for name in own if name != TOTAL and name.startswith(TOTAL)]
    taken: dict[int, dict[str, int]] = {}
    for number, part in _of(parts, "quantity"):
        amount = _integer(part.amount, places)
        taken[number] = {TOTAL: amount, **_cut(part, rest, split, amount)}
        _take(rest, part, taken[number], places)
    for number, part, wanted in _ratios(parts, rest, split):
        taken[number] = {TOTAL: wanted[0], **_cut(part, rest, split, wanted[1])}
        _take(rest, part, taken[number], places)
    for number, part in _of(parts, "metered"):
        taken[number] = {name: _integer(_metered(part, name), places) for name in own}
        _take(rest, part, taken[number], places)
    if len(taken) < len(parts):
        raise ValueError(f"unknown method of {', '.join(p.point for n, p in enumerate(parts) if n not in taken)}")
    return Shared(_decimals(rest, places), tuple(_decimals(taken[number], places) for number in range(len(parts))))


def _of(parts: Sequence[Part], method: str) -> Iterator[tuple[int, Part]]:
    return ((number, part) for number, part in enumerate(parts) if part.method == method)


def _ratios(
    parts: Sequence[Part], rest: Mapping[str, int], split: Sequence[str]
) -> Iterator[tuple[int, Part, tuple[int, int]]]:
    """Parts by ratio with what they take from the total and from all that splits it.

    Each is the difference of two rounded running sums, so that ratios of 100 percent together take all there is.
    """
    bases = (rest[TOTAL], sum(rest[name] for name in split))
    percent, before = Decimal(0), (0, 0)
    for number, part in _of(parts, "ratio"):
        percent += part.amount
        if part.amount < 0 or percent > 100:
            raise ValueError(f"the ratios up to that of {part.point} come to {percent} percent of the energy")
        upto = (_half_up(bases[0], percent, 100), _half_up(bases[1], percent, 100))
        yield number, part, (upto[0] - before[0], upto[1] - before[1])
        before = upto


def _cut(part: Part, rest: Mapping[str, int], split: Sequence[str], amount: int) -> dict[str, int]:
    """`amount` shared out over the names of `split` in proportion to what is left there.

    By rounded running sums: none gets less than nothing or more than there is, and they sum to `amount`.
    """
    whole = sum(rest[name] for name in split)
    if not split:
        return {}
    if whole == 0:
        return {**dict.fromkeys(split, 0), split[-1]: amount}
    found, reached, before = {}, 0, 0
    for name in split:
        reached += rest[name]
        upto = _half_up(reached, Decimal(amount), whole)
        found[name], before = upto - before, upto
    return found


def _take(rest: dict[str, int], part: Part, taken: Mapping[str, int], places: int) -> None:
    for name, amount in taken.items():
        if amount < 0 or amount > rest[name]:
            left, asked = _decimal(rest[name], places), _decimal(amount, places)
            what = f"{part.point} takes {asked} off {name} of the meter before it, where {left} are left"
            raise ValueError(what)
        rest[name] -= amount


def _metered(part: Part, name: str) -> Decimal:
    """Energy of the meter behind. Where it keeps no reactive energy or export, none is taken off."""
    value = part.energies.get(name)
    if value is None and name.startswith(TOTAL):
        raise ValueError(f"{part.point} has no {name} to take off the meter before it")
    return Decimal(0) if value is None else value


def _half_up(value: int, factor: Decimal, divisor: int) -> int:
    """`value` x `factor` / `divisor`, none below 0, exact and then rounded half-up."""
    top, bottom = factor.as_integer_ratio()
    return (2 * value * top + divisor * bottom) // (2 * divisor * bottom)


def _places(value: Decimal) -> int:
    return max(0, -int(value.as_tuple().exponent))


def _integer(value: Decimal, places: int) -> int:
    return int(value.scaleb(places).to_integral_value(rounding=ROUND_HALF_UP))


def _decimal(value: int, places: int) -> Decimal:
    return Decimal(value).scaleb(-places)


def _decimals(values: Mapping[str, int], places: int) -> dict[str, Decimal]:
    return {name: _decimal(value, places) for name, value in values.items()}
