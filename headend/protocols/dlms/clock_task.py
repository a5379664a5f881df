"""Setting a meter's clock (class 8): a shift where it is a little off, the time itself where it is more.

A shift (method 6, shift_time, at most 900 s) moves the clock without losing the intervals that are under way; setting
the time (attribute 2) may close one early. Both are sent once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from headend.access import Access
from headend.conversation import Conversation
from headend.errors import NoAnswer, ProtocolError, Refused
from headend.model import Meter
from headend.protocols.dlms.axdr import Datum, Tag
from headend.protocols.dlms.clock import clock_time, parse_time
from headend.protocols.dlms.cosem import obis_bytes
from headend.protocols.dlms.haul import in_session
from headend.protocols.dlms.objects import CLOCK_CLASS, settings_of
from headend.protocols.dlms.read import clock_attribute, clock_offset
from headend.protocols.dlms.session import Session

__all__ = ["ClockChange", "change_clock", "set_clock"]

SHIFT_TIME: Final = 6

Target = datetime | Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class ClockChange:
    """A clock that was set. before_s, after_s: meter minus target in seconds, None where the meter shows no time.
    way: `shift`, `time`, or "" when nothing was off."""

    before_s: int | None
    after_s: int | None
    way: str


def set_clock(meter: Meter, now: Target, access: Access) -> Conversation[None]:
    """Set the meter's clock to `now`; see `change_clock`."""
    yield from change_clock(meter, now, access)


def change_clock(meter: Meter, target: Target, access: Access) -> Conversation[ClockChange]:
    """Set the meter's clock to `target`, and read it before and after.

    target: an instant, or better a function that gives it when it is asked: opening an association takes seconds.
    Raises `Refused` when the meter does not take it; after `NoAnswer` to the order itself it may have been done.
    """
    settings = settings_of(meter)

    def when() -> datetime:
        return target() if callable(target) else target

    def off(session: Session) -> Conversation[int | None]:
        shown = yield from session.get(clock_attribute(settings))
        offset = clock_offset(parse_time(shown, settings, meter.clock_zone), when())
        return None if offset is None else int(offset)

    def task(session: Session) -> Conversation[ClockChange]:
        before_s = yield from off(session)
        if before_s == 0:
            return ClockChange(0, 0, "")
        way = "time"
        if settings.clock_set == "shift" and before_s is not None and abs(before_s) <= settings.clock_shift_max_s:
            way = "shift"
        try:
            if way == "shift" and before_s is not None:
                amount = Datum(Tag.LONG, -before_s)
                yield from session.action(CLOCK_CLASS, obis_bytes(settings.clock_obis), SHIFT_TIME, amount)
            else:
                time = Datum(Tag.OCTET_STRING, clock_time(when(), settings, meter.clock_zone))
                yield from session.set(clock_attribute(settings), time)
        except NoAnswer as error:
            raise NoAnswer(
                "the order to set the clock got no answer: it may have been done", remedy="read the clock"
            ) from error
        except Refused as error:
            other = "time" if way == "shift" else "shift"
            remedy = f'try clock_set = "{other}", or a client that may set the clock'
            raise Refused(error.problem.what, code=error.code, where=f"meter {meter.id}", remedy=remedy) from error
        try:
            after_s = yield from off(session)
        except ProtocolError:
            after_s = None  # it was set; that it can't be looked at is no reason to say it was not
        return ClockChange(before_s, after_s, way)

    return (yield from in_session(meter, access, task))
