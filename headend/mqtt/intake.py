"""From the broker to the store: take, understand, store, and only then acknowledge, first to the broker, then to the
concentrator. Whatever dies in between, the message comes again, and storing it again changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from headend.civil import to_epoch_s
from headend.errors import HeadendError
from headend.ingest import Ingest, database_fails
from headend.mqtt.batch import State
from headend.mqtt.client import Client, Received
from headend.mqtt.gaps import Gaps
from headend.mqtt.interpret import Interpreter, Understood, quarantined
from headend.protocols.hes_mqtt.messages import down_topic, encode_ack, encode_command
from headend.store.sheets import Message, Written

__all__ = ["Heard", "Intake", "IntakeStats"]

log = logging.getLogger(__name__)

_BATCH: Final = 200
_BATCH_BYTES: Final = 16 * 1024 * 1024
_STORE_RESTS_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
_MISSING_TOLD: Final = 500  # in one acknowledgement
_RESEND_FOR_S: Final = 600  # how long a request to send again may be carried out
_CONCENTRATORS: Final = 100_000  # of which is remembered how they are; a stranger must not fill the memory


@dataclass(slots=True)
class IntakeStats:
    """What became of what came since the start. messages: stored. new, same, replaced: values. unknown: messages kept
    aside, whole or in part. stale: left to come again, as their connection had gone. failed: could not even be kept."""

    messages: int = 0
    new: int = 0
    same: int = 0
    replaced: int = 0
    unknown: int = 0
    stale: int = 0
    failed: int = 0
    acks: int = 0
    resends: int = 0
    store_waits: int = 0
    last_reason: str = field(default="")


@dataclass(slots=True)
class Heard:
    """How a concentrator is, by what it sent last. at: when anything of it came."""

    at: datetime
    state: State | None = None
    state_at: datetime | None = None
    messages: int = 0
    boot: int | None = None
    upto: int | None = None
    missing: int = 0


class Intake:
    """One broker's messages on their way into the store; for one event loop."""

    def __init__(
        self,
        client: Client,
        interpreter: Interpreter,
        ingest: Ingest,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self.stats = IntakeStats()
        self.heard: dict[str, Heard] = {}
        self._client = client
        self._interpreter = interpreter
        self._ingest = ingest
        self._clock = clock
        self._gaps = Gaps()
        self._unsent: dict[str, tuple[int, int, tuple[int, ...]]] = {}  # acknowledgements that found no connection
        self._number = 0
        self._ready: asyncio.Queue[tuple[list[Received], list[Understood]]] = asyncio.Queue(1)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to take messages; call it within the event loop."""
        self._tasks = [asyncio.create_task(run()) for run in (self._understand, self._store_all, self._ask_again)]

    async def close(self) -> None:
        """Stop. What is not acknowledged comes again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- while one batch is being stored, the next is understood -------------------------------------------------------

    async def _understand(self) -> None:
        while True:
            taken = [one for one in await self._client.take(_BATCH, _BATCH_BYTES) if not self._is_stale(one)]
            if taken:
                await self._ready.put((taken, await asyncio.to_thread(self._understood, taken)))

    def _is_stale(self, message: Received) -> bool:
        stale = self._client.stale(message)
        self.stats.stale += stale
        return stale

    def _understood(self, messages: Sequence[Received]) -> list[Understood]:
        understand = self._interpreter.understand
        return [
            understand(one.topic, one.payload, one.received_at, size=one.size, retained=one.retained)
            for one in messages
        ]

    async def _store_all(self) -> None:
        while True:
            messages, understood = await self._ready.get()
            try:
                await self._store_batch(messages, understood)
            except Exception:
                # Unacknowledged, they come again at the next connection.
                log.exception("mqtt %s: messages could not be stored", self._client.settings.name)
                self.stats.failed += len(messages)

    async def _store_batch(self, messages: Sequence[Received], understood: Sequence[Understood]) -> None:
        written = await self._stored([one.message for one in understood])
        told: dict[str, tuple[int, int, Written]] = {}
        for message, one, result in zip(messages, understood, written, strict=True):
            if result is None:
                continue  # said; it stays unacknowledged
            self._client.ack(message)
            self._count(one, result)
            self._note(message, one, result)
            if one.message.sequence is not None:
                concentrator, boot, seq = one.message.sequence
                told[concentrator] = boot, seq, result
            if one.reply[0]:
                self._client.send(self._client.settings.topic(one.reply[0]), one.reply[1])
        for concentrator, (boot, seq, result) in told.items():
            self._tell(concentrator, boot, seq, result)

    # -- the store ----------------------------------------------------------------------------------------------------

    async def _stored(self, messages: Sequence[Message]) -> list[Written | None]:
        """Store messages; tried for as long as the database is away. One the store refuses is kept aside instead, and
        None stands where even that fails."""
        results: list[Written | Exception | None] = [None] * len(messages)
        left = list(range(len(messages)))
        rests = iter(_STORE_RESTS_S)
        rest_s = _STORE_RESTS_S[0]
        while left:
            done = await asyncio.gather(
                *(self._ingest.put_message(messages[index]) for index in left), return_exceptions=True
            )
            again = []
            for index, result in zip(left, done, strict=True):
                if isinstance(result, BaseException) and not isinstance(result, Exception):
                    raise result
                results[index] = result
                if isinstance(result, Exception) and database_fails(result):
                    again.append(index)
            left = again
            if left:
                self.stats.store_waits += 1
                self._say(f"waits for the store: {results[left[0]]}")
                rest_s = next(rests, rest_s)
                await asyncio.sleep(rest_s)
        return [
            result if isinstance(result, Written) else await self._aside(message, result)
            for message, result in zip(messages, results, strict=True)
        ]

    async def _aside(self, message: Message, error: Exception | None) -> Written | None:
        reason = f"the store does not take it: {error}"
        self._say(reason)
        kept = quarantined(self._client.settings, message.topic, message.payload, message.received_at, reason).message
        if message.unplaced:  # it has its reasons already
            row = message.unplaced[0]
            kept = replace(kept, unplaced=(replace(row, reason=f"{reason}; {row.reason}"),))
        rests = iter(_STORE_RESTS_S)
        while True:
            try:
                return await self._ingest.put_message(replace(kept, sequence=message.sequence))
            except HeadendError as failure:
                if not database_fails(failure):
                    log.error("mqtt %s: a message can't even be kept aside: %s", self._client.settings.name, failure)
                    self.stats.failed += 1
                    return None
                await asyncio.sleep(next(rests, _STORE_RESTS_S[-1]))

    # -- what it says about whom ---------------------------------------------------------------------------------------

    def _count(self, one: Understood, result: Written) -> None:
        stats = self.stats
        stats.messages += 1
        stats.new += result.new
        stats.same += result.same
        stats.replaced += result.replaced
        if one.reason:
            stats.unknown += 1
            self._say(f"kept aside: {one.message.topic}: {one.reason}")

    def _note(self, message: Received, one: Understood, result: Written) -> None:
        """How the concentrator is. A retained message tells how it was, not that it was heard."""
        name = one.concentrator
        if not name:
            return
        heard = self.heard.get(name)
        if heard is None:
            if len(self.heard) >= _CONCENTRATORS:
                return
            heard = self.heard[name] = Heard(message.received_at)
        heard.at = message.received_at
        heard.messages += 1
        if one.state is not None:
            heard.state, heard.state_at = one.state, message.received_at
        if one.message.sequence is not None and result.upto is not None:
            heard.boot, heard.upto, heard.missing = one.message.sequence[1], result.upto, len(result.missing)

    def _say(self, reason: str) -> None:
        """Once for each reason in a row: one that repeats itself must not fill the log."""
        if reason != self.stats.last_reason:
            log.warning("mqtt %s: %s", self._client.settings.name, reason[:500])
        self.stats.last_reason = reason

    # -- to concentrators ----------------------------------------------------------------------------------------------

    def _tell(self, concentrator: str, boot: int, seq: int, result: Written) -> None:
        """Acknowledge what is stored: everything up to a number, but for what is missing below it. What was asked for
        in vain is no longer called missing: the concentrator would keep everything behind it for ever."""
        if result.upto is None:
            return
        self._gaps.note(concentrator, boot, result.missing, asyncio.get_running_loop().time())
        upto = max(result.upto, seq, result.missing[-1] + 1 if result.missing else 0)
        given_up = self._gaps.given_up(concentrator, boot) if result.missing else frozenset()
        missing = [number for number in result.missing if number not in given_up]
        if len(missing) > _MISSING_TOLD:
            upto, missing = missing[_MISSING_TOLD] - 1, missing[:_MISSING_TOLD]
        self._acknowledge(concentrator, boot, upto, tuple(missing))

    def _acknowledge(self, concentrator: str, boot: int, upto: int, missing: tuple[int, ...]) -> None:
        now_s = to_epoch_s(self._clock())
        payload = encode_ack(concentrator, self._mid(), now_s, boot, upto, list(missing))
        if self._client.send(self._client.settings.topic(down_topic(concentrator, "ack")), payload):
            self.stats.acks += 1
            self._unsent.pop(concentrator, None)
        elif len(self._unsent) < _CONCENTRATORS:
            self._unsent[concentrator] = boot, upto, missing

    def connected(self) -> None:
        """There is a connection: say what could not be said before."""
        for concentrator, told in list(self._unsent.items()):
            self._acknowledge(concentrator, *told)

    def _mid(self) -> str:
        self._number += 1
        return f"h-{to_epoch_s(self._clock())}-{self._number}"

    async def _ask_again(self) -> None:
        """Ask for what is missing."""
        settings = self._client.settings
        while settings.resend:
            await asyncio.sleep(1.0)
            if not self._client.connected.is_set():
                continue
            now_s = to_epoch_s(self._clock())
            for ask in self._gaps.due(asyncio.get_running_loop().time()):
                mid = self._mid()
                payload = encode_command(
                    ask.concentrator,
                    mid,
                    now_s,
                    "resend",
                    mid,
                    now_s + _RESEND_FOR_S,
                    args={"boot": ask.boot, "seq": list(ask.numbers)},
                )
                if self._client.send(settings.topic(down_topic(ask.concentrator, "cmd")), payload):
                    self.stats.resends += 1
