"""The truth of a town as files: a utility's asset lists, and what a perfect head-end would have read and billed."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulators.truth_bills import YearStep, YearStepTou, hundredths, total_cents

if TYPE_CHECKING:
    from simulators.meter_file import MeterPlan
    from simulators.town import Town

__all__ = ["TRUTH_DAYS", "write"]

TRUTH_DAYS = 62

_METERS = ("meter_id", "protocol", "address", "line", "model", "clock_zone", "options")
_USAGE_POINTS = ("usage_point", "district", "meter_id", "installed_at", "multiplier")
_ACCOUNTS = ("account", "usage_point", "customer", "tariff", "since", "step_used_kwh", "step_used_at")


def write(town: Town, folder: Path) -> None:
    """Write every file into `folder`, made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    meters = town.plan.meters
    installed = _iso(town, town.installed_s)
    _csv(
        folder / "meters.csv",
        _METERS,
        ((m.meter_id, m.protocol, m.spec.address, m.line, m.model, m.clock_zone, _options(m)) for m in meters),
    )
    _csv(
        folder / "usage_points.csv",
        _USAGE_POINTS,
        ((m.usage_point, m.district, m.meter_id, installed, str(m.multiplier)) for m in meters),
    )
    _csv(
        folder / "accounts.csv",
        _ACCOUNTS,
        ((m.account, m.usage_point, m.customer, m.tariff, installed, *_step_used(town, m)) for m in meters),
    )
    if secrets := _secrets(town):
        (folder / "secrets.csv").touch(mode=0o600)
        _csv(folder / "secrets.csv", ("meter_id", "name", "value"), secrets)
    with (folder / "registers.jsonl").open("w", encoding="utf-8") as file:
        for meter in meters:
            file.write(json.dumps(_registers(town, meter), separators=(",", ":")) + "\n")
    (folder / "bills.json").write_text(json.dumps(bills(town), indent=1) + "\n", encoding="utf-8")


def _options(meter: MeterPlan) -> str:
    return meter.dlms.options if meter.dlms is not None else ""


def _secrets(town: Town) -> list[tuple[str, str, str]]:
    """Passwords and keys, as a utility is given them with its meters."""
    return [
        (meter.meter_id, name, value.hex())
        for meter in town.plan.meters
        if meter.dlms is not None
        for name, value in meter.dlms.secrets().items()
    ]


def _csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _iso(town: Town, at_s: int) -> str:
    return datetime.fromtimestamp(at_s, town.plan.zone).isoformat()


def _step_used(town: Town, meter: MeterPlan) -> tuple[str, str]:
    """Energy of the year before the last closed month, and that month's start; empty without yearly steps."""
    if not isinstance(town.plan.tariffs[meter.tariff], YearStep | YearStepTou):
        return "", ""
    year, month = town.closed_month()
    at_s = town.month_span(year, month)[0]
    return hundredths(town.step_used(meter, year, at_s)), _iso(town, at_s)


def _registers(town: Town, meter: MeterPlan) -> dict[str, Any]:
    """Displayed totals at every boundary of the last 62 days, up to when the town was made."""
    step_s = meter.spec.step_min * 60
    offset_s = town.plan.offset_s
    first = max(town.opened_s - TRUTH_DAYS * 86_400, town.installed_s) + offset_s
    start_s = -(-first // step_s) * step_s - offset_s
    shown = town.registers[meter.meter_id].shown
    values = [shown(at_s) for at_s in range(start_s, town.opened_s + 1, step_s)]
    return {"meter_id": meter.meter_id, "start_s": start_s, "step_s": step_s, "registers": values}


def bills(town: Town) -> dict[str, Any]:
    """Every account's true bill of the last closed month, numbers as decimal text."""
    year, month = town.closed_month()
    start_s, end_s = town.month_span(year, month)
    found = []
    for meter in town.plan.meters:
        lines = town.true_bill(meter.account, year, month)
        found.append(
            {
                "account": meter.account,
                "meter_id": meter.meter_id,
                "tariff": meter.tariff,
                "lines": [line.as_text() for line in lines],
                "total": hundredths(total_cents(lines)),
            }
        )
    return {"year": year, "month": month, "start": _iso(town, start_s), "end": _iso(town, end_s), "bills": found}
