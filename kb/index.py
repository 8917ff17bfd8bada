"""FAISS: the dense retriever as a view of the change log.

`FaissIndex` is the index itself: flat inner product over float16 vectors with our chunk ids
(Douze et al. 2024, "The Faiss library", arXiv 2401.08281). The database stores float16 too, so
nothing is lost. `IndexView` keeps one such index equal to the database for one knowledge base:

    open     newest snapshot that the database names and whose checksum agrees, else all vectors
    search   ask for events past our own seq first, apply them, then search
    save     write a snapshot, sync, rename, and only then name it in the database

Deleting the index folder is harmless; `kill -9` costs a replay. No pickle is involved. The only
file that imports faiss.
"""

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from kb.errors import IndexCorruptError, KnowledgeBaseDeletedError, StorageError
from kb.failpoints import failpoint
from kb.protocols import Vectors
from kb.records import KnowledgeBase
from kb.storage.bases import new_id, now
from kb.storage.changes import log_state, read_changes, trim_log
from kb.storage.database import Database
from kb.storage.durable import flush_to_disk
from kb.storage.embeddings import from_bytes
from kb.storage.tables import ChunkRow, EmbeddingRow, SnapshotRow

logger = logging.getLogger(__name__)

# Snapshots kept: the newest and one to fall back on.
KEPT_SNAPSHOTS = 2
# Events after which a snapshot is worth writing: replaying fewer takes milliseconds.
SNAPSHOT_AFTER_EVENTS = 2000
# Files that no database row names are deleted when older: a writer may be at work on newer ones.
ABANDONED_AFTER_S = 3600
_LOAD_ROWS = 20_000
_SUFFIX = ".faiss"


class FaissIndex:
    """Flat inner product with chunk ids. Not thread-safe; `IndexView` locks."""

    def __init__(self, dimension: int, index: Any = None) -> None:
        self.dimension = dimension
        if index is None:
            flat = faiss.IndexScalarQuantizer(
                dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
            )
            index = faiss.IndexIDMap(flat)
            self._flat = flat  # the map does not own it
        self._index = index
        self._ids: set[int] = set(self.ids())

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def ids(self) -> list[int]:
        """Return the chunk ids held, in storage order."""
        return [int(id_) for id_ in faiss.vector_to_array(self._index.id_map)]

    def add(self, ids: Sequence[int], vectors: Vectors) -> None:
        """Add chunks; `vectors` is (N, E) float32, unit rows; an id present is replaced."""
        if not len(ids):
            return
        if vectors.shape != (len(ids), self.dimension):
            raise ValueError(f"{len(ids)} ids, {self.dimension} dimensions, got {vectors.shape}")
        self.remove(ids)
        self._index.add_with_ids(
            np.ascontiguousarray(vectors, dtype=np.float32), np.asarray(ids, dtype=np.int64)
        )
        self._ids.update(ids)

    def remove(self, ids: Sequence[int]) -> None:
        """Forget chunks; unknown ids are ignored. One pass over the index."""
        present = self._ids.intersection(ids)
        if present:
            self._index.remove_ids(np.fromiter(present, dtype=np.int64))
            self._ids -= present

    def search(self, vector: Vectors, top_k: int) -> list[tuple[int, float]]:
        """Return ``(chunk_id, cosine)`` best first; at most `top_k`; `vector` is (E,)."""
        if not len(self) or top_k < 1:
            return []
        # One query is too little work to share: with two threads it takes longer than with one.
        faiss.omp_set_num_threads(1)
        query = np.ascontiguousarray(vector, dtype=np.float32).reshape(1, -1)
        scores, ids = self._index.search(query, min(top_k, len(self)))
        return [
            (int(id_), float(score))
            for id_, score in zip(ids[0], scores[0], strict=True)
            if id_ >= 0
        ]

    def vectors(self) -> Vectors:
        """Return all vectors as (N, E) float32 in the order of `ids`, for `kb verify`."""
        flat: Any = faiss.downcast_index(self._index.index)
        codes = faiss.vector_to_array(flat.codes)
        return codes.view("<f2").reshape(-1, self.dimension).astype(np.float32)

    def write(self, path: Path) -> None:
        # Not by its name: of a file that cannot be closed, as on a full disk, faiss only prints.
        with path.open("wb") as file:
            writer: Any = faiss.PyCallbackIOWriter(file.write)  # type: ignore[attr-defined]
            faiss.write_index(self._index, writer)

    @classmethod
    def read(cls, path: Path, dimension: int) -> "FaissIndex":
        """Read a snapshot.

        Raises:
            IndexCorruptError: the file is not an index of ours with this dimension.
        """
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as exc:
            raise IndexCorruptError(f"{path.name} is not a readable index") from exc
        if not isinstance(index, faiss.IndexIDMap) or index.d != dimension:
            raise IndexCorruptError(f"{path.name} holds another kind of index")
        return cls(dimension, index)


class IndexView:
    """One knowledge base's index, kept equal to the database. Safe to share between threads."""

    def __init__(self, database: Database, base: KnowledgeBase, folder: Path) -> None:
        self._database = database
        self._kb_id = base.id
        self._name = base.name  # for messages only: it may have changed since
        self._dimension = base.embedder.dimension
        self._folder = folder
        self._lock = threading.Lock()  # held while the index is read or changed
        self._index: FaissIndex | None = None
        self._seq = 0

    def search(self, vector: Vectors, top_k: int) -> list[tuple[int, float]]:
        """Catch up with the database, then return ``(chunk_id, cosine)`` best first."""
        with self._lock:
            return self._caught_up().search(vector, top_k)

    def open(self) -> int:
        """Load and catch up now; return the number of chunks."""
        with self._lock:
            return len(self._caught_up())

    def contents(self) -> tuple[list[int], Vectors]:
        """Return ids and vectors as a search would see them, for `kb verify`."""
        with self._lock:
            index = self._caught_up()
            return index.ids(), index.vectors()

    def check_snapshots(self) -> list[str]:
        """Return what is wrong with the files that the database names; [] when sound."""
        with self._database.read() as session:
            snapshots = session.scalars(
                select(SnapshotRow).where(SnapshotRow.kb_id == self._kb_id)
            ).all()
        problems = []
        for snapshot in snapshots:
            try:
                self._read_snapshot(snapshot)
            except (IndexCorruptError, OSError) as exc:
                problems.append(f"snapshot at seq {snapshot.seq}: {exc}")
        return problems

    def reset(self) -> None:
        """Forget the index and all snapshots; the next use builds it from stored vectors."""
        with self._database.write() as session:
            session.execute(delete(SnapshotRow).where(SnapshotRow.kb_id == self._kb_id))
        with self._lock:
            self._index = None

    def save_if_worthwhile(self) -> bool:
        """Write a snapshot when many events have come since the last one; tell whether."""
        with self._database.read() as session:
            newest = session.scalar(
                select(SnapshotRow.seq)
                .where(SnapshotRow.kb_id == self._kb_id)
                .order_by(SnapshotRow.seq.desc())
                .limit(1)
            )
            state = log_state(session, self._kb_id)
        if state is None or state.head - (newest or 0) < SNAPSHOT_AFTER_EVENTS:
            return False
        self.save()
        return True

    def save(self) -> None:
        """Write a snapshot of the database's present state and trim the log behind it.

        Raises:
            StorageError: the index folder cannot be written; the database is unharmed.
        """
        snapshot_id = new_id()
        path = self._path(snapshot_id)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._lock:
                index = self._caught_up()
                seq, n_chunks = self._seq, len(index)
                unfinished = path.with_suffix(".tmp")
                index.write(unfinished)
            failpoint("index.written")
            checksum = _sha256(unfinished)
            flush_to_disk(unfinished)
            os.replace(unfinished, path)
            flush_to_disk(self._folder)
            failpoint("index.renamed")
        except (OSError, RuntimeError) as exc:
            path.with_suffix(".tmp").unlink(missing_ok=True)
            raise StorageError(
                f"cannot write an index snapshot to {str(self._folder)!r} ({exc}); nothing is "
                "lost, the index is rebuilt from the database when needed"
            ) from exc
        try:
            dropped = self._name_snapshot(
                snapshot_id, seq=seq, n_chunks=n_chunks, checksum=checksum
            )
        except (StorageError, KnowledgeBaseDeletedError):  # a full disk needs the room now
            path.unlink(missing_ok=True)
            raise
        failpoint("index.named")
        self._delete_files(dropped)

    def _caught_up(self) -> FaissIndex:
        """Return the index with all events applied. The lock is held by the caller."""
        with self._database.read() as session:
            state = log_state(session, self._kb_id)
            if state is None:
                raise KnowledgeBaseDeletedError(self._name)
            if self._index is None or self._seq < state.floor:
                self._index, self._seq = self._load(session, state.floor)
            if self._seq < state.head:
                replay = read_changes(session, self._kb_id, self._seq)
                self._index.remove(replay.removed)
                self._index.add(replay.added_ids, from_bytes(replay.added_vectors, self._dimension))
                self._seq = replay.seq
            return self._index

    def _load(self, session: Session, floor: int) -> tuple[FaissIndex, int]:
        """Return the newest good snapshot with its seq, else all vectors of the database."""
        snapshots = session.scalars(
            select(SnapshotRow)
            .where(SnapshotRow.kb_id == self._kb_id, SnapshotRow.seq >= floor)
            .order_by(SnapshotRow.seq.desc())
        ).all()
        for snapshot in snapshots:
            try:
                return self._read_snapshot(snapshot), snapshot.seq
            except (IndexCorruptError, OSError) as exc:
                logger.warning(
                    "index snapshot %s of knowledge base %s is not usable (%s); "
                    "falling back, nothing is lost",
                    snapshot.id,
                    self._kb_id,
                    exc,
                )
        return self._rebuild(session)

    def _read_snapshot(self, snapshot: SnapshotRow) -> FaissIndex:
        path = self._path(snapshot.id)
        if _sha256(path) != snapshot.sha256:
            raise IndexCorruptError(f"{path.name} does not match its checksum")
        index = FaissIndex.read(path, self._dimension)
        if len(index) != snapshot.n_chunks:
            raise IndexCorruptError(f"{path.name} holds {len(index)}, not {snapshot.n_chunks}")
        return index

    def _rebuild(self, session: Session) -> tuple[FaissIndex, int]:
        """Fill a new index from the stored vectors. The embedder is not needed."""
        state = log_state(session, self._kb_id)
        assert state is not None, self._kb_id
        index = FaissIndex(self._dimension)
        rows = session.execute(
            select(ChunkRow.id, EmbeddingRow.vector)
            .join(EmbeddingRow, ChunkRow.embedding_id == EmbeddingRow.id)
            .where(ChunkRow.kb_id == self._kb_id)
            .order_by(ChunkRow.id)
            .execution_options(yield_per=_LOAD_ROWS)
        )
        for part in rows.partitions(_LOAD_ROWS):
            index.add(
                [id_ for id_, _ in part], from_bytes([blob for _, blob in part], self._dimension)
            )
        return index, state.head

    def _name_snapshot(
        self, snapshot_id: str, *, seq: int, n_chunks: int, checksum: str
    ) -> set[str]:
        """Make the snapshot count; return the ids of older ones that no longer do."""
        with self._database.write() as session:
            if log_state(session, self._kb_id) is None:
                raise KnowledgeBaseDeletedError(self._name)
            session.add(
                SnapshotRow(
                    id=snapshot_id,
                    kb_id=self._kb_id,
                    seq=seq,
                    n_chunks=n_chunks,
                    sha256=checksum,
                    created_at=now(),
                )
            )
            session.flush()
            snapshots = session.execute(
                select(SnapshotRow.id, SnapshotRow.seq)
                .where(SnapshotRow.kb_id == self._kb_id)
                .order_by(SnapshotRow.seq.desc(), SnapshotRow.id)
            ).all()
            dropped = {row.id for row in snapshots[KEPT_SNAPSHOTS:]}
            session.execute(delete(SnapshotRow).where(SnapshotRow.id.in_(dropped)))
            trim_log(session, self._kb_id, floor=snapshots[:KEPT_SNAPSHOTS][-1].seq)
        return dropped

    def _delete_files(self, dropped: set[str]) -> None:
        """Delete snapshots that no longer count, and files that a killed writer left behind."""
        with self._database.read() as session:
            named = set(
                session.scalars(select(SnapshotRow.id).where(SnapshotRow.kb_id == self._kb_id))
            )
        for path in self._folder.iterdir():
            with contextlib.suppress(OSError):
                is_old = time.time() - path.stat().st_mtime > ABANDONED_AFTER_S
                if path.stem in dropped or (is_old and path.stem not in named):
                    path.unlink()

    def _path(self, snapshot_id: str) -> Path:
        return self._folder / (snapshot_id + _SUFFIX)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
