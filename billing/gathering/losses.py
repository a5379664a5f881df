"""What a transformer and a line lose between the point of delivery and a meter that stands behind them. Pure.

With P0 no-load and Pk load loss (kW), I0% no-load current, Uk% impedance voltage, Sn rated capacity (kVA), T hours, K
load factor, Ap and Aq the active and reactive energy of the period at the meter:

    active:   P0 T           + K (Ap^2 + Aq^2) Pk          / (Sn^2 T)   kWh
    reactive: Sn I0%/100 T   + K (Ap^2 + Aq^2) Sn Uk%/100  / (Sn^2 T)   kvarh

as Chinese suppliers compute them (the loss of the load goes with the square of the mean apparent power; K corrects for
its shape). Losses are whole kWh and kvarh, rounded half-up, each kind by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import floor

from headend.store.terms import SupplyRow

__all__ = ["Loss", "loss", "transformer_loss"]

_HALF = Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class Loss:
    """Energy lost, in whole kWh and kvarh; to be added to what the meter registered."""

    active_kwh: Decimal
    reactive_kvarh: Decimal


def loss(supply: SupplyRow, active_kwh: Decimal, reactive_kvarh: Decimal, hours: Decimal) -> Loss:
    """What is lost while a meter registers `active_kwh` and `reactive_kvarh` in `hours`.

    The transformer's loss counts by its `share`. The line stands before the transformer: its percentage is of the
    energy metered plus that loss, and concerns active energy only. `ValueError` for energies below 0 and for no time.
    """
    active, reactive = transformer_loss(supply, active_kwh, reactive_kvarh, hours)
    share = Fraction(supply.share)
    in_transformer = _whole(active * share)
    in_line = _whole((Fraction(active_kwh) + in_transformer) * Fraction(supply.line_percent) / 100)
    return Loss(Decimal(in_transformer + in_line), Decimal(_whole(reactive * share)))


def transformer_loss(
    supply: SupplyRow, active_kwh: Decimal, reactive_kvarh: Decimal, hours: Decimal
) -> tuple[Fraction, Fraction]:
    """Active and reactive loss of the whole transformer, kWh and kvarh, exact; nothing where there is only a line."""
    if active_kwh < 0 or reactive_kvarh < 0:
        raise ValueError(f"losses of {active_kwh} kWh and {reactive_kvarh} kvarh: energies are not below 0")
    if hours <= 0:
        raise ValueError(f"losses of {hours} hours: there is no time they could happen in")
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


def _whole(value: Fraction) -> int:
    """Rounded half-up; `value` is not below 0."""
    return floor(value + _HALF)
