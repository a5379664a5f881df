"""The truth of a town as files: a utility's asset lists, and what a perfect head-end would have read and billed."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulators.truth_bills import YearStep, YearStepTou, hundredths, total_cents

if TYPE_CHECKING:
    from simulators.meter_file import MeterPlan
    from simulators.tenancy import Account, Stand
    from simulators.town import Town

__all__ = ["TRUTH_DAYS", "write"]

TRUTH_DAYS = 62

_METERS = ("meter_id", "protocol", "address", "line", "model", "clock_zone", "options")
_USAGE_POINTS = ("usage_point", "district", "meter_id", "installed_at", "multiplier", "removed_at")
_ACCOUNTS = ("account", "usage_point", "customer", "tariff", "since", "step_used_kwh", "step_used_at", "until")
_SUPPLIES = (
    "usage_point",
    "since",
    "rated_kva",
    "no_load_kw",
    "load_kw",
    "no_load_percent",
    "impedance_percent",
)
_SUBMETERS = ("usage_point", "parent", "since", "method", "amount")
_TERMS = ("account", "since", "tariff", "contract_kw", "capacity_kva", "people")


def write(town: Town, folder: Path) -> None:
    """Write every file into `folder`, made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    meters = town.plan.meters
    _csv(
        folder / "meters.csv",
        _METERS,
        ((m.meter_id, m.protocol, m.spec.address, m.line, m.model, m.clock_zone, _options(m)) for m in meters),
    )
    _csv(
        folder / "usage_points.csv",
        _USAGE_POINTS,
        (_usage_point(town, stand) for stand in town.stands),
    )
    _csv(
        folder / "accounts.csv",
        _ACCOUNTS,
        (_account(town, account) for account in town.accounts.values()),
    )
    _csv(folder / "terms.csv", _TERMS, _terms(town))
    _csv(folder / "supplies.csv", _SUPPLIES, _supplies(town))
    _csv(folder / "submeters.csv", _SUBMETERS, _submeters(town))
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


def _usage_point(town: Town, stand: Stand) -> tuple[str, ...]:
    meter = stand.meter
    removed = "" if stand.until_s is None else _iso(town, stand.until_s)
    since = _iso(town, stand.since_s)
    return meter.usage_point, meter.district, meter.meter_id, since, str(meter.multiplier), removed


def _account(town: Town, account: Account) -> tuple[str, ...]:
    meter, until = account.first_meter, "" if account.until_s is None else _iso(town, account.until_s)
    since, used = _iso(town, account.since_s), _step_used(town, account)
    return account.name, meter.usage_point, account.customer, meter.tariff, since, *used, until


def _step_used(town: Town, account: Account) -> tuple[str, str]:
    """Energy of the year before the last closed month, and that month's start; of an account that began later nothing,
    when it began. Empty without yearly steps."""
    if not isinstance(town.plan.tariffs[account.first_meter.tariff], YearStep | YearStepTou):
        return "", ""
    year, month = town.closed_month()
    at_s = max(town.month_span(year, month)[0], account.since_s)
    return hundredths(town.truth.step_used(account, year, at_s)), _iso(town, at_s)


def _terms(town: Town) -> Iterator[tuple[str, ...]]:
    """What was agreed with those accounts whose bills depend on it, since they began."""
    for account in town.accounts.values():
        term = account.first_meter.tenancy
        contract = str(town.truth.contract_kw(account)) if term.contract_percent else ""
        capacity, people = (str(number) if number else "" for number in (term.capacity_kva, term.people))
        if contract or capacity or people:
            yield account.name, _iso(town, account.since_s), "", contract, capacity, people


def _supplies(town: Town) -> Iterator[tuple[str, ...]]:
    """The transformers before meters."""
    for account in town.accounts.values():
        meter = account.first_meter
        if meter.tenancy.transformer is not None:
            yield meter.usage_point, _iso(town, account.since_s), *meter.tenancy.transformer.as_row()


def _submeters(town: Town) -> Iterator[tuple[str, ...]]:
    """The meters behind others."""
    for stand in town.stands:
        if behind := stand.meter.tenancy.behind:
            yield stand.meter.usage_point, town.plans[behind].usage_point, _iso(town, stand.since_s), "metered", ""


def _registers(town: Town, meter: MeterPlan) -> dict[str, Any]:
    """Displayed totals at every boundary of the last 62 days, up to when the town was made."""
    step_s = meter.spec.step_min * 60
    offset_s = town.plan.offset_s
    since_s = next(stand.since_s for stand in town.stands if stand.meter is meter)
    first = max(town.opened_s - TRUTH_DAYS * 86_400, since_s) + offset_s
    start_s = -(-first // step_s) * step_s - offset_s
    values = town.registers[meter.meter_id].shown_all(range(start_s, town.opened_s + 1, step_s))
    return {"meter_id": meter.meter_id, "start_s": start_s, "step_s": step_s, "registers": values}


def bills(town: Town) -> dict[str, Any]:
    """True bills of the last closed month, of every account in force in it; numbers as decimal text."""
    year, month = town.closed_month()
    start_s, end_s = town.month_span(year, month)
    found = []
    for account in town.accounts.values():
        lines = town.true_bill(account.name, year, month)
        found.append(
            {
                "account": account.name,
                "meter_id": account.meter.meter_id,
                "tariff": account.first_meter.tariff,
                "lines": [line.as_text() for line in lines],
                "total": hundredths(total_cents(lines)),
            }
        )
    return {"year": year, "month": month, "start": _iso(town, start_s), "end": _iso(town, end_s), "bills": found}
