"""One conversation under way on an open link: feeds chunks to the generator and keeps its time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from headend.conversation import Conversation, More, Pause, Request, Send, SetSpeed
from headend.endpoints import parse_serial
from headend.errors import LineDown, NoAnswer
from headend.line.links import Format, Link, SerialLink
from headend.line.stats import Phase
from headend.model import FrameRecord
from headend.wire import bits_per_char

if TYPE_CHECKING:
    from headend.line.line import Line

__all__ = ["Running"]

T = TypeVar("T")

_Resume = Callable[[], Request]

# What differs in fewer bytes is a checksum; what is alike for so few within a secret is so by chance.
_SHORTEST_SECRET_BYTES = 3
_GAP_BYTES = 2


class Running(Generic[T]):
    """One conversation on `link`.

    The reply timeout runs from the last byte sent; once bytes come, the answer may go on as long as no gap is longer
    than `gap_s`. After a timeout the line is drained until it has been quiet for `quiet_s`, so that no late answer
    reaches the next request. char_s: time of a character on the wire, 0 when its speed is unknown.
    """

    __slots__ = (
        "_char_s",
        "_conversation",
        "_deadline",
        "_done",
        "_down",
        "_echo",
        "_held",
        "_hidden",
        "_line",
        "_loop",
        "_meter",
        "_phase",
        "_received",
        "_received_at",
        "_record",
        "_sending_s",
        "_since",
        "_timer",
        "_waiting",
        "link",
        "timed_out",
    )

    def __init__(
        self,
        line: Line,
        link: Link,
        conversation: Conversation[T],
        record: list[FrameRecord],
        meter: str,
        char_s: float,
    ) -> None:
        self.link = link
        self.timed_out = False
        self._line = line
        self._conversation = conversation
        self._record = record
        self._meter = meter
        self._char_s = char_s
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[T] = self._loop.create_future()
        self._received = bytearray()
        self._received_at: datetime | None = None
        self._echo = b""
        self._hidden: list[tuple[bytes, bytes]] = []
        self._waiting = False
        self._down = False
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._held: Send | Pause | SetSpeed | None = None
        self._phase = Phase.FREE
        self._since = time.monotonic()
        self._sending_s = 0.0

    async def result(self, *, dirty: bool) -> T:
        """Drive the conversation to its end. dirty: the one before it timed out, so the line is drained first."""
        self.timed_out = dirty
        self._go_on(partial(next, self._conversation))
        try:
            return await self._done
        finally:
            self._turn(Phase.FREE, failed=True)  # only if it was cut off: otherwise the phase is FREE already
            self._cancel_timer()
            self._keep_received()
            self._conversation.close()

    # -- what the link brings ------------------------------------------------------------------------------------------

    def feed(self, chunk: bytes) -> None:
        """A chunk arrived."""
        if self._held is not None:
            self._line.stats.stale_bytes += len(chunk)
            if self.timed_out and isinstance(self._held, Send):
                self._arm(self._loop.time() + self._line.settings.quiet_s)
            return
        if not self._waiting or self._done.done():
            self._line.stats.stale_bytes += len(chunk)
            return
        if self._received_at is None:
            self._received_at = self._line.clock()
        self._received += chunk
        if chunk == self._line.settings.heartbeat:
            return
        if self._echo:
            chunk = self._strip_echo(chunk)
            if not chunk:
                return
        if self._phase is Phase.SENT:
            self._turn(Phase.HEARING)
        self._deadline = max(self._deadline, self._loop.time() + self._line.settings.gap_s)
        self._go_on(partial(self._conversation.send, chunk))

    def lose(self, why: str) -> None:
        """The link ended."""
        if not self._done.done():
            self._throw(LineDown(f"line {self._line.name} lost: {why}"))

    def _strip_echo(self, chunk: bytes) -> bytes:
        """Take our own bytes off the front, as far as they match; from the first difference on it is no echo."""
        size = min(len(chunk), len(self._echo))
        if chunk[:size] == self._echo[:size]:
            self._echo = self._echo[size:]
            return chunk[size:]
        self._echo = b""
        return chunk

    # -- what the generator asks ---------------------------------------------------------------------------------------

    def _go_on(self, resume: _Resume | None) -> None:
        """Resume the generator and do what it asks, until it waits for something."""
        while resume is not None:
            try:
                request = resume()
            except StopIteration as stop:
                self._finish(stop.value)
                return
            except Exception as error:
                self._fail(error)
                return
            resume = self._obey(request)

    def _throw(self, error: Exception) -> None:
        self._turn(Phase.FREE, failed=True)
        self._waiting = False
        self._held = None
        self._go_on(partial(self._conversation.throw, error))

    def _obey(self, request: Request) -> _Resume | None:
        """Do what the generator asks; how to resume it if it need not wait."""
        if isinstance(request, More):
            self._waiting = True  # the deadline already set goes on
            if self._timer is None:
                self._arm(max(self._loop.time(), self._line.quiet_since) + self._line.settings.reply_s)
            return None
        self._turn(Phase.FREE)
        now = self._loop.time()
        until = self._silent_until(request, now)
        if until > now:
            self._waiting = False
            self._held = request
            self._phase = Phase.HELD
            self._arm(until)
            return None
        return self._do(request)

    def _silent_until(self, request: Send | Pause | SetSpeed, now: float) -> float:
        """Loop time before which `request` is not to be done."""
        line = self._line
        if isinstance(request, Pause):
            return max(now, line.quiet_since) + request.seconds
        if isinstance(request, SetSpeed):
            return line.quiet_since
        return now + line.settings.quiet_s if self.timed_out else line.quiet_since + line.settings.turnaround_s

    def _do(self, request: Send | Pause | SetSpeed) -> _Resume | None:
        if isinstance(request, Send):
            self.timed_out = False
            return self._send(request)
        self._keep_received()
        if isinstance(request, SetSpeed) and isinstance(self.link, SerialLink):
            form = Format(*parse_serial(request.serial))
            try:
                self.link.set_format(form)
            except LineDown as error:
                return partial(self._conversation.throw, error)
            self._char_s = bits_per_char(form.bytesize, form.parity, form.stopbits) / form.baud
        return partial(self._conversation.send, b"")

    def _send(self, request: Send) -> _Resume | None:
        try:
            self._write(request)
        except LineDown as error:
            if self._down:  # it was told so before and sends all the same
                self._fail(error)
                return None
            self._down = True
            return partial(self._conversation.throw, error)
        reply_s = request.reply_s if request.reply_s is not None else self._line.settings.reply_s
        self._arm(self._line.quiet_since + reply_s)
        if not request.expect_reply:
            self._turn(Phase.FREE)
            return partial(self._conversation.send, b"")
        self._waiting = True
        return None

    def _write(self, request: Send) -> None:
        self._keep_received()
        line, data = self._line, request.data
        self._note(FrameRecord(line.clock(), ">", data if request.shown is None else request.shown))
        if request.shown is not None:
            self._hidden += _hidden_parts(data, request.shown)
        line.stats.sends += 1
        line.stats.sent_bytes += len(data)
        if line.settings.echo:
            self._echo = data
        self._phase = Phase.SENT
        self._sending_s = len(data) * self._char_s
        line.quiet_since = max(self._loop.time(), line.quiet_since) + self._sending_s
        self.link.write(data)

    def _keep_received(self) -> None:
        if self._received_at is not None:
            received = bytes(self._received)
            for secret, shown in self._hidden:  # an adapter's echo, or a meter that repeats what it was sent
                received = received.replace(secret, shown)
            self._note(FrameRecord(self._received_at, "<", received))
            self._received_at = None
            self._received.clear()

    def _note(self, frame: FrameRecord) -> None:
        self._record.append(frame)
        self._line.stats.keep(self._meter, frame)
        for tap in self._line.taps:
            tap(self._meter, frame)

    # -- time ----------------------------------------------------------------------------------------------------------

    def _turn(self, phase: Phase, *, failed: bool = False) -> None:
        """A new phase begins; the time of the one that ends goes into the line's budget."""
        now = time.monotonic()
        if self._phase is not Phase.FREE:
            self._line.stats.spend(self._phase, now - self._since, self._sending_s, failed=failed)
        self._phase = phase
        self._since = now

    def _arm(self, deadline: float) -> None:
        """Set the deadline; a timer already running is left to find it moved, which is cheaper than a new one."""
        self._deadline = deadline
        if self._timer is None or self._timer.when() > deadline:
            self._cancel_timer()
            self._timer = self._loop.call_at(deadline, self._tick)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        if self._done.done():
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._tick)
            return
        if self._held is not None:
            request, self._held = self._held, None
            self._turn(Phase.FREE)
            self._go_on(self._do(request))
            return
        self.timed_out = True
        stats = self._line.stats
        stats.timeouts += 1
        if self._received_at is None:
            stats.silences += 1
        else:
            stats.garbled += 1
        self._keep_received()
        self._throw(NoAnswer(f"no answer on line {self._line.name}"))

    def _finish(self, value: T) -> None:
        self._turn(Phase.FREE)
        self._waiting = False
        if not self._done.done():
            self._done.set_result(value)

    def _fail(self, error: Exception) -> None:
        self._turn(Phase.FREE)
        self._waiting = False
        with suppress(asyncio.InvalidStateError):
            self._done.set_exception(error)


def _hidden_parts(data: bytes, shown: bytes) -> list[tuple[bytes, bytes]]:
    """Where `data` differs from what is shown of it: what must not be recorded, and what stands for it."""
    if len(data) != len(shown):
        return [(data, shown)]
    spans: list[list[int]] = []
    for at in (i for i, (byte, other) in enumerate(zip(data, shown, strict=True)) if byte != other):
        if spans and at - spans[-1][1] <= _GAP_BYTES:
            spans[-1][1] = at + 1
        else:
            spans.append([at, at + 1])
    return [(data[a:b], shown[a:b]) for a, b in spans if b - a >= _SHORTEST_SECRET_BYTES]
