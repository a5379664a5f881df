"""Gateways with formats of their own: the same households, told in the words of each vendor.

A firmware is data (what it calls each value, how finely it says it) and a function that makes the messages of one
round. `truths` says what they told. Shapes as the vendors document them; docs/simulate.md names the sources.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from simulators.mqtt_concentrator import Out
from simulators.mqtt_meters import ConMeter, Truth

__all__ = ["FIRMWARES", "Firmware", "Tag", "messages", "stamp", "truths", "values"]


@dataclass(frozen=True, slots=True)
class Tag:
    """What a firmware calls a value, how many decimals it gives, and 10**shift of the base unit it counts in."""

    key: str
    obis: str
    decimals: int
    shift: int = 0

    def number(self, meter: ConMeter, at_s: int) -> Decimal:
        """As it is sent: cut off behind the last decimal."""
        units = meter.units(self.obis, at_s)
        step = Decimal(1).scaleb(-self.decimals)
        return (Decimal(units).scaleb(-4 - self.shift) // step * step).quantize(step)


@dataclass(frozen=True, slots=True)
class Firmware:
    """name: of the format. tags: what it tells of a meter. make: gateway, meters, epoch seconds, zone to messages."""

    name: str
    tags: tuple[Tag, ...]
    make: Callable[[Firmware, str, Sequence[ConMeter], int, timezone], list[Out]]


def messages(
    name: str, gateway: str, meters: Sequence[ConMeter], at_s: int, zone: timezone = timezone(timedelta(hours=8))
) -> list[Out]:
    """What the gateway of firmware `name` publishes at `at_s`. zone: of formats that say local time."""
    firmware = FIRMWARES[name]
    return firmware.make(firmware, gateway, [meter for meter in meters if not meter.silent], at_s, zone)


def truths(name: str, meters: Sequence[ConMeter], at_s: int) -> list[Truth]:
    """Every value in those messages, in kWh, kW, V, A."""
    return [
        Truth(meter.address, tag.obis, at_s, tag.number(meter, at_s).scaleb(tag.shift), "register", at_s)
        for meter in meters
        if not meter.silent
        for tag in FIRMWARES[name].tags
    ]


def values(tags: Sequence[Tag], meter: ConMeter, at_s: int) -> dict[str, float]:
    """Name to number; the shortest decimal of such a float is the number itself."""
    return {tag.key: float(tag.number(meter, at_s)) for tag in tags}


def stamp(at_s: int, zone: timezone, form: str) -> str:
    """Local time by a strftime form."""
    return datetime.fromtimestamp(at_s, zone).strftime(form)


def _out(topic: str, body: Any) -> Out:
    return Out(topic, json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())


# -- flat values -------------------------------------------------------------------------------------------------------


def _neuron(it: Firmware, gateway: str, meters: Sequence[ConMeter], at_s: int, _zone: timezone) -> list[Out]:
    """A node for each meter; what could not be read comes under errors."""
    return [
        _out(
            f"/neuron/{gateway}/{meter.address}/energy",
            {
                "timestamp": at_s * 1000,
                "node": meter.address,
                "group": "energy",
                "values": values(it.tags, meter, at_s),
                "errors": {"frequency": 3002},
            },
        )
        for meter in meters
    ]


def _neuron_tags(it: Firmware, gateway: str, meters: Sequence[ConMeter], at_s: int, _zone: timezone) -> list[Out]:
    found = []
    for meter in meters:
        tags: list[dict[str, Any]] = [
            {"name": name, "value": value} for name, value in values(it.tags, meter, at_s).items()
        ]
        tags.append({"name": "frequency", "error": 3002})
        body = {"timestamp": at_s * 1000, "node": meter.address, "group": "energy", "tags": tags}
        found.append(_out(f"/neuron/{gateway}/{meter.address}/energy", body))
    return found


def _thingsboard(it: Firmware, _gateway: str, meters: Sequence[ConMeter], at_s: int, _zone: timezone) -> list[Out]:
    body = {meter.address: [{"ts": at_s * 1000, "values": values(it.tags, meter, at_s)}] for meter in meters}
    return [_out("v1/gateway/telemetry", body)]


def _wmbusmeters(it: Firmware, _gateway: str, meters: Sequence[ConMeter], at_s: int, _zone: timezone) -> list[Out]:
    found = []
    for meter in meters:
        body: dict[str, Any] = {"media": "electricity", "meter": "amiplus", "name": f"m{meter.address}"}
        body["id"] = meter.address
        body |= values(it.tags, meter, at_s)
        body["timestamp"] = stamp(at_s, UTC, "%Y-%m-%dT%H:%M:%SZ")
        found.append(_out(f"wmbusmeters/{meter.address}", body))
    return found


def _tasmota(it: Firmware, _gateway: str, meters: Sequence[ConMeter], at_s: int, zone: timezone) -> list[Out]:
    """A reading head on each meter, named like it."""
    found = []
    for meter in meters:
        sml: dict[str, Any] = dict(values(it.tags, meter, at_s))
        sml["Meter_Id"] = meter.address
        body = {"Time": stamp(at_s, zone, "%Y-%m-%dT%H:%M:%S"), "SML": sml}
        found.append(_out(f"tele/{meter.address}/SENSOR", body))
    return found


# -- nested ------------------------------------------------------------------------------------------------------------


def _thing_model(it: Firmware, gateway: str, meters: Sequence[ConMeter], at_s: int, _zone: timezone) -> list[Out]:
    """Aliyun style: each meter is a device of the product that is named like the gateway; each value has its time."""
    found = []
    for meter in meters:
        said = {key: {"value": value, "time": at_s * 1000} for key, value in values(it.tags, meter, at_s).items()}
        body = {"id": f"{at_s}", "version": "1.0", "sys": {"ack": 1}, "params": said, "method": _POST}
        found.append(_out(f"/sys/{gateway}/{meter.address}/thing/event/property/post", body))
    return found


_POST = "thing.event.property.post"


def _edgelogger(it: Firmware, gateway: str, meters: Sequence[ConMeter], at_s: int, zone: timezone) -> list[Out]:
    local = stamp(at_s, zone, "%Y%m%d%H%M%S") + "000"
    batch = []
    for meter in meters:
        said = values(it.tags, meter, at_s)
        energy = {"active": {"unit": "kWh", "value": {"forward": said["forward"], "reverse": said["reverse"]}}}
        power = {"active": {"unit": "kW", "value": {"total": said["total"]}}}
        batch.append({"timestamp": local, "device_id": meter.address, "metrics": {"energy": energy, "power": power}})
    body = {"msgType": "up", "msgId": f"{gateway}{at_s}", "msgCreateTime": local, "batch": batch}
    return [_out(f"device/power/up/{gateway}", body)]


def _cet(it: Firmware, _gateway: str, meters: Sequence[ConMeter], at_s: int, _zone: timezone) -> list[Out]:
    """One message for a meter, its properties named in Chinese."""
    units = {"1-0:1.8.0": "kWh", "1-0:16.7.0": "kW", "1-0:32.7.0": "V", "1-0:31.7.0": "A"}
    return [
        _out(
            "CET/NX/upload",
            {
                "version": "1.0",
                "location_code": meter.address,
                "ts": at_s,
                "properties": [
                    {
                        "type": "AI",
                        "key": tag.key,
                        "value": float(tag.number(meter, at_s)),
                        "unit": units[tag.obis],
                        "timestamp": at_s,
                    }
                    for tag in it.tags
                ],
            },
        )
        for meter in meters
    ]


def _chirpstack(it: Firmware, gateway: str, meters: Sequence[ConMeter], at_s: int, _zone: timezone) -> list[Out]:
    """LoRaWAN uplinks of Milesight WS52x sockets: the address is the devEui, what the codec made of the bytes stands in
    `object`, the bytes in `data`."""
    found = []
    for meter in meters:
        said = {tag.key: tag.number(meter, at_s) for tag in it.tags}
        about = {"tenantName": "t", "applicationId": gateway, "applicationName": "meters"}
        about |= {"deviceProfileName": "Milesight WS52x", "deviceName": f"meter {meter.address}"}
        about["devEui"] = meter.address
        body = {
            "deduplicationId": f"{meter.address}-{at_s}",
            "time": stamp(at_s, UTC, "%Y-%m-%dT%H:%M:%S+00:00"),
            "deviceInfo": about,
            "devAddr": "00189440",
            "dr": 5,
            "fCnt": at_s // 900 % 65_536,
            "fPort": 85,
            "confirmed": False,
            "data": base64.b64encode(_ws52x(said)).decode(),
            "object": {key: float(value) for key, value in said.items()},
            "rxInfo": [{"gatewayId": "0016c001f153a14c", "rssi": -57, "snr": 10}],
        }
        found.append(_out(f"application/{gateway}/device/{meter.address}/event/up", body))
    return found


def _ws52x(said: Mapping[str, Decimal]) -> bytes:
    """Channel, type, number with its lowest byte first."""
    return b"".join(
        head + int(said[key] * factor).to_bytes(size, "little")
        for head, key, factor, size in (
            (b"\x03\x74", "voltage", 10, 2),
            (b"\x04\x80", "active_power", 1, 4),
            (b"\x06\x83", "power_consumption", 1, 4),
            (b"\x07\xc9", "current", 1, 2),
        )
    )


_FLAT = (
    Tag("import_kwh", "1-0:1.8.0", 2),
    Tag("power_kw", "1-0:16.7.0", 3),
    Tag("voltage_a", "1-0:32.7.0", 1),
    Tag("current_a", "1-0:31.7.0", 3),
)
_THING = (
    Tag("ActiveEnergy", "1-0:1.8.0", 2),
    Tag("ActivePower", "1-0:16.7.0", 3),
    Tag("VoltageA", "1-0:32.7.0", 1),
    Tag("CurrentA", "1-0:31.7.0", 3),
)
_WS52X = (
    Tag("power_consumption", "1-0:1.8.0", 0, shift=-3),
    Tag("active_power", "1-0:16.7.0", 0, shift=-3),
    Tag("voltage", "1-0:32.7.0", 1),
    Tag("current", "1-0:31.7.0", 0, shift=-3),
)

FIRMWARES = {
    firmware.name: firmware
    for firmware in (
        Firmware("neuron", _FLAT, _neuron),
        Firmware("neuron-tags", _FLAT, _neuron_tags),
        Firmware("thingsboard", _FLAT, _thingsboard),
        Firmware(
            "wmbusmeters",
            (
                Tag("total_energy_consumption_kwh", "1-0:1.8.0", 3),
                Tag("current_power_consumption_kw", "1-0:1.7.0", 3),
            ),
            _wmbusmeters,
        ),
        Firmware(
            "tasmota",
            (
                Tag("Total_in", "1-0:1.8.0", 4),
                Tag("Total_out", "1-0:2.8.0", 4),
                Tag("Power_curr", "1-0:16.7.0", 0, shift=-3),
            ),
            _tasmota,
        ),
        Firmware("thing-model", _THING, _thing_model),
        Firmware(
            "edgelogger",
            (Tag("forward", "1-0:1.8.0", 2), Tag("reverse", "1-0:2.8.0", 2), Tag("total", "1-0:16.7.0", 3)),
            _edgelogger,
        ),
        Firmware(
            "cet",
            (
                Tag("正向有功总电能", "1-0:1.8.0", 2),
                Tag("总有功功率", "1-0:16.7.0", 3),
                Tag("A相电压", "1-0:32.7.0", 1),
                Tag("A相电流", "1-0:31.7.0", 2),
            ),
            _cet,
        ),
        Firmware("chirpstack", _WS52X, _chirpstack),
    )
}
"""By name."""
