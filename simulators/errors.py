"""What can be wrong with a town file, told line by line."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["SimulatorError"]


class SimulatorError(Exception):
    """A town can't be built or started; `problems` holds one line each: key, what is wrong, what to do."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))
