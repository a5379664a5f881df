"""The one door: whatever collected it, an outcome becomes stored values here, and nowhere else.

`write` does one transaction's work. `Ingest` runs it on a thread of its own, so that a line waits for the disk only
when too much is waiting, and one commit serves everything that waited.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from queue import Empty, SimpleQueue
from typing import Any

from sqlalchemy import Connection, insert
from sqlalchemy.exc import InterfaceError, OperationalError

from headend.civil import to_epoch_s
from headend.errors import HeadendError, StoreError
from headend.model import Cause, Outcome, Quality, Reading, ReadKind, SlotState, Source, Status
from headend.quantities import to_units
from headend.store import Store, schema
from headend.store.codes import codes
from headend.store.curves import open_from, tighten, write_curves
from headend.store.events import MeterEvent, put_events
from headend.store.evidence import EvidencePolicy, pack_frames
from headend.store.ledger import SlotSet, open_slots
from headend.store.merge import KIND_SOURCES, Arrival, History, Mark, add_revisions, lock_meters
from headend.store.sheets import Message, Written, write_messages
from headend.store.snapshots import write_last_values, write_slots, write_snapshots

__all__ = ["EvidencePolicy", "Ingest", "database_fails", "write", "write_messages"]


# -- one transaction's work --------------------------------------------------------------------------------------------


def write(
    conn: Connection, outcomes: Sequence[Outcome], policy: EvidencePolicy, *, late_after_s: int = 3600
) -> list[int]:
    """Store outcomes with everything in them, within the caller's transaction; their ids, in the same order.

    A value is known by meter, quantity, time and source: sent again, it changes nothing but may fill a slot still due.
    A different value replaces the old one, which goes to `revision`; so does, as the loser, a value of worse quality
    or of an earlier read (`headend.store.merge`). late_after_s: a value taken later than that after its instant is
    LATE. Raises `StoreError` for a meter the store does not know and for values it can't hold.
    """
    if not outcomes:
        return []
    numbers = codes(conn, {reading.quantity for outcome in outcomes for reading in outcome.readings})
    lock_meters(conn, {outcome.job.meter.key for outcome in outcomes})
    ids = _add_outcomes(conn, outcomes)
    _add_evidence(conn, outcomes, ids, policy)
    history = History(now=to_epoch_s(datetime.now(UTC)), started={})
    steps: list[Arrival | Mark] = []
    for outcome_id, outcome in zip(ids, outcomes, strict=True):
        history.started[outcome_id] = to_epoch_s(outcome.started_at)
        steps += [_arrival(outcome, outcome_id, reading, numbers, late_after_s) for reading in outcome.readings]
        steps += _marks(outcome, numbers)
    strays = set(write_curves(conn, history, [step for step in steps if isinstance(step, Mark) or step.step_s]))
    alone = [step for step in steps if isinstance(step, Mark) or not step.step_s or (strays and step in strays)]
    write_snapshots(conn, history, [step for step in alone if isinstance(step, Arrival)])
    write_slots(conn, alone)
    put_events(conn, [event for outcome, key in zip(outcomes, ids, strict=True) for event in _told(outcome, key)])
    write_last_values(conn, (step for step in steps if isinstance(step, Arrival)))
    add_revisions(conn, history)
    return ids


def _arrival(
    outcome: Outcome, outcome_id: int, reading: Reading, numbers: dict[str, int], late_after_s: int
) -> Arrival:
    """A reading in the store's numbers; `StoreError` when it can't be kept."""
    try:
        units = to_units(reading.value)
    except ValueError as error:
        raise StoreError(str(error), where=_where(outcome, reading)) from error
    curve = reading.source is Source.CURVE
    if reading.quality is Quality.MISSING:
        raise StoreError("a reading without a value is a fault, not a reading", where=_where(outcome, reading))
    if curve and reading.step_s <= 0:
        raise StoreError("a curve value without a grid step", where=_where(outcome, reading))
    at, taken_at = to_epoch_s(reading.at), to_epoch_s(reading.taken_at)
    return Arrival(
        meter_key=outcome.job.meter.key,
        code=numbers[reading.quantity],
        at=at,
        source=int(reading.source),
        step_s=reading.step_s if curve else 0,
        units=units,
        quality=int(reading.quality),
        taken_at=taken_at,
        occurred_at=None if reading.occurred_at is None else to_epoch_s(reading.occurred_at),
        outcome_id=outcome_id,
        started_at=to_epoch_s(outcome.started_at),
        state=int(SlotState.GOT if taken_at - at <= late_after_s else SlotState.LATE),
    )


def _told(outcome: Outcome, outcome_id: int) -> list[MeterEvent]:
    """What the meter recorded, as the store keeps it."""
    return [
        MeterEvent(
            outcome.job.meter.key,
            event.at,
            event.code or event.text,
            data={"log": event.log} | ({"text": event.text} if event.text and event.code else {}),
            outcome_id=outcome_id,
        )
        for event in outcome.events
    ]


def _where(outcome: Outcome, reading: Reading) -> str:
    return f"meter {outcome.job.meter.id}, {reading.quantity} at {reading.at:%Y-%m-%d %H:%M:%S} UTC"


_CAUSES = {
    Status.NO_ANSWER: Cause.NO_ANSWER,
    Status.BAD_FRAME: Cause.BAD_FRAME,
    Status.WRONG_METER: Cause.WRONG_METER,
    Status.REFUSED: Cause.REFUSED,
    Status.LINE_DOWN: Cause.LINE_DOWN,
    Status.NO_ACCESS: Cause.NO_ACCESS,
    Status.UNSUPPORTED: Cause.UNSUPPORTED,
}


def _marks(outcome: Outcome, numbers: dict[str, int]) -> list[Mark]:
    """What the outcome's faults say about slots still due. A job that failed as a whole speaks for its whole window.

    A sample that did not come in time will never come.
    """
    job = outcome.job
    gone = job.kind is ReadKind.SAMPLE and job.over(outcome.started_at + timedelta(seconds=outcome.duration_s))
    told = [(fault.quantity, fault.cause, fault.window or job.window) for fault in outcome.faults]
    if not told and outcome.status in _CAUSES:
        told = [(name, _CAUSES[outcome.status], job.window) for name in job.quantities]
    return [
        Mark(
            meter_key=job.meter.key,
            code=numbers[name],
            sources=KIND_SOURCES[job.kind],
            start=to_epoch_s(window.start),
            end=to_epoch_s(window.end),
            cause=int(cause),
            gone=gone,
        )
        for name, cause, window in told
        # A quantity without a number was never stored nor expected: it has no slots.
        if window is not None and name in numbers
    ]


def _add_outcomes(conn: Connection, outcomes: Sequence[Outcome]) -> list[int]:
    table = schema.outcome
    added = insert(table).returning(table.c.id, sort_by_parameter_order=True)
    return list(conn.scalars(added, [_outcome_values(outcome) for outcome in outcomes]))


def _outcome_values(outcome: Outcome) -> dict[str, Any]:
    job = outcome.job
    detail = outcome.detail or "; ".join(f"{fault.quantity}: {fault.detail}" for fault in outcome.faults)
    return {
        "meter_key": job.meter.key,
        "kind": job.kind.value,
        "status": outcome.status.value,
        "started_at": to_epoch_s(outcome.started_at),
        "duration_s": outcome.duration_s,
        "detail": _storable(detail),
        "schedule": job.schedule,
        "attempt": job.attempt,
        "window_start": None if job.window is None else to_epoch_s(job.window.start),
        "window_end": None if job.window is None else to_epoch_s(job.window.end),
    }


def _storable(text: str) -> str:
    """`text` as both databases take it: what came over a wire may hold NUL or half a character."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


def _add_evidence(conn: Connection, outcomes: Sequence[Outcome], ids: Sequence[int], policy: EvidencePolicy) -> None:
    rows = [
        {"outcome_id": outcome_id, "frames": pack_frames(outcome.frames)}
        for outcome_id, outcome in zip(ids, outcomes, strict=True)
        if outcome.frames and policy.keeps(outcome, outcome_id)
    ]
    if rows:
        conn.execute(insert(schema.evidence), rows)


# -- the writer --------------------------------------------------------------------------------------------------------

_Work = Outcome | Message | tuple[SlotSet, ...]


@dataclass(frozen=True, slots=True)
class _Item:
    """One thing to write, and who waits for it."""

    work: _Work
    waiter: asyncio.Future[Any]


# How many past days a new writer looks through for blocks that nobody packed tight.
_TIDY_DAYS = 31

_Result = tuple[_Item, int | Written | Exception]


class Ingest:
    """The door in an asyncio program: `put` returns when the outcome is on the disk.

    One thread writes; everything that waits, up to max_batch, shares one transaction and one sync to the disk. Once
    max_pending are waiting, `put` waits for room, and so does the line behind it. For use from one event loop.
    """

    def __init__(
        self,
        store: Store,
        policy: EvidencePolicy,
        *,
        max_pending: int = 1000,
        max_batch: int = 200,
        late_after_s: int = 3600,
    ) -> None:
        self._store = store
        self._policy = policy
        self._max_batch = max_batch
        self._late_after_s = late_after_s
        self._room = asyncio.Semaphore(max_pending)
        self._pending = 0
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open = False
        self._untidy_from = open_from() - _TIDY_DAYS

    def start(self) -> None:
        """Start the writer; call it within the event loop that will `put`."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        self._open = True

    @property
    def pending(self) -> int:
        """How much has its place in the queue or is being written."""
        return self._pending

    async def put(self, outcome: Outcome) -> int:
        """Store one outcome; its id, once it is committed.

        `StoreError` when this outcome can't be stored or the database fails. Cancelling the caller does not take back
        an outcome that already has its place in the queue.
        """
        number: int = await self._enqueue(outcome)
        return number

    async def put_message(self, message: Message) -> Written:
        """Store one message; what became of it, once it is committed. As for `put` in all else."""
        written: Written = await self._enqueue(message)
        return written

    async def open_slots(self, sets: Sequence[SlotSet]) -> None:
        """Open slots in the ledger (`headend.store.ledger.open_slots`); returns once they are committed."""
        await self._enqueue(tuple(sets))

    async def close(self) -> None:
        """Write what is queued, then stop. Those still waiting for room get `StoreError`."""
        if self._open:
            self._open = False
            self._queue.put(None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    async def _enqueue(self, work: _Work) -> Any:
        self._require_open()
        await self._room.acquire()
        try:
            self._require_open()
        except StoreError:
            self._room.release()
            raise
        item = _Item(work, asyncio.get_running_loop().create_future())
        self._queue.put(item)
        self._pending += 1
        return await item.waiter

    def _require_open(self) -> None:
        if not self._open:
            raise StoreError("the store takes nothing in: it is not started, or is closing down")

    # In the writer's thread.

    def _run(self) -> None:
        assert self._loop is not None
        last = False
        while not last:
            batch, last = self._next_batch()
            if not batch:
                continue
            results = self._write(batch)
            try:
                self._loop.call_soon_threadsafe(self._deliver, results)
            except RuntimeError:  # the loop is gone, and with it all who wait; go on until the queue is written
                continue
            self._tidy()

    def _tidy(self) -> None:
        """Pack a few blocks of a past day tight, between two batches; the next day's once there are none left."""
        if self._untidy_from >= open_from():
            return
        try:
            with self._store.write() as conn:
                if not tighten(conn, self._untidy_from):
                    self._untidy_from += 1
        except HeadendError:  # they can be read as they are; another program may be at them
            self._untidy_from += 1

    def _next_batch(self) -> tuple[list[_Item], bool]:
        """Everything that waits, at least one thing; and whether it was the last."""
        item = self._queue.get()
        batch: list[_Item] = []
        while item is not None:
            batch.append(item)
            if len(batch) == self._max_batch:
                return batch, False
            try:
                item = self._queue.get_nowait()
            except Empty:
                return batch, False
        return batch, True

    def _write(self, batch: list[_Item]) -> list[_Result]:
        try:
            return list(zip(batch, self._transact(batch), strict=True))
        except Exception as error:
            if len(batch) == 1:
                return [(batch[0], _for_caller(error, batch[0]))]
        # One of them is at fault, or the database was away for a moment: each for itself, so that it fails alone.
        results: list[_Result] = []
        for position, item in enumerate(batch):
            results += self._write([item])
            if database_fails(results[-1][1]):
                results += [(other, results[-1][1]) for other in batch[position + 1 :]]
                break
        return results

    def _transact(self, batch: list[_Item]) -> list[int | Written]:
        """Write a batch in one transaction; an id for each outcome, 0 for each set of slots."""
        outcomes = [item.work for item in batch if isinstance(item.work, Outcome)]
        messages = [item.work for item in batch if isinstance(item.work, Message)]
        sets = [wanted for item in batch if isinstance(item.work, tuple) for wanted in item.work]
        with self._store.write() as conn:
            open_slots(conn, sets)
            ids = iter(write(conn, outcomes, self._policy, late_after_s=self._late_after_s))
            written = iter(write_messages(conn, messages, self._policy, late_after_s=self._late_after_s))
        results: list[int | Written] = []
        for item in batch:
            if isinstance(item.work, Message):
                results.append(next(written))
            else:
                results.append(next(ids) if isinstance(item.work, Outcome) else 0)
        return results

    # In the event loop.

    def _deliver(self, results: list[_Result]) -> None:
        for item, result in results:
            self._room.release()
            self._pending -= 1
            if item.waiter.done():  # its caller was cancelled
                continue
            if isinstance(result, Exception):
                item.waiter.set_exception(result)
            else:
                item.waiter.set_result(result)


def _for_caller(error: Exception, item: _Item) -> Exception:
    """The error as the one who put the item should see it."""
    if isinstance(error, HeadendError):
        return error
    if isinstance(item.work, Outcome):
        where = f"outcome of meter {item.work.job.meter.id}"
    elif isinstance(item.work, Message):
        where = f"message of {item.work.channel}, {item.work.topic}"
    else:
        where = "opening of slots"
    wrapped = StoreError(f"can't be stored: {error}", where=where)
    wrapped.__cause__ = error
    return wrapped


def database_fails(result: object) -> bool:
    """Whether this failure is the database's own and would meet every other write as well: worth trying again."""
    return isinstance(result, StoreError) and isinstance(result.__cause__, OperationalError | InterfaceError)
