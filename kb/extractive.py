"""Answer with the best-supported sentences of the passages, verbatim, and their offsets.

No model: what is shown was written by the documents' authors. A question is answered by at most
three sentences; a short span (a number, a date, a name) is offered only when simple rules are
sure of it.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kb.records import AnswerEvent, Draft, Drafted, Passage, Question, Token, Usage
from kb.terms import index_terms, query_terms

MAX_SENTENCES = 3
MAX_SENTENCE_CHARS = 400

_END = re.compile(r"[。！？!?；;…]+[”’」』）)\"']*|(?<=[^\d\s.])\.(?=\s|$)[”’\"')]*|\n+")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a passage: ``document_text[start:end]``."""

    passage: int
    start: int
    end: int
    text: str


class ExtractiveAnswerer:
    """Implements `kb.protocols.Answerer` without a model."""

    model = "extractive"

    def answer(self, question: Question, passages: Sequence[Passage]) -> Iterator[AnswerEvent]:
        """Yield one Token per sentence, then Drafted; needs at least one passage with text."""
        chosen = choose_sentences(question.text, passages)
        texts: list[str] = []
        for sentence in chosen:
            text = sentence.text if not texts else _joiner(texts[-1]) + sentence.text
            texts.append(text)
            yield Token(text)
        quotes = tuple((s.passage, s.start, s.end, s.text) for s in chosen)
        yield Drafted(Draft(text="".join(texts), answer_span=None, quotes=quotes, usage=Usage()))


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Return the ``(start, end)`` of the sentences of `text`, without surrounding space.

    A line break ends a sentence, so rows of a table and list items are sentences of their own.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _END.finditer(text):
        spans.append((start, match.end()))
        start = match.end()
    spans.append((start, len(text)))
    return [span for span in (_trimmed(text, *span) for span in spans) if span[0] < span[1]]


def choose_sentences(question: str, passages: Sequence[Passage]) -> list[Sentence]:
    """Return the sentences that answer best, in reading order."""
    terms = query_terms(question)
    sentences = [
        sentence
        for index, passage in enumerate(passages)
        for sentence in _sentences(index, passage)
    ]
    if not sentences:
        return []
    found = [set(index_terms(sentence.text).split()) for sentence in sentences]
    weights = _weights(terms, found)
    total = sum(weights.values()) or 1.0
    scores = []
    for sentence, words in zip(sentences, found, strict=True):
        coverage = sum(weights[term] for term in terms if term in words) / total
        scores.append(coverage + 0.1 * passages[sentence.passage].hit.score)
    order = sorted(range(len(sentences)), key=lambda i: scores[i], reverse=True)
    best = scores[order[0]]
    kept = [i for i in order[:MAX_SENTENCES] if scores[i] >= 0.7 * best]
    return [sentences[i] for i in sorted(kept)]


def _sentences(index: int, passage: Passage) -> Iterator[Sentence]:
    chunk = passage.hit.chunk
    for start, end in split_sentences(chunk.text):
        if end - start > MAX_SENTENCE_CHARS:
            end = start + MAX_SENTENCE_CHARS
        yield Sentence(index, chunk.start + start, chunk.start + end, chunk.text[start:end])


def _weights(terms: Sequence[str], found: Sequence[set[str]]) -> Mapping[str, float]:
    n = len(found)
    return {term: math.log(1 + n / (1 + sum(term in words for words in found))) for term in terms}


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _joiner(before: str) -> str:
    return "" if before[-1:] in "。！？；」』”" else " "
