"""Acrel meters and gateways as sold abroad (ADW300, ADL400N, AWT100, ...): `/gw/acrelHW/{product}/{command}/{SN}`.

Source: Acrel IoT Docs, 海外协议 (hwprotocol.html), and the published "ADW300 mqtt-json protocols": topics, login, the
first half of the time exchange, `res`. Times are local, `YYYYMMDDhhmmss`; only the time exchange says the zone (`utc`,
hours east). Not seen in public, and so unverified: how values lie in a `data` message (taken flat, or as an object or
list under `data`), the body of the answer to `time`, and what an `event` holds beside its type.

Every message that can be read is answered with `res` 1 once it is stored. `hstdata` is what could not be sent during an
outage; it is kept like `data`: values have their own times, and what is there already is not doubled.
`transport` is no message of this format but a line (docs/mqtt.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Any, Final

from headend.errors import BadFrame
from headend.mqtt.batch import Batch, EventRow, ReadKindWord, State
from headend.mqtt.gather import Gathering
from headend.mqtt.mapping import take_part
from headend.mqtt.payload import BadTime, at, decode_json, encode_json, epoch_s, hours_zone, pick_text, plain
from headend.mqtt.shapes import Part, Term, Time, Value

__all__ = ["COMMANDS", "AcrelOverseas"]

COMMANDS: Final = ("login", "time", "para", "heart", "data", "hstdata", "event", "alarm")
"""Commands that are listened to."""

_GATEWAYS: Final = 100_000  # whose zone is remembered; a stranger must not fill the memory
_FORM: Final = "%Y%m%d%H%M%S"
_ABOUT: Final = ("type", "gwSN", "meterSN", "time", "ver", "rssi", "isend", "meterName", "upInterval", "res")


@dataclass(frozen=True, slots=True)
class AcrelOverseas:
    """values: what the names in `data` mean. zone: of local times until a gateway has told its own; None: they can't
    be taken before. told: zones by serial number, learnt from time exchanges."""

    name: str
    values: tuple[Value, ...]
    zone: tzinfo | None = None
    ignore: tuple[str, ...] = ()
    told: dict[str, tzinfo] = field(default_factory=dict, compare=False, repr=False)

    @property
    def filters(self) -> tuple[str, ...]:
        """See `Dialect.filters`."""
        return tuple(f"/gw/acrelHW/+/{command}/{{concentrator}}" for command in COMMANDS)

    def decode(self, topic: str, payload: bytes, received_at: datetime) -> Batch:
        """See `Dialect.decode`."""
        levels = topic.split("/")
        if len(levels) != 6 or levels[:3] != ["", "gw", "acrelHW"] or levels[4] not in COMMANDS:
            raise BadFrame(f"topic {plain(topic)} is none of {self.name}")
        _, _, _, product, command, serial = levels
        root = decode_json(payload)
        if not isinstance(root, dict):
            raise BadFrame(f"a {command} message is an object, not {plain(root)}")
        said = pick_text(root.get("gwSN", ""))
        if "gwSN" in root and not said:
            raise BadFrame(f"gwSN is {plain(root['gwSN'])}, which is no serial number")
        into = Gathering()
        zone = self._zone(serial, command, root, into)
        if command in ("data", "hstdata"):
            self._values(root, serial, zone, received_at, into)
        if command in ("event", "alarm"):
            _event(root, serial, zone, received_at, into)
        back = _answer(command, zone, received_at)
        return into.batch(
            said or serial,
            kind=ReadKindWord.REGISTER,
            state=State(True, pick_text(root.get("ver", ""))) if command in ("login", "heart") else None,
            reply=(f"/server/acrelHW/{product}/{command}/{serial}", encode_json(back)),
        )

    def _zone(self, serial: str, command: str, root: dict[str, Any], into: Gathering) -> tzinfo | None:
        if command == "time" and "utc" in root:
            told = hours_zone(root["utc"])
            if told is None:
                into.reject("", f"utc is {plain(root['utc'])}, which is no number of hours")
            elif serial in self.told or len(self.told) < _GATEWAYS:
                self.told[serial] = told
        return self.told.get(serial, self.zone)

    def _values(
        self, root: dict[str, Any], serial: str, zone: tzinfo | None, received_at: datetime, into: Gathering
    ) -> None:
        inner = root.get("data")
        rows = inner if isinstance(inner, list) else [inner] if isinstance(inner, dict) else [root]
        part = Part(
            Term("text", ""), self.values, Time(("time",), form=_FORM, zone=zone), ignore=(*_ABOUT, *self.ignore)
        )
        for row in rows:
            if not isinstance(row, dict):
                into.reject("", f"{plain(row)} stands where values are wanted")
                continue
            meter = pick_text(row.get("meterSN", root.get("meterSN", serial)))
            held = row if "time" in row else {**row, "time": root.get("time")}
            one = Part(Term("text", meter), part.values, part.time, ignore=part.ignore)
            take_part(one, held, {}, received_at, 0, into)


def _event(root: dict[str, Any], serial: str, zone: tzinfo | None, received_at: datetime, into: Gathering) -> None:
    meter = pick_text(root.get("meterSN", serial)) or serial
    try:
        moment = epoch_s(at(root, ("time",)), _FORM, zone, received_at)
    except BadTime as error:
        into.reject(meter, f"an event: {error}")
        return
    rest = {key: value for key, value in root.items() if key not in _ABOUT}
    code = next((text for key in ("code", "event", "alarm") if (text := pick_text(root.get(key, "")))), "")
    into.events.append(EventRow(meter, moment.at_s, f"acrel:{code or 'event'}", data=_json_safe(rest)))


def _answer(command: str, zone: tzinfo | None, received_at: datetime) -> dict[str, Any]:
    """What the device gets back. To `time` the time by its own zone; without a zone there is none to tell."""
    answer: dict[str, Any] = {"type": command, "res": 1}
    if command == "time":
        if zone is None:
            return {"type": command, "res": 0}
        answer["time"] = received_at.astimezone(zone).strftime(_FORM)
    return answer


def _json_safe(data: dict[str, Any]) -> dict[str, Any]:
    """An event's fields as texts and whole numbers: what the store keeps as JSON knows no decimals."""
    return {
        key: value if isinstance(value, int) and abs(value) < 2**53 else plain(value) for key, value in data.items()
    }
