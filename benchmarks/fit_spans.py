"""Fit the weights of `kb.answers.spans`, or report what they reach on the other questions.

    python -m benchmarks.fit_spans QA_FOLDER              # report
    python -m benchmarks.fit_spans QA_FOLDER --write      # fit, write the weights, report

Passages are the five best chunks by BM25 over `kb.text.terms`, in memory: no knowledge base and no
embedder is needed, and figures differ from `kb eval` by what refusal and fusion change. Fitted on
the questions whose id hashes to an even number, reported on the others. The loss of a question is
the negative logarithm of the F1 that its phrases have on average under the model, with an L2
penalty; weights below `SMALLEST` are left out.
"""

import argparse
import hashlib
import json
import math
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import scipy.sparse
from scipy.optimize import minimize

import kb.answers.spans
from ingest.splitter import split
from kb.answers.extractive import SPAN_SENTENCES, read_sentences, score_sentences
from kb.answers.span_weights import WEIGHTS
from kb.answers.typed import read_question
from kb.evaluation.evaluate import units
from kb.evaluation.question_sets import SetQuestion, load_set
from kb.records import ChannelScores, Chunk, Heading, Hit, Passage
from kb.text.terms import index_terms, is_single, query_terms

# Sets by language; the first half of each fits.
SETS = {
    "zh": ("zh_cmrc", "zh_hant_drcd", "zh_unans"),
    "en": ("en_squad", "en_squad2_unans"),
}
# Chosen among 0.1, 0.4, 0.5, 0.8, 1 and 4 by the F1 of the other half, which hardly differs
# between 0.4 and 1.
L2 = 0.5
SMALLEST = 0.1
PASSAGES = 5

Example = tuple[SetQuestion, list[tuple[str, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", action="store_true", help="fit, and write the weights")
    options = parser.parse_args()
    examples = {
        name: list(read_examples(options.folder / name))
        for names in SETS.values()
        for name in names
        if (options.folder / name).is_dir()
    }
    if options.write:
        for language, names in SETS.items():
            fitted = [e for name in names for e in examples.get(name, ()) if is_fitted_on(e[0])]
            WEIGHTS[language] = fit(fitted)
        write(Path(kb.answers.spans.__file__).with_name("span_weights.py"))
    report = {name: figures([e for e in found if not is_fitted_on(e[0])])
              for name, found in examples.items()}  # fmt: skip
    print(json.dumps(report, indent=2))


def is_fitted_on(question: SetQuestion) -> bool:
    """Tell whether a question belongs to the half that fits."""
    return hashlib.sha256(question.qid.encode()).digest()[0] % 2 == 0


def read_examples(folder: Path) -> Iterator[Example]:
    """Yield the answerable questions of a set with their best sentences and scores."""
    loaded = load_set(folder)
    chunks = [chunk for d in loaded.documents for chunk in _chunks(d.doc_id, d.title, d.text)]
    search = _Bm25(chunks)
    for question in loaded.questions:
        if not question.is_answerable or len(question.groups) != 1:
            continue
        passages = [
            Passage(n, Hit(n, 1 / n, "", chunk.document_id, chunk, ChannelScores(None, 1.0, None)))
            for n, chunk in enumerate(search.best(question.text), start=1)
        ]
        sentences = read_sentences(passages)
        scores, _ = score_sentences(question.text, sentences, len(passages))
        order = sorted(range(len(sentences)), key=lambda i: scores[i], reverse=True)
        yield question, [(sentences[i].text, scores[i]) for i in order[:SPAN_SENTENCES]]


def fit(examples: Sequence[Example]) -> dict[str, float]:
    """Return the weights by feature."""
    names: dict[str, int] = {}
    rows, columns, values, gains, bounds = [], [], [], [], [0]
    for question, sentences in examples:
        for phrase in kb.answers.spans.candidates(read_question(question.text), sentences):
            for name, value in phrase.features:
                rows.append(len(gains))
                columns.append(names.setdefault(name, len(names)))
                values.append(value)
            gains.append(f1(sentences[phrase.sentence][0][phrase.start : phrase.end], question))
        bounds.append(len(gains))
    matrix = scipy.sparse.csr_matrix((values, (rows, columns)), shape=(len(gains), len(names)))
    gain = np.array(gains)
    # A question whose answer no phrase resembles teaches nothing.
    parts = [(a, b) for a, b in pairwise(bounds)
             if b > a and gain[a:b].max() > 0.3]  # fmt: skip
    turned = matrix.T.tocsr()

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = matrix @ weights
        slope = np.zeros_like(scores)
        total = 0.0
        for a, b in parts:
            shares = np.exp(scores[a:b] - scores[a:b].max())
            shares /= shares.sum()
            won = shares * gain[a:b]
            expected = won.sum() + 1e-9
            total -= math.log(expected)
            slope[a:b] = shares - won / expected
        return total + L2 * float(weights @ weights), turned @ slope + 2 * L2 * weights

    start = np.zeros(len(names))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 150}).x
    return {
        name: round(float(found[i]), 2)
        for name, i in sorted(names.items())
        if abs(found[i]) >= SMALLEST
    }


def figures(examples: Sequence[Example]) -> dict[str, float]:
    """Return F1, exact matches and the share of questions with a short answer."""
    f1s, exact, given = [], 0, 0
    for question, sentences in examples:
        proposal = kb.answers.spans.propose(read_question(question.text), sentences)
        score = f1(proposal.text, question) if proposal else 0.0
        f1s.append(score)
        exact += score == 1
        given += proposal is not None
    n = max(len(f1s), 1)
    return {"questions": len(f1s), "f1": round(sum(f1s) / n, 4), "exact": round(exact / n, 4),
            "given": round(given / n, 4)}  # fmt: skip


def f1(text: str, question: SetQuestion) -> float:
    """Return the best F1 of a short answer with a right one, as `kb eval` counts it."""
    own = Counter(units(text, question.lang))
    best = 0.0
    for gold in question.groups[0]:
        other = Counter(units(gold, question.lang))
        shared = sum((own & other).values())
        if shared:
            best = max(best, 2 * shared / (sum(own.values()) + sum(other.values())))
    return best


def write(path: Path) -> None:
    """Write the weights as Python, in lines that the formatter leaves alone."""
    lines = [
        '"""Weights of `kb.answers.spans`, by language and feature; fitted, not written by hand.',
        "",
        "Made by ``python -m benchmarks.fit_spans``, which says how; to be made again when the",
        "features change.",
        '"""',
        "",
        "WEIGHTS: dict[str, dict[str, float]] = {",
    ]
    for language, weights in WEIGHTS.items():
        lines.append(f'    "{language}": {{')
        line = "       "
        for name, value in weights.items():
            item = f' "{name}": {value},'
            if len(line) + len(item) > 100:
                lines.append(line)
                line = "       "
            line += item
        lines += [line, "    },"]
    path.write_text("\n".join([*lines, "}  # fmt: skip", ""]), encoding="utf-8")


class _Bm25:
    """Plain BM25 over chunks, k1 = 1.2, b = 0.75."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._chunks = chunks
        self._lengths: list[int] = []
        self._places: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for i, chunk in enumerate(chunks):
            counts = Counter(index_terms(f"{chunk.heading} {chunk.text}").split())
            self._lengths.append(sum(counts.values()))
            for term, count in counts.items():
                self._places[term].append((i, count))
        self._mean = sum(self._lengths) / max(len(chunks), 1)

    def best(self, question: str) -> list[Chunk]:
        scores: defaultdict[int, float] = defaultdict(float)
        for term in query_terms(question):
            places = self._places.get(term, [])
            if is_single(term) or not places:
                continue
            rarity = math.log(1 + (len(self._chunks) - len(places) + 0.5) / (len(places) + 0.5))
            for i, count in places:
                norm = 1.2 * (0.25 + 0.75 * self._lengths[i] / self._mean)
                scores[i] += rarity * count * 2.2 / (count + norm)
        order = sorted(scores, key=lambda i: (-scores[i], i))[:PASSAGES]
        return [self._chunks[i] for i in order]


def _chunks(doc_id: str, title: str, text: str) -> Iterator[Chunk]:
    title = re.sub(r"\s+", " ", title).strip()
    whole = f"# {title}\n\n{text}" if title else text
    headings = [Heading(0, 1, title)] if title else []
    for n, span in enumerate(split(whole, headings)):
        yield Chunk(
            id=n, kb_id="", document_id=doc_id, version_id=0, position=n, start=span.start,
            end=span.end, page=None, heading=span.heading, text=whole[span.start : span.end],
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
