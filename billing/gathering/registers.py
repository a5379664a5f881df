"""What registers rose by between the ends of the parts of a period, for a batch of bills in few reads."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection

from billing.gathering.places import Installed, span_text, when_text
from billing.model import Derived, Determinant, Hold, Parent, RegisterEnd, RegisterPart
from billing.names import TOTAL
from headend.model import Quality, Window
from headend.quantities import QUANTITIES, from_units, to_units
from headend.store.columns import Place, registers_at
from headend.store.readings import RegisterValue

__all__ = ["READ_AGAIN", "Amount", "Registers"]

READ_AGAIN = "read the meter's freeze or curve for that time, then close again"


@dataclass(slots=True)
class Amount:
    """A number on its way to a determinant: what it comes from, and how many values of which quality."""

    value: Decimal = Decimal(0)
    parents: list[Parent] = field(default_factory=list)
    counts: Counter[Quality] = field(default_factory=Counter)

    def add(self, name: str, value: Decimal) -> None:
        """Let `value` go into it, as coming from `name`; 0 leaves no trace."""
        if value:
            self.value += value
            self.parents.append(Derived(name, value))

    def count(self, counts: Mapping[Quality, int]) -> None:
        """Add how many values of which quality went into it."""
        for quality, number in counts.items():
            self.counts[quality] += number

    def determinant(self, name: str, unit: str, used: Decimal | None = None) -> Determinant:
        """The determinant that it is."""
        return Determinant(name, self.value, unit, used, tuple(sorted(self.counts.items())), tuple(self.parents))


class Registers:
    """Register values of a batch: `want` all of them, `read` once, then look at each."""

    def __init__(self, conn: Connection, as_of: int | None) -> None:
        self._conn, self._as_of = conn, as_of
        self._wanted: dict[str, set[Place]] = defaultdict(set)
        self._found: dict[str, dict[Place, RegisterValue]] = {}

    def want(self, quantity: str, part: Installed, window: Window) -> None:
        """Note that the registers at the ends of `window` will be looked at."""
        self._wanted[quantity].update(((part.meter.key, window.start), (part.meter.key, window.end)))

    def read(self) -> None:
        """Read what is wanted."""
        for quantity, places in self._wanted.items():
            self._found[quantity] = registers_at(self._conn, places, quantity, as_of=self._as_of)

    def amount(
        self, quantity: str, parts: Iterable[tuple[Installed, Window]], zone_name: str
    ) -> tuple[Amount, list[RegisterPart], list[Hold]]:
        """The sum of what the meters registered in their windows, and what is against it."""
        total, found, holds = Amount(), list[RegisterPart](), list[Hold]()
        for part, window in parts:
            register, missing = self.part(quantity, part, window, zone_name)
            holds += missing
            if register is not None:
                found.append(register)
                total.value += register.value
                total.parents.append(register)
                total.counts[register.start.quality] += 1
                total.counts[register.end.quality] += 1
        return total, found, holds

    def part(
        self, quantity: str, part: Installed, window: Window, zone_name: str
    ) -> tuple[RegisterPart | None, list[Hold]]:
        """What one meter registered in `window`."""
        ends, holds = list[RegisterEnd](), list[Hold]()
        for at in (window.start, window.end):
            value = self._found[quantity].get((part.meter.key, at))
            wrong = _wrong(quantity, part.meter.id, at, value, zone_name)
            if wrong is not None:
                holds.append(wrong)
            elif value is not None:
                ends.append(RegisterEnd(value.at, value.units, value.quality, value.source, value.outcome_id))
        if holds:
            return None, holds
        wrap_units = to_units(part.meter.register_wrap)
        place = (part.meter.key, part.meter.id, quantity, ends[0], ends[1])
        register = RegisterPart(*place, wrap_units, part.installation.multiplier)
        return register, _rollover(register, part, window, zone_name)


def _wrong(quantity: str, meter: str, at: datetime, value: RegisterValue | None, zone_name: str) -> Hold | None:
    """What is against a register value, if anything is."""
    remedy = READ_AGAIN if quantity == TOTAL else f"have {quantity} read for that time as well, then close again"
    if value is None or value.quality is Quality.MISSING:
        what = f"no {quantity} register at {when_text(at, zone_name)}"
        return Hold("register_absent", what, remedy, meter, at, at, 1)
    if value.quality is Quality.SUSPECT:
        held = f"{from_units(value.units)} {QUANTITIES[quantity].unit}"
        what = f"the {quantity} register at {when_text(at, zone_name)} is suspect ({held})"
        return Hold("register_suspect", what, remedy, meter, at, at, 1)
    return None


def _rollover(register: RegisterPart, part: Installed, window: Window, zone_name: str) -> list[Hold]:
    """A register that runs back is a rollover only if that makes less than half of its range."""
    if register.end.units >= register.start.units or register.difference * 2 < part.meter.register_wrap:
        return []
    unit = QUANTITIES[register.quantity].unit
    start, end = from_units(register.start.units), from_units(register.end.units)
    what = (
        f"the {register.quantity} register runs back from {start} to {end} {unit} "
        f"({span_text(window, zone_name)}); as a rollover it would make {register.difference} {unit}"
    )
    remedy = "check both registers, the installation's dates and the meter model's register_wrap"
    return [Hold("register_back", what, remedy, part.meter.id, window.start, window.end, 2)]
