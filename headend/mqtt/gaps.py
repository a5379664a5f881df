"""Gaps in the numbering of concentrators: which are to be asked for again, and when. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

__all__ = ["Ask", "Gaps"]

_AFTER_S: Final = (3.0, 30.0, 300.0, 3_600.0, 21_600.0)
"""How long after a gap was seen, or asked for, it is asked for (again): what is only late must not be."""

_NUMBERS: Final = 200  # in one request
_TRACKED: Final = 2_000  # of one concentrator
_REQUEST_EVERY_S: Final = 2.0  # of one concentrator


class Ask(NamedTuple):
    """Messages to be sent again."""

    concentrator: str
    boot: int
    numbers: tuple[int, ...]


@dataclass(slots=True)
class _Gap:
    due_s: float
    asked: int = 0


class Gaps:
    """What is missing of every concentrator's numbering. Times are seconds of a clock that only rises.

    A concentrator is asked again only after it was heard: one that is away can't answer, and must not use up its turns.
    """

    def __init__(self) -> None:
        self._missing: dict[tuple[str, int], dict[int, _Gap]] = {}
        self._next_s: dict[str, float] = {}
        self._heard: set[str] = set()  # since it was last asked

    def note(self, concentrator: str, boot: int, missing: Iterable[int], now_s: float) -> None:
        """What the store now says is missing of a boot; what is no longer in it has come."""
        self._heard.add(concentrator)
        before = self._missing.get((concentrator, boot), {})
        held: dict[int, _Gap] = {}
        for number in missing:
            held[number] = before.get(number) or _Gap(now_s + _AFTER_S[0])
            if len(held) == _TRACKED:
                break
        if held:
            self._missing[concentrator, boot] = held
        else:
            self._missing.pop((concentrator, boot), None)

    def given_up(self, concentrator: str, boot: int) -> frozenset[int]:
        """The numbers that were asked for as often as they are, and did not come."""
        held = self._missing.get((concentrator, boot), {})
        return frozenset(number for number, gap in held.items() if gap.asked == len(_AFTER_S))

    def count(self, concentrator: str) -> int:
        """How many messages of a concentrator are missing."""
        return sum(len(held) for (name, _), held in self._missing.items() if name == concentrator)

    def due(self, now_s: float) -> Iterator[Ask]:
        """What is to be asked for now; each number five times at most, at growing intervals."""
        for (concentrator, boot), held in list(self._missing.items()):
            if self._next_s.get(concentrator, now_s) > now_s or concentrator not in self._heard:
                continue
            numbers = []
            for number, gap in held.items():
                if gap.asked < len(_AFTER_S) and gap.due_s <= now_s:
                    numbers.append(number)
                    gap.asked += 1
                    gap.due_s = now_s + _AFTER_S[min(gap.asked, len(_AFTER_S) - 1)]
                    if len(numbers) == _NUMBERS:
                        break
            if numbers:
                self._next_s[concentrator] = now_s + _REQUEST_EVERY_S
                self._heard.discard(concentrator)
                yield Ask(concentrator, boot, tuple(numbers))
