"""Pushes from simulated meters over real sockets, in every framing and shape: placed and true, or kept aside."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

import pytest
from sqlalchemy.exc import OperationalError

from headend.access import Access, memory_access
from headend.endpoints import PushSettings
from headend.errors import StoreError
from headend.ingest import EvidencePolicy, Ingest
from headend.model import Meter, Source
from headend.protocols.dlms.intake import Arrival
from headend.protocols.dlms.settings import DlmsObject, DlmsPush, DlmsSettings
from headend.push import Placed, Placer, PushDoor, Unknown
from headend.store import Store, readings
from headend.store.unplaced import UnplacedRow, put_unplaced, unplaced
from simulators.dlms_meter import DlmsMeter
from simulators.dlms_push import PUSHED, framed, push_apdus, push_tcp, push_udp
from simulators.dlms_spec import PUSH_SHAPES, DlmsQuirks, DlmsSpec
from simulators.dlms_town import dlms_meter
from tests.helpers import registered

Identity = Literal["title", "serial", "address"]
NOW = datetime(2026, 11, 24, 4, 15, 0, tzinfo=UTC)
SCALERS = tuple(
    DlmsObject(name, obis, scaler=0, unit=unit)
    for name, obis, unit in (("import_kwh", "1.0.1.8.0.255", 30), ("export_kwh", "1.0.2.8.0.255", 30))
)


def simulated(spec: DlmsSpec | None = None) -> DlmsMeter:
    return dlms_meter(NOW.timestamp, spec)


def settings_for(meter: DlmsMeter, identity: Identity = "title") -> DlmsSettings:
    push = DlmsPush(items=PUSHED, identity=identity)
    return DlmsSettings(
        interface="wrapper",
        meter_title=meter.spec.system_title().hex(),
        push=push,
        objects=SCALERS,
    )


def keys_of(meter: DlmsMeter) -> dict[str, bytes]:
    return {"encryption_key": meter.spec.encryption_key, "authentication_key": meter.spec.authentication_key}


class Site:
    """A store with one meter that pushes, and a door for it."""

    def __init__(self, store: Store, meter: DlmsMeter, *, settings: DlmsSettings, secrets: dict[str, bytes]) -> None:
        self.store = store
        self.simulated = meter
        row = registered(store)[0]
        address = f"{meter.spec.logical}#{meter.spec.serial}"
        self.meter: Meter = replace(row, protocol="dlms", address=address, details=settings)
        self.secrets = secrets
        self.ingest = Ingest(store, EvidencePolicy())
        self.placer = Placer([self.meter], self.access)
        self._access = memory_access(secrets)

    def access(self, meter: Meter) -> Access:
        assert meter.id == self.meter.id
        return self._access

    async def keep(self, channel: str, peer: str, reason: str, payload: bytes) -> None:
        with self.store.write() as conn:
            put_unplaced(conn, UnplacedRow(NOW, channel, peer, reason, payload))

    def aside(self) -> list[UnplacedRow]:
        with self.store.read() as conn:
            return unplaced(conn)

    def stored(self, quantity: str) -> Decimal | None:
        with self.store.read() as conn:
            row = readings.register_at(conn, self.meter.key, quantity, NOW)
        return None if row is None else Decimal(row.units).scaleb(-4)


Sender = Callable[[str, int, Sequence[bytes]], Awaitable[None]]


def push_through(site: Site, frames: Sequence[bytes], transport: str = "tcp") -> PushDoor:
    """Send `frames` to a real door and wait until each is dealt with."""

    async def run() -> PushDoor:
        site.ingest.start()
        settings = PushSettings("wan", "udp" if transport == "udp" else "tcp", "127.0.0.1", 0)
        door = PushDoor(settings, site.placer, site.ingest, site.keep, clock=lambda: NOW)
        await door.start()
        try:
            sender: Sender = push_udp if transport == "udp" else push_tcp
            await sender("127.0.0.1", door.port, frames)
            async with asyncio.timeout(10):
                await door.heard.wait()
                await door.dealt_with()
        finally:
            await door.close()
            await site.ingest.close()
        return door

    return asyncio.run(run())


def truth_kwh(meter: DlmsMeter) -> Decimal:
    return Decimal(meter.imported(int(NOW.timestamp()))).scaleb(-3)


@pytest.mark.parametrize("interface", ["wrapper", "hdlc"])
@pytest.mark.parametrize("shield", ["", "general-glo"])
@pytest.mark.parametrize("shape", PUSH_SHAPES)
def test_every_shape_in_every_framing_gives_the_truth(
    sqlite_store: Store, shape: str, shield: str, interface: str
) -> None:
    meter = simulated()
    identity: Identity = "title" if shield else "serial" if shape != "position" else "address"
    site = Site(sqlite_store, meter, settings=settings_for(meter, identity), secrets=keys_of(meter))
    frames = framed(meter, push_apdus(meter, shape, shield=shield), interface, max_info=100)
    door = push_through(site, frames)
    assert [row.reason for row in site.aside()] == []
    assert door.stats.stored == 1
    assert site.stored("import_kwh") == truth_kwh(meter)


@pytest.mark.parametrize("shield", ["", "general-glo"])
def test_over_udp(sqlite_store: Store, shield: str) -> None:
    meter = simulated()
    identity: Identity = "title" if shield else "serial"
    site = Site(sqlite_store, meter, settings=settings_for(meter, identity), secrets=keys_of(meter))
    push_through(site, framed(meter, push_apdus(meter, "entries", shield=shield)), "udp")
    assert site.stored("import_kwh") == truth_kwh(meter)


def test_block_transfer_is_put_together_and_a_lost_block_drops_the_push(sqlite_store: Store) -> None:
    meter = simulated()
    site = Site(sqlite_store, meter, settings=settings_for(meter), secrets=keys_of(meter))
    blocks = push_apdus(meter, "entries", gbt=60, shield="general-glo")
    assert len(blocks) == 3
    lost = framed(meter, [*blocks[:1], *blocks[2:]], "hdlc", llc_once=True)
    whole = framed(meter, push_apdus(meter, "entries", gbt=60, shield="general-glo"), "hdlc", llc_once=True)
    door = push_through(site, lost)
    assert door.stats.damaged >= 1
    assert door.stats.stored == 0
    site.ingest = Ingest(sqlite_store, EvidencePolicy())
    assert push_through(site, whole).stats.stored == 1
    assert site.stored("import_kwh") == truth_kwh(meter)


def test_a_wrong_key_keeps_the_push_and_the_right_one_places_it_later(sqlite_store: Store) -> None:
    meter = simulated()
    wrong = {**keys_of(meter), "authentication_key": bytes(16)}
    site = Site(sqlite_store, meter, settings=settings_for(meter), secrets=wrong)
    push_through(site, framed(meter, push_apdus(meter, "pairs", shield="general-glo")))
    assert site.stored("import_kwh") is None
    (kept,) = site.aside()
    assert "key" in kept.reason
    assert meter.spec.encryption_key.hex() not in kept.reason
    placer = Placer([site.meter], lambda _: memory_access(keys_of(meter)))
    found = placer.place(Arrival(kept.payload, ""), kept.received_at, count=False)
    assert isinstance(found, Placed)
    values = {r.quantity: r.value for r in found.outcome.readings}
    assert values["import_kwh"] == truth_kwh(meter)


def test_a_title_nobody_has_and_a_serial_number_that_is_anothers_are_kept_aside(sqlite_store: Store) -> None:
    meter = simulated()
    stranger = replace(settings_for(meter), meter_title="4142430000000099")
    site = Site(sqlite_store, meter, settings=stranger, secrets=keys_of(meter))
    push_through(site, framed(meter, push_apdus(meter, "pairs", shield="general-glo")))
    assert "no meter has the system title" in site.aside()[0].reason
    other = replace(site.meter, address=f"{meter.spec.logical}#00000001", details=settings_for(meter))
    found = Placer([other], lambda _: memory_access(keys_of(meter))).place(
        Arrival(push_apdus(meter, "pairs", shield="general-glo")[0], ""), NOW
    )
    assert isinstance(found, Unknown)
    assert meter.spec.serial in found.reason


def test_a_push_sent_again_by_somebody_else_is_no_second_reading(sqlite_store: Store) -> None:
    """The same ciphered bytes again: the counter did not rise, so it is a replay and is told so."""
    meter = simulated()
    site = Site(sqlite_store, meter, settings=settings_for(meter), secrets=keys_of(meter))
    apdu = push_apdus(meter, "pairs", shield="general-glo")[0]
    assert isinstance(site.placer.place(Arrival(apdu, ""), NOW), Placed)
    again = site.placer.place(Arrival(apdu, ""), NOW)
    assert isinstance(again, Unknown)
    assert "counter" in again.reason


def test_a_push_in_the_clear_is_not_taken_for_that_of_a_meter_that_ciphers(sqlite_store: Store) -> None:
    meter = simulated()
    settings = replace(settings_for(meter, "serial"), policy="authenticated-encrypted")
    site = Site(sqlite_store, meter, settings=settings, secrets=keys_of(meter))
    push_through(site, framed(meter, push_apdus(meter, "entries")))
    (kept,) = site.aside()
    assert "less protected than policy asks" in kept.reason
    assert site.stored("import_kwh") is None


def test_meters_that_share_a_key_and_tell_no_title_keep_counters_of_their_own(sqlite_store: Store) -> None:
    """A push is tried with another meter's key to find its serial number: that must not count for the other."""
    spec = DlmsSpec(serial="20000002", quirks=DlmsQuirks(empty_title=True), title=b"SIMSHARE")
    first, second = simulated(replace(spec, serial="10000001")), simulated(spec)
    settings = replace(settings_for(first, "serial"), policy="authenticated-encrypted")
    rows = registered(sqlite_store, 2)
    pair = [
        replace(row, protocol="dlms", address=f"1#{meter.spec.serial}", details=settings)
        for row, meter in zip(rows, (first, second), strict=True)
    ]
    accesses = {row.id: memory_access(keys_of(first)) for row in pair}
    placer = Placer(pair, lambda meter: accesses[meter.id])
    placed = [
        placer.place(Arrival(push_apdus(meter, "entries", shield="general-glo")[0], ""), NOW)
        for meter in (second, second, second, first, first)
    ]
    assert [p.outcome.job.meter.id for p in placed if isinstance(p, Placed)] == [
        pair[index].id for index in (1, 1, 1, 0, 0)
    ], placed


def test_what_can_not_be_placed_waits_for_the_database_too(sqlite_store: Store) -> None:
    meter = simulated()
    site = Site(sqlite_store, meter, settings=settings_for(meter), secrets={})
    tries = []
    keep = site.keep

    async def away_once(channel: str, peer: str, reason: str, payload: bytes) -> None:
        tries.append(reason)
        if len(tries) == 1:
            raise StoreError("the database is away") from OperationalError("", {}, Exception("away"))
        await keep(channel, peer, reason, payload)

    site.keep = away_once  # type: ignore[method-assign]
    push_through(site, framed(meter, push_apdus(meter, "pairs", shield="general-glo")))
    assert len(tries) == 2
    assert len(site.aside()) == 1


def test_a_push_on_a_grid_becomes_a_point_of_the_curve(sqlite_store: Store) -> None:
    meter = simulated()
    settings = settings_for(meter)
    assert settings.push is not None
    site = Site(
        sqlite_store,
        meter,
        settings=replace(settings, push=replace(settings.push, step_s=900)),
        secrets=keys_of(meter),
    )
    found = site.placer.place(Arrival(push_apdus(meter, "objects", shield="general-glo")[0], ""), NOW)
    assert isinstance(found, Placed)
    (point,) = [r for r in found.outcome.readings if r.quantity == "import_kwh"]
    assert (point.source, point.at, point.step_s) == (Source.CURVE, NOW, 900)


def test_noise_and_a_stranger_stop_nothing(sqlite_store: Store) -> None:
    meter = simulated()
    site = Site(sqlite_store, meter, settings=settings_for(meter, "serial"), secrets=keys_of(meter))
    good = framed(meter, push_apdus(meter, "entries"))
    door = push_through(site, [b"\x55\xaa\x00\xff" * 40, *good])
    assert door.stats.damaged + door.stats.stored >= 1
    site.ingest = Ingest(sqlite_store, EvidencePolicy())
    assert push_through(site, good).stats.stored == 1
    assert site.stored("import_kwh") == truth_kwh(meter)
