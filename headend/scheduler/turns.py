"""Whose turn it is on a line: control, a person's reads, what is scheduled, then backfill; nothing starves."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Turns"]

# A class of work that was passed over this many times in a row gets one turn, whatever waits above it.
_PATIENCE = 8


class Turns:
    """Picks among classes of work, the most urgent first. Control (class 0) is never made to wait for another class."""

    def __init__(self, classes: int) -> None:
        self._passed = [0] * classes

    def pick(self, waiting: Sequence[bool]) -> int | None:
        """The class whose turn it is, of those that have work waiting; None if none has."""
        if waiting[0]:
            return 0
        due = [index for index, has_work in enumerate(waiting) if has_work]
        if not due:
            return None
        chosen = next((index for index in reversed(due) if self._passed[index] >= _PATIENCE), due[0])
        for index in due:
            self._passed[index] += 1
        self._passed[chosen] = 0
        return chosen
