"""One worker a line: takes the next job, collects, stores, tells the board. No meter and no line ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime

from headend import collect
from headend.access import NO_ACCESS, Access
from headend.errors import HeadendError
from headend.ingest import Ingest
from headend.line import Line
from headend.model import Meter, Outcome, ReadJob, Status
from headend.scheduler.board import Board

__all__ = ["Worker"]

log = logging.getLogger(__name__)

# Seconds between attempts to open a line that is down.
_LINE_REST_S = (1, 2, 5, 10, 30)


class Worker:
    """Runs the jobs of one line, one after another.

    access_of: the keys and counters of a meter. `answers` gives the person who asked for a job its outcome.
    """

    def __init__(
        self,
        line: Line,
        board: Board,
        ingest: Ingest,
        *,
        clock: Callable[[], datetime],
        access_of: Callable[[Meter], Awaitable[Access]] | None = None,
    ) -> None:
        self.line = line
        self.current: ReadJob | None = None
        self.outcomes: dict[Status, int] = {}
        self._board = board
        self._ingest = ingest
        self._clock = clock
        self._access_of = access_of
        self._wake = asyncio.Event()
        self._answers: dict[int, asyncio.Future[Outcome]] = {}
        self._line_failures = 0
        line.on_up = self._line_up

    def wake(self) -> None:
        """Something may be due."""
        self._wake.set()

    def _line_up(self) -> None:
        self._line_failures = 0
        self._wake.set()

    async def ask(self, job: ReadJob) -> Outcome:
        """Run `job` before anything scheduled and return its outcome once it is stored."""
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._answers[id(job)] = answer
        self._board.ask(job)
        self._wake.set()
        return await answer

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self._wake.clear()
            job = self._board.next(self.line.name, self._clock())
            if job is None:
                now = self._clock()
                await self._sleep((self._board.wake_at(self.line.name, now) - now).total_seconds())
                continue
            outcome = await self._run_job(job)
            if outcome is not None and outcome.status is Status.LINE_DOWN:
                await self._rest_line()
            else:
                self._line_failures = 0

    async def _run_job(self, job: ReadJob) -> Outcome | None:
        self.current = job
        answer = self._answers.pop(id(job), None)
        try:
            outcome = await collect.run(
                self.line,
                job,
                clock=self._clock,
                anchors=self._board.anchors(job),
                confirm=self._board.noisy(self.line.name),
                access=NO_ACCESS if self._access_of is None else await self._access_of(job.meter),
            )
            await self._ingest.put(outcome)
            self._board.done(outcome, self._clock(), damaged=collect.damaged(outcome.frames))
        except asyncio.CancelledError:
            if answer is not None:
                answer.cancel()
            raise
        except Exception as error:
            # A fault of ours or of the store: the job's slots stay due in the ledger; say it and go on.
            log.error("job of meter %s failed: %s", job.meter.id, error, exc_info=not isinstance(error, HeadendError))
            self._board.failed(job, self._clock())
            if answer is not None:
                answer.set_exception(error)
            await self._sleep(1.0)
            return None
        finally:
            self.current = None
        self.outcomes[outcome.status] = self.outcomes.get(outcome.status, 0) + 1
        self.line.stats.ended(outcome)
        if answer is not None and not answer.done():
            answer.set_result(outcome)
        return outcome

    async def _rest_line(self) -> None:
        rest_s = _LINE_REST_S[min(self._line_failures, len(_LINE_REST_S) - 1)]
        if self._line_failures == 0:
            log.warning("line %s is down: %s", self.line.name, self.line.stats.last_error)
        self._line_failures += 1
        self._wake.clear()
        await self._sleep(rest_s)

    async def _sleep(self, seconds: float) -> None:
        """Sleep until woken, at most `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.01)):
                await self._wake.wait()
