"""What SQLite and PostgreSQL spell differently, in one place, and statements cut to what both take."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Float,
    Integer,
    LargeBinary,
    RowMapping,
    Table,
    TableValuedAlias,
    Text,
    and_,
    bindparam,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError

__all__ = ["CHUNK", "add_absent", "chunks", "put_rows", "reserve", "rows_among", "rows_at", "upsert"]

T = TypeVar("T")

CHUNK = 400
"""Values in one IN list: SQLite builds before 3.32 take no more than 999 parameters."""


def chunks(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """`items` in lists of at most `size`."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _insert(conn: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    return sqlite.insert(table) if conn.dialect.name == "sqlite" else postgresql.insert(table)


def rows_at(
    conn: Connection, table: Table, names: Sequence[str], keys: Collection[tuple[int, ...]]
) -> Iterator[RowMapping]:
    """The rows of `table` whose columns `names` are one of `keys`, in one statement of one or few parameters.

    An IN list of tuples would do, but SQLite then scans the whole table and PostgreSQL plans for longer than it runs.
    """
    if not keys:
        return iter(())
    wanted: TableValuedAlias
    parts: list[ColumnElement[int]]
    if conn.dialect.name == "sqlite":
        wanted = func.json_each(bindparam("keys", json.dumps(list(keys)))).table_valued("value", name="wanted")
        parts = [func.json_extract(wanted.c.value, f"$[{position}]") for position in range(len(names))]
    else:
        arrays = [
            bindparam(name, list(column), type_=postgresql.ARRAY(BigInteger))
            for name, column in zip(names, zip(*keys, strict=True), strict=True)
        ]
        wanted = func.unnest(*arrays).table_valued(*names).render_derived(name="wanted")
        parts = [wanted.c[name] for name in names]
    same = and_(*(table.c[name] == part for name, part in zip(names, parts, strict=True)))
    return iter(conn.execute(select(table).select_from(wanted).join(table, same)).mappings())


def rows_among(
    conn: Connection,
    table: Table,
    names: Sequence[str],
    column: str,
    among: Sequence[int],
    tail: str = "",
    **fixed: int,
) -> list[tuple[Any, ...]]:
    """The columns `names` of the rows whose `column` is one of `among` and whose `fixed` columns have these values.

    A statement without SQLAlchemy's work on every row; rows come as plain tuples. tail: what ends the statement.
    """
    if not among:
        return []
    lite = conn.dialect.name == "sqlite"
    mark, given = ("?", "SELECT value FROM json_each(?)") if lite else ("%s", "SELECT unnest(%s::bigint[])")
    where = "".join(f"{name} = {mark} AND " for name in fixed)
    columns = ", ".join(names)
    if lite or tail:
        statement = f"SELECT {columns} FROM {table.name} WHERE {where}{column} IN ({given}) {tail}"  # noqa: S608
    else:
        # One look into the index for each, whatever is known of the table: a new one's plan is else to compare all.
        found = f"SELECT {columns} FROM {table.name} WHERE {where}{column} = wanted.one OFFSET 0"  # noqa: S608
        statement = f"SELECT found.* FROM unnest(%s::bigint[]) AS wanted(one), LATERAL ({found}) AS found"  # noqa: S608
        return _plain(conn, statement, (list(among), *fixed.values()))
    last = json.dumps(list(among)) if lite else list(among)
    return _plain(conn, statement, (*fixed.values(), last))


def _plain(conn: Connection, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """The rows of a SELECT as the driver gives them."""
    result = conn.exec_driver_sql(statement, values)
    assert result.cursor is not None, "a SELECT has rows"
    try:
        rows: list[tuple[Any, ...]] = list(result.cursor.fetchall())
    except conn.dialect.loaded_dbapi.Error as error:
        raise OperationalError(statement, None, error) from error
    result.close()
    return rows


def _rest(table: Table) -> list[Column[Any]]:
    return [column for column in table.c if not column.primary_key]


def upsert(conn: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert `rows`, replacing all other columns where the primary key is there. No key twice within `rows`."""
    if rows:
        statement = _insert(conn, table)
        new = statement.excluded
        values = {column.name: new[column.name] for column in _rest(table)}
        conn.execute(statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=values), rows)


def add_absent(conn: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert those of `rows` that break no key; leave what is there alone."""
    if rows:
        conn.execute(_insert(conn, table).on_conflict_do_nothing(), rows)


def put_rows(
    conn: Connection, table: Table, names: Sequence[str], rows: Sequence[Sequence[Any]], on_conflict: str = ""
) -> None:
    """Insert `rows`, given as the values of the columns `names`; a statement without SQLAlchemy's work on every value.

    on_conflict: what follows the values, the same on both databases; then no key may be there twice within `rows`.
    """
    if not rows:
        return
    columns = ", ".join(names)
    if conn.dialect.name == "sqlite":
        values = ", ".join("?" * len(names))
        conn.exec_driver_sql(f"INSERT INTO {table.name} ({columns}) VALUES ({values}) {on_conflict}", list(rows))  # noqa: S608
        return
    # One statement with an array a column: the server plans once and answers once.
    arrays = ", ".join(f"%b::{_ARRAYS[type(table.c[name].type)]}[]" for name in names)
    statement = f"INSERT INTO {table.name} ({columns}) SELECT * FROM unnest({arrays}) {on_conflict}"  # noqa: S608
    conn.exec_driver_sql(statement, tuple(map(list, zip(*rows, strict=True))))


_ARRAYS: dict[type[Any], str] = {
    BigInteger: "bigint",
    Integer: "integer",
    Text: "text",
    Float: "double precision",
    LargeBinary: "bytea",
}


def reserve(conn: Connection, key: Column[int], number: int) -> list[int]:
    """`number` new values of a generated key, ascending, that no one else will get."""
    if not number:
        return []
    table = key.table
    if conn.dialect.name == "sqlite":
        # Ours is the only transaction that writes; the rows inserted with these keys move the mark on.
        row = conn.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = ?", (table.name,)).one_or_none()
        last = 0 if row is None else int(row[0])
        return list(range(last + 1, last + 1 + number))
    query = "SELECT nextval(pg_get_serial_sequence(%s, %s)) FROM generate_series(1, %s)"
    return sorted(row[0] for row in conn.exec_driver_sql(query, (table.name, key.name, number)))
