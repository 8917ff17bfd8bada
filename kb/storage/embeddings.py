"""Vectors, stored once for each embedded string and embedder, as float16.

A vector is found by the hash of the exact string that was embedded, so the same text is never
embedded twice, wherever it stands, and an interrupted job goes on where it stopped.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from kb.protocols import Vectors
from kb.storage.sqlite import MAX_VALUES, insert_new
from kb.storage.tables import ChunkRow, EmbeddingRow, KnowledgeBaseRow

_STORED = np.dtype("<f2")


def to_bytes(vector: Vectors) -> bytes:
    """Return one vector, (E,), as little-endian float16."""
    return vector.astype(_STORED).tobytes()


def from_bytes(blobs: Iterable[bytes], dimension: int) -> Vectors:
    """Return stored vectors as (N, E) float32."""
    joined = b"".join(blobs)
    return np.frombuffer(joined, dtype=_STORED).reshape(-1, dimension).astype(np.float32)


def find_embeddings(
    session: Session, embedder_id: int, hashes: Iterable[bytes]
) -> dict[bytes, int]:
    """Return the embedding id of each hash that is stored."""
    wanted = list(dict.fromkeys(hashes))
    found: dict[bytes, int] = {}
    for first in range(0, len(wanted), MAX_VALUES):
        rows = session.execute(
            select(EmbeddingRow.text_hash, EmbeddingRow.id).where(
                EmbeddingRow.embedder_id == embedder_id,
                EmbeddingRow.text_hash.in_(wanted[first : first + MAX_VALUES]),
            )
        )
        found.update(rows.all())
    return found


def store_embeddings(session: Session, embedder_id: int, vectors: Mapping[bytes, Vectors]) -> None:
    """Store new vectors by hash; one that another process stored meanwhile is kept."""
    if not vectors:
        return
    session.execute(
        insert_new(EmbeddingRow),
        [
            {"embedder_id": embedder_id, "text_hash": key, "vector": to_bytes(vector)}
            for key, vector in vectors.items()
        ],
    )


def sweep_embeddings(session: Session, *, embedder_id: int | None = None) -> int:
    """Delete vectors that no chunk uses; only sound while no other job is live.

    With an `embedder_id` only those of it and of embedders that bases have: a move to another
    embedder may have been killed, and goes on where it stopped.
    """
    used = exists().where(ChunkRow.embedding_id == EmbeddingRow.id)
    unused = delete(EmbeddingRow).where(~used)
    if embedder_id is not None:
        unused = unused.where(
            EmbeddingRow.embedder_id.in_(select(KnowledgeBaseRow.embedder_id))
            | (EmbeddingRow.embedder_id == embedder_id)
        )
    result = session.execute(unused)
    return int(result.rowcount)  # type: ignore[attr-defined]


def replace_embeddings(
    session: Session, embedder_id: int, vectors: Mapping[bytes, Vectors]
) -> None:
    """Store vectors by hash, in place of stored ones: for a repair of damaged rows."""
    store_embeddings(session, embedder_id, vectors)
    for key, vector in vectors.items():
        session.execute(
            update(EmbeddingRow)
            .where(EmbeddingRow.embedder_id == embedder_id, EmbeddingRow.text_hash == key)
            .values(vector=to_bytes(vector))
        )
