"""Runs: neighbouring values of one curve that came together, put into a block by slices where nothing stands yet.

The rules are those of `headend.store.merge`; only where a slice meets other values, or holds any that may not simply be
taken, is a run taken apart into single arrivals.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from headend.model import Quality, SlotState, Source
from headend.store.blocks import DAY_S, Block, place
from headend.store.merge import Arrival, History

__all__ = ["Piece", "Run", "pieces"]

_GOT, _LATE = bytes([SlotState.GOT]), bytes([SlotState.LATE])
_VALID, _EDITED, _MISSING = int(Quality.VALID), int(Quality.EDITED), int(Quality.MISSING)
_CURVE = int(Source.CURVE)


# The meters of a message have most times in common.
@lru_cache(maxsize=256)
def _grid(start: int, number: int, step_s: int) -> bytes:
    return array("q", (start + i * step_s for i in range(number))).tobytes()


class Run(NamedTuple):
    """Values of one meter's one quantity from one outcome, in the order they came; times in epoch seconds.

    late_after_s: a value taken later than that after its instant is LATE.
    """

    meter_key: int
    code: int
    source: int
    step_s: int
    times: array[int]
    units: array[int]
    qualities: bytes
    taken_at: int
    outcome_id: int
    late_after_s: int

    def regular(self) -> bool:
        """Whether its times follow each other by its step; one of none does not."""
        times = self.times
        number = len(times)
        return number == 1 or (number > 1 and times.tobytes() == _grid(times[0], number, self.step_s))

    def arrivals(self, first: int = 0, stop: int | None = None) -> Iterator[Arrival]:
        """The values `first` to `stop`, each by itself."""
        for position in range(first, len(self.times) if stop is None else stop):
            at = self.times[position]
            yield Arrival(
                meter_key=self.meter_key,
                code=self.code,
                at=at,
                source=self.source,
                step_s=self.step_s if self.source == _CURVE else 0,
                units=self.units[position],
                quality=self.qualities[position],
                taken_at=self.taken_at,
                occurred_at=None,
                outcome_id=self.outcome_id,
                started_at=self.taken_at,
                state=int(SlotState.GOT if self.taken_at - at <= self.late_after_s else SlotState.LATE),
            )


class Piece(NamedTuple):
    """The part of a run that lies in one block: values `first` to `stop` belong to the slots from `slot` on."""

    key: tuple[int, int, int, int]
    phase_s: int
    slot: int
    run: Run
    first: int
    stop: int

    def arrivals(self) -> Iterator[Arrival]:
        """Its values, each by itself."""
        return self.run.arrivals(self.first, self.stop)

    def fits(self, block: Block) -> bool:
        """Whether it can be put by slices: on the block's grid, to be taken as it is, on empty or equal slots."""
        first, stop = self.first, self.stop
        if self.phase_s != block.phase_s:
            return False
        start, number = self.slot, stop - first
        qualities = self.run.qualities[first:stop]
        if qualities.count(_VALID) + qualities.count(_EDITED) != number:
            return False
        held = block.qualities[start : start + number]
        if held.count(_MISSING) == number:
            return True
        return held == qualities and block.units[start : start + number] == self.run.units[first:stop]

    def put(self, block: Block, history: History) -> bool:
        """Put what `fits`; whether anything changed."""
        start, number, run = self.slot, self.stop - self.first, self.run
        stop = start + number
        if block.qualities[start]:  # equal values, there already
            return False
        block.units[start:stop] = run.units[self.first : self.stop]
        block.qualities[start:stop] = run.qualities[self.first : self.stop]
        block.states[start:stop] = self.states(self.late())
        block.causes[start:stop] = bytes(number)
        block.outcome_ids[start:stop] = array("q", [run.outcome_id]) * number
        history.count_new(run.outcome_id, number)
        return True

    def late(self) -> int:
        """How many of its values, the first ones, came late."""
        run = self.run
        span = run.taken_at - run.late_after_s - run.times[self.first]
        return min(-(-span // run.step_s), self.stop - self.first) if span > 0 else 0

    def states(self, late: int) -> bytes:
        """The states of its slots once it is there; `late`: how many are so."""
        number = self.stop - self.first
        return _LATE * late + _GOT * (number - late) if late else _GOT * number


def pieces(run: Run) -> Iterator[Piece | Arrival]:
    """A run cut at the ends of its days. One whose times do not follow each other by its step comes as arrivals."""
    step_s, number = run.step_s, len(run.times)
    if not run.regular():
        yield from run.arrivals()
        return
    start, first = run.times[0], 0
    while first < number:
        day, phase_s, slot = place(start + first * step_s, step_s)
        stop = min(number, first + DAY_S // step_s - slot)
        yield Piece((day, run.meter_key, run.code, step_s), phase_s, slot, run, first, stop)
        first = stop
