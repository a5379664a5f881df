"""Fixtures for all tests: stores on SQLite and PostgreSQL, each test with a database of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from headend.store import Store, open_store
from tests.servers import postgresql, postgresql_bin

_NUMBERS = count(1)


@pytest.fixture(scope="session")
def pg_server() -> Iterator[str]:
    """A PostgreSQL of this test session; its URL up to the database name. Skips where none is installed."""
    binaries = postgresql_bin()
    if binaries is None:
        reason = "no PostgreSQL server programs found (initdb, postgres): install PostgreSQL"
        if os.environ.get("HEADEND_NO_SKIP") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with postgresql(binaries) as url:
        yield url


@pytest.fixture(scope="session")
def pg_url(pg_server: str) -> str:
    """The URL of a database on the session's PostgreSQL that tests may share."""
    return _new_database(pg_server)


@pytest.fixture
def new_pg_url(pg_server: str) -> str:
    """The URL of an empty PostgreSQL database, new for this test."""
    return _new_database(pg_server)


@pytest.fixture(scope="session")
def pg_template(pg_server: str) -> str:
    """The name of a database with all tables, to copy: quicker than making them for every test."""
    url = _new_database(pg_server)
    open_store(url).close()
    return url.rpartition("/")[2]


def _new_database(server: str, template: str = "template1") -> str:
    name = f"test_{next(_NUMBERS)}"
    engine = create_engine(server + "postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as conn:
        conn.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    engine.dispose()
    return server + name


@pytest.fixture
def new_sqlite_url(tmp_path: Path) -> str:
    """The URL of an SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'headend.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, SQLite then PostgreSQL."""
    url: str = request.getfixturevalue("new_sqlite_url" if request.param == "sqlite" else "new_pg_url")
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """An open, empty store, SQLite then PostgreSQL."""
    if request.param == "sqlite":
        url = request.getfixturevalue("new_sqlite_url")
    else:
        template = request.getfixturevalue("pg_template")
        url = _new_database(request.getfixturevalue("pg_server"), template)
    opened = open_store(url)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_store(new_sqlite_url: str) -> Iterator[Store]:
    """An open, empty store on SQLite."""
    opened = open_store(new_sqlite_url)
    yield opened
    opened.close()
