"""DataNotifications a meter sends on its own, in the shapes seen in the field."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from simulators import dlms_axdr as axdr
from simulators.dlms_gbt import cut
from simulators.dlms_meter import DlmsMeter
from simulators.dlms_objects import Thing, things_of
from simulators.dlms_profile import CLOCK
from simulators.dlms_security import general_glo
from simulators.dlms_spec import DlmsClient
from simulators.dlms_wire import ui_frames, wrap

__all__ = ["PUSHED", "framed", "push_apdu", "push_apdus", "push_tcp", "push_udp"]

PUSHED = (CLOCK, "0.0.96.1.0.255", "1.0.1.8.0.255", "1.0.2.8.0.255", "1.0.1.7.0.255")
_SETUP = "0.0.25.9.0.255"
_HEADERS = {"pairs": "time", "time-pairs": "time", "structure-entries": "time", "position": "tagged"} | dict.fromkeys(
    ("objects", "entries", "untagged"), "none"
)
_EVERYTHING = DlmsClient(0)


def push_apdu(
    meter: DlmsMeter,
    shape: str,
    *,
    items: Sequence[str] = PUSHED,
    header: str = "",
    invoke: int | None = None,
    shield: str = "",
    control: int = 0x30,
) -> bytes:
    """One DataNotification of the objects in `items`.

    shape: `objects`: the push object list first, then the values; `pairs`: a name, then OBIS and value in turn;
    `time-pairs`: likewise, the time instead of the name; `entries`: an array of structures of OBIS, value and scaler
    with unit; `structure-entries`: a structure of them; `untagged`: a status, then attribute descriptors without tags,
    each with its value; `position`: bare values. header: the time in the header, `none`, `time` or `tagged` (as an
    octet-string), empty for what the shape has. invoke: the long invoke id, else it counts. shield: `general-glo` or
    empty for a plain one; control: its security control byte.
    """
    things = things_of(meter, _EVERYTHING)
    values = {obis: things[obis].get(meter, 2, None) for obis in items}
    raw = meter.clock.encode(meter.clock.believed(meter.now_s()))
    meter.heard["push"] += 1
    flat = [part for obis, value in values.items() for part in (axdr.octets(axdr.obis(obis)), value)]
    if shape == "objects":
        body = _objects(values, things)
    elif shape == "pairs":
        body = axdr.structure(axdr.text(f"{meter.spec.model}_V0001"), *flat)
    elif shape == "time-pairs":
        body = axdr.structure(axdr.octets(raw), *flat)
    elif shape in ("entries", "structure-entries"):
        entries = [_entry(things[obis], value) for obis, value in values.items()]
        body = axdr.array(entries) if shape == "entries" else axdr.structure(*entries)
    elif shape == "untagged":
        body = axdr.structure(axdr.enum(1), _untagged(values, things))
    elif shape == "position":
        body = axdr.structure(*values.values())
    else:
        raise ValueError(f"{shape!r} is no shape of push")
    number = meter.heard["push"] if invoke is None else invoke
    time = {"none": b"\x00", "time": b"\x0c" + raw, "tagged": b"\x09\x0c" + raw}[header or _HEADERS[shape]]
    plain = b"\x0f" + number.to_bytes(4, "big") + time + body
    return general_glo(meter, plain, control) if shield else plain


def _descriptor(class_id: int, obis: str) -> bytes:
    return axdr.structure(axdr.u16(class_id), axdr.octets(axdr.obis(obis)), axdr.i8(2), axdr.u16(0))


def _objects(values: dict[str, bytes], things: dict[str, Thing]) -> bytes:
    """The list names itself first (class 40), as pushes with their setup do."""
    described = [_descriptor(40, _SETUP), *(_descriptor(things[obis].class_id, obis) for obis in values)]
    return axdr.structure(axdr.array(described), *values.values())


def _entry(thing: Thing, value: bytes) -> bytes:
    parts = [axdr.octets(axdr.obis(thing.obis)), value]
    return axdr.structure(*parts, thing.reads[3]()) if thing.class_id == 3 else axdr.structure(*parts)


def _untagged(values: dict[str, bytes], things: dict[str, Thing]) -> bytes:
    return axdr.array(
        b"\x02\x02" + things[obis].class_id.to_bytes(2, "big") + axdr.obis(obis) + b"\x02" + value
        for obis, value in values.items()
    )


def push_apdus(
    meter: DlmsMeter, shape: str, *, gbt: int = 0, shield: str = "", items: Sequence[str] = PUSHED
) -> list[bytes]:
    """A push as the APDUs it comes in: one, or blocks of `gbt` bytes."""
    apdu = push_apdu(meter, shape, items=items, shield=shield)
    return cut(apdu, gbt) if gbt else [apdu]


def framed(
    meter: DlmsMeter,
    apdus: Sequence[bytes],
    interface: str = "wrapper",
    *,
    client: int = 102,
    destination: bytes = b"\x01",
    source: bytes = b"",
    max_info: int = 0,
    control: int = 0x13,
    llc_once: bool = False,
) -> list[bytes]:
    """Each APDU as it goes out. client: the wrapper port it is for.

    HDLC: destination, source: addresses as on the wire, source empty for the meter's logical address in one byte.
    max_info: segmented beyond it. control: UI with P, or what else a meter puts there. llc_once: only the first of
    several APDUs has the LLC bytes, as blocks of general block transfer have been seen.
    """
    if interface == "wrapper":
        own, other = meter.spec.logical, client
        if meter.spec.quirks.swap_wports:
            own, other = other, own
        return [wrap(own, other, apdu) for apdu in apdus]
    own_address = source or bytes((meter.spec.logical << 1 | 1,))
    frames: list[bytes] = []
    for apdu in apdus:
        llc = not (llc_once and frames)
        frames += ui_frames(apdu, destination, own_address, max_info=max_info, control=control, llc=llc)
    return frames


async def push_tcp(host: str, port: int, frames: Sequence[bytes]) -> None:
    """Connect, send, hang up."""
    _, writer = await asyncio.open_connection(host, port)
    writer.write(b"".join(frames))
    await writer.drain()
    writer.close()
    await writer.wait_closed()


class _Sender(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()


async def push_udp(host: str, port: int, frames: Sequence[bytes]) -> None:
    """A datagram each."""
    loop = asyncio.get_running_loop()
    transport, sender = await loop.create_datagram_endpoint(_Sender, remote_addr=(host, port))
    for frame in frames:
        transport.sendto(frame)
    transport.close()
    await sender.closed.wait()
