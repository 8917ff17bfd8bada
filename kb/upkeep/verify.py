"""Prove that the database, its full text, its index and its files agree.

    record       lists and settings that are stored as JSON can be read
    database     SQLite's own check of the file, and of rows that refer to each other
    text         the text of each document can be read
    document     each document's state, text and knowledge base fit together
    offsets      chunks tile the text, with the right pages
    embedding    each chunk has a whole unit vector, of its own text
    fulltext     the terms of every chunk are stored, and no others
    index        snapshot + events = rows; vectors equal; the log of events has no gap
    citation     quotes of stored answers stand where they say
    blob         uploaded bytes are there and undamaged
    splitter-version, fulltext-version    made by an older version

What a killed process leaves behind is no disagreement: it is listed as leftovers. Mending is the
business of `kb.upkeep.repair`. Not checked: that a vector is what the embedder would give, and that
a text is what the loader would give; both need far longer, and the second needs the files.

Memory stays flat but for ids and for the vectors of the base at hand, as the index holds them.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from kb.embedder import embedded_text, text_hash
from kb.errors import StorageError
from kb.records import KnowledgeBase
from kb.retrieval.index import IndexView
from kb.retrieval.retrieve import Retriever
from kb.storage import sqlite
from kb.storage.bases import list_bases
from kb.storage.blobs import Blobs
from kb.storage.changes import log_state
from kb.storage.database import Database
from kb.storage.embeddings import from_bytes
from kb.storage.tables import (
    Base,
    ChangeRow,
    ChunkRow,
    DocumentRow,
    DocumentVersionRow,
    EmbeddingRow,
    SnapshotRow,
    SourceRow,
    TracePassageRow,
)
from kb.text.pages import page_at
from kb.text.terms import FULLTEXT, index_terms
from kb.upkeep.leftovers import find_leftovers

# Stored as float16, a unit vector's length is off by a thousandth at most; a damaged one by far.
_LENGTH_TOLERANCE = 0.01
_ROWS = 5_000
_BLOCK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Problem:
    """One disagreement. `kind` is a fixed word, `detail` says where.

    `kb_id` and `key` (of a document or a stored answer) are for the repair, "" where there is none.
    """

    kind: str
    detail: str
    kb_id: str = ""
    key: str = ""

    def to_dict(self) -> dict[str, str]:
        return {"kind": self.kind, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked and what disagreed; `to_dict` is the contract of ``kb verify --json``."""

    problems: tuple[Problem, ...]
    repaired: tuple[str, ...]
    leftovers: tuple[str, ...]
    documents: int
    chunks: int

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, object]:
        return {
            "ok": self.ok,
            "problems": [problem.to_dict() for problem in self.problems],
            "repaired": list(self.repaired),
            "leftovers": list(self.leftovers),
            "documents": self.documents,
            "chunks": self.chunks,
        }


def verify(
    database: Database, retriever: Retriever, blobs: Blobs, *, splitter: str
) -> VerifyReport:
    """Check everything; changes nothing. `splitter` is the version that ingest uses.

    Raises:
        StorageError: the file is too damaged to list the knowledge bases.
    """
    problems = list(_guarded("the file", lambda: _check_records(database)))
    with database.read() as session:
        documents = session.scalar(select(func.count()).select_from(DocumentRow)) or 0
        chunks = session.scalar(select(func.count()).select_from(ChunkRow)) or 0
    if any(problem.kind == "record" for problem in problems):
        # Most of what follows would stumble over them; they are mended first.
        return VerifyReport(tuple(problems), (), (), documents, chunks)
    with database.read() as session:
        bases = list_bases(session)
    problems += _guarded("the file", lambda: _check_file(database))
    for base in bases:
        problems += _check_versions(base, splitter)
        for check in (_check_fulltext, _check_documents, _check_log):
            problems += _guarded(base.name, lambda c=check, b=base: c(database, b))  # type: ignore[misc]
        problems += _guarded(base.name, lambda b=base: _check_index(database, b, retriever))  # type: ignore[misc]
    problems += _guarded("stored answers", lambda: _check_citations(database))
    problems += _guarded("uploads", lambda: _check_blobs(database, blobs))
    leftovers: list[str] = []
    if not any(problem.kind == "database" for problem in problems):
        leftovers = [leftover.detail for leftover in find_leftovers(database, blobs)]
    if not problems:
        # The upgraded database has proven itself: its backup may go.
        for path in database.backup_files():
            path.unlink(missing_ok=True)
    return VerifyReport(tuple(problems), (), tuple(leftovers), documents, chunks)


def _guarded(where: str, check: Callable[[], Iterable[Problem]]) -> Iterator[Problem]:
    """Run one check; pages that cannot be read end it, and not the others."""
    try:
        yield from check()
    except (StorageError, *sqlite.SQL_ERRORS) as exc:
        yield Problem("database", f"{where}: cannot be read ({sqlite.reason(exc)})")


def _check_records(database: Database) -> Iterator[Problem]:
    with database.read() as session:
        for table, column, rowids in damaged_records(session):
            yield Problem("record", f"{table}.{column}: {len(rowids)} cannot be read")


def damaged_records(session: Session) -> Iterator[tuple[str, str, list[int]]]:
    """Yield ``(table, column, rowids)`` of what is stored as JSON and cannot be read as such."""
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            shape = column.info.get("json")
            if not shape:
                continue
            rowids = sqlite.damaged_json(
                session, table.name, column.name, shape, may_be_null=bool(column.nullable)
            )
            if is_sound := _ITEMS.get(f"{table.name}.{column.name}"):
                stored = sqlite.json_values(session, table.name, column.name, shape)
                rowids += [rowid for rowid, value in stored if not is_sound(value)]
            if rowids:
                yield table.name, column.name, rowids


def _is_list_of(*kinds: type) -> Callable[[Any], bool]:
    """Return a test for lists of lists whose items are of these kinds, in their order."""
    return lambda value: all(
        isinstance(item, list) and [type(part) for part in item] == list(kinds) for item in value
    )


# What the items of a list or the values of an object must be, where code relies on it.
_ITEMS: Mapping[str, Callable[[Any], bool]] = {
    "embedder.scripts": lambda value: all(isinstance(item, str) for item in value),
    "knowledge_base.channel_weights": lambda value: all(
        isinstance(weight, int | float) for weight in value.values()
    ),
    "document.flags": _is_list_of(str, str),
    "document_version.page_starts": lambda value: all(type(item) is int for item in value),
    "document_version.headings": _is_list_of(int, int, str),
}


def _check_file(database: Database) -> Iterator[Problem]:
    with database.read() as session:
        for detail in sqlite.is_intact(session):
            yield Problem("database", detail)


def _check_versions(base: KnowledgeBase, splitter: str) -> Iterator[Problem]:
    if base.splitter != splitter:
        yield Problem("splitter-version", f"{base.name}: split by {base.splitter!r}", base.id)
    if base.fulltext != FULLTEXT:
        yield Problem("fulltext-version", f"{base.name}: made by {base.fulltext!r}", base.id)


# Full text


def _check_fulltext(database: Database, base: KnowledgeBase) -> Iterator[Problem]:
    """The index of terms fits its own rows, and there is a row for each chunk and no other."""
    try:
        with database.write() as session:  # FTS5 spells its check as a write
            complaint = sqlite.check_fulltext(session, base.id)
        with database.read() as session:
            indexed = sqlite.fulltext_ids(session, base.id)
            chunk_ids = set(session.scalars(select(ChunkRow.id).where(ChunkRow.kb_id == base.id)))
    except (StorageError, *sqlite.SQL_ERRORS) as exc:
        reason = sqlite.reason(exc)
        yield Problem("fulltext", f"{base.name}: cannot be read ({reason})", base.id)
        return
    if complaint:
        yield Problem("fulltext", f"{base.name}: {complaint}", base.id)
    if indexed != chunk_ids:
        yield Problem(
            "fulltext",
            f"{base.name}: {len(chunk_ids - indexed)} chunks missing, "
            f"{len(indexed - chunk_ids)} too many",
            base.id,
        )


# Documents


def _check_documents(database: Database, base: KnowledgeBase) -> Iterator[Problem]:
    with database.read() as session:
        ids = session.scalars(
            select(DocumentRow.id).where(DocumentRow.kb_id == base.id).order_by(DocumentRow.path)
        ).all()
    for document_id in ids:
        try:
            with database.read() as session:  # short, so that no writer's log grows for minutes
                yield from _check_document(session, base, document_id)
        except (StorageError, *sqlite.SQL_ERRORS, ValueError, TypeError):
            yield Problem(
                "text",
                f"{base.name}: the text or chunks of document {document_id} cannot be read",
                base.id,
                document_id,
            )


def _check_document(session: Session, base: KnowledgeBase, document_id: str) -> Iterator[Problem]:
    """Chunks tile the text in order, and each has the vector and the terms of its own text."""
    row = session.execute(
        select(
            DocumentRow.path,
            DocumentRow.status,
            DocumentRow.content_hash,
            SourceRow.kb_id,
            DocumentVersionRow.content_hash,
            DocumentVersionRow.text,
            DocumentVersionRow.page_starts,
        )
        .outerjoin(SourceRow, DocumentRow.source_id == SourceRow.id)
        .outerjoin(
            DocumentVersionRow,
            (DocumentVersionRow.document_id == DocumentRow.id) & DocumentVersionRow.is_current,
        )
        .where(DocumentRow.id == document_id)
    ).first()
    if row is None:
        return  # removed meanwhile
    path, status, content_hash, source_kb, version_hash, text, pages = row

    def problem(kind: str, detail: str) -> Problem:
        return Problem(kind, f"{base.name}: {path}: {detail}", base.id, document_id)

    if source_kb != base.id:
        yield problem("document", "its source is of another knowledge base")
    if content_hash and version_hash and version_hash != content_hash:
        yield problem("document", "its text is of other bytes than its row says")
    if (status == "ready") != (text is not None):
        yield problem("document", f"is {status}, text and state disagree")
    chunks = session.execute(
        select(
            ChunkRow.id,
            ChunkRow.kb_id,
            ChunkRow.start,
            ChunkRow.end,
            ChunkRow.page,
            ChunkRow.heading,
            EmbeddingRow.text_hash,
            EmbeddingRow.vector,
        )
        .outerjoin(EmbeddingRow, ChunkRow.embedding_id == EmbeddingRow.id)
        .where(ChunkRow.document_id == document_id)
        .order_by(ChunkRow.position)
    ).all()
    if any(kb_id != base.id for _, kb_id, *_ in chunks):
        yield problem("document", "some of its chunks are of another knowledge base")
    end = 0
    for _, _, start, chunk_end, page, *_ in chunks:
        if text is None or start != end or chunk_end <= start:
            yield problem("offsets", f"chunk at {start} does not continue at {end}")
            return
        if page != page_at(tuple(pages), start):
            yield problem("offsets", f"chunk at {start} is said to be on page {page}")
        end = chunk_end
    if text is None:
        return
    if end != len(text):
        yield problem("offsets", f"chunks end at {end} of {len(text)}")
        return
    for _, _, start, chunk_end, _, heading, stored_hash, vector in chunks:
        if stored_hash != text_hash(embedded_text(heading, text[start:chunk_end])):
            yield problem("embedding", f"chunk at {start} has the vector of other text")
        elif not _is_unit(vector, base.embedder.dimension):
            yield problem("embedding", f"chunk at {start} has a damaged vector")
    if base.fulltext == FULLTEXT:
        yield from _check_terms(
            session, base, path, [(c[0], c[5], text[c[2] : c[3]]) for c in chunks]
        )


def _is_unit(vector: bytes, dimension: int) -> bool:
    if len(vector) != 2 * dimension:
        return False
    length = float(np.linalg.norm(from_bytes([vector], dimension)))
    return abs(length - 1) < _LENGTH_TOLERANCE  # False for NaN as well


def _check_terms(
    session: Session, base: KnowledgeBase, path: str, chunks: list[tuple[int, str, str]]
) -> Iterator[Problem]:
    try:
        stored = sqlite.fulltext_terms(session, base.id, [id_ for id_, *_ in chunks])
    except sqlite.SQL_ERRORS:
        return  # `_check_fulltext` has said so
    n_wrong = sum(
        stored.get(id_, expected) != expected  # missing rows are told once for the base
        for id_, heading, text in chunks
        for expected in [(_heading_terms(heading), index_terms(text))]
    )
    if n_wrong:
        yield Problem(
            "fulltext", f"{base.name}: {path}: {n_wrong} chunks have other terms", base.id
        )


@lru_cache(maxsize=1024)  # all chunks of a section share its heading
def _heading_terms(heading: str) -> str:
    return index_terms(heading)


# Index


def _check_log(database: Database, base: KnowledgeBase) -> Iterator[Problem]:
    """Each event past the floor is there once, and no snapshot is ahead of them."""
    with database.read() as session:
        state = log_state(session, base.id)
        if state is None:
            return  # deleted meanwhile
        count, newest = session.execute(
            select(func.count(), func.max(ChangeRow.seq)).where(
                ChangeRow.kb_id == base.id, ChangeRow.seq > state.floor
            )
        ).one()
        ahead = session.scalar(
            select(func.count()).where(SnapshotRow.kb_id == base.id, SnapshotRow.seq > state.head)
        )
    if count != state.head - state.floor or (newest or state.head) != state.head:
        yield Problem(
            "index",
            f"{base.name}: {count} events in the log, not {state.head - state.floor}",
            base.id,
        )
    if ahead:
        yield Problem("index", f"{base.name}: a snapshot is newer than the database", base.id)


def _check_index(
    database: Database, base: KnowledgeBase, retriever: Retriever
) -> Iterator[Problem]:
    view = retriever.view(base)
    # An ingest may have committed between the two readings: only a lasting difference counts.
    if found := list(_compare_index(database, base, view)):
        found = list(_compare_index(database, base, view))
    yield from found
    for detail in view.check_snapshots():
        yield Problem("index", f"{base.name}: {detail}", base.id)


def _compare_index(database: Database, base: KnowledgeBase, view: IndexView) -> Iterator[Problem]:
    """The index, as a search sees it, holds exactly the stored vectors."""
    held, vectors = view.contents()
    ids = np.asarray(held, dtype=np.int64)
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    n_missing = n_wrong = n_matched = 0
    with database.read() as session:
        rows = session.execute(
            select(ChunkRow.id, EmbeddingRow.vector)
            .join(EmbeddingRow, ChunkRow.embedding_id == EmbeddingRow.id)
            .where(ChunkRow.kb_id == base.id)
            .order_by(ChunkRow.id)
            .execution_options(yield_per=_ROWS)
        )
        for part in rows.partitions(_ROWS):
            wanted = np.array([id_ for id_, _ in part], dtype=np.int64)
            places = np.searchsorted(ids, wanted)
            is_there = places < len(ids)
            is_there[is_there] = ids[places[is_there]] == wanted[is_there]
            n_missing += int((~is_there).sum())
            n_matched += int(is_there.sum())
            stored = [vector for (_, vector), there in zip(part, is_there, strict=True) if there]
            whole = [len(vector) == 2 * base.embedder.dimension for vector in stored]
            if not stored or not all(whole):
                n_wrong += len(whole) - sum(whole)
                continue
            expected = from_bytes(stored, base.embedder.dimension)
            found = vectors[order[places[is_there]]].astype(np.float32, copy=False)
            n_wrong += int(np.any(expected != found, axis=1).sum())
    n_extra = len(ids) - n_matched
    if n_missing or n_extra:
        yield Problem("index", f"{base.name}: {n_missing} missing, {n_extra} too many", base.id)
    if n_wrong:
        yield Problem("index", f"{base.name}: {n_wrong} vectors differ from the database", base.id)


# Answers and files


def _check_citations(database: Database) -> Iterator[Problem]:
    """Each cited quote still stands in its version of the document."""
    with database.read() as session:
        version_ids = session.scalars(
            select(TracePassageRow.version_id)
            .where(TracePassageRow.kind == "citation")
            .distinct()
            .order_by(TracePassageRow.version_id)
        ).all()
        for version_id in version_ids:
            text = session.scalar(
                select(DocumentVersionRow.text).where(DocumentVersionRow.id == version_id)
            )
            quotes = session.execute(
                select(
                    TracePassageRow.trace_id,
                    TracePassageRow.start,
                    TracePassageRow.end,
                    TracePassageRow.quote,
                ).where(
                    TracePassageRow.version_id == version_id, TracePassageRow.kind == "citation"
                )
            )
            for trace_id, start, end, quote in quotes:
                if text is None:
                    detail = f"answer {trace_id}: the text it cites is gone"
                elif text[start:end] != quote:
                    detail = f"answer {trace_id}: a quote is not what stands at {start}"
                else:
                    continue
                yield Problem("citation", detail, key=trace_id)


def _check_blobs(database: Database, blobs: Blobs) -> Iterator[Problem]:
    with database.read() as session:
        uploaded = session.execute(
            select(DocumentRow.path, DocumentRow.content_hash)
            .join(SourceRow, DocumentRow.source_id == SourceRow.id)
            .where(SourceRow.kind == "upload", DocumentRow.content_hash.is_not(None))
            .order_by(DocumentRow.path)
        ).all()
    for path, content_hash in uploaded:
        file = blobs.path(content_hash or "")
        if not os.path.isfile(file):
            yield Problem("blob", f"{path}: the uploaded bytes are missing; upload it again")
            continue
        with file.open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != content_hash:
                yield Problem("blob", f"{path}: the uploaded bytes are damaged; upload it again")
