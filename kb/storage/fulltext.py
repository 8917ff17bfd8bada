"""Full text of one knowledge base: the lexical retriever, inside the caller's transaction.

Terms come from `kb.terms`, storage and BM25 from FTS5 (`kb.storage.sqlite`). A question is never
read as FTS5 syntax: each of its terms is looked up as a quoted string.
"""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from kb.storage import sqlite
from kb.support import TermStats
from kb.terms import content_words, index_terms, query_terms

# A term in more chunks than this share says little and costs most of the time of a query.
COMMON_SHARE = 0.2
# In a base of a few chunks a share means nothing: a term is common only from this many chunks.
COMMON_MIN_CHUNKS = 50
# Rarest terms that are looked up; a whole page pasted as a question has hundreds.
MAX_QUERY_TERMS = 48
# Terms whose frequency is asked for: bounds the work for a question of 100,000 characters.
MAX_CANDIDATE_TERMS = 512
# BM25 column weights: heading path, body.
COLUMN_WEIGHTS = (1.0, 1.0)


class FullText:
    """Implements `kb.protocols.Lexical` over one session; holds no state of its own."""

    def __init__(self, session: Session, kb_id: str) -> None:
        self._session = session
        self._kb_id = kb_id

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
            [(chunk_id, index_terms(heading), index_terms(text)) for chunk_id, heading, text in rows]
        )

    def add_terms(self, rows: Sequence[tuple[int, str, str]]) -> None:
        """Index rows whose heading and text went through `index_terms` already.

        Segmenting is the slow part of indexing: ingest does it before it takes the write lock.
        """
        sqlite.insert_fulltext(self._session, self._kb_id, rows)

    def remove(self, chunk_ids: Sequence[int]) -> None:
        """Forget chunks; unknown ids are ignored."""
        sqlite.delete_fulltext(self._session, self._kb_id, chunk_ids)

    def search(self, query: str, top_k: int) -> list[tuple[int, float]]:
        """Return ``(chunk_id, score)`` best first; score is BM25, >= 0, higher is better.

        Very common terms are left out unless nothing else of the question is in the base.
        """
        terms = self._useful_terms(query_terms(query))
        if not terms or top_k <= 0:
            return []
        match = " OR ".join(_quoted(term) for term in terms)
        found = sqlite.search_fulltext(self._session, self._kb_id, match, COLUMN_WEIGHTS, top_k)
        return [(chunk_id, max(score, 0.0)) for chunk_id, score in found]

    def stats(self, question: str) -> TermStats:
        """Return how many chunks hold each content word of `question`, for `kb.support`.

        A Chinese word of three or more characters counts where the segmenter found it in the
        chunk, which is fewer chunks than hold its characters.
        """
        words = content_words(question)[:MAX_CANDIDATE_TERMS]
        frequencies = sqlite.fulltext_frequencies(self._session, self._kb_id, words)
        return TermStats(n_chunks=self.count(), frequencies=frequencies)

    def _useful_terms(self, terms: list[str]) -> list[str]:
        terms = terms[:MAX_CANDIDATE_TERMS]
        single = [term for term in terms if _is_single(term)]
        frequencies = sqlite.fulltext_frequencies(self._session, self._kb_id, terms)
        present = [term for term in terms if frequencies.get(term, 0) > 0]
        limit = max(COMMON_MIN_CHUNKS, COMMON_SHARE * self.count())
        rare = [term for term in present if frequencies[term] <= limit]
        chosen = sorted(rare or present, key=lambda term: frequencies[term])[:MAX_QUERY_TERMS]
        # A lone character is a prefix, whose frequency the vocabulary does not tell.
        return chosen or single


def _is_single(term: str) -> bool:
    return len(term) == 1 and not term.isascii()


def _quoted(term: str) -> str:
    quoted = '"' + term.replace('"', '""') + '"'
    return quoted + "*" if _is_single(term) else quoted
