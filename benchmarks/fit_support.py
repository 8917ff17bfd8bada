"""Fit the constants of `kb.support` on question sets, through the real retrieval.

    python -m benchmarks.fit_support QA_FOLDER

prints the constants to put into ``kb/support.py`` and what they do on both halves of each set.
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
import pickle
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kb.cli.edge import Edge
from kb.cli.eval_target import eval_services, ingest_set
from kb.evaluate import QuestionSet, SetQuestion, load_set, sample
from kb.records import EmbedderSpec, Hit, Question
from kb.terms import TermStats, index_terms

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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--examples", type=Path)
    parser.add_argument("--sets", default=",".join(SETS))
    arguments = parser.parse_args()
    edge = Edge({})
    found = examples(edge, arguments.folder, arguments.sets.split(","), arguments.examples)
    print(Counter((e.set_name, e.is_answerable) for e in found))


if __name__ == "__main__":
    main()
