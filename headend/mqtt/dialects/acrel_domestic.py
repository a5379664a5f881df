"""Acrel's IoT platform as used in China: `sys/dev/{productKey}/{sn}`, answered on `sys/server/{productKey}/{sn}`.

Source: Acrel IoT Docs (sys.html, notice.html, safe.html): the envelope (`msgid`, `method`, `sn`, `timestamp` in
seconds, `payload`), the answers to `login` and `time`, compression announced at login. Not seen in public, and so
unverified: how values lie in `payload` (taken as an object, or a list of objects, of values under their names, each
with its own `sn` and `timestamp` where it has them).

Payloads packed with zlib are unpacked. LZO and AES are not: such a message is refused with the reason, and kept; the
gateway is to be set to `compress` 0 or ZLIB, and `encrypt` 0 (TLS protects the connection).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from headend.civil import to_epoch_s
from headend.errors import BadFrame
from headend.mqtt.batch import Batch, EventRow, ReadKindWord, State
from headend.mqtt.gather import Gathering
from headend.mqtt.mapping import take_part
from headend.mqtt.payload import BadTime, clear_bytes, decode_json, encode_json, epoch_s, pick_text, plain
from headend.mqtt.shapes import Part, Term, Time, Value

__all__ = ["AcrelDomestic"]

_SESSION: Final = ("login", "time", "topology", "heart", "logout")
_EVENTS: Final = ("event", "alarm")
_ABOUT: Final = ("sn", "meterSN", "timestamp", "rssi", "adapterLogId")


@dataclass(frozen=True, slots=True)
class AcrelDomestic:
    """values: what the names in `payload` mean; ignore: names of numbers not wanted."""

    name: str
    values: tuple[Value, ...]
    ignore: tuple[str, ...] = ()

    @property
    def filters(self) -> tuple[str, ...]:
        """See `Dialect.filters`."""
        return ("sys/dev/+/{concentrator}",)

    def decode(self, topic: str, payload: bytes, received_at: datetime) -> Batch:
        """See `Dialect.decode`."""
        levels = topic.split("/")
        if len(levels) != 4 or levels[:2] != ["sys", "dev"]:
            raise BadFrame(f"topic {plain(topic)} is none of {self.name}")
        root = decode_json(_unpacked(payload))
        method = pick_text(root.get("method", "")) if isinstance(root, dict) else ""
        if not method:
            raise BadFrame("the message names no method")
        serial = pick_text(root.get("sn", levels[3]))
        if not serial:
            raise BadFrame(f"sn is {plain(root['sn'])}, which is no serial number")
        into = Gathering()
        if method == "login":
            _tell_unreadable(root.get("payload"), into)
        elif method in _EVENTS:
            _event(method, root, serial, received_at, into)
        elif method not in _SESSION:
            self._values(root, serial, received_at, into)
        reply = encode_json(_answer(method, root, serial, received_at))
        return into.batch(
            serial,
            kind=ReadKindWord.REGISTER,
            state=State(True) if method in ("login", "heart") else None,
            reply=(f"sys/server/{levels[2]}/{levels[3]}", reply) if "msgid" in root else ("", b""),
        )

    def _values(self, root: dict[str, Any], serial: str, received_at: datetime, into: Gathering) -> None:
        time = Time(("timestamp",), form="epoch_s")
        seen = False
        for row in _rows(root.get("payload")):
            seen = True
            meter = pick_text(row.get("meterSN", row.get("sn", serial)))
            held = row if "timestamp" in row else {**row, "timestamp": root.get("timestamp")}
            take_part(
                Part(Term("text", meter), self.values, time, ignore=(*_ABOUT, *self.ignore)),
                held,
                {},
                received_at,
                0,
                into,
            )
        if not seen:
            into.reject(serial, f"a message of method {plain(root['method'])} without values")


def _unpacked(payload: bytes) -> bytes:
    if payload.lstrip()[:1] in (b"{", b"["):
        return payload
    if payload[:1] == b"\x78":
        return clear_bytes(payload, "zlib")
    raise BadFrame(
        "the payload is neither JSON nor zlib: LZO and AES can't be read",
        remedy="set the gateway to compress 0 or ZLIB, and encrypt 0",
    )


def _rows(payload: object) -> Iterator[dict[str, Any]]:
    for row in payload if isinstance(payload, list) else [payload]:
        if isinstance(row, dict) and row:
            yield row


def _tell_unreadable(payload: object, into: Gathering) -> None:
    """A login that announces what can't be read is answered; but what is coming is told at once."""
    login = payload if isinstance(payload, dict) else {}
    algorithm = plain(login.get("compressAlgo", "LZO"))
    if str(login.get("compress", 0)) == "1" and algorithm.upper() != "ZLIB":
        into.reject("", f"the gateway will compress with {algorithm}, which can't be read: set it to ZLIB or none")
    if str(login.get("encrypt", 0)) == "1":
        into.reject("", "the gateway will encrypt with AES, which can't be read: set encrypt to 0")


def _event(method: str, root: dict[str, Any], serial: str, received_at: datetime, into: Gathering) -> None:
    for row in _rows(root.get("payload")):
        meter = pick_text(row.get("meterSN", row.get("sn", serial))) or serial
        try:
            moment = epoch_s(row.get("timestamp", root.get("timestamp")), "epoch_s", None, received_at)
        except BadTime as error:
            into.reject(meter, f"an event: {error}")
            continue
        code = pick_text(row.get("code", row.get("event", ""))) or method
        data = {key: plain(value) for key, value in row.items() if key not in _ABOUT}
        into.events.append(EventRow(meter, moment.at_s, f"acrel:{code}", data=data))


def _answer(method: str, root: dict[str, Any], serial: str, received_at: datetime) -> dict[str, Any]:
    """The answer carries the message's msgid; that to `time` the device's own stamp and ours, as NTP does."""
    now = to_epoch_s(received_at)
    answer: dict[str, Any] = {"msgid": _echo(root.get("msgid")), "method": method, "sn": serial, "timestamp": now}
    if method != "time":
        return {**answer, "res": 1}
    echoed: dict[str, Any] = {
        key: _echo(root[key]) for key in ("adapterLogId", "devicesend", "timezone") if key in root
    }
    return {**answer, **echoed, "serverreceive": now, "serversend": now}


def _echo(value: object) -> str | int | None:
    return value if isinstance(value, str | int) else None
