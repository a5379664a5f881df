"""What a master tells a DL/T 645-2007 meter to do (clause 7; function 1C by the SGCC supplement). Conversations.

A command is not a question: when its answer is lost, whether it was carried out is not known, and sending it again may
do it twice. So a command goes out once, unless doing it twice is the same as once, which its docstring then says; and
`NoAnswer`, `BadFrame` and `WrongMeter` say that the meter must be looked at first. Every command raises `Refused`, with
what the refusal can mean. Meters with a security module (ESAM) refuse all that needs a password here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from headend.civil import zone
from headend.conversation import Conversation, Send
from headend.errors import BadFrame, NoAnswer, Refused, UsageError, WrongMeter
from headend.protocols.dlt645.auth import Auth, explained
from headend.protocols.dlt645.bcd import second_bytes
from headend.protocols.dlt645.exchange import CHANGE_BAUD, WRITE_ADDRESS, exchange, gather
from headend.protocols.dlt645.frame import ANY_ADDRESS, BROADCAST, Frame, address_bytes, check_address, encode
from headend.protocols.dlt645.payload import BAUD
from headend.protocols.dlt645.status import Flag, status_flags

__all__ = [
    "ALL_EVENTS",
    "Control",
    "Done",
    "Relay",
    "acknowledged",
    "broadcast_freeze",
    "broadcast_time",
    "change_password",
    "clear_demand",
    "clear_events",
    "clear_meter",
    "confirm_relay",
    "control",
    "freeze",
    "set_baud",
    "write",
    "write_address",
]

TIME, WRITE, FREEZE, PASSWORD = 0x08, 0x14, 0x16, 0x18
CLEAR_DEMAND, CLEAR_METER, CLEAR_EVENTS, CONTROL = 0x19, 0x1A, 0x1B, 0x1C

ALL_EVENTS = "FFFFFFFF"
RELAY_DI = "04000503"

_MAX_WRITE = 50  # clause 5.2.4
_LEVEL_DI = "04000C"
_BAUD_WORD = {rate: word for word, rate in BAUD.items()}
_NO_DEADLINE = bytes(6)


@dataclass(frozen=True, slots=True)
class Done:
    """A command that was carried out.

    meter: the address that acknowledged it; the broadcast address, and `acknowledged` False, for what no meter answers.
    """

    command: str
    meter: str
    acknowledged: bool = True


@dataclass(frozen=True, slots=True)
class Relay:
    """The relay as status word 3 has it. open: the contact; commanded_open: what the meter was last told."""

    open: bool
    commanded_open: bool
    flags: tuple[Flag, ...]

    @property
    def closed(self) -> bool:
        """Whether the consumer has supply through this relay."""
        return not self.open


class Control(Enum):
    """What function 1C can order, by its command byte N1."""

    TRIP = 0x1A
    PERMIT_CLOSE = 0x1B  # the consumer closes with the meter's button
    CLOSE = 0x1C  # at once; not every meter has it
    ALARM_ON = 0x2A
    ALARM_OFF = 0x2B
    KEEP_SUPPLY_ON = 0x3A  # the meter refuses to trip until it is off again
    KEEP_SUPPLY_OFF = 0x3B


def write(address: str, di: str, data: bytes, auth: Auth) -> Conversation[Done]:
    """Write `data`, as it lies on the wire (lowest byte first, without 33H), under `di`. Most meters want their
    programming key pressed first. Sent once: a write may count, append or start something (purchases, event counters).
    """
    most = _MAX_WRITE - 12
    if not 0 < len(data) <= most:
        raise UsageError(f"{len(data)} bytes to write under {di}", remedy=f"a write takes 1 to {most} bytes")
    return (yield from _authorised(f"write {di.upper()}", address, WRITE, auth, before=_di_bytes(di), after=data))


def write_address(new: str, *, to: str = ANY_ADDRESS) -> Conversation[Done]:
    """Give the only meter on a line the address `new`. It must have its programming key pressed, else it stays silent.

    Sent up to twice: writing the same address again changes nothing.
    """
    address = check_address(new)
    return (yield from _command("write address", to, WRITE_ADDRESS, address_bytes(address), tries=2))


def freeze(
    address: str, *, day: int | None = None, hour: int | None = None, minute: int | None = None
) -> Conversation[Done]:
    """Freeze registers: now, or regularly when times are given: each hour at `minute`, each day at `hour:minute`, each
    month on `day` as well; by the meter's clock. Sent once: a second freeze "now" would push out an older one.
    """
    pattern = _pattern(day, hour, minute)
    regular = minute is not None
    return (yield from _command("freeze", address, FREEZE, pattern, tries=2 if regular else 1))


def broadcast_freeze(
    *, day: int | None = None, hour: int | None = None, minute: int | None = None
) -> Conversation[Done]:
    """As `freeze`, to every meter on the line; none answers."""
    return (yield from _broadcast("freeze", BROADCAST, FREEZE, _pattern(day, hour, minute)))


def set_baud(address: str, baud: int) -> Conversation[Done]:
    """Change the speed of the port that is spoken through. The meter acknowledges at the old speed, then changes; the
    line has to follow. Sent once: a meter that has changed no longer hears the old speed.
    """
    if baud not in _BAUD_WORD:
        known = ", ".join(map(str, sorted(_BAUD_WORD)))
        raise UsageError(f"DL/T 645-2007 has no {baud} baud", remedy=f"it has {known}")
    return (yield from _command(f"set {baud} baud", address, CHANGE_BAUD, bytes((_BAUD_WORD[baud],))))


def change_password(address: str, old: Auth, new: Auth) -> Conversation[Done]:
    """Replace the password of `new.level`, authorised by `old`, which must be of the same level or a higher one.

    Sent once: after a change that was not heard of the old password is a wrong one, and those are counted.
    """
    if old.level > new.level:
        raise UsageError(
            f"level {old.level} may not change the password of level {new.level}", remedy="0 is the highest level"
        )
    di = _di_bytes(f"{_LEVEL_DI}{new.level + 1:02X}")
    body, shown = di + old.key + new.key, di + old.shown_key + new.shown_key
    frame = yield from acknowledged("change password", address, PASSWORD, body, old, shown=shown)
    if frame.data and frame.data != new.key:
        raise BadFrame(
            "the meter acknowledged another password than was sent",
            where=f"meter {address}",
            remedy="find out which one is valid before writing anything else",
        )
    return Done("change password", frame.address)


def clear_demand(address: str, auth: Auth) -> Conversation[Done]:
    """Set maximum demands to zero. Sent once: by a second time they may have begun to grow again."""
    _one_meter(address)
    return (yield from _authorised("clear demand", address, CLEAR_DEMAND, auth))


def clear_meter(address: str, auth: Auth) -> Conversation[Done]:
    """Set energies, demands, freezes, events and load records to zero. Can't be undone. Sent once: each time is counted
    and recorded, and what was counted in between would be lost as well.
    """
    _one_meter(address)
    return (yield from _authorised("clear meter", address, CLEAR_METER, auth))


def clear_events(address: str, auth: Auth, di: str = ALL_EVENTS) -> Conversation[Done]:
    """Clear all event records, or those of one kind: its identifier with FF last. Sent once: a second time would also
    clear what came in between.
    """
    _one_meter(address)
    if not di.upper().endswith("FF"):
        raise UsageError(f"{di!r} names one record", remedy="end the identifier in FF, such as 03300DFF")
    return (yield from _authorised("clear events", address, CLEAR_EVENTS, auth, after=_di_bytes(di)))


def control(
    address: str, kind: Control, auth: Auth, *, deadline: datetime | None, clock_zone: str = "Asia/Shanghai"
) -> Conversation[Done]:
    """Order `kind`; the meter refuses it after `deadline` by its own clock, which `clock_zone` tells. None sends zeros,
    as some masters do; what a meter makes of that is its own.

    Done means the meter took the order, not that the relay moved: ask `confirm_relay`. Sent once: a permission to close
    that was used and given again would let the consumer close a second time.
    """
    _one_meter(address)
    if deadline is not None and deadline.tzinfo is None:
        raise UsageError("a deadline without a zone", remedy="give an aware time")
    until = _NO_DEADLINE if deadline is None else second_bytes(deadline, zone(clock_zone))
    what = kind.name.lower().replace("_", " ")
    return (yield from _authorised(what, address, CONTROL, auth, after=bytes((kind.value, 0)) + until))


def confirm_relay(address: str) -> Conversation[Relay]:
    """How the relay stands, by status word 3 (`04000503`)."""
    data = yield from gather(address, RELAY_DI)
    if len(data) != 2:
        raise BadFrame(f"status word 3 of {len(data)} bytes, 2 are due", where=f"meter {address}")
    flags = status_flags(3, int.from_bytes(data, "little"))
    held = {flag.name: flag.set for flag in flags}
    return Relay(held["relay_open"], held["relay_commanded_open"], flags)


def broadcast_time(moment: datetime, clock_zone: str, *, address: str = BROADCAST) -> Conversation[Done]:
    """Set the clocks of all meters on the line (or of one, which answers as little). Of both versions, 1997 and 2007.

    `moment` should be when the bytes arrive. The standard lets a meter follow once a day, by up to 5 minutes, and not
    near midnight or a settlement.
    """
    return (yield from _broadcast("broadcast time", address, TIME, second_bytes(moment, zone(clock_zone))))


# --- how they go out ----------------------------------------------------------------------------------------------


def _command(what: str, address: str, function: int, data: bytes, *, tries: int = 1) -> Conversation[Done]:
    frame = yield from acknowledged(what, address, function, data, None, tries=tries)
    return Done(what, frame.address)


def _authorised(
    what: str, address: str, function: int, auth: Auth, *, before: bytes = b"", after: bytes = b""
) -> Conversation[Done]:
    """A command with password and operator between `before` and `after`; the password is not recorded."""
    data, shown = before + auth.sent + after, before + auth.shown + after
    frame = yield from acknowledged(what, address, function, data, auth, shown=shown)
    return Done(what, frame.address)


def acknowledged(
    what: str,
    address: str,
    function: int,
    data: bytes,
    auth: Auth | None,
    *,
    tries: int = 1,
    shown: bytes | None = None,
) -> Conversation[Frame]:
    """Send a command and wait for its acknowledgement; the frame of it. For commands that are not here.

    shown: data to record instead, where they hold a password.
    """
    try:
        return (yield from exchange(address, function, data, tries=tries, shown=shown))
    except Refused as error:
        raise explained(error, auth) from None
    except (NoAnswer, BadFrame, WrongMeter) as error:
        raise type(error)(
            f"{what}: {error.problem.what}; whether it was carried out is not known",
            where=error.problem.where,
            remedy="look at the meter (read what it changes) before sending it again",
        ) from None


def _broadcast(what: str, address: str, function: int, data: bytes) -> Conversation[Done]:
    yield Send(encode(address, function, data), expect_reply=False)
    return Done(what, address, acknowledged=False)


def _one_meter(address: str) -> None:
    """Refuse wildcards: what can't be undone is ordered of a meter one knows."""
    if not address.isdecimal() or address == BROADCAST:
        raise UsageError(
            f"{address} stands for any meter", remedy="this goes to one meter only: write its own twelve digits"
        )


def _di_bytes(di: str) -> bytes:
    if not re.fullmatch("[0-9A-Fa-f]{8}", di):
        raise UsageError(f"{di!r} is no data identifier", remedy="write eight hex digits, such as 04000B01")
    return bytes.fromhex(di)[::-1]


def _pattern(day: int | None, hour: int | None, minute: int | None) -> bytes:
    """`mm hh DD MM` with 99 for every."""
    if (minute is None and hour is not None) or (hour is None and day is not None):
        raise UsageError("a freeze time with a gap", remedy="give minute; hour and minute; or day, hour and minute")
    for name, value, low, high in (("minute", minute, 0, 59), ("hour", hour, 0, 23), ("day", day, 1, 28)):
        if value is not None and not low <= value <= high:
            raise UsageError(f"{name} {value} of a freeze", remedy=f"it is {low} to {high}")
    return bytes.fromhex("".join("99" if part is None else f"{part:02d}" for part in (minute, hour, day, None)))
