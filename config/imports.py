"""Master data from CSV: meters, usage points with their meters, accounts. Columns: docs/import.md.

Every file is checked whole, against the site, the other files and what the store holds; all problems are told at once
and nothing is written unless there are none.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection

from config.csvfile import CsvRow, read_csv
from config.import_rows import (
    ACCOUNT_COLUMNS,
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
from config.site import Site
from headend.errors import ConfigError, Problem
from headend.store import Store, registry
from headend.store.registry import AccountRow, Counts, InstallationRow, MeterRow, UsagePointRow

__all__ = ["CheckAddress", "Held", "check_files", "import_files", "read_accounts", "read_meters", "read_usage_points"]

_NOTHING = Held()


@dataclass(frozen=True, slots=True)
class _Files:
    """The files of one import; None for one that isn't given."""

    meters: Path | None
    usage_points: Path | None
    accounts: Path | None


@dataclass(frozen=True, slots=True)
class _Rows:
    """What the files of one import say, free of problems."""

    meters: list[MeterRow]
    usage_points: list[UsagePointRow]
    installations: list[InstallationRow]
    accounts: list[AccountRow]


def import_files(
    store: Store,
    site: Site,
    *,
    meters: Path | None = None,
    usage_points: Path | None = None,
    accounts: Path | None = None,
    tariffs: Collection[str] = (),
    check_address: CheckAddress,
) -> dict[str, Counts]:
    """Check the given files, then write them in one transaction; counts by table. Doing it again changes nothing.

    `tariffs` are the names an account may have. Raises `ConfigError` with the problems of all files, in which case
    nothing is written.
    """
    with store.read() as conn:
        held = _held(conn)
    rows = _checked(_Files(meters, usage_points, accounts), site, held, tariffs, check_address)
    with store.write() as conn:
        return {
            "meters": registry.put_meters(conn, rows.meters),
            "usage_points": registry.put_usage_points(conn, rows.usage_points),
            "installations": registry.put_installations(conn, rows.installations),
            "accounts": registry.put_accounts(conn, rows.accounts),
        }


def check_files(
    site: Site,
    *,
    meters: Path | None = None,
    usage_points: Path | None = None,
    accounts: Path | None = None,
    tariffs: Collection[str] = (),
    check_address: CheckAddress,
) -> None:
    """Check the given files against the site and each other, with no store. Raises `ConfigError` with all problems.

    What refers to a kind of file that isn't given is not checked: the store may hold it.
    """
    _checked(_Files(meters, usage_points, accounts), site, None, tariffs, check_address)


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
    rows = _read(path, ACCOUNT_COLUMNS, ("until",), problems)
    accounts = account_rows(rows, site, tariffs, known_usage_points, held, problems)
    _refuse(problems)
    return accounts


def _held(conn: Connection) -> Held:
    return Held(
        tuple(registry.meters(conn)),
        tuple(registry.usage_points(conn)),
        tuple(registry.installations(conn)),
        tuple(registry.accounts(conn)),
    )


def _checked(
    files: _Files, site: Site, store_holds: Held | None, tariffs: Collection[str], check_address: CheckAddress
) -> _Rows:
    """The rows of all files; `ConfigError` with every problem. store_holds: None when there is no store to ask.

    Names of rows that have problems are known all the same: what refers to them is not wrong by itself.
    """
    problems: list[Problem] = []
    held = store_holds or _NOTHING
    known_meters = {row.id for row in held.meters}
    known_points = {row.id for row in held.usage_points}
    result = _Rows([], [], [], [])
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
    if files.accounts is not None:
        rows = _read(files.accounts, ACCOUNT_COLUMNS, ("until",), problems)
        known = None if store_holds is None and files.usage_points is None else known_points
        result.accounts.extend(account_rows(rows, site, tariffs, known, held, problems))
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
