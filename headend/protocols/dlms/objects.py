"""Which object of a meter a quantity is, and what its numbers mean: classes, scalers, units.

What `DlmsSettings.objects` says goes before the OBIS catalogue. Groups B and F are taken as they are written: 1-1:1.8.0
is another object than 1-0:1.8.0. Scaler and unit come from the settings, or are read from the meter once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal
from functools import lru_cache
from typing import Final, NamedTuple

from headend.access import Access
from headend.errors import BadFrame, Unsupported
from headend.model import Meter
from headend.protocols.dlms.axdr import Datum, Tag
from headend.protocols.dlms.cosem import Attribute, obis_bytes
from headend.protocols.dlms.settings import DlmsObject, DlmsSettings
from headend.protocols.dlms.units import UNIT_NONE, in_unit
from headend.quantities import QUANTITIES, Kind, Quantity, quantity

__all__ = [
    "CLOCK_CLASS",
    "DATA_CLASS",
    "PROFILE_CLASS",
    "Scale",
    "attribute_of",
    "fixed_scale",
    "keep_scale",
    "known_scale",
    "number_of",
    "object_of",
    "quantity_at",
    "scale_attribute",
    "scale_of",
    "settings_of",
    "time_attribute",
    "unasked",
]

DATA_CLASS: Final = 1
REGISTER_CLASS: Final = 3
EXTENDED_CLASS: Final = 4
DEMAND_CLASS: Final = 5
PROFILE_CLASS: Final = 7
CLOCK_CLASS: Final = 8

# Attribute of scaler and unit, and of the capture time, by class (Blue Book 4.3.2 to 4.3.4).
_SCALER_UNIT: Final = {REGISTER_CLASS: 3, EXTENDED_CLASS: 3, DEMAND_CLASS: 4}
_CAPTURE_TIME: Final = {EXTENDED_CLASS: 5, DEMAND_CLASS: 6}

# Units our quantities are derived from, taken where only a scaler is set.
_BASE: Final[Mapping[str, int]] = {
    "kWh": 30,
    "kVAh": 31,
    "kvarh": 32,
    "kW": 27,
    "kVA": 28,
    "kvar": 29,
    "V": 35,
    "A": 33,
    "Hz": 44,
    "°C": 9,
    "s": 7,
    "": UNIT_NONE,
}

_GRID: Final = Decimal("0.0001")  # what the store keeps
_PLACES: Final = -4
_MOST: Final = Decimal(10) ** 14
_SCALERS: Final = range(-12, 13)


class Scale(NamedTuple):
    """Scaler and unit of an object (attribute scaler_unit). unit 0: not told."""

    exponent: int
    unit: int


def settings_of(meter: Meter) -> DlmsSettings:
    """The meter's DLMS settings: its own, else its model's."""
    for details in (meter.details, meter.model.details):
        if isinstance(details, DlmsSettings):
            return details
    raise Unsupported(
        f"model {meter.model.name} says nothing about DLMS", where=f"meter {meter.id}", remedy="add [dlms] to its file"
    )


def object_of(settings: DlmsSettings, name: str) -> DlmsObject | None:
    """Where the quantity called `name` is; None when neither the settings nor the catalogue say."""
    return next((one for one in settings.objects if one.quantity == name), None) or _catalogued(name)


@lru_cache(maxsize=512)
def _catalogued(name: str) -> DlmsObject | None:
    one = quantity(name)
    if not one.obis:
        return None
    obis = ".".join(map(str, obis_bytes(one.obis)))
    if one.kind is Kind.DEMAND:
        return DlmsObject(name, obis, EXTENDED_CLASS)
    if one.kind is Kind.STATUS:
        return DlmsObject(name, obis, DATA_CLASS)
    if one.obis.split(":")[-1].split(".")[1] in ("4", "5"):  # D: running and last average demand
        return DlmsObject(name, obis, DEMAND_CLASS)
    return DlmsObject(name, obis)


def quantity_at(settings: DlmsSettings, obis: bytes) -> tuple[Quantity, DlmsObject] | None:
    """The quantity whose object has this logical name; None for what is no quantity of ours."""
    for one in settings.objects:
        if obis_bytes(one.obis) == obis:
            return QUANTITIES[one.quantity], one
    name = _names().get(obis)
    if name is None or any(one.quantity == name for one in settings.objects):
        return None
    found = _catalogued(name)
    return None if found is None else (QUANTITIES[name], found)


@lru_cache(maxsize=1)
def _names() -> dict[bytes, str]:
    """Quantities by their logical name; the first where several share one."""
    names: dict[bytes, str] = {}
    for one in QUANTITIES.values():
        if one.obis:
            names.setdefault(obis_bytes(one.obis), one.name)
    return names


def attribute_of(one: DlmsObject) -> Attribute:
    """The attribute that holds the value."""
    return Attribute(one.class_id, obis_bytes(one.obis), one.attribute)


def scale_attribute(one: DlmsObject) -> Attribute | None:
    """The attribute that holds scaler and unit; None for a class that has none."""
    index = _SCALER_UNIT.get(one.class_id)
    return None if index is None else Attribute(one.class_id, obis_bytes(one.obis), index)


def time_attribute(one: DlmsObject) -> Attribute | None:
    """The attribute that holds when the value was captured; None for a class that has none."""
    index = _CAPTURE_TIME.get(one.class_id)
    return None if index is None else Attribute(one.class_id, obis_bytes(one.obis), index)


# --- scalers --------------------------------------------------------------------------------------------------------


def fixed_scale(one: DlmsObject) -> Scale | None:
    """The scale that needs no asking: set, or of a class that has none."""
    if one.scaler is not None:
        return Scale(one.scaler, one.unit)
    return None if one.class_id in _SCALER_UNIT else Scale(0, one.unit)


def known_scale(one: DlmsObject, meter: Meter, access: Access) -> Scale | None:
    """The scale that is set, or was read before; None when the meter must be asked."""
    fixed = fixed_scale(one)
    if fixed is not None:
        return fixed
    kept = access.memo.get(_scale_key(one, meter))
    return kept if isinstance(kept, Scale) else None


def keep_scale(one: DlmsObject, meter: Meter, access: Access, scale: Scale) -> None:
    """Remember what the meter said."""
    access.memo[_scale_key(one, meter)] = scale


def _scale_key(one: DlmsObject, meter: Meter) -> tuple[str, ...]:
    # Of the meter, not of its model: firmwares of one model are known to differ, and a wrong power of ten is no small
    # thing to save one question for.
    return ("dlms scale", meter.id, meter.address, str(one.class_id), one.obis)


def scale_of(datum: Datum) -> Scale:
    """The value of an attribute scaler_unit: structure of scaler (integer) and unit (enum). Raises `BadFrame`."""
    match datum:
        case Datum(Tag.STRUCTURE, (Datum(_, int() as exponent), Datum(_, int() as unit))) if exponent in _SCALERS:
            return Scale(exponent, unit)
    raise BadFrame("what the meter gives for scaler and unit is neither")


# --- values ---------------------------------------------------------------------------------------------------------


def number_of(datum: Datum, one: Quantity, scale: Scale) -> Decimal | None:
    """A value as sent, in the quantity's unit; None for null. Raises `BadFrame` for what is no number, `Unsupported`
    for a unit that measures something else.

    Finer than the store keeps: registers are cut, as a meter's own display does, the rest is rounded half to even.
    """
    raw = datum.value
    if raw is None:
        return None
    if isinstance(raw, bool) or not isinstance(raw, int | Decimal) or datum.tag == Tag.BCD:
        raise BadFrame(f"the meter gives {_kind(datum)} for {one.name}, a number is due")
    value = in_unit(raw, scale.exponent, scale.unit or _BASE[one.unit], one.unit)
    if abs(value) >= _MOST:
        raise BadFrame(f"the meter gives {value:.6g} {one.unit} for {one.name}, more than can be stored")
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent < _PLACES:
        value = value.quantize(_GRID, ROUND_DOWN if one.kind is Kind.REGISTER else ROUND_HALF_EVEN)
    return value


def _kind(datum: Datum) -> str:
    """A datum's type in words."""
    return Tag(datum.tag).name.lower().replace("_", "-")


def unasked(objects: Iterable[DlmsObject], meter: Meter, access: Access) -> list[DlmsObject]:
    """Those whose scale the meter must still be asked for, each once."""
    found = {one.obis: one for one in objects if known_scale(one, meter, access) is None}
    return list(found.values())
