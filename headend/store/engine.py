"""Opening the database and working in it: one `Store`, read and write transactions, errors an operator can act on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from headend.errors import StoreError
from headend.store.migrate import bring_up

__all__ = ["Store", "open_store"]

_SQLITE_TIMEOUT_S = 10.0
_POSTGRESQL_TIMEOUT_S = 10
_WRITES = "headend_writes"


@dataclass(frozen=True, slots=True)
class Store:
    """An open database. `url_shown` is its address without the password."""

    engine: Engine
    url_shown: str

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the database throughout; nothing done in it is kept."""
        options: dict[str, Any] = {}
        if self.engine.dialect.name == "postgresql":
            options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with _told(self.url_shown), self.engine.connect().execution_options(**options) as conn:
            yield conn

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A connection in one transaction: committed at the end of the block, undone by any exception."""
        with _told(self.url_shown), self.engine.connect().execution_options(**{_WRITES: True}) as conn, conn.begin():
            yield conn

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def open_store(url: str, *, migrate: bool = True) -> Store:
    """Open the database at `url`, bringing its tables up to date.

    url: `sqlite:///path` or `postgresql+psycopg://user:password@host/database`. migrate=False refuses tables that are
    not up to date instead of changing them. `StoreError` when the database can't be reached, is no database of ours,
    or was made by a newer version. SQLite: `?timeout=SECONDS` sets how long to wait for another writer (10).
    """
    address = _address(url)
    store = Store(_engine(address), _shown(address))
    try:
        if address.get_backend_name() == "sqlite":
            _use_wal(store)
        else:
            _require_utf8(store)
        bring_up(store.read, store.write, migrate=migrate, where=store.url_shown)
    except BaseException:
        store.close()
        raise
    return store


def _address(url: str) -> URL:
    remedy = "use sqlite:///path/to/file.db or postgresql+psycopg://user:password@host/database"
    try:
        address = make_url(url)
    except ArgumentError as error:
        # The text may hold a password: it is not repeated.
        raise StoreError("the database URL can't be understood", remedy=remedy) from error
    if address.drivername in ("postgresql", "postgres"):
        address = address.set(drivername="postgresql+psycopg")
    if address.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise StoreError(f"a store can't be kept in {address.drivername!r}", remedy=remedy)
    if address.get_backend_name() == "sqlite":
        _check_file(address, remedy)
    return address


def _check_file(address: URL, remedy: str) -> None:
    name = address.database or ""
    if not name or name == ":memory:":
        raise StoreError("the store needs a file: a database in memory is gone when the program ends", remedy=remedy)
    if not name.startswith("file:") and not Path(name).resolve().parent.is_dir():
        folder = Path(name).resolve().parent
        raise StoreError("folder does not exist", where=str(folder), remedy="create it, or correct the store's URL")


def _shown(address: URL) -> str:
    if "password" in address.query:
        address = address.update_query_dict({"password": "***"})
    return address.render_as_string(hide_password=True)


def _engine(address: URL) -> Engine:
    if address.get_backend_name() == "sqlite":
        timeout = {} if "timeout" in address.query else {"timeout": _SQLITE_TIMEOUT_S}
        engine = create_engine(address, connect_args=timeout)
        event.listen(engine, "connect", _sqlite_connect)
        event.listen(engine, "begin", _sqlite_begin)
        return engine
    # Told to the server at once: where it keeps text unencoded, the driver would hand out bytes before we can refuse.
    settings: dict[str, Any] = {"client_encoding": "utf8"}
    if "connect_timeout" not in address.query:
        settings["connect_timeout"] = _POSTGRESQL_TIMEOUT_S
    try:
        # Blocks are locked, then read: the read must see what the lock's last holder committed.
        return create_engine(address, connect_args=settings, pool_pre_ping=True, isolation_level="READ COMMITTED")
    except ImportError as error:
        remedy = 'pip install "headend[postgres]"'
        raise StoreError("the PostgreSQL driver psycopg is not installed", remedy=remedy) from error


def _sqlite_connect(connection: Any, _record: ConnectionPoolEntry) -> None:
    # Transactions are begun by us alone (`_sqlite_begin`), not by the driver at the first INSERT.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _sqlite_begin(conn: Connection) -> None:
    # A writer takes its turn at the start: a reader that turns writer midway can't wait, it fails at once.
    writes = conn.get_execution_options().get(_WRITES, False)
    conn.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _use_wal(store: Store) -> None:
    """Readers beside a writer. The mode stays with the file, so only a new one is switched."""
    try:
        connection = store.engine.raw_connection()
        try:
            cursor = connection.cursor()
            if cursor.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                cursor.execute("PRAGMA journal_mode=WAL")
            cursor.close()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreError(_words(error), where=store.url_shown, remedy=_remedy(str(error))) from error


def _require_utf8(store: Store) -> None:
    with store.read() as conn:
        encoding = conn.exec_driver_sql("SHOW server_encoding").scalar()
    if encoding != "UTF8":
        remedy = "create the database with: createdb --encoding=UTF8 --template=template0 NAME"
        raise StoreError(f"the database keeps text as {encoding}, not as UTF8", where=store.url_shown, remedy=remedy)


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Database errors as `StoreError`: what happened, in which database, what to do."""
    try:
        yield
    except DBAPIError as error:
        raise StoreError(_words(error.orig), where=where, remedy=_remedy(str(error.orig))) from error
    except SQLAlchemyError as error:
        raise StoreError(f"the database can't be used: {error}", where=where) from error


def _words(error: BaseException | None) -> str:
    text = " ".join(str(error).split())
    return f"the database refused: {text}"


_REMEDIES = (
    ("locked", "another program is writing to it for long: end it, or try again"),
    ("unable to open", "check that the file and its folder can be read and written"),
    ("not a database", "the file is something else: correct the store's URL"),
    ("readonly", "give this user the right to write the file and its folder"),
    ("disk is full", "free some space on the disk"),
    ("does not exist", "create the database first (createdb), or correct the store's URL"),
    ("authentication failed", "check the user and password in the store's URL"),
    ("connection", "check that the server runs and that the store's URL is right"),
)


def _remedy(text: str) -> str:
    return next((remedy for sign, remedy in _REMEDIES if sign in text), "")
