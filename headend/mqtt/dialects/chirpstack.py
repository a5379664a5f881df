"""LoRaWAN meters behind ChirpStack v4: `application/{id}/device/{devEui}/event/up`, the JSON of an UplinkEvent.

Source: chirpstack_api integration.proto (fields deduplicationId, time, deviceInfo, fCnt, fPort, data in base64, object
of a codec); JSON is the Protobuf mapping of it. What `object` and `data` hold depends on the device and its codec: a
profile tells it, by the name of the device profile and the port.

An uplink heard by several gateways, or sent again, has the same deduplicationId or (devEui, fCnt). It needs no care
here: it carries the same time and values, and the store keeps each value once, however often it comes.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from typing import Any, Final

from headend.civil import to_epoch_s
from headend.errors import BadFrame
from headend.mqtt.batch import Batch, ReadKindWord
from headend.mqtt.gather import Gathering
from headend.mqtt.mapping import take_part
from headend.mqtt.payload import ABSENT, BadTime, at, decode_json, epoch_s, number, pick_text, plain, to_store
from headend.mqtt.shapes import Part, Term, Topic
from headend.protocols.modbus.model import Register
from headend.protocols.modbus.values import decode as decode_register

__all__ = ["TOPIC", "ChirpStack", "Field", "Profile"]

TOPIC: Final = Topic("application/{concentrator}/device/{meter}/event/up")


@dataclass(frozen=True, slots=True)
class Field:
    """A number in the bytes of an uplink. offset: where it starts. register: how it is written there. factor: from
    the number to ten-thousandths of its quantity's unit."""

    offset: int
    register: Register
    factor: Fraction


@dataclass(frozen=True, slots=True)
class Profile:
    """What uplinks of one device profile hold. device_profile: its name in ChirpStack, "" any. port: fPort, None any.
    part: values in `object`; None if `fields` tell what is in `data`. starts: bytes such a message begins with; skip:
    how many of them may be anything, from the start."""

    device_profile: str = ""
    port: int | None = None
    part: Part | None = None
    fields: tuple[Field, ...] = ()
    starts: bytes = b""
    skip: int = 0

    def takes(self, event: Any, data: bytes) -> bool:
        """Whether this profile is that of `event`."""
        name = at(event, ("deviceInfo", "deviceProfileName"))
        if self.device_profile and name != self.device_profile:
            return False
        if self.port is not None and number(at(event, ("fPort",))) != self.port:
            return False
        return data[self.skip :].startswith(self.starts)


@dataclass(frozen=True, slots=True)
class ChirpStack:
    """The concentrator of an uplink is its application."""

    name: str
    profiles: tuple[Profile, ...]

    @property
    def filters(self) -> tuple[str, ...]:
        """See `Dialect.filters`."""
        return (TOPIC.filter,)

    def decode(self, topic: str, payload: bytes, received_at: datetime) -> Batch:
        """See `Dialect.decode`."""
        names = TOPIC.names(topic)
        if names is None:
            raise BadFrame(f"topic {plain(topic)} is none of {self.name}")
        event = decode_json(payload)
        if not isinstance(event, dict):
            raise BadFrame(f"an uplink is an object, not {plain(event)}")
        said = pick_text(at(event, ("deviceInfo", "devEui")))
        if said and said.lower() != names["meter"].lower():
            raise BadFrame(f"its topic is of device {names['meter'][:32]}, but it says it is {said[:32]}")
        application = pick_text(at(event, ("deviceInfo", "applicationId")))
        into = Gathering()
        self._take(event, names["meter"].lower(), received_at, into)
        return into.batch(application or names["concentrator"], kind=ReadKindWord.REGISTER)

    def _take(self, event: dict[str, Any], meter: str, received_at: datetime, into: Gathering) -> None:
        data = _data(event)
        profile = next((one for one in self.profiles if one.takes(event, data)), None)
        if profile is None:
            name = at(event, ("deviceInfo", "deviceProfileName"))
            of = "no device profile" if name is ABSENT else f"device profile {plain(name)}"
            into.reject(meter, f"no mapping for {of}, port {plain(event.get('fPort'))}")
        elif profile.part is not None:
            if event.get("object") is None:
                into.reject(meter, "the uplink has no object: the device profile in ChirpStack needs its codec")
            else:
                take_part(replace(profile.part, meter=Term("text", meter)), event, {}, received_at, 0, into)
        else:
            _take_bytes(profile, event, data, meter, received_at, into)


def _data(event: dict[str, Any]) -> bytes:
    text = event.get("data", "")
    try:
        return b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        raise BadFrame("data is no base64") from None


def _take_bytes(
    profile: Profile, event: dict[str, Any], data: bytes, meter: str, received_at: datetime, into: Gathering
) -> None:
    try:
        moment = epoch_s(event.get("time"), "iso", None, received_at) if event.get("time") else None
    except BadTime as error:
        into.reject(meter, str(error))
        return
    at_s = to_epoch_s(received_at) if moment is None else moment.at_s
    for one in profile.fields:
        raw = data[one.offset : one.offset + 2 * one.register.words]
        if len(raw) < 2 * one.register.words:
            into.reject(meter, f"{len(data)} bytes are too few for {one.register.name}")
            continue
        value = decode_register(one.register, raw)
        exact = number(value) if value is not None and not isinstance(value, str) else None
        units = None if exact is None else to_store(exact, one.factor)
        if units is None:
            into.reject(meter, f"{one.register.name} holds {plain(value)}, which is no number that can be stored")
        else:
            into.put(meter, at_s, 0, one.register.name, units)
