"""Move a knowledge base to another embedder while it goes on answering.

    embed what has no vector yet ──> swap, if nothing is missing by then ──> sweep, snapshot
              ^                        │
              └── synced meanwhile ────┘

Searches use the old vectors until the swap, which is one transaction (`kb.storage.moves`), and the
new ones after it. Vectors are stored as they come, so a run that was killed goes on where it
stopped. A sync may run at the same time: what it stores is caught up with before the swap, and
after it the sync goes on with the new embedder.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import func, select

from ingest.sync import GATHERED_STRINGS, STORED_VECTORS
from kb.embedder import Embedder
from kb.errors import CancelledError, KnowledgeBaseDeletedError, KnowledgeBaseNotFoundError
from kb.failpoints import failpoint
from kb.records import KnowledgeBase
from kb.storage.bases import find_base, find_or_add_embedder
from kb.storage.database import Database
from kb.storage.embeddings import store_embeddings, sweep_embeddings
from kb.storage.jobs import is_any_job_live
from kb.storage.moves import Swap, missing_strings, swap_embedder
from kb.storage.tables import ChunkRow, DocumentRow

logger = logging.getLogger(__name__)

# Every round takes what was synced during the one before, so a few suffice.
MAX_ROUNDS = 100


@dataclass(frozen=True, slots=True)
class ReembedReport:
    """What a move did. `chunks` is 0 where the base had that embedder already."""

    kb: str
    before: str
    after: str
    chunks: int
    embedded: int
    seconds: float
    snapshots: frozenset[str] = frozenset()  # index files that count no longer

    def to_dict(self) -> dict[str, str | int | float]:
        return {
            "kb": self.kb,
            "before": self.before,
            "after": self.after,
            "chunks": self.chunks,
            "embedded": self.embedded,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class ReembedOptions:
    """Who watches a move: `progress` is given chunks done and in all."""

    job_id: str = ""
    progress: Callable[[int, int], None] = lambda _done, _total: None
    is_cancelled: Callable[[], bool] = lambda: False


def reembed(
    database: Database, base: KnowledgeBase, embedder: Embedder, options: ReembedOptions
) -> ReembedReport:
    """Give a base the vectors of `embedder`; the caller writes an index snapshot afterwards.

    Run it under a live job, since syncs sweep vectors that no chunk uses while no job is.

    Raises:
        CancelledError: `options.is_cancelled` said so; what was embedded stays for the next run.
        KnowledgeBaseDeletedError: somebody deleted the base meanwhile.
        KBError: the base needs `kb verify --repair` first.
        EmbedderError, StorageError
    """
    started = time.monotonic()
    embedded = 0
    try:
        with database.write() as session:
            now = find_base(session, base.id)
            embedder_id = find_or_add_embedder(session, embedder.spec)
        swap = None
        if now.embedder_id != embedder_id:
            move = _Move(database, base.id, embedder, embedder_id, options)
            swap, embedded = move.run()
            failpoint("move.swapped")
        with database.write() as session:
            if not is_any_job_live(session, except_job=options.job_id):
                sweep_embeddings(session)
    except KnowledgeBaseNotFoundError as exc:  # storage knows its id only
        raise KnowledgeBaseDeletedError(base.name) from exc
    return ReembedReport(
        kb=base.name,
        before=now.embedder.name,
        after=embedder.spec.name,
        chunks=swap.chunks if swap else 0,
        embedded=embedded,
        seconds=time.monotonic() - started,
        snapshots=swap.snapshots if swap else frozenset(),
    )


class _Move:
    """One move on its way: counts what it embeds."""

    def __init__(
        self,
        database: Database,
        kb_id: str,
        embedder: Embedder,
        embedder_id: int,
        options: ReembedOptions,
    ) -> None:
        self._database = database
        self._kb_id = kb_id
        self._embedder = embedder
        self._embedder_id = embedder_id
        self._options = options
        self._embedded = 0

    def run(self) -> tuple[Swap, int]:
        for _ in range(MAX_ROUNDS):
            self._catch_up()
            with self._database.write() as session:
                swap = swap_embedder(session, self._kb_id, self._embedder_id)
            if swap is not None:
                logger.info("knowledge base %s: %d chunks moved", self._kb_id, swap.chunks)
                return swap, self._embedded
        raise CancelledError(
            "documents were synced faster than they could be embedded; wait for the sync to end, "
            "then run the same command again"
        )

    def _catch_up(self) -> None:
        """Embed what has no vector yet, strings gathered across documents."""
        with self._database.read() as session:
            find_base(session, self._kb_id)
            documents = session.execute(
                select(ChunkRow.document_id, func.count())
                .join(DocumentRow, ChunkRow.document_id == DocumentRow.id)
                .where(DocumentRow.kb_id == self._kb_id)
                .group_by(ChunkRow.document_id)
            ).all()
        total = sum(n_chunks for _, n_chunks in documents)
        done = 0
        strings: dict[bytes, str] = {}
        for document_id, n_chunks in documents:
            self._stop_if_cancelled()
            with self._database.read() as session:
                strings |= missing_strings(session, self._embedder_id, document_id)
            done += n_chunks
            if len(strings) >= GATHERED_STRINGS:
                self._embed(strings)
                strings = {}
                self._options.progress(done, total)
        self._embed(strings)
        self._options.progress(done, total)

    def _embed(self, strings: Mapping[bytes, str]) -> None:
        """Embed strings, longest first so that a batch pads little; store them as they come."""
        ordered = sorted(strings, key=lambda key: -len(strings[key]))
        for first in range(0, len(ordered), STORED_VECTORS):
            self._stop_if_cancelled()
            part = ordered[first : first + STORED_VECTORS]
            vectors = self._embedder.embed_array([strings[key] for key in part])
            with self._database.write() as session:
                store_embeddings(session, self._embedder_id, dict(zip(part, vectors, strict=True)))
            self._embedded += len(part)
            failpoint("move.stored")

    def _stop_if_cancelled(self) -> None:
        if self._options.is_cancelled():
            raise CancelledError("cancelled; what was embedded stays, run it again to go on")
