"""APScheduler ticks; nothing more. What is due is decided by `plan` over the completeness ledger.

One recurring job for the whole daemon: APScheduler drops late runs of a job, so work must never hang on one of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

__all__ = ["Ticker"]


class Ticker:
    """Calls `tick` every `every_s` seconds, one call at a time, missed ones merged into one."""

    def __init__(self, tick: Callable[[], Awaitable[None]], every_s: int) -> None:
        self._scheduler = AsyncIOScheduler(timezone="UTC")
        self._scheduler.add_job(
            tick, IntervalTrigger(seconds=every_s), id="tick", max_instances=1, coalesce=True, misfire_grace_time=None
        )

    def start(self) -> None:
        """Start ticking in the running event loop."""
        self._scheduler.start()

    def close(self) -> None:
        """Stop ticking."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
