"""Bring a knowledge base that an older splitter made up to this version, from stored texts.

No file is read: a document's text and headings are in the database. Only chunks whose text
differs are embedded.
"""

from dataclasses import replace

from sqlalchemy import select, update

from ingest.prepare import prepare
from ingest.splitter import SPLITTER
from ingest.sync import SyncParts
from kb.records import Heading, KnowledgeBase, LoadedDocument
from kb.storage.bases import list_bases, list_sources
from kb.storage.documents import stored_flags, write_document
from kb.storage.embeddings import find_embeddings, store_embeddings
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


def _resplit_base(parts: SyncParts, base: KnowledgeBase) -> None:
    with parts.database.read() as session:
        sources = {source.id: source for source in list_sources(session, base.id)}
        document_ids = session.scalars(
            select(DocumentRow.id).where(
                DocumentRow.kb_id == base.id, DocumentRow.status == "ready"
            )
        ).all()
    for document_id in document_ids:
        with parts.database.read() as session:
            document = session.get(DocumentRow, document_id)
            version = session.scalar(
                select(DocumentVersionRow).where(
                    DocumentVersionRow.document_id == document_id, DocumentVersionRow.is_current
                )
            )
        if document is None or version is None:
            continue
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
        missing = [key for key in texts if key not in stored]
        vectors = parts.embedder.embed_array([texts[key] for key in missing])
        with parts.database.write() as session:
            store_embeddings(session, base.embedder_id, dict(zip(missing, vectors, strict=True)))
            row = session.get(DocumentRow, document_id)
            current = session.scalar(
                select(DocumentVersionRow.id).where(
                    DocumentVersionRow.document_id == document_id, DocumentVersionRow.is_current
                )
            )
            if row is None or current != version.id:
                continue  # changed or removed meanwhile; its new text was split by this version
            failure = (row.error, row.failed_hash, row.failed_loader)
            write_document(session, base, sources[document.source_id], prepared)
            row.error, row.failed_hash, row.failed_loader = failure
