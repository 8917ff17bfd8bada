"""The change log: what an index must know to follow the database.

Each chunk added or removed appends an event in the transaction that changes the chunk. `seq`
counts per knowledge base; readers ask for the events past their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from kb.errors import KnowledgeBaseNotFoundError
from kb.storage.sqlite import MAX_VALUES
from kb.storage.tables import ChangeRow, ChunkRow, EmbeddingRow, KnowledgeBaseRow

ADD = 1
REMOVE = -1


@dataclass(frozen=True, slots=True)
class LogState:
    """Events with ``floor < seq <= head`` are in the log."""

    floor: int
    head: int


@dataclass(frozen=True, slots=True)
class Replay:
    """What a reader must do to reach `seq`: forget `removed`, then add the parallel lists."""

    seq: int
    removed: tuple[int, ...]
    added_ids: tuple[int, ...]
    added_vectors: tuple[bytes, ...]


def append_changes(
    session: Session, kb_id: str, *, added: Sequence[int], removed: Sequence[int]
) -> None:
    """Append events for chunk ids, removals first."""
    events = [(id_, REMOVE) for id_ in removed] + [(id_, ADD) for id_ in added]
    if not events:
        return
    head = session.scalar(
        update(KnowledgeBaseRow)
        .where(KnowledgeBaseRow.id == kb_id)
        .values(last_seq=KnowledgeBaseRow.last_seq + len(events))
        .returning(KnowledgeBaseRow.last_seq)
    )
    if head is None:
        raise KnowledgeBaseNotFoundError(kb_id, [])
    first = head - len(events) + 1
    session.execute(
        insert(ChangeRow),
        [
            {"kb_id": kb_id, "seq": first + i, "chunk_id": id_, "op": op}
            for i, (id_, op) in enumerate(events)
        ],
    )


def log_state(session: Session, kb_id: str) -> LogState | None:
    """Return the log's floor and head; None when the knowledge base is gone."""
    row = session.execute(
        select(KnowledgeBaseRow.log_floor, KnowledgeBaseRow.last_seq).where(
            KnowledgeBaseRow.id == kb_id
        )
    ).one_or_none()
    return LogState(floor=row[0], head=row[1]) if row else None


def read_changes(session: Session, kb_id: str, after: int, *, limit: int | None = None) -> Replay:
    """Return the events past `after`: the last one of each chunk wins, lost chunks are skipped.

    At most `limit` events, if one is given: a chunk that a later event removes is lost already.
    """
    last: dict[int, int] = {}
    seq = after
    rows = session.execute(
        select(ChangeRow.seq, ChangeRow.chunk_id, ChangeRow.op)
        .where(ChangeRow.kb_id == kb_id, ChangeRow.seq > after)
        .order_by(ChangeRow.seq)
        .limit(limit)
    )
    for seq, chunk_id, op in rows:  # noqa: B007 - the last seq is used below
        last[chunk_id] = op
    added = [chunk_id for chunk_id, op in last.items() if op == ADD]
    ids: list[int] = []
    vectors: list[bytes] = []
    for first in range(0, len(added), MAX_VALUES):
        found = session.execute(
            select(ChunkRow.id, EmbeddingRow.vector)
            .join(EmbeddingRow, ChunkRow.embedding_id == EmbeddingRow.id)
            .where(ChunkRow.id.in_(added[first : first + MAX_VALUES]))
            .order_by(ChunkRow.id)
        )
        for chunk_id, vector in found:
            ids.append(chunk_id)
            vectors.append(vector)
    return Replay(seq=seq, removed=tuple(last), added_ids=tuple(ids), added_vectors=tuple(vectors))


def trim_log(session: Session, kb_id: str, floor: int) -> None:
    """Drop events at or below `floor`; a reader behind it opens anew."""
    session.execute(delete(ChangeRow).where(ChangeRow.kb_id == kb_id, ChangeRow.seq <= floor))
    session.execute(
        update(KnowledgeBaseRow)
        .where(KnowledgeBaseRow.id == kb_id, KnowledgeBaseRow.log_floor < floor)
        .values(log_floor=floor)
    )
