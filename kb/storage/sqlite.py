"""The only file with SQL that SQLite alone understands: pragmas, locks and FTS5.

PostgreSQL, should an issue ask for it, replaces this file and nothing else.

Full text: one FTS5 table per knowledge base, because `bm25()` takes its statistics from the
whole table. Terms are made by `kb.text.terms` and arrive joined by spaces; the `ascii` tokenizer
keeps each whole, since every non-ASCII character is a token character there and the few ASCII
signs that terms hold are named below. The table keeps its own copy of the terms: this SQLite
generation cannot delete from a contentless table.
"""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, text
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import Session

from kb.storage.tables import HEX_ID

# How long a writer waits for another one. A document's transaction is far shorter.
BUSY_TIMEOUT_S = 60
# An execution option: transactions begun with it take the write lock at once.
IMMEDIATE = {"kb_immediate": True}
# What a damaged table or file raises; which one depends on the damage.
SQL_ERRORS = (DatabaseError,)
# SQLite asks for the shared index of the log (the -shm file) in steps of this size.
_SHARED_INDEX_BYTES = 32 * 1024
# SQLite's limit on bound values per statement is 32,766; stay well below.
MAX_VALUES = 10_000


def make_engine(path: str) -> Engine:
    """Return an engine whose connections are set up; nothing is opened yet."""
    engine = create_engine(
        # Built from parts: a path may hold "?" or "#", which mean something in a URL.
        URL.create("sqlite", database=path),
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
        hide_parameters=True,  # a logged traceback must not hold questions or document text
    )
    event.listen(engine, "connect", _set_up_connection)
    event.listen(engine, "begin", _begin)
    return engine


def _set_up_connection(connection: Any, _record: Any) -> None:
    # The driver's own transaction handling is switched off; `_begin` speaks BEGIN itself.
    connection.isolation_level = None
    _use_write_ahead_log(connection)
    connection.execute("PRAGMA foreign_keys = ON")
    # NORMAL in WAL mode: a power cut may lose the last commits, never consistency.
    connection.execute("PRAGMA synchronous = NORMAL")
    # Removed rows are overwritten in the file. (Terms of full text go when FTS5 next merges.)
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA cache_size = -65536")  # 64 MiB


def _use_write_ahead_log(connection: Any) -> None:
    """Switch to WAL; two processes that open a new file at once may have to take turns."""
    import sqlite3

    for attempt in range(50):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as exc:
            if "locked" not in str(exc) or attempt == 49:
                raise
            time.sleep(0.1)


def _begin(connection: Any) -> None:
    options = connection.get_execution_options()
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("kb_immediate") else "BEGIN")


def reason(exc: Exception) -> str:
    """Return why a statement failed, without the stored text that the driver may quote."""
    return str(getattr(exc, "orig", exc)).split(" with text ", 1)[0]


def damaged_json(
    session: Session, table: str, column: str, shape: str, *, may_be_null: bool
) -> list[int]:
    """Return the rowids whose column does not hold JSON of this shape ("array" or "object").

    With `may_be_null`, JSON's null is sound too.
    """
    rows = session.execute(
        text(
            f'SELECT rowid FROM "{table}" WHERE "{column}" IS NOT NULL AND CASE '
            f'WHEN json_valid("{column}") THEN json_type("{column}") NOT IN (:shape, :other) '
            "ELSE 1 END"
        ),
        {"shape": shape, "other": "null" if may_be_null else shape},
    )
    return [rowid for (rowid,) in rows]


def json_values(session: Session, table: str, column: str, shape: str) -> Iterator[tuple[int, Any]]:
    """Yield ``(rowid, value)`` of a column for the rows that hold JSON of this shape."""
    rows = session.execute(
        text(
            f'SELECT rowid, CAST("{column}" AS BLOB) FROM "{table}" '
            f'WHERE CASE WHEN json_valid("{column}") THEN json_type("{column}") = :shape ELSE 0 END'
        ),
        {"shape": shape},
    )
    for rowid, stored in rows:
        yield rowid, json.loads(stored)


def is_intact(session: Session) -> list[str]:
    """Return SQLite's own complaints about the file and its foreign keys; [] when sound."""
    problems = [
        str(row[0]) for row in session.execute(text("PRAGMA integrity_check(20)")) if row[0] != "ok"
    ]
    problems += [
        f"row {row[1]} of {row[0]} refers to a missing row of {row[2]}"
        for row in session.execute(text("PRAGMA foreign_key_check")).fetchmany(20)
    ]
    return problems


def backup(engine: Engine, target: str) -> None:
    """Copy the database to `target`, consistent even while others write."""
    import sqlite3

    raw = engine.raw_connection()
    try:
        copy = sqlite3.connect(target)
        try:
            raw.driver_connection.backup(copy)  # type: ignore[union-attr]
        finally:
            copy.close()
    finally:
        raw.close()


def vacuum(engine: Engine) -> None:
    """Write the whole file anew, without free pages; other writers wait."""
    _outside_transaction(engine, "VACUUM")


def empty_log(engine: Engine, wait_s: float) -> bool:
    """Move the write-ahead log into the file and cut it to nothing.

    Returns:
        False when somebody kept reading an older state for `wait_s` seconds.
    """
    is_busy, *_ = _outside_transaction(engine, "PRAGMA wal_checkpoint(TRUNCATE)", wait_s)[0]
    return not is_busy


def _outside_transaction(
    engine: Engine, statement: str, wait_s: float = BUSY_TIMEOUT_S
) -> list[Any]:
    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        raw.execute(f"PRAGMA busy_timeout = {int(wait_s * 1000)}")
        try:
            return list(raw.execute(statement).fetchall())
        except raw.Error as exc:  # as the caller knows them from any other statement
            raise OperationalError(statement, None, exc) from exc
        finally:
            raw.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")


def schema_texts(session: Session) -> list[str]:
    """Return the statements that the file itself holds."""
    rows = session.execute(text("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))
    return [str(row[0]) for row in rows]


def is_disk_full(exc: OperationalError, free_bytes: int) -> bool:
    """Tell a full disk from its error, and from the room left at the database's folder.

    Where the shared index of the log, or a new file, finds no room, SQLite only says that it
    could not write or open.
    """
    message = str(exc.orig)
    is_no_room = free_bytes < _SHARED_INDEX_BYTES and (
        "disk I/O error" in message or "unable to open" in message
    )
    return "disk is full" in message or is_no_room


def is_read_only(exc: OperationalError) -> bool:
    message = str(exc.orig)
    return "readonly" in message or "unable to open" in message


def insert_new(table: Any) -> Any:
    """Return an INSERT that leaves out rows whose unique key is stored already."""
    return insert(table).on_conflict_do_nothing()


# Full text


def _fulltext_table(kb_id: str) -> str:
    if not HEX_ID.fullmatch(kb_id):
        raise ValueError(f"not a knowledge base id: {kb_id!r}")
    return f"fulltext_{kb_id}"


def create_fulltext(session: Session, kb_id: str) -> None:
    table = _fulltext_table(kb_id)
    session.execute(
        text(
            f"CREATE VIRTUAL TABLE {table} USING fts5("
            "heading, body, tokenize = \"ascii tokenchars '_.-'\")"
        )
    )
    session.execute(text(f"CREATE VIRTUAL TABLE {table}_terms USING fts5vocab('{table}', 'row')"))


def drop_fulltext(session: Session, kb_id: str) -> None:
    table = _fulltext_table(kb_id)
    session.execute(text(f"DROP TABLE IF EXISTS {table}_terms"))
    session.execute(text(f"DROP TABLE IF EXISTS {table}"))


def insert_fulltext(session: Session, kb_id: str, rows: Sequence[tuple[int, str, str]]) -> None:
    """Add ``(chunk_id, heading_terms, body_terms)`` rows."""
    if not rows:
        return
    table = _fulltext_table(kb_id)
    session.execute(
        text(f"INSERT INTO {table}(rowid, heading, body) VALUES (:id, :heading, :body)"),
        [{"id": id_, "heading": heading, "body": body} for id_, heading, body in rows],
    )


def delete_fulltext(session: Session, kb_id: str, chunk_ids: Sequence[int]) -> None:
    if not chunk_ids:
        return
    table = _fulltext_table(kb_id)
    session.execute(
        text(f"DELETE FROM {table} WHERE rowid = :id"), [{"id": id_} for id_ in chunk_ids]
    )


def search_fulltext(
    session: Session,
    kb_id: str,
    match: str,
    weights: tuple[float, float],
    limit: int,
    *,
    scored: int,
    allowed: Iterable[int] | None = None,
) -> list[tuple[int, float]]:
    """Return ``(chunk_id, score)`` best first; score is BM25 >= 0; ties by chunk id.

    Only the first `scored` matches are looked at: `bm25()` takes 10 microseconds for each.
    With `allowed`, no other chunk matches.
    """
    table = _fulltext_table(kb_id)
    # The + keeps SQLite from asking FTS5 once for each id.
    only = "" if allowed is None else "AND +rowid IN (SELECT value FROM json_each(:allowed)) "
    rows = session.execute(
        text(
            "SELECT id, score FROM (SELECT rowid AS id, "
            f"-bm25({table}, {float(weights[0])}, {float(weights[1])}) AS score "
            f"FROM {table} WHERE {table} MATCH :match {only}ORDER BY rowid LIMIT :scored) "
            "ORDER BY score DESC, id LIMIT :limit"
        ),
        {
            "match": match,
            "limit": limit,
            "scored": scored,
            **({} if allowed is None else {"allowed": json.dumps(list(allowed))}),
        },
    )
    return [(int(row[0]), float(row[1])) for row in rows]


def fulltext_frequencies(session: Session, kb_id: str, terms: Iterable[str]) -> dict[str, int]:
    """Return how many chunks hold each term; absent terms are left out."""
    table = _fulltext_table(kb_id)
    rows = session.execute(
        text(
            f"SELECT term, doc FROM {table}_terms "
            "WHERE term IN (SELECT value FROM json_each(:terms))"
        ),
        {"terms": json.dumps(list(terms))},
    )
    return {str(row[0]): int(row[1]) for row in rows}


def fulltext_rows(session: Session, kb_id: str, chunk_ids: Sequence[int]) -> list[str]:
    """Return the terms of these chunks, heading first; chunks without a row are left out."""
    terms = fulltext_terms(session, kb_id, chunk_ids)
    return [" ".join(terms[id_]) for id_ in sorted(terms)]


def fulltext_terms(
    session: Session, kb_id: str, chunk_ids: Sequence[int]
) -> dict[int, tuple[str, str]]:
    """Return the terms of these chunks' headings and bodies, by chunk."""
    rows = session.execute(
        text(
            f"SELECT id, c0, c1 FROM {_fulltext_table(kb_id)}_content "
            "WHERE id IN (SELECT value FROM json_each(:ids))"
        ),
        {"ids": json.dumps(list(chunk_ids))},
    )
    return {int(row[0]): (str(row[1]), str(row[2])) for row in rows}


def fulltext_tables(session: Session) -> set[str]:
    """Return the ids of the knowledge bases that have a full text."""
    rows = session.execute(
        text(
            "SELECT substr(name, 10) FROM sqlite_master "
            "WHERE name GLOB 'fulltext_*' AND sql LIKE 'CREATE VIRTUAL TABLE%'"
        )
    )
    return {str(row[0]) for row in rows if HEX_ID.fullmatch(str(row[0]))}


def reindex(session: Session) -> None:
    """Make SQLite's own indexes again from the tables."""
    session.execute(text("REINDEX"))


def fulltext_rows_except(session: Session, kb_id: str, chunk_ids: set[int]) -> Iterator[bytes]:
    """Give the terms of all other chunks, as they are stored."""
    rows = session.execute(
        text(f"SELECT id, c0, c1 FROM {_fulltext_table(kb_id)}_content"),
        execution_options={"yield_per": 1000},
    )
    for id_, heading, body in rows:
        if id_ not in chunk_ids:
            yield f"{heading}\0{body}".encode()


def optimize_fulltext(session: Session, kb_id: str) -> None:
    """Merge all terms into one piece, which leaves out those of removed chunks for good."""
    table = _fulltext_table(kb_id)
    session.execute(text(f"INSERT INTO {table}({table}) VALUES ('optimize')"))


def schema_version(session: Session) -> int:
    """Return a number that changes whenever any process makes or drops a table."""
    return int(session.execute(text("PRAGMA schema_version")).scalar_one())


def fulltext_count(session: Session, kb_id: str) -> int:
    table = _fulltext_table(kb_id)
    # The docsize shadow table is a plain table: counting it reads no text.
    return int(session.execute(text(f"SELECT count(*) FROM {table}_docsize")).scalar_one())


def fulltext_ids(session: Session, kb_id: str) -> set[int]:
    table = _fulltext_table(kb_id)
    return {int(row[0]) for row in session.execute(text(f"SELECT id FROM {table}_docsize"))}


def check_fulltext(session: Session, kb_id: str) -> str | None:
    """Run FTS5's own integrity check; return its complaint, None when sound.

    SQLite spells the check as an INSERT, so the session must be a writing one.
    """
    table = _fulltext_table(kb_id)
    try:
        session.execute(text(f"INSERT INTO {table}({table}) VALUES ('integrity-check')"))
    except OperationalError:
        raise  # locked, read-only, full: no damage
    except SQL_ERRORS as exc:
        return str(exc.orig)
    return None
