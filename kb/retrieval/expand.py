"""Let passages grow to their neighbours, for an answerer that has room for more context.

A hit stays the chunk that was found. What a chat model reads may be wider: the chunk with those
before and after it in the same document and under the same heading. The wider passage is a span
of the document like any other, ``document_text[start:end] == text``, so that citations into it
are proven the same way. No two passages overlap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from kb.records import Chunk, Passage
from kb.retrieval.hydrate import Version
from kb.storage.tables import ChunkRow
from kb.text.pages import page_at

# Chunks on each side. One completes a sentence, list or table that was cut; more would bring
# other matters.
REACH = 1


def read_neighbours(session: Session, passages: Sequence[Passage]) -> list[ChunkRow]:
    """Return the chunks within `REACH` of the passages, in the documents as they are now."""
    wanted = {
        (passage.hit.chunk.document_id, passage.hit.chunk.position + step)
        for passage in passages
        for step in range(-REACH, REACH + 1)
    }
    documents = {document_id for document_id, _ in wanted}
    positions = {position for _, position in wanted}
    rows = session.scalars(
        select(ChunkRow).where(
            ChunkRow.document_id.in_(documents), ChunkRow.position.in_(positions)
        )
    )
    return [row for row in rows if (row.document_id, row.position) in wanted]


def widened(
    passages: Sequence[Passage],
    neighbours: Sequence[ChunkRow],
    versions: Mapping[int, Version],
    *,
    room_chars: int,
) -> list[Passage]:
    """Return the passages, the best ones wider, in the same order with the same numbers.

    Args:
        passages: in any order; those of the best rank grow first.
        neighbours: as `read_neighbours` gives them; a passage whose own chunk is not among them,
            or stands elsewhere now, has changed meanwhile and stays as it is.
        versions: the documents' texts by version id.
        room_chars: how many characters may be added in all.
    """
    rows = {(row.document_id, row.position): row for row in neighbours}
    taken = {(p.hit.chunk.document_id, p.hit.chunk.position) for p in passages}
    wide_by_number = {}
    for passage in sorted(passages, key=lambda passage: passage.hit.rank):
        chunk = passage.hit.chunk
        version = versions.get(chunk.version_id)
        own = rows.get((chunk.document_id, chunk.position))
        start, end = chunk.start, chunk.end
        if version is not None and own is not None and _is_same(own, chunk):
            for step in (1, -1):  # what follows explains more often than what stands before
                for distance in range(1, REACH + 1):
                    key = (chunk.document_id, chunk.position + step * distance)
                    row = rows.get(key)
                    if row is None or key in taken or row.heading != chunk.heading:
                        break
                    size = row.end - row.start
                    if size > room_chars or (row.start != end and row.end != start):
                        break
                    room_chars -= size
                    taken.add(key)
                    start, end = min(start, row.start), max(end, row.end)
        if (start, end) != (chunk.start, chunk.end) and version is not None:
            wide = replace(
                chunk,
                start=start,
                end=end,
                page=page_at(version.pages, start),
                text=version.text[start:end],
            )
            passage = replace(passage, hit=replace(passage.hit, chunk=wide))
        wide_by_number[passage.number] = passage
    return [wide_by_number[passage.number] for passage in passages]


def _is_same(row: ChunkRow, chunk: Chunk) -> bool:
    return row.id == chunk.id and (row.start, row.end) == (chunk.start, chunk.end)
