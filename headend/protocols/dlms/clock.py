"""Times of COSEM meters: date-time, date, time and Unix time, as UTC and back (Blue Book 4.1.6.1).

A date-time carries its own deviation from UTC, or says it has none; then the meter's clock zone decides. By the Blue
Book local time + deviation = UTC, in minutes (-60 in winter at UTC+1). Some meters mean the opposite
(`deviation_reversed`), some send numbers that mean nothing (`ignore_deviation`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from headend.civil import zone
from headend.errors import BadFrame
from headend.protocols.dlms.axdr import Datum, Tag
from headend.protocols.dlms.settings import DlmsSettings

__all__ = ["UNSPECIFIED", "Stamp", "clock_time", "is_time", "parse_time", "range_time", "stamp_text"]

UNSPECIFIED: Final = -0x8000  # of a deviation
_MAX_DEVIATION_MIN: Final = 14 * 60
_ANY: Final = 0xFF
_ANY_YEAR: Final = 0xFFFF
_LAST_DAY, _BEFORE_LAST_DAY = 0xFE, 0xFD
_DST_ENDS, _DST_BEGINS = 0xFD, 0xFE  # of a month
_SIZE: Final = 12
_MAX_UNIX_HOUR: Final = 24  # a four-byte time of day begins with its hour, a Unix time since 1983 with more

_STATUS_BITS: Final = (
    (0x01, "invalid"),
    (0x02, "doubtful"),
    (0x04, "different clock base"),
    (0x08, "invalid clock status"),
    (0x80, "daylight saving"),
)


@dataclass(frozen=True, slots=True)
class Stamp:
    """A time as a meter gave it.

    at: the instant; None when the time leaves its date, hour or minute open or is all zeros (never happened).
    local: the meter's own reading of it, without zone; None as `at`. deviation_min: as sent, None when not specified.
    status: the clock status byte, None when not specified or not sent. ambiguous: the local hour comes twice on that
    day and nothing in the time says which it is; the first is taken.
    """

    at: datetime | None
    local: datetime | None = None
    deviation_min: int | None = None
    status: int | None = None
    ambiguous: bool = False

    @property
    def invalid(self) -> bool:
        """The meter says this time is not to be used: its clock lost power or was never set."""
        return bool((self.status or 0) & 0x01)

    @property
    def doubtful(self) -> bool:
        """The meter says its clock may be wrong."""
        return bool((self.status or 0) & 0x02)

    @property
    def dst(self) -> bool | None:
        """Whether daylight saving is in force, by the meter; None when it does not say."""
        return None if self.status is None else bool(self.status & 0x80)

    @property
    def status_words(self) -> tuple[str, ...]:
        """The status byte in words; empty when all is well."""
        return tuple(word for bit, word in _STATUS_BITS if (self.status or 0) & bit)


NOWHEN: Final = Stamp(None)


def is_time(datum: Datum) -> bool:
    """Whether `datum` has the looks of a date-time: tag 25, or an octet-string of 12 with a month and a day."""
    if datum.tag == Tag.DATE_TIME:
        return True
    if datum.tag != Tag.OCTET_STRING or len(datum.value) != _SIZE:
        return False
    raw: bytes = datum.value
    year, month, day, weekday = int.from_bytes(raw[:2], "big"), raw[2], raw[3], raw[4]
    deviation = int.from_bytes(raw[9:11], "big", signed=True)
    return (
        (1970 <= year < 2200 or year == _ANY_YEAR)
        and (1 <= month <= 12 or month >= 0xFD)
        and (1 <= day <= 31 or day >= 0xFD)
        and (weekday <= 7 or weekday == _ANY)
        and (raw[5] <= 24 or raw[5] == _ANY)
        and (abs(deviation) <= _MAX_DEVIATION_MIN or deviation == UNSPECIFIED)
    )


def parse_time(raw: Datum | bytes | int, settings: DlmsSettings, clock_zone: str) -> Stamp:
    """The time in `raw`: a datum, or bytes of a date-time (with or without a tag or length before it), a date, a time
    or a Unix time. Raises `BadFrame` for what is no time."""
    value = raw.value if isinstance(raw, Datum) else raw
    if value is None:
        return NOWHEN
    if isinstance(value, bool) or not isinstance(value, int | bytes):
        raise BadFrame(f"{value!r} is no time")
    if isinstance(value, int):
        return _unix(value)
    for lead in (b"\x09\x0c", b"\x0c", b"\x19"):
        if len(value) == _SIZE + len(lead) and value.startswith(lead):
            value = value[len(lead) :]
    if len(value) == _SIZE:
        return _date_time(value, settings, clock_zone)
    if len(value) == 5:
        return _date_time(value + bytes((0, 0, 0, 0, 0x80, 0, _ANY)), settings, clock_zone)
    if len(value) == 4:
        is_unix = _MAX_UNIX_HOUR < value[0] < _ANY and not (isinstance(raw, Datum) and raw.tag == Tag.TIME)
        return _unix(int.from_bytes(value, "big")) if is_unix else NOWHEN
    if not value:
        return NOWHEN
    raise BadFrame(f"{len(value)} bytes are no time ({value[:16].hex().upper()})")


def _unix(seconds: int) -> Stamp:
    if not 0 <= seconds < 2**32:
        raise BadFrame(f"{seconds} is no Unix time of 32 bits")
    if seconds in (0, 2**32 - 1):
        return NOWHEN
    return Stamp(datetime.fromtimestamp(seconds, UTC), deviation_min=0)


def _date_time(raw: bytes, settings: DlmsSettings, clock_zone: str) -> Stamp:
    deviation: int | None = int.from_bytes(raw[9:11], "big", signed=True)
    if deviation == UNSPECIFIED:
        deviation = None
    status = None if raw[11] == _ANY else raw[11]
    local = _local(raw)
    if local is None:
        return Stamp(None, None, deviation, status)
    try:
        if deviation is None or settings.ignore_deviation:
            at, ambiguous = _in_zone(local, zone(clock_zone), status)
            return Stamp(at, local, deviation, status, ambiguous)
        if abs(deviation) > _MAX_DEVIATION_MIN:
            raise BadFrame(
                f"a deviation of {deviation} minutes from UTC", remedy="set ignore_deviation if the meter sends such"
            )
        shift = timedelta(minutes=-deviation if settings.deviation_reversed else deviation)
        return Stamp((local + shift).replace(tzinfo=UTC), local, deviation, status)
    except OverflowError:
        raise BadFrame(f"the time {raw.hex().upper()} is beyond the calendar") from None


def _local(raw: bytes) -> datetime | None:
    """The date and time as they stand; None where one of them is open."""
    year, month, day = int.from_bytes(raw[:2], "big"), raw[2], raw[3]
    hour, minute, second, hundredths = raw[5:9]
    if year == _ANY_YEAR or month in (_ANY, _DST_BEGINS, _DST_ENDS) or _ANY in (day, hour, minute):
        return None
    if 0 in (year, month, day):
        return None  # a maximum that never occurred, an event that never was
    second = 0 if second == _ANY else second
    hundredths = 0 if hundredths == _ANY else hundredths
    try:
        if day in (_LAST_DAY, _BEFORE_LAST_DAY):
            following = datetime(year + month // 12, month % 12 + 1, 1)  # noqa: DTZ001 the meter's local time
            day = (following - timedelta(days=1 if day == _LAST_DAY else 2)).day
        # 24:00:00 is how some meters write the midnight at the end of a day.
        late = hour == 24 and minute == second == hundredths == 0
        clock = (0 if late else hour, minute, second, hundredths * 10_000)
        moment = datetime(year, month, day, *clock)  # noqa: DTZ001 the meter's local time
        return moment + timedelta(days=1) if late else moment
    except (ValueError, OverflowError):
        raise BadFrame(f"{raw.hex().upper()} is no date and time") from None


def _in_zone(local: datetime, tz: tzinfo, status: int | None) -> tuple[datetime, bool]:
    """The instant of a local time, and whether it could be another as well."""
    first = local.replace(tzinfo=tz).astimezone(UTC)
    second = local.replace(tzinfo=tz, fold=1).astimezone(UTC)
    if second <= first:  # once only, or never (the gap in spring)
        return first, False
    if status is None:
        return first, True
    return (first if status & 0x80 else second), False


def clock_time(at: datetime, settings: DlmsSettings, clock_zone: str) -> bytes:
    """The twelve bytes that set a meter's clock to `at`: its local time, with deviation and daylight-saving bit."""
    return _bytes(at, zone(clock_zone), not settings.ignore_deviation, settings)


def range_time(at: datetime, settings: DlmsSettings, clock_zone: str) -> bytes:
    """The twelve bytes that name `at` in a range asked of a meter, by `range_local` and `range_deviation`."""
    tz = zone(clock_zone) if settings.range_local else UTC
    return _bytes(at, tz, settings.range_deviation == "meter", settings)


def _bytes(at: datetime, tz: tzinfo, deviation: bool, settings: DlmsSettings) -> bytes:
    if at.tzinfo is None:
        raise ValueError(f"naive time {at!r}: instants are aware")
    there = at.astimezone(tz)
    offset_min = (there.utcoffset() or timedelta()) // timedelta(minutes=1)
    sign = 1 if settings.deviation_reversed else -1
    minutes = sign * offset_min if deviation else UNSPECIFIED
    return (
        there.year.to_bytes(2, "big")
        + bytes((there.month, there.day, there.isoweekday(), there.hour, there.minute, there.second))
        + bytes((there.microsecond // 10_000,))
        + minutes.to_bytes(2, "big", signed=True)
        + bytes((0x80 if there.dst() else 0,))
    )


def stamp_text(raw: Datum | bytes | int) -> str:
    """A time as the meter wrote it, for a reader: open parts as `*`, with its deviation and status. Never raises."""
    value = raw.value if isinstance(raw, Datum) else raw
    if not isinstance(value, bytes) or len(value) != _SIZE:
        try:
            at = parse_time(raw, DlmsSettings(), "UTC").at
        except BadFrame:
            return str(value.hex().upper() if isinstance(value, bytes) else value)
        return "no time" if at is None else at.strftime("%Y-%m-%d %H:%M:%S UTC")
    year = int.from_bytes(value[:2], "big")
    date = f"{'****' if year == _ANY_YEAR else f'{year:04d}'}-{_part(value[2])}-{_part(value[3])}"
    text = f"{date} {_part(value[5])}:{_part(value[6])}:{_part(value[7])}"
    if value[8] not in (0, _ANY):
        text += f".{value[8]:02d}"
    deviation = int.from_bytes(value[9:11], "big", signed=True)
    text += ", deviation not specified" if deviation == UNSPECIFIED else f", deviation {deviation} min"
    if value[11] != _ANY:
        words = Stamp(None, status=value[11]).status_words
        text += f", {', '.join(words)}" if words else ""
    return text


def _part(number: int) -> str:
    return {_ANY: "**", _LAST_DAY: "last", _BEFORE_LAST_DAY: "last-1"}.get(number, f"{number:02d}")
