"""Weighted reciprocal rank fusion: merge ranked lists whose scores are not comparable."""

import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence

from kb.records import EmbedderSpec
from kb.terms import TermStats, content_words

# Cormack et al. (2009) report k = 60 for lists of a thousand; ranks here start at 1, as there.
# With 10 the first few ranks count for more, which recall@5 and mrr@10 of the English sets
# (`kb eval`) gain from: an answer uses a handful of passages, not a thousand.
RRF_K = 10

# What dense earned beside lexical with the embedded default, on the same sets and command.
DENSE_WEIGHT = 0.5

# Less counts as none: sums of such weights vanish.
MIN_WEIGHT = 1e-6

# Below this share of letters the embedder knows, its ranking of the question is close to noise.
MIN_KNOWN_SHARE = 0.8

_SCRIPT_OF_NAME = {
    "LATIN": "Latn",
    "CJK": "Hani",
    "IDEOGRAPHIC": "Hani",
    "HIRAGANA": "Hira",
    "KATAKANA": "Kana",
    "HANGUL": "Hang",
    "BOPOMOFO": "Bopo",
    "CYRILLIC": "Cyrl",
    "GREEK": "Grek",
    "ARABIC": "Arab",
    "HEBREW": "Hebr",
    "THAI": "Thai",
    "DEVANAGARI": "Deva",
    "ARMENIAN": "Armn",
    "GEORGIAN": "Geor",
}


def fuse(
    rankings: Mapping[str, Sequence[int]], weights: Mapping[str, float]
) -> list[tuple[int, float]]:
    """Fuse ranked lists of chunk ids into one list, best first.

    A chunk scores ``sum(weight / (k + rank))`` over the channels that found it, divided by what
    a chunk ranked first by every weighted channel would score. A channel of weight 0 (or none
    named) adds no chunk and no score; so does one that found nothing, which costs the others
    nothing. Ties keep the order in which chunks were first seen.

    Args:
        rankings: chunk ids by channel, best hit first, no duplicates inside a list.
        weights: >= 0 by channel; only their ratios matter.

    Returns:
        ``(chunk_id, score)`` pairs, score in (0, 1].

    Reference:
        Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet
        and individual Rank Learning Methods", SIGIR 2009; the weights are ours.
    """
    scores: defaultdict[int, float] = defaultdict(float)
    best = 0.0
    for channel, ranking in rankings.items():
        weight = weights.get(channel, 0.0)
        if weight < MIN_WEIGHT or not ranking:
            continue
        best += weight / (RRF_K + 1)
        for rank, chunk_id in enumerate(ranking, start=1):
            scores[chunk_id] += weight / (RRF_K + rank)
    fused = sorted(scores.items(), key=lambda item: item[1], reverse=True)
    return [(chunk_id, score / best) for chunk_id, score in fused]


def channel_weights(
    question: str,
    spec: EmbedderSpec,
    *,
    measured: Mapping[str, float] | None = None,
    stats: TermStats | None = None,
) -> dict[str, float]:
    """Return the weight of each channel for this question: keys ``dense`` and ``lexical``.

    Dense weighs 0 where the embedder was not trained on the question's script. Lexical weighs
    the share of the question's words, by rarity, that the base holds at all: next to nothing
    for a question in another language than the documents.

    Args:
        question: the user's words.
        spec: the embedder of the base.
        measured: what each channel earned in this base, in place of what it did on our sets.
        stats: frequencies of the question's words in the base; without them lexical weighs 1.
    """
    earned = measured or {}
    dense = earned.get("dense", DENSE_WEIGHT) if knows_scripts(question, spec.scripts) else 0.0
    lexical = earned.get("lexical", 1.0) if dense else 1.0  # alone, it has all of the say
    if dense and stats is not None:
        lexical *= max(stats.known_share(content_words(question)), 0.01)
    return {"dense": dense, "lexical": lexical}


def knows_scripts(text: str, scripts: frozenset[str]) -> bool:
    """Tell whether nearly all letters of `text` belong to `scripts` (ISO 15924 codes)."""
    known = total = 0
    for character in text:
        if character.isalpha():
            script = script_of(character)
            # One CJK character says about as much as half a Latin word.
            size = 2 if script in ("Hani", "Hira", "Kana", "Hang") else 1
            total += size
            known += size * (script in scripts)
    return total > 0 and known >= MIN_KNOWN_SHARE * total


def script_of(letter: str) -> str:
    """Return the ISO 15924 code of a letter's script, ``Zyyy`` where we do not tell."""
    if letter.isascii():
        return "Latn"
    name = unicodedata.name(letter, "").split(" ", 1)[0].split("-", 1)[0]
    return _SCRIPT_OF_NAME.get(name, "Zyyy")
