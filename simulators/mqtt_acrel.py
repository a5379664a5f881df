"""Gateways of Acrel: the protocol for abroad and the one of its Chinese platform. Both log in, ask the time, and keep
what was not acknowledged to send it as history.

Like `mqtt_concentrator` they do no IO: `emit` is called with what to publish.
"""

from __future__ import annotations

import json
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta, timezone
from typing import Any

from simulators.clock import Now
from simulators.mqtt_concentrator import Out
from simulators.mqtt_firmware import Tag, stamp
from simulators.mqtt_meters import ConMeter, Truth

__all__ = ["ACREL_TAGS", "AcrelDomestic", "AcrelOverseas"]

ACREL_TAGS = (
    Tag("EPI", "1-0:1.8.0", 2),
    Tag("EPE", "1-0:2.8.0", 2),
    Tag("P", "1-0:16.7.0", 3),
    Tag("Ua", "1-0:32.7.0", 1),
    Tag("Ia", "1-0:31.7.0", 2),
)


class _Gateway:
    """What both have in common: a round of reads is kept until it is acknowledged. `done` counts. answers_needed: no
    data before the login was answered."""

    def __init__(
        self,
        serial: str,
        product: str,
        meters: Sequence[ConMeter],
        now: Now = time.time,
        *,
        emit: Callable[[Out], None] | None = None,
        offset_min: int = 480,
    ) -> None:
        self.serial = serial
        self.product = product
        self.meters = {meter.address: meter for meter in meters}
        self.now = now
        self.emit = emit or (lambda _out: None)
        self.zone = timezone(timedelta(minutes=offset_min))
        self.offset_min = offset_min
        self.clock_error_s = 0
        self.online = False
        self.logged_in = False
        self.kept: dict[str, tuple[str, int]] = {}  # what is not acknowledged: key to address and time
        self.done: Counter[str] = Counter()
        self._told: list[tuple[str, int, int]] = []

    def believed_s(self) -> int:
        """The time by its own clock."""
        return int(self.now()) + self.clock_error_s

    def truths(self) -> Iterator[Truth]:
        """Every value it has read."""
        for address, at_s, error_s in self._told:
            meter = self.meters[address]
            for tag in ACREL_TAGS:
                yield Truth(address, tag.obis, at_s, tag.number(meter, at_s - error_s), "register", at_s - error_s)

    def disconnected(self) -> None:
        """What it reads from now on is kept."""
        self.online = self.logged_in = False

    def _recorded(self, meter: ConMeter, at_s: int) -> str:
        self._told.append((meter.address, at_s, self.clock_error_s))
        key = f"{meter.address}-{at_s}"
        self.kept[key] = (meter.address, at_s)
        return key

    def _said(self, address: str, at_s: int) -> list[tuple[str, str]]:
        meter = self.meters[address]
        return [(tag.key, str(tag.number(meter, at_s - self.clock_error_s))) for tag in ACREL_TAGS]


class AcrelOverseas(_Gateway):
    """`/gw/acrelHW/{product}/{cmd}/{SN}` up, `/server/acrelHW/...` down; local time without a zone, which only the
    `time` exchange tells."""

    @property
    def subscription(self) -> str:
        """Where it listens."""
        return f"/server/acrelHW/{self.product}/+/{self.serial}"

    def _say(self, word: str, at_s: int, body: dict[str, Any]) -> None:
        message = {"type": word, "gwSN": self.serial, "time": stamp(at_s, self.zone, "%Y%m%d%H%M%S"), **body}
        if self.online:
            self.done[word] += 1
            payload = json.dumps(message, separators=(",", ":")).encode()
            self.emit(Out(f"/gw/acrelHW/{self.product}/{word}/{self.serial}", payload))

    def connected(self) -> None:
        """It logs in; more only when that was answered."""
        self.online = True
        self._say("login", self.believed_s(), {"ver": 1011, "rssi": 48, "code": 1968, "verpro": 0})

    def read(self) -> None:
        """Read all meters now; sent at once when logged in, else as history when it is."""
        at_s = self.believed_s()
        for meter in self.meters.values():
            if not meter.silent:
                self._recorded(meter, at_s)
                if self.logged_in:
                    self._data("data", meter.address, at_s)

    def _data(self, word: str, address: str, at_s: int) -> None:
        said = {key: float(text) for key, text in self._said(address, at_s)}
        self._say(word, at_s, {"meterSN": address, **said})

    def heartbeat(self) -> None:
        """It is still there."""
        self._say("heart", self.believed_s(), {})

    def hear(self, topic: str, payload: bytes) -> None:
        """An answer or an order of the server."""
        word = topic.split("/")[4]
        message = json.loads(payload)
        self.done[f"heard {word}"] += 1
        if word == "login" and message.get("res") == 1:
            self.logged_in = True
            body = {"country": "China", "utc": str(self.offset_min // 60), "timezone": self.offset_min}
            self._say("time", self.believed_s(), body)
            for address, at_s in list(self.kept.values()):
                self._data("hstdata", address, at_s)
        elif word in ("data", "hstdata") and message.get("res") == 1:
            self._acknowledged(message)
        elif word == "data":
            self.read()

    def _acknowledged(self, message: dict[str, Any]) -> None:
        """By meter, if the answer names one; else the oldest."""
        named = message.get("meterSN")
        for key, (address, _) in self.kept.items():
            if named in (None, address):
                del self.kept[key]
                return


class AcrelDomestic(_Gateway):
    """`sys/dev/{productKey}/{sn}` up, `sys/server/...` down, one envelope for all: msgid, method, sn, timestamp,
    payload; values are text. compress: payloads go out as zlib, as its login says."""

    compress = False

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._number = 0
        self._waiting: dict[str, str] = {}

    @property
    def subscription(self) -> str:
        """Where it listens."""
        return f"sys/server/{self.product}/{self.serial}"

    def _say(self, method: str, at_s: int, payload: dict[str, Any]) -> str:
        self._number += 1
        msgid = f"{self.serial}{self._number}"
        message = {"msgid": msgid, "method": method, "sn": self.serial, "timestamp": at_s, "payload": payload}
        if self.online:
            self.done[method] += 1
            raw = json.dumps(message, separators=(",", ":")).encode()
            packed = self.compress and method != "login"
            self.emit(Out(f"sys/dev/{self.product}/{self.serial}", zlib.compress(raw) if packed else raw))
        return msgid

    def connected(self) -> None:
        """It logs in; more only when that was answered."""
        self.online = True
        login: dict[str, Any] = {"upInterval": 300, "devname": "awt100_4g", "softversion": "1001", "network": 0}
        if self.compress:
            login |= {"compress": "1", "compressAlgo": "ZLIB"}
        self._say("login", self.believed_s(), login)

    def read(self) -> None:
        """Read all meters now; sent at once when logged in, else when it is."""
        at_s = self.believed_s()
        for meter in self.meters.values():
            if not meter.silent:
                key = self._recorded(meter, at_s)
                if self.logged_in:
                    self._data(key)

    def _data(self, key: str) -> None:
        address, at_s = self.kept[key]
        payload = {"sn": address, "timestamp": at_s, **dict(self._said(address, at_s))}
        self._waiting[self._say("data", at_s, payload)] = key

    def notice(self, address: str, word: str, **data: Any) -> None:
        """Something befell a meter."""
        self._say("notice", self.believed_s(), {"sn": address, "noticeType": [word], word: data})

    def hear(self, _topic: str, payload: bytes) -> None:
        """An answer or an order of the platform."""
        message = json.loads(payload)
        method = message["method"]
        self.done[f"heard {method}"] += 1
        if method == "login" and message.get("res") == 1:
            self.logged_in = True
            self._say("time", self.believed_s(), {"timezone": str(self.offset_min // 60)})
            for key in list(self.kept):
                self._data(key)
        elif method == "data" and message.get("res") == 1:
            self.kept.pop(self._waiting.pop(str(message["msgid"]), ""), None)
        elif method == "call_data" and "res" not in message:
            self.read()
