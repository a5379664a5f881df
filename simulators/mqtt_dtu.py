"""A transparent DTU: frames in and out over a pair of topics, meters of any protocol on its serial port.

codec: how a frame stands in a message: `json` {"d": hex, "o": n} as mujiyun and Luat do, `hex` as text, `raw` as bytes,
`acrel` as the `transport` of an Acrel gateway.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from simulators.bus import Shared
from simulators.mqtt_concentrator import Out

__all__ = ["CODECS", "Dtu", "pack", "unpack"]

CODECS = ("json", "hex", "raw", "acrel")


def pack(codec: str, frame: bytes, number: int = 0, serial: str = "") -> bytes:
    """The message that carries `frame`."""
    if codec == "raw":
        return frame
    if codec == "hex":
        return frame.hex().encode()
    body: dict[str, Any] = {"d": frame.hex(), "o": number}
    if codec == "acrel":
        body = {"type": "transport", "gwSN": serial, "data": frame.hex().upper()}
    return json.dumps(body, separators=(",", ":")).encode()


def unpack(codec: str, payload: bytes) -> bytes:
    """The frame in a message; ValueError, KeyError or TypeError when there is none."""
    if codec == "raw":
        return payload
    if codec == "hex":
        return bytes.fromhex(payload.decode("ascii"))
    return bytes.fromhex(json.loads(payload)["data" if codec == "acrel" else "d"])


class Dtu:
    """imei: its name. line: what hangs on its port. up, down: topics, by default `/iotinfo/{imei}` and
    `/iotmonitor/{imei}`. split: an answer longer than so many bytes comes in several messages, 0 for one. The
    `/iotmonitor` topic is the one towards the DTU. `done` counts frames heard, sent and not understood."""

    def __init__(
        self,
        imei: str,
        line: Shared,
        *,
        emit: Callable[[Out], None] | None = None,
        codec: str = "json",
        up: str = "/iotinfo/{imei}",
        down: str = "/iotmonitor/{imei}",
        split: int = 0,
    ) -> None:
        if codec not in CODECS:
            raise ValueError(f"{codec!r} is none of {', '.join(CODECS)}")
        self.imei = imei
        self.codec = codec
        self.up = up.format(imei=imei)
        self.subscription = down.format(imei=imei)
        self.emit = emit or (lambda _out: None)
        self.split = split
        self.done: Counter[str] = Counter()
        self.deaf = False
        self._station = line.station(self._say, lambda: None, lasting=True)

    def connected(self) -> None:
        """Nothing is said of it."""

    def disconnected(self) -> None:
        """Nothing is kept."""

    def hear(self, _topic: str, payload: bytes) -> None:
        """A frame for the serial port. Not heard while `deaf`."""
        try:
            frame = unpack(self.codec, payload)
        except (ValueError, KeyError, TypeError):
            self.done["not understood"] += 1
            return
        self.done["heard"] += 1
        if not self.deaf:
            self._station.feed(frame)

    def _say(self, data: bytes) -> None:
        size = self.split or len(data)
        for first in range(0, len(data), max(size, 1)):
            self.done["sent"] += 1
            piece = pack(self.codec, data[first : first + size], self.done["sent"], self.imei)
            self.emit(Out(self.up, piece))
