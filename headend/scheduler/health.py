"""How a line and its meters are doing: who is left alone until when, and whether the line damages frames. Pure.

A meter that gives nothing is asked ever more seldom, and all silent meters of a line together may cost at most a share
of its time, so that their neighbours keep their rate. The first answer ends a meter's rest at once.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta

from headend.model import Status
from headend.scheduler.retry import after_outcome

__all__ = ["Health"]

# The line counts as noisy while the moving average of damaged jobs is above this: after one damaged job, for about
# twenty clean ones.
_NOISE_WEIGHT = 0.05
_NOISE_LIMIT = 0.02


@dataclass(slots=True)
class _Meter:
    failures: int = 0
    until: datetime | None = None


class Health:
    """The health of one line. dead_share: how much of the line's time silent meters may cost together, 0 to 1."""

    def __init__(self, dead_share: float = 0.05) -> None:
        self._dead_share = dead_share
        self._meters: dict[int, _Meter] = defaultdict(_Meter)
        self._debt_s = 0.0
        self._debt_at: datetime | None = None
        self._noise = 0.0

    @property
    def noisy(self) -> bool:
        """Whether the line damaged frames lately, so that one read of a value is not enough."""
        return self._noise > _NOISE_LIMIT

    def rests_until(self, meter_key: int) -> datetime | None:
        """Until when a meter is left alone; None for a healthy one."""
        meter = self._meters.get(meter_key)
        return meter.until if meter is not None else None

    def rests(self, meter_key: int, now: datetime) -> bool:
        """Whether a meter is left alone at `now`."""
        until = self.rests_until(meter_key)
        return until is not None and now < until

    def took(self, meter_key: int, status: Status, seconds: float, damaged: bool, now: datetime) -> bool:
        """Take in a job that took `seconds`; whether the meter was silent (and now rests)."""
        if status is not Status.LINE_DOWN:
            self._noise += _NOISE_WEIGHT * ((1.0 if damaged else 0.0) - self._noise)
        meter = self._meters[meter_key]
        rest = after_outcome(status, meter.failures, now)
        if not rest.failures:
            if status is not Status.LINE_DOWN:
                meter.failures, meter.until = 0, None
            return False
        allowed = now + timedelta(seconds=self._owe(seconds, now) / self._dead_share)
        meter.failures, meter.until = rest.failures, max(rest.until, allowed)
        return True

    def _owe(self, seconds: float, now: datetime) -> float:
        """Add a silent job's cost to what silence owes the line; the debt is paid off at the allowed share of time."""
        if self._debt_at is not None:
            paid = (now - self._debt_at).total_seconds() * self._dead_share
            self._debt_s = max(0.0, self._debt_s - paid)
        self._debt_at = now
        self._debt_s += seconds
        return self._debt_s
