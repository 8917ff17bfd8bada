"""Measure quality on question sets: retrieval, answers, refusals and citations.

Sets are read by `kb.evaluation.question_sets`. This file turns outcomes into figures; how documents
get into a knowledge base is the caller's business (`kb.cli.eval_target`), so that the real path is
measured and not a copy of it.

Not measured: free-form answers, which would have to be compared by meaning.
"""

import re
import statistics
import string
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kb.evaluation.question_sets import SetQuestion
from kb.records import MAX_TOP_K, Answer, Citation, Hit
from kb.refusal.refusal_curve import CurvePoint, auroc, curve

DISTINCT_DOCUMENTS = 10

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the system did with one question. `ranked` are distinct doc_ids, best first."""

    question: SetQuestion
    ranked: tuple[str, ...]
    answer: Answer
    cited: tuple[str, ...]
    n_valid: int
    ms: float


@dataclass(frozen=True, slots=True)
class Target:
    """The system under test, with one corpus in it.

    `search` returns at most as many hits as asked for, best first; `stored_text` the text of a
    document version, None if there is none; `doc_ids` maps document ids to those of the corpus.
    """

    search: Callable[[str, int], Sequence[Hit]]
    ask: Callable[[str], Answer]
    stored_text: Callable[[int], str | None]
    doc_ids: Mapping[str, str]


Figures = dict[str, float | int | None]
# One row per question; None where the question cannot show it.
Details = dict[str, list[Any]]


def run(questions: Iterable[SetQuestion], target: Target) -> Iterator[Outcome]:
    """Put each question to the target; yield outcomes as they come."""
    for question in questions:
        ranked = _distinct_documents(question.text, target)
        started = time.perf_counter()
        answer = target.ask(question.text)
        ms = (time.perf_counter() - started) * 1000
        yield Outcome(
            question=question,
            ranked=ranked,
            answer=answer,
            cited=tuple(target.doc_ids.get(c.document_id, "") for c in answer.citations),
            n_valid=sum(is_valid(c, target.stored_text(c.version_id)) for c in answer.citations),
            ms=ms,
        )


def is_valid(citation: Citation, stored_text: str | None) -> bool:
    """Tell whether the quote stands in the stored document exactly where the citation says."""
    return (
        stored_text is not None
        and 0 <= citation.start < citation.end <= len(stored_text)
        and stored_text[citation.start : citation.end] == citation.quote
    )


def figures(outcomes: Sequence[Outcome]) -> Figures:
    """Return the figures of one set; None where the set cannot show one.

    All but the times are shares in [0, 1]. Retrieval and answers count answerable questions; a
    refused or missing answer scores 0. `refusal_precision`, `refusal_recall` and `auroc` (of
    `support`) need questions without an answer; `false_refusals` is the share of answerable
    questions refused.
    """
    answerable = [o for o in outcomes if o.question.is_answerable]
    unanswerable = [o for o in outcomes if not o.question.is_answerable]
    refused = [o for o in outcomes if o.answer.refused]
    n_citations = sum(len(o.answer.citations) for o in outcomes)
    separation = auroc(_supports(answerable), _supports(unanswerable))
    return {
        "questions": len(outcomes),
        **{name: _mean(_present(map(of, outcomes))) for name, of in PER_QUESTION.items()},
        "refusal_precision": (
            _share(sum(not o.question.is_answerable for o in refused), len(refused))
            if unanswerable
            else None
        ),
        "citation_valid": _share(sum(o.n_valid for o in outcomes), n_citations),
        "auroc": None if separation is None else round(separation, 4),
        "ms_per_question_p50": _percentile([o.ms for o in outcomes], 50),
        "ms_per_question_p95": _percentile([o.ms for o in outcomes], 95),
    }


def refusal_curve(outcomes: Sequence[Outcome]) -> list[CurvePoint]:
    """Return which shares of both kinds of questions each threshold would refuse."""
    return curve(
        _supports([o for o in outcomes if o.question.is_answerable]),
        _supports([o for o in outcomes if not o.question.is_answerable]),
    )


def details(outcomes: Sequence[Outcome]) -> Details:
    """Return the same figures question by question, as columns: a later run compares with them."""
    return {
        "qid": [o.question.qid for o in outcomes],
        "question": [o.question.text for o in outcomes],
        **{name: [_rounded(of(o)) for o in outcomes] for name, of in PER_QUESTION.items()},
        "citation_valid": [_share(o.n_valid, len(o.answer.citations)) for o in outcomes],
        "answerable": [int(o.question.is_answerable) for o in outcomes],
        "support": [round(o.answer.support, 4) for o in outcomes],
        "ms": [round(o.ms, 1) for o in outcomes],
    }


# One question


def recall_at(outcome: Outcome, k: int) -> float:
    """Gold documents among the first k distinct ones, over min(k, number of gold documents).

    Where one of them is enough, 1 if one is there.
    """
    gold = outcome.question.gold_doc_ids
    if outcome.question.is_any_gold:
        return float(not gold.isdisjoint(outcome.ranked[:k]))
    return len(gold.intersection(outcome.ranked[:k])) / min(k, len(gold))


def reciprocal_rank(outcome: Outcome) -> float:
    """1 over the rank of the first gold document, 0 beyond rank 10."""
    for rank, doc_id in enumerate(outcome.ranked[:DISTINCT_DOCUMENTS], start=1):
        if doc_id in outcome.question.gold_doc_ids:
            return 1 / rank
    return 0.0


def exact_match(outcome: Outcome) -> float:
    """1 if the short answer equals a gold answer after normalisation."""
    span, question = outcome.answer.answer_span, outcome.question
    if span is None:
        return 0.0
    given = units(span.text, question.lang)
    return float(any(given == units(gold, question.lang) for gold in question.groups[0]))


def overlap_f1(outcome: Outcome) -> float:
    """Best F1 of the short answer with a gold answer: over words, characters for Chinese."""
    span, question = outcome.answer.answer_span, outcome.question
    if span is None:
        return 0.0
    given = Counter(units(span.text, question.lang))
    return max(_f1(given, Counter(units(gold, question.lang))) for gold in question.groups[0])


def contains(outcome: Outcome) -> float:
    """1 if the answer's text holds a gold answer for every part of the question."""
    if outcome.answer.refused:
        return 0.0
    lang = outcome.question.lang
    text = "".join(units(_without_markers(outcome.answer.text), lang))
    return float(
        all(
            any("".join(units(gold, lang)) in text for gold in group)
            for group in outcome.question.groups
        )
    )


def cites_gold(outcome: Outcome) -> float:
    """1 if a citation names a gold document."""
    return float(not outcome.question.gold_doc_ids.isdisjoint(outcome.cited))


def _if_retrievable(of: "Callable[[Outcome], float]") -> "OfQuestion":
    return lambda o: of(o) if o.question.is_answerable and o.question.gold_doc_ids else None


def _if_judged(of: "Callable[[Outcome], float]", *, single: bool) -> "OfQuestion":
    def value(o: Outcome) -> float | None:
        parts = len(o.question.groups) if o.question.is_answerable else 0
        return of(o) if parts == 1 or (parts and not single) else None

    return value


def _refused(*, answerable: bool) -> "OfQuestion":
    return lambda o: float(o.answer.refused) if o.question.is_answerable == answerable else None


OfQuestion = Callable[[Outcome], float | None]
# The figures that are means over questions, each with the questions that it counts.
PER_QUESTION: Mapping[str, OfQuestion] = {
    "recall@1": _if_retrievable(lambda o: recall_at(o, 1)),
    "recall@5": _if_retrievable(lambda o: recall_at(o, 5)),
    "recall@10": _if_retrievable(lambda o: recall_at(o, 10)),
    "mrr@10": _if_retrievable(reciprocal_rank),
    "answer_em": _if_judged(exact_match, single=True),
    "answer_f1": _if_judged(overlap_f1, single=True),
    "answer_contains": _if_judged(contains, single=False),
    "refusal_recall": _refused(answerable=False),
    "false_refusals": _refused(answerable=True),
    "citation_gold": lambda o: None if o.answer.refused else _if_retrievable(cites_gold)(o),
}


def _distinct_documents(text: str, target: Target) -> tuple[str, ...]:
    """Fetch hits until they come from 10 distinct documents, or there are no more.

    Documents that a hit says it stands in as well come after the one it is shown from.
    """
    wanted = DISTINCT_DOCUMENTS
    while True:
        hits = target.search(text, wanted)
        found = (
            document_id
            for hit in hits
            for document_id in (hit.chunk.document_id, *(t.document_id for t in hit.also_in))
        )
        ranked = dict.fromkeys(target.doc_ids.get(document_id, "") for document_id in found)
        if len(ranked) >= DISTINCT_DOCUMENTS or len(hits) < wanted or wanted >= MAX_TOP_K:
            return tuple(ranked)
        wanted = min(wanted * 3, MAX_TOP_K)


def units(text: str, lang: str) -> list[str]:
    """SQuAD's normalisation for words; letters and digits one by one for Chinese."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    if lang.startswith("zh"):
        return [character for character in folded if character.isalnum()]
    return _ARTICLES.sub(" ", folded.translate(_PUNCTUATION)).split()


def _f1(given: Counter[str], gold: Counter[str]) -> float:
    shared = sum((given & gold).values())
    return 2 * shared / (sum(given.values()) + sum(gold.values())) if shared else 0.0


def _without_markers(text: str) -> str:
    return re.sub(r"\s?\[\d+\]", "", text)


# Arithmetic


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return round(sum(listed) / len(listed), 4) if listed else None


def _present(values: Iterable[float | None]) -> Iterator[float]:
    return (value for value in values if value is not None)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _supports(outcomes: Sequence[Outcome]) -> list[float]:
    return [outcome.answer.support for outcome in outcomes]


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _percentile(values: Sequence[float], percent: int) -> float | None:
    if not values:
        return None
    if len(values) == 1:
        return round(values[0], 1)
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 1)
