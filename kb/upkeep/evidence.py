"""What documents can be recognised by, gathered before they are erased.

For each document: strings cut from all over its text, runs of its full-text terms, slices of its
vectors, its names and the hashes of its files. Strings that anything else in the database holds
as well are dropped, since finding them later would say nothing.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from kb.records import Document
from kb.storage import sqlite
from kb.storage.blobs import Blobs
from kb.storage.database import Database
from kb.storage.jobs import list_jobs
from kb.storage.tables import (
    ChunkRow,
    DocumentRow,
    DocumentVersionRow,
    EmbeddingRow,
    KnowledgeBaseRow,
    SourceRow,
)
from kb.upkeep.needles import Finder, chosen, forms, is_telling, spread, telling_slice

# Strings per document that are searched for, and how many are cut to choose from.
NEEDLES = 16
CANDIDATES = 4 * NEEDLES
# Fewer strings that stand nowhere else prove little, unless the text is too short for more.
ENOUGH = 3
# Terms of full text that are asked for; a book has more, and these are spread over it.
MAX_TERMS = 5_000


@dataclass(frozen=True, slots=True)
class Mark:
    """What a searched byte string is: of which kind, of which document, in which form."""

    kind: str  # "text", "terms", "vector" or "name"
    document: str
    form: str


@dataclass(frozen=True, slots=True)
class Erased:
    """One erased document. `file` is the user's own file, where it still exists."""

    id: str
    name: str
    kb: str
    chunks: int
    strings: int
    file: str | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "kb": self.kb,
            "chunks": self.chunks,
            "strings": self.strings,
            "file": self.file,
        }


@dataclass(slots=True)
class Evidence:
    """What the documents can be recognised by, read before they go."""

    documents: list[Erased] = field(default_factory=list)
    marks: dict[bytes, Mark] = field(default_factory=dict)
    chunk_ids: list[int] = field(default_factory=list)
    hashes: set[str] = field(default_factory=set)  # of their files
    names: set[str] = field(default_factory=set)  # paths, also those before a move
    terms: dict[str, list[str]] = field(default_factory=dict)  # of these documents alone, by base
    weak: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def gather(database: Database, blobs: Blobs, documents: Sequence[Document]) -> Evidence:
    """Cut strings from the documents, and keep those that stand nowhere else."""
    evidence = Evidence()
    if not documents:
        return evidence
    with database.read() as session:
        ids = [document.id for document in documents]
        for document in documents:
            evidence.chunk_ids += session.scalars(
                select(ChunkRow.id).where(ChunkRow.document_id == document.id)
            )
        candidates = {d.id: _text_needles(session, d) for d in documents}
        patterns = {needle.encode() for needles, _ in candidates.values() for needle in needles}
        others = _other_marks(session, evidence, documents)
        remaining = Finder(patterns | others.keys()).find_in_all(
            _remaining(session, blobs, ids, set(evidence.chunk_ids))
        )
        for document in documents:
            needles, encoding = candidates[document.id]
            unique = [needle for needle in needles if needle.encode() not in remaining]
            _keep(evidence, session, document, needles, unique, encoding)
        evidence.marks |= {p: mark for p, mark in others.items() if p not in remaining}
    return evidence


def _text_needles(session: Session, document: Document) -> tuple[list[str], str | None]:
    """Cut strings from all stored versions of a document, and name the encoding of its file."""
    rows = session.execute(
        select(DocumentVersionRow.text, DocumentVersionRow.encoding)
        .where(DocumentVersionRow.document_id == document.id)
        .order_by(DocumentVersionRow.is_current.desc())
    ).all()
    needles: dict[str, None] = {}
    for text, _ in rows:
        needles |= dict.fromkeys(spread(text, CANDIDATES // len(rows)))
        whole = text.strip()
        if not needles and is_telling(whole.encode()):
            needles[whole] = None
    return list(needles), rows[0][1] if rows else None


def _keep(
    evidence: Evidence,
    session: Session,
    document: Document,
    needles: Sequence[str],
    unique: Sequence[str],
    encoding: str | None,
) -> None:
    kept = chosen(unique, NEEDLES)
    for needle in kept:
        for form, pattern in forms(needle, encoding):
            if is_telling(pattern):  # a few Chinese characters are short in other encodings
                evidence.marks.setdefault(pattern, Mark("text", document.name, form))
    if document.n_chunks and len(kept) < max(1, min(ENOUGH, len(needles))):
        twins = _same_bytes(session, document)
        reason = (
            f"{', '.join(twins[:3])} has the same bytes"
            if twins
            else "the text is too short, or stands elsewhere as well"
        )
        evidence.weak.append(
            f"{document.name}: only {len(kept)} of {len(needles)} strings looked at stand in no "
            f"other document: {reason}"
        )
    row = session.get_one(DocumentRow, document.id)
    source = session.get_one(SourceRow, document.source_id)
    evidence.hashes |= {h for h in (row.content_hash, row.failed_hash) if h}
    evidence.names |= _names(session, document)
    file = Path(source.root, row.path) if source.kind == "folder" else None
    evidence.documents.append(
        Erased(
            id=document.id,
            name=document.name,
            kb=session.get_one(KnowledgeBaseRow, document.kb_id).name,
            chunks=document.n_chunks,
            strings=len(kept),
            file=str(file) if file is not None and file.exists() else None,
        )
    )


def _same_bytes(session: Session, document: Document) -> list[str]:
    rows = session.execute(
        select(DocumentRow.path, KnowledgeBaseRow.name)
        .join(KnowledgeBaseRow, KnowledgeBaseRow.id == DocumentRow.kb_id)
        .where(
            DocumentRow.content_hash == document.content_hash,
            DocumentRow.id != document.id,
            DocumentRow.content_hash.is_not(None),
        )
    )
    return [f"{path} in knowledge base {kb}" for path, kb in rows]


def _names(session: Session, document: Document) -> set[str]:
    """Return what reports call a document, also before it was moved."""
    names = {document.path, document.name}
    for job in reversed(list_jobs(session, document.kb_id)):
        for move in ((job.report or {}).get("changes") or {}).get("moved", ()):
            before, _, after = str(move).rpartition(" → ")
            if after in names:
                names.add(before)
    return names - set(
        session.scalars(
            select(DocumentRow.path).where(
                DocumentRow.kb_id == document.kb_id, DocumentRow.id != document.id
            )
        )
    )


def _other_marks(
    session: Session, evidence: Evidence, documents: Sequence[Document]
) -> dict[bytes, Mark]:
    """Return terms, vectors and names of the documents as byte strings."""
    marks: dict[bytes, Mark] = {}
    for document in documents:
        ids = session.execute(
            select(ChunkRow.id, EmbeddingRow.vector, EmbeddingRow.text_hash)
            .join(EmbeddingRow, EmbeddingRow.id == ChunkRow.embedding_id)
            .where(ChunkRow.document_id == document.id)
            .order_by(ChunkRow.position)
        ).all()
        for _, vector, text_hash in chosen(ids, NEEDLES):
            for form, pattern in (("float16", telling_slice(vector)), ("hash", text_hash)):
                if is_telling(pattern):
                    marks[pattern] = Mark("vector", document.name, form)
        rows = sqlite.fulltext_rows(session, document.kb_id, [id_ for id_, *_ in ids])
        for needle in chosen(spread(" ".join(rows), CANDIDATES), NEEDLES):
            marks[needle.encode()] = Mark("terms", document.name, "full text")
        _gather_terms(session, evidence, document.kb_id, rows)
        path = document.path
        for name in {path, path.rpartition("/")[2]}:
            for form, pattern in list(forms(name))[:2]:  # names are stored by us only
                if is_telling(pattern):
                    marks[pattern] = Mark("name", document.name, form)
    return marks


def _gather_terms(session: Session, evidence: Evidence, kb_id: str, rows: Sequence[str]) -> None:
    """Remember the terms that no other document of the base has."""
    held = Counter(term for row in rows for term in set(row.split()))
    asked = chosen(sorted(held), MAX_TERMS)
    frequencies = sqlite.fulltext_frequencies(session, kb_id, asked)
    evidence.terms.setdefault(kb_id, []).extend(
        term for term in asked if frequencies.get(term) == held[term]
    )


def _remaining(
    session: Session, blobs: Blobs, ids: Sequence[str], chunk_ids: set[int]
) -> Iterator[bytes]:
    """Give everything that stays: what stands there as well proves nothing."""
    for statement in sqlite.schema_texts(session):
        yield statement.encode()
    for base in session.scalars(select(KnowledgeBaseRow)):
        yield base.name.encode()
        yield from sqlite.fulltext_rows_except(session, base.id, chunk_ids)
    for source in session.scalars(select(SourceRow)):
        yield f"{source.root}\0{source.label}".encode()
    rows: Any = session.execute(
        select(DocumentRow.path, DocumentRow.error, DocumentRow.content_hash, SourceRow.kind)
        .join(SourceRow, SourceRow.id == DocumentRow.source_id)
        .where(DocumentRow.id.not_in(ids))
    )
    for path, error, content_hash, kind in rows:
        yield f"{path}\0{error}".encode()
        blob = blobs.path(content_hash) if kind == "upload" and content_hash else None
        if blob is not None and blob.is_file():
            yield blob.read_bytes()
    versions = session.execute(
        select(DocumentVersionRow.text, DocumentVersionRow.headings)
        .where(DocumentVersionRow.document_id.not_in(ids))
        .execution_options(yield_per=50)
    )
    for text, headings in versions:
        yield text.encode("utf-8", "surrogatepass")
        yield json.dumps(headings).encode()
    vectors = session.execute(
        select(EmbeddingRow.vector, EmbeddingRow.text_hash)
        .where(
            exists().where(
                ChunkRow.embedding_id == EmbeddingRow.id, ChunkRow.document_id.not_in(ids)
            )
        )
        .execution_options(yield_per=5000)
    )
    for vector, text_hash in vectors:
        yield vector
        yield text_hash
