"""Names of determinants and of units that stand in place of one. docs/billing.md lists them.

A bill whose period is cut where a price or a contract changed has those of a part under `at(name, label)`; the plain
name is then the whole period's.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "CAPACITY",
    "CARRIED",
    "CARRIED_ON",
    "CONTRACT",
    "EXPORT",
    "LOSS",
    "LOSS_REACTIVE",
    "MARKET",
    "MAXIMUM",
    "MONTH",
    "NET",
    "PEOPLE",
    "PERCENT",
    "POWER_FACTOR",
    "RATCHET",
    "REACTIVE",
    "SURPLUS",
    "TOTAL",
    "at",
    "demand_name",
    "market_name",
    "step_tou_name",
    "tou_name",
    "used_name",
]

TOTAL: Final = "import_kwh"
"""All energy of the period that is billed: what the meter registered, losses added, parts of others taken off."""

EXPORT: Final = "export_kwh"
"""Energy exported."""

NET: Final = "net_kwh"
SURPLUS: Final = "surplus_kwh"
"""Net metering: import less export (less what was carried here), and export less import; one of them is 0."""

CARRIED: Final = "carried_kwh"
CARRIED_ON: Final = "carried_on_kwh"
"""Net metering: energy kept from the month before, and energy kept for the month after."""

MAXIMUM: Final = "import_max_kw"
"""Maximum demand of the period, kW."""

RATCHET: Final = "ratchet_kw"
"""The highest demand of the months a ratchet looks back at, kW."""

REACTIVE: Final = "import_kvarh"
"""Reactive energy."""

POWER_FACTOR: Final = "power_factor"
"""Power factor of the period, two places; none where there was no energy."""

LOSS: Final = "loss_kwh"
LOSS_REACTIVE: Final = "loss_kvarh"
"""What transformer and line lose between the point of delivery and the meter; contained in the energies billed."""

MARKET: Final = "market_value"
"""Sum of each interval's energy times the price of its time, in the currency."""

CONTRACT: Final = "contract_kw"
"""Contracted demand of the account, kW."""

CAPACITY: Final = "capacity_kva"
"""Installed capacity of the account, kVA."""

PEOPLE: Final = "people"
"""Size of the household."""

PERCENT: Final = "%"
"""Unit of a line whose amount is a hundredth of quantity times price."""

MONTH: Final = "month"
"""What the quantity of a fixed charge comes from."""


def at(name: str, label: str) -> str:
    """Name of the determinant `name` of the part of a period that is called `label`; "" is the only part."""
    return f"{name}@{label}" if label else name


def used_name(name: str) -> str:
    """Name, among columns, of the energy used in the step year before what the determinant `name` holds."""
    return f"{name}:used"


def tou_name(period: str) -> str:
    """Energy of one TOU period."""
    return f"{TOTAL}_{period}"


def step_tou_name(step: int, period: str) -> str:
    """Energy of one step (from 1) and TOU period, where steps fill interval by interval."""
    return f"{TOTAL}_step{step}_{period}"


def demand_name(period: str = "") -> str:
    """Maximum demand in one TOU period, or in all of the time."""
    return f"{MAXIMUM}_{period}" if period else MAXIMUM


def market_name(code: str) -> str:
    """Energy at market prices, by the code of its charge."""
    return f"{MARKET}_{code}"
