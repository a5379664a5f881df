"""The clock of a DLMS meter and COSEM date-times (Blue Book 4.1.6.1)."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from simulators.dlms_axdr import Malformed
from simulators.dlms_spec import DlmsSpec

__all__ = ["DlmsClock", "read_time"]

_UNSPECIFIED = 0x8000
_DST_BIT = 0x80


class DlmsClock:
    """What the meter takes for the time: the instant plus an error and a drift that grows from the moment it is made.
    `believed` seconds are that, counted as epoch seconds."""

    def __init__(self, spec: DlmsSpec, now_s: int) -> None:
        self._zone: tzinfo = ZoneInfo(spec.zone) if spec.zone else timezone(timedelta(seconds=spec.zone_offset_s))
        self._deviation = spec.quirks.deviation
        self._hundredths = 0xFF if spec.quirks.no_hundredths else 0
        self.error_s = spec.clock_error_s
        self._drift_ppm = spec.clock_drift_ppm
        self._ref_s = now_s
        self.status = 0  # bits besides daylight saving: 1 invalid, 2 doubtful, 4 other base, 8 invalid status

    def believed(self, at_s: int) -> int:
        """What it shows at the instant `at_s`, as epoch seconds."""
        return at_s + self.error_s + (at_s - self._ref_s) * self._drift_ppm // 1_000_000

    def instant(self, believed_s: int) -> int:
        """The instant at which it shows `believed_s`."""
        at_s = believed_s - self.error_s
        for _ in range(3 if self._drift_ppm else 0):
            at_s = believed_s - self.error_s - (at_s - self._ref_s) * self._drift_ppm // 1_000_000
        return at_s

    def set(self, at_s: int, believed_s: int) -> None:
        """Let it show `believed_s` at `at_s`; what is already recorded is taken by the new setting too."""
        self.error_s += believed_s - self.believed(at_s)

    def face(self, believed_s: int) -> datetime:
        """Local civil time."""
        return datetime.fromtimestamp(believed_s, self._zone)

    def standard_offset_s(self, believed_s: int) -> int:
        """Local standard time minus UTC."""
        face = self.face(believed_s)
        return int(((face.utcoffset() or timedelta()) - (face.dst() or timedelta())).total_seconds())

    def midnight(self, day: date) -> int:
        """Believed seconds of a local midnight."""
        return int(datetime(day.year, day.month, day.day, tzinfo=self._zone).timestamp())

    def of_face(self, face: datetime) -> int:
        """Believed seconds of a naive local time."""
        return int(face.replace(tzinfo=self._zone).timestamp())

    def deviation(self, believed_s: int) -> int:
        """The deviation it sends, in minutes: UTC minus local, unless it is odd."""
        if self._deviation == "unspecified":
            return -_UNSPECIFIED
        minutes = int((self.face(believed_s).utcoffset() or timedelta()).total_seconds()) // 60
        return minutes if self._deviation == "reversed" else -minutes

    def encode(self, believed_s: int) -> bytes:
        """The 12 bytes of a date-time."""
        face = self.face(believed_s)
        raw = face.year.to_bytes(2, "big") + bytes((face.month, face.day, face.isoweekday()))
        raw += bytes((face.hour, face.minute, face.second, self._hundredths)) + self.deviation(believed_s).to_bytes(
            2, "big", signed=True
        )
        return raw + bytes((self.status | _DST_BIT * bool(face.dst()),))

    def decode(self, raw: bytes, times: str = "as-said") -> int:
        """Believed seconds of a date-time. times: `local` and `utc` ignore its deviation. Malformed if it is none."""
        face, deviation = read_time(raw)
        if times == "utc":
            return int(face.replace(tzinfo=UTC).timestamp())
        if times == "local" or deviation is None:
            return self.of_face(face)
        if self._deviation == "reversed":
            deviation = -deviation
        return int(face.replace(tzinfo=UTC).timestamp()) + deviation * 60


def read_time(raw: bytes) -> tuple[datetime, int | None]:
    """Naive civil time and deviation in minutes, None if unspecified. FF in the time counts as 0."""
    if len(raw) != 12:
        raise Malformed("a date-time has 12 bytes")
    hour, minute, second = (0 if byte == 0xFF else byte for byte in raw[5:8])
    try:
        face = datetime(int.from_bytes(raw[:2], "big"), raw[2], raw[3], hour, minute, second)  # noqa: DTZ001
    except ValueError:
        raise Malformed("no date-time") from None
    deviation = int.from_bytes(raw[9:11], "big", signed=True)
    return face, None if deviation == -_UNSPECIFIED else deviation
