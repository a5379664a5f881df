"""The one table of what can be measured: our name, the field's names (OBIS, DL/T 645 DI, CIM), unit and kind.

Sources: OBIS and DI from DL/T 645-2007 appendix A as collected in `config/catalogues/dlt645_2007.csv`; CIM ReadingType
ids from IEC 61968-9 as used by public head-end code (all fields beyond those shown there are left empty, not guessed).

Numbers leave this program's edges as `Decimal` in the quantity's unit and rest in the store as integers of
ten-thousandths of that unit: `to_units` and `from_units` are the only bridge, and both are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from headend.errors import UsageError

__all__ = ["BY_DI", "QUANTITIES", "UNITS_PER_ONE", "Kind", "Quantity", "from_units", "quantity", "to_units"]

UNITS_PER_ONE = 10_000

_INT64_MAX = 2**63 - 1


class Kind(StrEnum):
    """How a quantity behaves over time."""

    REGISTER = "register"  # cumulative, only rises (rollover aside)
    INTERVAL = "interval"  # consumption within a span
    INSTANT = "instant"  # momentary
    DEMAND = "demand"  # maximum with its time of occurrence
    STATUS = "status"


@dataclass(frozen=True, slots=True)
class Quantity:
    """One thing that can be measured.

    obis: COSEM logical name, short form. di: DL/T 645-2007 identifier. cim: IEC 61968-9 ReadingType. Each is "" where
    there is none, or none established. register: for an interval quantity, the register whose differences it is.
    """

    name: str
    obis: str
    unit: str
    kind: Kind
    di: str = ""
    cim: str = ""
    title: str = ""
    register: str = ""


def _energy(name: str, title: str, obis_c: str, di1: str, unit: str, cim: str = "") -> list[Quantity]:
    """The total register of one energy and its four time-of-use registers."""
    rows = [Quantity(name, f"1-0:{obis_c}.8.0", unit, Kind.REGISTER, f"00{di1}0000", cim, title)]
    rows += [
        Quantity(
            f"{name}_t{rate}",
            f"1-0:{obis_c}.8.{rate}",
            unit,
            Kind.REGISTER,
            f"00{di1}0{rate}00",
            "",
            f"{title}, rate {rate}",
        )
        for rate in range(1, 5)
    ]
    return rows


def _phases(name: str, title: str, obis_d: str, codes: tuple[str, ...], di1: str, unit: str) -> list[Quantity]:
    """One momentary quantity by phase; di1 "" for what DL/T 645 does not give so."""
    return [
        Quantity(
            f"{name}_{phase}",
            f"1-0:{code}.{obis_d}.0",
            unit,
            Kind.INSTANT,
            f"02{di1}0{number}00" if di1 else "",
            "",
            f"{title}, phase {phase.upper()}",
        )
        for number, (phase, code) in enumerate(zip("abc", codes, strict=True), start=1)
    ]


_TABLE: tuple[Quantity, ...] = (
    *_energy("import_kwh", "active energy imported", "1", "01", "kWh", "0.0.0.1.1.1.12.0.0.0.0.0.0.0.0.3.72.0"),
    *_energy("export_kwh", "active energy exported", "2", "02", "kWh", "0.0.0.1.19.1.12.0.0.0.0.0.0.0.0.3.72.0"),
    *_energy("combined_kwh", "active energy, combined as the meter is set", "15", "00", "kWh"),
    *_energy(
        "import_kvarh", "reactive energy, combination 1", "3", "03", "kvarh", "0.0.0.1.2.1.12.0.0.0.0.0.0.0.0.3.73.0"
    ),
    *_energy(
        "export_kvarh", "reactive energy, combination 2", "4", "04", "kvarh", "0.0.0.1.3.1.12.0.0.0.0.0.0.0.0.3.73.0"
    ),
    *_energy("q1_kvarh", "reactive energy, quadrant I", "5", "05", "kvarh"),
    *_energy("q2_kvarh", "reactive energy, quadrant II", "6", "06", "kvarh"),
    *_energy("q3_kvarh", "reactive energy, quadrant III", "7", "07", "kvarh"),
    *_energy("q4_kvarh", "reactive energy, quadrant IV", "8", "08", "kvarh"),
    Quantity(
        "import_interval_kwh",
        "1-0:1.29.0",
        "kWh",
        Kind.INTERVAL,
        "",
        "0.0.2.4.1.1.12.0.0.0.0.0.0.0.0.3.72.0",
        "active energy imported within the interval",
        "import_kwh",
    ),
    Quantity(
        "export_interval_kwh",
        "1-0:2.29.0",
        "kWh",
        Kind.INTERVAL,
        "",
        "",
        "active energy exported within the interval",
        "export_kwh",
    ),
    Quantity("import_max_kw", "1-0:1.6.0", "kW", Kind.DEMAND, "01010000", "", "maximum demand, active imported"),
    Quantity("export_max_kw", "1-0:2.6.0", "kW", Kind.DEMAND, "01020000", "", "maximum demand, active exported"),
    *_phases("voltage_v", "voltage", "7", ("32", "52", "72"), "01", "V"),
    *_phases("current_a", "current", "7", ("31", "51", "71"), "02", "A"),
    Quantity("power_kw", "1-0:16.7.0", "kW", Kind.INSTANT, "02030000", "", "active power, signed"),
    Quantity("reactive_kvar", "1-0:131.7.0", "kvar", Kind.INSTANT, "02040000", "", "reactive power, signed"),
    Quantity("apparent_kva", "1-0:9.7.0", "kVA", Kind.INSTANT, "02050000", "", "apparent power"),
    Quantity("power_factor", "1-0:13.7.0", "", Kind.INSTANT, "02060000", "", "power factor, signed"),
    Quantity("import_kw", "1-0:1.7.0", "kW", Kind.INSTANT, "", "", "active power imported"),
    Quantity("export_kw", "1-0:2.7.0", "kW", Kind.INSTANT, "", "", "active power exported"),
    Quantity("import_kvar", "1-0:3.7.0", "kvar", Kind.INSTANT, "", "", "reactive power imported"),
    Quantity("export_kvar", "1-0:4.7.0", "kvar", Kind.INSTANT, "", "", "reactive power exported"),
    *_phases("import_kw", "active power imported", "7", ("21", "41", "61"), "", "kW"),
    *_phases("export_kw", "active power exported", "7", ("22", "42", "62"), "", "kW"),
    *_phases("power_factor", "power factor", "7", ("33", "53", "73"), "", ""),
    *_phases("power_kw", "active power, signed", "7", ("36", "56", "76"), "", "kW"),
    *_phases("reactive_kvar", "reactive power, signed", "7", ("151", "171", "191"), "", "kvar"),
    *_phases("apparent_kva", "apparent power", "7", ("29", "49", "69"), "", "kVA"),
    *(
        Quantity(f"voltage_v_{pair}", "", "V", Kind.INSTANT, title=f"voltage, {pair[0].upper()} to {pair[1].upper()}")
        for pair in ("ab", "bc", "ca")
    ),
    *(
        Quantity(
            f"{name}_kwh_{phase}",
            f"1-0:{code}.8.0",
            "kWh",
            Kind.REGISTER,
            title=f"active energy {name}ed, phase {phase.upper()}",
        )
        for name, codes in (("import", (21, 41, 61)), ("export", (22, 42, 62)))
        for phase, code in zip("abc", codes, strict=True)
    ),
    Quantity("import_kvah", "1-0:9.8.0", "kVAh", Kind.REGISTER, title="apparent energy imported"),
    Quantity("export_kvah", "1-0:10.8.0", "kVAh", Kind.REGISTER, title="apparent energy exported"),
    Quantity("neutral_a", "1-0:91.7.0", "A", Kind.INSTANT, "02800001", "", "neutral current"),
    Quantity("frequency_hz", "1-0:14.7.0", "Hz", Kind.INSTANT, "02800002", "", "frequency"),
    Quantity("demand_kw", "1-0:1.4.0", "kW", Kind.INSTANT, "02800004", "", "running active demand"),
    Quantity("temperature_c", "0-0:96.9.0", "°C", Kind.INSTANT, "02800007", "", "temperature inside the meter"),
    Quantity(
        "clock_offset_s", "0-0:1.0.0", "s", Kind.INSTANT, "0400010C", "", "meter clock minus ours, positive when fast"
    ),
    *(
        Quantity(
            f"status_word_{word}",
            "0-0:96.5.0" if word == 1 else "",
            "",
            Kind.STATUS,
            f"0400050{word}",
            "",
            f"meter status word {word}: {about}",
        )
        for word, about in enumerate(
            (
                "demand mode, batteries, directions",
                "directions by phase",
                "supply, programming, relay",
                "phase A",
                "phase B",
                "phase C",
                "all phases",
            ),
            start=1,
        )
    ),
)

QUANTITIES: dict[str, Quantity] = {q.name: q for q in _TABLE}
BY_DI: dict[str, Quantity] = {q.di: q for q in _TABLE if q.di}


def quantity(name: str) -> Quantity:
    """The quantity called `name`; raises `UsageError` with near names when there is none."""
    try:
        return QUANTITIES[name]
    except KeyError:
        from difflib import get_close_matches

        near = get_close_matches(name, QUANTITIES, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "`headend quantities` lists them"
        raise UsageError(f"unknown quantity {name!r}", remedy=hint) from None


def to_units(value: Decimal) -> int:
    """`value` as ten-thousandths, exactly; `ValueError` if it is finer, not finite, or beyond int64."""
    if not value.is_finite():
        raise ValueError(f"{value} is not a number that can be stored")
    scaled = value * UNITS_PER_ONE
    units = int(scaled)
    if units != scaled:
        raise ValueError(f"{value} is finer than the store's 0.0001")
    if abs(units) > _INT64_MAX:
        raise ValueError(f"{value} is too large for the store")
    return units


def from_units(units: int) -> Decimal:
    """Ten-thousandths back to a `Decimal` with four places."""
    return Decimal(units).scaleb(-4)
