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
    RowMapping,
    Table,
    TableValuedAlias,
    and_,
    bindparam,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

__all__ = ["CHUNK", "add_absent", "chunks", "rows_at", "upsert"]

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
