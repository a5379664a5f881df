"""Profiles of a meter (class 7): load, daily, billing, events. Rows are worked out from the truth when asked."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

from simulators import dlms_axdr as axdr
from simulators.dlms_axdr import Malformed, Value
from simulators.dlms_spec import DlmsQuirks

if TYPE_CHECKING:
    from simulators.dlms_meter import DlmsMeter

__all__ = ["CLOCK", "EVENT_CODE", "STATUS", "NoSelection", "Profile", "profiles_of"]

CLOCK, STATUS, EVENT_CODE = "0.0.1.0.0.255", "0.0.96.10.1.255", "0.0.96.11.0.255"
_COLUMN_CLASS = {CLOCK: 8, STATUS: 1, EVENT_CODE: 1}
DAY_S = 86_400


class NoSelection(Exception):
    """This profile can't be asked so; the data-access-result."""

    def __init__(self, result: int) -> None:
        super().__init__(result)
        self.result = result


@dataclass(frozen=True, slots=True)
class Profile:
    """times: keys of all rows held, ascending; a key is the believed second of its row, or `when` tells it. cell: what
    stands in a column of that row, as it is encoded. period_s: capture period, 0 when something else decides."""

    obis: str
    columns: tuple[str, ...]
    period_s: int
    depth: int
    times: Callable[[], Sequence[int]]
    cell: Callable[[int, str], bytes]
    when: Callable[[int], int] = int

    def capture_objects(self, wanted: Sequence[int] | None = None) -> bytes:
        """Attribute 3."""
        chosen = self.columns if wanted is None else [self.columns[k] for k in wanted]
        return axdr.array(_descriptor(name) for name in chosen)

    def rows(self, times: Sequence[int], quirks: DlmsQuirks, wanted: Sequence[int] | None = None) -> bytes:
        """The buffer: an array of structures."""
        columns = self.columns if wanted is None else [self.columns[k] for k in wanted]
        before: list[bytes] = []
        rows = []
        for number, at in enumerate(times):
            cells = [self.cell(at, name) for name in columns]
            shown = cells
            if quirks.null_rows and number:
                shown = [
                    b"\x00" if (name == CLOCK and self.period_s) or cell == old else cell
                    for name, cell, old in zip(columns, cells, before, strict=True)
                ]
            rows.append(axdr.structure(*shown))
            before = cells
        return axdr.array(rows)

    def select(self, meter: DlmsMeter, selector: int, value: Value) -> bytes:
        """The buffer by a selective access descriptor: 1 range, 2 entries. NoSelection, Malformed."""
        quirks = meter.spec.quirks
        if quirks.selective == "ignore":
            return self.rows(self.times(), quirks)
        refused = {"refuse": (1, 2), "none": (1, 2), "range-only": (2,), "entry-only": (1,)}.get(quirks.selective, ())
        if selector in refused or selector not in (1, 2):
            raise NoSelection(13)
        if value[0] != 2 or len(value[1]) != 4:
            raise NoSelection(12)
        if selector == 1:
            return self._by_range(meter, value[1])
        return self._by_entry(value[1], quirks)

    def _by_range(self, meter: DlmsMeter, items: list[Value]) -> bytes:
        restricting, first, last, selected = items
        name = _described(restricting)
        if name not in self.columns and name != CLOCK:
            raise NoSelection(13)
        times = self.times()
        if name == CLOCK:
            low, high = meter.range_time(first), meter.range_time(last)
            times = times[bisect_left(times, low, key=self.when) : bisect_right(times, high, key=self.when)]
        else:
            times = [at for at in times if first[1] <= _number(self.cell(at, name)) <= last[1]]
        return self.rows(times, meter.spec.quirks, self._wanted(selected))

    def _wanted(self, selected: Value) -> list[int] | None:
        """Which columns; None for all."""
        if selected[0] != 1:
            raise NoSelection(12)
        names = [_described(item) for item in selected[1]]
        if any(name not in self.columns for name in names):
            raise NoSelection(13)
        return [k for k, column in enumerate(self.columns) if column in names] if names else None

    def _by_entry(self, items: list[Value], quirks: DlmsQuirks) -> bytes:
        """Entries and columns count from 1; 0 as the end is the last there is."""
        first, last, from_column, to_column = (item[1] for item in items)
        if not isinstance(first, int) or not isinstance(to_column, int) or first < 1:
            raise NoSelection(12)
        times = self.times()
        times = times[first - 1 : last or len(times)]
        columns = range(max(from_column, 1) - 1, min(to_column or len(self.columns), len(self.columns)))
        return self.rows(times, quirks, list(columns))


def _descriptor(name: str) -> bytes:
    return axdr.structure(axdr.u16(_COLUMN_CLASS.get(name, 3)), axdr.octets(axdr.obis(name)), axdr.i8(2), axdr.u16(0))


def _described(value: Value) -> str:
    """The OBIS of a capture object definition."""
    if value[0] != 2 or len(value[1]) != 4 or value[1][1][0] != 9:
        raise NoSelection(12)
    return axdr.obis_text(value[1][1][1])


def _number(cell: bytes) -> int:
    value, _ = axdr.decode(cell)
    if not isinstance(value[1], int):
        raise Malformed("no number")
    return value[1]


def profiles_of(meter: DlmsMeter) -> dict[str, Profile]:
    """The load profile, the daily and the billing profile and the standard event log of a meter."""
    spec = meter.spec
    step_s = spec.step_min * 60
    energies = ("1.0.1.8.0.255", "1.0.1.8.1.255", "1.0.1.8.2.255", "1.0.1.8.3.255", "1.0.1.8.4.255", "1.0.2.8.0.255")
    made = (
        Profile(
            "1.0.99.1.0.255", spec.columns, step_s, spec.memory_days * DAY_S // step_s, lambda: _grid(meter), meter.cell
        ),
        Profile("1.0.99.2.0.255", spec.daily_columns, DAY_S, spec.daily_days, lambda: _midnights(meter), meter.cell),
        Profile(
            "0.0.98.1.0.255", (CLOCK, STATUS, *energies), 0, spec.billing_months, lambda: _months(meter), meter.cell
        ),
        Profile(
            "0.0.99.98.0.255",
            (CLOCK, EVENT_CODE),
            0,
            max(len(meter.events), 100),
            lambda: range(len(meter.events)),
            meter.event_cell,
            meter.event_time,
        ),
    )
    return {profile.obis: profile for profile in made}


def _grid(meter: DlmsMeter) -> Sequence[int]:
    """Every step by the local standard clock, from the oldest held to now."""
    step_s = meter.spec.step_min * 60
    now = meter.clock.believed(meter.now_s())
    offset = meter.clock.standard_offset_s(now)
    last = (now + offset) // step_s * step_s - offset
    depth = meter.spec.memory_days * DAY_S // step_s
    installed = meter.installed_believed_s()
    first = max(last - (depth - 1) * step_s, -(-(installed + offset) // step_s) * step_s - offset)
    return meter.held(range(first, last + 1, step_s))


def _midnights(meter: DlmsMeter) -> list[int]:
    today = meter.clock.face(meter.clock.believed(meter.now_s())).date()
    days = (today - timedelta(days=back) for back in range(meter.spec.daily_days - 1, -1, -1))
    installed = meter.installed_believed_s()
    return [at for at in map(meter.clock.midnight, days) if at >= installed]


def _months(meter: DlmsMeter) -> list[int]:
    today = meter.clock.face(meter.clock.believed(meter.now_s())).date()
    month = today.year * 12 + today.month - 1
    firsts = (date((month - k) // 12, (month - k) % 12 + 1, 1) for k in range(meter.spec.billing_months - 1, -1, -1))
    installed = meter.installed_believed_s()
    return [at for at in map(meter.clock.midnight, firsts) if at >= installed]
