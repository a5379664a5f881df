"""What a household, a shop or a heat-pump house uses: the ground truth, known at any instant, past or future.

Energy is counted in whole units of 0.0001 kWh. Each local day has a total (season, weekday, chance), and each
five-minute slot of it an exact share of that total (daily shape, noise, appliances); inside a slot energy runs
linearly, floored. All of it is a function of (seed, time) alone: a register asked twice says the same, and two
instants asked in any order differ by exactly what was used between them.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import shake_128
from itertools import accumulate
from operator import mul

__all__ = [
    "DAY_S",
    "KINDS",
    "PEAK_VALLEY",
    "SLOTS",
    "SLOT_S",
    "UNITS_PER_CENT",
    "WRAP_CENTS",
    "Household",
    "Load",
    "Register",
]

DAY_S = 86_400
SLOT_S = 300
SLOTS = DAY_S // SLOT_S
UNITS_PER_CENT = 100  # 0.0001 kWh in 0.01 kWh
WRAP_CENTS = 100_000_000  # the display rolls over at 1,000,000.00 kWh
PEAK_VALLEY = ((0, 4), (96, 2), (264, 4))  # (first slot, rate): valley, peak from 08:00, valley from 22:00

_UNIX_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_AWAY_PER_256 = 5  # days on which nobody is at home

# Relative load at each full hour, working day and free day; parts of 100 about the mean.
_SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "household": (
        (45, 40, 36, 35, 36, 48, 95, 130, 105, 75, 70, 82, 100, 85, 70, 70, 80, 110, 160, 190, 185, 160, 115, 70),
        (55, 46, 40, 38, 38, 42, 60, 90, 115, 120, 118, 125, 130, 115, 100, 98, 105, 125, 160, 185, 180, 160, 125, 80),
    ),
    "shop": (
        (25, 25, 25, 25, 25, 25, 30, 55, 120, 170, 180, 190, 200, 190, 180, 180, 185, 190, 195, 180, 150, 80, 35, 28),
        (25, 25, 25, 25, 25, 25, 28, 40, 95, 170, 195, 210, 215, 210, 205, 205, 205, 205, 210, 195, 165, 95, 38, 28),
    ),
    "heatpump": (
        (
            100,
            100,
            102,
            104,
            108,
            115,
            122,
            120,
            110,
            98,
            92,
            90,
            90,
            88,
            88,
            90,
            95,
            105,
            115,
            118,
            115,
            108,
            102,
            100,
        ),
        (
            100,
            100,
            101,
            102,
            105,
            110,
            115,
            118,
            112,
            104,
            98,
            95,
            94,
            92,
            92,
            94,
            98,
            106,
            115,
            118,
            115,
            108,
            102,
            100,
        ),
    ),
}
KINDS = tuple(_SHAPES)

# Monthly factor in thousandths, at mid-month.
_SEASONS: dict[str, tuple[int, ...]] = {
    "household": (1180, 1060, 880, 790, 800, 1000, 1350, 1400, 1050, 800, 830, 1090),
    "shop": (1020, 960, 930, 920, 970, 1060, 1150, 1150, 1050, 940, 920, 960),
    "heatpump": (1150, 1120, 1020, 900, 860, 920, 1080, 1100, 940, 880, 960, 1090),
}
_FREE_DAY: dict[str, int] = {"household": 1120, "shop": 1080, "heatpump": 1020}  # thousandths of a working day
_APPLIANCES: dict[str, int] = {"household": 5, "shop": 0, "heatpump": 2}  # switched on in a day, at most
_NOISE_FLOOR: dict[str, int] = {"household": 96, "shop": 176, "heatpump": 176}  # of 255: how far a slot may sink


@dataclass(frozen=True, slots=True)
class Load:
    """How much is used where.

    daily_wh: mean use of a day. installed_day: local day (days since 1970-01-01) on which the meter starts to count.
    removed_day: local day from which it no longer does. offset_s: local time minus UTC, the same all year. rates: day
    table of the time-of-use registers as (first slot, rate 1..4), ascending from slot 0.
    """

    seed: int
    kind: str = "household"
    daily_wh: int = 7_000
    installed_day: int = 19_723  # 2024-01-01
    offset_s: int = 28_800
    rates: tuple[tuple[int, int], ...] = PEAK_VALLEY
    removed_day: int | None = None


def _spread(hours: Sequence[int]) -> tuple[int, ...]:
    """Twelve slots per hour, on straight lines from one full hour to the next."""
    per_hour = SLOTS // 24
    return tuple(
        hours[hour] * (per_hour - k) + hours[(hour + 1) % 24] * k for hour in range(24) for k in range(per_hour)
    )


_SPREAD = {kind: (_spread(working), _spread(free)) for kind, (working, free) in _SHAPES.items()}
_NOISE = {kind: bytes(floor + (255 - floor) * b // 255 for b in range(256)) for kind, floor in _NOISE_FLOOR.items()}


def _season(kind: str, day: date) -> int:
    """Thousandths of the yearly mean, on straight lines between mid-months."""
    months = _SEASONS[kind]
    here = months[day.month - 1]
    past = day.day - 15
    if past >= 0:
        return here + (months[day.month % 12] - here) * past // 30
    return here + (months[day.month - 2] - here) * -past // 30


class Household:
    """The energy a load has used by any instant; days are worked out once and kept."""

    def __init__(self, load: Load) -> None:
        self.load = load
        shift = load.seed % 13 - 6  # nobody keeps the same hours: up to half an hour early or late
        self._shapes = tuple(shape[shift:] + shape[:shift] for shape in _SPREAD[load.kind])  # working day, free day
        self._totals = [0]  # units used before day i
        self._rate_totals: list[tuple[int, ...]] = [(0, 0, 0, 0)]
        self._curves: dict[int, array[int]] = {}
        self._edges = [*(slot for slot, _ in load.rates), SLOTS]

    # -- one day -------------------------------------------------------------------------------------------------

    def _bytes(self, what: str, day: int, count: int) -> bytes:
        return shake_128(f"{self.load.seed}:{what}:{day}".encode()).digest(count)

    def _day_total(self, day: int) -> int:
        """Units of local day `day` (days since installation)."""
        load = self.load
        absolute = load.installed_day + day
        if load.removed_day is not None and absolute >= load.removed_day:
            return 0
        chance = self._bytes("day", day, 3)
        total = load.daily_wh * 10 * _season(load.kind, date.fromordinal(_UNIX_EPOCH_ORDINAL + absolute)) // 1000
        total = total * (700 + 600 * int.from_bytes(chance[:2], "big") // 65_535) // 1000
        if _is_free(absolute):
            total = total * _FREE_DAY[load.kind] // 1000
        if load.kind == "household" and chance[2] < _AWAY_PER_256:
            total //= 4
        return total

    def _day_weights(self, day: int) -> list[int]:
        """Cumulative weights: entry k is the share of the day before slot k, the last one the whole."""
        kind = self.load.kind
        chance = self._bytes("slots", day, SLOTS + 20)
        shape = self._shapes[_is_free(self.load.installed_day + day)]
        weights = list(map(mul, shape, chance[:SLOTS].translate(_NOISE[kind])))
        if switched_on := _APPLIANCES[kind]:
            mean = sum(weights) // SLOTS
            for k in range(1 + chance[SLOTS] % switched_on):
                at, minutes, power = chance[SLOTS + 1 + 3 * k : SLOTS + 4 + 3 * k]
                extra = mean * (800 + 5 * power) * 24 // self.load.daily_wh  # 0.8 to 2.1 kW
                first = 72 + at * (SLOTS - 80) // 256  # not before six in the morning
                for slot in range(first, min(SLOTS, first + 1 + minutes // 32)):
                    weights[slot] += extra
        return [0, *accumulate(weights)]

    def curve(self, day: int) -> array[int]:
        """Units used from the start of the day to the start of each slot; SLOTS + 1 numbers."""
        curve = self._curves.get(day)
        if curve is None:
            if len(self._curves) >= 100:
                del self._curves[next(iter(self._curves))]
            total = self.before(day + 1) - self.before(day)
            weights = self._day_weights(day)
            whole = weights[-1]
            curve = self._curves[day] = array("I", [total * weight // whole for weight in weights])
        return curve

    # -- over days -----------------------------------------------------------------------------------------------

    def before(self, day: int) -> int:
        """Units used before day `day`."""
        totals = self._totals
        while len(totals) <= day:
            totals.append(totals[-1] + self._day_total(len(totals) - 1))
        return totals[day]

    def _rates_before(self, day: int) -> tuple[int, ...]:
        """Units used before day `day` in rates 1 to 4."""
        known = self._rate_totals
        while len(known) <= day:
            this = len(known) - 1
            total = self.before(this + 1) - self.before(this)
            weights = self._day_weights(this)
            at = [total * weights[edge] // weights[-1] for edge in self._edges]
            sums = list(known[-1])
            for k, (_, rate) in enumerate(self.load.rates):
                sums[rate - 1] += at[k + 1] - at[k]
            known.append((sums[0], sums[1], sums[2], sums[3]))
        return known[day]

    def place(self, at_s: int) -> tuple[int, int]:
        """Day since installation and second of the local day."""
        day, second = divmod(at_s + self.load.offset_s, DAY_S)
        return day - self.load.installed_day, second

    def _within(self, day: int, second: int) -> int:
        curve = self.curve(day)
        slot, rest = divmod(second, SLOT_S)
        base = curve[slot]
        return base + (curve[slot + 1] - base) * rest // SLOT_S if rest else base

    def used_units(self, at_s: int) -> int:
        """Units used from installation to the instant `at_s` (epoch seconds); 0 before."""
        day, second = self.place(at_s)
        if day < 0:
            return 0
        return self.before(day) + self._within(day, second)

    def rates_units(self, at_s: int) -> tuple[int, ...]:
        """The same by rate 1 to 4; they sum to `used_units` exactly."""
        day, second = self.place(at_s)
        if day < 0:
            return (0, 0, 0, 0)
        sums = list(self._rates_before(day))
        here = bisect_right(self._edges, second // SLOT_S) - 1
        curve = self.curve(day)
        for k, (slot, rate) in enumerate(self.load.rates[: here + 1]):
            end = self._within(day, second) if k == here else curve[self._edges[k + 1]]
            sums[rate - 1] += end - curve[slot]
        return tuple(sums)

    def power_units(self, at_s: int) -> int:
        """Power at the instant `at_s` in units of 0.0001 kW: that of its slot."""
        day, second = self.place(at_s)
        if day < 0:
            return 0
        curve = self.curve(day)
        slot = second // SLOT_S
        return (curve[slot + 1] - curve[slot]) * (3600 // SLOT_S)


def _is_free(absolute_day: int) -> bool:
    """Saturday or Sunday; 1970-01-01 was a Thursday."""
    return (absolute_day + 3) % 7 >= 5


@dataclass(frozen=True, slots=True)
class Register:
    """A meter's counters: what the household used on top of what they showed when installed (0.0001 kWh).
    rate_units: the same by rate 1 to 4 where it is known; else start_units is split over the rates in use."""

    household: Household
    start_units: int = 0
    rate_units: tuple[int, ...] | None = None

    def cleared(self, at_s: int) -> Register:
        """These counters after they were set to zero at `at_s`."""
        rates = tuple(-used for used in self.household.rates_units(at_s))
        return Register(self.household, -self.household.used_units(at_s), rates)

    def units(self, at_s: int) -> int:
        """The counter itself, in units of 0.0001 kWh; it does not roll over."""
        return self.start_units + self.household.used_units(at_s)

    def units_rates(self, at_s: int) -> tuple[int, ...]:
        """The counters of rates 1 to 4, in units of 0.0001 kWh."""
        start = self.rate_units or self._start_split()
        return tuple(a + b for a, b in zip(self.household.rates_units(at_s), start, strict=True))

    def shown(self, at_s: int) -> int:
        """Displayed total in 0.01 kWh: truncated, rolled over at 1,000,000.00."""
        return (self.start_units + self.household.used_units(at_s)) // UNITS_PER_CENT % WRAP_CENTS

    def shown_all(self, instants: Sequence[int]) -> list[int]:
        """`shown` at many instants; cheap where they lie on slot boundaries, as a meter's recording times mostly do."""
        household, start = self.household, self.start_units
        values: list[int] = []
        known, base = -1, 0
        curve: Sequence[int] = ()
        for at_s in instants:
            day, second = household.place(at_s)
            slot, rest = divmod(second, SLOT_S)
            if rest or day < 0:
                values.append(self.shown(at_s))
                continue
            if day != known:
                known, base, curve = day, start + household.before(day), household.curve(day)
            values.append((base + curve[slot]) // UNITS_PER_CENT % WRAP_CENTS)
        return values

    def shown_rates(self, at_s: int) -> tuple[int, ...]:
        """Displayed registers of rates 1 to 4 in 0.01 kWh."""
        used = self.household.rates_units(at_s)
        start = self.rate_units or self._start_split()
        return tuple((used[k] + start[k]) // UNITS_PER_CENT % WRAP_CENTS for k in range(4))

    def _start_split(self) -> tuple[int, ...]:
        rates = sorted({rate for _, rate in self.household.load.rates})
        share, rest = divmod(self.start_units, len(rates))
        return tuple(share + (rest if rate == rates[0] else 0) if rate in rates else 0 for rate in range(1, 5))
