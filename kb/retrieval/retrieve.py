"""Hybrid retrieval: dense and lexical candidates, fused by rank, read back from the database.

Both channels are asked for more than `top_k`, since a chunk may have been removed since an
index was read, and since fusion rewards what both found. Every hit's text comes from the
database in the end; what is gone there is dropped and the search widened.
"""

import contextlib
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kb.embedder import Embedder, embedded_text
from kb.errors import (
    EmbedderError,
    EmbedderMovedError,
    InvalidInputError,
    VersionMismatchError,
)
from kb.protocols import ChunkIds, Vectors
from kb.records import (
    MAX_QUESTION_CHARS,
    MAX_TOP_K,
    Candidate,
    ChannelScores,
    DropReason,
    Duplicate,
    Hit,
    KnowledgeBase,
    Notice,
    Passage,
    Question,
)
from kb.retrieval.duplicates import SeenTexts
from kb.retrieval.expand import read_neighbours, widened
from kb.retrieval.filters import allowed_chunks
from kb.retrieval.fusion import channel_weights, fuse
from kb.retrieval.hydrate import Place, VersionCache, read_chunk, read_places
from kb.retrieval.reranker import Reranker
from kb.retrieval.similarity import SentenceSimilarity
from kb.storage.bases import check_fulltext_version, find_base, list_bases
from kb.storage.database import Database
from kb.storage.fulltext import FrequencyCache, FullText
from kb.text.terms import FULLTEXT, TermStats

if TYPE_CHECKING:
    from kb.retrieval.index import IndexView

# Candidates asked of each channel: more than any usual top_k, and a wider net costs little.
CANDIDATES = 50
# A base may be moved to another embedder while a question is searched: how often we begin again.
MOVES_MET = 3


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What was found for one question, best first, and what `support` needs to judge it.

    `candidates` are the passages and about `CANDIDATES` in all of what else was looked at.
    """

    hits: tuple[Hit, ...]
    passages: tuple[Passage, ...]
    stats: TermStats
    bases: tuple[KnowledgeBase, ...]
    candidates: tuple[Candidate, ...] = ()
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class _Proposal:
    """A chunk by its fused score, before it is known whether it still exists."""

    chunk_id: int
    score: float
    channels: ChannelScores
    dense_rank: int | None
    lexical_rank: int | None


@dataclass(frozen=True, slots=True)
class _Found:
    """What each channel that has a say found, and the question's frequencies, by base id."""

    dense: Mapping[str, Sequence[tuple[int, float]]]
    lexical: Mapping[str, Sequence[tuple[int, float]]]
    stats: Mapping[str, TermStats]


@dataclass(frozen=True, slots=True)
class _Embedded:
    """The question's vector by base id, and what to say of bases that have none."""

    vectors: Mapping[str, Vectors]
    notices: tuple[Notice, ...]


class Retriever:
    """Owns the open indexes and a cache of document texts. Safe to share between threads."""

    def __init__(
        self,
        database: Database,
        embedder: Embedder,
        index_folder: Path,
        *,
        reranker: Reranker | None = None,
        rerank_top: int = 30,
    ) -> None:
        self._reranker = reranker
        self._rerank_top = rerank_top
        self._database = database
        self._embedder = embedder
        self._index_folder = index_folder
        self._lock = threading.Lock()  # guards the views
        # The dense channel's; kept, since starting and ending one for each question costs time.
        self._threads = ThreadPoolExecutor(thread_name_prefix="dense")
        self._views: dict[str, IndexView] = {}
        self._versions = VersionCache()
        self._frequencies = FrequencyCache()

    def search(self, question: Question) -> Retrieval:
        """Return the `top_k` best hits over all of the question's knowledge bases.

        Candidates of several bases are pooled by score before they are fused: cosines of one
        embedder compare; BM25 scores do roughly, since rarity is counted in each base.

        Raises:
            InvalidInputError: the question is empty or too long, top_k out of range, or the
                filter names what no base has.
            ConfigError, RerankerError: a reranker is set and cannot be used.
            KnowledgeBaseNotFoundError, VersionMismatchError, EmbedderError
        """
        check_question(question)
        for _ in range(MOVES_MET):
            with contextlib.suppress(EmbedderMovedError):  # begun with a vector of the old one
                return self._search(question)
        return self._search(question)

    def _search(self, question: Question) -> Retrieval:
        """Search once, in vectors of the embedders that the bases have now."""
        with self._database.read() as session:
            named = [find_base(session, kb) for kb in question.kbs]
            bases = tuple({base.id: base for base in named}.values())
            allowed = allowed_chunks(session, bases, question.filter)
        for base in bases:
            check_fulltext_version(base, FULLTEXT)
        # Embedding runs beside the first lexical search.
        embedded = self._threads.submit(self._embed, question, bases)
        depth = max(CANDIDATES, 2 * question.top_k)
        while True:
            found = self._found(question, bases, embedded, allowed, depth)
            passages, candidates = self._choose(question, bases, found)
            lists = [*found.dense.values(), *found.lexical.values()]
            if len(passages) >= question.top_k or all(len(hits) < depth for hits in lists):
                break
            depth *= 4  # chunks have gone since the index was read: look further
        return Retrieval(
            hits=tuple(passage.hit for passage in passages),
            passages=passages,
            stats=sum(found.stats.values(), TermStats()),
            bases=bases,
            candidates=candidates,
            notices=embedded.result().notices,
        )

    def similarity(self, bases: Sequence[KnowledgeBase]) -> SentenceSimilarity | None:
        """Return a comparison of sentences, None where the bases' embedders differ or are gone."""
        specs = {base.embedder.identity: base.embedder for base in bases}
        if len(specs) != 1:
            return None
        try:
            embedder = self._embedder.matching(*specs.values())
        except EmbedderError:
            return None
        return SentenceSimilarity(embedder) if embedder else None

    def known_bases(self, kb_ids: Sequence[str]) -> list[KnowledgeBase]:
        """Return those of the bases that are still there."""
        with self._database.read() as session:
            bases = {base.id: base for base in list_bases(session)}
        return [bases[kb_id] for kb_id in kb_ids if kb_id in bases]

    def widened(self, passages: Sequence[Passage], *, room_chars: int) -> list[Passage]:
        """Return the passages with their neighbours, within `room_chars` more characters.

        For a chat model: what it reads is what is shown, stored and cited. See
        `kb.retrieval.expand`.
        """
        with self._database.read() as session:
            neighbours = read_neighbours(session, passages)
            ids = {passage.hit.chunk.version_id for passage in passages}
            versions = self._versions.read(session, ids)
        return widened(passages, neighbours, versions, room_chars=room_chars)

    def open(self, base: KnowledgeBase) -> int:
        """Load a base's vector index now; return its number of chunks."""
        return self.view(base).open()

    def view(self, base: KnowledgeBase) -> "IndexView":
        """Return the index of a base, the same object each time."""
        # Imported here: `kb search --channel lexical` needs no faiss.
        from kb.retrieval.index import IndexView

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

    def _embed(self, question: Question, bases: Sequence[KnowledgeBase]) -> _Embedded:
        """Return the question's vector for each base whose dense channel has a say.

        A base whose embedder cannot be used answers by full text, with a notice, unless the
        dense channel alone was asked for.
        """
        vectors: dict[str, Vectors] = {}  # by the base's id
        notices: list[Notice] = []
        embedded: dict[str, Vectors] = {}  # by the embedder's identity
        for base in bases:
            if not _weights(question, base)["dense"]:
                continue
            identity = base.embedder.identity
            try:
                if identity not in embedded:
                    embedded[identity] = self._embed_for(base, question.text)
            except (EmbedderError, VersionMismatchError) as exc:
                if question.channel == "dense":
                    raise
                notices.append(Notice("no_dense", base.name, f"searched by full text alone: {exc}"))
            else:
                vectors[base.id] = embedded[identity]
        return _Embedded(vectors, tuple(notices))

    def _embed_for(self, base: KnowledgeBase, text: str) -> Vectors:
        embedder = self._embedder.matching(base.embedder)
        if embedder is None:
            raise VersionMismatchError(
                f"knowledge base {base.name!r} was built with the embedder "
                f"{base.embedder.name!r} ({base.embedder.identity}), which is not here; search it "
                "with `--channel lexical`, install that embedder again, or move the base to "
                "another with `kb reembed`"
            )
        return np.asarray(embedder.embed_query(text), dtype=np.float32)

    def _found(
        self,
        question: Question,
        bases: Sequence[KnowledgeBase],
        embedded: Future[_Embedded],
        allowed: Mapping[str, ChunkIds] | None,
        depth: int,
    ) -> _Found:
        """Ask both channels at once: FAISS and SQLite let other threads run while they work."""
        dense = self._threads.submit(self._dense, bases, embedded, allowed, depth)
        lexical, stats = self._lexical(question, bases, allowed, depth)
        return _Found(dense=dense.result(), lexical=lexical, stats=stats)

    def _dense(
        self,
        bases: Sequence[KnowledgeBase],
        embedded: Future[_Embedded],
        allowed: Mapping[str, ChunkIds] | None,
        depth: int,
    ) -> dict[str, list[tuple[int, float]]]:
        vectors = embedded.result().vectors
        return {
            base.id: self.view(base).search(
                vectors[base.id],
                depth,
                None if allowed is None else allowed[base.id],
                embedder_id=base.embedder_id,
            )
            for base in bases
            if base.id in vectors
        }

    def _lexical(
        self,
        question: Question,
        bases: Sequence[KnowledgeBase],
        allowed: Mapping[str, ChunkIds] | None,
        depth: int,
    ) -> tuple[dict[str, list[tuple[int, float]]], dict[str, TermStats]]:
        """Return hits and, whether or not the channel has a say, the question's frequencies."""
        hits: dict[str, list[tuple[int, float]]] = {}
        stats: dict[str, TermStats] = {}
        with self._database.read() as session:
            for base in bases:
                fulltext = FullText(session, base.id, self._frequencies)
                stats[base.id] = fulltext.stats(question.text)
                if question.channel != "dense":
                    hits[base.id] = fulltext.search(
                        question.text,
                        depth,
                        allowed=None if allowed is None else allowed[base.id],
                        stats=stats[base.id],
                    )
        return hits, stats

    def _choose(
        self, question: Question, bases: Sequence[KnowledgeBase], found: _Found
    ) -> tuple[tuple[Passage, ...], tuple[Candidate, ...]]:
        """Pool the candidates of all bases by channel, fuse the channels, read the best back."""
        weights = [_weights(question, base, found.stats[base.id]) for base in bases]
        strongest = {
            channel: max(each[channel] for each in weights) for channel in ("dense", "lexical")
        }
        scores = {"dense": _pooled(found.dense), "lexical": _pooled(found.lexical)}
        rankings = {
            channel: sorted(by_id.items(), key=lambda hit: hit[1], reverse=True)
            for channel, by_id in scores.items()
        }
        ranks = {
            channel: {chunk_id: rank for rank, (chunk_id, _) in enumerate(ranking, start=1)}
            for channel, ranking in rankings.items()
        }
        proposals = [
            _Proposal(
                chunk_id,
                score,
                ChannelScores(
                    dense=scores["dense"].get(chunk_id),
                    lexical=scores["lexical"].get(chunk_id),
                    rerank=None,
                ),
                ranks["dense"].get(chunk_id),
                ranks["lexical"].get(chunk_id),
            )
            for chunk_id, score in fuse(rankings, strongest)
        ]
        if self._reranker is not None and question.channel == "hybrid":
            proposals = self._reranked(self._reranker, question, bases, proposals)
        return self._read_back(bases, proposals, question.top_k)

    def _reranked(
        self,
        reranker: Reranker,
        question: Question,
        bases: Sequence[KnowledgeBase],
        proposals: Sequence[_Proposal],
    ) -> list[_Proposal]:
        """Put the first `rerank_top` into the reranker's order; the others stay behind them.

        Those score above one half, the others below: cross-encoder and fusion do not compare.
        """
        head = proposals[: self._rerank_top]
        with self._database.read() as session:
            ids = [each.chunk_id for each in head]
            places = read_places(session, [base.id for base in bases], ids)
            versions = self._versions.read(session, [p.version_id for p in places.values()])
            chunks = {id_: read_chunk(p, versions[p.version_id]) for id_, p in places.items()}
        texts = [embedded_text(chunk.heading, chunk.text) for chunk in chunks.values()]
        read = dict(zip(chunks, reranker.scores(question.text, texts), strict=True))
        reranked = [
            replace(
                each,
                score=(1 + read[each.chunk_id]) / 2 if each.chunk_id in read else each.score / 2,
                channels=replace(each.channels, rerank=read.get(each.chunk_id)),
            )
            for each in proposals
        ]
        return sorted(reranked, key=lambda each: each.score, reverse=True)

    def _read_back(
        self, bases: Sequence[KnowledgeBase], proposals: Sequence[_Proposal], top_k: int
    ) -> tuple[tuple[Passage, ...], tuple[Candidate, ...]]:
        """Read the best `top_k` chunks that still exist and differ; tell what became of all."""
        names = {base.id: base.name for base in bases}
        passages: list[Passage] = []
        candidates: list[Candidate] = []
        seen = SeenTexts()
        step = max(top_k, CANDIDATES)
        with self._database.read() as session:
            for first in range(0, len(proposals), step):
                part = proposals[first : first + step]
                places = read_places(session, list(names), [each.chunk_id for each in part])
                likely = [places[p.chunk_id] for p in part if p.chunk_id in places][:top_k]
                self._versions.read(session, [place.version_id for place in likely])
                for proposal in part:
                    place = places.get(proposal.chunk_id)
                    dropped: DropReason = "gone" if place is None else "below_top_k"
                    is_full = len(passages) == top_k
                    if place is not None and not (is_full and _is_unlike(proposal, passages)):
                        version = self._versions.read(session, [place.version_id])[place.version_id]
                        chunk = read_chunk(place, version)
                        shown = seen.duplicate_of(chunk.text)
                        if shown is not None:
                            dropped = "duplicate"
                            _add_duplicate(passages, shown, place, names[place.chunk.kb_id])
                        elif not is_full:
                            dropped = ""
                            seen.add(chunk.text)
                            hit = Hit(
                                rank=len(passages) + 1,
                                score=proposal.score,
                                kb=names[chunk.kb_id],
                                document=place.document,
                                chunk=chunk,
                                channels=proposal.channels,
                            )
                            passages.append(Passage(hit.rank, hit, version.pages))
                    candidates.append(_candidate(proposal, place, dropped))
                if len(passages) == top_k:
                    break
        return tuple(passages), tuple(candidates)


def _is_unlike(proposal: _Proposal, passages: Sequence[Passage]) -> bool:
    """Tell that no passage can say the same, without reading: it would have the same scores."""
    scores = (proposal.channels.dense, proposal.channels.lexical)
    return all(scores != (p.hit.channels.dense, p.hit.channels.lexical) for p in passages)


def _add_duplicate(passages: list[Passage], index: int, place: Place, kb: str) -> None:
    """Note at a passage that another document says the same."""
    hit = passages[index].hit
    known = {hit.chunk.document_id, *(each.document_id for each in hit.also_in)}
    if place.chunk.document_id not in known:
        duplicate = Duplicate(kb, place.chunk.document_id, place.document)
        hit = replace(hit, also_in=(*hit.also_in, duplicate))
        passages[index] = replace(passages[index], hit=hit)


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


def _candidate(proposal: _Proposal, place: Place | None, dropped: DropReason) -> Candidate:
    return Candidate(
        chunk_id=proposal.chunk_id,
        document_id=place.chunk.document_id if place else "",
        document=place.document if place else "",
        start=place.chunk.start if place else 0,
        end=place.chunk.end if place else 0,
        score=proposal.score,
        dense=proposal.channels.dense,
        lexical=proposal.channels.lexical,
        rerank=proposal.channels.rerank,
        dense_rank=proposal.dense_rank,
        lexical_rank=proposal.lexical_rank,
        dropped=dropped,
    )


def _weights(
    question: Question, base: KnowledgeBase, stats: TermStats | None = None
) -> dict[str, float]:
    if question.channel == "hybrid":
        return channel_weights(
            question.text, base.embedder, measured=base.channel_weights, stats=stats
        )
    return {
        "dense": float(question.channel == "dense"),
        "lexical": float(question.channel == "lexical"),
    }


def _pooled(found: Mapping[str, Sequence[tuple[int, float]]]) -> dict[int, float]:
    return {chunk_id: score for hits in found.values() for chunk_id, score in hits}


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
