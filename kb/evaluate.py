"""Measure quality on question sets: retrieval, answers, refusals and citations.

A set is a folder with ``corpus.jsonl`` (``doc_id, title, text``) and ``questions.jsonl``
(``qid, question, answers, gold_doc_ids, lang, answerable, meta``). Questions about a folder of
files name them by ``gold_paths``, each the folder's name and the path in it, and need no corpus;
with ``any_gold`` one of them is enough. This file reads sets and turns outcomes into figures;
how documents get into a knowledge base is the caller's business (`kb.cli.eval_target`), so that the
real path is measured and not a copy of it.

Not measured: free-form answers, which would have to be compared by meaning.
"""

import hashlib
import json
import os
import re
import statistics
import string
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kb.errors import InvalidInputError
from kb.records import MAX_TOP_K, Answer, Citation, Hit

DISTINCT_DOCUMENTS = 10

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class CorpusDocument:
    doc_id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class SetQuestion:
    """One question; `groups` are the parts of a right answer, alternatives inside each.

    Empty groups: the answer is free-form or there is none, and its text is not judged.
    """

    qid: str
    text: str
    lang: str
    is_answerable: bool
    gold_doc_ids: frozenset[str]
    groups: tuple[tuple[str, ...], ...]
    is_any_gold: bool = False


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """A named set. `corpus_hash` names the corpus: sets with the same one share it.

    A set about a folder of files has that `folder` and no `documents`.
    """

    name: str
    corpus_hash: str
    documents: tuple[CorpusDocument, ...]
    questions: tuple[SetQuestion, ...]
    folder: Path | None = None


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


def find_sets(folder: Path) -> list[Path]:
    """Return the set folders at or directly below `folder`, by name; a file is a set by itself.

    Raises:
        InvalidInputError: there is none.
    """
    if folder.is_file():
        return [folder]
    candidates = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    found = [path for path in candidates if (path / "questions.jsonl").is_file()]
    if not found:
        raise InvalidInputError(
            "DIR", f"{str(folder)!r} holds no set (a folder with corpus.jsonl and questions.jsonl)"
        )
    return found


def load_set(path: Path, documents: Path | None = None) -> QuestionSet:
    """Read one set.

    Args:
        path: its folder, or a file of questions about `documents`.
        documents: the folder of files that the questions are about, in place of a corpus.

    Raises:
        InvalidInputError: a file is missing or a line is not what the module says.
    """
    questions = path if path.is_file() else path / "questions.jsonl"
    try:
        asked = tuple(_question(row) for row in _rows(questions))
        if documents is not None:
            place = documents.resolve()
            digest = hashlib.sha256(os.fsencode(place)).hexdigest()[:16]
            return QuestionSet(path.stem, digest, (), asked, place)
        corpus = path / "corpus.jsonl"
        digest = hashlib.sha256(corpus.read_bytes()).hexdigest()[:16]
        rows = tuple(
            CorpusDocument(str(row["doc_id"]), str(row.get("title") or ""), str(row["text"]))
            for row in _rows(corpus)
        )
    except OSError as exc:
        raise InvalidInputError(
            "DIR",
            f"cannot read the set {str(path)!r}: {exc}; questions about a folder of files need "
            "--documents FOLDER",
        ) from exc
    except (KeyError, TypeError, ValueError) as exc:
        raise InvalidInputError(
            "DIR", f"the set {str(path)!r} has a line of another form: {exc!r}"
        ) from exc
    return QuestionSet(path.name, digest, rows, asked)


def sample(questions: Sequence[SetQuestion], limit: int | None) -> Sequence[SetQuestion]:
    """Return at most `limit` questions, evenly spread over the set; always the same ones."""
    if limit is None or limit >= len(questions):
        return questions
    return [questions[i * len(questions) // limit] for i in range(limit)]


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
    refused or missing answer scores 0. `refusal_precision` and `refusal_recall` need questions
    without an answer; `false_refusals` is the share of answerable questions refused.
    """
    answerable = [o for o in outcomes if o.question.is_answerable]
    unanswerable = [o for o in outcomes if not o.question.is_answerable]
    judged = [o for o in answerable if o.question.groups]
    single = [o for o in judged if len(o.question.groups) == 1]
    with_gold = [o for o in answerable if o.question.gold_doc_ids]
    answered = [o for o in with_gold if not o.answer.refused]
    refused = [o for o in outcomes if o.answer.refused]
    n_citations = sum(len(o.answer.citations) for o in outcomes)
    return {
        "questions": len(outcomes),
        "recall@1": _mean(recall_at(o, 1) for o in with_gold),
        "recall@5": _mean(recall_at(o, 5) for o in with_gold),
        "recall@10": _mean(recall_at(o, 10) for o in with_gold),
        "mrr@10": _mean(reciprocal_rank(o) for o in with_gold),
        "answer_em": _mean(exact_match(o) for o in single),
        "answer_f1": _mean(overlap_f1(o) for o in single),
        "answer_contains": _mean(contains(o) for o in judged),
        "refusal_precision": (
            _share(sum(not o.question.is_answerable for o in refused), len(refused))
            if unanswerable
            else None
        ),
        "refusal_recall": _mean(float(o.answer.refused) for o in unanswerable),
        "false_refusals": _mean(float(o.answer.refused) for o in answerable),
        "citation_valid": _share(sum(o.n_valid for o in outcomes), n_citations),
        "citation_gold": _mean(
            float(not o.question.gold_doc_ids.isdisjoint(o.cited)) for o in answered
        ),
        "ms_per_question_p50": _percentile([o.ms for o in outcomes], 50),
        "ms_per_question_p95": _percentile([o.ms for o in outcomes], 95),
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


def _distinct_documents(text: str, target: Target) -> tuple[str, ...]:
    """Fetch hits until they come from 10 distinct documents, or there are no more."""
    wanted = DISTINCT_DOCUMENTS
    while True:
        hits = target.search(text, wanted)
        ranked = dict.fromkeys(target.doc_ids.get(hit.chunk.document_id, "") for hit in hits)
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


# Reading


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    # Lines end at "\n" only: some texts hold U+2028, at which str.splitlines would cut too.
    with path.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)


def _question(row: Mapping[str, Any]) -> SetQuestion:
    return SetQuestion(
        qid=str(row["qid"]),
        text=str(row["question"]),
        lang=str(row.get("lang", "")),
        is_answerable=bool(row["answerable"]),
        gold_doc_ids=frozenset(map(str, row.get("gold_doc_ids") or row.get("gold_paths", ()))),
        groups=_groups(row),
        is_any_gold=bool(row.get("any_gold")),
    )


def _groups(row: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    meta: Mapping[str, Any] = row.get("meta") or {}
    answers = [str(answer) for answer in row.get("answers", ()) if answer]
    if not row["answerable"] or not answers or meta.get("free_form"):
        return ()
    if meta.get("answer_groups"):
        return tuple(tuple(map(str, group)) for group in meta["answer_groups"])
    if meta.get("all_answers_required"):
        parts = meta.get("sub_answers") or [[answer] for answer in answers]
        return tuple(tuple(map(str, part)) for part in parts)
    return (tuple(answers),)


# Arithmetic


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return round(sum(listed) / len(listed), 4) if listed else None


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _percentile(values: Sequence[float], percent: int) -> float | None:
    if not values:
        return None
    if len(values) == 1:
        return round(values[0], 1)
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 1)
