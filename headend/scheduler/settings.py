"""What to read, from whom, how often: one `Schedule` per `[[schedule]]` of site.toml."""

from __future__ import annotations

from dataclasses import dataclass

from headend.model import ReadKind

__all__ = ["Schedule"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """One reading task (抄表任务).

    every_s: period of registers and clock reads; 0 for curves and freezes, whose moments the meter's grid gives.
    horizon_days: how far back gaps of a curve or freeze are filled. settle_s: how long after a boundary its value is
    asked for. deadline_s: age at which a value that comes counts as late. lines, models: names it covers, `*` is all.
    """

    name: str
    kind: ReadKind
    quantities: tuple[str, ...]
    every_s: int = 0
    horizon_days: int = 62
    settle_s: int = 30
    deadline_s: int = 3600
    lines: tuple[str, ...] = ("*",)
    models: tuple[str, ...] = ("*",)
