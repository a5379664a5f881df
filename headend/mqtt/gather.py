"""Values of many meters, gathered one by one in any order, and laid out as a `Batch`. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from headend.mqtt.batch import Batch, Column, EventRow, Rejected, Rows

__all__ = ["CLOCK_DOUBTFUL", "ESTIMATED", "MISSING", "SUSPECT", "Gathering"]

ESTIMATED: Final = 1
SUSPECT: Final = 2
MISSING: Final = 4
CLOCK_DOUBTFUL: Final = 8

_REASONS_MAX: Final = 100


@dataclass(slots=True)
class Gathering:
    """What one message said so far: units (ten-thousandths) and quality bits by meter, time and quantity."""

    values: dict[str, dict[int, dict[str, tuple[int, int]]]] = field(default_factory=dict)
    events: list[EventRow] = field(default_factory=list)
    reasons: dict[tuple[str, str], None] = field(default_factory=dict)
    full: bool = False

    def put(self, address: str, at_s: int, bits: int, quantity: str, units: int) -> None:
        """One value. Said twice alike is said once; said twice differently, the first is kept and the other told."""
        row = self.values.setdefault(address, {}).setdefault(at_s, {})
        if row.setdefault(quantity, (units, bits))[0] != units:
            self.reject(address, f"{quantity} is given twice for one instant")

    def reject(self, address: str, reason: str) -> None:
        """Something that can't be taken, and why. Beyond a hundred it is only told that there is more."""
        if len(self.reasons) < _REASONS_MAX:
            self.reasons[address, reason] = None
        elif (address, reason) not in self.reasons:
            self.full = True

    def batch(self, concentrator: str, **rest: Any) -> Batch:
        """All of it. rest: further fields of `Batch`."""
        names = list(dict.fromkeys(n for rows in self.values.values() for row in rows.values() for n in row))
        rejected = [Rejected(address, reason) for address, reason in self.reasons]
        if self.full:
            rejected.append(Rejected("", "and more of the kind"))
        return Batch(
            concentrator,
            columns=tuple(Column(name, 1) for name in names),
            meters=tuple(one for address, rows in self.values.items() for one in _rows(address, rows, names)),
            sparse=True,
            events=tuple(self.events),
            rejected=tuple(rejected),
            **rest,
        )


def _rows(address: str, rows: dict[int, dict[str, tuple[int, int]]], names: list[str]) -> Iterator[Rows]:
    """The rows of a meter by time, apart for each quality its values came with."""
    for bits in sorted({quality for row in rows.values() for _, quality in row.values()}):
        times = sorted(at_s for at_s, row in rows.items() if any(one[1] == bits for one in row.values()))
        values = [[_of_quality(rows[at_s].get(name), bits) for name in names] for at_s in times]
        yield Rows(address, times, values, [bits] * len(times))


def _of_quality(value: tuple[int, int] | None, bits: int) -> int | None:
    return value[0] if value is not None and value[1] == bits else None
