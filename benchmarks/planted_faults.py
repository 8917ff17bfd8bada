"""Plant faults in answers and count how many are marked unsupported.

    python -m benchmarks.planted_faults QA_FOLDER

- `swapped`: answers copied from real passages, or lightly rephrased by rule, with one number, date
  or quoted name swapped for one that the passage does not hold. All of them must be marked.
- `unchanged`: the same answers before the swap; marking one is a false alarm.
- `names`: one unquoted name swapped for one of another passage. Nothing proves such a name, so
  this is reported and not demanded.
- `paraphrases`: faithful paraphrases written by hand (``benchmarks/data/paraphrases.jsonl``),
  many of them in other units, formats or the other language; marking one is a false alarm.

Everything is drawn with a fixed seed, so that two runs agree.
"""

import argparse
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kb.answers.citations import cite, is_supported
from kb.evaluation.question_sets import CorpusDocument, load_set
from kb.records import ChannelScores, Chunk, Draft, Hit, Passage, Usage
from kb.text.sentences import split_sentences
from kb.text.terms import normalise

PARAPHRASES = Path(__file__).parent / "data" / "paraphrases.jsonl"
SETS = ("zh_cmrc", "zh_hant_drcd", "en_squad")
N_ANSWERS = 500
N_NAMES = 200

Kind = Literal["number", "date", "quoted"]

_NUMBER = re.compile(
    r"(?<![A-Za-z0-9.,\-/:])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![A-Za-z0-9\-/:]|[.,]\d|\s?[年月日])"
)
_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_DATE = re.compile(
    rf"\d{{4}}年\d{{1,2}}月\d{{1,2}}日|\d{{4}}年(?:\d{{1,2}}月)?"
    rf"|\b(?:{_MONTHS}) \d{{1,2}}, \d{{4}}\b"
    rf"|\b\d{{1,2}} (?:{_MONTHS}) \d{{4}}\b|\b(?:{_MONTHS}) \d{{4}}\b|\b(?:in|since) \d{{4}}\b"
)
_QUOTED = re.compile(r"(?<=[“「『《])[^“”「」『』《》\n]{2,30}(?=[”」』》])")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}(?: [A-Z][a-z]{2,})+\b")
_WRITTEN = dict(
    enumerate(
        zip(
            ["零", "一", "二", "三", "四", "五", "六", "七", "八", "九", "十"],
            ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"],
            strict=True,
        )
    )
)
# Words that come and go without changing what a sentence says.
_REPHRASED = (
    ("其中", ""), ("另外，", ""), ("因此", "所以"), ("目前", "现在"), ("位于", "在"),
    ("However, ", ""), (" also ", " "), ("approximately", "about"), ("In addition, ", ""),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Planted:
    """An answer before and after one thing in it was swapped, and the passage it rests on."""

    kind: Kind
    passage: str
    faithful: str
    faulty: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="holds the sets " + ", ".join(SETS))
    parser.add_argument("--show", action="store_true", help="print what went wrong")
    options = parser.parse_args()
    documents = [d for name in SETS for d in load_set(options.folder / name).documents]
    print(json.dumps(report(documents, show=options.show), ensure_ascii=False, indent=2))


def report(
    documents: Sequence[CorpusDocument], n: int = N_ANSWERS, *, show: bool = False
) -> dict[str, Any]:
    """Return all figures for faults planted into `n` answers from `documents`."""
    dice = random.Random(7)
    planted = plant(documents, n, dice)
    others = [document.text for document in documents[:: max(len(documents) // 3, 1)]][:3]
    marked = [is_marked(p.faulty, [p.passage, *others]) for p in planted]
    alarms = [is_marked(p.faithful, [p.passage, *others]) for p in planted]
    names = plant_names(documents, min(n, N_NAMES), dice)
    caught = [not is_supported(sentence, passage) for sentence, passage in names]
    written = paraphrases()
    false = [not is_supported(answer, passage) for answer, passage in written]
    if show:
        for p, caught_it, is_alarm in zip(planted, marked, alarms, strict=True):
            if not caught_it or is_alarm:
                print("MISSED" if not caught_it else "ALARM", p.kind, p.faulty, "<-", p.faithful)
        for (answer, _), is_false in zip(written, false, strict=True):
            if is_false:
                print("ALARM paraphrase", answer)
    return {
        "swapped": {
            "answers": len(planted),
            "marked": sum(marked),
            **{kind: f"{sum(m for m, p in zip(marked, planted, strict=True) if p.kind == kind)}"
                     f"/{sum(p.kind == kind for p in planted)}"
               for kind in ("number", "date", "quoted")},
        },
        "unchanged": {"answers": len(planted), "marked": sum(alarms)},
        "names": {"answers": len(names), "marked": sum(caught)},
        "paraphrases": {"answers": len(written), "marked": sum(false)},
    }  # fmt: skip


def is_marked(answer: str, texts: Sequence[str]) -> bool:
    """Tell whether an answer by a model over these passages is marked, or cites none of them."""
    passages = [
        Passage(n, Hit(n, 1 / n, "", str(n), _chunk(text), ChannelScores(None, 1.0, None)))
        for n, text in enumerate(texts, start=1)
    ]
    draft = Draft(text=answer, answer_span=None, quotes=(), usage=Usage())
    _, citations, _ = cite(draft, passages)
    return not citations or not all(citation.supported for citation in citations)


def _chunk(text: str) -> Chunk:
    return Chunk(
        id=1, kb_id="", document_id="", version_id=0, position=0, start=0, end=len(text), page=None,
        heading="", text=text,
    )  # fmt: skip


def plant(documents: Sequence[CorpusDocument], n: int, dice: random.Random) -> list[Planted]:
    """Return `n` faults, kinds in turn, at most one to a passage."""
    order = list(documents)
    dice.shuffle(order)
    other_names = [
        match.group() for document in order[:300] for match in _QUOTED.finditer(document.text)
    ]
    found: list[Planted] = []
    kinds: tuple[Kind, ...] = ("number", "date", "quoted")
    for document in order:
        if len(found) == n:
            break
        # Where a passage has nothing of the kind whose turn it is, another kind is taken.
        turn = len(found) % 3
        for kind in (*kinds[turn:], *kinds[:turn]):
            fault = _fault(document.text, kind, other_names, dice)
            if fault is not None:
                found.append(fault)
                break
    return found


def plant_names(
    documents: Sequence[CorpusDocument], n: int, dice: random.Random
) -> list[tuple[str, str]]:
    """Return `n` sentences with an unquoted name swapped, each with its passage."""
    pool = [name for d in documents for name in _NAME.findall(d.text)]
    found: list[tuple[str, str]] = []
    for document in dice.sample(list(documents), len(documents)):
        for sentence in _sentences(document.text):
            match = _NAME.search(sentence)
            other = dice.choice(pool) if match else ""
            if match and other not in document.text:
                swapped = sentence[: match.start()] + other + sentence[match.end() :]
                found.append((swapped, document.text))
                break
        if len(found) == n:
            break
    return found


def paraphrases() -> list[tuple[str, str]]:
    """Return the hand-written answers, each with its passage."""
    lines = PARAPHRASES.read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    return [(row["answer"], row["passage"]) for row in rows]


def _fault(
    passage: str, kind: Kind, other_names: Sequence[str], dice: random.Random
) -> Planted | None:
    pattern = {"number": _NUMBER, "date": _DATE, "quoted": _QUOTED}[kind]
    for sentence in _sentences(passage):
        match = pattern.search(sentence)
        if match is None:
            continue
        swapped = _swapped(match.group(), kind, passage, other_names, dice)
        if swapped is None:
            continue
        faulty = sentence[: match.start()] + swapped + sentence[match.end() :]
        return Planted(kind, passage, _rephrased(sentence), _rephrased(faulty))
    return None


def _swapped(
    text: str, kind: Kind, passage: str, other_names: Sequence[str], dice: random.Random
) -> str | None:
    """Return something else of the same kind that the passage does not hold."""
    folded = normalise(passage).replace(",", "")
    if kind == "quoted":
        fitting = [name for name in other_names if normalise(name) not in folded]
        return dice.choice(fitting) if fitting else None
    runs = list(re.finditer(r"\d+", text if kind == "date" else text.replace(",", "")))
    source = text if kind == "date" else text.replace(",", "")
    run = dice.choice(runs)
    is_year = kind == "date" and len(run.group()) == 4
    highest = 28 if kind == "date" and not is_year else 10 ** len(run.group()) - 1
    if kind == "date" and source[run.end() : run.end() + 1] == "月":
        highest = 12
    for _ in range(50):
        number = str(int(run.group()) + dice.randint(-90, 90) if is_year
                     else dice.randint(1, max(highest, 9)))  # fmt: skip
        # Absent: not even a part of another number, nor written out.
        written = _WRITTEN.get(int(number), ())
        if number != run.group() and not any(form in folded for form in (number, *written)):
            return source[: run.start()] + number + source[run.end() :]
    return None


def _sentences(passage: str) -> Iterator[str]:
    for start, end in split_sentences(passage):
        if 12 <= end - start <= 400:
            yield passage[start:end]


def _rephrased(sentence: str) -> str:
    for old, new in _REPHRASED:
        if old in sentence and not re.search(rf"[“「『《][^”」』》]*{re.escape(old)}", sentence):
            return sentence.replace(old, new, 1)
    return sentence


if __name__ == "__main__":
    main()
