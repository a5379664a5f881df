"""What a DL/T 645-2007 meter keeps: its clock, curves, load records, daily freezes, settlements, demand maximum.

All of it is worked out from the register's truth when asked; a day's curve is encoded once and kept. Instants of the
meter are `local` seconds: its own clock face counted as if it were UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from simulators.dlt645_frame import bcd
from simulators.household import DAY_S, Register

__all__ = ["MeterClock", "MeterMemory", "face", "minute_bytes", "read_face", "read_second", "second_bytes"]

_DEMAND_S = 900
_CACHED_DAYS = 80
_MONTHLY = b"\x00\x00\x01\x99"  # mm hh DD MM of a freeze command: on the 1st of every month at 00:00


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


def second_bytes(local_s: int) -> bytes:
    """ss mm hh DD MM YY, as on the wire."""
    return bytes.fromhex(face(local_s).strftime("%S%M%H%d%m%y"))


def read_second(raw: bytes) -> int:
    """Local seconds of the wire bytes ss mm hh DD MM YY; ValueError when they are no time."""
    if len(raw) != 6 or raw[0] & 0x0F > 9 or raw[0] > 0x59:
        raise ValueError("no time")
    return read_face(raw[1:]) + int(f"{raw[0]:02x}")


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
    """Curves and freezes of one register under one clock.

    settlement_days: day and hour of the month, each a settlement; those of the past are taken by them too.
    """

    def __init__(
        self,
        register: Register,
        clock: MeterClock,
        *,
        step_s: int,
        depth_days: int,
        freeze_days: int,
        reactive_percent: int = 30,
    ) -> None:
        self.register = register
        self.clock = clock
        self.step_s = step_s
        self.depth_days = depth_days
        self.freeze_days = freeze_days
        self.reactive_percent = reactive_percent
        self.settlement_days: tuple[tuple[int, int], ...] = ((1, 0),)
        self.instants: list[int] = []  # of freezes on command, epoch seconds, newest first
        self._timed: list[tuple[int, bytes]] = [(0, _MONTHLY)]  # since which local second, which pattern; newest first
        self._cleared_s: int | None = None
        self._demand_cleared_s: int | None = None
        self._curves: dict[tuple[str, int], bytes] = {}
        self._demand: dict[int, tuple[int, int]] = {}

    @property
    def installed_local_s(self) -> int:
        """The clock face when the meter began to count, or was cleared."""
        load = self.register.household.load
        installed = load.installed_day * DAY_S - load.offset_s + self.clock.zone_offset_s
        return installed if self._cleared_s is None else max(installed, self.clock.local(self._cleared_s))

    def clear(self, at_s: int) -> None:
        """Forget everything and count from zero, from `at_s` on."""
        self.register = self.register.cleared(at_s)
        self._cleared_s = at_s
        self._curves.clear()
        self._demand.clear()
        self.instants.clear()

    def clear_demand(self, at_s: int) -> None:
        """Look for the highest demand anew from `at_s` on."""
        self._demand_cleared_s = at_s
        self._demand.clear()

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
            known = self._curves[kind, day] = _ENCODERS[kind](values, grid, self.reactive_percent)
        return known

    def freeze_local_s(self, n: int, now_s: int) -> int | None:
        """The midnight of the n-th last daily freeze by the meter's clock; None if it holds none."""
        local = self.clock.local(now_s)
        midnight = local - local % DAY_S - (n - 1) * DAY_S
        return midnight if 1 <= n <= self.freeze_days and midnight >= self.installed_local_s else None

    def hour_local_s(self, n: int, now_s: int) -> int | None:
        """The n-th last full hour by the meter's clock; None if it holds none."""
        local = self.clock.local(now_s)
        hour = local - local % 3600 - (n - 1) * 3600
        return hour if 1 <= n <= 254 and hour >= self.installed_local_s else None

    def freeze_when(self, pattern: bytes, now_s: int) -> bool:
        """Take a freeze command (mm hh DD MM, 99 for every): now, or from now on. False if it means nothing."""
        if pattern == b"\x99" * 4:
            self.instants = [now_s, *self.instants][:3]
            return True
        local = self.clock.local(now_s)
        if pattern[3] != 0x99 or next(_timed_back(pattern, local, 0), None) is None:
            return False
        self._timed.insert(0, (local, pattern))
        return True

    def timed_local_s(self, n: int, now_s: int) -> int | None:
        """The n-th last timed freeze, at most the twelfth; None if there is none."""
        left, until = n, self.clock.local(now_s)
        for since, pattern in self._timed if 1 <= n <= 12 else ():
            first = max(since + 1, self.installed_local_s)
            for at in _timed_back(pattern, until, first):
                left -= 1
                if left == 0:
                    return at
            until = since
        return None

    def settlement_local_s(self, n: int, now_s: int) -> int | None:
        """The n-th last settlement by the meter's clock; None before installation."""
        local, left = self.clock.local(now_s), n
        today = face(local)
        days = sorted(self.settlement_days, reverse=True)
        for back in range(n + 2 if days else 0):
            month = today.year * 12 + today.month - 1 - back
            for day, hour in days:
                at = int(datetime(month // 12, month % 12 + 1, day, hour, tzinfo=UTC).timestamp())
                left -= at <= local
                if left == 0:
                    return at if at >= self.installed_local_s else None
        return None

    def demand(self, now_s: int) -> tuple[int, int]:
        """Highest mean power (0.0001 kW) over 15 minutes since the 1st or the last clear, and the local second its
        block ended; both 0 if none yet."""
        local = self.clock.local(now_s)
        start = int(face(local).replace(day=1, hour=0, minute=0, second=0).timestamp())
        if self._demand_cleared_s is not None:
            start = max(start, self.clock.local(self._demand_cleared_s))
        first = -(-max(start, self.installed_local_s) // _DEMAND_S) * _DEMAND_S
        last = local // _DEMAND_S * _DEMAND_S
        best = (0, 0)
        for day in range(first // DAY_S, local // DAY_S + 1):
            begin, end = max(day * DAY_S, first), min((day + 1) * DAY_S, last)
            if end - begin == DAY_S:
                if day not in self._demand:
                    self._demand[day] = self._highest(begin, end)
                found = self._demand[day]
            else:
                found = self._highest(begin, end)
            best = max(best, found, key=lambda item: item[0])
        return best

    def settled_demand(self, n: int, now_s: int) -> tuple[int, int]:
        """As `demand`, of the time up to the n-th last settlement and since the one before; both 0 if there is none."""
        end = self.settlement_local_s(n, now_s)
        if end is None:
            return (0, 0)
        start = max(self.settlement_local_s(n + 1, now_s) or 0, self.installed_local_s)
        if self._demand_cleared_s is not None:
            start = max(start, self.clock.local(self._demand_cleared_s))
        return self._highest(-(-start // _DEMAND_S) * _DEMAND_S, end)

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


def _timed_back(pattern: bytes, until_s: int, first_s: int) -> Iterator[int]:
    """The local seconds at which `pattern` (mm hh DD 99) freezes, from `until_s` back to `first_s`; none if it is no
    pattern."""
    minute, hour, day = (int(f"{byte:02x}") if byte & 0x0F < 10 and byte < 0xA0 else 60 for byte in pattern[:3])
    if minute > 59 or not (hour < 24 or hour == day == 99) or not (1 <= day <= 28 or day == 99):
        return
    if day != 99:
        now = face(until_s)
        for month in range(now.year * 12 + now.month - 1, 0, -1):
            at = int(datetime(month // 12, month % 12 + 1, day, hour, minute, tzinfo=UTC).timestamp())
            if at < first_s:
                return
            if at <= until_s:
                yield at
        return
    step = DAY_S if hour != 99 else 3600
    offset = (hour * 3600 if hour != 99 else 0) + minute * 60
    yield from range((until_s - offset) // step * step + offset, first_s - 1, -step)


def _totals(values: list[int], _grid: range, _percent: int) -> bytes:
    return bytes.fromhex("".join([f"{value:08d}" for value in reversed(values)]))[::-1]


def _zeros(values: list[int], _grid: range, _percent: int) -> bytes:
    return bytes(4 * len(values))


def _four(value: int, percent: int) -> bytes:
    """Forward, reverse, combined reactive 1 and 2: a plain load, its reactive energy so many percent of the active."""
    return bcd(value, 4) + bytes(4) + bcd(value * percent // 100, 4) + bytes(4)


def _fours(values: list[int], _grid: range, percent: int) -> bytes:
    return b"".join([_four(value, percent) for value in values])


def _records(values: list[int], grid: range, percent: int) -> bytes:
    """Appendix B: A0 A0, length, time, classes 1 to 6 each ended by AA (only class 4 is stored), sum, E5."""
    blocks = []
    for value, local_s in zip(values, grid, strict=True):
        inner = minute_bytes(local_s) + b"\xaa\xaa\xaa" + _four(value, percent) + b"\xaa\xaa\xaa"
        block = b"\xa0\xa0" + bytes((len(inner),)) + inner
        blocks.append(block + bytes((sum(block) & 0xFF, 0xE5)))
    return b"".join(blocks)


_POINT_BYTES = {"forward": 4, "reverse": 4, "block": 16, "record": 32}
_ENCODERS: dict[str, Callable[[list[int], range, int], bytes]] = {
    "forward": _totals,
    "reverse": _zeros,
    "block": _fours,
    "record": _records,
}
