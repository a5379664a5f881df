"""A concentrator: meters behind it, messages of the canonical protocol v1 in front of it, and a buffer in between.

It does no IO: whoever runs it (`mqtt_runner`) tells it when it is connected and what arrives, and is handed what to
publish. Everything it publishes is true, and `truths` says what it was.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from simulators.bus import Shared
from simulators.clock import Now
from simulators.mqtt_buffer import Buffer, Kept
from simulators.mqtt_meters import COLUMNS, ColumnSpec, ConMeter, Truth
from simulators.mqtt_orders import obey, relay_frame

__all__ = ["ESTIMATED", "MISSING", "Concentrator", "ConcentratorSpec", "MessageFaults", "Out", "compact"]

ESTIMATED, SUSPECT, MISSING, CLOCK_DOUBTFUL = 1, 2, 4, 8  # quality bits of a row


@dataclass(frozen=True, slots=True)
class Out:
    """Something to publish, with QoS 1."""

    topic: str
    payload: bytes
    retain: bool = False


@dataclass(frozen=True, slots=True)
class ConcentratorSpec:
    """name: its id in topics. columns, period_s: of interval messages. clock_error_s: its clock minus true time.
    numbers_all: state, answers and raw frames take a sequence number too, not only reads and events.
    part_meters, part_rows: so many meters, or rows of history, in one part of an answer, 0 for all in one. repeats:
    sends everything that is not acknowledged again whenever it connects."""

    name: str
    columns: tuple[ColumnSpec, ...] = COLUMNS
    period_s: int = 900
    firmware: str = "sim-1.0"
    clock_error_s: int = 0
    numbers_all: bool = False
    part_meters: int = 0
    part_rows: int = 0
    repeats: bool = True


@dataclass(frozen=True, slots=True)
class MessageFaults:
    """Probabilities, 0 to 1, of what befalls a numbered message on its first way out; seeded.

    lose: not published, though kept, so it can be asked for. forget: not published and not kept: a hole for ever.
    duplicate: published twice. swap: comes after the one behind it. unanswered: of a command, not done and not
    answered."""

    lose: float = 0.0
    forget: float = 0.0
    duplicate: float = 0.0
    swap: float = 0.0
    unanswered: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _Made:
    """A reads message, remembered for `truths`. error_s: how wrong the clock was."""

    boot: int
    seq: int
    kind: str
    columns: tuple[ColumnSpec, ...]
    meters: tuple[ConMeter, ...]
    times: tuple[int, ...]
    error_s: int
    forgotten: bool


def compact(message: Mapping[str, Any]) -> bytes:
    """JSON without blanks."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


class Concentrator:
    """`emit` is called with what to publish, only while it is connected. now: true time. boot: of its numbering; by
    default one more than its buffer remembers. ports: what hangs on its serial ports, for raw frames. `done` counts
    what it did and heard; `commands` keeps every command it carried out."""

    def __init__(
        self,
        spec: ConcentratorSpec,
        meters: Sequence[ConMeter],
        now: Now = time.time,
        *,
        emit: Callable[[Out], None] | None = None,
        faults: MessageFaults | None = None,
        folder: Path | None = None,
        boot: int | None = None,
        ports: Mapping[str, Shared] | None = None,
        limit: int = 0,
    ) -> None:
        self.spec = spec
        self.meters = {meter.address: meter for meter in meters}
        self.now = now
        self.emit = emit or (lambda _out: None)
        self.faults = faults or MessageFaults()
        self.ports = dict(ports or {})
        self.buffer = Buffer(folder, limit=limit)
        self.boot = self.buffer.boot + 1 if boot is None else boot
        self.seq = 0
        self.clock_error_s = spec.clock_error_s
        self.period_s = spec.period_s
        self.online = False
        self.done: Counter[str] = Counter()
        self.commands: list[dict[str, Any]] = []
        self._made: list[_Made] = []
        self._answers: dict[str, list[dict[str, Any]]] = {}
        self._held: list[Out] = []
        self._random = Random(f"{self.faults.seed}:{spec.name}")

    # -- what it knows -------------------------------------------------------------------------------------------

    def believed_s(self) -> int:
        """The time by its own clock, epoch seconds."""
        return int(self.now()) + self.clock_error_s

    def topic(self, what: str, way: str = "up") -> str:
        """`hes/v1/NAME/up/WHAT`."""
        return f"hes/v1/{self.spec.name}/{way}/{what}"

    @property
    def subscription(self) -> str:
        """Where it listens."""
        return self.topic("#", "down")

    def truths(self, *, forgotten: bool = False) -> Iterator[Truth]:
        """Every value it has put into a message that it keeps until acknowledged; forgotten: those of messages that
        nobody ever saw as well. A value sent in two messages comes twice."""
        for made in self._made:
            if made.forgotten and not forgotten:
                continue
            for meter in made.meters:
                if meter.silent:
                    continue
                for at_s in made.times:
                    true_at_s = at_s - made.error_s
                    for column in made.columns:
                        value = column.value(column.integer(meter.units(column.obis, true_at_s)))
                        yield Truth(meter.address, column.obis, at_s, value, made.kind, true_at_s)

    # -- what it says --------------------------------------------------------------------------------------------

    def _envelope(self, what: str, *, numbered: bool) -> dict[str, Any]:
        message: dict[str, Any] = {"v": 1, "type": what, "con": self.spec.name}
        if numbered:
            self.seq += 1
            message |= {"mid": f"{self.spec.name}-{self.boot}-{self.seq}", "boot": self.boot, "seq": self.seq}
        else:
            self.done["unnumbered"] += 1
            message["mid"] = f"{self.spec.name}-{self.boot}-u{self.done['unnumbered']}"
        message["ts"] = self.believed_s()
        return message

    def reads(
        self,
        kind: str,
        times: Iterable[int],
        *,
        columns: Sequence[ColumnSpec] | None = None,
        addresses: Iterable[str] | None = None,
        bits: int = 0,
    ) -> Kept:
        """One message of `kind` with a row at each of `times` (by its own clock) for every meter, sent and kept."""
        cols = tuple(columns or self.spec.columns)
        meters = tuple(self.meters.values() if addresses is None else (self.meters[a] for a in addresses))
        instants = tuple(times)
        message = self._reads(kind, instants, cols, meters, bits)
        forgotten = self._random.random() < self.faults.forget
        made = _Made(self.boot, self.seq, kind, cols, meters, instants, self.clock_error_s, forgotten)
        self._made.append(made)
        return self._numbered("reads", message, forgotten=forgotten)

    def _reads(
        self, kind: str, times: Sequence[int], cols: Sequence[ColumnSpec], meters: Iterable[ConMeter], bits: int
    ) -> dict[str, Any]:
        message = self._envelope("reads", numbered=True)
        message["kind"] = kind
        if kind == "interval":
            message["period"] = self.period_s
        message["cols"] = [[column.obis, column.unit, column.scaler] for column in cols]
        message["meters"] = [self._rows(meter, cols, times, bits) for meter in meters]
        return message

    def interval_body(self) -> bytes:
        """The message `interval` would send, numbered, but neither sent nor kept: something to spoil."""
        now_s = self.believed_s()
        times = (now_s - now_s % self.period_s,)
        return compact(self._reads("interval", times, self.spec.columns, self.meters.values(), 0))

    def _rows(self, meter: ConMeter, cols: Sequence[ColumnSpec], times: Sequence[int], bits: int) -> dict[str, Any]:
        if meter.silent:
            return {"m": meter.address, "r": [[at_s, [None] * len(cols), MISSING] for at_s in times]}
        error_s = self.clock_error_s
        rows = [[at_s, [col.integer(meter.units(col.obis, at_s - error_s)) for col in cols], bits] for at_s in times]
        entry: dict[str, Any] = {"m": meter.address, "r": rows}
        if meter.clock_offset_s:
            entry["clk"] = meter.clock_offset_s
        return entry

    def interval(self, at_s: int | None = None, **more: Any) -> Kept:
        """One interval per meter: the boundary at `at_s`, by default the last one by its clock."""
        now_s = self.believed_s()
        return self.reads("interval", (now_s - now_s % self.period_s if at_s is None else at_s,), **more)

    def whole_day(self, start_s: int, **more: Any) -> Kept:
        """Every boundary of the 24 hours from `start_s` on, for every meter, in one message."""
        return self.reads("interval", range(start_s, start_s + 86_400, self.period_s), **more)

    def backlog(self, start_s: int, end_s: int, *, rows: int = 1) -> int:
        """Record everything from `start_s` to before `end_s`, `rows` boundaries a message; the number of messages."""
        times = range(start_s, end_s, self.period_s)
        for first in range(0, len(times), rows):
            self.reads("interval", times[first : first + rows])
        return -(-len(times) // rows)

    def register(self, **more: Any) -> Kept:
        """All columns as they stand now."""
        return self.reads("register", (self.believed_s(),), **more)

    def daily_freeze(self, at_s: int, **more: Any) -> Kept:
        """The registers frozen at `at_s`, the meters' midnight."""
        return self.reads("daily_freeze", (at_s,), **more)

    def monthly_freeze(self, at_s: int, **more: Any) -> Kept:
        """The registers frozen at `at_s`, the first of a month."""
        return self.reads("monthly_freeze", (at_s,), **more)

    def event(self, address: str, code: str, phase: str = "instant", at_s: int | None = None, **data: Any) -> Kept:
        """Something befell a meter, now or at `at_s`."""
        message = self._envelope("events", numbered=True)
        entry: dict[str, Any] = {"m": address, "t": self.believed_s() if at_s is None else at_s}
        entry |= {"code": code, "phase": phase}
        if data:
            entry["data"] = data
        message["events"] = [entry]
        return self._numbered("events", message, forgotten=self._random.random() < self.faults.forget)

    def state(self, online: bool = True) -> Out:
        """What it says of itself; retained."""
        message = self._envelope("state", numbered=self.spec.numbers_all and online)
        message |= {"online": online, "fw": self.spec.firmware, "proto": "hes/v1"}
        if online:
            message |= {"meters": len(self.meters), "backlog": len(self.buffer)}
        return Out(self.topic("state"), compact(message), retain=True)

    def will(self) -> Out:
        """What the broker says when it is gone."""
        return self.state(online=False)

    def answer(self, cid: str, body: Mapping[str, Any]) -> None:
        """Answer a command."""
        message = self._envelope("rsp", numbered=self.spec.numbers_all) | {"cid": cid, **body}
        self.say(Out(self.topic("rsp"), compact(message)))

    # -- sending -------------------------------------------------------------------------------------------------

    def say(self, out: Out) -> None:
        """Publish, if it is connected."""
        if self.online:
            self.done["published"] += 1
            self.emit(out)

    def _numbered(self, what: str, message: Mapping[str, Any], *, forgotten: bool) -> Kept:
        kept = Kept(self.boot, self.seq, self.topic(what), compact(message))
        if forgotten:
            self.done["forgotten"] += 1
            return kept
        self.buffer.add(kept)
        out = Out(kept.topic, kept.payload)
        faults, chance = self.faults, self._random.random
        if chance() < faults.lose:
            self.done["lost"] += 1
            return kept
        if chance() < faults.swap and not self._held:
            self.done["swapped"] += 1
            self._held.append(out)
            return kept
        self.say(out)
        if chance() < faults.duplicate:
            self.done["duplicated"] += 1
            self.say(out)
        self.release()
        return kept

    def release(self) -> None:
        """Let go what was held back to come out of order."""
        held, self._held = self._held, []
        for out in held:
            self.say(out)

    def connected(self) -> None:
        """It has a session: says so, and sends what is not acknowledged."""
        self.online = True
        self._held = []
        self.say(self.state())
        if self.spec.repeats:
            self.repeat()

    def disconnected(self) -> None:
        """What it says from now on is kept only."""
        self.online = False

    def repeat(self) -> int:
        """Send everything again that is not acknowledged; how many messages that were."""
        pending = self.buffer.pending()
        for kept in pending:
            self.say(Out(kept.topic, kept.payload))
        self.done["repeated"] += len(pending)
        return len(pending)

    def restart(self, *, forget: bool = False) -> None:
        """Start anew: another boot, numbers from 1. forget: what was kept is gone."""
        self.boot += 1
        self.seq = 0
        self._answers.clear()
        if forget:
            self.buffer.clear()

    # -- hearing -------------------------------------------------------------------------------------------------

    def hear(self, topic: str, payload: bytes) -> None:
        """A message for it arrived. What makes no sense is counted and ignored."""
        try:
            message = json.loads(payload)
            if message["con"] != self.spec.name or message["v"] != 1:
                raise ValueError("not for me")
            what = topic.rpartition("/")[2]
            if what == "ack":
                self._acknowledged(message)
            elif what == "cmd":
                obey(self, message, self._answers)
            elif what == "raw":
                relay_frame(self, message)
        except (KeyError, TypeError, ValueError, json.JSONDecodeError):
            self.done["not understood"] += 1

    def _acknowledged(self, message: Mapping[str, Any]) -> None:
        self.done["acks"] += 1
        for kept in self.buffer.acknowledged(message["boot"], message["upto"], message.get("missing", ())):
            self.resend(kept)

    def resend(self, kept: Kept) -> None:
        """Send a kept message again."""
        self.done["resent"] += 1
        self.say(Out(kept.topic, kept.payload))

    def frame_up(self, port: str, proto: str, data: bytes, mid: str) -> None:
        """A frame that came over a serial port. mid: of the message that asked for it."""
        message = self._envelope("raw", numbered=self.spec.numbers_all)
        message |= {"port": port, "proto": proto, "hex": data.hex().upper(), "re": mid}
        self.say(Out(self.topic("raw"), compact(message)))

    def unlucky(self, probability: float) -> bool:
        """Whether something of that probability happens now."""
        return self._random.random() < probability
