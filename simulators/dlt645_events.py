"""Event records of a DL/T 645-2007 meter (group 03): how often, and the last ten of each kind.

Record lengths and the order of fields follow the standard's table A.4 as public masters and meters have it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from simulators.dlt645_frame import bcd
from simulators.dlt645_memory import second_bytes
from simulators.dlt645_spec import ERR_NO_DATA, ERR_OTHER, Refused
from simulators.household import Register

__all__ = ["HAPPENINGS", "KINDS", "Event", "EventLog"]

_KEPT = 10
_NOTHING = b"\xff" * 4

# DI3..DI1 of each kind.
KINDS = {
    "power_loss": 0x031100,
    "programming": 0x033000,
    "meter_clear": 0x033001,
    "demand_clear": 0x033002,
    "event_clear": 0x033003,
    "time_set": 0x033004,
    "settlement_days": 0x03300C,
    "cover_open": 0x03300D,
    "terminal_cover_open": 0x03300E,
}
HAPPENINGS = ("power_loss", "cover_open", "terminal_cover_open")  # what befalls a meter; the rest is done to it
_NAMES = {group: name for name, group in KINDS.items()}
_LASTING = frozenset({"event_clear", "meter_clear"})  # no clear takes these away


@dataclass(frozen=True, slots=True)
class Event:
    """kind: one of KINDS. start_s, end_s: epoch seconds, end_s None while it lasts. operator: four bytes as received.
    detail: what the record says beside times and operator."""

    kind: str
    start_s: int
    end_s: int | None = None
    operator: bytes = bytes(4)
    detail: bytes = b""


class EventLog:
    """The events of one meter. local: its clock face at an instant; register: what it counts, reactive energy
    `percent` of it."""

    def __init__(self, local: Callable[[int], int], register: Callable[[], Register], percent: int = 30) -> None:
        self._local = local
        self._percent = percent
        self._register = register
        self._events: list[Event] = []

    def add(self, event: Event) -> None:
        """Note an event, past or to come."""
        self._events.append(event)

    def dark(self, at_s: int) -> bool:
        """Whether the meter has no supply at `at_s`."""
        return any(
            event.kind == "power_loss" and event.start_s <= at_s and (event.end_s is None or at_s < event.end_s)
            for event in self._events
        )

    def clear(self, di: int, at_s: int) -> None:
        """Forget all events up to `at_s` (FFFFFFFF), or those of the kind that `di` (its DI0 FF) names."""
        if di == 0xFFFFFFFF:
            gone = frozenset(KINDS) - _LASTING
        else:
            kind = _NAMES.get(di >> 8, "")
            if di & 0xFF != 0xFF or not kind or kind in _LASTING:
                raise Refused(ERR_OTHER)
            gone = frozenset({kind})
        self._events = [event for event in self._events if event.kind not in gone or event.start_s > at_s]

    def read(self, di: int, at_s: int) -> bytes:
        """03 .. .. nn: the count for nn 00 (three bytes), else the nn-th last record."""
        kind, n = _NAMES.get(di >> 8, ""), di & 0xFF
        if not kind or n > _KEPT:
            raise Refused(ERR_NO_DATA)
        begun = [event for event in reversed(self._events) if event.kind == kind and event.start_s <= at_s]
        happened = sorted(begun, key=lambda event: -event.start_s)
        if n == 0:
            return bcd(len(happened), 3)
        if n > len(happened):
            raise Refused(ERR_NO_DATA)
        return self._record(happened[n - 1], at_s)

    def _record(self, event: Event, at_s: int) -> bytes:
        start = self._time(event.start_s)
        if event.kind in HAPPENINGS:
            over = event.end_s is not None and event.end_s <= at_s
            times = start + (self._time(event.end_s or 0) if over else bytes(6))
            if event.kind == "power_loss":
                return times
            return times + self._energies(event.start_s) + (self._energies(event.end_s or 0) if over else bytes(24))
        if event.kind == "time_set":
            return event.operator + event.detail
        return start + event.operator + event.detail

    def _time(self, at_s: int) -> bytes:
        return second_bytes(self._local(at_s))

    def _energies(self, at_s: int) -> bytes:
        """Forward, reverse and the four reactive quadrants."""
        shown = self._register().shown(at_s)
        return bcd(shown, 4) + bytes(4) + bcd(shown * self._percent // 100, 4) + bytes(12)


def programmed(di: bytes) -> bytes:
    """The ten identifiers of a programming record: the one written, and nine that were not."""
    return di + _NOTHING * 9
