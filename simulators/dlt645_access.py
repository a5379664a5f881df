"""Who may write: password levels, the lock after wrong ones, the programming key, the security chip."""

from __future__ import annotations

from simulators.dlt645_spec import ERR_REFUSED, MeterSpec, Refused

__all__ = ["CLEAR_LEVEL", "LOCK_S", "WRITE_LEVEL", "Access"]

LOCK_S = 86_400  # no programming for a day after _WRONG_PASSWORDS in a row
_WRONG_PASSWORDS = 3
WRITE_LEVEL = 4  # parameters, clock, demand clear
CLEAR_LEVEL = 2  # meter clear, event clear, relay


class Access:
    """The passwords of one meter. `key_pressed`: somebody holds its programming key."""

    def __init__(self, spec: MeterSpec) -> None:
        self._passwords = {level: bytes.fromhex(digits)[::-1] for level, digits in spec.passwords}
        self._esam = spec.esam
        self._needs_key = spec.needs_key
        self._wrong = 0
        self._locked_until_s = 0
        self.key_pressed = False

    @property
    def programmable(self) -> bool:
        """Whether the programming key is pressed, or there is none."""
        return self.key_pressed or not self._needs_key

    def check(self, given: bytes, level: int, at_s: int) -> None:
        """Refuses (ERR 04H) unless `given` (PA P0 P1 P2) is right and of `level` or a higher one, which is a lower
        number. The third wrong one in a row locks for a day, right ones included."""
        if self._esam or len(given) != 4 or at_s < self._locked_until_s:
            raise Refused(ERR_REFUSED)
        if self._passwords.get(given[0]) != given[1:]:
            self._wrong += 1
            if self._wrong >= _WRONG_PASSWORDS:
                self._wrong, self._locked_until_s = 0, at_s + LOCK_S
            raise Refused(ERR_REFUSED)
        self._wrong = 0
        if given[0] > level:
            raise Refused(ERR_REFUSED)

    def change(self, old: bytes, new: bytes, at_s: int) -> None:
        """Set the password of a level with the old one of that level, or with one of a higher level."""
        self.check(old, new[0], at_s)
        self._passwords[new[0]] = new[1:]
