"""Mend what `kb.verify` found, as far as the database itself can give it back.

Full text and index are made again; rows that refer to nothing go; answers whose citations no
longer hold are redacted; a document without its text is marked, so that the next ingest reads its
file again. Chunks and vectors of one document are made again by `ingest.resplit`, which has the
splitter and the embedder: `resplit_documents` below.
"""

from collections.abc import Callable, Sequence

from sqlalchemy import delete, exists, select, update

from kb.index import IndexView
from kb.leftovers import remove_leftovers
from kb.records import KnowledgeBase
from kb.retrieve import Retriever
from kb.storage import sqlite
from kb.storage.bases import list_bases
from kb.storage.blobs import Blobs
from kb.storage.database import Database
from kb.storage.documents import drop_chunks
from kb.storage.fulltext import FullText
from kb.storage.tables import (
    Base,
    ChunkRow,
    DocumentRow,
    DocumentVersionRow,
    KnowledgeBaseRow,
)
from kb.storage.traces import redact_traces
from kb.terms import FULLTEXT
from kb.verify import Problem

# Kinds that are mended by splitting and embedding the stored text again.
DOCUMENT_KINDS = frozenset({"document", "offsets", "embedding"})


def repair(
    database: Database,
    retriever: Retriever,
    blobs: Blobs,
    problems: Sequence[Problem],
    resplit_documents: Callable[[Sequence[str]], list[str]],
) -> list[str]:
    """Mend what can be mended; return what was done, in sentences.

    Args:
        database: must be readable enough to list its knowledge bases.
        retriever: whose views of an index are made anew.
        blobs: where unused uploads are cleared.
        problems: of the last `verify`; what they do not name is left alone.
        resplit_documents: makes chunks and vectors of documents again; returns what it did.
    """
    done: list[str] = []
    if any(problem.kind == "database" for problem in problems):
        done += _mend_rows(database)
    if traces := sorted({p.key for p in problems if p.kind == "citation"}):
        with database.write() as session:
            redact_traces(session, traces)
        done.append(f"{len(traces)} stored answers redacted, since their citations did not hold")
    with database.read() as session:
        bases = list_bases(session)
    kinds = {base.id: {p.kind for p in problems if p.kb_id == base.id} for base in bases}
    for base in bases:  # before documents, whose chunks have rows in it
        if kinds[base.id] & {"fulltext", "fulltext-version"}:
            remake_fulltext(database, base)
            done.append(f"{base.name}: full text made again from stored chunks")
    broken = sorted({p.key for p in problems if p.kind in DOCUMENT_KINDS and p.key})
    if broken:
        done += _mark_lost_texts(database, broken)
        done += resplit_documents(broken)
    for base in bases:
        if "index" in kinds[base.id]:
            _remake_index(retriever.view(base))
            done.append(f"{base.name}: vector index made again from stored vectors")
    return done + [f"removed: {what}" for what in remove_leftovers(database, blobs)]


def _mend_rows(database: Database) -> list[str]:
    """Remove rows that refer to missing ones, and make SQLite's own indexes again."""
    done = []
    with database.write() as session:
        for table in Base.metadata.sorted_tables:
            for column in table.columns:
                for key in column.foreign_keys:
                    # A chunk without its vector is made again with its document.
                    if column is ChunkRow.__table__.c.embedding_id:
                        continue
                    gone = (
                        delete(table)
                        .where(column.is_not(None))
                        .where(column.not_in(select(key.column)))
                    )
                    n = session.execute(gone).rowcount  # type: ignore[attr-defined]
                    if n:
                        done.append(f"{n} rows of {table.name} removed: no {key.column.table.name}")
    with database.write() as session:
        sqlite.reindex(session)
    return [*done, "the database's own indexes made again"]


def _mark_lost_texts(database: Database, document_ids: Sequence[str]) -> list[str]:
    """Mark documents whose text is gone as failed, so that their files are read again."""
    done = []
    with database.write() as session:
        for document_id in document_ids:
            row = session.get(DocumentRow, document_id)
            has_text = session.scalar(
                select(
                    exists().where(
                        DocumentVersionRow.document_id == document_id,
                        DocumentVersionRow.is_current,
                    )
                )
            )
            if row is None or has_text or row.status != "ready":
                continue
            drop_chunks(session, row.kb_id, document_id)
            row.status = "failed"
            row.error = "its stored text was lost; ingest or upload the file again"
            # As a failure of an unknown loader, so that the very same bytes are parsed again.
            row.failed_hash, row.failed_loader = row.content_hash, ""
            row.content_hash = None
            row.stat_key = ""
            done.append(f"{row.path}: its text is lost; ingest or upload the file again")
    return done


def _remake_index(view: IndexView) -> None:
    view.reset()
    view.save()


def remake_fulltext(database: Database, base: KnowledgeBase) -> None:
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
            text = session.scalar(
                select(DocumentVersionRow.text).where(
                    DocumentVersionRow.document_id == document_id, DocumentVersionRow.is_current
                )
            )
            rows = session.execute(
                select(ChunkRow.id, ChunkRow.heading, ChunkRow.start, ChunkRow.end).where(
                    ChunkRow.document_id == document_id
                )
            )
            if text is not None:
                fulltext.add([(id_, heading, text[start:end]) for id_, heading, start, end in rows])
        session.execute(
            update(KnowledgeBaseRow).where(KnowledgeBaseRow.id == base.id).values(fulltext=FULLTEXT)
        )
