"""One broker of the site: its connection, what comes in by it, what goes out, and who listens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from headend.civil import to_epoch_s
from headend.errors import LineDown
from headend.ingest import Ingest
from headend.model import Meter, Quality
from headend.mqtt.client import Client
from headend.mqtt.commands import OpenRequest
from headend.mqtt.dialect import CONCENTRATOR, Dialect, matches, subscriptions
from headend.mqtt.intake import Heard, Intake
from headend.mqtt.interpret import Interpreter
from headend.mqtt.judge import Anchors
from headend.mqtt.place import Places
from headend.mqtt.settings import BrokerSettings
from headend.store import Store, readings

__all__ = ["Listener", "Service", "anchors_of"]

log = logging.getLogger(__name__)

Listener = Callable[[str, bytes, bool], None]
"""Given topic (without the bucket), payload, and whether it is a retained message. Called in the event loop as soon as
it comes; must be quick."""


def now_utc() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def anchors_of(store: Store) -> Anchors:
    """The newest trusted value of every register in the store."""
    anchors = Anchors()
    with store.read() as conn:
        for last in readings.last_values(conn):
            if last.quality in (Quality.VALID, Quality.EDITED):
                anchors.add(last.meter_key, last.quantity, to_epoch_s(last.at), last.units)
    return anchors


class Service:
    """A broker in use. Building it opens nothing; `start` connects and stays connected until `close`.

    dialects: those of `settings.dialects`, in that order. line_concentrators: which concentrator a line is, where it
    is not the line's name.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        dialects: Sequence[Dialect],
        meters: Iterable[Meter],
        ingest: Ingest,
        store: Store,
        *,
        clock: Callable[[], datetime] = now_utc,
        line_concentrators: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self._dialects = tuple(dialects)
        self._listeners: list[tuple[str, Listener]] = []
        self._watchers: list[Callable[[str], None]] = []
        self._requests: list[Callable[[], Iterable[OpenRequest]]] = []
        self._for_links: set[str] = set()  # what was ever listened to: a late answer is no stranger's message
        self._store = store
        filters = [text for dialect in self._dialects for text in dialect.filters]
        self._wanted = tuple(subscriptions(filters, settings.concentrators, settings.bucket))
        self.client = Client(settings, self._wanted, clock=clock, on_connected=self._connected)
        self._everybody = [] if "*" in settings.concentrators else _everybody(filters, settings.bucket)
        self._interpreter = Interpreter(settings, self._dialects, Places(meters, line_concentrators), Anchors())
        self.client.on_arrival = self._arrived
        self.client.on_lost = self._lost
        self.intake = Intake(self.client, self._interpreter, ingest, clock=clock)

    async def start(self) -> None:
        """Connect in the background, and take what comes. A broker that is away is no error: it is tried again."""
        self._interpreter.anchors = await asyncio.to_thread(anchors_of, self._store)
        self.intake.start()
        self.client.start()

    async def close(self) -> None:
        """Let go of the broker. What is not stored is not acknowledged, and comes again."""
        await self.intake.close()
        await self.client.close()

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self.client.connected.is_set()

    async def until_connected(self, wait_s: float) -> None:
        """Wait for a connection; `LineDown` with the reason if there is none within `wait_s`."""
        try:
            async with asyncio.timeout(wait_s):
                await self.client.connected.wait()
        except TimeoutError:
            why = self.client.stats.last_error or f"no connection within {wait_s:g} s"
            raise LineDown(f"no connection to broker {self.name}: {why}", remedy="see `headend mqtt status`") from None

    async def publish(
        self, topic: str, payload: bytes, qos: int = 1, *, wait_s: float = 10.0, expiry_s: int | None = None
    ) -> bool:
        """Publish on `topic` (without the bucket); returns once the broker has taken it, False if it said that nobody
        listens there. expiry_s: see `Client.publish`. `LineDown` if the broker does not take it."""
        return await self.client.publish(self.settings.topic(topic), payload, qos, wait_s=wait_s, expiry_s=expiry_s)

    def watch(self, lost: Callable[[str], None]) -> Callable[[], None]:
        """Tell `lost` why, whenever a connection ends; returns what ends that."""
        self._watchers.append(lost)
        return lambda: self._watchers.remove(lost) if lost in self._watchers else None

    def show(self, requests: Callable[[], Iterable[OpenRequest]]) -> None:
        """Let `status` show what a line waits for."""
        self._requests.append(requests)

    def subscribe(self, pattern: str, listener: Listener) -> Callable[[], None]:
        """Hear what comes on topics of `pattern` (an MQTT filter, without the bucket); returns what ends it.

        What no dialect takes is heard by listeners alone. The broker's subscription stays until the daemon's end: a
        link is opened again and again.
        """
        entry = (pattern, listener)
        self._for_links.add(pattern)
        self._listeners.append(entry)
        if not any(matches(text, self.settings.topic(pattern)) for text in self._wanted):
            self.client.add_filter(self.settings.topic(pattern))  # twice the same message would come otherwise

        def end() -> None:
            if entry in self._listeners:
                self._listeners.remove(entry)

        return end

    def owns(self, concentrator: str) -> bool:
        """Whether this daemon takes the messages of `concentrator`."""
        return self.settings.owns(concentrator)

    @property
    def concentrators(self) -> Mapping[str, Heard]:
        """What was heard of each concentrator since the start."""
        return self.intake.heard

    def status(self) -> dict[str, Any]:
        """How the connection and the intake are, for `headend mqtt status`."""
        client, intake = self.client, self.intake
        return {
            "broker": self.name,
            "connected": client.connected.is_set(),
            "paused": client.paused,
            "waiting": client.waiting,
            "received": client.stats.received,
            "again": client.stats.again,
            "connections": client.stats.connections,
            "last_error": client.stats.last_error,
            "messages": intake.stats.messages,
            "new": intake.stats.new,
            "same": intake.stats.same,
            "replaced": intake.stats.replaced,
            "unknown": intake.stats.unknown,
            "failed": intake.stats.failed,
            "resends": intake.stats.resends,
            "store_waits": intake.stats.store_waits,
            "last_reason": intake.stats.last_reason,
            "requests": [asdict(request) for show in self._requests for request in show()],
            "concentrators": [_heard(name, heard) for name, heard in sorted(intake.heard.items())],
        }

    def _connected(self) -> None:
        # A session from before may still hold the filters of a daemon that took everybody's.
        self.client.drop_filters(self._everybody)
        self.intake.connected()

    def _lost(self, why: str) -> None:
        for lost in tuple(self._watchers):
            lost(why)

    def _arrived(self, topic: str, payload: bytes, retained: bool) -> bool:
        """Tell the listeners; whether it was for them alone, so that there is nothing to store."""
        try:
            return self._hear(topic, payload, retained) and not self._interpreter.takes(topic)
        except Exception:
            log.exception("mqtt %s: a listener failed", self.name)
            return not self._interpreter.takes(topic)

    def _hear(self, topic: str, payload: bytes, retained: bool) -> bool:
        """Tell the listeners; whether it is a topic of theirs."""
        if not self._for_links:
            return False
        before = f"{self.settings.bucket}/" if self.settings.bucket else ""
        said = topic.removeprefix(before)
        for pattern, listener in tuple(self._listeners):
            if matches(pattern, said):
                listener(said, payload, retained)
        return any(matches(pattern, said) for pattern in self._for_links)


def _everybody(filters: Iterable[str], bucket: str) -> list[str]:
    return list(subscriptions([text for text in filters if CONCENTRATOR in text], ["*"], bucket))


def _heard(name: str, heard: Heard) -> dict[str, Any]:
    state = heard.state
    return {
        "concentrator": name,
        "last_seen": heard.at.isoformat(),
        "online": None if state is None else state.online,
        "firmware": "" if state is None else state.firmware,
        "meters": None if state is None else state.meters,
        "backlog": None if state is None else state.backlog,
        "messages": heard.messages,
        "boot": heard.boot,
        "upto": heard.upto,
        "missing": heard.missing,
    }
