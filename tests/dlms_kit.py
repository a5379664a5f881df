"""A DLMS conversation against a simulated meter, without a port: what the generator sends is fed to the station."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

from headend.access import Access, memory_access
from headend.conversation import Conversation, Pause, Send, SetSpeed
from headend.errors import LineDown, NoAnswer
from headend.model import CurveSpec, Meter, MeterModel
from headend.protocols.dlms.settings import DlmsProfile, DlmsSettings
from simulators.dlms_meter import DlmsMeter
from simulators.dlms_spec import DlmsSpec
from simulators.dlms_station import DlmsStation
from simulators.household import Household, Load, Register

__all__ = ["MANAGER", "NOW", "READER", "SECRETS", "Bench", "bench", "curve_settings"]

T = TypeVar("T")

NOW = datetime(2026, 3, 10, 4, 7, 30, tzinfo=UTC)

READER = DlmsSettings(interface="wrapper", client=32, authentication="lls")
MANAGER = replace(
    READER,
    client=1,
    authentication="hls-gmac",
    policy="authenticated-encrypted",
    client_title="4D4D4D0000BC614E",
)
SECRETS = {
    "password": b"12345678",
    "encryption_key": bytes(range(16)),
    "authentication_key": bytes(range(0xD0, 0xE0)),
}


def curve_settings(settings: DlmsSettings = READER, **over: Any) -> DlmsSettings:
    """`settings` with a load profile of such a spec, a daily and a billing profile."""
    return replace(
        settings,
        profile=DlmsProfile(**over),
        daily=DlmsProfile(obis="1.0.99.2.0.255"),
        billing=DlmsProfile(obis="0.0.98.1.0.255"),
    )


@dataclass
class Bench:
    """One simulated meter and what the head-end knows of it. sent: what we wrote."""

    sim: DlmsMeter
    meter: Meter
    access: Access
    now: list[float]
    sent: list[bytes] = field(default_factory=list)

    def units(self, at: datetime) -> int:
        """What the meter's import counter truly was: ten-thousandths of a kWh."""
        return self.sim.register.units(int(at.timestamp()))

    def kwh(self, at: datetime) -> Decimal:
        """The same as the meter shows it: whole Wh, cut."""
        return Decimal(self.units(at) // 10).scaleb(-3)

    def run(self, conversation: Conversation[T]) -> T:
        """What the conversation returns; a silent meter is a timeout at once."""
        arrived: deque[bytes] = deque()
        gone = []
        settings = self.meter.details
        assert isinstance(settings, DlmsSettings)
        station = DlmsStation(self.sim, arrived.append, lambda: gone.append(1), interface=settings.interface)
        try:
            request = next(conversation)
            while True:
                if isinstance(request, SetSpeed | Pause):
                    request = conversation.send(b"")
                    continue
                if isinstance(request, Send):
                    self.sent.append(request.data)
                    if not gone:
                        station.feed(request.data)
                    if not request.expect_reply:
                        request = conversation.send(b"")
                        continue
                if arrived:
                    request = conversation.send(arrived.popleft())
                elif gone:
                    request = conversation.throw(LineDown("the meter closed the connection"))
                else:
                    request = conversation.throw(NoAnswer("no answer"))
        except StopIteration as stop:
            result: T = stop.value
            return result


def bench(
    settings: DlmsSettings = READER,
    *,
    spec: DlmsSpec | None = None,
    now: datetime = NOW,
    model: Callable[[MeterModel], MeterModel] = lambda model: model,
    columns: tuple[str, ...] = ("import_kwh",),
    **quirks: Any,
) -> Bench:
    """A meter as `spec` says with these quirks, a household behind it, and the head-end's view of it."""
    spec = spec or DlmsSpec()
    spec = replace(spec, quirks=replace(spec.quirks, **quirks) if quirks else spec.quirks)
    clock = [now.timestamp()]
    sim = DlmsMeter(spec, Register(Household(Load(seed=7)), 123_456), lambda: clock[0])
    made = MeterModel(
        name="sim",
        protocol="dlms",
        register_wrap=Decimal(1_000_000),
        max_power_kw=Decimal("15.84"),
        curve=CurveSpec("profile", spec.step_min * 60, spec.memory_days, columns),
        daily_freeze_depth=62,
        details=settings,
    )
    address = "1" if settings.interface == "wrapper" else "1/17"
    meter = Meter(1, "M1", address, "dlms", "L1", model(made), spec.zone or "+08:00", details=settings)
    return Bench(sim, meter, memory_access(SECRETS), clock)
