"""Mend what `kb.upkeep.verify` found, as far as the database itself can give it back.

Full text and index are made again; rows that refer to nothing go; answers whose citations no
longer hold are redacted; a document without its text is marked, so that the next ingest reads its
file again. Chunks and vectors of one document are made again by `ingest.resplit`, which has the
splitter and the embedder: `resplit_documents` below.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, literal_column, select, update
from sqlalchemy.orm import Session

from kb.records import KnowledgeBase
from kb.retrieval.index import IndexView
from kb.retrieval.retrieve import Retriever
from kb.storage import sqlite
from kb.storage.bases import list_bases
from kb.storage.blobs import Blobs
from kb.storage.database import Database
from kb.storage.documents import drop_chunks
from kb.storage.fulltext import FullText
from kb.storage.tables import (
    ARRAY,
    Base,
    ChunkRow,
    DocumentRow,
    DocumentVersionRow,
    KnowledgeBaseRow,
    SourceRow,
)
from kb.storage.traces import redact_traces
from kb.text.terms import FULLTEXT
from kb.upkeep.leftovers import remove_leftovers
from kb.upkeep.rows import mend_rows
from kb.upkeep.verify import Problem, VerifyReport, damaged_records, verify

# Mending one thing may show another: rows without a parent go, then full text and index follow.
_ROUNDS = 3
# Kinds that are mended by splitting and embedding the stored text again.
DOCUMENT_KINDS = frozenset({"document", "offsets", "embedding"})


def verify_and_repair(
    database: Database,
    retriever: Retriever,
    blobs: Blobs,
    *,
    splitter: str,
    resplit_old: Callable[[], list[str]],
    resplit_documents: Callable[[Sequence[str]], list[str]],
) -> VerifyReport:
    """Mend what can be mended and say what was done and what is left.

    Args:
        database, retriever, blobs: as for `verify`.
        splitter: the version that ingest uses.
        resplit_old: splits the texts of bases again that another version has split.
            Returns what it did, in sentences.
        resplit_documents: makes chunks and vectors of these documents again; returns the same.

    Raises:
        StorageError: the file is too damaged to list the knowledge bases.
    """
    done = _mend_records(database)
    report = verify(database, retriever, blobs, splitter=splitter)
    if any(problem.kind == "record" for problem in report.problems):
        return replace(report, repaired=tuple(done))  # what is left of them cannot be guessed
    if old := resplit_old():
        done += old
        report = verify(database, retriever, blobs, splitter=splitter)
    for _ in range(_ROUNDS):
        done += repair(database, retriever, blobs, report.problems, resplit_documents)
        report = verify(database, retriever, blobs, splitter=splitter)
        if report.ok:
            break
    return replace(report, repaired=tuple(done))


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
        done += mend_rows(database, blobs)
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
    if unreadable := sorted({p.key for p in problems if p.kind == "text"}):
        done += _drop_unreadable_texts(database, unreadable)
    broken = sorted({p.key for p in problems if p.kind in DOCUMENT_KINDS and p.key})
    if broken:
        done += _mark_lost_texts(database, broken)
        done += resplit_documents(broken)
    for base in bases:
        if "index" in kinds[base.id]:
            _remake_index(retriever.view(base))
            done.append(f"{base.name}: vector index made again from stored vectors")
    if any(problem.kind == "database" for problem in problems):
        return done  # what seems unused now may only have lost what uses it
    return done + [f"removed: {what}" for what in remove_leftovers(database, blobs)]


def _mend_records(database: Database) -> list[str]:
    """Empty the lists and settings that cannot be read; return what was done, in sentences.

    A file whose pages or headings are lost is read again by the next ingest; an upload has to be
    uploaded again to get them back. An embedder whose scripts are lost has no say until the next
    ingest with it, which tells them.
    """
    done = []
    with database.write() as session:
        for table_name, column_name, rowids in list(damaged_records(session)):
            table = Base.metadata.tables[table_name]
            column = table.columns[column_name]
            empty: Any = None if column.nullable else [] if column.info == ARRAY else {}
            for first in range(0, len(rowids), sqlite.MAX_VALUES):
                part = rowids[first : first + sqlite.MAX_VALUES]
                in_damaged = literal_column("rowid").in_(part)
                session.execute(update(table).where(in_damaged).values({column: empty}))
                if table is DocumentVersionRow.__table__:
                    _have_read_again(session, in_damaged)
            done.append(f"{table_name}.{column_name}: {len(rowids)} emptied")
    return done


def _have_read_again(session: Session, in_versions: ColumnElement[bool]) -> None:
    """Let the next ingest read these documents' files. Uploads are kept as they are stored."""
    lost = select(DocumentVersionRow.document_id).where(in_versions, DocumentVersionRow.is_current)
    folders = select(SourceRow.id).where(SourceRow.kind == "folder")
    session.execute(
        update(DocumentRow)
        .where(DocumentRow.id.in_(lost), DocumentRow.source_id.in_(folders))
        .values(stat_key="", content_hash=None)
    )


def _drop_unreadable_texts(database: Database, document_ids: Sequence[str]) -> list[str]:
    """Drop texts that are damaged on the disk, so that their files are read again."""
    done = []
    for document_id in document_ids:
        with database.write() as session:
            kb_id = session.scalar(select(DocumentRow.kb_id).where(DocumentRow.id == document_id))
            if kb_id is None:
                continue
            drop_chunks(session, kb_id, document_id)
            session.execute(
                delete(DocumentVersionRow).where(
                    DocumentVersionRow.document_id == document_id, DocumentVersionRow.is_current
                )
            )
            session.execute(
                update(DocumentRow)
                .where(DocumentRow.id == document_id)
                .values(
                    status="failed",
                    error="its stored text was damaged; ingest or upload the file again",
                    # As a failure of an unknown loader, so that the same bytes are parsed again.
                    failed_hash=DocumentRow.content_hash,
                    failed_loader="",
                    content_hash=None,
                    stat_key="",
                )
            )
        done.append(f"document {document_id}: its text was damaged; ingest its file again")
    return done


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
