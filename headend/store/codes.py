"""Small numbers for quantity names, given once and for ever by the table `quantity`."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, func, select

from headend.store.portable import add_absent
from headend.store.schema import quantity_code

__all__ = ["code_of", "codes", "names"]


def codes(conn: Connection, wanted: Iterable[str]) -> dict[str, int]:
    """The code of each name in `wanted` (and all others there are); new names get one."""
    known = _known(conn)
    new = sorted(set(wanted) - known.keys())
    if new:
        highest = conn.scalar(select(func.max(quantity_code.c.code))) or 0
        # Another writer may take the same code or name first: what it added is kept, and the rest tried again.
        add_absent(conn, quantity_code, [{"code": highest + i, "name": name} for i, name in enumerate(new, 1)])
        return codes(conn, new)
    return known


def names(conn: Connection) -> dict[int, str]:
    """The quantity name of each code."""
    return {code: name for name, code in _known(conn).items()}


def code_of(conn: Connection, name: str) -> int | None:
    """The code of one name, None if nothing was ever stored of it."""
    return conn.scalar(select(quantity_code.c.code).where(quantity_code.c.name == name))


def _known(conn: Connection) -> dict[str, int]:
    return {row.name: row.code for row in conn.execute(select(quantity_code.c.name, quantity_code.c.code))}
