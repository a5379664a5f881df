"""Whose push is it? A push is placed by its system title, by a serial number in its body, or by its sender's address.

What can't be placed with certainty is not stored as readings: it is kept as it came, with the reason, to be placed
later when keys, titles or models were corrected.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from headend.access import Access
from headend.errors import HeadendError, NoAccess, ProtocolError
from headend.model import FrameRecord, Meter, Outcome, ReadJob, ReadKind, Status
from headend.protocols.dlms.intake import Arrival
from headend.protocols.dlms.push import Push, decode_push, readings_of, sender_title
from headend.protocols.dlms.settings import DlmsSettings

__all__ = ["Placed", "Placer", "Unknown"]

AccessOf = Callable[[Meter], Access]

_SCHEDULE: Final = "push"


@dataclass(frozen=True, slots=True)
class Placed:
    """A push with its meter, ready for the store."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Unknown:
    """A push that can't be placed, and why."""

    reason: str


class Placer:
    """Finds the meter of a push among those whose model has `[dlms.push]`, or that have a system title."""

    def __init__(self, meters: Iterable[Meter], access_of: AccessOf) -> None:
        self._access_of = access_of
        self._by_title: dict[bytes, list[Meter]] = defaultdict(list)
        self._by_serial: dict[DlmsSettings, dict[str, list[Meter]]] = {}
        self._by_address: dict[str, list[Meter]] = defaultdict(list)
        for meter in meters:
            if isinstance(meter.details, DlmsSettings):
                self._add(meter, meter.details)

    def __bool__(self) -> bool:
        return bool(self._by_title or self._by_serial or self._by_address)

    def _add(self, meter: Meter, settings: DlmsSettings) -> None:
        if settings.meter_title:
            self._by_title[bytes.fromhex(settings.meter_title)].append(meter)
        if settings.push is None:
            return
        if settings.push.identity == "serial":
            self._by_serial.setdefault(settings, defaultdict(list))[_serial_of(meter)].append(meter)
        elif settings.push.identity == "address":
            self._by_address[meter.address.partition("#")[0]].append(meter)

    def place(self, arrival: Arrival, now: datetime, *, count: bool = True) -> Placed | Unknown:
        """The push in `arrival` with its meter and readings, or why not. Never raises for what was sent.

        count: hold its invocation counter against those seen before (not so for what was kept aside).
        """
        title = sender_title(arrival.apdu)
        try:
            if title:
                return self._by_its_title(arrival, title, now, count)
            found = self._by_its_serial(arrival, count)
            if found is None or isinstance(found, Unknown):
                by_address = self._by_its_address(arrival, count)
                found = by_address if found is None or not isinstance(by_address, Unknown) else found
        except ProtocolError as error:
            return Unknown(str(error))
        if isinstance(found, Unknown):
            return found
        meter, push = found
        return _placed(meter, push, arrival, now)

    def _by_its_title(self, arrival: Arrival, title: bytes, now: datetime, count: bool) -> Placed | Unknown:
        meter = _only(self._by_title.get(title, []), f"the system title {title.hex().upper()}")
        if isinstance(meter, Unknown):
            return meter
        push = _decoded(arrival, meter, self._access_of(meter), count=count)
        known = meter.address.partition("#")[2]
        if known and push.serial and push.serial != known:
            return Unknown(
                f"its system title is that of meter {meter.id}, but its serial number is {push.serial}, not {known}"
            )
        return _placed(meter, push, arrival, now)

    def _by_its_serial(self, arrival: Arrival, count: bool) -> tuple[Meter, Push] | Unknown | None:
        """Models differ in where the number stands: each kind of settings is tried. A trial counts for no meter: where
        one key is shared, it would spoil the counter of another."""
        refused: NoAccess | None = None
        for meters in self._by_serial.values():
            sample = next(iter(meters.values()))[0]
            try:
                push = _decoded(arrival, sample, self._access_of(sample), count=False)
            except NoAccess as error:
                refused = error
                continue
            except ProtocolError:
                continue
            if push.serial and push.serial in meters:
                meter = _only(meters[push.serial], f"the serial number {push.serial}")
                if isinstance(meter, Unknown):
                    return meter
                return meter, _decoded(arrival, meter, self._access_of(meter), count=count)
        return Unknown(str(refused)) if refused is not None else None

    def _by_its_address(self, arrival: Arrival, count: bool) -> tuple[Meter, Push] | Unknown:
        meters = self._by_address.get(arrival.source, []) if arrival.source else []
        if not meters:
            return Unknown("no meter has its serial number or address" + _hint(arrival))
        meter = _only(meters, f"the address {arrival.source}")
        if isinstance(meter, Unknown):
            return meter
        return meter, _decoded(arrival, meter, self._access_of(meter), count=count)


def _decoded(arrival: Arrival, meter: Meter, access: Access, *, count: bool = True) -> Push:
    settings = meter.details
    assert isinstance(settings, DlmsSettings)
    return decode_push(arrival, settings, meter.clock_zone, access=access, count=count)


def _serial_of(meter: Meter) -> str:
    """The number a meter tells of itself: behind # in its address, else its asset number."""
    return meter.address.partition("#")[2] or meter.id


def _only(meters: list[Meter], what: str) -> Meter | Unknown:
    if len(meters) == 1:
        return meters[0]
    if not meters:
        return Unknown(f"no meter has {what}")
    return Unknown(f"{len(meters)} meters have {what}: {', '.join(meter.id for meter in meters[:5])}")


def _hint(arrival: Arrival) -> str:
    """What the push says of itself, for whoever has to find its meter."""
    try:
        push = decode_push(arrival, DlmsSettings(), "UTC", count=False)
    except HeadendError as error:
        return f" ({error.problem.what})"
    return f" (sender {push.source or 'unknown'}, serial number {push.serial or 'not told'})"


def _placed(meter: Meter, push: Push, arrival: Arrival, now: datetime) -> Placed:
    readings, faults = readings_of(push, meter, now)
    names = tuple(dict.fromkeys([*(r.quantity for r in readings), *(f.quantity for f in faults)]))
    status = Status.OK if not faults else Status.PARTIAL if readings else Status.UNSUPPORTED
    detail = "; ".join(sorted({fault.detail for fault in faults}))
    if push.event:
        detail = "; ".join(("an event", *filter(None, (detail,))))
    frames = (FrameRecord(now, "<", arrival.apdu),)
    job = ReadJob(meter, ReadKind.PUSH, names, schedule=_SCHEDULE)
    return Placed(Outcome(job, status, now, 0.0, readings, faults, frames, detail))
