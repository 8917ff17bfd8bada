"""Moving a knowledge base to another embedder: which vectors are missing, and the swap.

Vectors are keyed by embedder and text, so those of the new embedder are stored beside the old ones
while searches go on with these. The swap is one transaction: the base's embedder, the vector
of each chunk, and a log that starts anew, so that every index is opened again.
"""

from dataclasses import dataclass

from sqlalchemy import Select, delete, exists, select, update
from sqlalchemy.orm import Session, aliased

from kb.embedder import embedded_text, text_hash
from kb.errors import KBError
from kb.failpoints import failpoint
from kb.storage.bases import find_base
from kb.storage.changes import log_state, trim_log
from kb.storage.tables import (
    ChunkRow,
    DocumentRow,
    DocumentVersionRow,
    EmbeddingRow,
    KnowledgeBaseRow,
    SnapshotRow,
)


@dataclass(frozen=True, slots=True)
class Swap:
    """What the swap did. `snapshots` are the ids of index files that count no longer."""

    chunks: int
    snapshots: frozenset[str]


def missing_strings(session: Session, embedder_id: int, document_id: str) -> dict[bytes, str]:
    """Return the strings of a document that have no vector of this embedder, by hash.

    Raises:
        KBError: its text is not what its vectors were made of, which `kb verify --repair` mends.
    """
    rows = session.execute(_missing(embedder_id).where(ChunkRow.document_id == document_id)).all()
    if not rows:
        return {}
    text = session.scalar(
        select(DocumentVersionRow.text).where(
            DocumentVersionRow.document_id == document_id, DocumentVersionRow.is_current
        )
    )
    strings = {key: embedded_text(heading, (text or "")[a:b]) for key, a, b, heading in rows}
    if any(text_hash(string) != key for key, string in strings.items()):
        path = session.scalar(select(DocumentRow.path).where(DocumentRow.id == document_id))
        raise KBError(
            f"the stored text of {path!r} is not what its vectors were made of; run "
            "`kb verify --repair` first"
        )
    return strings


def swap_embedder(session: Session, kb_id: str, embedder_id: int) -> Swap | None:
    """Give a base and all of its chunks this embedder, in the session's transaction.

    Weights that were measured for the old embedder go. None, and nothing is changed, while
    vectors are missing.

    Raises:
        KnowledgeBaseNotFoundError
    """
    find_base(session, kb_id)
    missing = _missing(embedder_id).where(ChunkRow.kb_id == kb_id).limit(1)
    if session.execute(missing).first() is not None:
        return None
    old, new = aliased(EmbeddingRow), aliased(EmbeddingRow)
    counterpart = (
        select(new.id)
        .join(old, (old.text_hash == new.text_hash) & (new.embedder_id == embedder_id))
        .where(old.id == ChunkRow.embedding_id)
        .scalar_subquery()
    )
    changed = session.execute(
        update(ChunkRow)
        .where(ChunkRow.kb_id == kb_id)
        .values(embedding_id=counterpart)
        .execution_options(synchronize_session=False)
    )
    snapshots = frozenset(session.scalars(select(SnapshotRow.id).where(SnapshotRow.kb_id == kb_id)))
    session.execute(delete(SnapshotRow).where(SnapshotRow.kb_id == kb_id))
    session.execute(
        update(KnowledgeBaseRow)
        .where(KnowledgeBaseRow.id == kb_id)
        .values(
            embedder_id=embedder_id,
            last_seq=KnowledgeBaseRow.last_seq + 1,
            channel_weights=None,
            calibration_report=None,
        )
    )
    state = log_state(session, kb_id)
    assert state is not None, kb_id
    trim_log(session, kb_id, floor=state.head)  # every reader is behind it now
    failpoint("move.swapping")
    return Swap(int(changed.rowcount), snapshots)  # type: ignore[attr-defined]


def _missing(embedder_id: int) -> Select[bytes, int, int, str]:
    old, new = aliased(EmbeddingRow), aliased(EmbeddingRow)
    has = exists().where(new.embedder_id == embedder_id, new.text_hash == old.text_hash)
    return (
        select(old.text_hash, ChunkRow.start, ChunkRow.end, ChunkRow.heading)
        .join(old, ChunkRow.embedding_id == old.id)
        .where(~has)
    )
