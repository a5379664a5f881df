"""What a single-phase meter measures right now: voltage, current, power, one household's, agreeing with each other."""

from __future__ import annotations

from math import isqrt

from simulators.household import Register

__all__ = ["active", "apparent", "current", "power_factor", "reactive", "voltage"]


def voltage(register: Register, at_s: int) -> int:
    """0.1 V, another one each minute, 217.0 to 223.0."""
    return 2170 + (at_s // 60 * 40_503 + register.household.load.seed * 9_176) % 61


def power_factor(register: Register, at_s: int) -> int:
    """Thousandths, 0.930 to 0.989, another one each slot."""
    return 930 + (at_s // 300 * 7_919 + register.household.load.seed * 31) % 60


def active(register: Register, at_s: int) -> int:
    """0.0001 kW, what the household draws."""
    return register.household.power_units(at_s)


def apparent(register: Register, at_s: int) -> int:
    """0.0001 kVA."""
    return active(register, at_s) * 1000 // power_factor(register, at_s)


def reactive(register: Register, at_s: int) -> int:
    """0.0001 kvar, the third side of the triangle."""
    return isqrt(apparent(register, at_s) ** 2 - active(register, at_s) ** 2)


def current(register: Register, at_s: int) -> int:
    """0.001 A: apparent power over voltage."""
    return apparent(register, at_s) * 1000 // voltage(register, at_s)
