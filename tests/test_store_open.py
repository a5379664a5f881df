"""Opening a database: migrations, what is refused and in which words, several programs at once."""

from __future__ import annotations

import importlib.util
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, event, insert, inspect, text

from headend.errors import StoreError
from headend.store import Store, open_store, schema
from headend.store.migrate import config
from tests.servers import free_port


def test_migrations_build_what_the_schema_says(store: Store) -> None:
    if importlib.util.find_spec("billing.schema") is not None:
        importlib.import_module("billing.schema")
    with store.engine.connect() as conn:
        context = MigrationContext.configure(conn, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, schema.METADATA) == []
        for table in schema.METADATA.sorted_tables:
            names = inspect(conn).get_pk_constraint(table.name)["constrained_columns"]
            assert names == [column.name for column in table.primary_key], table.name


def test_migrations_go_back_to_nothing_and_up_again(store: Store) -> None:
    with store.write() as conn:
        command.downgrade(config(conn), "base")
        assert set(inspect(conn).get_table_names()) <= {"alembic_version"}
        command.upgrade(config(conn), "head")
        assert set(schema.METADATA.tables) >= {"meter", "curve"}
        assert inspect(conn).has_table("curve")


def test_opening_again_keeps_everything(store_url: str) -> None:
    first = open_store(store_url)
    with first.write() as conn:
        conn.execute(insert(schema.usage_point), {"id": "UP1", "district": ""})
    first.close()
    second = open_store(store_url, migrate=False)
    with second.read() as conn:
        assert conn.execute(schema.usage_point.select()).one().id == "UP1"
    second.close()


def test_a_newer_database_is_refused(store_url: str) -> None:
    store = open_store(store_url)
    with store.write() as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = '9999_future'"))
    store.close()
    for migrate in (True, False):
        with pytest.raises(StoreError, match="of version 9999_future, which this program does not know"):
            open_store(store_url, migrate=migrate)


def test_an_old_database_is_refused_when_it_may_not_be_changed(store_url: str) -> None:
    with pytest.raises(StoreError, match="older than this program"):
        open_store(store_url, migrate=False)


_OPEN = """
import sys
from headend.store import open_store
sys.stdin.readline()
store = open_store(sys.argv[1])
store.close()
"""


def test_several_programs_can_open_a_new_database_at_once(store_url: str) -> None:
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", _OPEN, store_url], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for program in programs:
        assert program.stdin is not None
        program.stdin.write("\n")
        program.stdin.flush()
    errors = [program.communicate(timeout=60)[1] for program in programs]
    assert [program.returncode for program in programs] == [0] * 4, errors
    open_store(store_url, migrate=False).close()


# -- SQLite ------------------------------------------------------------------------------------------------------------


def test_sqlite_settings(sqlite_store: Store) -> None:
    def setting(name: str) -> object:
        with sqlite_store.read() as conn:
            return conn.exec_driver_sql(f"PRAGMA {name}").scalar()

    assert setting("journal_mode") == "wal"
    assert setting("synchronous") == 2  # FULL
    assert setting("foreign_keys") == 1
    assert setting("busy_timeout") == 10_000


def _statements(engine: Engine) -> list[str]:
    seen: list[str] = []

    def note(_conn: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    return seen


def test_sqlite_writers_take_their_turn_at_the_start(sqlite_store: Store) -> None:
    seen = _statements(sqlite_store.engine)
    with sqlite_store.write() as conn:
        conn.execute(text("SELECT 1"))
    with sqlite_store.read() as conn:
        conn.execute(text("SELECT 2"))
    assert seen == ["BEGIN IMMEDIATE", "SELECT 1", "BEGIN", "SELECT 2"]


def test_a_locked_sqlite_database_is_told_after_its_timeout(new_sqlite_url: str) -> None:
    store, other = open_store(f"{new_sqlite_url}?timeout=0.1"), open_store(new_sqlite_url)
    with (
        other.write(),
        pytest.raises(StoreError, match=r"database is locked -> another program is writing"),
        store.write(),
    ):
        pass
    with store.write() as conn, other.read() as reader:  # readers go on beside a writer
        conn.execute(insert(schema.usage_point), {"id": "UP1", "district": ""})
        assert reader.execute(schema.usage_point.select()).all() == []
    store.close()
    other.close()


def test_a_write_that_fails_leaves_nothing(store: Store) -> None:
    def failing() -> None:
        with store.write() as conn:
            conn.execute(insert(schema.usage_point), {"id": "UP1", "district": ""})
            raise KeyError("in the middle")

    with pytest.raises(KeyError):
        failing()
    with store.read() as conn:
        assert conn.execute(schema.usage_point.select()).all() == []


def test_what_the_database_refuses_is_a_store_error(store: Store) -> None:
    def doubled() -> None:
        with store.write() as conn:
            for _ in range(2):
                conn.execute(insert(schema.usage_point), {"id": "UP1", "district": ""})

    with pytest.raises(StoreError, match="the database refused: ") as refused:
        doubled()
    assert "unique" in str(refused.value).lower()


def test_sqlite_paths_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no-such: folder does not exist -> create it"):
        open_store(f"sqlite:///{tmp_path}/no-such/headend.db")
    with pytest.raises(StoreError, match="needs a file"):
        open_store("sqlite://")
    with pytest.raises(StoreError, match="unable to open"):
        open_store(f"sqlite:///{tmp_path}")
    (tmp_path / "notes.txt").write_text("meter list\n" * 500)
    with pytest.raises(StoreError, match="not a database -> the file is something else"):
        open_store(f"sqlite:///{tmp_path}/notes.txt")


def test_the_file_is_an_ordinary_sqlite_database(sqlite_store: Store) -> None:
    path = sqlite_store.engine.url.database
    assert path is not None
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://u:secret@h/d", "can't be kept in 'mysql'"),
        ("postgresql+psycopg2://u:secret@h/d", "can't be kept in 'postgresql.psycopg2'"),
        ("not a url: secret", "can't be understood"),
    ],
)
def test_other_addresses_are_refused(url: str, words: str) -> None:
    with pytest.raises(StoreError, match=words) as refused:
        open_store(url)
    assert "secret" not in str(refused.value)
    assert "sqlite:///path" in str(refused.value)


def test_an_unreachable_server_is_told_without_the_password() -> None:
    url = f"postgresql://meter:pass-word@127.0.0.1:{free_port()}/headend?password=other-word"
    with pytest.raises(StoreError, match="check that the server runs") as refused:
        open_store(url)
    text = str(refused.value)
    assert "postgresql+psycopg://meter:***@127.0.0.1" in text
    assert "pass-word" not in text
    assert "other-word" not in text


def test_a_missing_database_is_told(pg_server: str) -> None:
    with pytest.raises(StoreError, match=r'database "no_such_town" does not exist -> create the database first'):
        open_store(pg_server + "no_such_town")


def test_a_missing_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r'pip install "headend\[postgres\]"'):
        open_store("postgresql://meter@127.0.0.1/headend")


def test_a_database_not_in_utf8_is_refused(pg_server: str) -> None:
    engine = create_engine(pg_server + "postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as conn:
        conn.execute(text("CREATE DATABASE plain ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"))
    engine.dispose()
    with pytest.raises(StoreError, match="UTF8"):
        open_store(pg_server + "plain")


def test_a_read_sees_one_state_throughout(store: Store) -> None:
    with store.read() as reader:
        assert reader.execute(schema.usage_point.select()).all() == []
        with store.write() as conn:
            conn.execute(insert(schema.usage_point), {"id": "UP1", "district": ""})
        assert reader.execute(schema.usage_point.select()).all() == []
    with store.read() as reader:
        assert len(reader.execute(schema.usage_point.select()).all()) == 1
