"""Composition root: builds the daemon from a checked site, starts it, drains it, stops it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from billing.charges import Tariff
from billing.cycles import run_due
from config.details import with_options
from config.site import Site
from config.tariff_files import load_tariffs
from headend.civil import from_epoch_s
from headend.control import Order, Rules, obey
from headend.conversation import Conversation
from headend.endpoints import LineSettings
from headend.errors import ConfigError, HeadendError, Problem, UsageError
from headend.estimate import estimates
from headend.ingest import EvidencePolicy, Ingest
from headend.line import Line, Link, Listener
from headend.masterkey import load_master_key
from headend.model import Meter, Outcome, ReadJob, SlotState, Source, Window
from headend.mqtt.link import end_of
from headend.mqtt.place import PROTOCOL
from headend.mqtt.service import Service
from headend.mqtt.settings import BrokerSettings
from headend.protocols import PROTOCOLS
from headend.protocols.hes_mqtt import Behind
from headend.push import Placer, PushDoor
from headend.quantities import from_units
from headend.scheduler.board import Board, Expected
from headend.scheduler.clock import Ticker
from headend.scheduler.plan import DAY_S, Missing
from headend.scheduler.worker import Worker
from headend.store import Store, ledger, open_store, readings, registry
from headend.store.unplaced import UnplacedRow, put_unplaced
from headend.validation.plausible import Anchor
from headend.vault import Vault

__all__ = ["Daemon", "calm_collector", "meters_of", "now_utc", "open_vault", "rules_of"]

log = logging.getLogger(__name__)

_FILLED = frozenset({SlotState.GOT, SlotState.LATE, SlotState.ESTIMATED, SlotState.WAIVED})
_TICK_S = 5
_BILLING_LOOK = timedelta(minutes=1)
_BILLING_REPEAT = timedelta(hours=1)


def calm_collector() -> None:
    """Let Python look for cycles more seldom: among the objects of ten thousand lines that costs more than the work.

    What a conversation makes is freed by counting references; cycles are rare here. Measured at 10,000 lines: 92 µs
    of CPU an exchange with the default thresholds, 56 µs with these.
    """
    gc.set_threshold(50_000, 20, 50)


def now_utc() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def meters_of(site: Site, rows: Iterable[registry.MeterRow]) -> list[Meter]:
    """The registered meters with their models; all that don't fit the site are told at once."""
    lines = {line.name for line in site.lines}
    ends = {line.name: line for line in site.lines}
    serial_lines = {line.name for line in site.lines if line.endpoint.kind == "serial"}
    problems: list[Problem] = []
    meters: list[Meter] = []
    for row in rows:
        where = f"meter {row.id}"
        if row.line not in lines:
            problems.append(
                Problem(where, f"line {row.line!r} is not in {site.path.name}", "add it or import the meter again")
            )
        if row.protocol not in PROTOCOLS:
            problems.append(Problem(where, f"unknown protocol {row.protocol!r}", f"known: {', '.join(PROTOCOLS)}"))
        model = site.models.get(row.model)
        if model is None:
            problems.append(
                Problem(where, f"unknown meter model {row.model!r}", "put its file into the site's model folder")
            )
        else:
            details, wrong = with_options(model, row.options, f"{where}: options")
            problems += wrong
            if row.line in ends:
                wrong_end, behind = _behind(row, ends[row.line])
                problems += [Problem(where, *words) for words in wrong_end]
                details = behind if behind is not None else details
            place = (row.key, row.id, row.address, row.protocol, row.line)
            meters.append(Meter(*place, model, row.clock_zone, row.serial, details))
        if row.serial and row.line in lines - serial_lines:
            what = f"has the serial format {row.serial!r}, but its line {row.line!r} is no serial port"
            problems.append(Problem(where, what, "import it again without, or make the line serial:/dev/..."))
    if problems:
        raise ConfigError(problems)
    return meters


def _behind(row: registry.MeterRow, line: LineSettings) -> tuple[list[tuple[str, str]], Behind | None]:
    """Where a meter behind a concentrator is; and what is wrong if it and its line do not belong together."""
    concentrator = line.endpoint.concentrator
    if (row.protocol == PROTOCOL) == bool(concentrator):
        return [], Behind(concentrator, line.reply_s) if concentrator else None
    if concentrator:
        what = f"speaks {row.protocol}, but its line {row.line!r} is a concentrator, which speaks {PROTOCOL}"
        return [(what, "import it again with a model behind concentrators, or with another line")], None
    what = f"speaks {PROTOCOL}, but its line {row.line!r} ends at {line.endpoint}"
    return [(what, "let the line end at mqtt://BROKER/CONCENTRATOR")], None


def open_vault(site: Site, store: Store) -> Vault:
    """The secrets and counters of the site's meters. `ConfigError` for a master key that can't be used; that there is
    none is told where a secret is wanted."""
    file = site.master_key_file
    named = f"environment variable {site.vault.master_key_env}"
    master = load_master_key(site.vault.master_key_env, file)
    return Vault(store, master, named=named if file is None else f"file {file}")


def rules_of(site: Site) -> Rules:
    """What the site allows of control."""
    return Rules(site.control.enabled, site.control.disconnects_per_day)


class Daemon:
    """The running head-end of one site. Building it opens the store; `start` opens ports."""

    def __init__(self, site: Site, *, clock: Callable[[], datetime] = now_utc) -> None:
        self.site = site
        self.store: Store = open_store(site.store_url)
        self.clock = clock
        with self.store.read() as conn:
            self.meters = meters_of(site, registry.meters(conn))
        self.board = Board(self.meters, site.schedules, {line.name: line.dead_share for line in site.lines})
        self.ingest = Ingest(
            self.store,
            EvidencePolicy(keep_good_every=site.evidence.keep_good_every),
            max_pending=site.ingest.max_pending,
            max_batch=site.ingest.max_batch,
        )
        self.vault = open_vault(site, self.store)
        self.brokers = {settings.name: self._broker(settings) for settings in site.brokers}
        self.lines: dict[str, Line] = {settings.name: self._line(settings) for settings in site.lines}
        self.workers = {
            name: Worker(line, self.board, self.ingest, clock=clock, access_of=self.vault.ready)
            for name, line in self.lines.items()
        }
        self.listeners = self._listeners()
        placer = Placer(self.meters, self.vault.access)
        self.doors = [PushDoor(one, placer, self.ingest, self._keep, clock=clock) for one in site.pushes]
        self._billing = _Billing(site, self.store, clock)
        self._ticker = Ticker(self.tick, _TICK_S)
        self._tasks: list[asyncio.Task[None]] = []

    def _broker(self, settings: BrokerSettings) -> Service:
        dialects = [self.site.dialects[name] for name in settings.dialects]
        ends = {line.name: line.endpoint for line in self.site.lines if line.endpoint.concentrator}
        meters = [m for m in self.meters if m.line not in ends or ends[m.line].broker == settings.name]
        return Service(settings, dialects, meters, self.ingest, self.store, clock=self.clock)

    def _line(self, settings: LineSettings) -> Line:
        """A line; one that ends at a broker gets its links from there."""
        if settings.endpoint.kind != "mqtt":
            return Line(settings, clock=self.clock)
        end = end_of(settings, self.brokers[settings.endpoint.broker], clock=self.clock)
        line = Line(settings, clock=self.clock, opener=end.open)
        end.on_up = lambda: line.on_up()
        return line

    def _listeners(self) -> list[Listener]:
        groups: dict[tuple[str, int], list[Line]] = defaultdict(list)
        for line in self.lines.values():
            endpoint = line.settings.endpoint
            if endpoint.kind == "listen":
                groups[endpoint.host, endpoint.port].append(line)
        return [
            Listener(host, port, lines, identify=partial(self._identify, lines=lines))
            for (host, port), lines in groups.items()
        ]

    async def _identify(self, link: Link, lines: list[Line]) -> Line | None:
        """The line of the meter behind `link`, found by asking for its address."""
        names = {line.name: line for line in lines if not line.settings.registration}
        waiting = [m for m in self.meters if m.line in names]
        for protocol in sorted({meter.protocol for meter in waiting}):
            probe = Line(LineSettings("dial-in", lines[0].settings.endpoint, reply_s=3.0), clock=self.clock)
            probe.adopt(link)
            conversation: Conversation[str] = PROTOCOLS[protocol].discover()
            try:
                address = await probe.run(conversation)
            except HeadendError as error:
                log.info("a modem's meter gave no address: %s", error)
                continue
            for meter in waiting:
                if meter.protocol == protocol and meter.address == address:
                    return names[meter.line]
            log.warning("a modem dialled in with meter %s, which no line has", address)
        return None

    async def start(self) -> None:
        """Load what the store lacks, open the listening ports, start polling."""
        self.ingest.start()
        await asyncio.to_thread(self.vault.load, self.meters)
        for problem in await asyncio.to_thread(self.vault.problems):
            log.error("%s", problem)
        self._load()
        for listener in self.listeners:
            await listener.start()
        for door in self.doors:
            await door.start()
        for broker in self.brokers.values():
            await broker.start()
        await self.tick()
        self._tasks = [asyncio.create_task(worker.run()) for worker in self.workers.values()]
        self._ticker.start()

    def _load(self) -> None:
        """Fill the board from the completeness ledger, and its anchors from the last values."""
        now = self.clock()
        since = now - timedelta(days=max((s.horizon_days for s in self.site.schedules), default=0) + 2)
        with self.store.read() as conn:
            for row in ledger.curve_states(conn, since, now):
                mask = _mask(row.states)
                if mask:
                    self.board.filled((row.meter_key, row.quantity, Source.CURVE, row.step_s), {row.day: mask})
            tracks = {track.key: track for track in self.board.tracks}
            for slot in ledger.slot_states(conn, since, now):
                track = tracks.get((slot.meter_key, slot.quantity, slot.source, DAY_S))
                if track is not None and slot.state in _FILLED:
                    day = (int(slot.at.timestamp()) - track.phase_s) // DAY_S
                    self.board.filled(track.key, {day: 1})
            for last in readings.last_values(conn):
                self.board.anchor(last.meter_key, last.quantity, Anchor(last.at, from_units(last.units)))

    async def tick(self) -> None:
        """Open what became due in the ledger and wake the lines."""
        for expected in self.board.tick(self.clock()):
            await self.ingest.open_slots(_slot_sets(expected))
        for worker in self.workers.values():
            worker.wake()
        await self._refresh_vault()
        for job in self.board.closed_gaps():
            await self._estimate(job)
        self._billing.wake()

    async def _estimate(self, job: ReadJob) -> None:
        """Fill the gap a sample ended: its energy is known, and the meter has no memory that could tell its shape."""
        now = self.clock()
        horizon_days = max((s.horizon_days for s in self.site.schedules if s.name == job.schedule), default=1)
        window = Window(now - timedelta(days=horizon_days), now)
        try:
            for name in job.quantities:
                for made in await asyncio.to_thread(estimates, self.store, job.meter, name, window, now):
                    await self.ingest.put(made)
        except HeadendError as error:  # `headend estimate` can still do it
            log.error("a gap of meter %s could not be estimated: %s", job.meter.id, error)

    async def _refresh_vault(self) -> None:
        """Write down what counters received, and notice secrets that were changed beside us."""
        try:
            await asyncio.to_thread(self.vault.refresh)
        except HeadendError as error:
            log.error("secrets and counters could not be looked at: %s", error)

    async def _keep(self, channel: str, peer: str, reason: str, payload: bytes) -> None:
        """Keep what came by itself and has no meter."""
        row = UnplacedRow(self.clock(), channel, peer, reason, payload)
        await asyncio.to_thread(self._put_unplaced, row)

    def _put_unplaced(self, row: UnplacedRow) -> None:
        with self.store.write() as conn:
            put_unplaced(conn, row)

    async def ask(self, job: ReadJob) -> Outcome:
        """Run a job asked for by a person, ahead of everything scheduled."""
        worker = self.workers.get(job.meter.line)
        if worker is None:
            raise UsageError(f"meter {job.meter.id} is on line {job.meter.line!r}, which this site does not have")
        return await worker.ask(job)

    async def obey(self, order: Order) -> dict[str, Any]:
        """Tell a meter to do something; see `headend.control.obey`."""
        return await obey(
            order,
            line=self.lines[order.meter.line],
            access=await self.vault.ready(order.meter),
            store=self.store,
            rules=rules_of(self.site),
            clock=self.clock,
        )

    def lacking(self) -> dict[str, int]:
        """Slots each line still lacks."""
        return {name: self.board.lacking(name) for name in self.lines}

    async def stop(self) -> None:
        """Stop polling, store what is collected, close ports and the store."""
        self._ticker.close()
        await self._billing.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for broker in self.brokers.values():
            await broker.close()
        for door in self.doors:
            await door.close()
        for listener in self.listeners:
            with contextlib.suppress(OSError):
                await listener.close()
        for line in self.lines.values():
            await line.close()
        await self.ingest.close()
        await self._refresh_vault()
        self.store.close()


class _Billing:
    """Closes the months that are due by the site's billing cycles, in a thread, one run at a time."""

    def __init__(self, site: Site, store: Store, clock: Callable[[], datetime]) -> None:
        self._site, self._store, self._clock = site, store, clock
        self._again_at = clock()
        self._stopping = threading.Event()
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Look whether something is due, unless a run goes on; once a minute."""
        if not self._site.billing.cycles or (self._task is not None and not self._task.done()):
            return
        if (now := self._clock()) >= self._again_at:
            self._again_at = now + _BILLING_LOOK
            self._task = asyncio.create_task(asyncio.to_thread(self._run))

    def _run(self) -> None:
        settings = self._site.billing
        try:
            run_due(
                self._store,
                settings.cycles,
                self._tariffs,
                settings.rules,
                clock=self._clock,
                site_zone=self._site.zone,
                stopping=self._stopping.is_set,
            )
        except HeadendError as error:
            log.error("billing: %s", error)
            self._again_at = self._clock() + _BILLING_REPEAT
        except Exception:  # a fault of ours, or a worker process that was killed: reading meters goes on
            log.exception("billing ended early")
            self._again_at = self._clock() + _BILLING_REPEAT

    def _tariffs(self) -> list[Tariff]:
        return [tariff for folder in self._site.tariff_folders for tariff in load_tariffs(folder)]

    async def stop(self) -> None:
        """End a run that goes on after the batch it is at."""
        self._stopping.set()
        if self._task is not None:
            await self._task


def _mask(states: bytes) -> int:
    mask = 0
    for index, state in enumerate(states):
        if state in _FILLED:
            mask |= 1 << index
    return mask


def _slot_sets(expected: Expected) -> list[ledger.SlotSet]:
    """The slots as the ledger takes them: curve slots into their block, freezes as rows."""
    track = expected.track
    step_s = track.step_s if track.source is Source.CURVE else 0
    instants = tuple(_instants(track.phase_s, track.step_s, expected.slots))
    return [ledger.SlotSet(track.meter.key, name, track.source, step_s, instants) for name in track.quantities]


def _instants(phase_s: int, step_s: int, slots: Missing) -> Iterable[datetime]:
    for day in sorted(slots):
        mask = slots[day]
        while mask:
            low = mask & -mask
            yield from_epoch_s(day * DAY_S + phase_s + (low.bit_length() - 1) * step_s)
            mask ^= low
