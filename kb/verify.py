"""Prove that the database, its full text, its index and its files agree; repair what can be.

Everything but the documents' text and the uploaded bytes can be made again from the database:
full text from stored chunks, the vector index from stored vectors, chunks (after a change of
the splitter) from stored texts.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session

from kb.embedder import embedded_text, text_hash
from kb.index import IndexView
from kb.records import KnowledgeBase
from kb.retrieve import Retriever
from kb.storage import sqlite
from kb.storage.bases import list_bases
from kb.storage.blobs import Blobs
from kb.storage.database import Database
from kb.storage.embeddings import from_bytes
from kb.storage.fulltext import FullText
from kb.storage.tables import (
    ChunkRow,
    DocumentRow,
    DocumentVersionRow,
    EmbeddingRow,
    KnowledgeBaseRow,
    SourceRow,
)
from kb.terms import FULLTEXT


@dataclass(frozen=True, slots=True)
class Problem:
    """One disagreement. `kind` is a fixed word, `detail` says where."""

    kind: str
    detail: str

    def to_dict(self) -> dict[str, str]:
        return {"kind": self.kind, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked and what disagreed; `to_dict` is the contract of ``kb verify --json``."""

    problems: tuple[Problem, ...]
    repaired: tuple[str, ...]
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
            "documents": self.documents,
            "chunks": self.chunks,
        }


def verify(
    database: Database, retriever: Retriever, blobs: Blobs, *, splitter: str
) -> VerifyReport:
    """Check everything; changes nothing. `splitter` is the version that ingest uses."""
    problems: list[Problem] = []
    with database.write() as session:  # FTS5 spells its check as a write
        for base in list_bases(session):
            if complaint := sqlite.check_fulltext(session, base.id):
                problems.append(Problem("fulltext", f"{base.name}: {complaint}"))
    with database.read() as session:
        problems += [Problem("database", detail) for detail in sqlite.is_intact(session)]
        bases = list_bases(session)
        for base in bases:
            problems += _check_versions(base, splitter)
            problems += _check_documents(session, base)
            problems += _check_fulltext(session, base)
        problems += _check_blobs(session, blobs)
        documents = session.scalar(select(func.count()).select_from(DocumentRow)) or 0
        chunks = session.scalar(select(func.count()).select_from(ChunkRow)) or 0
    for base in bases:
        view = retriever.view(base)
        # An ingest may have committed between the two readings: only a lasting difference counts.
        if found := list(_check_index(database, base, view)):
            found = list(_check_index(database, base, view))
        problems += found
    if not problems:
        # The upgraded database has proven itself: its backup may go.
        database.backup_path.unlink(missing_ok=True)
    return VerifyReport(tuple(problems), (), documents, chunks)


def repair(database: Database, retriever: Retriever, problems: Sequence[Problem]) -> list[str]:
    """Make full text and snapshots again where `problems` name them; return what was done.

    An outdated splitter is the business of `ingest.resplit`, which needs the embedder.
    """
    done: list[str] = []
    with database.read() as session:
        bases = list_bases(session)
    for base in bases:
        kinds = {p.kind for p in problems if p.detail.startswith(f"{base.name}: ")}
        if kinds & {"fulltext", "fulltext-version"}:
            _remake_fulltext(database, base)
            done.append(f"{base.name}: full text made again from stored chunks")
        if "index" in kinds:
            retriever.view(base).reset()
            retriever.view(base).save()
            done.append(f"{base.name}: vector index made again from stored vectors")
    return done


def _check_versions(base: KnowledgeBase, splitter: str) -> Iterator[Problem]:
    if base.splitter != splitter:
        yield Problem("splitter-version", f"{base.name}: split by {base.splitter!r}")
    if base.fulltext != FULLTEXT:
        yield Problem("fulltext-version", f"{base.name}: made by {base.fulltext!r}")


def _check_documents(session: Session, base: KnowledgeBase) -> Iterator[Problem]:
    """Chunks tile the text in order, and each has the vector of its own text."""
    rows = session.execute(
        select(DocumentRow, SourceRow, DocumentVersionRow)
        .join(SourceRow, DocumentRow.source_id == SourceRow.id)
        .outerjoin(
            DocumentVersionRow,
            (DocumentVersionRow.document_id == DocumentRow.id) & DocumentVersionRow.is_current,
        )
        .where(DocumentRow.kb_id == base.id)
        .execution_options(yield_per=50)
    )
    for document, _source, version in rows:
        where = f"{base.name}: {document.path}"
        chunks = session.execute(
            select(ChunkRow.start, ChunkRow.end, ChunkRow.heading, EmbeddingRow)
            .join(EmbeddingRow, ChunkRow.embedding_id == EmbeddingRow.id)
            .where(ChunkRow.document_id == document.id)
            .order_by(ChunkRow.position)
        )
        if document.content_hash and version and version.content_hash != document.content_hash:
            yield Problem("document", f"{where}: its text is of other bytes than its row says")
        if (document.status == "ready") != (version is not None):
            yield Problem("document", f"{where}: is {document.status}, text and state disagree")
        end = 0
        for start, chunk_end, heading, embedding in chunks:
            if version is None or start != end or chunk_end <= start:
                yield Problem("offsets", f"{where}: chunk at {start} does not continue at {end}")
                break
            string = embedded_text(heading, version.text[start:chunk_end])
            if embedding.text_hash != text_hash(string):
                yield Problem(
                    "embedding", f"{where}: chunk at {start} has the vector of other text"
                )
            if len(embedding.vector) != 2 * base.embedder.dimension:
                yield Problem("embedding", f"{where}: chunk at {start} has a cut vector")
            end = chunk_end
        else:
            if version is not None and end != len(version.text):
                yield Problem("offsets", f"{where}: chunks end at {end} of {len(version.text)}")
        if version is not None:
            session.expunge(version)  # so that texts do not pile up in the session


def _check_fulltext(session: Session, base: KnowledgeBase) -> Iterator[Problem]:
    chunk_ids = set(session.scalars(select(ChunkRow.id).where(ChunkRow.kb_id == base.id)))
    try:
        indexed = sqlite.fulltext_ids(session, base.id)
    except sqlite.SQL_ERRORS as exc:
        yield Problem("fulltext", f"{base.name}: cannot be read ({exc.__class__.__name__})")
        return
    if indexed != chunk_ids:
        yield Problem(
            "fulltext",
            f"{base.name}: {len(chunk_ids - indexed)} chunks missing, "
            f"{len(indexed - chunk_ids)} too many",
        )


def _check_blobs(session: Session, blobs: Blobs) -> Iterator[Problem]:
    uploaded = session.execute(
        select(DocumentRow.path, DocumentRow.content_hash)
        .join(SourceRow, DocumentRow.source_id == SourceRow.id)
        .where(SourceRow.kind == "upload", DocumentRow.content_hash.is_not(None))
    )
    for path, content_hash in uploaded:
        if content_hash and not os.path.isfile(blobs.path(content_hash)):
            yield Problem("blob", f"{path}: the uploaded bytes are missing; upload it again")


def _check_index(database: Database, base: KnowledgeBase, view: IndexView) -> Iterator[Problem]:
    """The index, as a search sees it, holds exactly the stored vectors."""
    ids, vectors = view.contents()
    with database.read() as session:
        rows = session.execute(
            select(ChunkRow.id, EmbeddingRow.vector)
            .join(EmbeddingRow, ChunkRow.embedding_id == EmbeddingRow.id)
            .where(ChunkRow.kb_id == base.id)
        )
        stored = dict(rows.all())
    if set(ids) != stored.keys() or len(ids) != len(set(ids)):
        missing, extra = stored.keys() - set(ids), set(ids) - stored.keys()
        yield Problem("index", f"{base.name}: {len(missing)} missing, {len(extra)} too many")
    elif ids:
        expected = from_bytes([stored[id_] for id_ in ids], base.embedder.dimension)
        n_wrong = int(np.any(expected != vectors, axis=1).sum())
        if n_wrong:
            yield Problem("index", f"{base.name}: {n_wrong} vectors differ from the database")
    for detail in view.check_snapshots():
        yield Problem("index", f"{base.name}: {detail}")


def _remake_fulltext(database: Database, base: KnowledgeBase) -> None:
    """Fill the full text from stored chunks, in one transaction: searches see old or new.

    Other writers wait meanwhile, so that no document can slip between reading and writing.
    """
    with database.write() as session:
        fulltext = FullText(session, base.id)
        fulltext.clear()
        document_ids = session.scalars(
            select(DocumentRow.id).where(
                DocumentRow.kb_id == base.id,
                exists().where(ChunkRow.document_id == DocumentRow.id),
            )
        ).all()
        for document_id in document_ids:
            text = session.scalars(
                select(DocumentVersionRow.text).where(
                    DocumentVersionRow.document_id == document_id, DocumentVersionRow.is_current
                )
            ).one()
            rows = session.execute(
                select(ChunkRow.id, ChunkRow.heading, ChunkRow.start, ChunkRow.end).where(
                    ChunkRow.document_id == document_id
                )
            )
            fulltext.add([(id_, heading, text[start:end]) for id_, heading, start, end in rows])
        session.execute(
            update(KnowledgeBaseRow).where(KnowledgeBaseRow.id == base.id).values(fulltext=FULLTEXT)
        )
