"""Full text of one knowledge base: the lexical retriever, inside the caller's transaction.

Terms come from `kb.text.terms`, storage and BM25 from FTS5 (`kb.storage.sqlite`). A question is
never read as FTS5 syntax: each of its terms is looked up as a quoted string.

BM25 takes its time for every chunk that it scores, so the rarest terms of a question find the
chunks, until `POSTING_BUDGET`; the others only add to the score of what those found. In a base
of a few thousand chunks all terms find. `python -m benchmarks.million` shows the time, `kb eval`
the recall.
"""

import threading
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from kb.protocols import ChunkIds
from kb.storage import sqlite
from kb.storage.tables import KnowledgeBaseRow
from kb.text.terms import (
    TermStats,
    content_words,
    index_terms,
    is_han,
    is_single,
    pairs,
    query_terms,
)

# A term in more chunks than this share says next to nothing.
COMMON_SHARE = 0.4
# In a base of a few chunks a share means nothing: no term is common below this many chunks.
COMMON_MIN_CHUNKS = 50
# Chunks scored per query, over all terms: bounds the time however large the base is. The sets that
# recall was compared on hold about 1,000 chunks each, where it is that of no limit. With 4 % of
# their chunks as the budget, recall@1 of en_squad is 0.69 if only the terms that find count for
# the score, 0.84 with the others (0.88 without a limit); of zh_cmrc 0.97 and 0.98 (0.98).
POSTING_BUDGET = 4_000
# Postings of the other terms: they are only passed over, a hundred times faster than scored.
SCORING_BUDGET = 100_000
MAX_QUERY_TERMS = 64
# Frequencies kept in memory for each base: a few megabytes.
MAX_CACHED_TERMS = 20_000
# Terms whose frequency is asked for: bounds the work for a question of 100,000 characters.
MAX_CANDIDATE_TERMS = 512
# Single characters help with paraphrase (`kb eval` on zh_para), but are so common that counting
# them takes longer than the search in a large base, where the budget would drop them anyway.
MAX_CHUNKS_FOR_SINGLES = 20_000
# BM25 column weights: heading path, body.
COLUMN_WEIGHTS = (2.0, 1.0)


# The base's last change and the schema's: a table that is made again from the same chunks too.
Generation = tuple[int, int]


class FrequencyCache:
    """Frequencies read before, by base, for as long as the base has not changed.

    Counting a common term reads all its postings, and questions share their common terms. Safe to
    share between threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_base: dict[str, tuple[Generation, int, dict[str, int]]] = {}

    def known(self, kb_id: str, seq: Generation) -> tuple[int, dict[str, int]] | None:
        """Return the number of chunks and a copy of the frequencies as of `seq`, 0 for absent."""
        with self._lock:
            stored_seq, n_chunks, frequencies = self._by_base.get(kb_id, (None, 0, {}))
            return (n_chunks, dict(frequencies)) if stored_seq == seq else None

    def remember(
        self, kb_id: str, seq: Generation, n_chunks: int, frequencies: dict[str, int]
    ) -> None:
        with self._lock:
            kept = frequencies if len(frequencies) <= MAX_CACHED_TERMS else {}
            self._by_base[kb_id] = (seq, n_chunks, kept)


class FullText:
    """Implements `kb.protocols.Lexical` over one session, for one transaction."""

    def __init__(self, session: Session, kb_id: str, cache: FrequencyCache | None = None) -> None:
        self._session = session
        self._kb_id = kb_id
        self._cache = cache

    def create(self) -> None:
        """Make the empty table of this knowledge base."""
        sqlite.create_fulltext(self._session, self._kb_id)

    def drop(self) -> None:
        """Remove the table and everything in it."""
        sqlite.drop_fulltext(self._session, self._kb_id)

    def clear(self) -> None:
        """Forget every chunk."""
        self.drop()
        self.create()

    def count(self) -> int:
        """Return the number of chunks indexed."""
        return sqlite.fulltext_count(self._session, self._kb_id)

    def add(self, rows: Sequence[tuple[int, str, str]]) -> None:
        """Index ``(chunk_id, heading, text)`` rows."""
        self.add_terms(
            [(id_, index_terms(heading), index_terms(text)) for id_, heading, text in rows]
        )

    def add_terms(self, rows: Sequence[tuple[int, str, str]]) -> None:
        """Index rows whose heading and text went through `index_terms` already.

        Segmenting is the slow part of indexing: ingest does it before it takes the write lock.
        """
        sqlite.insert_fulltext(self._session, self._kb_id, rows)

    def remove(self, chunk_ids: Sequence[int]) -> None:
        """Forget chunks; unknown ids are ignored."""
        sqlite.delete_fulltext(self._session, self._kb_id, chunk_ids)

    def search(
        self,
        query: str,
        top_k: int,
        *,
        allowed: ChunkIds | None = None,
        stats: TermStats | None = None,
    ) -> list[tuple[int, float]]:
        """Return ``(chunk_id, score)`` best first; score is BM25, >= 0, higher is better.

        Very common terms are left out unless the base holds no other term of the question.
        Where even the rarest term is in more chunks than can be scored, those that hold another
        term too go first. `stats` are those of the same query, read here when not given.
        """
        stats = stats or self.stats(query)
        known = self._known_terms(query, stats)
        if not known or top_k <= 0:
            return []
        if allowed is not None and len(allowed) <= POSTING_BUDGET:  # every term can find
            return self._matches(_any([term for _, term in known]), top_k, allowed)
        finding, scoring = self._useful_terms(known, stats.n_chunks)
        found = []
        if scoring and stats.frequencies[finding[0]] > POSTING_BUDGET:
            both = f"({_any(finding)}) AND ({_any(scoring)})"
            found = self._matches(both, top_k, allowed)
        if len(found) < top_k:
            both = f"({_any(finding)}) AND ({_any(finding + scoring)})"
            found = self._matches(both if scoring else _any(finding), top_k, allowed)
        return found

    def _matches(self, match: str, top_k: int, allowed: ChunkIds | None) -> list[tuple[int, float]]:
        found = sqlite.search_fulltext(
            self._session,
            self._kb_id,
            match,
            COLUMN_WEIGHTS,
            top_k,
            scored=POSTING_BUDGET,
            allowed=None if allowed is None else allowed.tolist(),
        )
        return [(chunk_id, max(score, 0.0)) for chunk_id, score in found]

    def stats(self, question: str) -> TermStats:
        """Return how many chunks hold each term of `question`.

        One reading serves `search` and, with the pairs of Chinese content words,
        `kb.refusal.support`.
        """
        seq, n_chunks, known = self._known_frequencies()
        words = content_words(question)[:MAX_CANDIDATE_TERMS]
        terms = dict.fromkeys(words)
        for word in words:
            terms.update(dict.fromkeys(pairs(word) if is_han(word) else ()))
        terms.update(dict.fromkeys(_candidate_terms(question, n_chunks)))
        missing = [term for term in terms if term not in known]
        if missing:
            read = sqlite.fulltext_frequencies(self._session, self._kb_id, missing)
            known.update({term: read.get(term, 0) for term in missing})
            if self._cache is not None and seq is not None:
                self._cache.remember(self._kb_id, seq, n_chunks, known)
        return TermStats(
            n_chunks=n_chunks, frequencies={term: known[term] for term in terms if known[term]}
        )

    def _known_frequencies(self) -> tuple[Generation | None, int, dict[str, int]]:
        """Return the base's last change, its number of chunks, and what is cached as of then."""
        if self._cache is None:
            return None, self.count(), {}
        seq = self._session.scalar(
            select(KnowledgeBaseRow.last_seq).where(KnowledgeBaseRow.id == self._kb_id)
        )
        if seq is None:
            return None, self.count(), {}
        generation = (seq, sqlite.schema_version(self._session))
        cached = self._cache.known(self._kb_id, generation)
        return (generation, self.count(), {}) if cached is None else (generation, *cached)

    def _known_terms(self, query: str, stats: TermStats) -> list[tuple[int, str]]:
        """Return the terms that the base holds, rarest first, each behind its frequency."""
        candidates = _candidate_terms(query, stats.n_chunks)
        frequencies = [
            (stats.frequencies[term], term) for term in candidates if term in stats.frequencies
        ]
        return sorted(frequencies)[:MAX_QUERY_TERMS]

    def _useful_terms(
        self, known: Sequence[tuple[int, str]], n_chunks: int
    ) -> tuple[list[str], list[str]]:
        """Choose from the known terms those that find chunks, and those that only score them."""
        common = max(COMMON_MIN_CHUNKS, COMMON_SHARE * n_chunks)
        finding: list[str] = []
        scoring: list[str] = []
        postings = 0
        for frequency, term in known:
            postings += frequency
            if not finding or (frequency <= common and postings <= POSTING_BUDGET):
                finding.append(term)
            elif frequency <= common and postings <= POSTING_BUDGET + SCORING_BUDGET:
                scoring.append(term)
            else:
                break
        return finding, scoring


def _any(terms: Sequence[str]) -> str:
    return " OR ".join(f'"{term}"' for term in terms)  # no term holds a quote


def _candidate_terms(query: str, n_chunks: int) -> list[str]:
    """Return the terms of `query` that a base of `n_chunks` may be asked for."""
    terms = query_terms(query)
    if n_chunks > MAX_CHUNKS_FOR_SINGLES:
        terms = [term for term in terms if not is_single(term)] or terms
    return terms[:MAX_CANDIDATE_TERMS]
