"""What a DL/T 645-2007 meter keeps: its clock, curves, load records, daily freezes, settlements, demand maximum.

All of it is worked out from the register's truth when asked; a day's curve is encoded once and kept. Instants of the
meter are `local` seconds: its own clock face counted as if it were UTC.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from simulators.dlt645_frame import bcd
from simulators.household import DAY_S, Register

__all__ = ["MeterClock", "MeterMemory", "face", "read_face"]

_DEMAND_S = 900
_CACHED_DAYS = 80


def face(local_s: int) -> datetime:
    """The clock face at `local_s`: civil fields, no zone."""
    return datetime.fromtimestamp(local_s, UTC)


def minute_bytes(local_s: int) -> bytes:
    """mm hh DD MM YY, as on the wire."""
    return bytes.fromhex(face(local_s).strftime("%M%H%d%m%y"))


def read_face(raw: bytes) -> int:
    """Local seconds of the wire bytes mm hh DD MM YY; ValueError when they are no time."""
    minute, hour, day, month, year = (int(f"{byte:02x}") for byte in raw)
    return int(datetime(2000 + year, month, day, hour, minute, tzinfo=UTC).timestamp())


class MeterClock:
    """A meter's clock: fixed zone, a constant error and a drift that grows from the moment it is made."""

    def __init__(self, now_s: int, *, zone_offset_s: int, error_s: int, drift_ppm: int) -> None:
        self.zone_offset_s = zone_offset_s
        self.error_s = error_s
        self.drift_ppm = drift_ppm
        self._ref_s = now_s

    def _drift_s(self, at_s: int) -> int:
        return (at_s - self._ref_s) * self.drift_ppm // 1_000_000

    def local(self, at_s: int) -> int:
        """What the clock shows at the instant `at_s` (epoch seconds)."""
        return at_s + self.zone_offset_s + self.error_s + self._drift_s(at_s)

    def instant(self, local_s: int) -> int:
        """The instant at which the clock shows `local_s`."""
        straight = local_s - self.zone_offset_s - self.error_s
        if not self.drift_ppm:
            return straight
        at_s = straight
        for _ in range(3):
            at_s = straight - self._drift_s(at_s)
        return at_s

    def set(self, at_s: int, local_s: int) -> None:
        """Let the clock show `local_s` at `at_s`; what is already recorded is taken by the new setting too."""
        self.error_s += local_s - self.local(at_s)


class MeterMemory:
    """Curves and freezes of one register under one clock."""

    def __init__(
        self, register: Register, clock: MeterClock, *, step_s: int, depth_days: int, freeze_days: int
    ) -> None:
        self.register = register
        self.clock = clock
        self.step_s = step_s
        self.depth_days = depth_days
        self.freeze_days = freeze_days
        self._curves: dict[tuple[str, int], bytes] = {}
        self._demand: dict[int, tuple[int, int]] = {}

    @property
    def installed_local_s(self) -> int:
        """The clock face when the meter began to count."""
        load = self.register.household.load
        return load.installed_day * DAY_S - load.offset_s + self.clock.zone_offset_s

    def span(self, now_s: int) -> tuple[int, int]:
        """First and last grid point held at the instant `now_s`, in local seconds; first > last if none."""
        local = self.clock.local(now_s)
        oldest = max(local - self.depth_days * DAY_S, self.installed_local_s)
        return -(-oldest // self.step_s) * self.step_s, local // self.step_s * self.step_s

    def points(self, kind: str, first_s: int, count: int) -> list[bytes]:
        """`count` encoded points of curve `kind` from grid point `first_s` on."""
        size = _POINT_BYTES[kind]
        got: list[bytes] = []
        while len(got) < count:
            day, second = divmod(first_s + len(got) * self.step_s, DAY_S)
            encoded = self._day(kind, day)
            start = second // self.step_s * size
            stop = min(len(encoded), start + (count - len(got)) * size)
            got += [encoded[at : at + size] for at in range(start, stop, size)]
        return got

    def _day(self, kind: str, day: int) -> bytes:
        known = self._curves.get((kind, day))
        if known is None:
            if len(self._curves) >= _CACHED_DAYS:
                del self._curves[next(iter(self._curves))]
            grid = range(day * DAY_S, (day + 1) * DAY_S, self.step_s)
            values = self.register.shown_all([self.clock.instant(local) for local in grid])
            known = self._curves[kind, day] = _ENCODERS[kind](values, grid)
        return known

    def freeze_local_s(self, n: int, now_s: int) -> int | None:
        """The midnight of the n-th last daily freeze by the meter's clock; None if it holds none."""
        local = self.clock.local(now_s)
        midnight = local - local % DAY_S - (n - 1) * DAY_S
        return midnight if 1 <= n <= self.freeze_days and midnight >= self.installed_local_s else None

    def settlement_local_s(self, n: int, now_s: int) -> int | None:
        """The n-th last first of a month, 00:00, by the meter's clock; None before installation."""
        today = face(self.clock.local(now_s))
        months = today.year * 12 + today.month - n  # month of the settlement, counted from year 0, plus one
        first = datetime((months) // 12, months % 12 + 1, 1, tzinfo=UTC)
        local = int(first.timestamp())
        return local if local >= self.installed_local_s else None

    def demand(self, now_s: int) -> tuple[int, int]:
        """Highest mean power (0.0001 kW) over 15 minutes since the 1st, and the local second its block ended; both 0
        if none yet."""
        local = self.clock.local(now_s)
        start = int(face(local).replace(day=1, hour=0, minute=0, second=0).timestamp())
        last = local // _DEMAND_S * _DEMAND_S
        best = (0, 0)
        for day in range(max(start, self.installed_local_s) // DAY_S, local // DAY_S + 1):
            if (day + 1) * DAY_S <= last:
                if day not in self._demand:
                    self._demand[day] = self._highest(day * DAY_S, (day + 1) * DAY_S)
                found = self._demand[day]
            else:
                found = self._highest(day * DAY_S, last)
            best = max(best, found, key=lambda item: item[0])
        return best

    def _highest(self, start_s: int, end_s: int) -> tuple[int, int]:
        used = self.register.household.used_units
        best = (0, 0)
        before = used(self.clock.instant(start_s))
        for end in range(start_s + _DEMAND_S, end_s + 1, _DEMAND_S):
            after = used(self.clock.instant(end))
            if (after - before) * 4 > best[0]:
                best = ((after - before) * 4, end)
            before = after
        return best


def _totals(values: list[int], _grid: range) -> bytes:
    return bytes.fromhex("".join([f"{value:08d}" for value in reversed(values)]))[::-1]


def _zeros(values: list[int], _grid: range) -> bytes:
    return bytes(4 * len(values))


def _four(value: int) -> bytes:
    """Forward, reverse, combined reactive 1 and 2: a plain load, reactive three tenths of active."""
    return bcd(value, 4) + bytes(4) + bcd(value * 3 // 10, 4) + bytes(4)


def _fours(values: list[int], _grid: range) -> bytes:
    return b"".join([_four(value) for value in values])


def _records(values: list[int], grid: range) -> bytes:
    """Appendix B: A0 A0, length, time, classes 1 to 6 each ended by AA (only class 4 is stored), sum, E5."""
    blocks = []
    for value, local_s in zip(values, grid, strict=True):
        inner = minute_bytes(local_s) + b"\xaa\xaa\xaa" + _four(value) + b"\xaa\xaa\xaa"
        block = b"\xa0\xa0" + bytes((len(inner),)) + inner
        blocks.append(block + bytes((sum(block) & 0xFF, 0xE5)))
    return b"".join(blocks)


_POINT_BYTES = {"forward": 4, "reverse": 4, "block": 16, "record": 32}
_ENCODERS: dict[str, Callable[[list[int], range], bytes]] = {
    "forward": _totals,
    "reverse": _zeros,
    "block": _fours,
    "record": _records,
}
