"""Can a value be true? DL/T 645's checksum is a byte sum: some damaged frames pass it.

Of all two-bit flips of one answer 0.66 % still give a well-formed wrong kWh. So a register must rise, by no more than
the wiring can carry in the time, and the rate registers must add up to the total. What fails is read again at once,
then kept as suspect and never billed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from headend.model import MeterModel, Reading, Source
from headend.quantities import Kind, quantity

__all__ = ["Anchor", "doubtful"]


@dataclass(frozen=True, slots=True)
class Anchor:
    """A value of the same register already believed, beside which a new one must make sense."""

    at: datetime
    value: Decimal


def _possible(earlier: Anchor, later: Anchor, model: MeterModel) -> bool:
    """Whether the register can have gone from `earlier` to `later`."""
    difference = later.value - earlier.value
    if difference < 0:
        difference += model.register_wrap
    hours = Decimal((later.at - earlier.at) // timedelta(seconds=1)) / 3600
    return 0 <= difference <= model.max_power_kw * hours + 2 * model.resolution  # both ends are truncated


def _doubtful_points(
    points: Sequence[Anchor], before: Anchor | None, after: Anchor | None, model: MeterModel
) -> set[int]:
    """Indexes of the points that can't all be true; `points` ascend in time."""
    chain = [*([before] if before else []), *points, *([after] if after else [])]
    shift = 1 if before else 0
    bad: set[int] = set()
    for index in range(len(chain) - 1):
        if _possible(chain[index], chain[index + 1], model):
            continue
        # One of the two is wrong: the one without which its neighbours agree; if that can't be told, both.
        drop_left = index > 0 and _possible(chain[index - 1], chain[index + 1], model)
        drop_right = index + 2 < len(chain) and _possible(chain[index], chain[index + 2], model)
        if drop_right or not drop_left:
            bad.add(index + 1 - shift)
        if drop_left or not drop_right:
            bad.add(index - shift)
    return {index for index in bad if 0 <= index < len(points)}


def _rates_disagree(readings: Sequence[Reading], model: MeterModel) -> bool:
    """Whether total and rate registers of one instant differ by more than the truncation of each."""
    total = next((r.value for r in readings if "_t" not in r.quantity), None)
    rates = [r.value for r in readings if "_t" in r.quantity]
    if total is None or len(rates) < model.rates:
        return False
    return abs(total - sum(rates, Decimal(0))) > model.resolution * (len(rates) + 1)


def doubtful(
    readings: Sequence[Reading], anchors: Mapping[str, Iterable[Anchor]], model: MeterModel, *, sums: bool = True
) -> set[int]:
    """Indexes into `readings` of values that can't be true beside each other and beside `anchors` (by quantity).

    sums: rates that do not add up to their total are damage. Not where a CRC guards the frames: there they are how the
    meter is set (rates switched off, more of them than are read).
    """
    bad: set[int] = set()
    by_quantity: dict[str, list[int]] = {}
    for index, reading in enumerate(readings):
        if quantity(reading.quantity).kind is Kind.REGISTER:
            by_quantity.setdefault(reading.quantity, []).append(index)
            if not 0 <= reading.value < model.register_wrap and not reading.quantity.startswith("combined"):
                bad.add(index)
    for name, indexes in by_quantity.items():
        if name.startswith(("combined", "import_kvarh", "export_kvarh")):
            continue  # signed combinations may fall
        indexes.sort(key=lambda i: readings[i].at)
        points = [Anchor(readings[i].at, readings[i].value) for i in indexes]
        known = list(anchors.get(name, ()))
        before = max((a for a in known if a.at <= points[0].at), key=lambda a: a.at, default=None)
        after = min((a for a in known if a.at >= points[-1].at), key=lambda a: a.at, default=None)
        bad.update(indexes[i] for i in _doubtful_points(points, before, after, model))
    if sums:
        bad.update(_bad_blocks(readings, model))
    return bad


def _bad_blocks(readings: Sequence[Reading], model: MeterModel) -> set[int]:
    """Registers of one energy and one instant whose rates do not add up to the total."""
    blocks: dict[tuple[datetime, Source, str], list[int]] = {}
    for index, reading in enumerate(readings):
        if quantity(reading.quantity).kind is Kind.REGISTER and reading.source is not Source.CURVE:
            energy = reading.quantity.partition("_t")[0]
            blocks.setdefault((reading.at, reading.source, energy), []).append(index)
    return {
        index
        for indexes in blocks.values()
        if _rates_disagree([readings[i] for i in indexes], model)
        for index in indexes
    }
