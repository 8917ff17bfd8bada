"""Opening the database, its transactions, and its migrations.

    with database.read() as session:   one consistent view, no lock held against writers
    with database.write() as session:  BEGIN IMMEDIATE, commit at exit, roll back on error

No session is open while a file is parsed, text embedded or an answer generated. Trouble with
the file itself (read-only, full disk, a newer version) becomes a `StorageError` that says what
to do; nothing is lost, since a transaction either commits or never was.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import Session

from kb.errors import DatabaseTooNewError, StorageError
from kb.failpoints import failpoint
from kb.storage import sqlite

if TYPE_CHECKING:
    from alembic.config import Config

logger = logging.getLogger(__name__)

# The newest migration; a test compares it with Alembic's own head.
SCHEMA_HEAD = "0004"
DATABASE_NAME = "kb.sqlite3"
BACKUP_SUFFIX = ".before-upgrade"


class Database:
    """The database file of one data folder. Safe to share between threads."""

    def __init__(self, engine: Engine, path: Path) -> None:
        self._engine = engine
        self.path = path

    @classmethod
    def open(cls, home: Path) -> "Database":
        """Open or create ``home/kb.sqlite3`` and bring its schema up to date.

        Raises:
            StorageError: the folder cannot be written, or the file is not ours or damaged.
            DatabaseTooNewError: a newer version of this program wrote it.
        """
        path = home / DATABASE_NAME
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise StorageError(
                f"cannot create the data folder {str(home)!r} ({exc.strerror}); "
                "choose another with KB_HOME"
            ) from exc
        database = cls(sqlite.make_engine(str(path)), path)
        with _storage_errors(path):
            database._migrate()
        return database

    def close(self) -> None:
        self._engine.dispose()

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """Give a session on one consistent view of the database."""
        with _storage_errors(self.path), Session(self._engine) as session:
            yield session

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """Give a session that holds the write lock; commits at exit, rolls back on error."""
        engine = self._engine.execution_options(**sqlite.IMMEDIATE)
        with _storage_errors(self.path), Session(engine) as session, session.begin():
            yield session

    def vacuum(self) -> None:
        """Write the file anew, so that nothing of what was deleted is left in it.

        Raises:
            StorageError: the disk is full, or a writer held the lock for a minute.
        """
        with _storage_errors(self.path):
            sqlite.vacuum(self._engine)

    def empty_log(self, wait_s: float) -> bool:
        """Move the write-ahead log into the file; False if a reader was in the way all the time.

        Raises:
            StorageError
        """
        with _storage_errors(self.path):
            return sqlite.empty_log(self._engine, wait_s)

    @property
    def backup_path(self) -> Path:
        return self.path.with_name(self.path.name + BACKUP_SUFFIX)

    def backup_files(self) -> list[Path]:
        """Return the backups of upgrades, finished or not."""
        return sorted(self.path.parent.glob(f"{self.backup_path.name}*"))

    def _migrate(self) -> None:
        current = self._revision()
        if current == SCHEMA_HEAD:
            return
        _check_known(current, self.path)
        if current is not None:
            logger.warning("upgrading the database from %s to %s", current, SCHEMA_HEAD)
            self._back_up()
        failpoint("migration.backed-up")
        self._upgrade()
        failpoint("migration.upgraded")

    def _back_up(self) -> None:
        unfinished = self.backup_path.with_name(self.backup_path.name + ".tmp")
        unfinished.unlink(missing_ok=True)  # of an upgrade that was killed while it copied
        sqlite.backup(self._engine, str(unfinished))
        os.replace(unfinished, self.backup_path)

    def _revision(self) -> str | None:
        with self._engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
            return str(revision) if revision else None

    def _upgrade(self) -> None:
        # Imported here: only a new or old database needs Alembic.
        from alembic import command

        config = migrations_config()
        engine = self._engine.execution_options(**sqlite.IMMEDIATE)
        with engine.begin() as connection:  # another process may be doing the same: we wait
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            failpoint("migration.upgrading")


def migrations_config() -> "Config":
    """Return Alembic's configuration for our migrations folder."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _check_known(current: str | None, path: Path) -> None:
    if current is not None and current > SCHEMA_HEAD:
        raise DatabaseTooNewError(
            f"{str(path)!r} was written by a newer version of kb (schema {current}, this version "
            f"knows up to {SCHEMA_HEAD}); upgrade kb, or choose another data folder with KB_HOME"
        )


@contextlib.contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    """Turn trouble with the file into a message that says what to do."""
    try:
        yield
    except OperationalError as exc:
        free_bytes = shutil.disk_usage(path.parent).free
        if sqlite.is_disk_full(exc, free_bytes):
            raise StorageError(
                f"the disk is full ({free_bytes // 2**20} MB free at {str(path.parent)!r}); "
                "nothing stored so far is lost; free some space and run the same command again"
            ) from exc
        if sqlite.is_read_only(exc):
            raise StorageError(
                f"cannot write {str(path)!r}: the file or its folder is read-only; "
                "check its permissions or choose another data folder with KB_HOME"
            ) from exc
        if "locked" in str(exc.orig):
            raise StorageError(
                "another process kept the database locked for a minute; try again when it is done"
            ) from exc
        if "decode" in str(exc.orig):
            raise StorageError(
                f"a text in {str(path)!r} is damaged ({sqlite.reason(exc)}); `kb verify` says "
                "where, `kb verify --repair` has its file read again"
            ) from exc
        raise StorageError(f"cannot use the database {str(path)!r}: {sqlite.reason(exc)}") from exc
    except json.JSONDecodeError as exc:
        raise StorageError(
            f"a record in {str(path)!r} is damaged ({exc}); `kb verify` says which, "
            "`kb verify --repair` mends what can be mended"
        ) from exc
    except DatabaseError as exc:
        if "malformed" in str(exc.orig) or "not a database" in str(exc.orig):
            raise StorageError(
                f"{str(path)!r} is damaged or not a kb database ({exc.orig}); restore it from a "
                "backup, or move it away and ingest again"
            ) from exc
        raise
