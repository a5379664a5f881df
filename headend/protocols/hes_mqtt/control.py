"""The clock and the supply switch of a meter, by way of its concentrator. Each order is sent once, and expires."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from headend.access import Access
from headend.civil import to_epoch_s
from headend.conversation import Conversation
from headend.errors import BadFrame, UsageError
from headend.model import Meter, SwitchState
from headend.protocols.hes_mqtt.ask import Answer, ask

__all__ = ["set_clock", "switch"]

_ORDERS: Final = {"state": "", "disconnect": "open", "reconnect": "closed"}
_STATES: Final = {
    "open": SwitchState(False),
    "closed": SwitchState(True),
    "ready": SwitchState(False, ready=True),
}


def set_clock(meter: Meter, now: Callable[[], datetime], access: Access) -> Conversation[None]:
    """Have the concentrator set the meter's clock to `now`."""
    moment = now()
    yield from ask(meter, "set_clock", {"time": to_epoch_s(moment)}, now=moment)


def switch(meter: Meter, action: str, access: Access) -> Conversation[SwitchState | None]:
    """How the supply switch stands (`state`), or the order to open (`disconnect`) or close it (`reconnect`) and how it
    stands then; None if the concentrator did not say."""
    if action not in _ORDERS:
        raise UsageError(f"a relay has no {action!r}", remedy="it has state, disconnect and reconnect")
    if access.now is None:
        raise UsageError("an order to a concentrator needs the time, for it expires", where=f"meter {meter.id}")
    wanted = _ORDERS[action]
    answer = yield from ask(meter, "relay", {"state": wanted} if wanted else {}, now=access.now())
    state = _state(answer)
    if state is None and action == "state":
        raise BadFrame("the concentrator's answer does not say how the switch stands")
    return state


def _state(answer: Answer) -> SwitchState | None:
    words = [word for word in answer.data if isinstance(word, str)]
    return _STATES.get(words[-1]) if words else None
