"""A DLMS/COSEM meter: a household's truth, a clock, a relay, counters. What it says of them: dlms_objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from hashlib import shake_128
from random import Random

from simulators import dlms_axdr as axdr
from simulators.clock import Now
from simulators.dlms_axdr import Malformed, Value
from simulators.dlms_clock import DlmsClock, read_time
from simulators.dlms_profile import CLOCK, EVENT_CODE, STATUS, NoSelection, Profile, profiles_of
from simulators.dlms_spec import DlmsSpec
from simulators.household import DAY_S, Household, Register

__all__ = ["CLOCK_NEW", "CLOCK_OLD", "CONNECTED", "DISCONNECTED", "DlmsMeter"]

CLOCK_OLD, CLOCK_NEW, DISCONNECTED, CONNECTED = 4, 5, 62, 63  # codes of the standard event log
_READY = 2


class DlmsMeter:
    """One physical device. `heard` counts what reached it, by step.

    register: the truth it counts; `export` the one of what flows back, if any.
    """

    def __init__(
        self, spec: DlmsSpec, register: Register | Household, now: Now, *, export: Register | None = None
    ) -> None:
        self.spec = spec
        self.register = register if isinstance(register, Register) else Register(register)
        self.export = export
        self.now = now
        self.clock = DlmsClock(spec, int(now()))
        self.title = spec.system_title()
        self.counter = spec.first_counter
        self.seen: dict[int, int] = dict(spec.client_counters)  # SAP and the last counter it has seen
        self.events: list[tuple[int, int]] = []  # instant and code, ascending
        self.fixed: dict[str, bytes] = {}
        self.added: dict[str, tuple[int, int, int]] = {}  # OBIS of an object of ours, its class, scaler, unit
        self.control_state = 1  # of the disconnect control: 0 off, 1 on, 2 ready for reconnection
        self.output_on = True
        self.control_mode = spec.control_mode
        self.message = b""  # to the customer, 0.0.96.13.0.255
        self.image: dict[int, bytes] = {}
        self.heard: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._spans: list[tuple[int, int, int | None]] = []
        self._challenges = 0
        self._random = Random(spec.serial)
        self.profiles: dict[str, Profile] = profiles_of(self)

    # -- for whoever runs the meter --------------------------------------------------------------------------------

    def set_value(self, obis: str, encoded: bytes) -> None:
        """From now on attribute 2 of `obis` is this A-XDR value, whatever is true."""
        self.fixed[obis] = encoded

    def add_object(self, obis: str, encoded: bytes, *, class_id: int = 1, scaler: int = 0, unit: int = 255) -> None:
        """Give it an object it lacks: data (1) or a register (3) with this A-XDR value."""
        self.added[obis] = (class_id, scaler, unit)
        self.fixed[obis] = encoded

    def happen(self, code: int, at_s: int | None = None) -> None:
        """An entry in the standard event log, now or at the instant `at_s`."""
        self.events.append((self.now_s() if at_s is None else at_s, code))
        self.events.sort(key=lambda event: event[0])

    def lose_rows(self, start_s: int, end_s: int) -> None:
        """The load profile has no rows from the instant `start_s` to before `end_s`."""
        self._spans.append((start_s, end_s, None))

    def mark_rows(self, start_s: int, end_s: int, status: int) -> None:
        """Rows from the instant `start_s` to before `end_s` carry this status."""
        self._spans.append((start_s, end_s, status))

    # -- for its objects -------------------------------------------------------------------------------------------

    def now_s(self) -> int:
        """The instant."""
        return int(self.now())

    def next_counter(self) -> int:
        """Its invocation counter for one APDU."""
        value = self.counter
        if not self.spec.quirks.counter_stuck:
            self.counter += 1
        return value

    def challenge(self) -> bytes:
        """Its next challenge."""
        self._challenges += 1
        seed = f"{self.spec.serial}:{self._challenges}:{self.now_s()}".encode()
        return shake_128(seed).digest(self.spec.quirks.challenge_bytes)

    def noise(self) -> bytes:
        """Bytes that mean nothing."""
        return b"\x55" + self._random.randbytes(11)

    def fails(self, step: str) -> str:
        """Count a step, and say how it fails: one of FAIL_HOW, empty if it works."""
        self.heard[step] += 1
        quirks = self.spec.quirks
        if quirks.fail_at != step or self.heard[step] <= quirks.fail_after:
            return ""
        if quirks.fail_times and self.failed[step] >= quirks.fail_times:
            return ""
        self.failed[step] += 1
        return quirks.fail_how

    def installed_believed_s(self) -> int:
        """When it began to count, by its clock."""
        load = self.register.household.load
        return self.clock.believed(load.installed_day * DAY_S - load.offset_s)

    def energy(self, units: int) -> int:
        """Units of 0.0001 kWh as its counters show them: by the scaler, truncated, rolled over."""
        power = -self.spec.scaler - 1
        shown = units * 10 ** max(power, 0) // 10 ** max(-power, 0)
        return int(shown % 10**self.spec.digits)

    def imported(self, at_s: int, rate: int = 0) -> int:
        """The import counter, of a rate or all."""
        register = self.register
        return self.energy(register.units_rates(at_s)[rate - 1] if rate else register.units(at_s))

    def exported(self, at_s: int) -> int:
        """The export counter."""
        return self.energy(self.export.units(at_s)) if self.export else 0

    # -- profiles --------------------------------------------------------------------------------------------------

    def held(self, times: range) -> Sequence[int]:
        """Which rows of these believed seconds there are."""
        gaps = [(start, end) for start, end, status in self._spans if status is None]
        if not gaps:
            return times
        at = self.clock.instant
        return [time for time in times if not any(start <= at(time) < end for start, end in gaps)]

    def cell(self, time: int, column: str) -> bytes:
        """What a row of the believed second `time` holds in a column."""
        at_s = self.clock.instant(time)
        if column == CLOCK:
            return self.time_cell(time)
        if column == STATUS:
            return axdr.u8(
                next((bits for start, end, bits in self._spans if bits is not None and start <= at_s < end), 0)
            )
        if column == "1.0.2.8.0.255":
            return axdr.u32(self.exported(at_s))
        if column.startswith("1.0.1.8."):
            return axdr.u32(self.imported(at_s, int(column.split(".")[4])))
        raise NoSelection(4)

    def time_cell(self, time: int) -> bytes:
        """A believed second as rows hold it."""
        tag = self.spec.quirks.time_tag
        if tag == "unix":
            return axdr.u32(time)
        raw = self.clock.encode(time)
        return axdr.date_time(raw) if tag == "date-time" else axdr.octets(raw)

    def event_time(self, key: int) -> int:
        """When an event was, by its clock."""
        return self.clock.believed(self.events[key][0])

    def event_cell(self, key: int, column: str) -> bytes:
        """A column of the event log."""
        return axdr.u8(self.events[key][1]) if column == EVENT_CODE else self.time_cell(self.event_time(key))

    def range_time(self, value: Value) -> int:
        """Believed seconds of an end of a range. NoSelection, Malformed."""
        quirks = self.spec.quirks
        tag, raw = value
        if tag == 6 and quirks.time_tag == "unix":
            return int(raw)
        if tag not in (9, 25):
            raise NoSelection(12)
        try:
            said = read_time(raw)[1]
        except Malformed:
            raise NoSelection(12) from None
        if (said is None and quirks.range_deviation == "required") or (
            said is not None and quirks.range_deviation == "refused"
        ):
            raise NoSelection(13)
        return self.clock.decode(raw, quirks.range_times)

    # -- clock and relay -------------------------------------------------------------------------------------------

    def set_clock(self, believed_s: int) -> None:
        """Set the clock, and log it by the old time and the new."""
        at_s = self.now_s()
        self.happen(CLOCK_OLD)
        self.clock.set(at_s, believed_s)
        self.happen(CLOCK_NEW)

    def disconnect(self) -> bool:
        """Remote disconnection. False when its control mode has none."""
        if self.control_mode == 0:
            return False
        self.control_state = 0
        self._move(False)
        self.happen(DISCONNECTED)
        return True

    def reconnect(self) -> bool:
        """Remote reconnection: at once in modes 2 and 4, by hand after it in the others. False when there is none."""
        if self.control_mode == 0:
            return False
        if self.control_mode not in (2, 4):
            self.control_state = 1 if self.control_state == 1 else _READY
            return True
        self.control_state = 1
        self._move(True)
        self.happen(CONNECTED)
        return True

    def press_button(self) -> None:
        """The customer's button: connects when it is ready."""
        if self.control_state == _READY:
            self.control_state = 1
            self._move(True)
            self.happen(61)

    def _move(self, on: bool) -> None:
        if self.spec.relay != "stuck":
            self.output_on = on
