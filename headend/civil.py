"""Civil time at the edges: zones, meter clocks, local days. Everything else in the program is aware UTC.

A *zone* is an IANA name (`Asia/Shanghai`) or a fixed offset (`+08:00`). Meter clocks of DL/T 645 carry no
daylight-saving flag, so a meter's clock zone must have one offset all year; `has_dst` tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from headend.errors import UsageError

__all__ = [
    "EPOCH",
    "day_start",
    "from_epoch_s",
    "has_dst",
    "local_days",
    "month_span",
    "standard_offset",
    "to_epoch_s",
    "utc",
    "zone",
]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_OFFSET = re.compile(r"([+-])(\d{2}):(\d{2})")


@lru_cache(maxsize=256)
def zone(name: str) -> tzinfo:
    """The zone called `name`: an IANA name or a fixed offset like `+08:00`."""
    if match := _OFFSET.fullmatch(name):
        sign, hours, minutes = match.groups()
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        if offset < timedelta(hours=24):
            return timezone(-offset if sign == "-" else offset, name)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(f"unknown time zone {name!r}", remedy="use an IANA name or an offset like +08:00") from error


def utc(moment: datetime) -> datetime:
    """`moment` as aware UTC; a naive one is a programming error."""
    if moment.tzinfo is None:
        raise ValueError(f"naive time {moment!r}: instants are aware")
    return moment.astimezone(UTC)


def to_epoch_s(moment: datetime) -> int:
    """Whole seconds since 1970-01-01T00:00Z."""
    since = moment - EPOCH
    return since.days * 86_400 + since.seconds


def from_epoch_s(seconds: int) -> datetime:
    """The UTC instant `seconds` after 1970-01-01T00:00Z."""
    return datetime.fromtimestamp(seconds, UTC)


def day_start(day: date, tz: tzinfo) -> datetime:
    """The UTC instant at which civil `day` starts in `tz` (the first one, where midnight comes twice)."""
    return datetime.combine(day, time(), tzinfo=tz).astimezone(UTC)


def local_days(start: datetime, end: datetime, tz: tzinfo) -> Iterator[date]:
    """The civil days of `tz` whose start lies in `[start, end)`, in order."""
    day = start.astimezone(tz).date()
    if day_start(day, tz) < start:
        day += timedelta(days=1)
    while day_start(day, tz) < end:
        yield day
        day += timedelta(days=1)


def month_span(year: int, month: int, tz: tzinfo) -> tuple[datetime, datetime]:
    """Start and end (UTC, half-open) of a civil month in `tz`."""
    following = date(year + month // 12, month % 12 + 1, 1)
    return day_start(date(year, month, 1), tz), day_start(following, tz)


def has_dst(tz: tzinfo, year: int) -> bool:
    """Whether the offset of `tz` changes within `year`."""
    offsets = {datetime(year, month, 15, tzinfo=tz).utcoffset() for month in range(1, 13)}
    return len(offsets) > 1


def standard_offset(tz: tzinfo, year: int) -> str:
    """The winter (smallest) offset of `tz` in `year` as `+hh:mm`: what a meter without daylight saving runs on."""
    offsets = [datetime(year, month, 15, tzinfo=tz).utcoffset() or timedelta() for month in range(1, 13)]
    minutes = min(offsets) // timedelta(minutes=1)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
