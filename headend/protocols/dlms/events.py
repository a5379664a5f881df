"""Event logs of a meter: profile generics of times and codes. What a code means, its model says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from headend.access import Access
from headend.conversation import Conversation
from headend.errors import Unsupported
from headend.model import Meter, Window
from headend.protocols.dlms.buffer import Profile, Row, open_profile, read_rows
from headend.protocols.dlms.haul import in_session
from headend.protocols.dlms.objects import settings_of
from headend.protocols.dlms.session import Session
from headend.protocols.dlms.settings import DlmsProfile, EventLog

__all__ = ["Event", "read_events"]


@dataclass(frozen=True, slots=True)
class Event:
    """One entry. at: when, by the meter, UTC; None where that can't be told, `text` then says why. code: None where
    the log holds no number."""

    log: str
    at: datetime | None
    code: int | None
    text: str = ""


def read_events(meter: Meter, window: Window, access: Access) -> Conversation[list[Event]]:
    """The entries of all of the meter's event logs in `window`, in the order of time.

    Raises `Unsupported` when the model names no log; what the meter refuses of any of them.
    """
    logs = settings_of(meter).event_logs
    if not logs:
        raise Unsupported(
            f"model {meter.model.name} names no event log",
            where=f"meter {meter.id}",
            remedy="add [[dlms.event_log]]; `headend dlms browse` finds them",
        )

    def task(session: Session) -> Conversation[list[Event]]:
        found: list[Event] = []
        for log in logs:
            profile = yield from open_profile(session, meter, DlmsProfile(obis=log.obis, nulls="missing"), access)
            if window.start < window.end:
                rows = yield from read_rows(session, profile, window.start, window.end - timedelta(seconds=1))
                found += (event for event in _events(log, profile, rows) if _inside(event, window))
        return sorted(found, key=lambda event: event.at or window.start)

    return (yield from in_session(meter, access, task))


def _events(log: EventLog, profile: Profile, rows: list[Row]) -> list[Event]:
    codes = dict(log.codes)
    events = []
    for row in rows:
        code = next(
            (
                int(value.value)
                for index, value in enumerate(row.values)
                if index != profile.clock and isinstance(value.value, int)
            ),
            None,
        )
        text = "" if code is None else codes.get(code, "")
        events.append(Event(log.name, row.at, code, "; ".join(word for word in (text, row.problem) if word)))
    return events


def _inside(event: Event, window: Window) -> bool:
    return event.at is None or window.start <= event.at < window.end
