"""Bring a knowledge base that an older splitter made up to this version, from stored texts.

No file is read: a document's text and headings are in the database. Only chunks whose text
differs are embedded.
"""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from ingest.prepare import prepare
from ingest.splitter import SPLITTER
from ingest.sync import SyncParts
from kb.records import Heading, KnowledgeBase, LoadedDocument
from kb.storage.bases import find_base, list_bases, list_sources
from kb.storage.documents import drop_chunks, stored_flags, write_document
from kb.storage.embeddings import find_embeddings, replace_embeddings, store_embeddings
from kb.storage.tables import DocumentRow, DocumentVersionRow, KnowledgeBaseRow


def resplit(parts: SyncParts) -> list[str]:
    """Split the stored texts of outdated bases again; return what was done.

    Raises:
        EmbedderError, StorageError
    """
    done = []
    with parts.database.read() as session:
        bases = [base for base in list_bases(session) if base.splitter != SPLITTER]
    for base in bases:
        embedder = parts.embedder.matching(base.embedder)
        if embedder is None:
            continue  # another embedder's vectors cannot be made here
        _resplit_base(replace(parts, embedder=embedder), base)
        with parts.database.write() as session:
            session.execute(
                update(KnowledgeBaseRow)
                .where(KnowledgeBaseRow.id == base.id)
                .values(splitter=SPLITTER)
            )
        done.append(f"{base.name}: documents split again by {SPLITTER}")
    return done


def resplit_documents(parts: SyncParts, document_ids: Sequence[str]) -> list[str]:
    """Make chunks and vectors of damaged documents again from their stored text.

    A text that disagreed with its vectors may be the damaged side: the file of a folder is
    therefore read again by the next ingest. Returns what was done.

    Raises:
        EmbedderError, StorageError
    """
    done = []
    for document_id in document_ids:
        with parts.database.read() as session:
            row = session.get(DocumentRow, document_id)
            base = find_base(session, row.kb_id) if row is not None else None
        if row is None or base is None:
            continue
        embedder = parts.embedder.matching(base.embedder)
        if embedder is None:
            done.append(
                f"{base.name}: {row.path}: not mended, since another embedder made its vectors; "
                "ingest it into a new knowledge base"
            )
            continue
        own_parts = replace(parts, embedder=embedder)
        if _resplit_document(own_parts, base, document_id, is_damaged=True):
            done.append(
                f"{base.name}: {row.path}: chunks and vectors made again from its text; a file of "
                "a folder is read again by the next ingest"
            )
    return done


def _resplit_base(parts: SyncParts, base: KnowledgeBase) -> None:
    with parts.database.read() as session:
        document_ids = session.scalars(
            select(DocumentRow.id).where(
                DocumentRow.kb_id == base.id, DocumentRow.status == "ready"
            )
        ).all()
    for document_id in document_ids:
        _resplit_document(parts, base, document_id, is_damaged=False)


def _resplit_document(
    parts: SyncParts, base: KnowledgeBase, document_id: str, *, is_damaged: bool
) -> bool:
    """Split one stored text again; tell whether there was one.

    Of a damaged document nothing is reused: neither its chunks nor the vectors of its strings.
    """
    with parts.database.read() as session:
        sources = {source.id: source for source in list_sources(session, base.id)}
        document = session.get(DocumentRow, document_id)
        version = _current_version(session, document_id)
    if document is None or version is None or document.source_id not in sources:
        return False
    source = sources[document.source_id]
    loaded = LoadedDocument(
        text=version.text,
        headings=tuple(Heading(*heading) for heading in version.headings),
        pages=tuple(version.page_starts),
        encoding=version.encoding,
        encoding_guessed=version.encoding_guessed,
        loader=version.loader,
        content_hash=version.content_hash,
        size_bytes=document.size_bytes,
        flags=stored_flags(document),
    )
    prepared, strings = prepare(document.path, document.stat_key, loaded)
    texts = {c.text_hash: s for c, s in zip(prepared.chunks, strings, strict=True)}
    with parts.database.read() as session:
        stored = find_embeddings(session, base.embedder_id, texts)
    missing = [key for key in texts if is_damaged or key not in stored]
    vectors = parts.embedder.embed_array([texts[key] for key in missing])
    made = dict(zip(missing, vectors, strict=True))
    with parts.database.write() as session:
        row = session.get(DocumentRow, document_id)
        current = _current_version(session, document_id)
        if row is None or current is None or current.id != version.id:
            return False  # changed or removed meanwhile; its new text was split by this version
        failure = (row.error, row.failed_hash, row.failed_loader)
        if is_damaged:
            replace_embeddings(session, base.embedder_id, made)
            drop_chunks(session, base.id, document_id)
        else:
            store_embeddings(session, base.embedder_id, made)
        write_document(session, base, source, prepared)
        row.error, row.failed_hash, row.failed_loader = failure
        if is_damaged and source.kind == "folder":
            row.content_hash, row.stat_key = None, ""
    return True


def _current_version(session: Session, document_id: str) -> DocumentVersionRow | None:
    return session.scalar(
        select(DocumentVersionRow).where(
            DocumentVersionRow.document_id == document_id, DocumentVersionRow.is_current
        )
    )
