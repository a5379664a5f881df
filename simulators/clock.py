"""What time it is in the town: any callable that gives epoch seconds. `time.time` is the real one."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Now", "RunningClock", "SettableClock"]

Now = Callable[[], float]


class SettableClock:
    """Stands still until `set` or `advance`; for tests."""

    def __init__(self, start_s: float) -> None:
        self._at_s = start_s

    def __call__(self) -> float:
        return self._at_s

    def set(self, at_s: float) -> None:
        """Let it be `at_s` (epoch seconds)."""
        self._at_s = at_s

    def advance(self, by_s: float) -> None:
        """Move on by `by_s` seconds."""
        self._at_s += by_s


class RunningClock:
    """Starts at `start_s` and runs `speed` times as fast as real time."""

    def __init__(self, start_s: float, speed: float = 1.0) -> None:
        self._start_s = start_s
        self._speed = speed
        self._zero_s = time.monotonic()

    def __call__(self) -> float:
        return self._start_s + (time.monotonic() - self._zero_s) * self._speed
