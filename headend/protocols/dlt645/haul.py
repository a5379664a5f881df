"""What a reading conversation gathers on its way, and what its errors mean for the rest."""

from __future__ import annotations

from dataclasses import dataclass, field

from headend.errors import BadFrame, NoAnswer, ProtocolError, Refused, Unsupported, WrongMeter
from headend.model import Cause, Fault, Harvest, Reading, Window

__all__ = ["Haul", "cause_of"]

_CAUSES: dict[type[ProtocolError], Cause] = {
    NoAnswer: Cause.NO_ANSWER,
    BadFrame: Cause.BAD_FRAME,
    WrongMeter: Cause.WRONG_METER,
    Refused: Cause.REFUSED,
    Unsupported: Cause.UNSUPPORTED,
}


def cause_of(error: ProtocolError) -> Cause:
    """The cause to write on what `error` kept from coming."""
    return _CAUSES.get(type(error), Cause.BAD_FRAME)


@dataclass(slots=True)
class Haul:
    """Readings and faults so far. refused: the first refusal, raised at the end if nothing else came."""

    readings: list[Reading] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    refused: Refused | None = None
    _last: dict[str, int] = field(default_factory=dict)  # index of each quantity's latest fault

    @property
    def gathered(self) -> bool:
        """Whether the meter said anything about what was asked, if only that it does not hold it."""
        return bool(self.readings) or any(f.cause not in (Cause.REFUSED, Cause.UNSUPPORTED) for f in self.faults)

    def miss(self, quantity: str, cause: Cause, detail: str, window: Window | None = None) -> None:
        """Write down what did not come; a window that continues the last one makes it longer."""
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

    def refuse(self, quantity: str, error: Refused, window: Window | None = None) -> None:
        """The meter said no to this; other things may still come."""
        self.refused = self.refused or error
        self.miss(quantity, Cause.REFUSED, str(error), window)

    def close(self) -> Harvest:
        """The harvest; raises the refusal when that is all the meter had to say."""
        if self.refused is not None and not self.gathered:
            raise self.refused
        return Harvest(tuple(self.readings), tuple(self.faults))
