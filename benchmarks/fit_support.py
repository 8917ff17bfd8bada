"""Fit the constants of `kb.refusal.support` on question sets, through the real retrieval.

    python -m benchmarks.fit_support QA_FOLDER

prints the constants for ``kb/refusal/support.py`` and what they do on both halves of each set.
Questions fall into halves by a hash of their id: constants are fitted on one, figures of the
other are those to report. Three kinds of examples:

- the questions of sets with unanswerable ones, as they are;
- questions of the other sets, and the same with their gold documents left out of the hits (and
  out of the frequencies), so that all languages have both kinds;
- questions to small bases, made of a few documents of a corpus, half of them neighbours (one
  subject, as a person's own folder is), with some gold documents left out.

Corpora are ingested as `kb eval` does, below ``$KB_HOME/eval``. `--examples FILE` keeps what was
retrieved, so that another fit need not ask again; delete it when retrieval changes.
"""

import argparse
import hashlib
import math
import pickle
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kb.cli.edge import Edge
from kb.cli.eval_target import eval_services, ingest_set
from kb.evaluation.question_sets import QuestionSet, SetQuestion, load_set, sample
from kb.records import EmbedderSpec, Hit, Question
from kb.refusal.refusal_curve import auroc
from kb.refusal.support import DEFAULT_SUPPORT_THRESHOLD, weigh
from kb.text.terms import TermStats, has_han, index_terms

if TYPE_CHECKING:
    from kb.records import KnowledgeBase
    from kb.wiring import Services

SETS = ("zh_unans", "en_squad2_unans", "zh_para", "en_squad", "zh_hant_drcd")
# Of sets without unanswerable questions at most so many questions are asked.
LIMIT = 300
SMALL_OF = ("zh_unans", "zh_hant_drcd", "en_squad", "en_squad2_unans")
SMALL_SIZES = (12, 40, 120)
# Hits kept, some more than are looked at, since gold documents are left out of them.
KEPT_HITS = 8


@dataclass(frozen=True, slots=True)
class Example:
    """One question, what was retrieved for it, and whether that can answer it."""

    set_name: str
    qid: str
    question: str
    is_answerable: bool
    hits: tuple[Hit, ...]
    stats: TermStats
    spec: EmbedderSpec

    @property
    def is_fitted(self) -> bool:
        """In the half that constants are fitted on."""
        return hashlib.sha256(self.qid.encode()).digest()[0] % 2 == 0


def collect(edge: Edge, folder: Path, sets: Sequence[str]) -> Iterator[Example]:
    """Ask every question and yield examples."""
    loaded = {name: load_set(folder / name) for name in sets}
    with eval_services(edge) as services:
        for name, questions in loaded.items():
            print(f"{name}: asking", file=sys.stderr)
            base, doc_ids = ingest_set(services, questions)
            yield from _of_set(services, name, questions, base, doc_ids)
        for name in SMALL_OF:
            if name in loaded:
                for size in SMALL_SIZES:
                    print(f"{name}: small bases of {size} documents", file=sys.stderr)
                    yield from _of_small(services, name, loaded[name], size)


def _of_set(
    services: "Services",
    name: str,
    questions: QuestionSet,
    base: "KnowledgeBase",
    doc_ids: dict[str, str],
) -> Iterator[Example]:
    has_both = any(not question.is_answerable for question in questions.questions)
    for question in sample(questions.questions, None if has_both else LIMIT):
        example = _ask(services, name, question, base)
        yield replace(example, hits=example.hits[:KEPT_HITS])
        if question.is_answerable and question.gold_doc_ids:
            yield _without_gold(example, question, doc_ids)


def _ask(services: "Services", name: str, question: SetQuestion, base: "KnowledgeBase") -> Example:
    found = services.retriever.search(Question(question.text, (base.id,), 3 * KEPT_HITS))
    return Example(
        set_name=name,
        qid=question.qid,
        question=question.text,
        is_answerable=question.is_answerable,
        hits=found.hits,
        stats=found.stats,
        spec=base.embedder,
    )


def _without_gold(example: Example, question: SetQuestion, doc_ids: dict[str, str]) -> Example:
    """Return the example as if its gold documents were not there."""
    gold = [h for h in example.hits if doc_ids[h.chunk.document_id] in question.gold_doc_ids]
    others = [h for h in example.hits if h not in gold]
    held = Counter(
        term
        for hit in gold
        for term in set(index_terms(f"{hit.chunk.heading}\n{hit.chunk.text}").split())
    )
    left = {t: n - held[t] for t, n in example.stats.frequencies.items() if n > held[t]}
    return replace(
        example,
        set_name=f"{example.set_name} less gold",
        is_answerable=False,
        hits=tuple(others[:KEPT_HITS]),
        stats=TermStats(example.stats.n_chunks - len(gold), left),
    )


def _of_small(
    services: "Services", name: str, questions: QuestionSet, size: int
) -> Iterator[Example]:
    """Ask bases of `size` documents until there are some 120 questions."""
    rng = random.Random(f"{name} {size}")
    n_bases = max(1, 120 // size)
    for number in range(n_bases):
        with _small_base(services, questions, size, rng, is_block=number % 2 == 0) as (
            base,
            held,
        ):
            of_held = [q for q in questions.questions if q.gold_doc_ids and q.is_answerable]
            inside = [q for q in of_held if q.gold_doc_ids <= held]
            outside = [q for q in of_held if q.gold_doc_ids.isdisjoint(held)]
            wanted = min(len(inside), 120 // n_bases + 1)
            for question in rng.sample(inside, wanted):
                yield _small(_ask(services, name, question, base), size)
            near = sorted(outside, key=lambda q: q.qid)
            for question in rng.sample(near, min(len(near), max(wanted, 4))):
                yield _small(
                    replace(_ask(services, name, question, base), is_answerable=False), size
                )


def _small(example: Example, size: int) -> Example:
    return replace(example, set_name=f"{example.set_name} of {size}", hits=example.hits[:KEPT_HITS])


@contextmanager
def _small_base(
    services: "Services",
    questions: QuestionSet,
    size: int,
    rng: random.Random,
    *,
    is_block: bool,
) -> "Iterator[tuple[KnowledgeBase, frozenset[str]]]":
    """Give a base of `size` documents that is deleted afterwards, and their doc_ids."""
    documents = list(questions.documents)
    if is_block:
        first = rng.randrange(max(1, len(documents) - 2 * size))
        documents = documents[first : first + 2 * size]  # every second: neighbours are left out
    drawn = tuple(rng.sample(documents, min(size, len(documents))))
    digest = hashlib.sha256("\n".join(d.doc_id for d in drawn).encode()).hexdigest()[:16]
    part = QuestionSet(f"small {digest}", f"small{digest}", drawn, ())
    base, _ = ingest_set(services, part)
    try:
        yield base, frozenset(document.doc_id for document in drawn)
    finally:
        services.delete_base(base)


def examples(edge: Edge, folder: Path, sets: Sequence[str], kept: Path | None) -> list[Example]:
    """Collect examples, or read those of an earlier run."""
    if kept is not None and kept.exists():
        loaded: list[Example] = pickle.loads(kept.read_bytes())  # our own file of this machine
        return loaded
    found = list(collect(edge, folder, sets))
    if kept is not None:
        kept.write_bytes(pickle.dumps(found))
    return found


# The features that each group of questions is judged by, fitted apart.
FEATURES = {
    "_WEIGHTS_HAN": (
        "log_evidence", "in_window", "rarest_missing", "lacks_name", "lacks_number", "log_chunks",
    ),
    "_WEIGHTS_OTHER": (
        "log_evidence", "in_sentence", "lacks_name", "lacks_number", "not_denied",
        "says_opposite", "cosine", "log_chunks",
    ),
}  # fmt: skip
# Paraphrases are few, and the hardest to answer; adversarial and removed ones are what we are for.
COUNTS_AS = {"zh_para": 12.0, "zh_para less gold": 4.0, "zh_unans": 3.0, "en_squad2_unans": 3.0}
# Of the answerable questions of these sets such a share, at most, is refused at the default: less
# than a tenth, since other sets are not these.
TARGET_FALSE_REFUSALS = {"_WEIGHTS_HAN": 0.09, "_WEIGHTS_OTHER": 0.07}
TARGET_SETS = {
    "_WEIGHTS_HAN": ("zh_unans", "zh_hant_drcd"),
    "_WEIGHTS_OTHER": ("en_squad2_unans", "en_squad"),
}
_PENALTY = 1.0


def fit(found: Sequence[Example], group: str) -> dict[str, float]:
    """Fit the weights of one group on the fitted half, by Newton steps.

    The best hit of a question decides, and which one that is depends on the weights: so fitting and
    choosing take turns.
    """
    names = FEATURES[group]
    kept = [
        (example, rows)
        for example in found
        if example.is_fitted and len(rows := _rows(example, names))
    ]
    y = np.array([example.is_answerable for example, _ in kept], dtype=float)
    counts = np.array([_counts_as(example) for example, _ in kept])
    everything = np.concatenate([rows for _, rows in kept])
    mean, scale = everything.mean(axis=0), everything.std(axis=0) + 1e-9
    scaled = [(rows - mean) / scale for _, rows in kept]
    weights = np.zeros(len(names) + 1)
    for _ in range(6):
        chosen = [rows[np.argmax(rows @ weights[1:])] for rows in scaled]
        x = np.column_stack([np.ones(len(chosen)), np.array(chosen)])
        weights = _newton(x, y, counts)
    raw = weights[1:] / scale
    fitted = {"bias": float(weights[0] - raw @ mean), **dict(zip(names, raw.tolist(), strict=True))}
    return _shifted(found, group, fitted)


def _newton(x: Any, y: Any, counts: Any) -> Any:
    weights = np.zeros(x.shape[1])
    penalty = _PENALTY * np.eye(x.shape[1])
    penalty[0, 0] = 1e-6
    for _ in range(40):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        slope = x.T @ (counts * (y - p)) - penalty @ weights
        curvature = (x * (counts * p * (1 - p))[:, None]).T @ x + penalty
        step = np.linalg.solve(curvature, slope)
        step *= min(1.0, 2 / max(np.abs(step).max(), 1e-12))  # or the first steps overshoot
        weights = weights + step
        if np.abs(step).max() < 1e-7:
            break
    return weights


def _shifted(found: Sequence[Example], group: str, weights: dict[str, float]) -> dict[str, float]:
    """Move the bias so that the default threshold refuses the target share of the fitted half."""
    bounds = []
    for name in TARGET_SETS[group]:
        scores = [
            logit(e, weights)
            for e in found
            if e.set_name == name and e.is_answerable and e.is_fitted
        ]
        if scores:
            bounds.append(float(np.quantile(scores, TARGET_FALSE_REFUSALS[group])))
    default = math.log(DEFAULT_SUPPORT_THRESHOLD / (1 - DEFAULT_SUPPORT_THRESHOLD))
    shift = default - min(bounds) if bounds else 0.0
    return {**weights, "bias": weights["bias"] + shift}


def logit(example: Example, weights: dict[str, float]) -> float:
    names = [name for name in weights if name != "bias"]
    rows = _rows(example, names)
    if not len(rows):
        return -30.0
    return float(weights["bias"] + (rows @ np.array([weights[name] for name in names])).max())


def _rows(example: Example, names: Sequence[str]) -> Any:
    """Return one row of features per hit; measuring is slow, so all of them are kept."""
    if id(example) not in _MEASURED:
        weighed = weigh(example.question, example.hits, example.stats, example.spec)
        _MEASURED[id(example)] = [found.features(example.stats.n_chunks) for found in weighed]
    return np.array([[row[name] for name in names] for row in _MEASURED[id(example)]])


_MEASURED: dict[int, list[dict[str, float]]] = {}


def _counts_as(example: Example) -> float:
    return COUNTS_AS.get(example.set_name, 0.5 if "less gold" in example.set_name else 1.0)


def report(found: Sequence[Example], weights: dict[str, float]) -> None:
    """Print, by set and half, what the default threshold refuses, and the separation."""
    default = math.log(DEFAULT_SUPPORT_THRESHOLD / (1 - DEFAULT_SUPPORT_THRESHOLD))
    print(f"{'set':28}{'half':>9}{'answerable refused':>22}{'unanswerable':>22}{'AUROC':>8}")
    for name in sorted({e.set_name for e in found}):
        for is_fitted in (True, False):
            of_half = [e for e in found if e.set_name == name and e.is_fitted == is_fitted]
            scores = [
                [logit(e, weights) for e in of_half if e.is_answerable == kind]
                for kind in (True, False)
            ]
            cells = [_refused([score < default for score in kind]) for kind in scores]
            area = auroc(*scores)
            half = "fitted" if is_fitted else "held out"
            shown = "-" if area is None else f"{area:.3f}"
            print(f"{name:28}{half:>9}{cells[0]:>22}{cells[1]:>22}{shown:>8}")


def _refused(are_refused: Sequence[bool]) -> str:
    if not are_refused:
        return "-"
    share = sum(are_refused) / len(are_refused)
    return f"{sum(are_refused)} of {len(are_refused)} ({share:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--examples", type=Path, help="keep what was retrieved in this file")
    parser.add_argument("--sets", default=",".join(SETS))
    arguments = parser.parse_args()
    everything = examples(Edge({}), arguments.folder, arguments.sets.split(","), arguments.examples)
    for group in FEATURES:
        found = [e for e in everything if has_han(e.question) == (group == "_WEIGHTS_HAN")]
        if not any(example.is_fitted for example in found):
            continue
        weights = {name: round(weight, 2) for name, weight in fit(found, group).items()}
        print(f"{group}: Mapping[str, float] = {{")
        for name, weight in weights.items():
            print(f'    "{name}": {weight},')
        print("}")
        report(found, weights)


if __name__ == "__main__":
    main()
