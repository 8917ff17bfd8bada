"""Estimate the chance that passages answer a question. Refusal rests on this number only.

The rule looks at what a question asks about, not at how well it ranked: how much of the
informative part of the question stands in one passage (rare words weigh more), whether its
numbers and names stand there, and, where the embedder knows the question's script, the cosine.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kb.fusion import knows_scripts
from kb.records import EmbedderSpec, Hit
from kb.terms import content_words, index_terms, normalise

DEFAULT_SUPPORT_THRESHOLD = 0.5

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class TermStats:
    """How many chunks of the searched bases hold each content word of a question."""

    n_chunks: int = 0
    frequencies: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "TermStats") -> "TermStats":
        merged = dict(self.frequencies)
        for word, frequency in other.frequencies.items():
            merged[word] = merged.get(word, 0) + frequency
        return TermStats(self.n_chunks + other.n_chunks, merged)


def support(
    question: str,
    hits: Sequence[Hit],
    *,
    stats: TermStats | None = None,
    spec: EmbedderSpec | None = None,
) -> float:
    """Return the estimated chance in [0, 1] that `hits` answer `question`.

    Args:
        question: the user's words.
        hits: best first; only the first few count.
        stats: document frequencies of the question's words; without them all words weigh alike.
        spec: the embedder of the hits' base; without it cosines are ignored.
    """
    words = content_words(question)
    if not hits or not words:
        return 0.0
    stats = stats or TermStats()
    weights = {word: _weight(word, stats) for word in words}
    total = sum(weights.values())
    best = 0.0
    use_cosine = spec is not None and knows_scripts(question, spec.scripts)
    for hit in hits[:5]:
        coverage = _coverage(weights, hit) / total
        cosine = hit.channels.dense if use_cosine else None
        if cosine is not None:
            coverage = 0.6 * coverage + 0.4 * min(max((cosine - 0.2) / 0.5, 0.0), 1.0)
        best = max(best, coverage)
    return best


def _weight(word: str, stats: TermStats) -> float:
    frequency = stats.frequencies.get(word, 0)
    return math.log(1 + (stats.n_chunks + 10) / (frequency + 1))


def _coverage(weights: Mapping[str, float], hit: Hit) -> float:
    text = normalise(hit.chunk.heading + "\n" + hit.chunk.text)
    terms = set(index_terms(text).split())
    return sum(
        weight
        for word, weight in weights.items()
        if word in terms or (not word.isascii() and word in text)
    )
