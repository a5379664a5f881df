"""A town file, read and checked whole: every problem is told at once, none of it opens a port.

docs/simulate.md lists the keys.
"""

from __future__ import annotations

import datetime
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from simulators.errors import SimulatorError
from simulators.household import PEAK_VALLEY, SLOT_S
from simulators.line_file import LinePlan, read_fault, read_line
from simulators.meter_file import Common, EventPlan, MeterPlan, read_event, read_meters
from simulators.tariff_file import minutes, read_tariffs
from simulators.tenancy import check_behind, check_exchanges
from simulators.toml_table import Table
from simulators.truth_bills import Tariff, Tou, TwoPart

__all__ = ["MeterPlan", "TownPlan", "read_town"]

_EPOCH_DAY = datetime.date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class TownPlan:
    """A checked town file."""

    name: str
    zone: datetime.tzinfo
    zone_name: str
    offset_s: int
    installed: datetime.date
    seed: int
    tariffs: Mapping[str, Tariff]
    lines: tuple[LinePlan, ...]
    meters: tuple[MeterPlan, ...]
    events: tuple[EventPlan, ...] = ()


def read_town(path: Path) -> TownPlan:
    """The plan in the file at `path`; SimulatorError with all its problems."""
    problems: list[str] = []
    top = Table(_parse(path), f"{path.name}:", problems)
    given = top.raw("town")
    if not isinstance(given, dict | None):
        top.wrong("town", "is no table", "write [town]")
    head = Table(given if isinstance(given, dict) else {}, f"{path.name} [town]:", problems)
    zone, zone_name, offset_s = _zone(head)
    installed = _installed(head)
    common = Common(
        seed=head.integer("seed", 1),
        offset_s=offset_s,
        offset_text=_offset_text(offset_s),
        installed_day=(installed - _EPOCH_DAY).days,
        memory_days=head.integer("memory_days", 62, 1, 366),
        rates=_rates(head),
    )
    name = head.text("name", path.stem)
    head.done()
    tariffs = read_tariffs(top.tables("tariff"))
    lines = [read_line(table) for table in top.tables("line")]
    meters = [
        meter
        for key in ("group", "meter")
        for table in top.tables(key)
        for meter in read_meters(table, common, {line.name for line in lines}, tariffs, single=key == "meter")
    ]
    line_of = {meter.meter_id: meter.line for meter in meters}
    faults = [read_fault(table, {line.name for line in lines}, line_of) for table in top.tables("fault")]
    events = [read_event(table, {m.meter_id: m.spec.form for m in meters}) for table in top.tables("event")]
    top.done()
    _check_whole(path.name, lines, meters, problems)
    check_exchanges(path.name, meters, problems)
    check_behind(path.name, meters, problems)
    _check_terms(path.name, meters, tariffs, problems)
    if problems:
        raise SimulatorError(problems)
    placed = tuple(replace(line, faults=tuple(rule for where, rule in faults if where == line.name)) for line in lines)
    return TownPlan(
        name, zone, zone_name, offset_s, installed, common.seed, tariffs, placed, tuple(meters), tuple(events)
    )


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SimulatorError([f"{path}: {error.strerror or error} -> name a town file that can be read"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SimulatorError([f"{path.name}: not TOML: {error} -> correct the file there"]) from error


def _zone(head: Table) -> tuple[datetime.tzinfo, str, int]:
    """The town's zone and its one offset in seconds."""
    name = head.text("zone", "Asia/Shanghai")
    try:
        zone = datetime.datetime.strptime(name, "%z").tzinfo if name[0] in "+-" else ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        zone = None
    if zone is None:
        head.wrong("zone", f"unknown zone {name!r}", "use an IANA name or an offset like +08:00")
        return datetime.UTC, "+00:00", 0
    this_year = datetime.datetime.now(datetime.UTC).year
    offsets = {
        int((datetime.datetime(year, month, 1, tzinfo=zone).utcoffset() or datetime.timedelta()).total_seconds())
        for year in (this_year - 2, this_year + 1)
        for month in range(1, 13)
    }
    if len(offsets) > 1:
        head.wrong(
            "zone", f"{name} changes its offset in the year", "use a fixed one: these meters know no summer time"
        )
    return zone, name, min(offsets)


def _offset_text(offset_s: int) -> str:
    sign = "-" if offset_s < 0 else "+"
    return f"{sign}{abs(offset_s) // 3600:02d}:{abs(offset_s) // 60 % 60:02d}"


def _installed(head: Table) -> datetime.date:
    text = head.raw("installed")
    if isinstance(text, datetime.date) and not isinstance(text, datetime.datetime):
        return text
    try:
        return datetime.date.fromisoformat(text if isinstance(text, str) else "2024-01-01" if text is None else "")
    except ValueError:
        head.wrong("installed", f"{text!r} is no date", 'write the day all meters were installed, like "2024-01-01"')
        return datetime.date(2024, 1, 1)


def _rates(head: Table) -> tuple[tuple[int, int], ...]:
    """Day table of the time-of-use registers: [["00:00", 4], ["08:00", 2], ...]."""
    value = head.raw("rates")
    if value is None:
        return PEAK_VALLEY
    try:
        rows = [(minutes(at), int(rate)) for at, rate in value]
    except (ValueError, TypeError, AttributeError):
        rows = []
    starts = [at for at, _ in rows]
    usable = bool(rows) and starts[0] == 0 and starts == sorted(set(starts)) and starts[-1] < 24 * 60
    if not usable or any(at * 60 % SLOT_S or not 1 <= rate <= 4 for at, rate in rows):
        head.wrong(
            "rates", f"{value!r} is no day table", 'write [["00:00", 4], ["08:00", 2], ["22:00", 4]], rates 1 to 4'
        )
        return PEAK_VALLEY
    return tuple((at * 60 // SLOT_S, rate) for at, rate in rows)


# -- the whole -------------------------------------------------------------------------------------------------------


def _check_whole(file: str, lines: list[LinePlan], meters: list[MeterPlan], problems: list[str]) -> None:
    """What no single table can know: things that must be there, names that must not be there twice."""
    if not lines:
        problems.append(f"{file}: no line -> add a [[line]]")
    if not meters:
        problems.append(f"{file}: no meter -> add a [[group]] or a [[meter]]")
    kinds = {line.name: line.kind for line in lines}
    for meter in meters:
        if meter.line and (meter.spec.form == "mqtt") != (kinds.get(meter.line) == "mqtt"):
            what = f"{file}: meter {meter.meter_id}: form {meter.spec.form} on the line {meter.line}"
            problems.append(f'{what} -> meters of form "mqtt", and no others, hang on lines of kind "mqtt"')
    unique = {
        "[[line]] name": [line.name for line in lines],
        "meter_id": [meter.meter_id for meter in meters],
        "account": [name for m in meters for name in (m.account, m.tenancy.next_account) if name],
        "usage_point": [meter.usage_point for meter in meters],
        "address on one line": [f"{meter.spec.address} ({meter.line})" for meter in meters],
        "[[line]] listen": [f"{line.host}:{line.port}" for line in lines if line.kind == "tcp" and line.port],
        "[[line]] link": [line.link for line in lines if line.link],
    }
    for what, names in unique.items():
        for name, times in Counter(names).items():
            if times > 1:
                problems.append(f"{file}: {what}: {name} stands there {times} times -> give each its own")


def _check_terms(file: str, meters: list[MeterPlan], tariffs: Mapping[str, Tariff], problems: list[str]) -> None:
    """What a two-part tariff asks of an account, and what losses and meters behind ask of a tariff."""
    before = {meter.tenancy.behind for meter in meters}
    for meter in meters:
        tariff, term = tariffs.get(meter.tariff), meter.tenancy
        what = f"{file}: meter {meter.meter_id}: tariff {meter.tariff}"
        if term.transformer and not (isinstance(tariff, TwoPart) and "flat" in tariff.prices):
            problems.append(f"{what} has no flat period for a loss -> leave transformer out, or let it be two-part")
        if (term.behind or meter.meter_id in before) and not isinstance(tariff, Tou):
            problems.append(f"{what} is not of kind tou -> leave behind out, or use such a tariff")
        if not isinstance(tariff, TwoPart):
            continue
        if tariff.demand == "contract" and not term.contract_percent:
            problems.append(f"{what} bills a contract -> give contract_percent")
        if tariff.demand == "capacity" and not term.capacity_kva:
            problems.append(f"{what} bills the capacity -> give capacity_kva")
        if term.next_account:
            problems.append(f"{what} has no rule here for a part month -> leave next_account out")
