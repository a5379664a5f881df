"""Who is metered where: meters, usage points, installations, accounts.

The `put_` functions add or change rows by their own id and never delete; they tell every problem of a list at once
(`ConfigError`), and the caller's transaction then holds nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select, update

from headend.civil import from_epoch_s
from headend.errors import Problem
from headend.quantities import from_units, to_units
from headend.store import schema
from headend.store.portable import chunks
from headend.store.rows import Counts, doubles, instant, keys, moment, number, put, refuse, span, units

__all__ = [
    "AccountRow",
    "Counts",
    "InstallationRow",
    "MeterRow",
    "UsagePointRow",
    "account",
    "accounts",
    "accounts_among",
    "installations",
    "meter",
    "meters",
    "put_accounts",
    "put_installations",
    "put_meters",
    "put_usage_points",
    "usage_points",
]


@dataclass(frozen=True, slots=True)
class MeterRow:
    """A meter as the store knows it. curve_step_s: 0 when it keeps no curve. key: the store's, 0 before it has one.

    serial: speed and character format of its own on a serial line, "" the line's. options: what its protocol must know
    of it beside its model (`client = 32; reply_s = 3.5`).
    """

    id: str
    protocol: str
    address: str
    line: str
    model: str
    clock_zone: str
    register_wrap: Decimal
    curve_step_s: int
    key: int = 0
    serial: str = ""
    options: str = ""


@dataclass(frozen=True, slots=True)
class UsagePointRow:
    """Where energy is delivered; `district` is its transformer area."""

    id: str
    district: str = ""
    key: int = 0


@dataclass(frozen=True, slots=True)
class InstallationRow:
    """Which meter stood at which usage point in `[since, until)`. multiplier: CT x PT ratio."""

    usage_point: str
    meter: str
    since: datetime
    until: datetime | None = None
    multiplier: Decimal = Decimal(1)
    key: int = 0
    meter_key: int = 0


@dataclass(frozen=True, slots=True)
class AccountRow:
    """Who pays for a usage point in `[since, until)`. step_used: kWh already used in the step year at step_used_at.

    cycle: group of accounts that are billed together, "" the site's default.
    """

    id: str
    usage_point: str
    customer: str
    tariff: str
    since: datetime
    until: datetime | None = None
    step_used: Decimal | None = None
    step_used_at: datetime | None = None
    key: int = 0
    cycle: str = ""


# -- meters ------------------------------------------------------------------------------------------------------------


def put_meters(conn: Connection, rows: Sequence[MeterRow]) -> Counts:
    """Add or change meters by id. `ConfigError` if two would share line, protocol and address."""
    problems = doubles("meter", ((row.id,) for row in rows))
    holders = {(m.line, m.protocol, m.address): m.id for m in meters(conn)}
    moved = {row.id for row in rows}
    claimed: dict[tuple[str, str, str], str] = {p: m for p, m in holders.items() if m not in moved}
    for row in rows:
        place = (row.line, row.protocol, row.address)
        holder = claimed.setdefault(place, row.id)
        if holder != row.id:
            what = f"address {row.address} on line {row.line} ({row.protocol}) already belongs to meter {holder}"
            problems.append(Problem(f"meter {row.id}", what, "give it its own address, or move the other one first"))
    refuse(problems)
    _free_places(conn, rows, holders)
    return put(conn, schema.meter, ["id"], [_meter_values(row) for row in rows])


def _free_places(conn: Connection, rows: Sequence[MeterRow], holders: Mapping[tuple[str, str, str], str]) -> None:
    """Give up the addresses of meters that swap them, as the database checks each changed row by itself."""
    places = {row.id: (row.line, row.protocol, row.address) for row in rows}
    for place, holder in holders.items():
        if holder in places and places[holder] != place and place in places.values():
            parked = update(schema.meter).where(schema.meter.c.id == holder)
            conn.execute(parked.values(address=f"\x01{holder}"))


def _meter_values(row: MeterRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "protocol": row.protocol,
        "address": row.address,
        "line": row.line,
        "model": row.model,
        "clock_zone": row.clock_zone,
        "register_wrap": to_units(row.register_wrap),
        "curve_step_s": row.curve_step_s,
        "serial": row.serial,
        "options": row.options,
    }


def _meter_row(row: Row[Any]) -> MeterRow:
    wrap = from_units(row.register_wrap)
    place = (row.id, row.protocol, row.address, row.line, row.model, row.clock_zone)
    own = {"serial": row.serial, "options": row.options}
    return MeterRow(*place, register_wrap=wrap, curve_step_s=row.curve_step_s, key=row.key, **own)


def meters(conn: Connection) -> list[MeterRow]:
    """Every meter, by id."""
    return [_meter_row(row) for row in conn.execute(select(schema.meter).order_by(schema.meter.c.id))]


def meter(conn: Connection, id: str) -> MeterRow | None:
    """The meter with this asset number."""
    row = conn.execute(select(schema.meter).where(schema.meter.c.id == id)).one_or_none()
    return None if row is None else _meter_row(row)


# -- usage points ------------------------------------------------------------------------------------------------------


def put_usage_points(conn: Connection, rows: Sequence[UsagePointRow]) -> Counts:
    """Add or change usage points by id."""
    refuse(doubles("usage point", ((row.id,) for row in rows)))
    return put(conn, schema.usage_point, ["id"], [{"id": row.id, "district": row.district} for row in rows])


def usage_points(conn: Connection) -> list[UsagePointRow]:
    """Every usage point, by id."""
    query = select(schema.usage_point).order_by(schema.usage_point.c.id)
    return [UsagePointRow(row.id, row.district, row.key) for row in conn.execute(query)]


# -- installations -----------------------------------------------------------------------------------------------------


def put_installations(conn: Connection, rows: Sequence[InstallationRow]) -> Counts:
    """Add or change installations by usage point, meter and since.

    `ConfigError` for unknown usage points and meters, and for a meter that would stand at two usage points at once.
    """
    points, devices = keys(conn, schema.usage_point), keys(conn, schema.meter)
    names = [(row.usage_point, row.meter, str(row.since)) for row in rows]
    problems = doubles("installation", names)
    for row in rows:
        where = f"installation of meter {row.meter} at {row.usage_point}"
        problems += span(where, row.since, row.until)
        if row.usage_point not in points:
            problems.append(Problem(where, f"unknown usage point {row.usage_point}", "import the usage point first"))
        if row.meter not in devices:
            problems.append(Problem(where, f"unknown meter {row.meter}", "import the meter first"))
        if row.multiplier <= 0:
            problems.append(Problem(where, f"multiplier {row.multiplier} is not above 0", "give the CT x PT ratio"))
    refuse(problems)
    values = [_installation_values(row, points[row.usage_point], devices[row.meter]) for row in rows]
    counts = put(conn, schema.installation, ["usage_point_key", "meter_key", "since"], values)
    refuse(_overlaps(conn, {row.meter for row in rows}))
    return counts


def _installation_values(row: InstallationRow, usage_point_key: int, meter_key: int) -> dict[str, Any]:
    return {
        "usage_point_key": usage_point_key,
        "meter_key": meter_key,
        "since": instant(row.since),
        "until": instant(row.until),
        "multiplier": to_units(row.multiplier),
    }


def _overlaps(conn: Connection, meter_ids: set[str]) -> list[Problem]:
    standing: dict[str, InstallationRow] = {}
    problems = []
    for row in sorted(installations(conn), key=lambda row: (row.meter, row.since)):
        before = standing.get(row.meter)
        if row.meter in meter_ids and before is not None and (before.until is None or before.until > row.since):
            where = f"installation of meter {row.meter} at {row.usage_point}"
            what = f"the meter stands at {before.usage_point} then (since {before.since:%Y-%m-%d %H:%M} UTC)"
            problems.append(Problem(where, what, "end the earlier installation first (until)"))
        standing[row.meter] = row
    return problems


def installations(conn: Connection, usage_point: str | None = None) -> list[InstallationRow]:
    """Installations, of one usage point or of all, by usage point and since."""
    table, point, device = schema.installation, schema.usage_point, schema.meter
    query = (
        select(table, point.c.id.label("point_id"), device.c.id.label("meter_id"))
        .join(point, point.c.key == table.c.usage_point_key)
        .join(device, device.c.key == table.c.meter_key)
        .order_by(point.c.id, table.c.since, device.c.id)
    )
    if usage_point is not None:
        query = query.where(point.c.id == usage_point)
    return [
        InstallationRow(
            usage_point=row.point_id,
            meter=row.meter_id,
            since=from_epoch_s(row.since),
            until=moment(row.until),
            multiplier=from_units(row.multiplier),
            key=row.key,
            meter_key=row.meter_key,
        )
        for row in conn.execute(query)
    ]


# -- accounts ----------------------------------------------------------------------------------------------------------


def put_accounts(conn: Connection, rows: Sequence[AccountRow]) -> Counts:
    """Add or change accounts by id. `ConfigError` for unknown usage points."""
    points = keys(conn, schema.usage_point)
    problems = doubles("account", ((row.id,) for row in rows))
    for row in rows:
        where = f"account {row.id}"
        problems += span(where, row.since, row.until)
        if row.usage_point not in points:
            problems.append(Problem(where, f"unknown usage point {row.usage_point}", "import the usage point first"))
        if (row.step_used is None) != (row.step_used_at is None):
            problems.append(Problem(where, "step_used and step_used_at go together", "give both or neither"))
    refuse(problems)
    return put(conn, schema.account, ["id"], [_account_values(row, points[row.usage_point]) for row in rows])


def _account_values(row: AccountRow, usage_point_key: int) -> dict[str, Any]:
    return {
        "id": row.id,
        "usage_point_key": usage_point_key,
        "customer": row.customer,
        "tariff": row.tariff,
        "since": instant(row.since),
        "until": instant(row.until),
        "step_used": units(row.step_used),
        "step_used_at": instant(row.step_used_at),
        "cycle": row.cycle,
    }


def accounts(conn: Connection) -> list[AccountRow]:
    """Every account, by id."""
    return _accounts(conn)


def accounts_among(conn: Connection, ids: Iterable[str]) -> list[AccountRow]:
    """The accounts with these numbers, by id; those that are not there are left out."""
    found = [row for chunk in chunks(ids) for row in _accounts(conn, schema.account.c.id.in_(chunk))]
    return sorted(found, key=lambda row: row.id)


def account(conn: Connection, id: str) -> AccountRow | None:
    """The account with this number."""
    found = _accounts(conn, schema.account.c.id == id)
    return found[0] if found else None


def _accounts(conn: Connection, *where: ColumnElement[bool]) -> list[AccountRow]:
    table, point = schema.account, schema.usage_point
    query = (
        select(table, point.c.id.label("point_id"))
        .join(point, point.c.key == table.c.usage_point_key)
        .where(*where)
        .order_by(table.c.id)
    )
    return [
        AccountRow(
            id=row.id,
            usage_point=row.point_id,
            customer=row.customer,
            tariff=row.tariff,
            since=from_epoch_s(row.since),
            until=moment(row.until),
            step_used=number(row.step_used),
            step_used_at=moment(row.step_used_at),
            key=row.key,
            cycle=row.cycle,
        )
        for row in conn.execute(query)
    ]
