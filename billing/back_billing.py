"""Energy that a faulty meter or wiring did not register, or registered too much of: worked out step by step. Pure.

Source: 供电营业规则 (1996) art. 80 (errors of meters and transformers; other causes) and art. 81 (wrong wiring, wrong
multiplier). The rules of 2024 have other numbers for these articles. Arithmetic is exact; the energy is rounded once,
half-up to the fourth place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from headend.errors import UsageError

__all__ = [
    "WIRING",
    "BackBilling",
    "Reckoned",
    "Wiring",
    "coefficient",
    "meter_error",
    "named_wiring",
    "normal_month",
    "wrong_multiplier",
    "wrong_wiring",
]

_PLACES: Final = 4
_ERROR: Final = "供电营业规则 (1996) art. 80 (1): to zero error, for half the time since the last check or installation"
_NORMAL: Final = "供电营业规则 (1996) art. 80 (3): the energy of a normal month stands for what was not measured"
_WIRING: Final = "供电营业规则 (1996) art. 81 (1): recorded energy times the difference of right and wrong wiring"
_MULTIPLIER: Final = "供电营业规则 (1996) art. 81 (3): the true multiplier holds"


@dataclass(frozen=True, slots=True)
class Reckoned:
    """One step of a calculation: what it is, and the number."""

    what: str
    value: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class BackBilling:
    """Energy to bill after the event (below zero: to give back), how it comes about, and the rule it follows."""

    cause: str
    kwh: Decimal
    steps: tuple[Reckoned, ...]
    rule: str

    def basis(self) -> dict[str, Any]:
        """The calculation as plain data, to be kept with an adjustment."""
        steps = [{"what": step.what, "value": step.value, "unit": step.unit} for step in self.steps]
        return {"cause": self.cause, "kwh": f"{self.kwh:f}", "steps": steps, "rule": self.rule}


@dataclass(frozen=True, slots=True)
class Wiring:
    """A case of wrong wiring of a balanced three-phase four-wire meter. factors: what each phase registers of its own
    energy: 1 all, 0 nothing, -1 backwards."""

    text: str
    factors: tuple[Fraction, ...]


WIRING: Mapping[str, Wiring] = {
    "ct_reversed": Wiring("one current transformer reversed", (Fraction(1), Fraction(1), Fraction(-1))),
    "phase_lost": Wiring("one phase without voltage or current", (Fraction(1), Fraction(1), Fraction(0))),
    "two_lost": Wiring("two phases without voltage or current", (Fraction(1), Fraction(0), Fraction(0))),
}


def _shown(value: Fraction | Decimal) -> str:
    """A number as people write it: a short decimal where there is one, else a fraction and its first decimals."""
    exact = Fraction(value)
    decimal = _decimal(exact, 8)
    if Fraction(decimal) == exact:
        text = f"{decimal:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{exact.numerator}/{exact.denominator} = {_decimal(exact, 6):f}..."


def _decimal(value: Fraction, places: int) -> Decimal:
    """`value` rounded half-up (of credits the same) to `places` decimal places."""
    scaled = abs(value) * 10**places
    up = (2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator)
    return Decimal(up if value >= 0 else -up).scaleb(-places)


def _kwh(value: Fraction) -> Decimal:
    found = _decimal(value, _PLACES)
    if found == 0:
        raise UsageError("nothing comes of it: 0 kWh", remedy="check the numbers")
    return found.normalize() + 0  # without needless zeros, and without an exponent


def _energy(recorded: Decimal, what: str = "recorded energy") -> Fraction:
    if not recorded.is_finite() or recorded < 0:
        raise UsageError(f"{recorded} kWh is no {what}", remedy="give a number of kWh that is not below zero")
    return Fraction(recorded)


def _result(cause: str, kwh: Fraction, steps: Sequence[Reckoned], rule: str) -> BackBilling:
    found = _kwh(kwh)
    last = Reckoned("to bill" if found > 0 else "to give back", f"{found:f}", "kWh")
    return BackBilling(cause, found, (*steps, last), rule)


def meter_error(recorded: Decimal, percent: Decimal, *, half: bool = True) -> BackBilling:
    """A meter or transformer out of its class, by `percent` (-5: it registers 5 % too little), back to zero error.

    recorded: kWh since the last check or installation, of which half is corrected; with `half` False all of it is.
    """
    energy = _energy(recorded)
    if not percent.is_finite() or percent <= -100 or percent == 0:
        remedy = "give the error in percent, above -100 and not 0; a meter that stood still is `normal`"
        raise UsageError(f"{percent} % is no error of a meter", remedy=remedy)
    span = energy / 2 if half else energy
    true = span / (1 + Fraction(percent) / 100)
    steps = [Reckoned("recorded", _shown(energy), "kWh")]
    if half:
        steps.append(Reckoned("of half the time since the last check", _shown(span), "kWh"))
    steps += [Reckoned("error", _shown(percent), "%"), Reckoned("true: recorded / (1 + error)", _shown(true), "kWh")]
    return _result("error", true - span, steps, _ERROR if half else _ERROR.split(",")[0])


def wrong_multiplier(billed: Decimal, wrong: Decimal, right: Decimal) -> BackBilling:
    """Energy billed with the multiplier `wrong` where `right` is true."""
    energy = _energy(billed, "billed energy")
    if not (wrong.is_finite() and right.is_finite()) or min(wrong, right) <= 0 or wrong == right:
        raise UsageError(f"multipliers {wrong} and {right}", remedy="give two numbers above zero that differ")
    true = energy * Fraction(right) / Fraction(wrong)
    steps = [
        Reckoned(f"billed with {_shown(wrong)}", _shown(energy), "kWh"),
        Reckoned(f"true: billed x {_shown(right)} / {_shown(wrong)}", _shown(true), "kWh"),
    ]
    return _result("multiplier", true - energy, steps, _MULTIPLIER)


def coefficient(factors: Sequence[Fraction]) -> Fraction:
    """K = true power / recorded power of a balanced load, from what each phase registers of its own power.

    Raises `UsageError` where the phases cancel out or run backwards together: what was recorded says nothing then.
    """
    total = sum(factors, Fraction(0))
    if not factors or total <= 0:
        raise UsageError(
            "the meter stood still or ran backwards: its energy says nothing of the true one",
            remedy="take a normal month instead (`normal`)",
        )
    return len(factors) / total


def named_wiring(name: str) -> Wiring:
    """A wiring fault by its name in `WIRING`."""
    if name not in WIRING:
        raise UsageError(f"unknown wiring fault {name!r}", remedy=f"use one of {', '.join(WIRING)}, or say K yourself")
    return WIRING[name]


def wrong_wiring(recorded: Decimal, k: Fraction, words: str = "") -> BackBilling:
    """Energy recorded while the wiring was wrong, with K = true / recorded power (`coefficient`).

    words: how K comes about.
    """
    energy = _energy(recorded)
    if k <= 0 or k == 1:
        raise UsageError(f"K = {_shown(k)} corrects nothing", remedy="give K above zero and not 1")
    steps = [
        Reckoned("recorded", _shown(energy), "kWh"),
        Reckoned(f"K = true / recorded power{': ' + words if words else ''}", _shown(k)),
        Reckoned("true: recorded x K", _shown(energy * k), "kWh"),
    ]
    return _result("wiring", energy * (k - 1), steps, _WIRING)


def normal_month(normal: Decimal, normal_days: int, fault_days: int, recorded: Decimal) -> BackBilling:
    """What is missing for `fault_days` days, in which `recorded` kWh were registered, at the rate of a normal month."""
    month, found = _energy(normal, "energy of a normal month"), _energy(recorded)
    if normal_days < 1 or fault_days < 1:
        raise UsageError("days are counted from 1", remedy="give the days of the normal month and of the fault")
    a_day = month / normal_days
    steps = [
        Reckoned(f"normal month of {normal_days} days", _shown(month), "kWh"),
        Reckoned("a day of it", _shown(a_day), "kWh"),
        Reckoned(f"{fault_days} days at that rate", _shown(a_day * fault_days), "kWh"),
        Reckoned("recorded in those days", _shown(found), "kWh"),
    ]
    return _result("normal", a_day * fault_days - found, steps, _NORMAL)
