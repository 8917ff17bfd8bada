"""Prove citations: tie answer sentences to passages and check what they claim.

A model's own markers are not trusted: they are taken out, and only break ties. Every sentence of
an answer is compared with the sentences of the passages. The one it shares most words with is
quoted or, if none shares enough, the one whose vector is by far the nearest, and a marker is put
where the sentence ends. Then every number, date, code and quoted name of the sentence must occur in
the passage, in whatever form (`kb.answers.claims`), else the citation is marked unsupported: that
catches the figure that was silently altered on the way from document to answer.

Not checked: whether a sentence follows from its quote; that takes a model.
"""

import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from kb.answers.claims import Claims, claims_in
from kb.records import AnswerSpan, Citation, Draft, Passage
from kb.retrieval.similarity import SentenceSimilarity, relative_margin
from kb.text import stopwords
from kb.text.pages import page_at
from kb.text.sentences import split_sentences
from kb.text.terms import index_terms, is_single, normalise

# Share of an answer sentence's terms that its source must hold to be cited at all.
MIN_OVERLAP = 0.4
# The same where the model itself named the passage.
MIN_OVERLAP_HINTED = 0.25
# How far a source that shares too few words must stand out from the others by its vector, and the
# same where the model named the passage. By benchmarks/similarity_margins.py, default embedder:
# 11 faithful paraphrases stand out by 0.7 and more, sentences of another subject by at most 0.2;
# others of the same text by 0.6, and a tenth by 0.76, so this may quote a neighbour of the right
# sentence.
MIN_MARGIN = 0.65
MIN_MARGIN_HINTED = 0.5
# Sentences of passages that are embedded for one answer, of passages that the model named first:
# bounds the time.
MAX_EMBEDDED = 150
# Sentences of one passage that are read: bounds the time for a table of ten thousand rows.
MAX_SENTENCES = 400
# Sentences of an answer that are tied to passages: more than any model's completion has.
MAX_ANSWER_SENTENCES = 200
# Longest answer sentence that is put together from pieces of a quotation.
MAX_JOINED = 400
_PAIRS = (("“", "”"), ("「", "」"), ("『", "』"), ("《", "》"))
_CLOSERS = frozenset("”」』》")

MARKER = re.compile(
    r"\s*[\[【［〔](?:passage |citation:|段落)?(\d{1,3}(?:\s?[,，、]\s?\d{1,3})*)[\]】］〕]"
)
# Names in quotation marks of either language, and titles of works. Straight quotes pair up.
_QUOTED = re.compile(
    r"«([^«»]{1,100})»|“([^“”]{1,100})”|「([^「」]{1,100})」|『([^『』]{1,100})』"
    r"|《([^《》]{1,100})》|\"([^\"\n]{1,100})\"|‘([^‘’\n]{1,100})’(?!\w)"
    r"|(?<!\w)'([^'\n]{2,60})'(?!\w)"
)


_IGNORED = re.compile(r"[\s\"'‘’“”«»「」『』《》]+")


@dataclass(frozen=True, slots=True)
class _Source:
    """A sentence of a passage, with document offsets."""

    passage: int
    start: int
    end: int
    text: str
    terms: frozenset[str]


@dataclass(slots=True)
class ReadPassages:
    """What was read of an answer's passages, so that a stream of sentences reads them once.

    Without `similarity`, sentences are tied to passages by their words alone.
    """

    passages: Sequence[Passage]
    similarity: SentenceSimilarity | None = None
    _sources: list[_Source] | None = None
    _stated: dict[str, Claims] = field(default_factory=dict)

    def sources(self) -> list[_Source]:
        """Return the sentences of all passages."""
        if self._sources is None:
            self._sources = [s for i, each in enumerate(self.passages) for s in _sources(i, each)]
        return self._sources

    def nearest(self, sentence: str, hinted: AbstractSet[int]) -> _Source | None:
        """Return the source whose vector is by far the nearest to `sentence`, if one is.

        None where fewer than two sources can be compared: nothing would tell near from far.
        """
        if self.similarity is None:
            return None

        def is_hinted(source: _Source) -> bool:
            return self.passages[source.passage].number in hinted

        sources = sorted(self.sources(), key=is_hinted, reverse=True)[:MAX_EMBEDDED]
        found = self.similarity.cosines(sentence, [source.text for source in sources])
        known = [(cosine, i) for i, cosine in enumerate(found) if cosine is not None]
        if len(known) < 2:
            return None
        cosine, best = max(known)
        least = MIN_MARGIN_HINTED if is_hinted(sources[best]) else MIN_MARGIN
        margin = relative_margin(cosine, [each for each, _ in known])
        return sources[best] if margin >= least else None

    def stated(self, text: str) -> Claims:
        """Return what the text of a passage states."""
        if text not in self._stated:
            self._stated[text] = claims_in(text, generous=True)
        return self._stated[text]


def cite(
    draft: Draft, passages: Sequence[Passage], *, read: ReadPassages | None = None
) -> tuple[str, tuple[Citation, ...], AnswerSpan | None]:
    """Return the answer with markers, its citations, and the short answer if one is proven.

    A marker ``[n]`` names passage n and follows the sentence it proves; a sentence that no
    passage holds has none. Citations are in the order of the text, one per cited sentence.
    ``document_text[start:end] == quote`` holds for each. `read` keeps what was read of the same
    passages from one call to the next.
    """
    read = read or ReadPassages(passages)
    clean: str = draft.text
    hints: dict[int, list[int]] = {}
    if not draft.quotes:
        clean, hints = _without_markers(draft.text, {passage.number for passage in passages})
    quotes = draft.quotes or tuple(_align(clean, read, hints))
    pieces: list[str] = []
    citations: list[Citation] = []
    position = 0
    for index, start, end, sentence in quotes:
        at = clean.find(sentence, position)
        if at < 0:
            continue
        citation = _citation(passages[index], start, end, sentence, read)
        space = " " if sentence[-1].isascii() else ""
        pieces += [clean[position : at + len(sentence)], space + citation.marker]
        position = at + len(sentence)
        citations.append(citation)
    text = "".join([*pieces, clean[position:]])
    return text, tuple(citations), _proven_span(draft.answer_span, citations)


def is_supported(sentence: str, source: str) -> bool:
    """Tell whether every number, date and quoted name of `sentence` occurs in `source`.

    Numbers are compared by value (``1,900`` is ``１９００``, ``百分之五`` is ``5%``), names without
    regard to case, width and white space.
    """
    return _proves(source, claims_in(source, generous=True), sentence)


def _proves(source: str, stated: Claims, sentence: str) -> bool:
    if not stated.covers(claims_in(sentence)):
        return False
    folded = _folded(source)
    return all(_folded(name).strip(".,。，、；：!?") in folded for name in _quoted_names(sentence))


def _align(
    text: str, read: ReadPassages, hints: dict[int, list[int]]
) -> Iterator[tuple[int, int, int, str]]:
    """Yield a quote for every sentence of `text` that some passage holds, in its words or sense."""
    passages, sources = read.passages, read.sources()
    for start, end in answer_sentences(text)[:MAX_ANSWER_SENTENCES]:
        sentence = text[start:end]
        terms = _content(sentence)
        if not terms:
            continue
        hinted = {
            number for at, numbers in hints.items() if start < at <= end for number in numbers
        }
        best, best_key = None, (0.0, 0.0)
        for source in sources:
            shared = terms & source.terms
            if not shared:
                continue
            overlap = len(shared) / len(terms)
            is_hinted = passages[source.passage].number in hinted
            # The longer of two sources says more beside the point.
            key = (overlap + 0.1 * is_hinted, -len(source.terms))
            if overlap >= (MIN_OVERLAP_HINTED if is_hinted else MIN_OVERLAP) and key > best_key:
                best, best_key = source, key
        best = best or read.nearest(sentence, hinted)
        if best is not None:
            yield best.passage, best.start, best.end, sentence


def answer_sentences(text: str) -> list[tuple[int, int]]:
    """Return the sentences of an answer; what stands in quotation marks is not torn apart.

    A sentence that ends inside a quotation goes on to the quotation's end, and one that ends with
    it ("谁？"他问) to its own, within `MAX_JOINED` characters.
    """
    joined: list[tuple[int, int]] = []
    for start, end in split_sentences(text):
        if joined:
            before, last = joined[-1]
            piece = text[before:last]
            is_open = any(piece.count(a) > piece.count(b) for a, b in _PAIRS)
            goes_on = piece[-1:] in _CLOSERS and last == start
            if end - before <= MAX_JOINED and (is_open or goes_on):
                joined[-1] = (before, end)
                continue
        joined.append((start, end))
    return joined


def _sources(index: int, passage: Passage) -> Iterator[_Source]:
    chunk = passage.hit.chunk
    for start, end in split_sentences(chunk.text)[:MAX_SENTENCES]:
        text = chunk.text[start:end]
        yield _Source(index, chunk.start + start, chunk.start + end, text, _content(text))


def _content(sentence: str) -> frozenset[str]:
    """Return the terms by which sentences are compared: no single characters, no stop words."""
    terms = index_terms(sentence).split()
    kept = [t for t in terms if not is_single(t) and t not in stopwords.ENGLISH]
    return frozenset(kept or terms)


def _without_markers(text: str, known: set[int]) -> tuple[str, dict[int, list[int]]]:
    """Take the model's markers out; return where each stood in what is left, and its numbers.

    Only what names a passage is a marker; ``[0]`` in a line of code stays.
    """
    pieces: list[str] = []
    hints: dict[int, list[int]] = {}
    length = position = 0
    for match in MARKER.finditer(text):
        numbers = [int(number) for number in re.findall(r"\d+", match.group(1))]
        if not known.issuperset(numbers):
            continue
        pieces.append(text[position : match.start()])
        length += match.start() - position
        position = match.end()
        # A marker after the full stop belongs to the sentence before it.
        hints.setdefault(length, []).extend(numbers)
    pieces.append(text[position:])
    return "".join(pieces), hints


def _citation(
    passage: Passage, start: int, end: int, sentence: str, read: ReadPassages
) -> Citation:
    chunk = passage.hit.chunk
    source = f"{chunk.heading}\n{chunk.text}"
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
        supported=_proves(source, read.stated(source), sentence),
    )


def _proven_span(text: str | None, citations: Sequence[Citation]) -> AnswerSpan | None:
    """Return the short answer with the first citation whose quote holds it verbatim."""
    if not text:
        return None
    for index, citation in enumerate(citations):
        if text in citation.quote:
            return AnswerSpan(text=text, citation=index)
    return None


def _quoted_names(sentence: str) -> Iterator[str]:
    for match in _QUOTED.finditer(sentence):
        yield next(name for name in match.groups() if name is not None)


def _folded(text: str) -> str:
    """Return `text` without white space and quotation marks, as names are compared."""
    return _IGNORED.sub("", normalise(text))
