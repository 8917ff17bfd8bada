"""Answer with the best-supported sentences of the passages, verbatim, with their offsets.

No chat model: what is shown was written by the documents' authors. One or two sentences answer, one
for each of several questions; the short answer in them is proposed by `kb.answers.spans`, or none
is.

A sentence is scored by the share of the question's words it holds, by rarity among the sentences
at hand. Words that stand only in its heading, in the header of its table or in the sentence
before it count less: that is where a sentence's subject often is. Those of the line that it is
indented below count nearly in full: it names what the sentence is about.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kb.answers.spans import propose
from kb.answers.typed import AnswerType, answer_type, read_question, typed_spans
from kb.records import AnswerEvent, Draft, Drafted, Passage, Question, Token, Usage
from kb.refusal.support import question_parts, word_match
from kb.text.sentences import split_sentences as split_sentences
from kb.text.simplify import simplified
from kb.text.terms import TermStats, content_words, index_terms

# Questions in one text that are answered, one sentence each; a single one gets one or two.
MAX_SENTENCES = 3
# Best sentences that are searched for a short answer.
SPAN_SENTENCES = 3
# A "sentence" without any end mark, a table flattened to one line say, is cut to this.
MAX_SENTENCE_CHARS = 500
# Passages and characters of each that are read: bounds the time for a top_k of 1,000.
MAX_PASSAGES = 10
MAX_PASSAGE_CHARS = 8_000

# What a word counts for that stands not in the sentence but in what it depends on.
_CONTEXT_CREDIT = 0.4
_PARENT_CREDIT = 0.8
# What holding a candidate of the asked type is worth, and the first passage over the last.
_TYPE_BONUS = 0.15
# A title, a table's header or the line before a list names the subject and tells nothing.
_LABEL_FACTOR = 0.5
_RANK_BONUS = 0.15
# A further sentence must score this share of the best, or bring this share of new words.
_KEEP_SHARE = 0.8
_NEW_WORDS = 0.2

_HEADING = re.compile(r"#{1,6}\s")
_TABLE_ROW = re.compile(r"\s*\||.+ \| ")
# What a line without an end mark, a value or a row is: a title, or the words before a list.
_LABEL = re.compile(
    r"[^:：|]*[^。！？!?；;….”’」』）)\d|:：][:：]?$|.*(?:如下|见下表|following)[:：]$"
)
_WRAP = re.compile(r"(?<=[\u2e80-\uffef])[ \t]*\n\s*(?=[\u2e80-\uffef])|(\s*\n\s*)")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of passage number `passage` (from 0), ``document_text[start:end]``.

    `text` is the same with the breaks of wrapped lines taken out. `is_heading` is a heading in
    the document, `is_label` what looks like a title. `own` and `context` are the terms of the
    sentence and of what it depends on, `parents` those of the lines that it is indented below.
    """

    passage: int
    start: int
    end: int
    text: str
    is_heading: bool
    is_label: bool
    own: frozenset[str]
    context: frozenset[str]
    parents: frozenset[str]


class ExtractiveAnswerer:
    """Implements `kb.protocols.Answerer` without a model."""

    model = "extractive"

    def answer(self, question: Question, passages: Sequence[Passage]) -> Iterator[AnswerEvent]:
        """Yield one Token per sentence, then Drafted."""
        chosen, span = compose(question.text, passages)
        texts: list[str] = []
        for sentence in chosen:
            texts.append((_joiner(texts[-1]) if texts else "") + sentence.text)
            yield Token(texts[-1])
        yield Drafted(
            Draft(
                text="".join(texts),
                answer_span=span,
                quotes=tuple((s.passage, s.start, s.end, s.text) for s in chosen),
                usage=Usage(),
            )
        )


def read_sentences(passages: Sequence[Passage]) -> list[Sentence]:
    """Return the sentences that may answer; headings only where there is nothing else."""
    found = [
        sentence
        for index, passage in enumerate(passages[:MAX_PASSAGES])
        for sentence in _sentences(index, passage)
    ]
    # A heading says what the next sentences are about, and is in their context already.
    return [sentence for sentence in found if not sentence.is_heading] or found


def compose(question: str, passages: Sequence[Passage]) -> tuple[list[Sentence], str | None]:
    """Return the sentences that answer and the short answer, which the first one holds.

    The sentence with the likeliest short answer comes first, though another may have more of the
    question's words. Several questions get the best sentence for each, at most `MAX_SENTENCES`, and
    no short answer. No sentence only if no passage has any word.
    """
    sentences = read_sentences(passages)
    if not sentences:
        return [], None
    parts = question_parts(question)[:MAX_SENTENCES]
    if len(parts) == 1:
        return _answer_one(parts[0], sentences, len(passages), limit=2)
    chosen = [
        sentence
        for part in parts
        for sentence in _answer_one(part, sentences, len(passages), limit=1)[0]
    ]
    return list(dict.fromkeys(chosen)), None


def _answer_one(
    question: str, sentences: Sequence[Sentence], n_passages: int, *, limit: int
) -> tuple[list[Sentence], str | None]:
    scores, rarities = score_sentences(question, sentences, n_passages)
    order = sorted(range(len(sentences)), key=lambda i: scores[i], reverse=True)
    first_with = {sentences[i].text: i for i in reversed(order)}
    order = [i for i in order if first_with[sentences[i].text] == i]
    best = order[:SPAN_SENTENCES]
    proposal = propose(read_question(question), [(sentences[i].text, scores[i]) for i in best])
    if proposal is not None:
        lead = best[proposal.sentence]
        order = [lead, *(i for i in order if i != lead)]
    chosen = _select(sentences, scores, rarities, order, limit)
    return [sentences[i] for i in chosen], proposal.text if proposal else None


def _sentences(index: int, passage: Passage) -> Iterator[Sentence]:
    chunk = passage.hit.chunk
    text = chunk.text[:MAX_PASSAGE_CHARS]
    heading = frozenset(index_terms(chunk.heading).split())
    before: frozenset[str] = frozenset()
    parents: frozenset[str] = frozenset()
    header: frozenset[str] | None = None
    above: list[tuple[int, frozenset[str]]] = []  # indents, increasing, and terms
    for start, end in split_sentences(text):
        end = min(end, start + MAX_SENTENCE_CHARS)
        piece = text[start:end]
        own = frozenset(index_terms(piece).split())
        if not own:
            continue  # a ruler, the line under a table's header
        is_row = _TABLE_ROW.match(piece) is not None
        line_start = text.rfind("\n", 0, start) + 1
        if not text[line_start:start].strip():  # it begins its line
            above = [(indent, terms) for indent, terms in above if indent < start - line_start]
            parents = frozenset().union(*(terms for _, terms in above))
            above.append((start - line_start, own))
        context = heading | (header if is_row and header is not None else before)
        is_header = is_row and header is None
        if is_header:
            header = own
        elif not is_row:
            header = None
        yield Sentence(
            passage=index,
            start=chunk.start + start,
            end=chunk.start + end,
            text=_unwrapped(piece),
            is_heading=_HEADING.match(piece) is not None or piece in chunk.heading,
            is_label=is_header or (len(piece) < 60 and _LABEL.match(piece) is not None),
            own=own,
            context=context,
            parents=parents,
        )
        before = own


def score_sentences(
    question: str, sentences: Sequence[Sentence], n_passages: int
) -> tuple[list[float], Mapping[str, float]]:
    """Return the score of each sentence for one question, and the rarities of its words."""
    rarities = _rarities(content_words(question), sentences)
    kind = answer_type(question)
    return [_score(s, rarities, kind, n_passages) for s in sentences], rarities


def _rarities(words: Sequence[str], sentences: Sequence[Sentence]) -> Mapping[str, float]:
    frequencies = {
        word: sum(word_match(word, sentence.own) == 1 for sentence in sentences) for word in words
    }
    stats = TermStats(len(sentences), frequencies)
    return {word: stats.rarity(word) for word in words}


def _score(
    sentence: Sentence, rarities: Mapping[str, float], kind: AnswerType | None, n_passages: int
) -> float:
    total = sum(rarities.values()) or 1.0
    held = sum(
        rarity
        * max(
            word_match(word, sentence.own),
            _CONTEXT_CREDIT * word_match(word, sentence.context),
            _PARENT_CREDIT * word_match(word, sentence.parents),
        )
        for word, rarity in rarities.items()
    )
    typed = kind is not None and bool(typed_spans(simplified(sentence.text), kind))
    score = held / total + _TYPE_BONUS * typed + _RANK_BONUS * (1 - sentence.passage / n_passages)
    return score * _LABEL_FACTOR if sentence.is_label else score


def _select(
    sentences: Sequence[Sentence],
    scores: Sequence[float],
    rarities: Mapping[str, float],
    order: Sequence[int],
    limit: int,
) -> list[int]:
    """Choose the first, then those nearly as good as the best or holding words not yet covered."""
    total = sum(rarities.values()) or 1.0
    highest = max(scores)
    chosen = [order[0]]
    covered = {word for word in rarities if word_match(word, sentences[order[0]].own) == 1}
    texts = {sentences[order[0]].text}
    for i in order[1:]:
        if len(chosen) == limit:
            break
        if sentences[i].text in texts:
            continue
        new = {w for w in rarities if w not in covered and word_match(w, sentences[i].own) == 1}
        brings = sum(rarities[word] for word in new) / total
        if scores[i] >= _KEEP_SHARE * highest or brings >= _NEW_WORDS:
            chosen.append(i)
            covered |= new
            texts.add(sentences[i].text)
    return chosen


def _unwrapped(piece: str) -> str:
    """Join wrapped lines: without a space between Chinese characters, with one elsewhere."""
    return _WRAP.sub(lambda match: " " if match.group(1) else "", piece)


def _joiner(before: str) -> str:
    return "" if before[-1:] in "。！？；…」』”" else " "
