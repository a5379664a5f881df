"""Charges that ask when energy was used: at market prices, and by steps that fill interval by interval."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from billing import kernel
from billing.calendar import period_index
from billing.charges import MarketCharge, PriceSeries, StepTouCharge
from billing.gathering.intervals import Rows
from billing.gathering.meters import Meters
from billing.gathering.places import Piece, Spot, span_text, when_text
from billing.gathering.registers import Amount
from billing.gathering.shares import Energies
from billing.model import Derived, Hold, IntervalPart
from billing.names import LOSS, PEOPLE, TOTAL, at, step_tou_name
from billing.rating.energy import step_limits
from billing.rating.lines import Part, Sheet
from billing.rating.tariff import periods_of, step_tou_table
from headend.model import Quality
from headend.quantities import to_units

__all__ = ["by_market", "by_steps"]

_PRICE_PLACES: Final = 8
_ENERGY_PLACES: Final = 8
"""Four of the store, four of a multiplier."""


@dataclass(frozen=True, slots=True)
class _Timed:
    """The intervals of one meter in a segment, complete, with what they come to as a whole."""

    piece: Piece
    rows: Rows
    part: IntervalPart
    counts: Counter[Quality]


def _timed(meters: Meters, spot: Spot, segment: int, energies: Energies) -> list[_Timed]:
    """The intervals of a segment; adds to the holds of `energies` what is against them."""
    found = []
    _, registers, _ = meters.registers.amount(TOTAL, [(p.installed, p.window) for p in spot.pieces(segment)], spot.zone)
    for piece in spot.pieces(segment):
        sums, torn = meters.checked(piece, None, registers, spot.zone)
        energies.torn += [hold for hold in torn if hold not in energies.torn]
        if sums is not None and not torn:
            rows = meters.curves.rows(piece.installed).cut(piece.window)
            found.append(_Timed(piece, rows, sums.part(piece, "", meters.as_of), sums.counts[""]))
    return found


# -- market ------------------------------------------------------------------------------------------------------------


def by_market(meters: Meters, charge: MarketCharge, spot: Spot, segment: int, energies: Energies) -> Amount:
    """Each interval's energy times the price of its time, in the currency.

    Energy that has no time (a loss, the parts of points behind) changes the value in proportion, to eight places.
    """
    found, measured = Amount(), Decimal(0)
    for timed in _timed(meters, spot, segment, energies):
        prices = _prices(meters, charge.series, timed, spot.zone)
        if isinstance(prices, Hold):
            energies.torn.append(prices)
            continue
        with localcontext() as context:
            context.prec = 60
            exact = Decimal(_dot(timed.rows.units, prices)).scaleb(-4 - _PRICE_PLACES)
            value = exact * timed.part.multiplier
        found.value += value
        found.parents.append(timed.part)
        found.counts += timed.counts
        measured += timed.part.value
    changed = _without_time(energies)
    if changed and not measured:
        what = f"{changed} kWh of losses or parts have no market price, as nothing was used"
        remedy = "bill them by hand"
        energies.torn.append(Hold("market_loss", what, remedy))
    elif changed:
        more = (found.value * changed / measured).quantize(Decimal(1).scaleb(-_PRICE_PLACES), rounding=ROUND_HALF_UP)
        found.value += more
        found.parents.append(Derived(at(LOSS, spot.period.segments[segment].label), more))
    return found


def _without_time(energies: Energies) -> Decimal:
    """What of the total did not pass the meter in its time."""
    total = energies.amounts.get(TOTAL, Amount())
    return sum((parent.value for parent in total.parents if isinstance(parent, Derived)), Decimal(0))


def _prices(meters: Meters, series: PriceSeries, timed: _Timed, zone_name: str) -> kernel.Ints | Hold:
    """The price of each interval, 10^8-fold; a hold where the series does not reach, or is finer than the intervals."""
    rows, window = timed.rows, timed.piece.window
    step = timedelta(seconds=rows.step_s)
    offset = rows.start - series.start
    if series.step_s % rows.step_s or offset % step:
        what = f"intervals of {rows.step_s} s lie across prices of {series.step_s} s ({series.name})"
        return Hold("market_step", what, "read a finer curve, or give prices of longer spans", timed.piece.meter.id)
    first = offset // step
    numbers = (first + np.arange(len(rows.units))) // (series.step_s // rows.step_s)
    if len(numbers) and (numbers[0] < 0 or numbers[-1] >= len(series.prices)):
        end = series.start + len(series.prices) * timedelta(seconds=series.step_s)
        what = f"no prices for all of {span_text(window, zone_name)}: {series.name} has them from "
        what += f"{when_text(series.start, zone_name)} to {when_text(end, zone_name)}"
        return Hold("market_prices", what, "add the prices to the series, load the tariff again", "", *_ends(timed))
    key = (id(series), first, rows.step_s, len(numbers))
    if key not in meters.prices:
        low, high = (int(numbers[0]), int(numbers[-1]) + 1) if len(numbers) else (0, 0)
        scaled = [int(price.scaleb(_PRICE_PLACES)) for price in series.prices[low:high]]
        meters.prices[key] = np.array(scaled, dtype=np.int64)[numbers - low]
    return meters.prices[key]


def _ends(timed: _Timed) -> tuple[Any, Any]:
    return timed.piece.window.start, timed.piece.window.end


def _dot(units: NDArray[np.int64], prices: kernel.Ints) -> int:
    """The exact sum of products: in int64 where it surely fits, else in Python's integers."""
    most = int(np.abs(units).sum()) * int(np.abs(prices).max(initial=0))
    if most < 2**62:
        return int(units @ prices)
    return sum(one * price for one, price in zip(units.tolist(), prices.tolist(), strict=True))


# -- steps by time -----------------------------------------------------------------------------------------------------


def by_steps(
    meters: Meters,
    charge: StepTouCharge,
    spot: Spot,
    segment: int,
    energies: Energies,
    used: Decimal,
    people: int | None,
) -> dict[str, Amount]:
    """Energy of each step and TOU period, where the steps fill interval by interval from `used` on."""
    label = spot.period.segments[segment].label
    if changed := _without_time(energies):
        what = f"{changed} kWh of losses or parts of others can't be laid on steps that fill interval by interval"
        energies.holds.append(Hold("chronological", what, 'set split = "pro_rata" in the tariff'))
        return {}
    tariff, window = spot.period.segments[segment].tariff, spot.period.segments[segment].window
    columns = {} if people is None else {at(PEOPLE, label): kernel.column([Decimal(people)])}
    bounds = step_limits(Part(Sheet(spot.period, columns, 1), segment), charge)
    limits = [_scaled(kernel.decimal(bound, 0)) for bound in bounds if bound is not None]
    periods = periods_of(charge, window, tariff.zone)
    steps = len(step_tou_table(charge, window, tariff.zone).steps)
    found = {(n, period): Amount() for n in range(1, steps + 1) for period in periods}
    reached = _scaled(used)
    for timed in _timed(meters, spot, segment, energies):
        if torn := meters.curves.sums(timed.piece, charge.schedule, tariff.zone)[1]:
            energies.torn += [hold for hold in torn if hold not in energies.torn]
            continue
        units = timed.rows.units * to_units(timed.part.multiplier)
        index = period_index(charge.schedule, timed.piece.window, tariff.zone, timed.rows.step_s, periods)
        laid = kernel.chronological(
            units[None, :], index, len(periods), np.array([reached]), np.array([limits], dtype=np.int64)
        )
        reached += int(units.sum())
        for n in range(steps):
            for place, period in enumerate(periods):
                amount, value = found[n + 1, period], Decimal(int(laid[0, n, place])).scaleb(-_ENERGY_PLACES)
                amount.value += value
                if value:
                    amount.parents.append(Derived(at(TOTAL, label), value))
    return {step_tou_name(n, period): amount for (n, period), amount in found.items()}


def _scaled(energy: Decimal) -> int:
    return int(energy.scaleb(_ENERGY_PLACES).to_integral_value(rounding=ROUND_HALF_UP))
