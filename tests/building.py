"""Small builders that tests share: a knowledge base and documents without files or parser."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from ingest.fake import FakeEmbedder
from ingest.splitter import SPLITTER
from kb.config import Settings
from kb.embedder import embedded_text, text_hash
from kb.records import KnowledgeBase, LoadedDocument
from kb.storage.bases import create_base, find_or_add_source
from kb.storage.database import Database
from kb.storage.documents import PreparedChunk, PreparedDocument, WriteCounts, write_document
from kb.storage.embeddings import store_embeddings
from kb.storage.tables import DocumentRow
from kb.text.terms import FULLTEXT, index_terms
from kb.wiring import Services


def make_base(database: Database, name: str = "test") -> KnowledgeBase:
    """Create an empty base for the fake embedder."""
    with database.write() as session:
        return create_base(
            session,
            name,
            embedder=FakeEmbedder.spec,
            splitter=SPLITTER,
            fulltext=FULLTEXT,
            support_threshold=0.3,
        )


def prepared(path: str, texts: Sequence[str], heading: str = "") -> PreparedDocument:
    """Return a document whose chunks are exactly `texts`."""
    chunks, start = [], 0
    for text in texts:
        chunks.append(
            PreparedChunk(
                start=start,
                end=start + len(text),
                page=None,
                heading=heading,
                text_hash=text_hash(embedded_text(heading, text)),
                heading_terms=index_terms(heading),
                text_terms=index_terms(text),
            )
        )
        start += len(text)
    whole = "".join(texts)
    loaded = LoadedDocument(
        text=whole,
        headings=(),
        pages=(),
        encoding="utf-8",
        encoding_guessed=False,
        loader="text/1",
        content_hash=hashlib.sha256(whole.encode()).hexdigest(),
        size_bytes=len(whole.encode()),
    )
    return PreparedDocument(path=path, stat_key="", loaded=loaded, chunks=tuple(chunks))


def add_document(
    database: Database,
    base: KnowledgeBase,
    path: str,
    texts: Sequence[str],
    *,
    kind: str = "folder",
) -> WriteCounts:
    """Embed and store a document made of these chunks, as a sync would."""
    document = prepared(path, texts)
    vectors = FakeEmbedder().embed_array([embedded_text("", text) for text in texts])
    with database.write() as session:
        source = find_or_add_source(session, base.id, kind=kind, root="", label="")
        keys = [chunk.text_hash for chunk in document.chunks]
        store_embeddings(session, base.embedder_id, dict(zip(keys, vectors, strict=True)))
        return write_document(session, base, source, document)


def document_ids(session: Session, base: KnowledgeBase) -> list[str]:
    """Return the ids of a base's documents by path."""
    rows = select(DocumentRow.id).where(DocumentRow.kb_id == base.id).order_by(DocumentRow.path)
    return list(session.scalars(rows))


def open_services(home: Path, **changes: object) -> Services:
    """Open services on `home` with the fake embedder."""
    return Services.open(Settings(home=home, **changes), embedder=FakeEmbedder())
