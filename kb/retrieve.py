"""Hybrid retrieval: dense and lexical candidates, fused by rank, read back from the database.

Both channels are asked for more than `top_k`, since a chunk may have been removed since an
index was read, and since fusion rewards what both found. Every hit's text comes from the
database in the end; what is gone there is dropped and the search widened.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from kb.embedder import Embedder
from kb.errors import InvalidInputError, VersionMismatchError
from kb.fusion import channel_weights, fuse
from kb.protocols import Vectors
from kb.records import (
    Channel,
    ChannelScores,
    Chunk,
    Hit,
    KnowledgeBase,
    Passage,
    Question,
)
from kb.storage.bases import check_fulltext_version, find_base, source_record
from kb.storage.database import Database
from kb.storage.documents import display_name
from kb.storage.fulltext import FullText
from kb.storage.tables import ChunkRow, DocumentRow, DocumentVersionRow, SourceRow
from kb.terms import FULLTEXT, TermStats

if TYPE_CHECKING:
    from kb.index import IndexView

# Candidates asked of each channel: measured in dify#35482 as a floor; a wider net costs little.
CANDIDATES = 50
# Texts of documents kept in memory, by version; versions never change.
CACHED_TEXT_CHARS = 32_000_000
MAX_QUESTION_CHARS = 10_000
MAX_TOP_K = 1000


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What was found for one question, best first, and what `support` needs to judge it."""

    hits: tuple[Hit, ...]
    passages: tuple[Passage, ...]
    stats: TermStats
    bases: tuple[KnowledgeBase, ...]


@dataclass(frozen=True, slots=True)
class _Version:
    """The text and page starts of one document version."""

    text: str
    pages: tuple[int, ...]


class Retriever:
    """Owns the open indexes and a cache of document texts. Safe to share between threads."""

    def __init__(self, database: Database, embedder: Embedder, index_folder: Path) -> None:
        self._database = database
        self._embedder = embedder
        self._index_folder = index_folder
        self._lock = threading.Lock()  # guards the two dictionaries
        self._views: dict[str, IndexView] = {}
        self._versions: OrderedDict[int, _Version] = OrderedDict()
        self._cached_chars = 0

    def search(self, question: Question) -> Retrieval:
        """Return the `top_k` best hits over all of the question's knowledge bases.

        Raises:
            InvalidInputError: the question is empty or too long, or top_k out of range.
            KnowledgeBaseNotFoundError, VersionMismatchError, EmbedderError
        """
        check_question(question)
        with self._database.read() as session:
            bases = tuple(
                {base.id: base for base in (find_base(session, kb) for kb in question.kbs)}.values()
            )
        found: list[tuple[Hit, Passage]] = []
        stats = TermStats()
        for base in bases:
            check_fulltext_version(base, FULLTEXT)
            found += self._search_base(base, question)
            with self._database.read() as session:
                stats += FullText(session, base.id).stats(question.text)
        # Scores share one scale; ties keep the order of the bases.
        found.sort(key=lambda pair: -pair[0].score)
        hits = [replace(hit, rank=rank) for rank, (hit, _) in enumerate(found[: question.top_k], 1)]
        passages = tuple(
            Passage(number=hit.rank, hit=hit, pages=passage.pages)
            for hit, (_, passage) in zip(hits, found, strict=False)
        )
        return Retrieval(hits=tuple(hits), passages=passages, stats=stats, bases=bases)

    def open(self, base: KnowledgeBase) -> int:
        """Load a base's vector index now; return its number of chunks."""
        return self.view(base).open()

    def view(self, base: KnowledgeBase) -> "IndexView":
        """Return the index of a base, the same object each time."""
        # Imported here: `kb search --channel lexical` needs no faiss.
        from kb.index import IndexView

        with self._lock:
            view = self._views.get(base.id)
            if view is None:
                view = IndexView(
                    self._database,
                    base.id,
                    base.embedder.dimension,
                    self._index_folder / base.id,
                )
                self._views[base.id] = view
            return view

    def forget(self, kb_id: str) -> None:
        """Let go of a deleted base's index."""
        with self._lock:
            self._views.pop(kb_id, None)

    # One base

    def _search_base(self, base: KnowledgeBase, question: Question) -> list[tuple[Hit, Passage]]:
        weights = _weights(question.channel, question.text, base)
        vector = self._embed(base, question.text) if weights["dense"] else None
        depth = max(CANDIDATES, 2 * question.top_k)
        while True:
            rankings = self._candidates(base, question.text, weights, vector, depth)
            fused = fuse({name: list(scores) for name, scores in rankings.items()}, weights)
            found = self._read_back(base, fused, rankings, question.top_k)
            was_exhausted = all(len(scores) < depth for scores in rankings.values())
            if len(found) >= question.top_k or was_exhausted:
                return found
            depth *= 4  # chunks have gone since the index was read: look further

    def _embed(self, base: KnowledgeBase, text: str) -> Vectors:
        if self._embedder.spec.identity != base.embedder.identity:
            raise VersionMismatchError(
                f"knowledge base {base.name!r} was built with the embedder "
                f"{base.embedder.identity!r}, not {self._embedder.spec.identity!r}; search it "
                "with `--channel lexical`, or ingest its folder into a new one"
            )
        return np.asarray(self._embedder.embed_query(text), dtype=np.float32)

    def _candidates(
        self,
        base: KnowledgeBase,
        text: str,
        weights: Mapping[str, float],
        vector: Vectors | None,
        depth: int,
    ) -> dict[str, dict[int, float]]:
        """Return chunk ids with scores for each channel that has a say, best first."""
        rankings: dict[str, dict[int, float]] = {}
        if vector is not None:
            rankings["dense"] = dict(self.view(base).search(vector, depth))
        if weights["lexical"]:
            with self._database.read() as session:
                rankings["lexical"] = dict(FullText(session, base.id).search(text, depth))
        return rankings

    def _read_back(
        self,
        base: KnowledgeBase,
        fused: Sequence[tuple[int, float]],
        rankings: Mapping[str, Mapping[int, float]],
        top_k: int,
    ) -> list[tuple[Hit, Passage]]:
        """Read the best `top_k` chunks that still exist."""
        found: list[tuple[Hit, Passage]] = []
        with self._database.read() as session:
            for first in range(0, len(fused), top_k):
                part = fused[first : first + top_k]
                rows = self._rows(session, base.id, [chunk_id for chunk_id, _ in part])
                for chunk_id, score in part:
                    if chunk_id not in rows or len(found) == top_k:
                        continue
                    chunk, document, pages = rows[chunk_id]
                    hit = Hit(
                        rank=len(found) + 1,
                        score=score,
                        kb=base.name,
                        document=document,
                        chunk=chunk,
                        channels=ChannelScores(
                            dense=rankings.get("dense", {}).get(chunk_id),
                            lexical=rankings.get("lexical", {}).get(chunk_id),
                            rerank=None,
                        ),
                    )
                    found.append((hit, Passage(number=hit.rank, hit=hit, pages=pages)))
                if len(found) == top_k:
                    break
        return found

    def _rows(
        self, session: Session, kb_id: str, chunk_ids: Sequence[int]
    ) -> dict[int, tuple[Chunk, str, tuple[int, ...]]]:
        rows = session.execute(
            select(ChunkRow, DocumentRow.path, SourceRow, DocumentVersionRow.id)
            .join(DocumentRow, ChunkRow.document_id == DocumentRow.id)
            .join(SourceRow, DocumentRow.source_id == SourceRow.id)
            .join(DocumentVersionRow, DocumentVersionRow.document_id == DocumentRow.id)
            .where(
                ChunkRow.id.in_(chunk_ids),
                ChunkRow.kb_id == kb_id,
                DocumentVersionRow.is_current,
            )
        )
        found = {}
        for row, path, source, version_id in rows:
            version = self._version(session, version_id)
            chunk = Chunk(
                id=row.id,
                kb_id=row.kb_id,
                document_id=row.document_id,
                version_id=version_id,
                position=row.position,
                start=row.start,
                end=row.end,
                page=row.page,
                heading=row.heading,
                text=version.text[row.start : row.end],
            )
            found[row.id] = (chunk, display_name(source_record(source), path), version.pages)
        return found

    def _version(self, session: Session, version_id: int) -> _Version:
        with self._lock:
            if version_id in self._versions:
                self._versions.move_to_end(version_id)
                return self._versions[version_id]
        row = session.execute(
            select(DocumentVersionRow.text, DocumentVersionRow.page_starts).where(
                DocumentVersionRow.id == version_id
            )
        ).one()
        version = _Version(text=row.text, pages=tuple(row.page_starts))
        with self._lock:
            if version_id not in self._versions:
                self._versions[version_id] = version
                self._cached_chars += len(version.text)
            while self._cached_chars > CACHED_TEXT_CHARS and len(self._versions) > 1:
                _, oldest = self._versions.popitem(last=False)
                self._cached_chars -= len(oldest.text)
        return version


def check_question(question: Question) -> None:
    """Refuse a question that cannot be searched for.

    Raises:
        InvalidInputError: naming the field.
    """
    if not question.text.strip():
        raise InvalidInputError("question", "is empty")
    if len(question.text) > MAX_QUESTION_CHARS:
        raise InvalidInputError(
            "question", f"has {len(question.text):,} characters; at most {MAX_QUESTION_CHARS:,}"
        )
    if not 1 <= question.top_k <= MAX_TOP_K:
        raise InvalidInputError("top_k", f"must lie between 1 and {MAX_TOP_K}")
    if not question.kbs:
        raise InvalidInputError("kbs", "name at least one knowledge base")


def _weights(channel: Channel, question: str, base: KnowledgeBase) -> dict[str, float]:
    if channel == "hybrid":
        return channel_weights(question, base.embedder)
    return {"dense": float(channel == "dense"), "lexical": float(channel == "lexical")}
