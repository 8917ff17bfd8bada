"""Hybrid retrieval: dense and lexical candidates, fused by rank, read back from the database.

Both channels are asked for more than `top_k`, since a chunk may have been removed since an
index was read, and since fusion rewards what both found. Every hit's text comes from the
database in the end; what is gone there is dropped and the search widened.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

# Candidates asked of each channel: more than any usual top_k, and a wider net costs little.
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

        Candidates of several bases are pooled by score before they are fused: cosines of one
        embedder compare; BM25 scores do roughly, since rarity is counted in each base.

        Raises:
            InvalidInputError: the question is empty or too long, or top_k out of range.
            KnowledgeBaseNotFoundError, VersionMismatchError, EmbedderError
        """
        check_question(question)
        with self._database.read() as session:
            found = (find_base(session, kb) for kb in question.kbs)
            bases = tuple({base.id: base for base in found}.values())
            for base in bases:
                check_fulltext_version(base, FULLTEXT)
            stats = {base.id: FullText(session, base.id).stats(question.text) for base in bases}
        weights = {base.id: _weights(question, base, stats[base.id]) for base in bases}
        passages = self._passages(question, bases, weights)
        return Retrieval(
            hits=tuple(passage.hit for passage in passages),
            passages=passages,
            stats=sum(stats.values(), TermStats()),
            bases=bases,
        )

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

    def _passages(
        self,
        question: Question,
        bases: Sequence[KnowledgeBase],
        weights: Mapping[str, Mapping[str, float]],
    ) -> tuple[Passage, ...]:
        vectors = self._embed(question.text, [b for b in bases if weights[b.id]["dense"]])
        strongest = {
            channel: max((weights[base.id][channel] for base in bases), default=0.0)
            for channel in ("dense", "lexical")
        }
        depth = max(CANDIDATES, 2 * question.top_k)
        while True:
            scores: dict[str, dict[int, float]] = {"dense": {}, "lexical": {}}
            was_exhausted = True
            for base in bases:
                vector = vectors.get(base.id)
                for channel, found in self._candidates(
                    base, question.text, weights[base.id], vector, depth
                ).items():
                    scores[channel].update(found)
                    was_exhausted = was_exhausted and len(found) < depth
            rankings = {
                channel: sorted(found, key=lambda id_, f=found: -f[id_])  # type: ignore[misc]
                for channel, found in scores.items()
            }
            passages = self._read_back(bases, fuse(rankings, strongest), scores, question.top_k)
            if len(passages) >= question.top_k or was_exhausted:
                return passages
            depth *= 4  # chunks have gone since the index was read: look further

    def _embed(self, text: str, bases: Sequence[KnowledgeBase]) -> dict[str, Vectors]:
        """Return the question's vector for each of these bases, embedded once."""
        if not bases:
            return {}
        for base in bases:
            if self._embedder.spec.identity != base.embedder.identity:
                raise VersionMismatchError(
                    f"knowledge base {base.name!r} was built with the embedder "
                    f"{base.embedder.identity!r}, not {self._embedder.spec.identity!r}; search "
                    "it with `--channel lexical`, or ingest its folder into a new one"
                )
        vector = np.asarray(self._embedder.embed_query(text), dtype=np.float32)
        return {base.id: vector for base in bases}

    def _candidates(
        self,
        base: KnowledgeBase,
        text: str,
        weights: Mapping[str, float],
        vector: Vectors | None,
        depth: int,
    ) -> dict[str, dict[int, float]]:
        """Return chunk ids with scores for each channel that has a say."""
        scores: dict[str, dict[int, float]] = {}
        if vector is not None:
            scores["dense"] = dict(self.view(base).search(vector, depth))
        if weights["lexical"]:
            with self._database.read() as session:
                scores["lexical"] = dict(FullText(session, base.id).search(text, depth))
        return scores

    def _read_back(
        self,
        bases: Sequence[KnowledgeBase],
        fused: Sequence[tuple[int, float]],
        scores: Mapping[str, Mapping[int, float]],
        top_k: int,
    ) -> tuple[Passage, ...]:
        """Read the best `top_k` chunks that still exist."""
        names = {base.id: base.name for base in bases}
        passages: list[Passage] = []
        with self._database.read() as session:
            for first in range(0, len(fused), top_k):
                part = fused[first : first + top_k]
                rows = self._rows(session, list(names), [chunk_id for chunk_id, _ in part])
                for chunk_id, score in part:
                    if chunk_id not in rows or len(passages) == top_k:
                        continue
                    chunk, document, pages = rows[chunk_id]
                    hit = Hit(
                        rank=len(passages) + 1,
                        score=score,
                        kb=names[chunk.kb_id],
                        document=document,
                        chunk=chunk,
                        channels=ChannelScores(
                            dense=scores["dense"].get(chunk_id),
                            lexical=scores["lexical"].get(chunk_id),
                            rerank=None,
                        ),
                    )
                    passages.append(Passage(number=hit.rank, hit=hit, pages=pages))
                if len(passages) == top_k:
                    break
        return tuple(passages)

    def _rows(
        self, session: Session, kb_ids: Sequence[str], chunk_ids: Sequence[int]
    ) -> dict[int, tuple[Chunk, str, tuple[int, ...]]]:
        rows = session.execute(
            select(ChunkRow, DocumentRow.path, SourceRow, DocumentVersionRow.id)
            .join(DocumentRow, ChunkRow.document_id == DocumentRow.id)
            .join(SourceRow, DocumentRow.source_id == SourceRow.id)
            .join(DocumentVersionRow, DocumentVersionRow.document_id == DocumentRow.id)
            .where(
                ChunkRow.id.in_(chunk_ids),
                ChunkRow.kb_id.in_(kb_ids),
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
    if not question.text.isprintable() and _has_surrogates(question.text):
        raise InvalidInputError("question", "is not valid text")
    if len(question.text) > MAX_QUESTION_CHARS:
        raise InvalidInputError(
            "question", f"has {len(question.text):,} characters; at most {MAX_QUESTION_CHARS:,}"
        )
    if not 1 <= question.top_k <= MAX_TOP_K:
        raise InvalidInputError("top_k", f"must lie between 1 and {MAX_TOP_K}")
    if not question.kbs:
        raise InvalidInputError("kbs", "name at least one knowledge base")


def _weights(question: Question, base: KnowledgeBase, stats: TermStats) -> dict[str, float]:
    if question.channel == "hybrid":
        return channel_weights(question.text, base.embedder, stats=stats)
    return {
        "dense": float(question.channel == "dense"),
        "lexical": float(question.channel == "lexical"),
    }


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
