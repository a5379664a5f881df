"""The nouns of acquisition, frozen. One word for one thing, the same in code, tables, docs, logs.

Times are aware UTC, spans half-open `[start, end)`. A `Reading` holds a `Decimal` in its quantity's unit; the store
holds the same number as an integer of ten-thousandths (`headend.quantities.to_units`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import IntEnum, StrEnum

__all__ = [
    "Cause",
    "CurveSpec",
    "EventRecord",
    "Fault",
    "FrameRecord",
    "Harvest",
    "Interval",
    "Meter",
    "MeterModel",
    "Outcome",
    "Priority",
    "Quality",
    "ReadJob",
    "ReadKind",
    "Reading",
    "SlotState",
    "Source",
    "Status",
    "SwitchState",
    "Window",
]


class Quality(IntEnum):
    """How far a value may be trusted. CIM IEC 61968-9 code beside each."""

    MISSING = 0  # 2.5.259 known missing read
    VALID = 1  # 3.0.0
    ESTIMATED = 2  # 3.8.x
    EDITED = 3  # 3.7.x
    SUSPECT = 4  # 3.5.x reasonability failed: kept with its frames, never billed


class Source(IntEnum):
    """Where in the meter a value comes from; decides how the store keeps it."""

    CURRENT = 1  # the register as it stands now
    CURVE = 2  # load profile: one value at each boundary of a regular grid
    DAILY_FREEZE = 3  # register frozen at the meter's local midnight
    SETTLEMENT = 4  # register frozen on the meter's settlement day
    TIMED_FREEZE = 6  # register frozen at a time set in the meter, monthly as a rule
    INSTANT = 5  # voltage, current, power and other momentary values


class SlotState(IntEnum):
    """State of one expected value in the completeness ledger. (In flight is the worker's, never stored.)"""

    NONE = 0  # not expected
    DUE = 1  # expected, not there; `Cause` says why not yet
    GOT = 2  # arrived within its deadline
    LATE = 3  # arrived after it (backfill)
    ESTIMATED = 4  # filled by estimation
    WAIVED = 5  # will never come, and why is known


class Cause(IntEnum):
    """Why a slot is not filled."""

    NONE = 0
    NOT_ASKED = 1  # its turn has not come
    NO_ANSWER = 2
    BAD_FRAME = 3
    WRONG_METER = 4
    REFUSED = 5
    LINE_DOWN = 6
    NOT_IN_MEMORY = 7  # the meter answered that it holds no such record
    NULL_VALUE = 8  # the meter marked the value as not there (all FF)
    IMPLAUSIBLE = 9  # a value came, but can't be true; kept as suspect
    UNSUPPORTED = 10
    EXPIRED = 12  # its deadline passed before its turn came
    NO_ACCESS = 13  # the meter did not let us in, or did not prove itself: password, key, counter, client
    NOT_YET = 11  # the meter has not recorded it yet (its clock is behind, or it was just due)


class Status(StrEnum):
    """How a job ended."""

    OK = "ok"
    PARTIAL = "partial"
    NO_ANSWER = "no answer"
    BAD_FRAME = "bad frame"
    WRONG_METER = "wrong meter"
    REFUSED = "refused"
    LINE_DOWN = "line down"
    NO_ACCESS = "no access"
    UNSUPPORTED = "unsupported"
    EXPIRED = "expired"  # never sent: its deadline passed before its turn came


class ReadKind(StrEnum):
    """What a job asks a meter for."""

    REGISTERS = "registers"  # current registers and momentary values, by quantity name
    CURVE = "curve"  # load profile over a window
    DAILY_FREEZE = "daily_freeze"  # frozen registers at the local midnights in a window
    TIMED_FREEZE = "timed_freeze"  # registers frozen at set times (monthly as a rule) in a window
    SETTLEMENT = "settlement"  # registers and demands frozen on the settlement days in a window
    CLOCK = "clock"
    EVENTS = "events"  # what the meter has recorded in a window: events with their times
    SAMPLE = "sample"  # current registers asked for at the boundaries of a grid, kept as a curve
    ESTIMATE = "estimate"  # nothing asked: points that will never come, computed from those beside them
    PUSH = "push"  # sent by the meter or a concentrator on its own


class Priority(IntEnum):
    """Lower runs first on a line."""

    CONTROL = 0
    ON_DEMAND = 1
    SCHEDULED = 2
    BACKFILL = 3


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open span `[start, end)` of UTC instants."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.utcoffset() != timedelta() or self.end.utcoffset() != timedelta():
            raise ValueError("a window's ends are aware UTC")
        if self.end < self.start:
            raise ValueError(f"window ends before it starts: {self.start} .. {self.end}")


@dataclass(frozen=True, slots=True)
class CurveSpec:
    """The load profile a meter model keeps.

    form: `0610` (curves of the SGCC supplement), `record` (DL/T 645-2007 appendix B), `profile` (COSEM profile generic)
    or `sample` (the meter keeps none: its registers are read at each boundary, and what is missed is gone).
    step_s: grid step in seconds. depth_days: how far back the memory reaches.
    quantities: names of what each point holds.
    """

    form: str
    step_s: int
    depth_days: int
    quantities: tuple[str, ...] = ("import_kwh",)


@dataclass(frozen=True, slots=True)
class MeterModel:
    """What meters of one type can do: `config/meters/NAME.toml`.

    register_wrap: where a cumulative register returns to 0, in its unit. max_power_kw: what the wiring can carry, for
    plausibility. rates: number of TOU registers. daily_freeze_depth: 0 if the meter has no daily freeze. resolution:
    the smallest step of its energy registers, kWh: totals and rates differ by as much. details: what its protocol must
    know beside, of that protocol's own type (`DlmsSettings`, `RegisterMap`); None if nothing.
    details_text: the same as it stands in the file, as JSON.
    """

    name: str
    protocol: str
    register_wrap: Decimal
    max_power_kw: Decimal
    rates: int = 4
    curve: CurveSpec | None = None
    daily_freeze_depth: int = 0
    details: object | None = None
    details_text: str = ""
    resolution: Decimal = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Meter:
    """CIM EndDevice. `key` is the store's surrogate; `id` the utility's asset number; `address` the protocol's.

    details: the model's, with what is particular to this meter.
    """

    key: int
    id: str
    address: str
    protocol: str
    line: str
    model: MeterModel
    clock_zone: str = "Asia/Shanghai"
    serial: str = ""  # speed and character format of its own on a serial line (`1200 8E1`); "" is the line's
    details: object | None = None


@dataclass(frozen=True, slots=True)
class ReadJob:
    """One thing to ask of one meter. `window` is for curves and freezes, `quantities` what is wanted."""

    meter: Meter
    kind: ReadKind
    quantities: tuple[str, ...]
    window: Window | None = None
    priority: Priority = Priority.SCHEDULED
    schedule: str = ""
    attempt: int = 1
    not_before: datetime | None = None
    deadline: datetime | None = None

    def over(self, at: datetime) -> bool:
        """Whether there is no time for another attempt after `at`."""
        return self.deadline is not None and at + timedelta(seconds=1) > self.deadline


@dataclass(frozen=True, slots=True)
class Reading:
    """CIM Reading: one value a meter gave.

    at: the instant the value holds for, by the meter (curve: the boundary; freeze: the frozen midnight; else when it
    was taken). taken_at: when we asked. step_s: grid step, curves only. occurred_at: when a demand maximum occurred.
    """

    quantity: str
    value: Decimal
    at: datetime
    taken_at: datetime
    source: Source
    step_s: int = 0
    quality: Quality = Quality.VALID
    occurred_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """Something asked for that did not come. `window` names the missing slots of a curve or freeze."""

    quantity: str
    cause: Cause
    detail: str
    window: Window | None = None


@dataclass(frozen=True, slots=True)
class EventRecord:
    """Something a meter recorded. at: when, by its clock. log: which of its logs. code: its own number; text: what that
    says, "" if the model does not tell."""

    at: datetime
    log: str
    code: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Harvest:
    """What a protocol's `read` returns: what came and what did not."""

    readings: tuple[Reading, ...] = ()
    faults: tuple[Fault, ...] = ()
    events: tuple[EventRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """Bytes as they went over the line: direction `>` sent, `<` received."""

    at: datetime
    direction: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one job ended: the parent of every reading in it. Append-only."""

    job: ReadJob
    status: Status
    started_at: datetime
    duration_s: float
    readings: tuple[Reading, ...] = ()
    faults: tuple[Fault, ...] = ()
    frames: tuple[FrameRecord, ...] = ()
    detail: str = ""
    events: tuple[EventRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Interval:
    """CIM IntervalReading as the store gives it back: consumption in `[start, start + step_s)`.

    units: ten-thousandths of the quantity's unit; None when missing. parents: ids of the outcomes it came from.
    """

    quantity: str
    start: datetime
    step_s: int
    units: int | None
    quality: Quality
    parents: tuple[int, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class SwitchState:
    """How a meter's supply switch (relay, breaker, disconnector) stands, by the meter itself.

    connected: the consumer has supply through it. ready: it is open, and the consumer may close it by hand. detail:
    what the meter says of it in its own words.
    """

    connected: bool
    ready: bool = False
    detail: str = ""

    def __str__(self) -> str:
        word = "connected" if self.connected else "ready to be connected by hand" if self.ready else "disconnected"
        return f"{word} ({self.detail})" if self.detail else word
