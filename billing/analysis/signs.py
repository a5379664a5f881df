"""What meters and concentrators tell that may mean tampering: status words of DL/T 645 by bit, events by name.

Bits are those of appendix C of DL/T 645-2007. Event codes are the senders' own; they are known by the words in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from billing.analysis.irregular import Sign

__all__ = ["STATUS_WORDS", "WordRead", "event_sign", "status_signs"]

_PHASE_BITS = {
    0: ("voltage loss", 0.6),
    3: ("current loss", 0.6),
    6: ("power reversed", 0.6),
    7: ("phase failure", 0.3),
    8: ("current interrupted", 0.6),
}
_BITS: dict[int, dict[int, tuple[str, float]]] = {
    1: {4: ("active power reversed", 0.6)},
    3: {3: ("programming enabled", 0.3)},
    4: {bit: (f"phase A {name}", weight) for bit, (name, weight) in _PHASE_BITS.items()},
    5: {bit: (f"phase B {name}", weight) for bit, (name, weight) in _PHASE_BITS.items()},
    6: {bit: (f"phase C {name}", weight) for bit, (name, weight) in _PHASE_BITS.items()},
    7: {0: ("voltage sequence reversed", 0.3), 1: ("current sequence reversed", 0.6)},
}
STATUS_WORDS = tuple(sorted(_BITS))
"""The status words with bits that may mean tampering."""

# The first that fits counts: all its words must stand in the code.
_EVENTS: tuple[tuple[tuple[str, ...], float], ...] = (
    (("magnet",), 1.0),
    (("tamper",), 1.0),
    (("bypass",), 1.0),
    (("terminal", "cover"), 0.6),
    (("cover", "open"), 0.8),
    (("cover",), 0.6),
    (("revers",), 0.6),
    (("current", "loss"), 0.6),
    (("voltage", "loss"), 0.6),
    (("phase", "loss"), 0.3),
    (("开盖",), 0.8),
    (("端钮盖",), 0.6),
    (("磁场",), 1.0),
    (("失流",), 0.6),
    (("失压",), 0.6),
    (("反向",), 0.6),
)
_OVER = frozenset({"end"})


class WordRead(NamedTuple):
    """A status word as it was read."""

    at: datetime
    value: int
    outcome_id: int


def status_signs(word: int, reads: Sequence[WordRead]) -> list[Sign]:
    """What came to be in one status word: bits set at the first read, or at a later one where they were not before.

    reads: in order of time.
    """
    found = []
    before: WordRead | None = None
    for read in reads:
        for bit, (name, weight) in _BITS.get(word, {}).items():
            raised = read.value >> bit & 1 and not (before and before.value >> bit & 1)
            if raised:
                found.append(Sign(read.at, name, weight, read.outcome_id, before.at if before else None))
        before = read
    return found


def event_sign(at: datetime, code: str, phase: str, outcome_id: int) -> Sign | None:
    """The event as a sign; None when its code holds no word for tampering, or it tells an end."""
    text = code.lower()
    if phase in _OVER:
        return None
    weight = next((weight for words, weight in _EVENTS if _all_in(words, text)), None)
    return None if weight is None else Sign(at, f"event {code}", weight, outcome_id)


def _all_in(words: Iterable[str], text: str) -> bool:
    return all(word in text for word in words)
