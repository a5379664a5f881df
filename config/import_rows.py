"""Rows of CSV files to rows of the store's registry, every check of an import on the way. Nothing is raised or written:
problems go to the caller's list. Columns: docs/import.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from config.csvfile import CsvRow, identifier, moment, number
from config.details import TABLES, one_family, with_options
from config.problems import nearest, shown
from config.site import Site
from config.spans import Span, overlaps
from headend import civil
from headend.endpoints import LineSettings, parse_serial
from headend.errors import HeadendError, Problem, UsageError
from headend.model import MeterModel
from headend.store.loss_tables import LossRow
from headend.store.registry import AccountRow, InstallationRow, MeterRow, UsagePointRow
from headend.store.terms import AccountTerm, SubmeterRow, SupplyRow

__all__ = [
    "ACCOUNT_COLUMNS",
    "ACCOUNT_OPTIONS",
    "METER_COLUMNS",
    "METER_OPTIONS",
    "USAGE_POINT_COLUMNS",
    "CheckAddress",
    "Held",
    "account_rows",
    "known_name",
    "meter_rows",
    "named",
    "span_of",
    "usage_point_rows",
]

CheckAddress = Callable[[str, str], str]
"""(protocol, address) -> the address in the protocol's own form; raises `HeadendError` or `ValueError` when invalid."""

METER_COLUMNS: Final = ("meter_id", "protocol", "address", "line", "model")
METER_OPTIONS: Final = ("clock_zone", "serial", "options")
USAGE_POINT_COLUMNS: Final = ("usage_point", "district", "meter_id", "installed_at", "multiplier")
ACCOUNT_COLUMNS: Final = (
    "account",
    "usage_point",
    "customer",
    "tariff",
    "since",
    "step_used_kwh",
    "step_used_at",
)
ACCOUNT_OPTIONS: Final = ("until", "cycle")

_HELPED_PROBLEMS: Final = 100


@dataclass(frozen=True, slots=True)
class Held:
    """What the store holds before an import."""

    meters: tuple[MeterRow, ...] = ()
    usage_points: tuple[UsagePointRow, ...] = ()
    installations: tuple[InstallationRow, ...] = ()
    accounts: tuple[AccountRow, ...] = ()
    terms: tuple[AccountTerm, ...] = ()
    supplies: tuple[SupplyRow, ...] = ()
    submeters: tuple[SubmeterRow, ...] = ()
    losses: tuple[LossRow, ...] = ()


def named(rows: Iterable[CsvRow], column: str) -> set[str]:
    """Names a file brings along, also those of rows with problems: what refers to them is not wrong by itself."""
    return {row.cells[column] for row in rows}


def known_name(
    row: CsvRow, column: str, kind: str, known: Collection[str] | None, problems: list[Problem], none: str = ""
) -> str | None:
    """The cell as one of the `known` names (None: which there are can't be told, any passes)."""
    name = identifier(row, column, problems)
    if name is None or known is None or name in known:
        return name
    many = len(problems) >= _HELPED_PROBLEMS  # looking for near names takes too long where all rows are wrong
    remedy = f"name a {kind} that exists" if many else nearest(name, known, none=none)
    problems.append(Problem(row.where(column), f"there is no {kind} {shown(name)}", remedy))
    return None


# Meters


def meter_rows(
    rows: list[CsvRow], site: Site, check_address: CheckAddress, held: Held, year: int, problems: list[Problem]
) -> list[MeterRow]:
    """The meters of meters.csv. `year` is where daylight saving is looked for."""
    lines = {line.name: line for line in site.lines}
    protocols = {model.protocol for model in site.models.values()}
    protocols |= {name for name in TABLES if any(one_family(known, name) for known in protocols)}
    default_zone = _default_clock_zone(site.zone, year)
    in_file = named(rows, "meter_id")
    ids: dict[str, str] = {}
    places = {(m.line, m.protocol, m.address): f"meter {m.id} in the store" for m in held.meters if m.id not in in_file}
    meters = []
    for row in rows:
        meter_id = identifier(row, "meter_id", problems)
        if meter_id is not None and ids.setdefault(meter_id, f"{row.file}:{row.line}") != f"{row.file}:{row.line}":
            what = f"the meter {shown(meter_id)} stands in {ids[meter_id]} already"
            problems.append(Problem(row.where("meter_id"), what, "remove one of the two rows"))
        line = known_name(row, "line", "line", lines, problems, "add a [[line]] to site.toml")
        model_name = known_name(row, "model", "meter model", site.models, problems)
        protocol = known_name(row, "protocol", "protocol", protocols, problems)
        model = None if model_name is None else site.models[model_name]
        _check_protocol(row, protocol, model, problems)
        address = _address(row, protocol, check_address, problems)
        clock_zone = _clock_zone(row, default_zone, year, problems)
        serial = _serial(row, lines.get(line or ""), problems)
        options = _options(row, model, problems)
        if line is not None and protocol is not None and address is not None:
            place, mine = (line, protocol, address), f"meter {meter_id} in {row.file}:{row.line}"
            if (other := places.setdefault(place, mine)) != mine:
                what = f"the address {shown(address)} on line {line} is that of {other}"
                problems.append(Problem(row.where("address"), what, "correct the address or the line of one of them"))
        if serial is None or options is None:
            continue
        if meter_id and protocol and address and line and model and clock_zone:
            step_s = 0 if model.curve is None else model.curve.step_s
            names = (meter_id, protocol, address, line, model.name, clock_zone)
            meters.append(MeterRow(*names, model.register_wrap, step_s, serial=serial, options=options))
    return meters


def _serial(row: CsvRow, line: LineSettings | None, problems: list[Problem]) -> str | None:
    """Speed and character format of the meter's own in one form, "" for none; None with a problem."""
    text = row.cells.get("serial", "")
    if not text:
        return ""
    try:
        baud, bytesize, parity, stopbits = parse_serial(text)
    except UsageError as error:
        problems.append(Problem(row.where("serial"), error.problem.what, error.problem.remedy))
        return None
    if line is not None and line.endpoint.kind != "serial" and line.endpoint.port:  # port 0: a line with problems
        what = f"a meter on a {line.endpoint.kind} line has no serial format of its own"
        problems.append(Problem(row.where("serial"), what, "leave the cell empty: the serial server's settings hold"))
        return None
    return f"{baud} {bytesize}{parity}{stopbits}"


def _options(row: CsvRow, model: MeterModel | None, problems: list[Problem]) -> str | None:
    """The meter's own options, checked together with its model's; None with a problem."""
    text = row.cells.get("options", "")
    if not text or model is None:
        return text
    _, wrong = with_options(model, text, row.where("options"))
    problems += wrong
    return None if wrong else text


def _check_protocol(row: CsvRow, protocol: str | None, model: MeterModel | None, problems: list[Problem]) -> None:
    if protocol is not None and model is not None and not one_family(model.protocol, protocol):
        what = f"the meter model {model.name} speaks {model.protocol}, not {protocol}"
        problems.append(Problem(row.where("protocol"), what, f"write {model.protocol} or choose another model"))


def _address(row: CsvRow, protocol: str | None, check_address: CheckAddress, problems: list[Problem]) -> str | None:
    address = identifier(row, "address", problems)
    if address is None or protocol is None:
        return None
    try:
        return check_address(protocol, address)
    except HeadendError as error:
        what, remedy = error.problem.what, error.problem.remedy
    except ValueError as error:
        what, remedy = str(error), f"write an address of {protocol}"
    problems.append(Problem(row.where("address"), what, remedy))
    return None


def _default_clock_zone(site_zone: str, year: int) -> str:
    tz = civil.zone(site_zone)
    return civil.standard_offset(tz, year) if civil.has_dst(tz, year) else site_zone


def _clock_zone(row: CsvRow, default: str, year: int, problems: list[Problem]) -> str | None:
    name = row.cells.get("clock_zone", "")
    if not name:
        return default
    try:
        tz = civil.zone(name)
    except UsageError as error:
        problems.append(Problem(row.where("clock_zone"), error.problem.what, error.problem.remedy))
        return None
    if civil.has_dst(tz, year):
        what = f"{name} has daylight saving, which the stamps of a meter can't show"
        remedy = f"write {civil.standard_offset(tz, year)} and let the meter keep that time all year"
        problems.append(Problem(row.where("clock_zone"), what, remedy))
        return None
    return name


# Usage points and installations


def usage_point_rows(
    rows: list[CsvRow], site: Site, known_meters: Collection[str] | None, held: Held, problems: list[Problem]
) -> tuple[list[UsagePointRow], list[InstallationRow]]:
    """The usage points of usage_points.csv and which meter stood at each from when to when."""
    points: dict[str, UsagePointRow] = {}
    homes: dict[str, CsvRow] = {}
    found: list[tuple[CsvRow, InstallationRow]] = []
    for row in rows:
        point = identifier(row, "usage_point", problems)
        district = identifier(row, "district", problems) if row.cells["district"] else ""
        if point is not None and district is not None:
            first = points.setdefault(point, UsagePointRow(point, district))
            home = homes.setdefault(point, row)
            if first.district != district:
                what = f"the usage point {shown(point)} is in district {shown(first.district)} by line {home.line}"
                problems.append(Problem(row.where("district"), what, "write one district in all its rows"))
        installation = _installation(row, point, site, known_meters, problems)
        if installation is not None:
            found.append((row, installation))
    problems += _installation_overlaps(found, held.installations)
    return list(points.values()), [installation for _, installation in found]


def _installation(
    row: CsvRow, point: str | None, site: Site, known_meters: Collection[str] | None, problems: list[Problem]
) -> InstallationRow | None:
    meter = known_name(row, "meter_id", "meter", known_meters, problems, "import the meters first")
    since, until, whole = span_of(row, "installed_at", "removed_at", site, problems)
    multiplier = number(row, "multiplier", problems, above=Decimal(0))
    if point is None or meter is None or since is None or multiplier is None or not whole:
        return None
    return InstallationRow(point, meter, since, until, multiplier)


def span_of(
    row: CsvRow, start: str, end: str, site: Site, problems: list[Problem]
) -> tuple[datetime | None, datetime | None, bool]:
    """Start, end (None: open), and whether both cells are right."""
    since = moment(row, start, site.zone, problems)
    if not row.cells.get(end):
        return since, None, since is not None
    until = moment(row, end, site.zone, problems)
    if since is None or until is None:
        return since, until, False
    if until <= since:
        what = f"{row.cells[end]} is not after {start}, {row.cells[start]}"
        problems.append(Problem(row.where(end), what, "correct one of the two, or leave the end empty while it lasts"))
        return since, until, False
    return since, until, True


def _installation_overlaps(
    found: list[tuple[CsvRow, InstallationRow]], held: Iterable[InstallationRow]
) -> Iterator[Problem]:
    """A meter that stands at two places at once, and a usage point with two meters at once."""
    replaced = {(new.usage_point, new.meter, new.since) for _, new in found}
    pairs: list[tuple[CsvRow | None, InstallationRow]] = [*found]
    pairs += [(None, old) for old in held if (old.usage_point, old.meter, old.since) not in replaced]
    by_meter = [Span(i.meter, i.since, i.until, i.usage_point, row) for row, i in pairs]
    for row, other in overlaps(by_meter):
        what = f"the meter {other.key} stands at {other.label} at the same time, by {other.place}"
        yield Problem(row.where("installed_at"), what, "end the earlier installation with removed_at")
    by_point = [Span(i.usage_point, i.since, i.until, i.meter, row) for row, i in pairs]
    for row, other in overlaps(by_point):
        if row.cells["meter_id"] != other.label:
            what = f"the usage point {other.key} has the meter {other.label} at the same time, by {other.place}"
            yield Problem(row.where("installed_at"), what, "end the earlier installation with removed_at")


# Accounts


def account_rows(
    rows: list[CsvRow],
    site: Site,
    tariffs: Collection[str],
    known_points: Collection[str] | None,
    held: Held,
    problems: list[Problem],
) -> list[AccountRow]:
    """The accounts of accounts.csv."""
    ids: dict[str, int] = {}
    found: list[tuple[CsvRow, AccountRow]] = []
    for row in rows:
        account_id = identifier(row, "account", problems)
        if account_id is not None and ids.setdefault(account_id, row.line) != row.line:
            what = f"the account {shown(account_id)} stands in line {ids[account_id]} already"
            problems.append(Problem(row.where("account"), what, "remove one of the two rows"))
        point = known_name(row, "usage_point", "usage point", known_points, problems, "import the usage points first")
        customer = identifier(row, "customer", problems)
        tariff = known_name(
            row, "tariff", "tariff", tariffs, problems, "add a tariff file to the site's tariffs folder"
        )
        since, until, whole = span_of(row, "since", "until", site, problems)
        used, used_at, used_whole = _step_used(row, site, problems)
        cycle = identifier(row, "cycle", problems) if row.cells.get("cycle") else ""
        if account_id and point and customer and tariff and since is not None and whole and used_whole:
            names = (account_id, point, customer, tariff)
            found.append((row, AccountRow(*names, since, until, used, used_at, cycle=cycle or "")))
    problems += _account_overlaps(found, held.accounts)
    return [account for _, account in found]


def _step_used(row: CsvRow, site: Site, problems: list[Problem]) -> tuple[Decimal | None, datetime | None, bool]:
    """Energy used before in the step year and the instant it was counted, both or neither; whether that is right."""
    has_used, has_at = bool(row.cells["step_used_kwh"]), bool(row.cells["step_used_at"])
    used = number(row, "step_used_kwh", problems) if has_used else None
    at = moment(row, "step_used_at", site.zone, problems) if has_at else None
    if has_used != has_at:
        empty = "step_used_at" if has_used else "step_used_kwh"
        what = "step_used_kwh and step_used_at belong together, this one is empty"
        problems.append(Problem(row.where(empty), what, "fill in both or neither"))
        return used, at, False
    return used, at, (used is not None) == has_used and (at is not None) == has_at


def _account_overlaps(found: list[tuple[CsvRow, AccountRow]], held: Iterable[AccountRow]) -> Iterator[Problem]:
    """Two accounts that pay for the same energy by the same tariff."""
    replaced = {new.id for _, new in found}
    pairs: list[tuple[CsvRow | None, AccountRow]] = [*found, *((None, old) for old in held if old.id not in replaced)]
    spans = [Span(f"{a.usage_point}\0{a.tariff}", a.since, a.until, a.id, row) for row, a in pairs]
    for row, other in overlaps(spans):
        point, _, tariff = other.key.partition("\0")
        what = f"the account {other.label} has the usage point {point} with the tariff {tariff} at the same time, "
        yield Problem(row.where("since"), f"{what}by {other.place}", "end the earlier account with until")
