"""Rows that refer to missing ones: give them back to where they belong, or remove them.

A knowledge base, a source and a document are never removed as long as anything says where they
belong: their chunks, their documents, their files. What is left after that can be read again from
its folder, or not at all. Two things stay as they are, and stay a problem: a knowledge base whose
embedder is lost, and uploads whose knowledge base is, since their bytes are nowhere else.
"""

import os
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    delete,
    exists,
    false,
    func,
    select,
    true,
    update,
)
from sqlalchemy.orm import Session

from kb.storage import sqlite
from kb.storage.bases import new_id
from kb.storage.blobs import Blobs
from kb.storage.database import Database
from kb.storage.tables import (
    Base,
    ChunkRow,
    DocumentRow,
    EmbedderRow,
    EmbeddingRow,
    KnowledgeBaseRow,
    SourceRow,
)


def mend_rows(database: Database, blobs: Blobs) -> list[str]:
    """Mend references and SQLite's own indexes; return what was done, in sentences."""
    with database.write() as session:
        done = [*_reattach(session), *_find_sources(session, blobs)]
        done += _remove_orphans(session, kept=_uploads(session, blobs))
    with database.write() as session:
        sqlite.reindex(session)
    return [*done, "the database's own indexes made again"]


def _reattach(session: Session) -> list[str]:
    """Set pointers that other rows still tell: each by what refers to it, or what it refers to."""
    kb_of_documents = (
        select(DocumentRow.kb_id)
        .where(DocumentRow.source_id == SourceRow.id, _is_there(DocumentRow.kb_id))
        .limit(1)
        .scalar_subquery()
    )
    kb_of_source = (
        select(SourceRow.kb_id)
        .where(SourceRow.id == DocumentRow.source_id, _is_there(SourceRow.kb_id))
        .scalar_subquery()
    )
    embedder_of_base = (
        select(KnowledgeBaseRow.embedder_id)
        .join(ChunkRow, ChunkRow.kb_id == KnowledgeBaseRow.id)
        .where(
            ChunkRow.embedding_id == EmbeddingRow.id,
            KnowledgeBaseRow.embedder_id.in_(select(EmbedderRow.id)),
        )
        .limit(1)
        .scalar_subquery()
    )
    embedder_of_chunks = (
        select(EmbeddingRow.embedder_id)
        .join(ChunkRow, ChunkRow.embedding_id == EmbeddingRow.id)
        .where(
            ChunkRow.kb_id == KnowledgeBaseRow.id,
            EmbeddingRow.embedder_id.in_(select(EmbedderRow.id)),
        )
        .limit(1)
        .scalar_subquery()
    )
    only_embedder = (
        select(func.min(EmbedderRow.id)).having(func.count(EmbedderRow.id) == 1).scalar_subquery()
    )
    embedder = func.coalesce(embedder_of_chunks, only_embedder)
    steps: list[tuple[Any, Any, ColumnElement[bool], Any]] = [
        (SourceRow, SourceRow.kb_id, ~_is_there(SourceRow.kb_id), kb_of_documents),
        (DocumentRow, DocumentRow.kb_id, ~_is_there(DocumentRow.kb_id), kb_of_source),
        (
            KnowledgeBaseRow,
            KnowledgeBaseRow.embedder_id,
            KnowledgeBaseRow.embedder_id.not_in(select(EmbedderRow.id)),
            embedder,
        ),
        (
            EmbeddingRow,
            EmbeddingRow.embedder_id,
            EmbeddingRow.embedder_id.not_in(select(EmbedderRow.id)),
            embedder_of_base,
        ),
    ]
    done = []
    for table, column, is_lost, found in steps:
        changed = update(table).where(is_lost, found.is_not(None)).values({column: found})
        if n := _count(session.execute(changed)):
            done.append(f"{n} rows of {table.__tablename__} given back to what they belong to")
    return done


def _is_there(kb_id: Any) -> ColumnElement[bool]:
    return kb_id.in_(select(KnowledgeBaseRow.id))  # type: ignore[no-any-return]


def _find_sources(session: Session, blobs: Blobs) -> list[str]:
    """Give documents whose source is lost to the uploads, or to the folder that has their file."""
    lost = session.execute(
        select(DocumentRow.id, DocumentRow.kb_id, DocumentRow.path, DocumentRow.content_hash).where(
            DocumentRow.source_id.not_in(select(SourceRow.id)), _is_there(DocumentRow.kb_id)
        )
    ).all()
    done = 0
    for document_id, kb_id, path, content_hash in lost:
        source_id = _source_of(session, blobs, kb_id, path, content_hash)
        if source_id is not None:
            row = update(DocumentRow).where(DocumentRow.id == document_id)
            session.execute(row.values(source_id=source_id))
            done += 1
    return [f"{done} documents given back to their source"] if done else []


def _source_of(
    session: Session, blobs: Blobs, kb_id: str, path: str, content_hash: str | None
) -> str | None:
    taken = exists().where(DocumentRow.source_id == SourceRow.id, DocumentRow.path == path)
    sources = session.execute(
        select(SourceRow.id, SourceRow.kind, SourceRow.root).where(SourceRow.kb_id == kb_id, ~taken)
    ).all()
    for source_id, kind, root in sources:
        if kind == "folder" and os.path.isfile(os.path.join(root, path)):
            return str(source_id)
    if blobs.has(content_hash):
        for source_id, kind, _ in sources:
            if kind == "upload":
                return str(source_id)
        made = SourceRow(id=new_id(), kb_id=kb_id, kind="upload", root="", label="")
        has_uploads = exists().where(SourceRow.kb_id == kb_id, SourceRow.kind == "upload")
        if not session.scalar(select(has_uploads)):
            session.add(made)
            session.flush()
            return made.id
    return None


def _uploads(session: Session, blobs: Blobs) -> list[str]:
    """Return the documents without a knowledge base whose bytes are kept here and nowhere else."""
    rows = session.execute(
        select(DocumentRow.id, DocumentRow.content_hash)
        .outerjoin(SourceRow, SourceRow.id == DocumentRow.source_id)
        .where(~_is_there(DocumentRow.kb_id), func.coalesce(SourceRow.kind, "upload") == "upload")
    )
    return [document_id for document_id, content_hash in rows if blobs.has(content_hash)]


def _remove_orphans(session: Session, kept: Sequence[str]) -> list[str]:
    """Remove what is left; not what others need: knowledge bases, vectors of chunks, `kept`."""
    done = []
    is_needed = {
        EmbeddingRow.__table__: exists().where(ChunkRow.embedding_id == EmbeddingRow.id),
        DocumentRow.__table__: DocumentRow.id.in_(kept),
        SourceRow.__table__: SourceRow.id.in_(
            select(DocumentRow.source_id).where(DocumentRow.id.in_(kept))
        ),
        KnowledgeBaseRow.__table__: true(),
    }
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            for key in column.foreign_keys:
                # A chunk without its vector is made again with its document.
                if column is ChunkRow.__table__.c.embedding_id:
                    continue
                is_lost = column.is_not(None) & column.not_in(select(key.column))
                gone = delete(table).where(is_lost, ~is_needed.get(table, false()))
                if n := _count(session.execute(gone)):
                    done.append(f"{n} rows of {table.name} removed: no {key.column.table.name}")
    return done


def _count(result: Any) -> int:
    assert isinstance(result, CursorResult)
    return int(result.rowcount)
