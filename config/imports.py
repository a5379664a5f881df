"""Master data from CSV: meters, usage points with their meters, accounts and their terms, transformers and lines, loss
tables, sub-meters. Columns: docs/import.md.

Every file is checked whole, against the site, the other files and what the store holds; all problems are told at once
and nothing is written unless there are none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection

from config.csvfile import CsvRow, read_csv
from config.import_losses import LOSS_COLUMNS, loss_table_rows
from config.import_rows import (
    ACCOUNT_COLUMNS,
    ACCOUNT_OPTIONS,
    METER_COLUMNS,
    METER_OPTIONS,
    USAGE_POINT_COLUMNS,
    CheckAddress,
    Held,
    account_rows,
    meter_rows,
    named,
    usage_point_rows,
)
from config.import_terms import (
    SUBMETER_COLUMNS,
    SUBMETER_OPTIONS,
    SUPPLY_COLUMNS,
    SUPPLY_OPTIONS,
    TERM_COLUMNS,
    TERM_OPTIONS,
    submeter_rows,
    supply_rows,
    term_rows,
)
from config.site import Site
from headend.errors import ConfigError, Problem
from headend.store import Store, registry
from headend.store import loss_tables as loss_store
from headend.store import terms as term_store
from headend.store.loss_tables import LossRow
from headend.store.registry import AccountRow, Counts, InstallationRow, MeterRow, UsagePointRow
from headend.store.terms import AccountTerm, SubmeterRow, SupplyRow

__all__ = ["CheckAddress", "Held", "check_files", "import_files", "read_accounts", "read_meters", "read_usage_points"]

_NOTHING = Held()


@dataclass(frozen=True, slots=True)
class _Files:
    """The files of one import; None for one that isn't given."""

    meters: Path | None
    usage_points: Path | None
    accounts: Path | None
    terms: Path | None
    supplies: Path | None
    submeters: Path | None
    loss_tables: Path | None


@dataclass(frozen=True, slots=True)
class _Rows:
    """What the files of one import say, free of problems."""

    meters: list[MeterRow]
    usage_points: list[UsagePointRow]
    installations: list[InstallationRow]
    accounts: list[AccountRow]
    terms: list[AccountTerm]
    supplies: list[SupplyRow]
    submeters: list[SubmeterRow]
    losses: list[LossRow]


def import_files(
    store: Store,
    site: Site,
    *,
    meters: Path | None = None,
    usage_points: Path | None = None,
    accounts: Path | None = None,
    terms: Path | None = None,
    supplies: Path | None = None,
    submeters: Path | None = None,
    loss_tables: Path | None = None,
    tariffs: Collection[str] = (),
    zones: Mapping[str, str] | None = None,
    check_address: CheckAddress,
) -> dict[str, Counts]:
    """Check the given files, then write them in one transaction; counts by table. Doing it again changes nothing.

    `tariffs` are the names an account may have, `zones` the time zones of those that are not in the site's. Raises
    `ConfigError` with the problems of all files, in which case nothing is written.
    """
    with store.read() as conn:
        held = _held(conn)
    files = _Files(meters, usage_points, accounts, terms, supplies, submeters, loss_tables)
    rows = _checked(files, site, held, _zoned(tariffs, zones, site), check_address)
    with store.write() as conn:
        return {
            "meters": registry.put_meters(conn, rows.meters),
            "usage_points": registry.put_usage_points(conn, rows.usage_points),
            "installations": registry.put_installations(conn, rows.installations),
            "accounts": registry.put_accounts(conn, rows.accounts),
            "terms": term_store.put_terms(conn, rows.terms),
            "loss_tables": loss_store.put_loss_rows(conn, rows.losses),
            "supplies": term_store.put_supplies(conn, rows.supplies),
            "submeters": term_store.put_submeters(conn, rows.submeters),
        }


def check_files(
    site: Site,
    *,
    meters: Path | None = None,
    usage_points: Path | None = None,
    accounts: Path | None = None,
    terms: Path | None = None,
    supplies: Path | None = None,
    submeters: Path | None = None,
    loss_tables: Path | None = None,
    tariffs: Collection[str] = (),
    zones: Mapping[str, str] | None = None,
    check_address: CheckAddress,
) -> None:
    """Check the given files against the site and each other, with no store. Raises `ConfigError` with all problems.

    What refers to a kind of file that isn't given is not checked: the store may hold it.
    """
    files = _Files(meters, usage_points, accounts, terms, supplies, submeters, loss_tables)
    _checked(files, site, None, _zoned(tariffs, zones, site), check_address)


def read_meters(
    path: Path, site: Site, *, check_address: CheckAddress, held: Held = _NOTHING, year: int | None = None
) -> list[MeterRow]:
    """The meters of a CSV file. `year` (default: this one) is where daylight saving is looked for."""
    problems: list[Problem] = []
    rows = _read(path, METER_COLUMNS, METER_OPTIONS, problems)
    meters = meter_rows(rows, site, check_address, held, _this_year() if year is None else year, problems)
    _refuse(problems)
    return meters


def read_usage_points(
    path: Path, site: Site, known_meters: Collection[str], *, held: Held = _NOTHING
) -> tuple[list[UsagePointRow], list[InstallationRow]]:
    """The usage points of a CSV file and which meter stood at each from when to when."""
    problems: list[Problem] = []
    rows = _read(path, USAGE_POINT_COLUMNS, ("removed_at",), problems)
    result = usage_point_rows(rows, site, known_meters, held, problems)
    _refuse(problems)
    return result


def read_accounts(
    path: Path, site: Site, tariffs: Collection[str], known_usage_points: Collection[str], *, held: Held = _NOTHING
) -> list[AccountRow]:
    """The accounts of a CSV file. `tariffs` are the names an account may have."""
    problems: list[Problem] = []
    rows = _read(path, ACCOUNT_COLUMNS, ACCOUNT_OPTIONS, problems)
    accounts = account_rows(rows, site, tariffs, known_usage_points, held, problems)
    _refuse(problems)
    return accounts


def _zoned(tariffs: Collection[str], zones: Mapping[str, str] | None, site: Site) -> dict[str, str]:
    """The zone of each tariff by its name."""
    return {name: (zones or {}).get(name, site.zone) for name in tariffs}


def _held(conn: Connection) -> Held:
    return Held(
        tuple(registry.meters(conn)),
        tuple(registry.usage_points(conn)),
        tuple(registry.installations(conn)),
        tuple(registry.accounts(conn)),
        tuple(term_store.terms(conn)),
        tuple(term_store.supplies(conn)),
        tuple(term_store.submeters(conn)),
        tuple(loss_store.loss_rows(conn)),
    )


def _checked(
    files: _Files, site: Site, store_holds: Held | None, tariffs: Mapping[str, str], check_address: CheckAddress
) -> _Rows:
    """The rows of all files; `ConfigError` with every problem. store_holds: None when there is no store to ask.

    Names of rows that have problems are known all the same: what refers to them is not wrong by itself.
    """
    problems: list[Problem] = []
    held = store_holds or _NOTHING
    known_meters = {row.id for row in held.meters}
    known_points = {row.id for row in held.usage_points}
    known_accounts: dict[str, AccountRow | None] = {row.id: row for row in held.accounts}
    result = _Rows([], [], [], [], [], [], [], [])
    if files.meters is not None:
        rows = _read(files.meters, METER_COLUMNS, METER_OPTIONS, problems)
        known_meters |= named(rows, "meter_id")
        result.meters.extend(meter_rows(rows, site, check_address, held, _this_year(), problems))
    if files.usage_points is not None:
        rows = _read(files.usage_points, USAGE_POINT_COLUMNS, ("removed_at",), problems)
        known_points |= named(rows, "usage_point")
        known = None if store_holds is None and files.meters is None else known_meters
        points, installations = usage_point_rows(rows, site, known, held, problems)
        result.usage_points.extend(points)
        result.installations.extend(installations)
    points_told = None if store_holds is None and files.usage_points is None else known_points
    if files.accounts is not None:
        rows = _read(files.accounts, ACCOUNT_COLUMNS, ACCOUNT_OPTIONS, problems)
        result.accounts.extend(account_rows(rows, site, tariffs, points_told, held, problems))
        known_accounts |= dict.fromkeys(named(rows, "account")) | {row.id: row for row in result.accounts}
    if files.terms is not None:
        rows = _read(files.terms, TERM_COLUMNS, TERM_OPTIONS, problems)
        accounts_told = None if store_holds is None and files.accounts is None else known_accounts
        result.terms.extend(term_rows(rows, site, tariffs, accounts_told, held, problems))
    if files.loss_tables is not None:
        rows = _read(files.loss_tables, LOSS_COLUMNS, (), problems)
        result.losses.extend(loss_table_rows(rows, held.losses, problems))
    if files.supplies is not None:
        rows = _read(files.supplies, SUPPLY_COLUMNS, SUPPLY_OPTIONS, problems)
        largest = loss_store.largest_kva([*held.losses, *result.losses])
        known_tables = None if store_holds is None and files.loss_tables is None else largest
        result.supplies.extend(supply_rows(rows, site, points_told, held, problems, known_tables))
    if files.submeters is not None:
        rows = _read(files.submeters, SUBMETER_COLUMNS, SUBMETER_OPTIONS, problems)
        result.submeters.extend(submeter_rows(rows, site, points_told, held, problems))
    _refuse(problems)
    return result


def _read(path: Path, required: Collection[str], optional: Collection[str], problems: list[Problem]) -> list[CsvRow]:
    rows, wrong = read_csv(path, required, optional)
    problems += wrong
    return rows


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise ConfigError(problems)


def _this_year() -> int:
    return datetime.now(UTC).year
