"""Estimate the chance that passages answer a question. Refusal rests on this number only.

The rule looks at what a question asks about, not at how well a passage ranked. For each of the
best hits it measures

- evidence: the rarities, summed, of the question's content words that stand in two neighbouring
  sentences: four rare words in one place are no accident, however long the question is;
- coverage: the share of all rarity that one sentence, or it with its neighbours, holds;
- the rarest word that is missing there, and whether a name, code or number is;
- whether the question denies something that the sentence does not ("What is not…"), or the
  sentence holds the opposite of one of its words: the passage is on the subject then, but does
  not say what is asked;
- the cosine, where the embedder knows the question's script

and puts them into one logistic function, with constants of its own for questions in Chinese, which
has no capitals, no spaces, and no embedded model that knows it. Questions on the right subject
whose relation is not stated ("Who resigned?" where somebody was appointed) are mostly let pass:
telling those apart takes a reader, that is a small model which reads question and passage.

An English passage shares no words with a Chinese question, nor the reverse. Where the embedder
knows both, only numbers and codes in digits can be looked for, and how far its cosine stands out
from those of the other candidates decides (`kb.retrieval.similarity`).

The constants are those of `benchmarks/fit_support.py`, which says on what they were fitted.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from kb.records import Candidate, EmbedderSpec, Hit
from kb.refusal.antonyms import is_negated, says_opposite
from kb.retrieval.fusion import knows_scripts
from kb.retrieval.similarity import relative_margin
from kb.text.sentences import split_questions, split_sentences
from kb.text.terms import TermStats, content_words, has_han, index_terms, is_han, name_words, pairs

# The constants are shifted so that this refuses few answerable questions of the fitted sets.
DEFAULT_SUPPORT_THRESHOLD = 0.3

# Hits that are looked at: an answer below rank 3 is no reason to answer.
TOP_HITS = 3
# What the characters of a Chinese word count for where the word itself is absent.
PARTIAL_CREDIT = 0.3
# Longest stretch of a passage that is judged: a huge table must not take seconds.
MAX_PASSAGE_CHARS = 8_000

# The cosine of a passage that the dense channel did not find, or for another script.
_ASSUMED_COSINE = 0.45
# A code ("BX500") that is not there; set by judgement, the sets hold too few.
_LACKS_CODE = -4.0

# Weights by feature of `Evidence`, printed by `benchmarks/fit_support.py`.
_WEIGHTS_HAN: Mapping[str, float] = {
    "bias": -5.62,
    "log_evidence": 3.78,
    "in_window": 1.11,
    "rarest_missing": -3.97,
    "lacks_name": -3.42,
    "lacks_number": -5.34,
    "log_chunks": -0.12,
}
_WEIGHTS_OTHER: Mapping[str, float] = {
    "bias": -2.67,
    "log_evidence": 0.81,
    "in_sentence": 2.35,
    "lacks_name": -0.91,
    "lacks_number": -4.23,
    "not_denied": -4.47,
    "says_opposite": -2.08,
    "cosine": 4.68,
    "log_chunks": -0.42,
}

# For a passage in another language: the slope, and how far it must stand out for an even chance.
# From the default embedder on English sets (benchmarks/similarity_margins.py): half of the gold
# passages stand out by 0.5 to 0.6, a tenth by less than 0.25 to 0.4; without them the best passage
# does by 0.3, half of the time. No embedder that knows two languages was at hand.
_CROSS_SLOPE = 12.0
_CROSS_MIDDLE = 0.3
# The same where there is little to stand out from.
_CROSS_MIDDLE_OF_FEW = 0.5
_FEW = 10
# Candidates whose cosines are the background.
_BACKGROUND = 50

_PARTS = re.compile(r"[._\-]+")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one passage holds of a question.

    `evidence` is a sum of rarities, >= 0. `in_sentence` and `in_window` (one sentence more on each
    side) are shares in [0, 1] of the question's total rarity, `rarest_missing` the rarity of the
    rarest word outside the window, over that of the rarest word. `lacks_...` say that one of the
    question is not in the passage; a code has letters and digits. `cosine` is None where it says
    nothing.
    """

    evidence: float
    in_sentence: float
    in_window: float
    rarest_missing: float
    lacks_name: bool
    lacks_code: bool
    lacks_number: bool
    not_denied: bool
    says_opposite: bool
    cosine: float | None

    def features(self, n_chunks: int) -> dict[str, float]:
        """Return the numbers that the logistic function weighs, by name."""
        return {
            "log_evidence": math.log1p(self.evidence),
            "in_sentence": self.in_sentence,
            "in_window": self.in_window,
            "rarest_missing": self.rarest_missing,
            "lacks_name": float(self.lacks_name),
            "lacks_number": float(self.lacks_number),
            "not_denied": float(self.not_denied),
            "says_opposite": float(self.says_opposite),
            "cosine": _ASSUMED_COSINE if self.cosine is None else self.cosine,
            # The more chunks there are, the more of any question some chunk covers by chance.
            "log_chunks": math.log(max(n_chunks, 1)),
        }


def support(
    question: str,
    hits: Sequence[Hit],
    *,
    stats: TermStats | None = None,
    spec: EmbedderSpec | None = None,
    background: Sequence[float] = (),
) -> float:
    """Return the estimated chance in [0, 1] that `hits` answer `question`.

    0 without hits, and for a question without content words ("what is it?").

    Args:
        question: the user's words.
        hits: best first; the first `TOP_HITS` count.
        stats: frequencies of the question's words; without them the general ones are used.
        spec: the embedder of the hits' base; without it cosines are ignored.
        background: cosines of all candidates, the hits' among them; without them, passages in
            another language than the question count as beside the point.
    """
    stats = stats or TermStats()
    parts = question_parts(question)
    chances = [_support(part, hits, stats, spec) for part in parts]
    chance = chances[0]
    if len(parts) > 1:  # enough if the parts are answered one by one
        chance = max(_support(question, hits, stats, spec), sum(chances) / len(chances))
    return max(chance, _cross_language_support(question, hits, spec, background))


def dense_background(candidates: Sequence[Candidate]) -> list[float]:
    """Return the cosines of the candidates that the dense channel found first."""
    ranks = ((each.dense_rank, each.dense) for each in candidates)
    return [dense for rank, dense in ranks if rank and dense is not None and rank <= _BACKGROUND]


def question_parts(question: str) -> list[str]:
    """Return the questions in `question` that can be looked up alone, or the whole."""
    parts = [part for part in split_questions(question) if content_words(part)]
    return parts if len(parts) > 1 else [question]


def _support(
    question: str, hits: Sequence[Hit], stats: TermStats, spec: EmbedderSpec | None
) -> float:
    weights = _WEIGHTS_HAN if has_han(question) else _WEIGHTS_OTHER
    return max(
        (_chance(found, weights, stats.n_chunks) for found in weigh(question, hits, stats, spec)),
        default=0.0,
    )


def _cross_language_support(
    question: str, hits: Sequence[Hit], spec: EmbedderSpec | None, background: Sequence[float]
) -> float:
    """Return the chance that a passage in another language answers; 0 where none is.

    Languages are told apart as Chinese and not: a Russian question to an English text is judged by
    its words, and Japanese counts as Chinese.
    """
    if spec is None or len(background) < 2 or not knows_scripts(question, spec.scripts):
        return 0.0
    best = 0.0
    for hit in hits[:TOP_HITS]:
        text = hit.chunk.text[:MAX_PASSAGE_CHARS]
        if hit.channels.dense is None or not _is_other_language(question, text):
            continue
        terms = set(index_terms(f"{hit.chunk.heading} {text}").split())
        # What is written with digits is written so in both languages; 九百 and "nine" are not.
        figures = [word for word in content_words(question) if any(map(str.isdigit, word))]
        if knows_scripts(text, spec.scripts) and all(word_match(w, terms) == 1 for w in figures):
            best = max(best, relative_margin(hit.channels.dense, background))
    middle = _CROSS_MIDDLE if len(background) >= _FEW else _CROSS_MIDDLE_OF_FEW
    return 1 / (1 + math.exp(-_CROSS_SLOPE * (best - middle))) if best else 0.0


def _is_other_language(question: str, text: str) -> bool:
    """Tell whether one is Chinese and the other, mostly, is not."""
    letters = [c for c in text[:1000] if c.isalpha()]
    share = sum(map(is_han, letters)) / max(len(letters), 1)
    return share < 0.05 if has_han(question) else share > 0.5


def weigh(
    question: str, hits: Sequence[Hit], stats: TermStats, spec: EmbedderSpec | None
) -> list[Evidence]:
    """Measure the best hits; none for a question without content words."""
    rarities = {word: stats.rarity(word) for word in content_words(question)}
    if not rarities:
        return []
    use_cosine = spec is not None and knows_scripts(question, spec.scripts)
    names = name_words(question)
    return [_weigh(question, hit, rarities, names, use_cosine) for hit in hits[:TOP_HITS]]


def _weigh(
    question: str, hit: Hit, rarities: Mapping[str, float], names: set[str], use_cosine: bool
) -> Evidence:
    text = hit.chunk.text[:MAX_PASSAGE_CHARS]
    heading = set(index_terms(hit.chunk.heading).split())
    spans = split_sentences(text) or [(0, len(text))]
    sentences = [set(index_terms(text[a:b]).split()) for a, b in spans]
    held = _held(rarities, heading.union(*sentences))
    present = {word: rarities[word] for word, share in held.items() if share}

    def covered(terms: AbstractSet[str]) -> float:
        return sum(rarity * word_match(word, terms) for word, rarity in present.items())

    by_sentence = [covered(terms) for terms in sentences]
    best = by_sentence.index(max(by_sentence))
    window = heading.union(*sentences[max(0, best - 1) : best + 2])
    in_window = _held(rarities, window)
    total = sum(rarities.values())
    missing = [word for word in names if held.get(word, 0) < 1]
    return Evidence(
        evidence=max(covered(heading.union(*sentences[i : i + 2])) for i in range(len(sentences))),
        in_sentence=by_sentence[best] / total,
        in_window=sum(rarities[word] * share for word, share in in_window.items()) / total,
        rarest_missing=max(
            (rarities[word] for word, share in in_window.items() if share < 0.5), default=0.0
        )
        / max(rarities.values()),
        lacks_name=any(not word.isdigit() for word in missing),
        lacks_code=any(_is_code(word) for word in missing),
        lacks_number=any(word.isdigit() for word in missing),
        not_denied=is_negated(question) and not is_negated(text[slice(*spans[best])]),
        says_opposite=says_opposite(rarities.keys(), window),
        cosine=hit.channels.dense if use_cosine else None,
    )


def _held(words: Iterable[str], terms: AbstractSet[str]) -> dict[str, float]:
    return {word: word_match(word, terms) for word in words}


def word_match(word: str, terms: AbstractSet[str]) -> float:
    """Return in [0, 1] how far `terms` (of `kb.text.terms.index_terms`) hold a content word."""
    if word in terms:
        return 1.0
    if is_han(word) and len(word) > 1:
        word_pairs = pairs(word)
        held = sum(pair in terms for pair in word_pairs) / len(word_pairs)
        if held == 1:
            return 1.0
        characters = sum(character in terms for character in word) / len(word)
        return max(0.8 * held, PARTIAL_CREDIT * characters**2)
    parts = [part for part in _PARTS.split(word) if part]
    if len(parts) > 1:
        return 0.7 * sum(part in terms for part in parts) / len(parts)
    return 0.0


def _is_code(word: str) -> bool:
    return any(c.isdigit() for c in word) and any(c.isalpha() for c in word)


def _chance(found: Evidence, weights: Mapping[str, float], n_chunks: int) -> float:
    features = found.features(n_chunks)
    logit = weights["bias"] + sum(
        weight * features[name] for name, weight in weights.items() if name != "bias"
    )
    return 1 / (1 + math.exp(-(logit + _LACKS_CODE * found.lacks_code)))
