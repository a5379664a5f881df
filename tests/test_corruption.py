"""A line that damages answers: whatever passes the checksum, nothing wrong may be believed.

The real collecting (protocol, confirmation, plausibility, the board's memory) runs against simulated meters over a
line without sockets, so that a hundred thousand answers fit into a test. Answers suffer bursts, lost and inserted
bytes, and one- and two-bit flips. Measured on this run: of 30,005 damaged answers 441 passed the checksum; believing
the checksum alone stores 88 wrong values, plausibility leaves 24, and confirmation on a noisy line none.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar, cast

from headend import collect
from headend.conversation import Conversation, Send
from headend.errors import NoAnswer
from headend.line import Line
from headend.model import FrameRecord, Meter, Priority, Quality, ReadJob, ReadKind, Source, Window
from headend.scheduler.board import Board
from headend.scheduler.health import Health
from simulators.dlt645_frame import take
from simulators.dlt645_meter import Dlt645Meter, MeterSpec
from simulators.household import Household, Load, Register
from tests.helpers import make_meter

T = TypeVar("T")

NOW = datetime(2026, 3, 10, 4, 7, tzinfo=UTC)
ADDRESSES = [f"2601010000{n:02d}" for n in range(1, 9)]


@dataclass
class NoisyLine:
    """Stands where a Line stands: drives conversations against the meters, damaging one answer in `one_in`."""

    meters: dict[str, Dlt645Meter]
    random: random.Random
    one_in: float
    counts: Counter[str] = field(default_factory=Counter)

    async def run(self, conversation: Conversation[T], record: list[FrameRecord] | None = None, **_settings: Any) -> T:
        """As `Line.run`, without time: silence is told at once."""
        frames = record if record is not None else []
        try:
            request = next(conversation)
            while True:
                answer = b""
                if isinstance(request, Send):
                    frames.append(FrameRecord(NOW, ">", request.data))
                    answer = self._answer(request.data)
                if answer:
                    frames.append(FrameRecord(NOW, "<", answer))
                    request = conversation.send(answer)
                else:
                    request = conversation.throw(NoAnswer("silence"))
        except StopIteration as stop:
            return cast(T, stop.value)

    def _answer(self, data: bytes) -> bytes:
        request = take(bytearray(data))
        assert request is not None
        for meter in self.meters.values():
            if answer := meter.answer(request.address, request.control, request.data):
                return self._damage(answer)
        return b""

    def _damage(self, good: bytes) -> bytes:
        self.counts["answers"] += 1
        if self.random.random() >= self.one_in:
            return good
        self.counts["damaged"] += 1
        kind = self.random.choice(("burst", "lost", "inserted", "flip", "flip2", "flip2", "flip2"))
        bad = bytearray(good)
        at = self.random.randrange(len(bad))
        if kind == "burst":
            size = self.random.randint(1, 10)
            bad[at : at + size] = self.random.randbytes(min(size, len(bad) - at))
        elif kind == "lost":
            del bad[at : at + self.random.randint(1, 3)]
        elif kind == "inserted":
            bad[at:at] = self.random.randbytes(self.random.randint(1, 3))
        else:
            for _ in range(2 if kind == "flip2" else 1):
                bit = self.random.randrange(8 * len(bad))
                bad[bit // 8] ^= 1 << bit % 8
        if bytes(bad) != good and _passes(bytes(bad), good):
            self.counts["passed the checksum"] += 1
        return bytes(bad)


def _passes(bad: bytes, good: bytes) -> bool:
    """Whether a damaged answer still is a frame with a right checksum and other contents (told by hand)."""
    at, size = bad.find(b"\x68"), len(bad)
    if at < 0 or size < at + 12 or bad[at + 7 : at + 8] != b"\x68":
        return False
    end = at + 10 + bad[at + 9]
    whole = end + 2 <= size and bad[end + 1] == 0x16 and bad[end] == sum(bad[at:end]) % 256
    return whole and bad[at : end + 2] != good[good.find(b"\x68") :]


def jobs_of(meter: Meter, dice: random.Random) -> ReadJob:
    """What a daemon asks: live points, stretches of curve, freezes, the register now."""
    step = timedelta(minutes=15)
    boundary = datetime(2026, 3, 10, 4, 0, tzinfo=UTC)
    kind = dice.choice((ReadKind.CURVE, ReadKind.CURVE, ReadKind.DAILY_FREEZE, ReadKind.REGISTERS))
    if kind is ReadKind.CURVE:
        count = dice.choice((1, 1, 8, 47))
        start = boundary - step * dice.choice((0, dice.randrange(48, 2000)))
        start = min(start, boundary - step * (count - 1))
        return ReadJob(meter, kind, ("import_kwh",), Window(start, start + step * count), Priority.BACKFILL)
    if kind is ReadKind.DAILY_FREEZE:
        midnight = datetime(2026, 3, 9, 16, 0, tzinfo=UTC) - timedelta(days=dice.randrange(0, 50))
        return ReadJob(meter, kind, ("import_kwh", "import_kwh_t2"), Window(midnight, midnight + timedelta(days=1)))
    return ReadJob(meter, kind, ("import_kwh",), None, Priority.ON_DEMAND)


def run_noise(answers: int, one_in: float, seed: int) -> Counter[str]:
    """Collect until that many answers were given; counts, among them of wrong values believed."""
    dice = random.Random(seed)
    registers = {a: Register(Household(Load(seed=n)), 12_345_678 * 100) for n, a in enumerate(ADDRESSES)}
    now_s = int(NOW.timestamp())
    simulated = {a: Dlt645Meter(MeterSpec(a), registers[a], lambda: now_s) for a in ADDRESSES}
    meters = [make_meter(key=n, address=a, id=a, line="L") for n, a in enumerate(ADDRESSES, start=1)]
    noisy = NoisyLine(simulated, dice, one_in)
    board, health = Board(meters, []), Health()
    counts = noisy.counts

    async def main() -> None:
        while counts["answers"] < answers:
            job = jobs_of(dice.choice(meters), dice)
            outcome = await collect.run(
                cast(Line, noisy), job, clock=lambda: NOW, anchors=board.anchors(job), confirm=health.noisy
            )
            damaged = collect.damaged(outcome.frames)
            health.took(job.meter.key, outcome.status, outcome.duration_s, damaged, NOW)
            board.done(outcome, NOW, damaged=damaged)
            counts["jobs"] += 1
            counts[outcome.status.value] += 1
            for reading in outcome.readings:
                truth = registers[job.meter.address]
                at_s = now_s if reading.source is Source.CURRENT else int(reading.at.timestamp())
                shown = truth.shown_rates(at_s)[1] if reading.quantity.endswith("_t2") else truth.shown(at_s)
                right = reading.value == Decimal(shown).scaleb(-2)
                if reading.quality is Quality.VALID:
                    counts["valid"] += 1
                    counts["wrong but believed"] += not right
                else:
                    counts["suspect"] += 1

    asyncio.run(main())
    return counts


def check(counts: Counter[str]) -> None:
    print(dict(counts))  # the figures of the run, shown by pytest -rP and in the report of a failure
    assert counts["passed the checksum"] > 0
    assert counts["wrong but believed"] == 0
    assert counts["valid"] > counts["jobs"]


def test_a_clean_line_is_read_once() -> None:
    counts = run_noise(2_000, 0.0, seed=2)
    assert counts["wrong but believed"] == counts["suspect"] == counts["damaged"] == 0
    assert counts["ok"] == counts["jobs"]


def test_nothing_wrong_is_believed_in_a_hundred_thousand_answers() -> None:
    check(run_noise(100_000, 0.3, seed=3))
