"""Telling a meter to do something: the interlocks, the record, the order sent once, and what is found afterwards.

The command line and the running daemon both come through here. An order is written down before it is sent and completed
after it. When its answer is lost, whether it was carried out is not known: that is said, and it is not sent again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from headend.access import Access
from headend.conversation import Conversation
from headend.errors import HeadendError, LineDown, NoAccess, ProtocolError, Refused, Unsupported, UsageError
from headend.line import Line
from headend.model import FrameRecord, Meter, ReadJob, ReadKind, SwitchState
from headend.protocols import PROTOCOLS
from headend.store import Store, commands

__all__ = ["ACTIONS", "DISCONNECT", "DONE", "RECONNECT", "SET_CLOCK", "Order", "Rules", "obey", "switch_state"]

log = logging.getLogger(__name__)

SET_CLOCK: Final = "set clock"
DISCONNECT: Final = "disconnect"
RECONNECT: Final = "reconnect"
ACTIONS: Final = (SET_CLOCK, DISCONNECT, RECONNECT)

DONE: Final = "done"
REFUSED: Final = "refused"  # the meter said no
NOT_SENT: Final = "not sent"  # nothing of it went over the line
NO_EFFECT: Final = "no effect"  # the meter said yes, and afterwards stood as before
UNKNOWN: Final = "unknown"  # it was sent; whether it was carried out nobody knows

_DAY = timedelta(hours=24)
_LOOKS = 4
_CLOCK_OFF_S = 10
_REASON_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Rules:
    """What the site allows. disconnects_per_day: in any 24 hours, all meters together."""

    enabled: bool = False
    disconnects_per_day: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """What one meter is to do. asked_by: who wants it; reason: why."""

    meter: Meter
    action: str
    asked_by: str
    reason: str


@dataclass(slots=True)
class _Ending:
    """How an order ended, as far as is known by now."""

    status: str = NOT_SENT
    detail: str = ""
    result: str = ""


async def switch_state(line: Line, meter: Meter, access: Access) -> dict[str, Any]:
    """How the supply switch of `meter` stands; plain data. A read: nothing is asked but the meter."""
    switch = PROTOCOLS[meter.protocol].switch
    if switch is None:
        raise _cannot(meter, "say how a supply switch stands")
    frames: list[FrameRecord] = []
    started = time.monotonic()
    access = access if access.now is not None else replace(access, now=line.clock)
    try:
        state = await line.run(switch(meter, "state", access), frames, serial=meter.serial, meter=meter.id)
    except (ProtocolError, LineDown) as error:
        return _plain(meter, "state", _Ending("failed", str(error)), frames, started)
    ending = _Ending(DONE if state is not None else "failed", "", "" if state is None else str(state))
    return _plain(meter, "state", ending, frames, started) | {"connected": state is not None and state.connected}


async def obey(
    order: Order,
    *,
    line: Line,
    access: Access,
    store: Store,
    rules: Rules,
    clock: Callable[[], datetime],
    settle_s: float = 2.0,
) -> dict[str, Any]:
    """Carry out `order`; plain data: command, status, detail, result, frames.

    Raises `UsageError` when an interlock holds it back; nothing is written or sent then. What a meter or a line does is
    told in the status. settle_s: a switch that has not moved yet is looked at again after so long.
    """
    _interlock(order, rules)
    access = replace(access, now=clock)
    key = await asyncio.to_thread(_written, store, order, rules, clock())
    frames: list[FrameRecord] = []
    ending = _Ending()
    started = time.monotonic()
    try:
        await _carry_out(order, line, access, clock, frames, ending, settle_s)
    except BaseException as error:  # stopped in the middle: that too is written down
        if ending.status == NOT_SENT and _sent(frames):
            ending.status = UNKNOWN
        ending.detail = ending.detail or f"the head-end ended it: {type(error).__name__}"
        _completed(store, key, ending, frames, clock())
        raise
    await asyncio.to_thread(_completed, store, key, ending, frames, clock())
    return _plain(order.meter, order.action, ending, frames, started) | {"command": key}


# -- before ------------------------------------------------------------------------------------------------------------


def _interlock(order: Order, rules: Rules) -> None:
    """Refuse what must not be sent."""
    if order.action not in ACTIONS:
        raise UsageError(f"there is no order {order.action!r}", remedy=f"there are {', '.join(ACTIONS)}")
    if not rules.enabled:
        raise UsageError(
            "this site tells no meter to do anything", remedy="write [control] enabled = true in site.toml to change it"
        )
    if not order.reason.strip() or not order.asked_by.strip():
        raise UsageError("an order without a reason or without who wants it", remedy="say why, it is kept")
    if len(order.reason) > _REASON_CHARACTERS or not order.reason.isprintable():
        raise UsageError("the reason is too long or not plain text", remedy=f"at most {_REASON_CHARACTERS} characters")
    driver = PROTOCOLS[order.meter.protocol]
    if (driver.set_clock if order.action == SET_CLOCK else driver.switch) is None:
        raise _cannot(order.meter, order.action)


def _cannot(meter: Meter, what: str) -> UsageError:
    return UsageError(
        f"meter {meter.id} speaks {meter.protocol}, through which it can't be told to {what}"
        if what in ACTIONS
        else f"meter {meter.id} speaks {meter.protocol}, which can't {what}"
    )


def _written(store: Store, order: Order, rules: Rules, now: datetime) -> int:
    """Write the order down, within the limit; its key."""
    with store.write() as conn:
        commands.one_at_a_time(conn)
        if order.action == DISCONNECT:
            done = commands.count_since(conn, DISCONNECT, now - _DAY, but=(REFUSED, NOT_SENT))
            if done >= rules.disconnects_per_day:
                raise UsageError(
                    f"{done} meters were disconnected in the last 24 hours, {rules.disconnects_per_day} is the limit",
                    remedy="wait, or raise [control] disconnects_per_day in site.toml",
                )
        return commands.begin(conn, order.meter.key, order.action, order.asked_by, order.reason, now)


# -- the order itself --------------------------------------------------------------------------------------------------


async def _carry_out(
    order: Order,
    line: Line,
    access: Access,
    clock: Callable[[], datetime],
    frames: list[FrameRecord],
    ending: _Ending,
    settle_s: float,
) -> None:
    """Send the order, once, and look at the meter afterwards."""
    meter = order.meter
    log.warning("%s of meter %s, asked by %s: %s", order.action, meter.id, order.asked_by, order.reason)
    seen: SwitchState | None = None
    kept_out = False
    try:
        seen = await line.run(_conversation(order, access, clock), frames, serial=meter.serial, meter=meter.id)
        ending.status = DONE
    except HeadendError as error:
        ending.status, ending.detail = _status(error, frames), str(error)
        kept_out = isinstance(error, NoAccess)
    if ending.status in (NOT_SENT, REFUSED):
        return
    looked = await _look(order, line, access, clock, frames, ending, seen, settle_s)
    if kept_out and not looked:
        ending.status = REFUSED  # the meter lets nobody in: it was not carried out either


def _conversation(order: Order, access: Access, clock: Callable[[], datetime]) -> Conversation[SwitchState | None]:
    """The order. Begun when the line is free, not before."""
    driver = PROTOCOLS[order.meter.protocol]
    if order.action == SET_CLOCK and driver.set_clock is not None:
        yield from driver.set_clock(order.meter, clock, access)
        return None
    if driver.switch is None:
        raise _cannot(order.meter, order.action)
    return (yield from driver.switch(order.meter, order.action, access))


def _status(error: HeadendError, frames: Sequence[FrameRecord]) -> str:
    if not _sent(frames):
        return NOT_SENT
    return REFUSED if isinstance(error, Refused | Unsupported | UsageError) else UNKNOWN


def _sent(frames: Sequence[FrameRecord]) -> bool:
    return any(frame.direction == ">" for frame in frames)


# -- afterwards --------------------------------------------------------------------------------------------------------


async def _look(
    order: Order,
    line: Line,
    access: Access,
    clock: Callable[[], datetime],
    frames: list[FrameRecord],
    ending: _Ending,
    seen: SwitchState | None,
    settle_s: float,
) -> bool:
    """Fill in the result by asking the meter; whether it answered."""
    try:
        if order.action == SET_CLOCK:
            off_s = await _clock_off_s(order.meter, line, access, clock, frames)
            ending.result = f"clock {off_s:+d} s off" if off_s is not None else ""
            as_ordered = off_s is None or abs(off_s) <= _CLOCK_OFF_S
        else:
            state = await _settled(order, line, access, frames, seen, settle_s)
            ending.result = "" if state is None else str(state)
            as_ordered = state is None or _as_ordered(order.action, state)
    except (ProtocolError, LineDown) as error:
        ending.detail = "; ".join(filter(None, (ending.detail, f"afterwards: {error}")))
        return False
    if ending.status == DONE and not as_ordered:
        ending.status, ending.detail = NO_EFFECT, "the meter took the order, but afterwards stood as before"
    return True


async def _clock_off_s(
    meter: Meter, line: Line, access: Access, clock: Callable[[], datetime], frames: list[FrameRecord]
) -> int | None:
    """The meter's clock minus ours in seconds; None if the meter shows none."""
    job = ReadJob(meter, ReadKind.CLOCK, ("clock_offset_s",))

    def read() -> Conversation[Any]:
        return (yield from PROTOCOLS[meter.protocol].start(job, now=clock(), access=access))

    harvest = await line.run(read(), frames, serial=meter.serial, meter=meter.id)
    return next((int(r.value) for r in harvest.readings if r.quantity == "clock_offset_s"), None)


async def _settled(
    order: Order, line: Line, access: Access, frames: list[FrameRecord], seen: SwitchState | None, settle_s: float
) -> SwitchState | None:
    """How the switch stands, looked at a few times until it stands as ordered: some take seconds to move."""
    switch, meter = PROTOCOLS[order.meter.protocol].switch, order.meter
    if switch is None:
        return None
    for look in range(_LOOKS):
        if seen is None:
            seen = await line.run(switch(meter, "state", access), frames, serial=meter.serial, meter=meter.id)
        if seen is None or _as_ordered(order.action, seen) or look == _LOOKS - 1:
            return seen
        await asyncio.sleep(settle_s)
        seen = None
    return seen


def _as_ordered(action: str, state: SwitchState) -> bool:
    """Whether the switch stands as ordered; after a reconnect, ready for a hand to close it is as ordered."""
    return state.connected or state.ready if action == RECONNECT else not state.connected


def _completed(store: Store, key: int, ending: _Ending, frames: Sequence[FrameRecord], now: datetime) -> None:
    """Write down how it ended; when that fails, say so beside what is known: it must not be lost to who asked."""
    parts = {"status": ending.status, "detail": ending.detail, "result": ending.result}
    try:
        with store.write() as conn:
            commands.complete(conn, key, frames=frames, at=now, **parts)
    except HeadendError as error:
        log.error("how command %d ended (%s) could not be written down: %s", key, ending.status, error)
        ending.detail = "; ".join(filter(None, (ending.detail, f"its ending could not be written down: {error}")))


def _plain(meter: Meter, action: str, ending: _Ending, frames: Sequence[FrameRecord], started: float) -> dict[str, Any]:
    return {
        "meter": meter.id,
        "action": action,
        "status": ending.status,
        "detail": ending.detail,
        "result": ending.result,
        "duration_s": round(time.monotonic() - started, 3),
        "frames": [{"at": f.at.isoformat(), "direction": f.direction, "hex": f.data.hex().upper()} for f in frames],
    }
