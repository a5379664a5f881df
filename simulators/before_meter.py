"""What stands before a meter: the transformer it is behind, and what that loses. In whole numbers.

The load's loss goes with the square of the mean apparent power, the iron's with time (Chinese suppliers' rule for
metering on the low side): kWh = P0 T + (A^2 + R^2) Pk / (S^2 T), kvarh = S I0% T + (A^2 + R^2) Uk% / (S T).
"""

from __future__ import annotations

from dataclasses import dataclass

from simulators.toml_table import Table

__all__ = ["Transformer", "read_transformer"]


@dataclass(frozen=True, slots=True)
class Transformer:
    """kva: rated. no_load_w, load_w: lost without load, and by rated load. no_load_permille: current without load;
    impedance_permille: impedance voltage, both thousandths of what is rated."""

    kva: int
    no_load_w: int
    load_w: int
    no_load_permille: int
    impedance_permille: int

    def losses(self, active: int, reactive: int, hours: int) -> tuple[int, int]:
        """Whole kWh and kvarh lost in `hours` while 0.01 kWh and 0.01 kvarh were registered; half-up."""
        square = active**2 + reactive**2  # 10^-4 kWh^2
        iron = self.no_load_w * hours * (self.kva**2 * hours * 10_000)
        below = 1000 * 10_000 * self.kva**2 * hours
        magnetising = self.no_load_permille * self.kva * hours * (self.kva * hours * 10_000)
        beneath = 1000 * 10_000 * self.kva * hours
        lost = (iron + square * self.load_w, below)
        drawn = (magnetising + square * self.impedance_permille, beneath)
        return _half_up(*lost), _half_up(*drawn)

    def as_row(self) -> tuple[str, ...]:
        """rated_kva, no_load_kw, load_kw, no_load_percent, impedance_percent as decimal text."""
        powers = (f"{watts // 1000}.{watts % 1000:03d}" for watts in (self.no_load_w, self.load_w))
        parts = (f"{part // 10}.{part % 10}" for part in (self.no_load_permille, self.impedance_permille))
        return str(self.kva), *powers, *parts


def _half_up(top: int, bottom: int) -> int:
    return (2 * top + bottom) // (2 * bottom)


def read_transformer(table: Table) -> Transformer | None:
    """The key `transformer` of a [[meter]], a table of its own."""
    value = table.raw("transformer")
    if value is None:
        return None
    if not isinstance(value, dict):
        table.wrong("transformer", f"{value!r} is no table", "write transformer = { kva = 400, no_load_w = 570, ... }")
        return None
    inner = Table(value, f"{table.where} transformer", table.problems)
    found = Transformer(
        kva=inner.integer("kva", None, 1, 1_000_000),
        no_load_w=inner.integer("no_load_w", None, 0, 10_000_000),
        load_w=inner.integer("load_w", None, 0, 10_000_000),
        no_load_permille=inner.integer("no_load_permille", 0, 0, 1000),
        impedance_permille=inner.integer("impedance_permille", 0, 0, 1000),
    )
    inner.done()
    return found
