"""Weighted fusion: merge ranked lists whose scores are not comparable, by rank and by margin.

Ranks alone are robust, but do not tell a clear first from one of many; so half of a chunk's score
is how near it comes to the channel's best. Chosen on every other question of the English sets: of
the first hits 66 instead of 89 of 500 were wrong there, 70 instead of 77 on the other half;
recall@5 rose by two questions there and fell by one on the other half.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence

from kb.records import EmbedderSpec
from kb.text.terms import TermStats, content_words

# Cormack et al. (2009) report k = 60 for lists of a thousand; ranks here start at 1, as there.
# With 10 the first few ranks count for more, which recall@5 and mrr@10 of the English sets
# (`kb eval`) gain from: an answer uses a handful of passages, not a thousand.
RRF_K = 10

# How much of a chunk's score is its channel's score, the rest being its rank there.
SCORE_SHARE = 0.5
# The score that counts as nothing; elsewhere the worst of the list. No cosine means "unrelated".
FLOORS = {"lexical": 0.0}

# What dense earned beside lexical with the embedded default, on the same sets and command.
DENSE_WEIGHT = 0.45

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
    found: Mapping[str, Sequence[tuple[int, float]]], weights: Mapping[str, float]
) -> list[tuple[int, float]]:
    """Fuse what the channels found into one list, best first.

    A chunk scores, summed over the channels that found it, the channel's weight times the mean of
    two shares: of its rank, ``(k + 1) / (k + rank)``, and of its score, 1 for the channel's best
    and 0 for its floor. The sum is divided by what a chunk at the head of every channel with a
    weight would score. A channel of weight 0 (or none named) adds no chunk and no score; so does
    one that found nothing, which costs the others nothing. Ties keep the order in which chunks
    were first seen.

    Args:
        found: ``(chunk_id, score)`` by channel, best first, no chunk twice in a list.
        weights: >= 0 by channel; only their ratios matter.

    Returns:
        ``(chunk_id, score)`` pairs, score in (0, 1].

    Reference:
        Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and
        individual Rank Learning Methods", SIGIR 2009; Bruch, Gai and Ingber, "An Analysis of
        Fusion Functions for Hybrid Retrieval", TOIS 2023. Adding the two is ours.
    """
    scores: defaultdict[int, float] = defaultdict(float)
    best = 0.0
    for channel, hits in found.items():
        weight = weights.get(channel, 0.0)
        if weight < MIN_WEIGHT or not hits:
            continue
        best += weight
        floor = FLOORS.get(channel, hits[-1][1])
        width = hits[0][1] - floor
        for rank, (chunk_id, score) in enumerate(hits, start=1):
            of_rank = (RRF_K + 1) / (RRF_K + rank)
            of_score = (score - floor) / width if width > 0 else 1.0
            scores[chunk_id] += weight * ((1 - SCORE_SHARE) * of_rank + SCORE_SHARE * of_score)
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
