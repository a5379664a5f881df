"""The supply switch of a meter: disconnect control (class 70). Orders are sent once, then looked at."""

from __future__ import annotations

from typing import Final, Literal

from headend.access import Access
from headend.conversation import Conversation
from headend.errors import NoAnswer, ProtocolError, UsageError
from headend.model import Meter, SwitchState
from headend.protocols.dlms.axdr import Datum, Tag
from headend.protocols.dlms.cosem import Attribute, obis_bytes
from headend.protocols.dlms.haul import in_session
from headend.protocols.dlms.objects import settings_of
from headend.protocols.dlms.session import Session

__all__ = ["SwitchAction", "switch"]

SwitchAction = Literal["state", "disconnect", "reconnect"]

CONTROL_CLASS: Final = 70
OUTPUT_STATE, CONTROL_STATE, CONTROL_MODE = 2, 3, 4
_METHODS: Final = {"disconnect": 1, "reconnect": 2}  # remote_disconnect, remote_reconnect
_ARGUMENT: Final = Datum(Tag.INTEGER, 0)  # Blue Book 4.5.8: data is integer(0)

_STATES: Final = {0: "disconnected", 1: "connected", 2: "ready for reconnection"}
_READY: Final = 2
# What each control mode lets happen (Blue Book 4.5.8, table of modes), as far as an order from here is concerned.
_MODES: Final = {
    0: "always connected, takes no order",
    1: "reconnect makes ready, by hand",
    2: "reconnect closes it",
    3: "reconnect makes ready, by hand; no hand opens it",
    4: "reconnect closes it; no hand opens it",
    5: "reconnect makes ready, by hand; closes by itself after a limit",
    6: "reconnect closes it; after a limit by hand",
}


def switch(meter: Meter, action: SwitchAction, access: Access) -> Conversation[SwitchState | None]:
    """How the supply switch stands (`state`), or how after an order (`disconnect`, `reconnect`); None where the order
    was taken and the state can't be read. After `NoAnswer` to the order it may have been done."""
    if action != "state" and action not in _METHODS:
        raise UsageError(f"{action!r} is no order for a switch", remedy="use state, disconnect or reconnect")
    settings = settings_of(meter)
    obis = obis_bytes(settings.disconnect_obis)

    def task(session: Session) -> Conversation[SwitchState | None]:
        if action == "state":
            return (yield from _state(session, obis))
        try:
            yield from session.action(CONTROL_CLASS, obis, _METHODS[action], _ARGUMENT)
        except NoAnswer as error:
            raise NoAnswer(
                f"the order to {action} got no answer: it may have been done", remedy="read the state"
            ) from error
        try:
            return (yield from _state(session, obis))
        except ProtocolError:
            return None

    return (yield from in_session(meter, access, task))


def _state(session: Session, obis: bytes) -> Conversation[SwitchState]:
    """Raises what the meter refuses of output state or control state; the mode is a help only."""
    wanted = [Attribute(CONTROL_CLASS, obis, index) for index in (OUTPUT_STATE, CONTROL_STATE, CONTROL_MODE)]
    output, control, mode = yield from session.get_many(wanted)
    if isinstance(output, ProtocolError):
        raise output
    state = control.value if isinstance(control, Datum) else None
    words = [_STATES.get(state, f"control state {state}")] if isinstance(state, int) else []
    if isinstance(mode, Datum) and isinstance(mode.value, int):
        words.append(f"mode {mode.value}: {_MODES.get(mode.value, 'unknown')}")
    return SwitchState(bool(output.value), state == _READY, "; ".join(words))
