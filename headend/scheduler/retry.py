"""What next after an outcome: retries as returned data. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from headend.model import Cause, Status

__all__ = ["Rest", "after_fault", "after_outcome"]

# Seconds a meter that gives nothing is left alone, by consecutive failures: soon at first, for a frame may just have
# been lost; then ever more seldom, so that a dead meter costs its neighbours next to nothing.
_METER_REST_S = (2, 10, 30, 120, 300, 900, 1800)

# Seconds until one missing item of a meter that does answer is asked for again.
_ITEM_REST_S = {
    Cause.NOT_YET: (60, 120, 300, 900),
    Cause.IMPLAUSIBLE: (30, 300, 3600, 21_600),
    Cause.BAD_FRAME: (5, 30, 300, 3600),
    Cause.NO_ANSWER: (5, 30, 300, 3600),
    Cause.NULL_VALUE: (900, 3600, 21_600, 86_400),
}
_OTHER_REST_S = (300, 3600, 21_600, 86_400)

# A meter that does not let us in may lock itself when it is tried again and again.
_LOCKED_REST_S = (60, 900, 3600, 14_400)

_SILENT = frozenset({Status.NO_ANSWER, Status.BAD_FRAME, Status.WRONG_METER})


@dataclass(frozen=True, slots=True)
class Rest:
    """Ask again not before `until`; `failures` is what to pass next time."""

    until: datetime
    failures: int


def after_outcome(status: Status, failures: int, now: datetime) -> Rest:
    """When the meter as a whole may be asked again after `failures` earlier ones in a row. `now` on success.

    A line that is down is the line's trouble, not the meter's: the worker waits for the line.
    """
    if status not in _SILENT and status is not Status.NO_ACCESS:
        return Rest(now, 0)
    rests_s = _LOCKED_REST_S if status is Status.NO_ACCESS else _METER_REST_S
    rest_s = rests_s[min(failures, len(rests_s) - 1)]
    return Rest(now + timedelta(seconds=rest_s), failures + 1)


def after_fault(cause: Cause, failures: int, now: datetime) -> Rest:
    """When one missing item of an answering meter may be asked for again."""
    steps = _ITEM_REST_S.get(cause, _OTHER_REST_S)
    return Rest(now + timedelta(seconds=steps[min(failures, len(steps) - 1)]), failures + 1)
