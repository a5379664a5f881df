"""The relay of a meter: what it was told, where it is, and status word 3, which shows both.

The codes are those of the supplement as public firmware has them: 1A trip, 1B permit closing (a button on the meter
closes), 1C close, 2A / 2B alarm on / off, 3A / 3B keep the supply on / off.
"""

from __future__ import annotations

from simulators.dlt645_spec import ERR_OTHER, Refused

__all__ = ["Relay"]

_OPEN, _TOLD_OPEN, _ALARM, _KEY = 1 << 4, 1 << 6, 1 << 7, 1 << 3
_TRIP, _PERMIT, _CLOSE, _ALARM_ON, _ALARM_OFF, _KEEP_ON, _KEEP_OFF = 0x1A, 0x1B, 0x1C, 0x2A, 0x2B, 0x3A, 0x3B


class Relay:
    """delay_s: from the order to the move. stuck: it never moves."""

    def __init__(self, *, delay_s: int = 0, stuck: bool = False) -> None:
        self._delay_s = delay_s
        self._stuck = stuck
        self._was_open = False
        self._open = False
        self._moves_at_s = 0
        self.told_open = False
        self.alarm = False
        self.kept = False

    def is_open(self, at_s: int) -> bool:
        """Whether the supply is cut at `at_s`."""
        return self._open if at_s >= self._moves_at_s else self._was_open

    def _move(self, opened: bool, at_s: int) -> None:
        if not self._stuck:
            self._was_open, self._open, self._moves_at_s = self.is_open(at_s), opened, at_s + self._delay_s

    def order(self, code: int, at_s: int) -> None:
        """Obey one order; refused when there is none such, and a trip while the supply is to be kept."""
        if code == _TRIP and not self.kept:
            self.told_open = True
            self._move(True, at_s)
        elif code in (_PERMIT, _CLOSE):
            self.told_open = False
            if code == _CLOSE:
                self._move(False, at_s)
        elif code in (_ALARM_ON, _ALARM_OFF):
            self.alarm = code == _ALARM_ON
        elif code in (_KEEP_ON, _KEEP_OFF):
            self.kept = code == _KEEP_ON
        else:
            raise Refused(ERR_OTHER)

    def press_button(self, at_s: int) -> None:
        """The customer's button: closes when closing is permitted."""
        if not self.told_open:
            self._move(False, at_s)

    def word(self, at_s: int, *, key_pressed: bool) -> bytes:
        """Status word 3, low byte first."""
        bits = _OPEN * self.is_open(at_s) | _TOLD_OPEN * self.told_open | _ALARM * self.alarm | _KEY * key_pressed
        return bits.to_bytes(2, "little")
