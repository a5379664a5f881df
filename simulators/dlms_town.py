"""A DLMS meter from a household in one line, for tests."""

from __future__ import annotations

from simulators.clock import Now
from simulators.dlms_meter import DlmsMeter
from simulators.dlms_spec import DlmsSpec
from simulators.household import Household, Load, Register

__all__ = ["dlms_meter", "true_rows"]


def dlms_meter(
    now: Now,
    spec: DlmsSpec | None = None,
    load: Load | None = None,
    *,
    start_kwh: int = 1_000,
    export: Load | None = None,
) -> DlmsMeter:
    """A meter as `spec` says that counts what `load` uses, from `start_kwh` on; the seed of its load is its serial
    number unless `load` says otherwise."""
    spec = spec or DlmsSpec()
    load = load or Load(seed=int(spec.serial), offset_s=spec.zone_offset_s)
    register = Register(Household(load), start_kwh * 10_000)
    return DlmsMeter(spec, register, now, export=Register(Household(export)) if export else None)


def true_rows(meter: DlmsMeter, start_s: int, end_s: int) -> list[tuple[int, int]]:
    """Instant and import counter (as scaled) of each load profile row from `start_s` to `end_s`, both included."""
    clock = meter.clock
    rows = [(clock.instant(time), time) for time in meter.profiles["1.0.99.1.0.255"].times()]
    return [(at, meter.imported(at)) for at, _ in rows if start_s <= at <= end_s]
