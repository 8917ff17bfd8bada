"""How far a vector stands out where it should, and where it should not, with the default embedder.

    python -m benchmarks.similarity_margins QA_FOLDER

The constants of `kb.answers.citations` and `kb.refusal.support` for what shares no words come from
these figures: margins as `kb.retrieval.similarity.relative_margin` measures them.

- `paraphrases`: English ones of ``benchmarks/data/paraphrases.jsonl`` against the sentences of
  their passage and of four others; `without`, against the four others alone
- `same_text`: a sentence against the other sentences of its own text and of four others
- one entry per English set: the best passage of a question among its gold and 300 other passages,
  and `without` its gold
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.planted_faults import paraphrases
from ingest.embedder import MiniLMEmbedder
from kb.evaluation.question_sets import load_set
from kb.retrieval.similarity import relative_margin
from kb.text.sentences import split_sentences
from kb.text.terms import has_han

SETS = ("en_squad", "en_hotpot")
SEED = 1
OTHERS = 300
# As many candidates as a search asks of a channel.
BACKGROUND = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    embedder = MiniLMEmbedder()
    rng = np.random.default_rng(SEED)
    sets = {name: load_set(folder / name) for name in SETS}
    texts = [document.text for document in sets[SETS[0]].documents]

    def margin(sentence: str, others: Sequence[str]) -> float:
        rows = embedder.embed_array([sentence, *others])
        cosines = (rows[1:] @ rows[0]).tolist()
        return relative_margin(max(cosines), cosines)

    def strangers() -> list[str]:
        return [s for i in rng.choice(len(texts), 4, replace=False) for s in sentences(texts[i])]

    found: dict[str, dict[str, list[float]]] = {
        "paraphrases": {"with": [], "without": []},
        "same_text": {"with": []},
    }
    for answer, passage in paraphrases():
        if not has_han(answer + passage):
            others = strangers()
            found["paraphrases"]["with"].append(margin(answer, [*sentences(passage), *others]))
            found["paraphrases"]["without"].append(margin(answer, others))
    for i in rng.choice(len(texts), 150, replace=False):
        first, *rest = sentences(texts[i]) or [""]
        if len(rest) >= 3:
            found["same_text"]["with"].append(margin(first, [*rest, *strangers()]))
    for name, questions in sets.items():
        ids = [document.doc_id for document in questions.documents]
        rows = embedder.embed_array([f"{d.title}\n{d.text}" for d in questions.documents])
        found[name] = {"with": [], "without": []}
        for question in questions.questions[:300]:
            gold = [i for i, doc_id in enumerate(ids) if doc_id in question.gold_doc_ids]
            others = [i for i in rng.permutation(len(ids)) if i not in gold][:OTHERS]
            vector = embedder.embed_array([question.text])[0]
            for key, chosen in (("with", gold + others), ("without", others)):
                cosines = np.sort(rows[chosen] @ vector)[::-1][:BACKGROUND].tolist()
                found[name][key].append(relative_margin(cosines[0], cosines))
    shares = (0.05, 0.1, 0.5, 0.9, 0.95)
    table = {
        name: {
            key: {"n": len(values)}
            | {f"{share:.0%}": round(float(np.quantile(values, share)), 2) for share in shares}
            for key, values in kinds.items()
        }
        for name, kinds in found.items()
    }
    print(json.dumps(table, indent=1))


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text)]


if __name__ == "__main__":
    main()
