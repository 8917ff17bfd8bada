"""Documents: the one transaction that stores them, the one that removes them, and reads.

`write_document` changes everything about one document at once: its row, its version's text,
its chunks, their full-text rows and the change log. Chunks whose embedded text is unchanged
keep their row and id and only get new offsets. No session is open while the document is parsed
or embedded; the transaction checks that the vectors it needs exist.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, and_, delete, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session

from kb.errors import DocumentNotFoundError, EmbedderMovedError, KBError, VersionNotFoundError
from kb.failpoints import failpoint
from kb.records import Chunk, Document, Flag, KnowledgeBase, LoadedDocument, Source
from kb.storage.bases import find_base, new_id, now, source_record, storable
from kb.storage.changes import append_changes
from kb.storage.embeddings import find_embeddings
from kb.storage.fulltext import FullText
from kb.storage.sqlite import MAX_VALUES
from kb.storage.tables import ChunkRow, DocumentRow, DocumentVersionRow, SourceRow
from kb.storage.traces import is_version_cited, redact_documents


class MissingVectorsError(KBError):
    """Vectors that a document needs are not stored (any more); embed these hashes again."""

    def __init__(self, hashes: frozenset[bytes]) -> None:
        self.hashes = hashes
        super().__init__(f"{len(hashes)} vectors are missing")


@dataclass(frozen=True, slots=True)
class PreparedChunk:
    """A chunk before it is stored; `text_hash` keys the vector of ``heading + text``.

    `heading_terms` and `text_terms` are what full text indexes, made before the transaction.
    """

    start: int
    end: int
    page: int | None
    heading: str
    text_hash: bytes
    heading_terms: str
    text_terms: str


@dataclass(frozen=True, slots=True)
class PreparedDocument:
    """A parsed and split file, ready for its transaction. No chunks means an empty document."""

    path: str
    stat_key: str
    loaded: LoadedDocument
    chunks: tuple[PreparedChunk, ...]


@dataclass(frozen=True, slots=True)
class WriteCounts:
    """What a document's transaction did to chunks."""

    added: int
    reused: int
    removed: int


@dataclass(frozen=True, slots=True)
class KnownFile:
    """What the database remembers of a file, for planning a sync."""

    document_id: str
    source_id: str
    path: str
    status: str
    content_hash: str | None
    stat_key: str
    error: str | None
    failed_hash: str | None
    failed_loader: str | None
    loader: str | None  # of the good version; None where there is no text


# Writing


def write_document(
    session: Session, base: KnowledgeBase, source: Source, prepared: PreparedDocument
) -> WriteCounts:
    """Make one document's rows equal to `prepared`, in the session's transaction.

    Raises:
        MissingVectorsError: vectors are not stored; nothing was changed.
        EmbedderMovedError: the base has another embedder by now; nothing was changed.
        KnowledgeBaseNotFoundError: the base was deleted meanwhile.
    """
    if find_base(session, base.id).embedder_id != base.embedder_id:
        raise EmbedderMovedError(base.name)
    embedding_ids = _check_vectors(session, base, prepared)
    row = _find_or_add_row(session, source, prepared.path)
    _replace_version(session, row.id, prepared.loaded if prepared.chunks else None)
    counts = _replace_chunks(session, row, prepared.chunks, embedding_ids)
    row.status = "ready" if prepared.chunks else "empty"
    row.content_hash = prepared.loaded.content_hash
    row.size_bytes = prepared.loaded.size_bytes
    row.stat_key = prepared.stat_key
    row.error = row.failed_hash = row.failed_loader = None
    row.flags = [[flag.kind, flag.detail] for flag in prepared.loaded.flags]
    row.updated_at = now()
    return counts


def _check_vectors(
    session: Session, base: KnowledgeBase, prepared: PreparedDocument
) -> dict[bytes, int]:
    hashes = {chunk.text_hash for chunk in prepared.chunks}
    found = find_embeddings(session, base.embedder_id, hashes)
    if missing := hashes - found.keys():
        raise MissingVectorsError(frozenset(missing))
    return found


def _find_or_add_row(session: Session, source: Source, path: str) -> DocumentRow:
    row = session.scalar(
        select(DocumentRow).where(DocumentRow.source_id == source.id, DocumentRow.path == path)
    )
    if row is None:
        row = DocumentRow(
            id=new_id(),
            kb_id=source.kb_id,
            source_id=source.id,
            path=path,
            status="empty",
            stat_key="",
            size_bytes=0,
            updated_at=now(),
        )
        session.add(row)
        session.flush()
    return row


def _replace_version(session: Session, document_id: str, loaded: LoadedDocument | None) -> None:
    """Store the new text; the old one stays only if a stored answer cites it."""
    for old in session.scalars(
        select(DocumentVersionRow.id).where(
            DocumentVersionRow.document_id == document_id, DocumentVersionRow.is_current
        )
    ).all():
        if is_version_cited(session, old):
            session.execute(
                update(DocumentVersionRow)
                .where(DocumentVersionRow.id == old)
                .values(is_current=False)
            )
        else:
            session.execute(delete(DocumentVersionRow).where(DocumentVersionRow.id == old))
    if loaded is None:
        return
    session.execute(
        insert(DocumentVersionRow).values(
            document_id=document_id,
            is_current=True,
            content_hash=loaded.content_hash,
            text=loaded.text,
            page_starts=list(loaded.pages),
            headings=[[h.start, h.level, h.title] for h in loaded.headings],
            encoding=loaded.encoding,
            encoding_guessed=loaded.encoding_guessed,
            loader=loaded.loader,
            created_at=now(),
        )
    )


def _replace_chunks(
    session: Session,
    row: DocumentRow,
    chunks: Sequence[PreparedChunk],
    embedding_ids: dict[bytes, int],
) -> WriteCounts:
    """Reuse the rows of chunks whose embedded text is the same, add and remove the others."""
    reusable: defaultdict[int, list[int]] = defaultdict(list)
    old = session.execute(
        select(ChunkRow.id, ChunkRow.embedding_id)
        .where(ChunkRow.document_id == row.id)
        .order_by(ChunkRow.position.desc())  # so that pop() takes the first
    )
    for chunk_id, embedding_id in old:
        reusable[embedding_id].append(chunk_id)

    moved: list[dict[str, object]] = []
    added: list[dict[str, object]] = []
    new_chunks: list[PreparedChunk] = []
    for position, chunk in enumerate(chunks):
        embedding_id = embedding_ids[chunk.text_hash]
        place: dict[str, object] = {
            "position": position,
            "start": chunk.start,
            "end": chunk.end,
            "page": chunk.page,
        }
        if reusable[embedding_id]:
            moved.append(place | {"id": reusable[embedding_id].pop()})
        else:
            added.append(
                place
                | {
                    "kb_id": row.kb_id,
                    "document_id": row.id,
                    "embedding_id": embedding_id,
                    "heading": chunk.heading,
                }
            )
            new_chunks.append(chunk)
    removed = [chunk_id for ids in reusable.values() for chunk_id in ids]

    if moved:
        session.execute(update(ChunkRow), moved)
    fulltext = FullText(session, row.kb_id)
    _delete_chunks(session, fulltext, removed)
    added_ids: list[int] = []
    if added:
        added_ids = list(
            session.scalars(
                insert(ChunkRow).returning(ChunkRow.id, sort_by_parameter_order=True), added
            )
        )
    fulltext.add_terms(
        [
            (id_, chunk.heading_terms, chunk.text_terms)
            for id_, chunk in zip(added_ids, new_chunks, strict=True)
        ]
    )
    append_changes(session, row.kb_id, added=added_ids, removed=removed)
    return WriteCounts(added=len(added_ids), reused=len(moved), removed=len(removed))


def _delete_chunks(session: Session, fulltext: FullText, chunk_ids: Sequence[int]) -> None:
    fulltext.remove(chunk_ids)
    for first in range(0, len(chunk_ids), MAX_VALUES):
        session.execute(
            delete(ChunkRow).where(ChunkRow.id.in_(chunk_ids[first : first + MAX_VALUES]))
        )


def record_failure(
    session: Session,
    source: Source,
    path: str,
    *,
    error: str,
    content_hash: str | None,
    loader: str,
    stat_key: str,
) -> None:
    """Remember why a file failed. A good version stays, and the document becomes stale."""
    find_base(session, source.kb_id)
    row = _find_or_add_row(session, source, path)
    if row.content_hash is None:
        row.status = "failed"
    row.error = error
    row.failed_hash = content_hash
    row.failed_loader = loader
    row.stat_key = stat_key
    row.updated_at = now()


def record_unchanged(session: Session, document_id: str, stat_key: str) -> None:
    """Store a file's new times; an earlier failure is forgotten, since the good bytes are back."""
    session.execute(
        update(DocumentRow)
        .where(DocumentRow.id == document_id)
        .values(stat_key=stat_key, error=None, failed_hash=None, failed_loader=None)
    )


def move_document(
    session: Session, document_id: str, *, source: Source, path: str, stat_key: str | None
) -> None:
    """Give a document a new path; its chunks and vectors stay as they are.

    `stat_key` is of the file with the document's good bytes, so an earlier failure is forgotten;
    None keeps what is remembered. A document that was removed meanwhile is left to the next sync.
    """
    remove_documents(
        session,
        source.kb_id,
        session.scalars(
            select(DocumentRow.id).where(
                DocumentRow.source_id == source.id,
                DocumentRow.path == path,
                DocumentRow.id != document_id,
            )
        ).all(),
    )
    row = session.get(DocumentRow, document_id)
    if row is None:
        return
    row.source_id = source.id
    row.path = path
    row.updated_at = now()
    if stat_key is not None:
        row.stat_key = stat_key
        row.error = row.failed_hash = row.failed_loader = None
    session.flush()


def adopt_source(session: Session, inner: Source, *, into: Source, prefix: str) -> None:
    """Move all documents of a source into the one that encloses it, then drop the source.

    A document that the enclosing source already has at that path is the older reading: it goes.
    """
    for document_id, path in session.execute(
        select(DocumentRow.id, DocumentRow.path).where(DocumentRow.source_id == inner.id)
    ):
        move_document(session, document_id, source=into, path=prefix + path, stat_key=None)
    session.execute(delete(SourceRow).where(SourceRow.id == inner.id))


def drop_empty_source(session: Session, source: Source) -> None:
    """Forget a source that has no documents, such as a folder that was moved elsewhere."""
    used = exists().where(DocumentRow.source_id == SourceRow.id)
    session.execute(delete(SourceRow).where(SourceRow.id == source.id, ~used))


def remove_documents(session: Session, kb_id: str, document_ids: Sequence[str]) -> int:
    """Remove documents with all versions, chunks and index rows; redact answers that used them.

    Returns how many chunks were removed. Ids that are gone already are ignored.
    """
    removed = _remove_rows(session, kb_id, document_ids)
    redact_documents(session, document_ids)
    failpoint("documents.removing")
    return removed


def _remove_rows(session: Session, kb_id: str, document_ids: Sequence[str]) -> int:
    n_chunks = 0
    for document_id in document_ids:
        n_chunks += drop_chunks(session, kb_id, document_id)
        session.execute(delete(DocumentRow).where(DocumentRow.id == document_id))
    return n_chunks


def drop_chunks(session: Session, kb_id: str, document_id: str) -> int:
    """Remove a document's chunks and their index rows, not its text; returns how many."""
    chunk_ids = session.scalars(
        select(ChunkRow.id).where(ChunkRow.document_id == document_id)
    ).all()
    _delete_chunks(session, FullText(session, kb_id), chunk_ids)
    append_changes(session, kb_id, added=[], removed=chunk_ids)
    return len(chunk_ids)


# Reading


def known_files(session: Session, source_id: str) -> list[KnownFile]:
    """Return what is remembered of every file of a source."""
    rows: Iterable[Any] = session.execute(
        select(
            DocumentRow.id,
            DocumentRow.source_id,
            DocumentRow.path,
            DocumentRow.status,
            DocumentRow.content_hash,
            DocumentRow.stat_key,
            DocumentRow.error,
            DocumentRow.failed_hash,
            DocumentRow.failed_loader,
            DocumentVersionRow.loader,
        )
        .outerjoin(
            DocumentVersionRow,
            and_(DocumentVersionRow.document_id == DocumentRow.id, DocumentVersionRow.is_current),
        )
        .where(DocumentRow.source_id == source_id)
    )
    return [KnownFile(*row) for row in rows]


def list_documents(
    session: Session,
    kb_id: str,
    *,
    status: str | None = None,
    name_contains: str = "",
    offset: int = 0,
    limit: int = 1000,
) -> tuple[list[Document], int]:
    """Return one page of documents by path, and how many there are in all."""
    conditions = [DocumentRow.kb_id == kb_id]
    if status == "stale":
        conditions += [DocumentRow.status == "ready", DocumentRow.error.is_not(None)]
    elif status:
        conditions.append(DocumentRow.status == status)
    if name_contains:
        needle = unicodedata.normalize("NFC", name_contains)
        conditions.append(DocumentRow.path.contains(needle, autoescape=True))
    total = session.scalar(select(func.count()).select_from(DocumentRow).where(*conditions)) or 0
    rows = session.execute(
        _documents()
        .where(*conditions)
        .order_by(DocumentRow.path, DocumentRow.id)
        .offset(offset)
        .limit(limit)
    )
    return [_record(*row) for row in rows], total


def find_document(session: Session, base: KnowledgeBase, id_or_name: str) -> Document:
    """Return the document with this id, path, displayed name or, of a folder, absolute path.

    Raises:
        DocumentNotFoundError: there is none, or several sources have one at that path.
    """
    name = storable(id_or_name).removeprefix("./")
    rows = session.execute(
        _documents().where(
            DocumentRow.kb_id == base.id,
            or_(
                DocumentRow.id == name,
                DocumentRow.path == name,
                and_(
                    SourceRow.label != "",
                    SourceRow.label + "/" + DocumentRow.path == name,
                ),
                and_(SourceRow.root != "", SourceRow.root + "/" + DocumentRow.path == name),
            ),
        )
    )
    found = [_record(*row) for row in rows]
    if len(found) != 1:
        raise DocumentNotFoundError(id_or_name, base.name)
    return found[0]


def list_chunks(session: Session, document: Document) -> list[Chunk]:
    """Return a document's chunks in order."""
    rows = session.scalars(
        select(ChunkRow).where(ChunkRow.document_id == document.id).order_by(ChunkRow.position)
    ).all()
    if not rows or document.version_id is None:
        return []
    text = version_text(session, document.version_id)
    return [chunk_record(row, document.version_id, text) for row in rows]


def chunk_record(row: ChunkRow, version_id: int, document_text: str) -> Chunk:
    """Return a chunk with its span of the document's current text."""
    return Chunk(
        id=row.id,
        kb_id=row.kb_id,
        document_id=row.document_id,
        version_id=version_id,
        position=row.position,
        start=row.start,
        end=row.end,
        page=row.page,
        heading=row.heading,
        text=document_text[row.start : row.end],
    )


def find_version(session: Session, document: Document, version_id: int | None) -> int | None:
    """Return the version to show: the one asked for, else the current one, None without text.

    Raises:
        VersionNotFoundError: the document has no such version (any more).
    """
    if version_id is None or version_id == document.version_id:
        return document.version_id
    stored = session.scalar(
        select(DocumentVersionRow.id).where(
            DocumentVersionRow.id == version_id, DocumentVersionRow.document_id == document.id
        )
    )
    if stored is None:
        raise VersionNotFoundError(document.name, version_id)
    return stored


def version_text(session: Session, version_id: int) -> str:
    """Return the text of one document version, which never changes."""
    return session.get_one(DocumentVersionRow, version_id).text


def version_pages(session: Session, version_id: int) -> tuple[int, ...]:
    """Return the offsets at which the pages of a version begin; () without pages."""
    return tuple(session.get_one(DocumentVersionRow, version_id).page_starts)


def display_name(source: Source, path: str) -> str:
    """Return a document's path as the user gave it: the folder's spelling, then the path in it."""
    return f"{source.label}/{path}" if source.label else path


def _documents() -> Select[Any]:
    n_chunks = (
        select(func.count())
        .where(ChunkRow.document_id == DocumentRow.id)
        .correlate(DocumentRow)
        .scalar_subquery()
    )
    return (
        select(
            DocumentRow,
            SourceRow,
            DocumentVersionRow.id,
            DocumentVersionRow.encoding,
            DocumentVersionRow.encoding_guessed,
            n_chunks,
        )
        .join(SourceRow, DocumentRow.source_id == SourceRow.id)
        .outerjoin(
            DocumentVersionRow,
            and_(DocumentVersionRow.document_id == DocumentRow.id, DocumentVersionRow.is_current),
        )
    )


def _record(
    row: DocumentRow,
    source_row: SourceRow,
    version_id: int | None,
    encoding: str | None,
    encoding_guessed: bool | None,
    n_chunks: int,
) -> Document:
    status = row.status
    if status not in ("ready", "empty", "failed"):
        raise ValueError(f"document {row.id} has the unknown status {status!r}")
    return Document(
        id=row.id,
        kb_id=row.kb_id,
        source_id=row.source_id,
        path=row.path,
        name=display_name(source_record(source_row), row.path),
        status=status,  # type: ignore[arg-type]
        error=row.error,
        is_stale=status != "failed" and row.error is not None,
        content_hash=row.content_hash,
        version_id=version_id,
        size_bytes=row.size_bytes,
        n_chunks=n_chunks,
        encoding=encoding,
        encoding_guessed=bool(encoding_guessed),
        updated_at=row.updated_at,
        flags=stored_flags(row),
    )


def stored_flags(row: DocumentRow) -> tuple[Flag, ...]:
    """Return the flags of a document."""
    return tuple(Flag(kind, detail) for kind, detail in row.flags)  # type: ignore[arg-type]
