"""Retrieval beside the usual recipes: recall@5 per question set, and the share of errors removed.

    python -m benchmarks.retrieval QA_FOLDER [--sets zh_cmrc,en_squad] [--half odd] [--json]

Ours goes through the real path: each corpus is ingested as a folder of Markdown files, into a base
of its own in ``$KB_HOME/eval``, and each question is one search. The recipes rank whole documents,
title joined to text:

    dense        the embedded model, exact cosine; only for sets in a script that it knows
    bm25 words   BM25 over jieba's search-mode words, lower case (k1 = 1.5, b = 0.75)
    bm25 pairs   BM25 over pairs of Chinese characters and other words
    rrf          dense and bm25 words by reciprocal rank, k = 60

Each set is compared with the recipe that is best there. `removed` is the share of that recipe's
remaining error (1 - recall@5) that ours removes, pooled over the questions of all monolingual sets,
with a 95 % interval from resampling questions inside each set (both systems on the same sample;
the best recipe is chosen anew in each). `--half` takes every other question: constants were chosen
on the even ones.
"""

import argparse
import hashlib
import json
import random
import re
import statistics
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ingest.sync import SyncOptions, sync_folders
from kb.config import load_settings
from kb.embedder import Embedder
from kb.errors import KnowledgeBaseNotFoundError
from kb.records import KnowledgeBase, Question
from kb.retrieval.fusion import knows_scripts
from kb.storage.bases import find_base
from kb.storage.documents import list_documents
from kb.text.terms import FULLTEXT
from kb.wiring import Services

K = 5
RESAMPLES = 2000
SEED = 7
CROSS_LINGUAL = ("xling_",)
OURS = "ours"

Ranking = Callable[[str], list[str]]


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """A corpus and its answerable questions, as their files give them."""

    corpus: list[dict[str, Any]]
    asked: list[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", help="Only these, separated by commas.")
    parser.add_argument("--half", choices=["even", "odd", "all"], default="all")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    wanted = options.sets.split(",") if options.sets else None
    settings, _ = load_settings()
    settings = settings.model_copy(update={"home": settings.home / "eval"})
    results: dict[str, dict[str, list[float]]] = {}
    with Services.open(settings) as services:
        for path in sorted(options.folder.iterdir()):
            if path.is_dir() and (wanted is None or path.name in wanted):
                questions = load(path, options.half)
                results[path.name] = measure(questions, services)
                if not options.json:
                    print(line(path.name, results[path.name]), flush=True)
    summary = pooled({n: r for n, r in results.items() if not n.startswith(CROSS_LINGUAL)})
    if options.json:
        recalls = {n: {k: statistics.fmean(v) for k, v in r.items()} for n, r in results.items()}
        print(json.dumps({"sets": recalls, "pooled": summary}))
    else:
        print(
            f"removed of the best recipe's error: {summary['removed']:.3f} "
            f"[{summary['low']:.3f}, {summary['high']:.3f}], {summary['questions']} questions"
        )


def load(folder: Path, half: str) -> QuestionSet:
    corpus, questions = (
        # Split at "\n" only: some texts hold U+2028.
        [json.loads(row) for row in path.read_text(encoding="utf-8").split("\n") if row.strip()]
        for path in (folder / "corpus.jsonl", folder / "questions.jsonl")
    )
    kept = {"even": slice(0, None, 2), "odd": slice(1, None, 2), "all": slice(None)}[half]
    asked = [each for each in questions if each["answerable"] and each["gold_doc_ids"]]
    return QuestionSet(corpus, asked[kept])


def measure(questions: QuestionSet, services: Services) -> dict[str, list[float]]:
    """Return recall@5 of each system for each answerable question, in order."""
    systems = {OURS: ours(questions, services), **recipes(questions, services.embedder)}
    return {
        name: [recall(rank(each["question"]), each["gold_doc_ids"]) for each in questions.asked]
        for name, rank in systems.items()
    }


def recall(ranked: Sequence[str], gold: Sequence[str]) -> float:
    return len(set(gold).intersection(ranked[:K])) / min(K, len(gold))


def pooled(results: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """Return the share of error removed over all sets' questions, with its interval."""
    words = random.Random(SEED)
    everything = {name: range(len(r[OURS])) for name, r in results.items()}
    samples = []
    for _ in range(RESAMPLES):
        chosen = {name: words.choices(rows, k=len(rows)) for name, rows in everything.items()}
        samples.append(_removed(results, chosen))
    samples.sort()
    return {
        "removed": _removed(results, everything),
        "low": samples[int(0.025 * RESAMPLES)],
        "high": samples[int(0.975 * RESAMPLES)],
        "questions": sum(map(len, everything.values())),
    }


def line(name: str, result: Mapping[str, Sequence[float]]) -> str:
    cells = [f"{system} {statistics.fmean(values):.4f}" for system, values in result.items()]
    return f"{name:18}{len(result[OURS]):5}  " + "  ".join(cells)


def _removed(
    results: Mapping[str, Mapping[str, Sequence[float]]], rows: Mapping[str, Sequence[int]]
) -> float:
    ours = best = 0.0
    for name, result in results.items():
        errors = {s: sum(1 - values[row] for row in rows[name]) for s, values in result.items()}
        ours += errors.pop(OURS)
        best += min(errors.values())
    return 1 - ours / best if best else 0.0


def ours(questions: QuestionSet, services: Services) -> Ranking:
    """Ingest the corpus, unless it is there; return the distinct documents of a search."""
    digest = hashlib.sha256(json.dumps(questions.corpus).encode()).hexdigest()[:16]
    folder = services.settings.home / "benchmark" / digest
    folder.mkdir(parents=True, exist_ok=True)
    ids = {}
    for position, document in enumerate(questions.corpus):
        name = f"{position:06}.md"
        ids[name] = document["doc_id"]
        title = " ".join((document.get("title") or "").split())
        text = (f"# {title}\n\n" if title else "") + document["text"]
        if not (folder / name).exists():
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
    base = _base(services, f"benchmark {digest}")
    sync_folders(services.sync_parts, base, [folder], SyncOptions(yes=True))
    with services.database.read() as session:
        documents, _ = list_documents(session, base.id, limit=len(ids))
    doc_ids = {document.id: ids[document.path] for document in documents}

    def rank(text: str) -> list[str]:
        hits = services.retriever.search(Question(text, (base.id,), 30)).hits
        return list(dict.fromkeys(doc_ids[hit.chunk.document_id] for hit in hits))

    return rank


def _base(services: Services, name: str) -> KnowledgeBase:
    try:
        with services.database.read() as session:
            base = find_base(session, name)
    except KnowledgeBaseNotFoundError:
        return services.create_base(name)
    if base.fulltext == FULLTEXT:
        return base
    services.delete_base(base)
    return services.create_base(name)


# The usual recipes


def recipes(questions: QuestionSet, embedder: Embedder) -> dict[str, Ranking]:
    """Return the recipes that apply, each a function from a question to documents, best first."""
    ids = [document["doc_id"] for document in questions.corpus]
    texts = [f"{document.get('title') or ''}\n{document['text']}" for document in questions.corpus]
    words = Bm25(texts, _words)
    pairs = Bm25(texts, _pairs)
    found: dict[str, Ranking] = {
        "bm25 words": lambda text: [ids[i] for i in words.rank(text)],
        "bm25 pairs": lambda text: [ids[i] for i in pairs.rank(text)],
    }
    if all(knows_scripts(each["question"], embedder.spec.scripts) for each in questions.asked):
        rows = embedder.embed_array(texts)

        def dense(text: str) -> list[int]:
            scores = rows @ embedder.embed_array([text])[0]
            return [int(i) for i in np.argsort(-scores, kind="stable")[:100]]

        found["dense"] = lambda text: [ids[i] for i in dense(text)]
        found["rrf"] = lambda text: [ids[i] for i in _rrf(dense(text), words.rank(text))]
    return found


class Bm25:
    """BM25 as Lucene has it, over whole documents."""

    def __init__(self, texts: Sequence[str], terms: Callable[[str], list[str]]) -> None:
        self._terms = terms
        counts = [Counter(terms(text)) for text in texts]
        lengths = np.array([sum(count.values()) for count in counts], dtype=float)
        self._norms = 1.5 * (1 - 0.75 + 0.75 * lengths / max(lengths.mean(), 1))
        self._postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for i, count in enumerate(counts):
            for term, n in count.items():
                self._postings[term].append((i, n))

    def rank(self, question: str) -> list[int]:
        scores = np.zeros(len(self._norms))
        for term in self._terms(question):
            if postings := self._postings.get(term):
                rows, counts = (np.array(part) for part in zip(*postings, strict=True))
                rarity = np.log(1 + (len(scores) - len(rows) + 0.5) / (len(rows) + 0.5))
                scores[rows] += rarity * counts / (counts + self._norms[rows])
        best = np.argsort(-scores, kind="stable")[:100]
        return [int(i) for i in best if scores[i] > 0]


def _words(text: str) -> list[str]:
    import jieba

    return [word for word in jieba.cut_for_search(text.lower()) if word.strip()]


def _pairs(text: str) -> list[str]:
    found: list[str] = []
    folded = unicodedata.normalize("NFKC", text).lower()
    for run in re.findall(r"[\u3400-\u9fff]+|[^\W_\u3400-\u9fff]+", folded):
        is_han = "\u3400" <= run[0] <= "\u9fff" and len(run) > 1
        found += [run[i : i + 2] for i in range(len(run) - 1)] if is_han else [run]
    return found


def _rrf(*rankings: Sequence[int]) -> list[int]:
    scores: defaultdict[int, float] = defaultdict(float)
    for ranking in rankings:
        for rank, row in enumerate(ranking, start=1):
            scores[row] += 1 / (60 + rank)
    return sorted(scores, key=lambda row: -scores[row])


if __name__ == "__main__":
    main()
