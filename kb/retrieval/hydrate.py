"""Read found chunks back from the database, which alone says what still exists.

First the places of all candidates, which is cheap; then the texts of those that are shown. Texts
are read by document version and kept, since versions never change.
"""

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from kb.records import Chunk
from kb.storage.tables import ChunkRow, DocumentRow, DocumentVersionRow, SourceRow

# Texts of documents kept in memory, by version.
CACHED_TEXT_CHARS = 32_000_000


@dataclass(frozen=True, slots=True)
class Place:
    """A chunk without its text, its document as displayed, and the document's version."""

    chunk: Chunk
    document: str
    version_id: int


@dataclass(frozen=True, slots=True)
class Version:
    """The text and page starts of one document version."""

    text: str
    pages: tuple[int, ...]


class VersionCache:
    """Document versions by id. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._versions: OrderedDict[int, Version] = OrderedDict()
        self._chars = 0

    def read(self, session: Session, ids: Collection[int]) -> dict[int, Version]:
        """Return those of the versions that exist."""
        wanted = set(ids)
        with self._lock:
            versions = {id_: self._versions[id_] for id_ in wanted & self._versions.keys()}
            for id_ in versions:
                self._versions.move_to_end(id_)
        if missing := wanted - versions.keys():
            rows = session.execute(
                select(
                    DocumentVersionRow.id, DocumentVersionRow.text, DocumentVersionRow.page_starts
                ).where(DocumentVersionRow.id.in_(missing))
            )
            read = {id_: Version(text=text, pages=tuple(starts)) for id_, text, starts in rows}
            self._remember(read)
            versions |= read
        return versions

    def _remember(self, versions: Mapping[int, Version]) -> None:
        with self._lock:
            for id_ in versions.keys() - self._versions.keys():
                self._versions[id_] = versions[id_]
                self._chars += len(versions[id_].text)
            while self._chars > CACHED_TEXT_CHARS and len(self._versions) > 1:
                _, oldest = self._versions.popitem(last=False)
                self._chars -= len(oldest.text)


def read_places(
    session: Session, kb_ids: Sequence[str], chunk_ids: Sequence[int]
) -> dict[int, Place]:
    """Return the place of each chunk that is still there."""
    # Columns, not rows as objects: those cost more than all the rest.
    rows = session.execute(
        select(
            ChunkRow.id,
            ChunkRow.kb_id,
            ChunkRow.document_id,
            DocumentVersionRow.id,
            ChunkRow.position,
            ChunkRow.start,
            ChunkRow.end,
            ChunkRow.page,
            ChunkRow.heading,
            SourceRow.label,
            DocumentRow.path,
        )
        .join(DocumentRow, ChunkRow.document_id == DocumentRow.id)
        .join(SourceRow, DocumentRow.source_id == SourceRow.id)
        .join(DocumentVersionRow, DocumentVersionRow.document_id == DocumentRow.id)
        .where(
            ChunkRow.id.in_(chunk_ids),
            ChunkRow.kb_id.in_(kb_ids),
            DocumentVersionRow.is_current,
        )
    )
    return {
        row[0]: Place(
            Chunk(*row[:9], text=""), f"{row[9]}/{row[10]}" if row[9] else row[10], row[3]
        )
        for row in rows
    }


def read_chunk(place: Place, version: Version) -> Chunk:
    """Return a chunk with its text, which is a span of its document's."""
    chunk = place.chunk
    return replace(chunk, text=version.text[chunk.start : chunk.end])
