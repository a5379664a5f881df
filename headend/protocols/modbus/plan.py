"""Which reads bring a set of registers: neighbours in one read, as far as the meter allows."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from headend.protocols.modbus.model import BITS, Register, RegisterMap

__all__ = ["Request", "plan", "wanted"]

MAX_BITS = 2000  # of one read of coils or discrete inputs (Application Protocol V1.1b3, 6.1)


@dataclass(frozen=True, slots=True)
class Request:
    """One read: `count` registers (functions 1 and 2: bits) from `address` on, and what is in them."""

    function: int
    address: int
    count: int
    registers: tuple[Register, ...]

    @property
    def end(self) -> int:
        return self.address + self.count


def wanted(registers: RegisterMap, names: Iterable[str]) -> tuple[tuple[Register, ...], tuple[str, ...]]:
    """The registers of `names`, with the scale registers they need; and the names that are not in the map."""
    found: dict[str, Register] = {}
    unknown: list[str] = []
    for name in dict.fromkeys(names):
        one = registers.by_name.get(name)
        if one is None:
            unknown.append(name)
            continue
        found[name] = one
        if one.scale_register:
            found[one.scale_register] = registers.by_name[one.scale_register]
    return tuple(found.values()), tuple(unknown)


def plan(registers: RegisterMap, wanted: Iterable[Register], *, gap: int | None = None) -> tuple[Request, ...]:
    """The fewest reads for `wanted` that keep the map's limits, by function and address.

    gap: over the map's own, how many registers in between may be carried along.
    """
    reach = registers.gap if gap is None else gap
    requests: list[Request] = []
    parts: list[Register] = []
    end = 0
    for one in sorted(wanted, key=lambda r: (r.function, r.address, r.words, r.name)):
        if parts and one == parts[-1]:
            continue
        last = max(end, one.end)
        if parts and _fits(registers, parts[0], end, one, last, reach):
            parts.append(one)
            end = last
            continue
        if parts:
            requests.append(_request(parts, end))
        parts, end = [one], one.end
    if parts:
        requests.append(_request(parts, end))
    return tuple(requests)


def _request(parts: list[Register], end: int) -> Request:
    return Request(parts[0].function, parts[0].address, end - parts[0].address, tuple(parts))


def _fits(registers: RegisterMap, first: Register, end: int, one: Register, last: int, gap: int) -> bool:
    """Whether a read from `first` that ended at `end` may go on to `last`, to bring `one` too."""
    most = MAX_BITS if one.function in BITS else registers.max_registers
    return (
        first.function == one.function
        and one.address - end <= gap
        and last - first.address <= most
        and not _crosses(registers.boundaries, first.address, last)
    )


def _crosses(boundaries: tuple[int, ...], start: int, end: int) -> bool:
    """Whether one of the (ascending) boundaries lies inside: behind `start` and before `end`."""
    after = bisect_right(boundaries, start)
    return after < len(boundaries) and boundaries[after] < end
