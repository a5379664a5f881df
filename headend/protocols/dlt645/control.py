"""Setting a meter's clock and moving its relay, with the passwords of the vault: what `command` sends, by intent.

A password of level N is kept as `dlt645_password_N` (three bytes, the digits as they are written), the operator as
`dlt645_operator` (four), a 1997 password as `dlt645_1997_password` (four). Setting the clock takes level 4, the relay
level 2 on most meters; where that one is not kept, the nearest higher level that is.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from headend.access import Access
from headend.civil import zone
from headend.conversation import Conversation
from headend.errors import NoAccess, Refused, UsageError
from headend.model import Meter, SwitchState
from headend.protocols.dlt645 import command, command_1997
from headend.protocols.dlt645.auth import Auth, Password
from headend.protocols.dlt645.bcd import second_bytes
from headend.protocols.dlt645.clock import DATE, DATE_AND_TIME, TIME
from headend.protocols.dlt645.command import Control
from headend.protocols.dlt645.exchange import NO_SUCH_DATA
from headend.protocols.dlt645.v1997 import DATE as DATE_1997
from headend.protocols.dlt645.v1997 import TIME as TIME_1997

__all__ = ["set_clock", "set_clock_1997", "switch"]

_CLOCK_LEVEL, _RELAY_LEVEL = 4, 2
_MIDNIGHT = timedelta(seconds=30)
# Until when the meter may obey. It is on the line now; a near deadline would only ask how right its clock is.
_LATE = datetime(2099, 12, 30, tzinfo=UTC)
_ORDER = {"disconnect": Control.TRIP, "reconnect": Control.PERMIT_CLOSE}


def set_clock(meter: Meter, now: Callable[[], datetime], access: Access) -> Conversation[None]:
    """Set the clock of a 2007 meter to `now`: one item where the meter has it, else date and time apart."""
    auth = _auth(meter, access, _CLOCK_LEVEL)
    date, time = _shown(meter, now())
    try:
        yield from command.write(meter.address, DATE_AND_TIME, time + date, auth)
    except Refused as error:
        if error.code is None or not error.code & NO_SUCH_DATA:
            raise
        _not_at_midnight(meter, now())
        yield from command.write(meter.address, DATE, _shown(meter, now())[0], auth)
        yield from command.write(meter.address, TIME, _shown(meter, now())[1], auth)


def set_clock_1997(meter: Meter, now: Callable[[], datetime], access: Access) -> Conversation[None]:
    """Set the clock of a 1997 meter to `now`, date and time apart."""
    kept = access.secrets.get("dlt645_1997_password")
    if kept is None:
        raise _no_password(meter, "dlt645_1997_password")
    _not_at_midnight(meter, now())
    password = Password(kept.hex())
    yield from command_1997.write(meter.address, DATE_1997, _shown(meter, now())[0], password)
    yield from command_1997.write(meter.address, TIME_1997, _shown(meter, now())[1], password)


def switch(meter: Meter, action: str, access: Access) -> Conversation[SwitchState | None]:
    """How the relay of a 2007 meter stands (`state`), or the order to open it (`disconnect`) or to let the consumer
    close it with the meter's button (`reconnect`): nobody here sees what would be switched on."""
    if action == "state":
        relay = yield from command.confirm_relay(meter.address)
        ready = relay.open and not relay.commanded_open
        return SwitchState(not relay.open, ready)
    if action not in _ORDER:
        raise UsageError(f"a relay has no {action!r}", remedy="it has state, disconnect and reconnect")
    auth = _auth(meter, access, _RELAY_LEVEL)
    yield from command.control(meter.address, _ORDER[action], auth, deadline=_LATE, clock_zone=meter.clock_zone)
    return None


def _auth(meter: Meter, access: Access, level: int) -> Auth:
    """Password and operator for a write that takes `level` or a higher one, which is a lower number."""
    for number in range(level, -1, -1):
        password = access.secrets.get(f"dlt645_password_{number}")
        if password is not None:
            return Auth(number, password.hex(), access.secrets.get("dlt645_operator", bytes(4)).hex())
    raise _no_password(meter, f"dlt645_password_{level}")


def _no_password(meter: Meter, name: str) -> NoAccess:
    return NoAccess(
        f"no password of meter {meter.id} is kept", remedy=f"give it with `headend keys import`, under the name {name}"
    )


def _shown(meter: Meter, now: datetime) -> tuple[bytes, bytes]:
    """`WW DD MM YY` (Sunday is 00) and `ss mm hh` of the meter's clock at `now`."""
    tz = zone(meter.clock_zone)
    both = second_bytes(now, tz)
    weekday = now.astimezone(tz).isoweekday() % 7
    return bytes((weekday,)) + both[3:], both[:3]


def _not_at_midnight(meter: Meter, now: datetime) -> None:
    """Date and time apart belong to two days if midnight comes between them."""
    local = now.astimezone(zone(meter.clock_zone))
    if (local - _MIDNIGHT).date() != (local + _MIDNIGHT).date():
        raise UsageError("it is midnight at the meter, which sets date and time apart", remedy="try again in a minute")
