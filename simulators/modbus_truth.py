"""What a three-phase meter truly has on its registers at an instant, by the name of the quantity.

Import comes from one household, export from another (its roof, if it has one). Phases share both 5 : 3 : 2. Reactive
and apparent energy are fixed parts of the active one, so they rise with it and are told apart by their size.
"""

from __future__ import annotations

import re
from fractions import Fraction

from simulators import momentary
from simulators.household import Register

__all__ = ["Truth"]

_PHASES = {"a": 5, "b": 3, "c": 2}
_NAME = re.compile(r"^(?P<base>.+?)(?:_(?P<phase>[abc]|ab|bc|ca)|_t(?P<rate>[1-9]))?$")

# Thousandths of the active energy imported: quadrants of reactive energy, apparent energy.
_Q1, _Q2, _Q3, _Q4 = 300, 29, 11, 60
_ENERGIES: dict[str, tuple[int, int]] = {  # thousandths of imported and of exported active energy
    "import_kwh": (1000, 0),
    "export_kwh": (0, 1000),
    "combined_kwh": (1000, 1000),
    "total_kwh": (1000, 1000),
    "net_kwh": (1000, -1000),
    "import_kvarh": (_Q1 + _Q2, 0),
    "export_kvarh": (_Q3 + _Q4, 0),
    "combined_kvarh": (_Q1 + _Q2 + _Q3 + _Q4, 0),
    "total_kvarh": (_Q1 + _Q2 + _Q3 + _Q4, 0),
    "net_kvarh": (_Q1 + _Q2 - _Q3 - _Q4, 0),
    "q1_kvarh": (_Q1, 0),
    "q2_kvarh": (_Q2, 0),
    "q3_kvarh": (_Q3, 0),
    "q4_kvarh": (_Q4, 0),
    "import_kvah": (1060, 0),
    "export_kvah": (0, 1060),
    "total_kvah": (1060, 1060),
    "combined_kvah": (1060, 1060),
    "kvah": (1060, 1060),
    "apparent_kvah": (1060, 1060),
}
_UNITS = 10_000  # in a kWh
_DEMAND_S = 900


class Truth:
    """The numbers behind one meter's registers, secondary side. `register` counts import, `export` export."""

    def __init__(self, register: Register, export: Register | None = None) -> None:
        self.register = register
        self.export = export

    def value(self, name: str, at_s: int) -> Fraction:
        """In the unit the name ends in. KeyError for a name nothing is known of."""
        found = _NAME.match(name)
        assert found is not None
        base, phase, rate = found["base"], found["phase"], found["rate"]
        if base in _ENERGIES:
            return self._energy(base, phase, int(rate or 0), at_s)
        if rate is None and (known := _MOMENTS.get(base)) is not None:
            return known(self, phase or "", at_s)
        raise KeyError(name)

    def clear(self, at_s: int) -> None:
        """Let every counter start again at zero, as after a change of settings nobody meant."""
        self.register = self.register.cleared(at_s)
        if self.export is not None:
            self.export = self.export.cleared(at_s)

    # -- energy --------------------------------------------------------------------------------------------------

    def _energy(self, base: str, phase: str | None, rate: int, at_s: int) -> Fraction:
        if phase is not None and phase not in _PHASES:
            raise KeyError(f"{base}_{phase}")
        of_import, of_export = _ENERGIES[base]
        total = of_import * _counted(self.register, rate, at_s)
        if self.export is not None:
            total += of_export * _counted(self.export, rate, at_s)
        share = _PHASES[phase] if phase else 10
        return Fraction(total * share, 1000 * 10 * _UNITS)

    # -- power and the like --------------------------------------------------------------------------------------

    def _share(self, thousandths: int, phase: str) -> Fraction:
        return Fraction(thousandths * _PHASES.get(phase, 10), 10)

    def power(self, phase: str, at_s: int) -> Fraction:
        """kW, negative when more is exported than imported."""
        return self.imported(phase, at_s) - self.exported(phase, at_s)

    def imported(self, phase: str, at_s: int) -> Fraction:
        """kW drawn, whatever is given at the same time by another phase."""
        return self._share(momentary.active(self.register, at_s), phase) / _UNITS

    def exported(self, phase: str, at_s: int) -> Fraction:
        """kW given."""
        return self._share(momentary.active(self.export, at_s) if self.export is not None else 0, phase) / _UNITS

    def reactive_exported(self, phase: str, at_s: int) -> Fraction:
        """kvar of the roof."""
        return self._share(momentary.reactive(self.export, at_s) if self.export is not None else 0, phase) / _UNITS

    def reactive(self, phase: str, at_s: int) -> Fraction:
        """kvar."""
        return self._share(momentary.reactive(self.register, at_s), phase) / _UNITS

    def apparent(self, phase: str, at_s: int) -> Fraction:
        """kVA."""
        return self._share(momentary.apparent(self.register, at_s), phase) / _UNITS

    def voltage(self, phase: str, at_s: int) -> Fraction:
        """V, against neutral or (`ab`) between two phases; without a phase the mean of all three."""
        if len(phase) == 2:
            return (self.voltage(phase[0], at_s) + self.voltage(phase[1], at_s)) * Fraction(866, 1000)
        return Fraction(momentary.voltage(self.register, at_s) + {"a": 0, "b": 9, "c": -12}.get(phase, -1), 10)

    def current(self, phase: str, at_s: int) -> Fraction:
        """A; without a phase the sum of all three."""
        if not phase:
            return sum((self.current(one, at_s) for one in _PHASES), Fraction())
        if phase not in _PHASES:
            raise KeyError(f"current_a_{phase}")
        return self.apparent(phase, at_s) * 1000 / self.voltage(phase, at_s)

    def power_factor(self, phase: str, at_s: int) -> Fraction:
        """Of one, not of a hundred."""
        return Fraction(momentary.power_factor(self.register, at_s) + {"a": 4, "b": -7, "c": 2}.get(phase, 0), 1000)

    def angle(self, phase: str, at_s: int) -> Fraction:
        """Degrees between voltage and current."""
        return Fraction(180 + {"a": 7, "b": -5, "c": 11}.get(phase, 0), 10)

    def frequency(self, _phase: str, at_s: int) -> Fraction:
        """Hz."""
        return Fraction(4990 + (at_s // 60 * 7_919 + self.register.household.load.seed) % 21, 100)

    def neutral(self, _phase: str, at_s: int) -> Fraction:
        """A."""
        return abs(self.current("a", at_s) - self.current("c", at_s)) / 2

    def temperature(self, _phase: str, at_s: int) -> Fraction:
        """Degrees Celsius."""
        return Fraction(285 + at_s // 600 % 30, 10)

    def demand(self, _phase: str, at_s: int) -> Fraction:
        """kW imported, the mean of the last quarter of an hour."""
        return _mean(self.register, at_s)

    def export_demand(self, _phase: str, at_s: int) -> Fraction:
        """kW exported, likewise."""
        return _mean(self.export, at_s) if self.export is not None else Fraction()

    def total_demand(self, phase: str, at_s: int) -> Fraction:
        """kW of both directions."""
        return self.demand(phase, at_s) + self.export_demand(phase, at_s)

    def demand_max(self, _phase: str, at_s: int) -> Fraction:
        """kW imported: the greatest quarter of an hour of the last day."""
        return _greatest(self.register, at_s)

    def export_demand_max(self, _phase: str, at_s: int) -> Fraction:
        """kW exported, likewise."""
        return _greatest(self.export, at_s) if self.export is not None else Fraction()

    def total_demand_max(self, phase: str, at_s: int) -> Fraction:
        """kW of both directions, each at its greatest."""
        return self.demand_max(phase, at_s) + self.export_demand_max(phase, at_s)


def _counted(register: Register, rate: int, at_s: int) -> int:
    """0.0001 kWh on a counter; 0 for a rate nobody uses."""
    if rate == 0:
        return register.units(at_s)
    rates = register.units_rates(at_s)
    return rates[rate - 1] if rate <= len(rates) else 0


def _mean(register: Register, end_s: int) -> Fraction:
    used = register.household.used_units
    return Fraction((used(end_s) - used(end_s - _DEMAND_S)) * 3600 // _DEMAND_S, _UNITS)


def _greatest(register: Register, at_s: int) -> Fraction:
    last = at_s - at_s % _DEMAND_S
    return max(_mean(register, last - k * _DEMAND_S) for k in range(96))


_MOMENTS = {
    "power_kw": Truth.power,
    "import_kw": Truth.imported,
    "export_kw": Truth.exported,
    "import_kvar": Truth.reactive,
    "export_kvar": Truth.reactive_exported,
    "reactive_kvar": Truth.reactive,
    "apparent_kva": Truth.apparent,
    "voltage_v": Truth.voltage,
    "current_a": Truth.current,
    "power_factor": Truth.power_factor,
    "angle_deg": Truth.angle,
    "frequency_hz": Truth.frequency,
    "neutral_a": Truth.neutral,
    "temperature_c": Truth.temperature,
    "demand_kw": Truth.demand,
    "export_demand_kw": Truth.export_demand,
    "total_demand_kw": Truth.total_demand,
    "import_max_kw": Truth.demand_max,
    "export_max_kw": Truth.export_demand_max,
    "total_max_kw": Truth.total_demand_max,
}
