"""What else is registered for billing: terms of accounts, transformers and lines, sub-meters.

As in `headend.store.registry`, the `put_` functions add or change rows by their own id, never delete, and tell every
problem of a list at once (`ConfigError`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Connection, Row, select

from headend.civil import from_epoch_s
from headend.errors import Problem
from headend.quantities import from_units, to_units
from headend.store import schema
from headend.store.loss_tables import LossRow, by_table, largest_kva, loss_rows, table_faults
from headend.store.rows import Counts, doubles, instant, keys, moment, number, put, refuse, span, units

__all__ = [
    "METHODS",
    "AccountTerm",
    "SubmeterRow",
    "SupplyRow",
    "circles",
    "put_submeters",
    "put_supplies",
    "put_terms",
    "submeter_faults",
    "submeters",
    "supplies",
    "supply_faults",
    "terms",
]

METHODS: Final = ("metered", "quantity", "ratio")
"""How the energy of a usage point behind another's meter is known: by a meter of its own, as a fixed quantity of so
many kWh a month, as a percentage of the parent's energy."""

_HUNDRED = Decimal(100)


@dataclass(frozen=True, slots=True)
class AccountTerm:
    """What holds for an account from `since` on, until its next term. None: what held before goes on.

    contract_kw: contracted demand; capacity_kva: installed capacity; people: size of the household.
    """

    account: str
    since: datetime
    tariff: str | None = None
    contract_kw: Decimal | None = None
    capacity_kva: Decimal | None = None
    people: int | None = None


@dataclass(frozen=True, slots=True)
class SupplyRow:
    """Transformer and line between the point of delivery and a usage point's meter behind them, in `[since, until)`.

    rated_kva: rated capacity Sn, 0 where there is a line only. no_load_kw: P0. load_kw: Pk, loss at rated load.
    no_load_percent: no-load current I0%. impedance_percent: impedance voltage Uk%. load_factor: K, for the shape of the
    load. share: how much of the transformer's loss the usage point bears, 1 all of it. line_percent: loss of the line
    in percent of the energy that passes it. table: name of the published table that tells the transformer's loss
    instead of the formula. losses: its rows, as the store has them; not given when a supply is put.
    """

    usage_point: str
    since: datetime
    until: datetime | None
    rated_kva: Decimal
    no_load_kw: Decimal
    load_kw: Decimal
    no_load_percent: Decimal = Decimal(0)
    impedance_percent: Decimal = Decimal(0)
    load_factor: Decimal = Decimal(1)
    share: Decimal = Decimal(1)
    line_percent: Decimal = Decimal(0)
    table: str = field(default="", kw_only=True)
    losses: tuple[LossRow, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True, slots=True)
class SubmeterRow:
    """A usage point behind the meter of another, its `parent`, in `[since, until)`.

    method: of `METHODS`. amount: kWh a month of `quantity`, percent of `ratio`, 0 of `metered`.
    """

    usage_point: str
    parent: str
    since: datetime
    until: datetime | None
    method: str
    amount: Decimal = Decimal(0)


# -- terms of accounts -------------------------------------------------------------------------------------------------


def put_terms(conn: Connection, rows: Sequence[AccountTerm]) -> Counts:
    """Add or change terms by account and since. `ConfigError` for unknown accounts and numbers that mean nothing."""
    known = keys(conn, schema.account) if rows else {}
    problems = doubles("terms of account", ((row.account, row.since.isoformat()) for row in rows))
    for row in rows:
        where = f"terms of account {row.account} since {row.since:%Y-%m-%d}"
        if row.account not in known:
            problems.append(Problem(where, f"unknown account {row.account}", "import the account first"))
        given = {"contract_kw": row.contract_kw, "capacity_kva": row.capacity_kva, "people": row.people}
        if row.tariff is None and all(value is None for value in given.values()):
            problems.append(Problem(where, "nothing changes by it", "give what holds from then on"))
        for name, value in given.items():
            if value is not None and value <= 0:
                problems.append(Problem(where, f"{name} {value} is not above 0", "correct it, or leave it out"))
    refuse(problems)
    values = [
        {
            "account_key": known[row.account],
            "since": instant(row.since),
            "tariff": row.tariff,
            "contract_kw": units(row.contract_kw),
            "capacity_kva": units(row.capacity_kva),
            "people": row.people,
        }
        for row in rows
    ]
    return put(conn, schema.account_term, ["account_key", "since"], values)


def terms(conn: Connection, account: str | None = None) -> list[AccountTerm]:
    """Terms, of one account or of all, by account and since."""
    table, owner = schema.account_term, schema.account
    query = (
        select(table, owner.c.id.label("account"))
        .join(owner, owner.c.key == table.c.account_key)
        .order_by(owner.c.id, table.c.since)
    )
    if account is not None:
        query = query.where(owner.c.id == account)
    return [
        AccountTerm(
            row.account,
            from_epoch_s(row.since),
            row.tariff,
            number(row.contract_kw),
            number(row.capacity_kva),
            row.people,
        )
        for row in conn.execute(query)
    ]


# -- transformers and lines --------------------------------------------------------------------------------------------

_SUPPLY_NUMBERS: Final = (
    "rated_kva",
    "no_load_kw",
    "load_kw",
    "no_load_percent",
    "impedance_percent",
    "load_factor",
    "share",
    "line_percent",
)


def put_supplies(conn: Connection, rows: Sequence[SupplyRow]) -> Counts:
    """Add or change supplies by usage point and since.

    `ConfigError` for unknown usage points and tables, numbers that mean nothing, and two supplies of a point at once.
    """
    points = keys(conn, schema.usage_point) if rows else {}
    problems = doubles("supply of", ((row.usage_point, row.since.isoformat()) for row in rows))
    new = {(row.usage_point, row.since) for row in rows}
    held = [row for row in supplies(conn) if (row.usage_point, row.since) not in new] if rows else []
    problems += _overlaps("supply of", [*held, *rows], "it has another one then")
    largest = largest_kva(loss_rows(conn)) if any(row.table for row in rows) else {}
    for row in rows:
        where = f"supply of {row.usage_point} since {row.since:%Y-%m-%d}"
        problems += span(where, row.since, row.until)
        if row.usage_point not in points:
            problems.append(Problem(where, f"unknown usage point {row.usage_point}", "import the usage point first"))
        problems += [Problem(where, what, remedy) for _, what, remedy in supply_faults(row)]
        if row.table and (fault := table_faults(row.table, row.rated_kva, largest)) is not None:
            problems.append(Problem(where, *fault[1:]))
    refuse(problems)
    values = [
        {
            "usage_point_key": points[row.usage_point],
            "since": instant(row.since),
            "until": instant(row.until),
            "table_name": row.table or None,
            **{name: to_units(getattr(row, name)) for name in _SUPPLY_NUMBERS},
        }
        for row in rows
    ]
    return put(conn, schema.supply, ["usage_point_key", "since"], values)


def supply_faults(row: SupplyRow) -> list[tuple[str, str, str]]:
    """What is wrong with the numbers of a supply: field, what, what to do."""
    found = [
        (name, f"{name} {value} is below 0", "correct it")
        for name in _SUPPLY_NUMBERS
        if (value := getattr(row, name)) < 0
    ]
    if row.rated_kva == 0:
        found += [
            (name, f"{name} {value} of no transformer, as rated_kva is 0", "give rated_kva, or 0 for both")
            for name in ("no_load_kw", "load_kw", "no_load_percent", "impedance_percent")
            if (value := getattr(row, name)) > 0
        ]
    if row.table:
        found += _beside_a_table(row)
    if row.load_factor == 0:
        found.append(("load_factor", "load_factor 0 leaves out the loss of the load", "write 1 where none is agreed"))
    if row.share > 1:
        found.append(("share", f"share {row.share} is above 1", "write it as a part of 1: 0.5 is half of the loss"))
    if row.line_percent >= _HUNDRED:
        found.append(("line_percent", f"line_percent {row.line_percent} is not below 100", "correct it"))
    return found


def _beside_a_table(row: SupplyRow) -> list[tuple[str, str, str]]:
    """Numbers of the formula where a table tells the loss."""
    found = [
        (name, f"{name} {value} beside the loss table {row.table}, which tells the loss", "leave one of the two out")
        for name in ("no_load_kw", "load_kw", "no_load_percent", "impedance_percent")
        if (value := getattr(row, name)) > 0
    ]
    if row.load_factor != 1:
        what = f"load_factor {row.load_factor} beside the loss table {row.table}, which knows none"
        found.append(("load_factor", what, "leave it empty"))
    if row.rated_kva == 0:
        what = f"the loss table {row.table} of no transformer, as rated_kva is 0"
        found.append(("rated_kva", what, "give the capacity of the transformer"))
    return found


def supplies(conn: Connection, usage_point: str | None = None) -> list[SupplyRow]:
    """Supplies, of one usage point or of all, by usage point and since."""
    table, point = schema.supply, schema.usage_point
    query = (
        select(table, point.c.id.label("point_id"))
        .join(point, point.c.key == table.c.usage_point_key)
        .order_by(point.c.id, table.c.since)
    )
    if usage_point is not None:
        query = query.where(point.c.id == usage_point)
    rows = conn.execute(query).all()
    losses = by_table(loss_rows(conn)) if any(row.table_name for row in rows) else {}
    return [
        SupplyRow(
            row.point_id,
            from_epoch_s(row.since),
            moment(row.until),
            **_numbers(row),
            table=row.table_name or "",
            losses=losses.get(row.table_name, ()),
        )
        for row in rows
    ]


def _numbers(row: Row[Any]) -> dict[str, Any]:
    return {name: from_units(getattr(row, name)) for name in _SUPPLY_NUMBERS}


# -- sub-meters --------------------------------------------------------------------------------------------------------


def put_submeters(conn: Connection, rows: Sequence[SubmeterRow]) -> Counts:
    """Add or change sub-meters by usage point and since.

    `ConfigError` for unknown usage points, amounts that mean nothing, a point under two parents at once, and points
    that are behind each other in a circle.
    """
    points = keys(conn, schema.usage_point) if rows else {}
    problems = doubles("sub-meter", ((row.usage_point, row.since.isoformat()) for row in rows))
    for row in rows:
        where = f"sub-meter {row.usage_point} behind {row.parent}"
        problems += span(where, row.since, row.until)
        for name in dict.fromkeys((row.usage_point, row.parent)):
            if name not in points:
                problems.append(Problem(where, f"unknown usage point {name}", "import the usage point first"))
        problems += [Problem(where, what, remedy) for _, what, remedy in submeter_faults(row)]
    new = {(row.usage_point, row.since) for row in rows}
    held = [row for row in submeters(conn) if (row.usage_point, row.since) not in new] if rows else []
    problems += _overlaps("sub-meter", [*held, *rows], "it has another parent then")
    for row, path in circles([*held, *rows]):
        where, what = f"sub-meter {row.usage_point} behind {row.parent}", f"a circle: {' behind '.join(path)}"
        problems.append(Problem(where, what, "correct the parents"))
    refuse(problems)
    values = [_submeter_values(row, points) for row in rows]
    return put(conn, schema.submeter, ["usage_point_key", "since"], values)


def submeter_faults(row: SubmeterRow) -> list[tuple[str, str, str]]:
    """What is wrong with method and amount of a sub-meter: field, what, what to do."""
    if row.method not in METHODS:
        return [("method", f"unknown method {row.method!r}", f"use {', '.join(METHODS)}")]
    if row.method == "metered" and row.amount != 0:
        what = f"an amount of {row.amount} beside the method metered, whose meter tells it"
        return [("amount", what, "leave it empty")]
    if row.method == "quantity" and row.amount <= 0:
        return [("amount", f"a quantity of {row.amount} kWh a month", "give more than 0 kWh")]
    if row.method == "ratio" and not 0 < row.amount <= _HUNDRED:
        return [("amount", f"a ratio of {row.amount} percent", "give a percentage above 0, at most 100")]
    return []


def circles(rows: Iterable[SubmeterRow]) -> list[tuple[SubmeterRow, tuple[str, ...]]]:
    """Sub-meters that come, parent by parent, to stand behind themselves: each with the points on the way."""
    by_point: dict[str, list[SubmeterRow]] = {}
    for row in rows:
        by_point.setdefault(row.usage_point, []).append(row)
    found = []
    for row in [row for group in by_point.values() for row in group]:
        path, above = [row.usage_point, row.parent], row.parent
        while above != row.usage_point:
            over = next((r for r in by_point.get(above, ()) if _holds(r, row.since)), None)
            if over is None or over.parent in path[1:]:
                break
            above = over.parent
            path.append(above)
        if above == row.usage_point:
            found.append((row, tuple(path)))
    return found


def _holds(row: SubmeterRow, at: datetime) -> bool:
    return row.since <= at and (row.until is None or at < row.until)


def _submeter_values(row: SubmeterRow, points: dict[str, int]) -> dict[str, Any]:
    return {
        "usage_point_key": points[row.usage_point],
        "parent_key": points[row.parent],
        "since": instant(row.since),
        "until": instant(row.until),
        "method": row.method,
        "amount": to_units(row.amount),
    }


def submeters(conn: Connection) -> list[SubmeterRow]:
    """Every sub-meter, by parent, usage point and since."""
    table, point = schema.submeter, schema.usage_point
    parent = point.alias("parent")
    query = (
        select(table, point.c.id.label("point_id"), parent.c.id.label("parent_id"))
        .join(point, point.c.key == table.c.usage_point_key)
        .join(parent, parent.c.key == table.c.parent_key)
        .order_by(parent.c.id, point.c.id, table.c.since)
    )
    return [
        SubmeterRow(
            row.point_id,
            row.parent_id,
            from_epoch_s(row.since),
            moment(row.until),
            row.method,
            from_units(row.amount),
        )
        for row in conn.execute(query)
    ]


def _overlaps(kind: str, rows: Iterable[SupplyRow | SubmeterRow], what: str) -> list[Problem]:
    """Spans of one usage point that overlap; two with one start are told as listed twice."""
    problems = []
    before: SupplyRow | SubmeterRow | None = None
    for row in sorted(rows, key=lambda row: (row.usage_point, row.since)):
        same = before is not None and before.usage_point == row.usage_point and before.since < row.since
        if before is not None and same and (before.until is None or before.until > row.since):
            where = f"{kind} {row.usage_point} since {row.since:%Y-%m-%d}"
            told = f"{what} (since {before.since:%Y-%m-%d %H:%M} UTC)"
            problems.append(Problem(where, told, "end the earlier one first (until)"))
        before = row
    return problems
