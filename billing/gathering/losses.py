"""What a transformer and a line lose between the point of delivery and a meter that stands behind them. Pure.

With P0 no-load and Pk load loss (kW), I0% no-load current, Uk% impedance voltage, Sn rated capacity (kVA), T hours, K
load factor, Ap and Aq the active and reactive energy of the period at the meter:

    active:   P0 T           + K (Ap^2 + Aq^2) Pk          / (Sn^2 T)   kWh
    reactive: Sn I0%/100 T   + K (Ap^2 + Aq^2) Sn Uk%/100  / (Sn^2 T)   kvarh

as Chinese suppliers compute them (the loss of the load goes with the square of the mean apparent power; K corrects for
its shape). Losses are whole kWh and kvarh, rounded half-up, each kind by itself.

Or by a published table, which tells the loss of a month by capacity and the month's active energy. A capacity between
two rows goes by the larger. The energy of a part of a month is taken to go on as it went, and the part has its share of
the month's loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor

from headend.store.loss_tables import LossRow
from headend.store.terms import SupplyRow

__all__ = ["Loss", "loss", "table_row", "transformer_loss"]

_HALF = Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class Loss:
    """Energy lost, in whole kWh and kvarh; to be added to what the meter registered. source: what tells it."""

    active_kwh: Decimal
    reactive_kvarh: Decimal
    source: str = "transformer"


def loss(
    supply: SupplyRow,
    active_kwh: Decimal,
    reactive_kvarh: Decimal,
    hours: Decimal,
    month_hours: Decimal | None = None,
) -> Loss:
    """What is lost while a meter registers `active_kwh` and `reactive_kvarh` in `hours`.

    month_hours: of the month that `hours` are a part of; None: the whole of it. The transformer's loss counts by its
    `share`. The line stands before the transformer: its percentage is of the energy metered plus that loss, of
    active energy only. `ValueError` for energies below 0, for no time, and where the supply's table does not reach.
    """
    _check(active_kwh, reactive_kvarh, hours)
    if supply.table:
        part = Fraction(hours) / Fraction(month_hours or hours)
        row = table_row(supply, Fraction(active_kwh) / part)
        active, reactive = Fraction(row.active_kwh) * part, Fraction(row.reactive_kvarh) * part
        source = f"table {row.table}, {row.rated_kva.normalize():f} kVA, up to {row.up_to_kwh.normalize():f} kWh"
    else:
        active, reactive = transformer_loss(supply, active_kwh, reactive_kvarh, hours)
        source = "transformer"
    share = Fraction(supply.share)
    in_transformer = _whole(active * share)
    in_line = _whole((Fraction(active_kwh) + in_transformer) * Fraction(supply.line_percent) / 100)
    return Loss(Decimal(in_transformer + in_line), Decimal(_whole(reactive * share)), source)


def table_row(supply: SupplyRow, month_kwh: Fraction) -> LossRow:
    """The row of the supply's table for its capacity, or the next larger, and the energy of a month.

    `ValueError` where the table does not reach so far.
    """
    capacities = [row.rated_kva for row in supply.losses if row.rated_kva >= supply.rated_kva]
    if not capacities:
        raise ValueError(f"the loss table {supply.table} has no row for {supply.rated_kva.normalize():f} kVA or more")
    bands = [row for row in supply.losses if row.rated_kva == min(capacities)]
    found = min((row for row in bands if month_kwh <= row.up_to_kwh), key=lambda row: row.up_to_kwh, default=None)
    if found is None:
        last = max(row.up_to_kwh for row in bands).normalize()
        what = f"the loss table {supply.table} for {min(capacities).normalize():f} kVA ends with {last:f} kWh a month"
        raise ValueError(f"{what}, below the {ceil(month_kwh)} kWh that passed")
    return found


def transformer_loss(
    supply: SupplyRow, active_kwh: Decimal, reactive_kvarh: Decimal, hours: Decimal
) -> tuple[Fraction, Fraction]:
    """Active and reactive loss of the whole transformer, kWh and kvarh, exact; nothing where there is only a line."""
    _check(active_kwh, reactive_kvarh, hours)
    rated = Fraction(supply.rated_kva)
    if rated == 0:
        return Fraction(0), Fraction(0)
    time = Fraction(hours)
    squares = Fraction(active_kwh) ** 2 + Fraction(reactive_kvarh) ** 2
    load = Fraction(supply.load_factor) * squares / (rated**2 * time)
    active = Fraction(supply.no_load_kw) * time + load * Fraction(supply.load_kw)
    magnetising = rated * Fraction(supply.no_load_percent) / 100
    leakage = rated * Fraction(supply.impedance_percent) / 100
    return active, magnetising * time + load * leakage


def _check(active_kwh: Decimal, reactive_kvarh: Decimal, hours: Decimal) -> None:
    if active_kwh < 0 or reactive_kvarh < 0:
        raise ValueError(f"losses of {active_kwh} kWh and {reactive_kvarh} kvarh: energies are not below 0")
    if hours <= 0:
        raise ValueError(f"losses of {hours} hours: there is no time they could happen in")


def _whole(value: Fraction) -> int:
    """Rounded half-up; `value` is not below 0."""
    return floor(value + _HALF)
