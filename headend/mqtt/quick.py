"""The commonest message by the shortest way: one row for each meter, of curves, nothing missing, nothing doubtful.

Whatever is not so goes the long way (`tabulate`, `judge`), and by that comes to the same.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from headend.model import Quality, Source
from headend.mqtt.batch import Batch
from headend.mqtt.judge import FREE, REGISTERS, Anchors
from headend.mqtt.place import Place
from headend.mqtt.tabulate import Taken
from headend.protocols.hes_mqtt.messages import MeterPart
from headend.store.sheets import Sheet

__all__ = ["Quick"]

_VALID = bytes([Quality.VALID])
_INT64_MAX = 2**63 - 1


class Quick:
    """The short way for the meters of one message."""

    def __init__(self, batch: Batch, taken: Sequence[Taken], anchors: Anchors) -> None:
        self._step_s = batch.step_s
        self._anchors = anchors
        self._open = bool(taken) and all(c.plain and c.source is Source.CURVE for c in taken)
        self._columns = [
            (c.position, c.quantity, c.factor, c.quantity in REGISTERS, c.quantity in FREE or "combined" in c.quantity)
            for c in taken
        ]
        self._times: array[int] = array("q")  # most meters of a message have the same

    def sheets(self, part: object, place: Place) -> list[Sheet] | None:
        """The sheets of one meter, None if they must go the long way."""
        if not self._open or not isinstance(part, MeterPart) or len(part.rows) != 1:
            return None
        at, values, bits = part.rows[0]
        if bits or (at + place.offset_s) % self._step_s or None in values:
            return None
        found: list[Sheet] = []
        learned: list[tuple[str, int]] = []
        key, step_s = place.key, self._step_s
        if not self._times or self._times[0] != at:
            self._times = array("q", (at,))
        for position, name, factor, register, free in self._columns:
            units = values[position] * factor  # type: ignore[operator]  # None was looked for
            if register:
                here = (at, units)
                if free or not 0 <= units < place.wrap_units:
                    return None
                if not self._anchors.allow(place.key, name, here, here, place.power_units):
                    return None
                learned.append((name, units))
            elif not -_INT64_MAX <= units <= _INT64_MAX:
                return None
            found.append(Sheet(key, name, Source.CURVE, step_s, self._times, array("q", (units,)), _VALID))
        for name, units in learned:
            self._anchors.add(key, name, at, units)
        return found
