"""From an OBIS code or quantity, a unit and a scaler to a column in the store's numbers. Pure."""

from __future__ import annotations

from functools import lru_cache

from headend.mqtt.batch import Column
from headend.protocols.hes_mqtt.units import quantity_of_obis, store_factors

__all__ = ["column", "quantity_of_obis"]


@lru_cache(maxsize=4096)
def column(name: str, unit: str, scaler: int) -> Column:
    """Whole numbers of 10**`scaler` `unit` as values of quantity `name`. `UsageError` saying what is unknown."""
    return Column(name, *store_factors(name, unit, scaler))
