"""What a reading conversation gathers on its way, and what its errors mean for the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from headend.errors import BadFrame, NoAnswer, ProtocolError, Refused, Unsupported, WrongMeter
from headend.model import Cause, Fault, Harvest, Reading, Window

__all__ = ["Haul", "cause_of"]

_CAUSES: Final[dict[type[ProtocolError], Cause]] = {
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

    def miss(self, name: str, cause: Cause, detail: str, window: Window | None = None) -> None:
        """Write down what did not come."""
        self.faults.append(Fault(name, cause, detail, window))

    def close(self) -> Harvest:
        """The harvest; raises the refusal when that is all the meter had to say."""
        if self.refused is not None and not self.readings and all(f.cause is Cause.REFUSED for f in self.faults):
            raise self.refused
        return Harvest(tuple(self.readings), tuple(self.faults))
