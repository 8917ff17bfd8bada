"""Hybrid retrieval: dense and lexical candidates, fused by rank, read back from the database.

Both channels are asked for more than `top_k`, since a chunk may have been removed since an
index was read, and since fusion rewards what both found. Every hit's text comes from the
database in the end; what is gone there is dropped and the search widened.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    MAX_QUESTION_CHARS,
    MAX_TOP_K,
    ChannelScores,
    Chunk,
    Hit,
    KnowledgeBase,
    Passage,
    Question,
)
from kb.storage.bases import check_fulltext_version, find_base, source_record
from kb.storage.database import Database
from kb.storage.documents import chunk_record, display_name
from kb.storage.fulltext import FullText
from kb.storage.tables import ChunkRow, DocumentRow, DocumentVersionRow, SourceRow
from kb.terms import FULLTEXT, TermStats

if TYPE_CHECKING:
    from kb.index import IndexView

# Candidates asked of each channel: more than any usual top_k, and a wider net costs little.
CANDIDATES = 50
# Texts of documents kept in memory, by version; versions never change.
CACHED_TEXT_CHARS = 32_000_000


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


@dataclass(frozen=True, slots=True)
class _Candidates:
    """What each channel that has a say found, and the question's frequencies, by base id."""

    dense: Mapping[str, Sequence[tuple[int, float]]]
    lexical: Mapping[str, Sequence[tuple[int, float]]]
    stats: Mapping[str, TermStats]


class Retriever:
    """Owns the open indexes and a cache of document texts. Safe to share between threads."""

    def __init__(self, database: Database, embedder: Embedder, index_folder: Path) -> None:
        self._database = database
        self._embedder = embedder
        self._index_folder = index_folder
        self._lock = threading.Lock()  # guards the two dictionaries
        # The dense channel's; kept, since starting and ending one for each question costs time.
        self._threads = ThreadPoolExecutor(thread_name_prefix="dense")
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
            named = [find_base(session, kb) for kb in question.kbs]
        bases = tuple({base.id: base for base in named}.values())
        for base in bases:
            check_fulltext_version(base, FULLTEXT)
        vectors = self._embed(question, bases)
        depth = max(CANDIDATES, 2 * question.top_k)
        while True:
            found = self._candidates(question, bases, vectors, depth)
            passages = self._passages(question, bases, found)
            lists = [*found.dense.values(), *found.lexical.values()]
            if len(passages) >= question.top_k or all(len(hits) < depth for hits in lists):
                break
            depth *= 4  # chunks have gone since the index was read: look further
        return Retrieval(
            hits=tuple(passage.hit for passage in passages),
            passages=passages,
            stats=sum(found.stats.values(), TermStats()),
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
                view = IndexView(self._database, base, self._index_folder / base.id)
                self._views[base.id] = view
            return view

    def forget(self, kb_id: str) -> None:
        """Let go of a deleted base's index."""
        with self._lock:
            self._views.pop(kb_id, None)

    def _embed(self, question: Question, bases: Sequence[KnowledgeBase]) -> dict[str, Vectors]:
        """Return the question's vector for each base whose dense channel has a say."""
        vectors: dict[str, Vectors] = {}  # by the embedder's identity
        asked = [base for base in bases if _weights(question, base)["dense"]]
        for base in asked:
            identity = base.embedder.identity
            embedder = self._embedder.matching(base.embedder)
            if embedder is None:
                raise VersionMismatchError(
                    f"knowledge base {base.name!r} was built with the embedder "
                    f"{identity!r}, not {self._embedder.spec.identity!r}; search "
                    "it with `--channel lexical`, or ingest its folder into a new one"
                )
            if identity not in vectors:
                row = embedder.embed_query(question.text)
                vectors[identity] = np.asarray(row, dtype=np.float32)
        return {base.id: vectors[base.embedder.identity] for base in asked}

    def _candidates(
        self,
        question: Question,
        bases: Sequence[KnowledgeBase],
        vectors: Mapping[str, Vectors],
        depth: int,
    ) -> _Candidates:
        """Ask both channels at once: FAISS and SQLite let other threads run while they work."""
        dense = self._threads.submit(self._dense, bases, vectors, depth)
        lexical, stats = self._lexical(question, bases, depth)
        return _Candidates(dense=dense.result(), lexical=lexical, stats=stats)

    def _dense(
        self, bases: Sequence[KnowledgeBase], vectors: Mapping[str, Vectors], depth: int
    ) -> dict[str, list[tuple[int, float]]]:
        return {
            base.id: self.view(base).search(vectors[base.id], depth)
            for base in bases
            if base.id in vectors
        }

    def _lexical(
        self, question: Question, bases: Sequence[KnowledgeBase], depth: int
    ) -> tuple[dict[str, list[tuple[int, float]]], dict[str, TermStats]]:
        """Return hits and, whether or not the channel has a say, the question's frequencies."""
        hits: dict[str, list[tuple[int, float]]] = {}
        stats: dict[str, TermStats] = {}
        with self._database.read() as session:
            for base in bases:
                fulltext = FullText(session, base.id)
                stats[base.id] = fulltext.stats(question.text)
                if question.channel != "dense":
                    hits[base.id] = fulltext.search(question.text, depth, stats=stats[base.id])
        return hits, stats

    def _passages(
        self, question: Question, bases: Sequence[KnowledgeBase], found: _Candidates
    ) -> tuple[Passage, ...]:
        """Pool the candidates of all bases by channel, fuse the channels, read the best back."""
        weights = [_weights(question, base, found.stats[base.id]) for base in bases]
        strongest = {
            channel: max(each[channel] for each in weights) for channel in ("dense", "lexical")
        }
        scores = {"dense": _pooled(found.dense), "lexical": _pooled(found.lexical)}
        rankings = {
            channel: sorted(by_id, key=by_id.__getitem__, reverse=True)
            for channel, by_id in scores.items()
        }
        return self._read_back(bases, fuse(rankings, strongest), scores, question.top_k)

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
        """Return each chunk that is still there, with its document's name and page starts."""
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
        ).all()
        versions = self._read_versions(session, {version_id for *_, version_id in rows})
        found = {}
        for row, path, source, version_id in rows:
            version = versions[version_id]
            chunk = chunk_record(row, version_id, version.text)
            found[row.id] = (chunk, display_name(source_record(source), path), version.pages)
        return found

    def _read_versions(self, session: Session, ids: set[int]) -> dict[int, _Version]:
        with self._lock:
            versions = {id_: self._versions[id_] for id_ in ids & self._versions.keys()}
            for id_ in versions:
                self._versions.move_to_end(id_)
        rows = session.execute(
            select(
                DocumentVersionRow.id, DocumentVersionRow.text, DocumentVersionRow.page_starts
            ).where(DocumentVersionRow.id.in_(ids - versions.keys()))
        )
        read = {id_: _Version(text=text, pages=tuple(starts)) for id_, text, starts in rows}
        self._remember(read)
        return versions | read

    def _remember(self, versions: Mapping[int, _Version]) -> None:
        with self._lock:
            for id_ in versions.keys() - self._versions.keys():
                self._versions[id_] = versions[id_]
                self._cached_chars += len(versions[id_].text)
            while self._cached_chars > CACHED_TEXT_CHARS and len(self._versions) > 1:
                _, oldest = self._versions.popitem(last=False)
                self._cached_chars -= len(oldest.text)


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


def _weights(
    question: Question, base: KnowledgeBase, stats: TermStats | None = None
) -> dict[str, float]:
    if question.channel == "hybrid":
        return channel_weights(question.text, base.embedder, stats=stats)
    return {
        "dense": float(question.channel == "dense"),
        "lexical": float(question.channel == "lexical"),
    }


def _pooled(found: Mapping[str, Sequence[tuple[int, float]]]) -> dict[int, float]:
    return {chunk_id: score for hits in found.values() for chunk_id, score in hits}


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
