"""What a line has done: where its time went, what each meter cost, what went wrong, its last frames.

Everything is counted as it happens and read now and then. What a line does not need it does not hold: the ring of
frames and the meters' costs come with the first frame and the first conversation.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from headend.model import Cause, FrameRecord, Outcome, Status

__all__ = ["LineStats", "MeterCost", "Phase"]

RING_FRAMES = 20


class Phase(Enum):
    """What a line is doing, for its time budget."""

    FREE = "free"
    OPENING = "opening"
    SENT = "sent"  # a request is on the wire or waits for the first byte of its answer
    HEARING = "hearing"  # bytes of an answer are coming
    HELD = "held"  # a request waits until the line has been quiet


@dataclass(slots=True)
class MeterCost:
    """What one meter cost its line. failed: outcomes that were not OK, by status; None while there was none."""

    seconds: float = 0.0
    conversations: int = 0
    exchanges: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    ok: int = 0
    failed: dict[Status, int] | None = None

    def count(self, status: Status) -> None:
        """One more outcome."""
        if status is Status.OK:
            self.ok += 1
            return
        if self.failed is None:
            self.failed = {}
        self.failed[status] = self.failed.get(status, 0) + 1


@dataclass(slots=True)
class LineStats:
    """What a line has done since it was built.

    silences: timeouts without a byte. garbled: timeouts after bytes that made no answer. stale_bytes: bytes nobody
    waited for, most of them answers that came too late. reopened: connections closed because nothing came through.
    opened: ports and connections opened.

    The time budget, in seconds, each second in one place, the rest is idle: opening_s connecting; sending_s requests
    on the wire (0 where its speed is unknown: then that time is within waiting_s); waiting_s from there to the first
    byte of an answer; receiving_s from there to its end; timeout_s waits in vain; quiet_s silence kept on purpose.
    wire_s is no part of it: the time all bytes take at the wire's speed, None where that is unknown.
    """

    since: float = field(default_factory=time.monotonic)
    conversations: int = 0
    sends: int = 0
    timeouts: int = 0
    silences: int = 0
    garbled: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    stale_bytes: int = 0
    opened: int = 0
    reopened: int = 0
    last_error: str = ""
    opening_s: float = 0.0
    sending_s: float = 0.0
    waiting_s: float = 0.0
    receiving_s: float = 0.0
    timeout_s: float = 0.0
    quiet_s: float = 0.0
    busy_s: float = 0.0
    wire_s: float | None = None
    meters: dict[str, MeterCost] | None = None
    causes: dict[Cause, int] | None = None
    ring: deque[tuple[str, FrameRecord]] | None = None

    def meter(self, name: str) -> MeterCost:
        """The cost of the meter called `name`."""
        if self.meters is None:
            self.meters = {}
        cost = self.meters.get(name)
        if cost is None:
            cost = self.meters[name] = MeterCost()
        return cost

    def keep(self, meter: str, frame: FrameRecord) -> None:
        """Into the ring of the last frames."""
        if self.ring is None:
            self.ring = deque(maxlen=RING_FRAMES)
        self.ring.append((meter, frame))

    def ended(self, outcome: Outcome) -> None:
        """A job of this line ended: count it for its meter, and each of its causes of trouble once."""
        self.meter(outcome.job.meter.id).count(outcome.status)
        if outcome.faults:
            if self.causes is None:
                self.causes = {}
            for cause in {fault.cause for fault in outcome.faults}:
                self.causes[cause] = self.causes.get(cause, 0) + 1

    def spend(self, phase: Phase, seconds: float, sending_s: float, *, failed: bool) -> None:
        """File `seconds` of `phase`. sending_s: how long the request was on the wire of them. failed: all in vain."""
        if phase is Phase.SENT:
            sending_s = min(sending_s, seconds)
            self.sending_s += sending_s
            if failed:
                self.timeout_s += seconds - sending_s
            else:
                self.waiting_s += seconds - sending_s
        elif phase is Phase.HEARING:
            if failed:
                self.timeout_s += seconds
            else:
                self.receiving_s += seconds
        elif phase is Phase.HELD:
            self.quiet_s += seconds
        elif phase is Phase.OPENING:
            self.opening_s += seconds

    def idle_s(self) -> float:
        """Seconds since `since` in which the line had nothing to do."""
        used = self.opening_s + self.sending_s + self.waiting_s + self.receiving_s + self.timeout_s + self.quiet_s
        return max(0.0, time.monotonic() - self.since - used)
