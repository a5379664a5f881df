"""Simulated DLMS meters on real sockets and terminals, and the head-end's own line and collector before them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from headend import collect
from headend.access import Access, memory_access
from headend.endpoints import LineSettings, parse_endpoint
from headend.line import Line
from headend.model import CurveSpec, Meter, MeterModel, Outcome, ReadJob, ReadKind, Window
from headend.protocols.dlms.settings import DlmsSettings
from simulators.dlms_meter import DlmsMeter
from simulators.dlms_serve import serve_dlms_pty, serve_dlms_tcp, serve_dlms_udp
from simulators.dlms_spec import DlmsSpec
from simulators.household import Household, Load, Register

__all__ = ["CURVE", "NOW", "QUANTITIES", "SECRETS", "TITLE", "TRANSPORTS", "Rig", "kwh", "rig", "simulated"]

NOW = datetime(2026, 3, 10, 4, 7, 30, tzinfo=UTC)
TITLE = "4D4D4D0000BC614E"
TRANSPORTS = ("wrapper-tcp", "wrapper-udp", "hdlc-tcp", "hdlc-pty")
QUANTITIES = ("import_kwh", "import_kwh_t1", "voltage_v_a", "current_a_a", "frequency_hz")
STEP = timedelta(minutes=15)
CURVE = Window(datetime(2026, 3, 9, 0, 0, tzinfo=UTC), datetime(2026, 3, 10, 0, 0, tzinfo=UTC))
SECRETS: Mapping[str, bytes] = {
    "password": b"correct horse 42",
    "encryption_key": bytes.fromhex("8F3A17C25D904BE6A1F0327B9C54D8E1"),
    "authentication_key": bytes.fromhex("C46B0D9E2A75F81339E7546CB20FA8D3"),
    "dedicated_key": bytes.fromhex("71D25EB84C0FA39617E82B6DF5409CA3"),
}


def simulated(spec: DlmsSpec, now: Sequence[float], start_units: int = 123_456) -> DlmsMeter:
    """A meter of a household of its own."""
    return DlmsMeter(spec, Register(Household(Load(seed=int(spec.serial))), start_units), lambda: now[0])


def kwh(sim: DlmsMeter, at_s: int) -> Decimal:
    """What the import counter shows at an instant: whole Wh."""
    return Decimal(sim.imported(at_s)).scaleb(-3)


@dataclass
class Rig:
    """A line, the meters on it, and what they truly are."""

    line: Line
    sims: list[DlmsMeter]
    meters: list[Meter]
    accesses: list[Access]
    now: list[float]

    def clock(self) -> datetime:
        return datetime.fromtimestamp(self.now[0], UTC)

    async def read(self, number: int, kind: ReadKind, *quantities: str, window: Window | None = None) -> Outcome:
        """A job through the collector."""
        job = ReadJob(self.meters[number], kind, quantities, window)
        return await collect.run(self.line, job, clock=self.clock, access=self.accesses[number])


def meter_of(number: int, address: str, settings: DlmsSettings, columns: tuple[str, ...] = ("import_kwh",)) -> Meter:
    model = MeterModel(
        name=f"sim{number}",
        protocol="dlms",
        register_wrap=Decimal(1_000_000),
        max_power_kw=Decimal("15.84"),
        curve=CurveSpec("profile", int(STEP.total_seconds()), 62, columns),
        details=settings,
    )
    return Meter(number, f"M{number}", address, "dlms", "L1", model, "+08:00", details=settings)


def address_of(spec: DlmsSpec, settings: DlmsSettings) -> str:
    if settings.interface == "wrapper" or spec.physical is None:
        return str(spec.logical)
    return f"{spec.logical}/{spec.physical}"


@asynccontextmanager
async def rig(
    transport: str,
    pairs: Sequence[tuple[DlmsSpec, DlmsSettings]],
    *,
    folder: Path,
    secrets: Sequence[Mapping[str, bytes]] = (),
    **line: Any,
) -> AsyncIterator[Rig]:
    """One line of `transport` with a meter for each pair. secrets: of each, as the head-end believes them."""
    now = [NOW.timestamp()]
    specs = list(dict.fromkeys(spec for spec, _ in pairs))
    sims = {spec: simulated(spec, now) for spec in specs}
    meters = list(sims.values())
    serial = ""
    if transport == "hdlc-pty":
        server: Any = await serve_dlms_pty(meters, folder / "port")
        serial = "9600 8N1"
    elif transport == "wrapper-udp":
        server = await serve_dlms_udp(meters)
    else:
        server = await serve_dlms_tcp(meters, interface=transport.partition("-")[0])
    settings = LineSettings("L1", parse_endpoint(server.endpoint(), serial), **{"gap_s": 0.2, "quiet_s": 0.0, **line})
    real = Line(settings)
    given = [secrets[n] if n < len(secrets) else SECRETS for n in range(len(pairs))]
    try:
        yield Rig(
            real,
            [sims[spec] for spec, _ in pairs],
            [meter_of(n + 1, address_of(*pair), pair[1]) for n, pair in enumerate(pairs)],
            [memory_access(one) for one in given],
            now,
        )
    finally:
        await real.close()
        await server.stop()
