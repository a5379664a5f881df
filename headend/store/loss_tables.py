"""Published tables of transformer losses: by type, rated capacity and the energy of a month.

As Chinese suppliers print them (变压器损耗表): a type of transformer, its capacity, bands of monthly energy, and for
each band the active and reactive energy lost in the month.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import Connection, select

from headend.errors import Problem
from headend.quantities import from_units, to_units
from headend.store import schema
from headend.store.rows import Counts, doubles, put, refuse

__all__ = ["LossRow", "by_table", "largest_kva", "loss_rows", "put_loss_rows", "row_faults", "table_faults"]

_NUMBERS = ("rated_kva", "up_to_kwh", "active_kwh", "reactive_kvarh")


@dataclass(frozen=True, slots=True)
class LossRow:
    """One band of a table: up to and with `up_to_kwh` in a month, `active_kwh` and `reactive_kvarh` are lost in it.

    table: its name, as a rule the type of transformer. rated_kva: the capacity it is for; one between two rows goes by
    the larger.
    """

    table: str
    rated_kva: Decimal
    up_to_kwh: Decimal
    active_kwh: Decimal
    reactive_kvarh: Decimal


def put_loss_rows(conn: Connection, rows: Sequence[LossRow]) -> Counts:
    """Add or change rows by table, capacity and band. `ConfigError` for bands that do not follow one another."""
    problems = doubles("loss table", ((row.table, str(row.rated_kva), str(row.up_to_kwh)) for row in rows))
    held = loss_rows(conn) if rows else []
    for row, _, what, remedy in row_faults(rows, held):
        problems.append(Problem(f"loss table {row.table}, {row.rated_kva} kVA", what, remedy))
    refuse(problems)
    values = [{"table_name": row.table, **{name: to_units(getattr(row, name)) for name in _NUMBERS}} for row in rows]
    return put(conn, schema.loss_row, ["table_name", "rated_kva", "up_to_kwh"], values)


def loss_rows(conn: Connection) -> list[LossRow]:
    """Every row, by table, capacity and band."""
    table = schema.loss_row
    query = select(table).order_by(table.c.table_name, table.c.rated_kva, table.c.up_to_kwh)
    return [
        LossRow(row.table_name, *(from_units(getattr(row, name)) for name in _NUMBERS)) for row in conn.execute(query)
    ]


def by_table(rows: Iterable[LossRow]) -> dict[str, tuple[LossRow, ...]]:
    """The rows of each table by its name, in their order."""
    found: dict[str, list[LossRow]] = {}
    for row in rows:
        found.setdefault(row.table, []).append(row)
    return {name: tuple(of) for name, of in found.items()}


def largest_kva(rows: Iterable[LossRow]) -> dict[str, Decimal]:
    """The largest capacity that each table covers."""
    found: dict[str, Decimal] = {}
    for row in rows:
        found[row.table] = max(row.rated_kva, found.get(row.table, row.rated_kva))
    return found


def row_faults(rows: Sequence[LossRow], held: Iterable[LossRow]) -> list[tuple[LossRow, str, str, str]]:
    """What is wrong with rows in the order of their list: row, field, what, what to do.

    held: what the store has. Bands of a table and capacity ascend, and what is lost does not fall. A list that brings a
    capacity brings all its bands: one that only the store has would stay between the new ones.
    """
    found: list[tuple[LossRow, str, str, str]] = []
    last: dict[tuple[str, Decimal], LossRow] = {}
    brought = {(row.table, row.rated_kva, row.up_to_kwh) for row in rows}
    for row in rows:
        for name in ("rated_kva", "up_to_kwh"):
            if getattr(row, name) <= 0:
                found.append((row, name, f"{name} {getattr(row, name)} is not above 0", "correct it"))
        before = last.get((row.table, row.rated_kva))
        if before is not None and row.up_to_kwh <= before.up_to_kwh:
            what = f"the band up to {row.up_to_kwh} kWh comes after the one up to {before.up_to_kwh} kWh"
            found.append((row, "up_to_kwh", what, "let the bands of a capacity ascend"))
        elif before is not None:
            for name, unit in (("active_kwh", "kWh"), ("reactive_kvarh", "kvarh")):
                now, then = getattr(row, name), getattr(before, name)
                if now < then:
                    what = f"a loss of {now} {unit} after {then} {unit} in the band below"
                    found.append((row, name, what, "correct one of the two: more energy loses no less"))
        last[row.table, row.rated_kva] = row
    for old in held:
        of = (old.table, old.rated_kva)
        if of in last and (*of, old.up_to_kwh) not in brought:
            band = f"up to {_plain(old.up_to_kwh)} kWh, for {_plain(old.rated_kva)} kVA"
            what = f"the store has a band {band}, which is not listed"
            found.append((last[of], "up_to_kwh", what, "list it as well, or give the new table a name of its own"))
    return found


def table_faults(name: str, rated_kva: Decimal, largest: Mapping[str, Decimal]) -> tuple[str, str, str] | None:
    """What is wrong with a transformer that goes by table `name`: field, what, what to do."""
    if name not in largest:
        known = ", ".join(sorted(largest)) or "none is there yet"
        return "table", f"there is no loss table {name}", f"import the loss table first; known: {known}"
    if rated_kva > largest[name]:
        reach, asked = _plain(largest[name]), _plain(rated_kva)
        what = f"the loss table {name} ends with {reach} kVA, below the {asked} kVA of the transformer"
        return "table", what, "add its rows for that capacity, or use the formula"
    return None


def _plain(value: Decimal) -> str:
    return f"{value.normalize():f}"
