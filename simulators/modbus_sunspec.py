"""A SunSpec chain in holding registers: the mark, the common model, others, the meter's model, the end.

Source: SunSpec Device Information Model Specification 1.0: 'SunS' at 40000 (or 50000 or 0), then models, each with its
id and length in front, then id FFFFH with length 0. Common model: id 1, 66 registers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from simulators.modbus_meter import Area, ModbusSpec

__all__ = ["Chain", "chained"]

_MARK = b"SunS"
_COMMON = 66
_TEXTS = ((0, 16, "Simulated"), (16, 16, "SUN-1"), (32, 8, "opt"), (40, 8, "1.0"), (48, 16, "S-0001"))
_END = 0xFFFF


@dataclass(frozen=True, slots=True)
class Chain:
    """Where the chain begins, and the models (id, length) between the common one and the meter's. length: of the
    meter's model, 0 as far as its points reach."""

    start: int = 40_000
    between: tuple[tuple[int, int], ...] = ()
    length: int = 0

    @property
    def model_at(self) -> int:
        """Address of the meter's model's id."""
        return self.start + 2 + 2 + _COMMON + sum(2 + length for _, length in self.between)


def chained(spec: ModbusSpec, model: int, chain: Chain) -> ModbusSpec:
    """`spec`, whose points lie from `chain.model_at` on, as the only meter model of a chain."""
    at = chain.model_at
    ends = [point.address + point.size() for point in spec.points] + [address + 1 for _, address in spec.constants]
    length = chain.length or max(ends) - at - 2
    words = dict(_words(chain.start, _MARK))
    words |= _head(chain.start + 2, 1, _COMMON)
    words |= _words(chain.start + 4, bytes(2 * _COMMON))
    for offset, size, text in _TEXTS:
        words |= _words(chain.start + 4 + offset, text.encode().ljust(2 * size, b"\0"))
    place = chain.start + 4 + _COMMON
    for number, size in chain.between:
        words |= _head(place, number, size)
        words |= _words(place + 2, bytes(2 * size))
        place += 2 + size
    words |= _head(at, model, length)
    words |= _head(at + 2 + length, _END, 0)
    return replace(
        spec,
        constants={**spec.constants, **{(3, address): word for address, word in words.items()}},
        areas=(*spec.areas, Area(3, at + 2, length)),
    )


def _words(first: int, data: bytes) -> Iterator[tuple[int, int]]:
    return ((first + at // 2, int.from_bytes(data[at : at + 2], "big")) for at in range(0, len(data), 2))


def _head(at: int, model: int, length: int) -> dict[int, int]:
    return {at: model, at + 1: length}
