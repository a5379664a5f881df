"""What ails a line: its books as plain data, findings in words, and its frames told as they go by."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from headend.line import Line
from headend.model import Cause, FrameRecord

__all__ = ["Trace", "findings", "frame_as_json", "line_report", "silent_meters"]

_MANY = 20  # exchanges from which a share means something


def frame_as_json(meter: str, protocol: str, frame: FrameRecord) -> dict[str, Any]:
    """A frame as plain data: its time ISO 8601, its bytes in hex."""
    return {
        "at": frame.at.isoformat(),
        "meter": meter,
        "protocol": protocol,
        "direction": frame.direction,
        "hex": frame.data.hex().upper(),
    }


def line_report(line: Line, protocols: Mapping[str, str]) -> dict[str, Any]:
    """The books of a line as plain data. protocols: by meter id, of the meters on the line.

    budget_s: each second of the line's time in one place; wire_s stands beside it (None: the speed is unknown).
    layers: what went wrong, from the wire up; the first two count exchanges, the others jobs.
    """
    stats, settings = line.stats, line.settings
    causes = stats.causes or {}
    endpoint = settings.endpoint
    speed = f"{endpoint.baud} {endpoint.bytesize}{endpoint.parity}{endpoint.stopbits}"
    return {
        "line": line.name,
        "endpoint": str(endpoint),
        "speed": speed if endpoint.kind == "serial" else str(settings.wire_baud or ""),
        "state": line.state,
        "last_error": stats.last_error,
        "settings": {name: getattr(settings, name) for name in ("reply_s", "gap_s", "turnaround_s", "echo")},
        "budget_s": {
            "sending": stats.sending_s,
            "waiting": stats.waiting_s,
            "receiving": stats.receiving_s,
            "timeouts": stats.timeout_s,
            "quiet": stats.quiet_s,
            "opening": stats.opening_s,
            "idle": stats.idle_s(),
        },
        "wire_s": stats.wire_s,
        "counts": {
            name: getattr(stats, name)
            for name in ("conversations", "sends", "sent_bytes", "received_bytes", "stale_bytes", "opened", "reopened")
        },
        "layers": {
            "no_reply": stats.silences,
            "bad_frame": stats.garbled,
            "wrong_address": causes.get(Cause.WRONG_METER, 0),
            "refused": causes.get(Cause.REFUSED, 0),
            "line_down": causes.get(Cause.LINE_DOWN, 0),
        },
        "meters": [
            {
                "meter": name,
                "seconds": cost.seconds,
                "conversations": cost.conversations,
                "exchanges": cost.exchanges,
                "bytes": cost.sent_bytes + cost.received_bytes,
                "outcomes": {
                    **({"ok": cost.ok} if cost.ok else {}),
                    **{status.value: count for status, count in (cost.failed or {}).items()},
                },
            }
            for name, cost in sorted((stats.meters or {}).items(), key=lambda item: -item[1].seconds)
        ],
        "frames": [frame_as_json(meter, protocols.get(meter, ""), frame) for meter, frame in stats.ring or ()],
    }


def findings(report: Mapping[str, Any]) -> list[str]:
    """What the books of a line say about its health, a sentence each, what to do with it; worst first."""
    found: list[str] = []
    if report["last_error"] and report["state"] != "open":
        found.append(f"the line is down: {report['last_error']}")
    counts, layers, settings = report["counts"], report["layers"], report["settings"]
    sends = counts["sends"]
    if sends >= _MANY and layers["no_reply"] + layers["bad_frame"] == sends and not counts["received_bytes"]:
        found.append("not one byte ever came: check power, the two wires (A and B swapped?), speed and parity")
    elif sends >= _MANY and layers["bad_frame"] * 2 > sends:
        found.append("most answers are garbled: check speed and parity, and that no two meters have one address")
    elif sends >= _MANY and layers["bad_frame"] * 50 > sends:
        share = 100 * layers["bad_frame"] / sends
        found.append(f"{share:.1f} % of the answers are garbled: check shield, terminating resistors, cable length")
    if counts["stale_bytes"]:
        found.append(
            f"{counts['stale_bytes']} bytes came when nobody waited for them, most likely late answers: "
            f"raise reply_s (now {settings['reply_s']:g})"
        )
    if not settings["echo"] and _echoes(report["frames"]):
        found.append("the line gives back what is sent: set echo = true")
    if counts["reopened"]:
        found.append(
            f"the connection was closed and opened anew {counts['reopened']} times because nothing came through it: "
            "a dead connection, or every meter behind it is silent"
        )
    busy_s = sum(report["budget_s"].values()) - report["budget_s"]["idle"]
    if sends >= _MANY and report["wire_s"] is not None and report["wire_s"] > 1.2 * busy_s:
        found.append(f"bytes come faster than {report['speed']} can carry: another speed is set than the wire has")
    found += silent_meters(report)
    if layers["wrong_address"]:
        found.append(f"another meter than the one asked answered in {layers['wrong_address']} jobs: check addresses")
    return found


def silent_meters(report: Mapping[str, Any]) -> list[str]:
    """The finding that some meters never answered, and what they cost the others."""
    silent = [m for m in report["meters"] if set(m["outcomes"]) == {"no answer"}]
    if not silent or len(silent) == len(report["meters"]):
        return []
    total = sum(meter["seconds"] for meter in report["meters"])
    cost = sum(meter["seconds"] for meter in silent)
    names = ", ".join(meter["meter"] for meter in silent[:5]) + (", ..." if len(silent) > 5 else "")
    share = f"{100 * cost / total:.0f} %" if total else "none"
    return [f"{len(silent)} of {len(report['meters'])} meters never answered ({names}) and cost {share} of the time"]


def _echoes(frames: list[dict[str, Any]]) -> bool:
    """Whether what came starts with what was sent, each time something came."""
    pairs = [(a, b) for a, b in pairwise(frames) if (a["direction"], b["direction"]) == (">", "<")]
    return len(pairs) > 1 and all(b["hex"].startswith(a["hex"]) for a, b in pairs)


class Trace:
    """The frames of a line for one reader, from `with` to its end.

    It never slows the line: at most `most` frames wait for the reader, further ones are dropped and counted. meter: of
    this meter only.
    """

    def __init__(self, line: Line, meter: str = "", *, most: int = 1000) -> None:
        self.dropped = 0
        self._line = line
        self._meter = meter
        self._most = most
        self._waiting: deque[tuple[str, FrameRecord]] = deque()
        self._came = asyncio.Event()

    def __enter__(self) -> Trace:
        self._line.tap(self._take)
        return self

    def __exit__(self, *_error: object) -> None:
        self._line.untap(self._take)

    def _take(self, meter: str, frame: FrameRecord) -> None:
        if self._meter and meter != self._meter:
            return
        if len(self._waiting) >= self._most:
            self.dropped += 1
            return
        self._waiting.append((meter, frame))
        self._came.set()

    async def frames(self) -> list[tuple[str, FrameRecord]]:
        """All frames that wait, as soon as there is one."""
        while not self._waiting:
            self._came.clear()
            await self._came.wait()
        taken = list(self._waiting)
        self._waiting.clear()
        return taken
