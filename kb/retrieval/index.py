"""FAISS: the dense retriever as a view of the change log.

`FaissIndex` is the index itself, over float16 vectors with our chunk ids (Douze et al. 2024, "The
Faiss library", arXiv 2401.08281). The database stores float16 too, so nothing is lost and every
score is the cosine. It has two forms, and its file says which:

    flat     exact: a search reads every vector; up to `FLAT_CHUNKS`
    lists    inverted lists around trained centres (IVF): a search reads the nearest lists

`IndexView` keeps one such index equal to the database for one knowledge base:

    open     newest snapshot that the database names and whose checksum agrees, else all vectors
    search   ask for events past our own seq first, apply them, then search
    save     write a snapshot, sync, rename, and only then name it in the database

A base that is moved to another embedder (`kb.storage.moves`) raises its log's floor above every
seq so far, so that each reader opens anew and holds vectors of one embedder only; a search with
a vector of the other one is refused.

Saving works on a copy, so searches go on meanwhile. Only saving trains: opening without a snapshot
fills a flat index, which is exact and slower. Deleting the index folder is harmless; `kill -9`
costs a replay. No pickle is involved. The only file that imports faiss.
"""

import contextlib
import hashlib
import logging
import math
import os
import threading
import time
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from kb.errors import (
    EmbedderMovedError,
    IndexCorruptError,
    KnowledgeBaseDeletedError,
    StorageError,
)
from kb.failpoints import failpoint
from kb.protocols import ChunkIds, Vectors
from kb.records import KnowledgeBase
from kb.storage.bases import new_id, now
from kb.storage.changes import log_state, read_changes, trim_log
from kb.storage.database import Database
from kb.storage.durable import flush_to_disk
from kb.storage.embeddings import from_bytes
from kb.storage.tables import (
    ChunkRow,
    EmbedderRow,
    EmbeddingRow,
    KnowledgeBaseRow,
    SnapshotRow,
)

logger = logging.getLogger(__name__)

# Above this a flat search, 1 ms per 10,000 chunks of 384 dimensions, costs more than all else.
FLAT_CHUNKS = 100_000
# Lists are trained again when the base has so many times the chunks that they were made for.
GROWTH = 2
# The share of lists that a search reads, and the least number of them. Recall and time for each
# share: benchmarks/README.md.
PROBED_SHARE = 1 / 5
MIN_PROBES = 16
# Vectors that each centre is trained on: FAISS wants 39 at least, more than 256 change nothing.
TRAINED_PER_LIST = 64

# Snapshots kept: the newest and one to fall back on.
KEPT_SNAPSHOTS = 2
# Events after which a snapshot is worth writing: replaying fewer takes milliseconds.
SNAPSHOT_AFTER_EVENTS = 2000
# In a large base it is this share of its chunks: all of it is written anew each time.
SNAPSHOT_AFTER_SHARE = 1 / 50
# Events applied at a time: bounds the memory of a replay.
REPLAYED_EVENTS = 20_000
# Files that no database row names are deleted when older: a writer may be at work on newer ones.
ABANDONED_AFTER_S = 3600
_LOAD_ROWS = 20_000
_SUFFIX = ".faiss"

Halves = npt.NDArray[np.float16]


def lists_for(n_chunks: int, has: int, flat_chunks: int = FLAT_CHUNKS) -> int:
    """Return how many lists an index of `n_chunks` should have, 0 for flat.

    As many lists as chunks in each, on average: reading the centres then costs what reading one
    list does. An index keeps the lists that it `has` until it has outgrown them.
    """
    if n_chunks <= (flat_chunks // 2 if has else flat_chunks):
        return 0
    if has and n_chunks <= GROWTH * has**2:
        return has
    return math.isqrt(n_chunks)


class FaissIndex:
    """Inner product with chunk ids, flat or in lists. Not thread-safe; `IndexView` locks."""

    def __init__(self, dimension: int, index: Any = None) -> None:
        self.dimension = dimension
        self._inner: Any = None  # what FAISS only points to: kept alive here
        if index is None:
            self._inner = faiss.IndexScalarQuantizer(
                dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
            )
            index = faiss.IndexIDMap(self._inner)
        self._index = index
        if self.lists:
            index.nprobe = max(MIN_PROBES, math.ceil(PROBED_SHARE * self.lists))
        self._ids: set[int] = set(self.ids())

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def lists(self) -> int:
        """How many lists hold the vectors; 0 for the flat form."""
        return 0 if isinstance(self._index, faiss.IndexIDMap) else int(self._index.nlist)

    def ids(self) -> list[int]:
        """Return the chunk ids held, in storage order."""
        return [int(id_) for ids, _ in self._parts() for id_ in ids]

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

    def search(
        self, vector: Vectors, top_k: int, allowed: ChunkIds | None = None
    ) -> list[tuple[int, float]]:
        """Return ``(chunk_id, cosine)`` best first; at most `top_k`; `vector` is (E,).

        Only chunks of `allowed` are found, where that is given; then every list is read.
        """
        if not len(self) or top_k < 1:
            return []
        # One query is too little work to share: with two threads it takes longer than with one.
        faiss.omp_set_num_threads(1)
        query = np.ascontiguousarray(vector, dtype=np.float32).reshape(1, -1)
        options = None if allowed is None else self._only(allowed)
        scores, ids = self._index.search(query, min(top_k, len(self)), params=options)
        return [
            (int(id_), float(score))
            for id_, score in zip(ids[0], scores[0], strict=True)
            if id_ >= 0
        ]

    def _only(self, allowed: ChunkIds) -> Any:
        """Return FAISS's options for a search among these chunks."""
        makers: Any = faiss  # its type stubs know no arguments
        selector = makers.IDSelectorBatch(np.ascontiguousarray(allowed, dtype=np.int64))
        if self.lists:  # the nearest lists may hold none of them
            return makers.SearchParametersIVF(sel=selector, nprobe=self.lists)
        return makers.SearchParameters(sel=selector)

    def vectors(self) -> Vectors:
        """Return all vectors as (N, E) float32 in the order of `ids`, for `kb verify`."""
        rows = np.empty((len(self), self.dimension), dtype=np.float32)
        first = 0
        for ids, halves in self._parts():
            rows[first : first + len(ids)] = halves
            first += len(ids)
        return rows

    def arranged(self, lists: int) -> "FaissIndex":
        """Return a new index of the same vectors in so many trained lists, or flat for 0.

        The same contents in the same order give the same centres.
        """
        if not lists:
            made = FaissIndex(self.dimension)
        else:
            centres = faiss.IndexFlatIP(self.dimension)
            index = faiss.IndexIVFScalarQuantizer(
                centres,
                self.dimension,
                lists,
                faiss.ScalarQuantizer.QT_fp16,
                faiss.METRIC_INNER_PRODUCT,
                False,  # the vectors themselves, not their distance from a centre
            )
            index.cp.spherical = True  # centres of unit vectors by angle
            index.train(self._sample(TRAINED_PER_LIST * lists))
            made = FaissIndex(self.dimension, index)
            made._inner = centres
        for ids, halves in self._parts():
            made.add(ids.tolist(), halves.astype(np.float32))
        return made

    def _sample(self, n: int) -> Vectors:
        """Return about `n` vectors, evenly spaced in storage order."""
        step = max(1, len(self) // n)
        taken, first = [], 0
        for ids, halves in self._parts():
            taken.append(halves[-first % step :: step])
            first += len(ids)
        return np.concatenate(taken).astype(np.float32)

    def _parts(self) -> Iterator[tuple[npt.NDArray[np.int64], Halves]]:
        """Yield ids and vectors part by part, in storage order, without copying the vectors."""
        if self.lists:
            lists = self._index.invlists
            for i in range(self.lists):
                if n := lists.list_size(i):  # the pointers of an empty list lead nowhere
                    ids = faiss.rev_swig_ptr(lists.get_ids(i), n)
                    yield ids, self._halves(lists.get_codes(i), n)
        elif len(self):
            flat: Any = faiss.downcast_index(self._index.index)
            ids = faiss.vector_to_array(self._index.id_map)
            halves = self._halves(flat.codes.data(), len(ids))
            for first in range(0, len(ids), _LOAD_ROWS):
                rows = slice(first, first + _LOAD_ROWS)
                yield ids[rows], halves[rows]

    def _halves(self, codes: Any, n: int) -> Halves:
        """Return FAISS's own memory as (n, E) float16; it is gone with the next change."""
        raw: npt.NDArray[np.uint8] = faiss.rev_swig_ptr(codes, 2 * n * self.dimension)
        return raw.view("<f2").reshape(n, self.dimension)

    def write(self, path: Path) -> None:
        # Not by its name: of a file that cannot be closed, as on a full disk, faiss only prints.
        with path.open("wb") as file:
            writer: Any = faiss.PyCallbackIOWriter(file.write)  # type: ignore[attr-defined]
            faiss.write_index(self._index, writer)

    @classmethod
    def read(cls, path: Path, dimension: int) -> "FaissIndex":
        """Read a snapshot of either form.

        Raises:
            IndexCorruptError: the file is not an index of ours with this dimension.
        """
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as exc:
            raise IndexCorruptError(f"{path.name} is not a readable index") from exc
        is_lists = isinstance(index, faiss.IndexIVFScalarQuantizer) and not index.by_residual
        if not (is_lists or isinstance(index, faiss.IndexIDMap)) or index.d != dimension:
            raise IndexCorruptError(f"{path.name} holds another kind of index")
        return cls(dimension, index)


@dataclass(frozen=True, slots=True)
class _Held:
    """An index, the seq that it has reached, and the embedder of its vectors."""

    index: FaissIndex
    seq: int
    embedder_id: int


class IndexView:
    """One knowledge base's index, kept equal to the database. Safe to share between threads."""

    def __init__(
        self,
        database: Database,
        base: KnowledgeBase,
        folder: Path,
        *,
        flat_chunks: int = FLAT_CHUNKS,
    ) -> None:
        self._database = database
        self._kb_id = base.id
        self._name = base.name  # for messages only: it may have changed since
        self._folder = folder
        self._flat_chunks = flat_chunks
        self._lock = threading.Lock()  # held while the index is read or changed
        self._held: _Held | None = None
        self._tried = ""  # the snapshot last looked at for a better form

    def search(
        self,
        vector: Vectors,
        top_k: int,
        allowed: ChunkIds | None = None,
        *,
        embedder_id: int | None = None,
    ) -> list[tuple[int, float]]:
        """Catch up with the database, then search as `FaissIndex.search` does.

        Raises:
            EmbedderMovedError: the base's vectors are not of the embedder that made `vector`,
                where that is given.
        """
        self._take_better_form()
        with self._lock:
            index = self._caught_up()
            assert self._held is not None
            if embedder_id not in (None, self._held.embedder_id):
                raise EmbedderMovedError(self._name)
            return index.search(vector, top_k, allowed)

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
            _, dimension = self._embedder(session)
        problems = []
        for snapshot in snapshots:
            try:
                self._read_snapshot(snapshot, dimension)
            except (IndexCorruptError, OSError) as exc:
                problems.append(f"snapshot at seq {snapshot.seq}: {exc}")
        return problems

    def reset(self) -> None:
        """Forget the index and all snapshots; the next use builds it from stored vectors."""
        with self._database.write() as session:
            session.execute(delete(SnapshotRow).where(SnapshotRow.kb_id == self._kb_id))
        with self._lock:
            self._held = None

    def save_if_worthwhile(self) -> bool:
        """Write a snapshot when many events have come since the last one; tell whether.

        Or when the last one's file is gone, in a base large enough to care.
        """
        with self._database.read() as session:
            newest = self._newest_snapshot(session)
            state = log_state(session, self._kb_id)
        if state is None:
            return False
        n_events = state.head - (newest.seq if newest else 0)
        n_chunks = newest.n_chunks if newest else 0
        is_lost = newest is not None and not self._path(newest.id).exists()
        if not (is_lost and n_chunks > SNAPSHOT_AFTER_EVENTS) and n_events < max(
            SNAPSHOT_AFTER_EVENTS, SNAPSHOT_AFTER_SHARE * n_chunks
        ):
            return False
        self.save()
        return True

    def save(self) -> None:
        """Write a snapshot of the database's present state and trim the log behind it.

        Works on an index of its own, which searches use from then on: meanwhile they go on with
        the one they have, however long writing or training takes.

        Raises:
            StorageError: the index folder cannot be written; the database is unharmed.
        """
        held = self._latest()
        index = held.index
        lists = lists_for(len(index), index.lists, self._flat_chunks)
        if lists != index.lists:
            logger.info("arranging %d chunks of %s in %d lists", len(index), self._kb_id, lists)
            index = index.arranged(lists)
        n_chunks = len(index)
        snapshot_id = new_id()
        path = self._path(snapshot_id)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
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
                snapshot_id, seq=held.seq, n_chunks=n_chunks, checksum=checksum
            )
        except (StorageError, KnowledgeBaseDeletedError):  # a full disk needs the room now
            path.unlink(missing_ok=True)
            raise
        failpoint("index.named")
        with self._lock:
            self._held = replace(held, index=index)
        self.delete_files(dropped)

    def _caught_up(self) -> FaissIndex:
        """Return the index with all events applied. The lock is held by the caller."""
        self._held = self._latest(self._held)
        return self._held.index

    def _latest(self, held: _Held | None = None) -> _Held:
        """Apply the events past its seq to an index, in bounded steps; None loads one first."""
        head: int | None = None  # as of the call: writers must not keep a search from answering
        while True:
            with self._database.read() as session:
                state = log_state(session, self._kb_id)
                if state is None:
                    raise KnowledgeBaseDeletedError(self._name)
                if held is None or held.seq < state.floor:
                    held = self._load(session, state.floor)
                head = state.head if head is None else head
                if held.seq >= head:
                    return held
                replay = read_changes(session, self._kb_id, held.seq, limit=REPLAYED_EVENTS)
            if replay.seq == held.seq:  # the log's end is lost, which `kb verify` tells
                return replace(held, seq=head)
            index = held.index
            index.remove(replay.removed)
            index.add(replay.added_ids, from_bytes(replay.added_vectors, index.dimension))
            held = replace(held, seq=replay.seq)

    def _take_better_form(self) -> None:
        """Change to a snapshot that another process wrote in the form that our size asks for.

        Read without the lock: other threads search on with the old index.
        """
        if self._held is None:
            return
        index = self._held.index
        if index.lists == lists_for(len(index), index.lists, self._flat_chunks):
            return
        with self._database.read() as session:
            newest = self._newest_snapshot(session)
            if newest is not None:
                embedder_id, dimension = self._embedder(session)
        if newest is None or newest.id == self._tried:
            return
        self._tried = newest.id  # first, so that one thread alone reads it
        try:
            better = self._read_snapshot(newest, dimension)
        except (IndexCorruptError, OSError) as exc:
            logger.warning("index snapshot %s is not usable (%s); going on", newest.id, exc)
            return
        if better.lists != index.lists:
            with self._lock:
                self._held = _Held(better, newest.seq, embedder_id)

    def _embedder(self, session: Session) -> tuple[int, int]:
        """Return the id and dimension of the base's present embedder.

        Raises:
            KnowledgeBaseDeletedError
        """
        row = session.execute(
            select(EmbedderRow.id, EmbedderRow.dimension)
            .join(KnowledgeBaseRow, KnowledgeBaseRow.embedder_id == EmbedderRow.id)
            .where(KnowledgeBaseRow.id == self._kb_id)
        ).one_or_none()
        if row is None:
            raise KnowledgeBaseDeletedError(self._name)
        return row[0], row[1]

    def _newest_snapshot(self, session: Session) -> SnapshotRow | None:
        return session.scalar(
            select(SnapshotRow)
            .where(SnapshotRow.kb_id == self._kb_id)
            .order_by(SnapshotRow.seq.desc())
            .limit(1)
        )

    def _load(self, session: Session, floor: int) -> _Held:
        """Return the newest good snapshot with its seq, else all vectors of the database."""
        embedder_id, dimension = self._embedder(session)
        snapshots = session.scalars(
            select(SnapshotRow)
            .where(SnapshotRow.kb_id == self._kb_id, SnapshotRow.seq >= floor)
            .order_by(SnapshotRow.seq.desc())
        ).all()
        for snapshot in snapshots:
            try:
                return _Held(self._read_snapshot(snapshot, dimension), snapshot.seq, embedder_id)
            except (IndexCorruptError, OSError) as exc:
                logger.warning(
                    "index snapshot %s of knowledge base %s is not usable (%s); "
                    "falling back, nothing is lost",
                    snapshot.id,
                    self._kb_id,
                    exc,
                )
        index, seq = self._rebuild(session, dimension)
        return _Held(index, seq, embedder_id)

    def _read_snapshot(self, snapshot: SnapshotRow, dimension: int) -> FaissIndex:
        path = self._path(snapshot.id)
        if _sha256(path) != snapshot.sha256:
            raise IndexCorruptError(f"{path.name} does not match its checksum")
        index = FaissIndex.read(path, dimension)
        if len(index) != snapshot.n_chunks:
            raise IndexCorruptError(f"{path.name} holds {len(index)}, not {snapshot.n_chunks}")
        return index

    def _rebuild(self, session: Session, dimension: int) -> tuple[FaissIndex, int]:
        """Fill a new index from the stored vectors. The embedder is not needed."""
        state = log_state(session, self._kb_id)
        assert state is not None, self._kb_id
        if state.head > self._flat_chunks:
            logger.warning(
                "reading all vectors of knowledge base %s from the database, for want of an index "
                "snapshot; `kb ingest` writes one, and searches are slower until then",
                self._name,
            )
        index = FaissIndex(dimension)
        rows = session.execute(
            select(ChunkRow.id, EmbeddingRow.vector)
            .join(EmbeddingRow, ChunkRow.embedding_id == EmbeddingRow.id)
            .where(ChunkRow.kb_id == self._kb_id)
            .order_by(ChunkRow.id)
            .execution_options(yield_per=_LOAD_ROWS)
        )
        for part in rows.partitions(_LOAD_ROWS):
            index.add([id_ for id_, _ in part], from_bytes([blob for _, blob in part], dimension))
        return index, state.head

    def _name_snapshot(
        self, snapshot_id: str, *, seq: int, n_chunks: int, checksum: str
    ) -> set[str]:
        """Make the snapshot count; return the ids of those that do not (any more).

        It does not itself where its base has left its seq behind: its vectors may be of the
        embedder before.
        """
        with self._database.write() as session:
            state = log_state(session, self._kb_id)
            if state is None:
                raise KnowledgeBaseDeletedError(self._name)
            if seq < state.floor:
                return {snapshot_id}
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

    def delete_files(self, dropped: Set[str]) -> None:
        """Delete snapshots that no longer count, and files that a killed writer left behind."""
        if not self._folder.is_dir():
            return
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
