"""What the registries share: rows added or changed by their own id, and the problems of a list told at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, insert, select, update

from headend.civil import from_epoch_s, to_epoch_s, utc
from headend.errors import ConfigError, Problem
from headend.quantities import from_units, to_units

__all__ = ["Counts", "doubles", "instant", "keys", "moment", "number", "put", "refuse", "span", "units"]


@dataclass(frozen=True, slots=True)
class Counts:
    """What a `put_` did with its rows."""

    added: int = 0
    changed: int = 0
    same: int = 0


def instant(moment: datetime | None) -> int | None:
    """An instant as the store holds it; None stays None."""
    return None if moment is None else to_epoch_s(utc(moment))


def moment(seconds: int | None) -> datetime | None:
    """The instant the store holds."""
    return None if seconds is None else from_epoch_s(seconds)


def units(value: Decimal | None) -> int | None:
    """A number as the store holds it; None stays None. `ValueError` if it is finer than 0.0001 or too large."""
    return None if value is None else to_units(value)


def number(units: int | None) -> Decimal | None:
    """The number the store holds."""
    return None if units is None else from_units(units)


def put(conn: Connection, table: Table, names: Sequence[str], rows: Sequence[dict[str, Any]]) -> Counts:
    """Add or change `rows` of `table`, identified by the columns `names`."""
    present = {tuple(row[name] for name in names): row for row in _all(conn, table)} if rows else {}
    new, changed, same = [], [], 0
    for row in rows:
        old = present.get(tuple(row[name] for name in names))
        if old is None:
            new.append(row)
        elif any(old[name] != value for name, value in row.items()):
            changed.append((old["key"], row))
        else:
            same += 1
    for key, row in changed:
        conn.execute(update(table).where(table.c.key == key).values(row))
    if new:
        conn.execute(insert(table), new)
    return Counts(len(new), len(changed), same)


def _all(conn: Connection, table: Table) -> list[RowMapping]:
    return list(conn.execute(select(table)).mappings())


def refuse(problems: Iterable[Problem]) -> None:
    """Raise `ConfigError` if there is any problem."""
    if found := tuple(problems):
        raise ConfigError(found)


def doubles(what: str, names: Iterable[tuple[str, ...]]) -> list[Problem]:
    """A problem for every name that comes twice in one list."""
    seen: set[tuple[str, ...]] = set()
    problems = []
    for name in names:
        if name in seen:
            problems.append(Problem(f"{what} {'/'.join(name)}", "listed twice", "keep one of the lines"))
        seen.add(name)
    return problems


def span(where: str, since: datetime, until: datetime | None) -> list[Problem]:
    """A problem if the span ends before it begins."""
    if until is not None and until <= since:
        return [Problem(where, f"ends {until:%Y-%m-%d %H:%M} before it begins", "correct since and until")]
    return []


def keys(conn: Connection, table: Table) -> dict[str, int]:
    """Key of each row by its id."""
    return {row.id: row.key for row in conn.execute(select(table.c.id, table.c.key))}
