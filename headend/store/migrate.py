"""Bringing a database's tables up to the version of the code, and refusing what the code does not know."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from headend.errors import StoreError

__all__ = ["bring_up", "config"]

# Any number no one else uses: two programs that open a new PostgreSQL database at once take turns on it.
_LOCK = 0x6865_6164

Opened = Callable[[], AbstractContextManager[Connection]]


def config(conn: Connection | None = None) -> Config:
    """Alembic's configuration for the migrations in this package, to run on `conn`."""
    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    settings.attributes["connection"] = conn
    return settings


def bring_up(read: Opened, write: Opened, *, migrate: bool, where: str) -> None:
    """Apply the migrations a database lacks, in one transaction. `StoreError` if it is newer than the code.

    migrate=False: `StoreError` as well if it is older.
    """
    script = ScriptDirectory.from_config(config())
    with read() as conn:
        if _revision(conn, script, where) == script.get_current_head():
            return
    if not migrate:
        remedy = "open it once with the right to change tables"
        raise StoreError("the database's tables are older than this program", where=where, remedy=remedy)
    with write() as conn:
        if conn.dialect.name == "postgresql":
            conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        if _revision(conn, script, where) != script.get_current_head():
            command.upgrade(config(conn), "head")


def _revision(conn: Connection, script: ScriptDirectory, where: str) -> str | None:
    found = MigrationContext.configure(conn).get_current_revision()
    if found is not None and found not in {revision.revision for revision in script.walk_revisions()}:
        raise StoreError(
            f"the database's tables are of version {found}, which this program does not know",
            where=where,
            remedy="use the newer program that made it, or a copy from before",
        )
    return found
