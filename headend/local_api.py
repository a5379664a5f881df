"""A door for the local command line into the running daemon: on-demand reads and live state over a Unix socket.

One JSON object a line each way; `trace` is answered with one a frame until either side closes. The socket lies beside
site.toml, readable by its owner only; it is no network API.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from headend.app import Daemon
from headend.control import SET_CLOCK, Order, switch_state
from headend.doctor import Trace, frame_as_json, line_report
from headend.errors import HeadendError, UsageError
from headend.items import run_item
from headend.line import Line
from headend.model import Meter, Outcome, Priority, ReadJob, ReadKind, Window
from headend.quantities import quantity

__all__ = ["LocalApi", "ask_daemon", "follow_daemon", "outcome_as_json", "socket_answers", "socket_path"]

log = logging.getLogger(__name__)

_LIMIT_BYTES = 8_000_000
# A read nobody waits for any more is not sent.
_READ_S = 110.0
# sun_path holds 108 bytes with its end mark.
_PATH_BYTES = 107


def socket_path(site_path: Path) -> Path:
    """Where the daemon of `site_path` listens."""
    return site_path.resolve().with_suffix(".sock")


def outcome_as_json(outcome: Outcome) -> dict[str, Any]:
    """An outcome as plain data: values as text, times ISO 8601, frames in hex."""
    return {
        "meter": outcome.job.meter.id,
        "status": outcome.status.value,
        "detail": outcome.detail,
        "started_at": outcome.started_at.isoformat(),
        "duration_s": round(outcome.duration_s, 3),
        "readings": [
            {
                "quantity": r.quantity,
                "value": str(r.value),
                "unit": quantity(r.quantity).unit,
                "at": r.at.isoformat(),
                "source": r.source.name.lower(),
                "quality": r.quality.name.lower(),
                "occurred_at": r.occurred_at.isoformat() if r.occurred_at else None,
            }
            for r in outcome.readings
        ],
        "faults": [{"quantity": f.quantity, "cause": f.cause.name.lower(), "detail": f.detail} for f in outcome.faults],
        "frames": [
            {"at": f.at.isoformat(), "direction": f.direction, "hex": f.data.hex().upper()} for f in outcome.frames
        ],
    }


class LocalApi:
    """Serves one daemon on its socket."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.path = socket_path(daemon.site.path)
        self._server: asyncio.Server | None = None
        self._traced: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Open the socket. A second daemon of the same site is refused; the socket of a dead one is taken over."""
        if len(os.fsencode(self.path)) > _PATH_BYTES:
            log.warning("%s is too long a path for a local socket: `headend read` will open lines itself", self.path)
            return
        if self.path.exists():
            if _someone_answers(self.path):
                raise UsageError(
                    f"a head-end of {self._daemon.site.path} is running already",
                    remedy="stop it first, or read through it",
                )
            self.path.unlink()
        self._server = await asyncio.start_unix_server(self._serve, self.path, limit=_LIMIT_BYTES)
        self.path.chmod(0o600)

    async def close(self) -> None:
        """Close and remove the socket."""
        if self._server is not None:
            self._server.close()
            self.path.unlink(missing_ok=True)
        for writer in self._traced:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            text = await reader.readline()
            if not text:
                return  # somebody only looked whether we are there
            request = json.loads(text)
            try:
                if request.get("do") == "trace":
                    await self._trace(request, reader, writer)
                    return
                reply = await self._answer(request)
            except HeadendError as error:
                reply = {"error": str(error)}
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        except (ValueError, OSError) as error:
            log.warning("a local request could not be served: %s", error)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        match request.get("do"):
            case "read":
                deadline = self._daemon.clock() + timedelta(seconds=_READ_S)
                job = replace(_job(self._daemon.meters, request), deadline=deadline)
                return {"outcome": outcome_as_json(await self._daemon.ask(job))}
            case "item":
                meter = _meter(self._daemon.meters, request)
                access = await self._daemon.vault.ready(meter)
                line, identifier = self._line(meter.line), str(request.get("di", ""))
                return {"item": await run_item(line, meter, identifier, access=access)}
            case "relay" if request.get("action") == "state":
                meter = _meter(self._daemon.meters, request)
                access = await self._daemon.vault.ready(meter)
                return {"ended": await switch_state(self._line(meter.line), meter, access)}
            case "relay" | "clock" as verb:
                meter = _meter(self._daemon.meters, request)
                action = SET_CLOCK if verb == "clock" else str(request.get("action", ""))
                order = Order(meter, action, str(request.get("asked_by", "")), str(request.get("reason", "")))
                return {"ended": await self._daemon.obey(order)}
            case "mqtt":
                return {"brokers": [broker.status() for broker in self._daemon.brokers.values()]}
            case "lines":
                return {"lines": [self._line_state(name) for name in self._daemon.lines]}
            case "line":
                line = self._line(request.get("name"))
                report = line_report(line, self._protocols(line))
                return {"report": {**report, **self._line_state(line.name)}}
            case other:
                raise UsageError(f"unknown request {other!r}")

    def _line(self, name: object) -> Line:
        line = self._daemon.lines.get(str(name))
        if line is None:
            known = ", ".join(self._daemon.lines)
            raise UsageError(f"the running head-end has no line {name!r}", remedy=f"it has {known}")
        return line

    def _protocols(self, line: Line) -> dict[str, str]:
        return {meter.id: meter.protocol for meter in self._daemon.meters if meter.line == line.name}

    async def _trace(self, request: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The frames of a line as they go by, until the other side closes or the daemon stops."""
        line, meter = self._line(request.get("line")), str(request.get("meter", ""))
        protocols = self._protocols(line)
        if meter and meter not in protocols:
            raise UsageError(f"line {line.name} has no meter {meter!r}")
        gone = asyncio.ensure_future(reader.read(1))
        self._traced.add(writer)
        try:
            with Trace(line, meter) as trace:
                while not gone.done():
                    coming = asyncio.ensure_future(trace.frames())
                    await asyncio.wait({gone, coming}, return_when=asyncio.FIRST_COMPLETED)
                    if not coming.done():
                        coming.cancel()
                        break
                    for name, frame in coming.result():
                        told = frame_as_json(name, protocols.get(name, ""), frame) | {"dropped": trace.dropped}
                        writer.write(json.dumps(told).encode() + b"\n")
                    await writer.drain()
        except ConnectionError:
            pass  # the reader has gone
        finally:
            gone.cancel()
            self._traced.discard(writer)

    def _line_state(self, name: str) -> dict[str, Any]:
        worker, line = self._daemon.workers[name], self._daemon.lines[name]
        stats = line.stats
        return {
            "line": name,
            "in_flight": worker.current.meter.id if worker.current else None,
            "lacking": self._daemon.board.lacking(name),
            "outcomes": {status.value: count for status, count in worker.outcomes.items()},
            "sent_bytes": stats.sent_bytes,
            "received_bytes": stats.received_bytes,
            "stale_bytes": stats.stale_bytes,
            "timeouts": stats.timeouts,
            "last_error": stats.last_error,
        }


def _meter(meters: list[Meter], request: dict[str, Any]) -> Meter:
    meter = next((m for m in meters if m.id == request.get("meter")), None)
    if meter is None:
        raise UsageError(
            f"the running head-end has no meter {request.get('meter')!r}", remedy="restart it after an import"
        )
    return meter


def _job(meters: list[Meter], request: dict[str, Any]) -> ReadJob:
    meter = _meter(meters, request)
    names = tuple(quantity(str(name)).name for name in request.get("quantities", ()))
    kind, window = ReadKind(request.get("kind", "registers")), None
    if "start" in request:
        window = Window(*(datetime.fromisoformat(str(request[key])) for key in ("start", "end")))
    return ReadJob(meter, kind, names, window, Priority.ON_DEMAND, "on demand")


def socket_answers(site_path: Path) -> bool:
    """Whether a head-end of `site_path` is running here."""
    return _someone_answers(socket_path(site_path))


def _someone_answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


async def ask_daemon(site_path: Path, request: dict[str, Any], wait_s: float = 120.0) -> dict[str, Any] | None:
    """Ask the daemon of `site_path`; None when none is running. Raises `UsageError` with its refusal."""
    path = socket_path(site_path)
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=_LIMIT_BYTES)
    except (OSError, ValueError):
        return None
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        async with asyncio.timeout(wait_s):
            reply: dict[str, Any] = json.loads(await reader.readline())
    except (TimeoutError, OSError, ValueError) as error:
        raise UsageError(f"the running head-end did not answer: {error or 'timeout'}") from error
    finally:
        writer.close()
    if "error" in reply:
        raise UsageError(str(reply["error"]))
    return reply


async def follow_daemon(site_path: Path, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """What the daemon of `site_path` sends in answer to `request`, one object after another, until it ends.

    Raises `UsageError` when none is running, and with its refusal.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(socket_path(site_path), limit=_LIMIT_BYTES)
    except (OSError, ValueError):
        raise UsageError("no head-end is running on this site", remedy="start `headend run`") from None
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        while text := await reader.readline():
            told: dict[str, Any] = json.loads(text)
            if "error" in told:
                raise UsageError(str(told["error"]))
            yield told
    except ConnectionError:
        return  # the daemon was stopped
    finally:
        writer.close()
