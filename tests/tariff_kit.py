"""Load curves for tests of tariffs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from billing.try_curve import Curve
from headend.civil import zone


def curve(zone_name: str, first: str, last: str, energy: Callable[[datetime], Decimal], step_s: int = 3600) -> Curve:
    """Intervals from one local midnight to another; `energy` of the local start of each."""
    tz = zone(zone_name)
    at = datetime.fromisoformat(first).replace(tzinfo=tz).astimezone(UTC)
    end = datetime.fromisoformat(last).replace(tzinfo=tz).astimezone(UTC)
    values, moment = [], at
    while moment < end:
        values.append(energy(moment.astimezone(tz)))
        moment += timedelta(seconds=step_s)
    return Curve(at, step_s, tuple(values))
