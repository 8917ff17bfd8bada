"""Opening, migrating and failing of the database file."""

import contextlib
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import OperationalError

from kb.errors import DatabaseTooNewError, StorageError
from kb.storage import sqlite
from kb.storage.database import DATABASE_NAME, SCHEMA_HEAD, Database, migrations_config
from kb.storage.tables import Base

NOBODY = 65534


def test_the_migrations_end_at_the_schema_head() -> None:
    script = ScriptDirectory.from_config(migrations_config())

    assert script.get_current_head() == SCHEMA_HEAD


def test_the_migrations_make_the_tables_that_the_code_declares(tmp_path: Path) -> None:
    Database.open(tmp_path).close()
    migrated = inspect(create_engine(f"sqlite:///{tmp_path / DATABASE_NAME}"))
    declared_engine = create_engine("sqlite://")
    Base.metadata.create_all(declared_engine)
    declared = inspect(declared_engine)

    for table in Base.metadata.tables:
        assert [c["name"] for c in migrated.get_columns(table)] == [
            c["name"] for c in declared.get_columns(table)
        ]
    assert set(Base.metadata.tables) <= set(migrated.get_table_names())


def test_a_database_of_a_newer_version_is_refused_by_name(tmp_path: Path) -> None:
    Database.open(tmp_path).close()
    with sqlite3.connect(tmp_path / DATABASE_NAME) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()

    with pytest.raises(DatabaseTooNewError, match="newer version of kb"):
        Database.open(tmp_path)


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / DATABASE_NAME
    path.write_bytes(b"not a database at all, but something dear to the user" * 50)
    before = path.read_bytes()

    with pytest.raises(StorageError, match="damaged or not a kb database"):
        Database.open(tmp_path)

    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("x")

    with pytest.raises(StorageError, match="KB_HOME"):
        Database.open(blocker / "home")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Give a folder that other users can reach, which root's `tmp_path` is not."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
        Path(name).chmod(0o700)


@contextlib.contextmanager
def _without_roots_privilege() -> Iterator[None]:
    """Let permissions count: they do not for root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_folder_is_named(open_folder: Path) -> None:
    Database.open(open_folder).close()
    (open_folder / DATABASE_NAME).chmod(0o444)
    open_folder.chmod(0o555)

    with _without_roots_privilege():
        if not os.access(open_folder, os.X_OK, effective_ids=True):
            pytest.skip("root, whose writes nothing stops, and no folder that others can reach")
        with (
            pytest.raises(StorageError, match="read-only"),
            Database.open(open_folder).write() as s,
        ):
            s.execute(text("UPDATE knowledge_base SET name = 'x'"))


def test_a_read_only_database_says_what_to_do(tmp_path: Path) -> None:
    database = Database.open(tmp_path)

    with pytest.raises(StorageError, match="read-only"), database.write() as session:
        session.execute(text("PRAGMA query_only = ON"))
        session.execute(text("DELETE FROM knowledge_base"))
    database.close()


def test_a_full_disk_says_that_nothing_is_lost(tmp_path: Path) -> None:
    database = Database.open(tmp_path)
    with database.read() as session:
        pages = session.execute(text("PRAGMA page_count")).scalar_one()

    with pytest.raises(StorageError, match=r"disk is full.*nothing stored"), database.write() as s:
        s.execute(text(f"PRAGMA max_page_count = {pages}"))
        for i in range(2000):
            s.execute(
                text("INSERT INTO embedder VALUES (NULL, :identity, 'n', 1, '[]')"),
                {"identity": f"{i}" + "x" * 1000},
            )

    with database.read() as session:
        assert session.execute(text("SELECT count(*) FROM embedder")).scalar_one() == 0
    database.close()


def test_an_error_rolls_the_whole_transaction_back(tmp_path: Path) -> None:
    database = Database.open(tmp_path)

    with pytest.raises(ZeroDivisionError), database.write() as session:
        session.execute(text("INSERT INTO embedder VALUES (1, 'a', 'n', 1, '[]')"))
        _ = 1 / 0

    with database.read() as session:
        assert session.execute(text("SELECT count(*) FROM embedder")).scalar_one() == 0
    database.close()


def test_opening_a_new_folder_from_many_threads_makes_one_schema(tmp_path: Path) -> None:
    errors: list[Exception] = []

    def open_it() -> None:
        try:
            Database.open(tmp_path).close()
        except Exception as exc:  # noqa: BLE001 - a thread must report whatever it met
            errors.append(exc)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []


def test_the_full_text_table_takes_no_name_but_an_id(tmp_path: Path) -> None:
    database = Database.open(tmp_path)

    with pytest.raises(ValueError, match="not a knowledge base id"), database.write() as session:
        sqlite.create_fulltext(session, "x; DROP TABLE chunk")
    database.close()


@pytest.mark.parametrize(
    ("message", "free_bytes", "is_full"),
    [
        ("database or disk is full", 10**9, True),
        ("disk I/O error", 0, True),
        ("unable to open database file", 4096, True),
        ("disk I/O error", 10**9, False),
        ("database is locked", 0, False),
    ],
)
def test_a_full_disk_is_told_from_other_trouble(
    message: str, free_bytes: int, is_full: bool
) -> None:
    error = OperationalError("", None, sqlite3.OperationalError(message))

    assert sqlite.is_disk_full(error, free_bytes) is is_full


def test_a_backup_that_was_cut_off_does_not_pass_for_one(tmp_path: Path) -> None:
    database = Database.open(tmp_path)
    unfinished = tmp_path / f"{DATABASE_NAME}.before-upgrade.tmp"
    unfinished.write_bytes(b"half a database")

    database._back_up()

    assert database.backup_files() == [database.backup_path]
    with sqlite3.connect(database.backup_path) as copy:
        assert copy.execute("SELECT version_num FROM alembic_version").fetchone() == (SCHEMA_HEAD,)
    copy.close()
