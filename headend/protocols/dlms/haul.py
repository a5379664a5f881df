"""One session around a task, what the task gathers on its way, and what its errors mean for the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, TypeVar

from headend.access import Access
from headend.conversation import Conversation
from headend.errors import (
    BadFrame,
    HeadendError,
    LineDown,
    NoAccess,
    NoAnswer,
    ProtocolError,
    Refused,
    Unsupported,
    UsageError,
    WrongMeter,
)
from headend.model import Cause, Fault, Harvest, Meter, Reading, Source, Window
from headend.protocols.dlms.failures import DataAccessError
from headend.protocols.dlms.intake import Arrival
from headend.protocols.dlms.objects import settings_of
from headend.protocols.dlms.push import decode_push, readings_of
from headend.protocols.dlms.session import Session

__all__ = ["Haul", "cause_of", "in_session"]

T = TypeVar("T")

_CAUSES: Final[tuple[tuple[type[HeadendError], Cause], ...]] = (
    (NoAnswer, Cause.NO_ANSWER),
    (BadFrame, Cause.BAD_FRAME),
    (WrongMeter, Cause.WRONG_METER),
    (Refused, Cause.REFUSED),
    (NoAccess, Cause.NO_ACCESS),
    (Unsupported, Cause.UNSUPPORTED),
)

# Data access results that mean the meter has no such thing: class inconsistent, undefined, unavailable.
_NO_SUCH: Final = (4, 9, 11)


def cause_of(error: ProtocolError) -> Cause:
    """The cause to write on what `error` kept from coming."""
    if isinstance(error, DataAccessError) and error.code in _NO_SUCH:
        return Cause.UNSUPPORTED
    return next((cause for kind, cause in _CAUSES if isinstance(error, kind)), Cause.BAD_FRAME)


def in_session(
    meter: Meter,
    access: Access,
    task: Callable[[Session], Conversation[T]],
    *,
    haul: Haul | None = None,
    now: datetime | None = None,
) -> Conversation[T]:
    """What `task` returns, with an association around it that is released whatever the meter does. haul, now: where
    what the meter pushes meanwhile goes, and when it came."""
    session = _session(meter, access)
    try:
        yield from session.open()
        result = yield from task(session)
    except ProtocolError:
        yield from _closed(session)
        raise
    yield from _closed(session)
    if haul is not None and now is not None:
        haul.overhear(meter, session.notifications, now)
    return result


def _closed(session: Session) -> Conversation[None]:
    """Close it. A meter that hangs up now takes nothing back of what it said before."""
    with suppress(LineDown):
        yield from session.close()


def _place(reading: Reading) -> tuple[str, Source, datetime | None]:
    """What makes two readings the same one."""
    return reading.quantity, reading.source, reading.at if reading.source is Source.CURVE else None


def _session(meter: Meter, access: Access) -> Session:
    """A session; an address that does not fit the settings is the configuration's fault, told as the meter's."""
    try:
        return Session(settings_of(meter), meter.address, access)
    except UsageError as error:
        problem = error.problem
        raise Unsupported(problem.what, where=f"meter {meter.id}", remedy=problem.remedy) from error


@dataclass(slots=True)
class Haul:
    """Readings and faults so far. A fault that continues the last one of its quantity makes that longer."""

    readings: list[Reading] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    _last: dict[str, int] = field(default_factory=dict)  # index of each quantity's latest fault

    def miss(self, quantity: str, cause: Cause, detail: str, window: Window | None = None) -> None:
        """Write down what did not come."""
        index = self._last.get(quantity)
        last = self.faults[index] if index is not None else None
        if (
            index is not None
            and last is not None
            and last.window is not None
            and window is not None
            and (last.cause, last.detail, last.window.end) == (cause, detail, window.start)
        ):
            self.faults[index] = Fault(quantity, cause, detail, Window(last.window.start, window.end))
        else:
            self._last[quantity] = len(self.faults)
            self.faults.append(Fault(quantity, cause, detail, window))

    def fail(self, quantity: str, error: ProtocolError, window: Window | None = None) -> None:
        """What `error` kept from coming."""
        self.miss(quantity, cause_of(error), str(error), window)

    def overhear(self, meter: Meter, notifications: Sequence[bytes], now: datetime) -> None:
        """What the meter pushed while it was asked: its values beside ours, where its model says how it pushes. A
        value that was asked for stands."""
        settings = settings_of(meter)
        if settings.push is None:
            return
        known = {_place(reading) for reading in self.readings}
        for apdu in notifications:
            try:  # it was deciphered, and held against the policy, when it came
                push = decode_push(Arrival(apdu, ""), replace(settings, policy="none"), meter.clock_zone)
            except ProtocolError:
                continue
            for reading in readings_of(push, meter, now)[0]:
                if _place(reading) not in known:
                    known.add(_place(reading))
                    self.readings.append(reading)

    def close(self) -> Harvest:
        """The harvest."""
        return Harvest(tuple(self.readings), tuple(self.faults))
