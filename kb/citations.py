"""Prove citations: align answer sentences to passages and check what they claim.

The model's own markers are not trusted. Every sentence of an answer is matched to the passage
sentences it shares most with; every number, date and quoted name in it must occur in the passage,
else the citation is marked unsupported.
"""

import bisect
import re
import unicodedata
from collections.abc import Sequence

from kb.extractive import split_sentences
from kb.records import AnswerSpan, Citation, Draft, Passage
from kb.terms import index_terms, normalise

MIN_OVERLAP = 0.3

_MARKER = re.compile(r"\s*[\[【](\d{1,3})[\]】]")
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?%?")
_NAME = re.compile(r"[«“「『《\"]([^«»“”「」『』《》\"]{1,80})[»”」』》\"]")


def cite(
    draft: Draft, passages: Sequence[Passage]
) -> tuple[str, tuple[Citation, ...], AnswerSpan | None]:
    """Return the answer with markers, its citations, and the short answer if one was drafted.

    A marker ``[n]`` names passage n and follows the sentence it proves.
    """
    quotes = draft.quotes or _aligned(draft.text, passages)
    clean = _MARKER.sub("", draft.text) if not draft.quotes else draft.text
    text, citations, position = "", [], 0
    for index, start, end, sentence in quotes:
        at = clean.find(sentence, position)
        if at < 0:
            continue
        text += clean[position : at + len(sentence)] + f" [{passages[index].number}]"
        position = at + len(sentence)
        citations.append(_citation(passages[index], start, end, sentence))
    text += clean[position:]
    return text, tuple(citations), _span(draft.answer_span, citations)


def page_at(pages: Sequence[int], offset: int) -> int | None:
    """Return the 1-based page that holds `offset`; None where the document has no pages."""
    return max(1, bisect.bisect_right(pages, offset)) if pages else None


def is_supported(sentence: str, source: str) -> bool:
    """Tell whether every number and quoted name of `sentence` occurs in `source`."""
    numbers = set(_numbers(source))
    folded = normalise(source)
    return all(number in numbers for number in _numbers(sentence)) and all(
        normalise(name) in folded for name in _NAME.findall(sentence)
    )


def _aligned(text: str, passages: Sequence[Passage]) -> tuple[tuple[int, int, int, str], ...]:
    clean = _MARKER.sub("", text)
    quotes = []
    for start, end in split_sentences(clean):
        sentence = clean[start:end]
        terms = set(index_terms(sentence).split())
        if not terms:
            continue
        best, best_quote = 0.0, None
        for index, passage in enumerate(passages):
            chunk = passage.hit.chunk
            for at, to in split_sentences(chunk.text):
                words = set(index_terms(chunk.text[at:to]).split())
                overlap = len(terms & words) / len(terms)
                if overlap > best:
                    best = overlap
                    best_quote = (index, chunk.start + at, chunk.start + to, sentence)
        if best_quote and best >= MIN_OVERLAP:
            quotes.append(best_quote)
    return tuple(quotes)


def _citation(passage: Passage, start: int, end: int, sentence: str) -> Citation:
    chunk = passage.hit.chunk
    return Citation(
        marker=f"[{passage.number}]",
        kb=passage.hit.kb,
        document_id=chunk.document_id,
        document=passage.hit.document,
        version_id=chunk.version_id,
        page=page_at(passage.pages, start) or chunk.page,
        start=start,
        end=end,
        quote=chunk.text[start - chunk.start : end - chunk.start],
        supported=is_supported(sentence, chunk.heading + "\n" + chunk.text),
    )


def _span(text: str | None, citations: Sequence[Citation]) -> AnswerSpan | None:
    if not text:
        return None
    for index, citation in enumerate(citations):
        if text in citation.quote:
            return AnswerSpan(text=text, citation=index)
    return None


def _numbers(text: str) -> list[str]:
    folded = unicodedata.normalize("NFKC", text)
    return [match.replace(",", "") for match in _NUMBER.findall(folded)]
