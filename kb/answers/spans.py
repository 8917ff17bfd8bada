"""Propose the short answer: the phrase of the best sentences that a question asks for.

Every phrase of a sentence (`kb.answers.phrases`) is weighed by a linear model over a few dozen
features: the kinds of words beside it, at its ends and in it, its length, whether it is of the type
the question asks for (`kb.answers.typed`), how near it stands to the question's own words, and
whether what stands beside the asking word in the question stands beside it.
`kb.answers.span_weights` holds the weights, fitted on halves of question sets by
`benchmarks/fit_spans.py`.

The phrase with the best score is not the answer: phrases overlap, and many good ones agree about
a part. The answer is the one with the greatest expected overlap (F1) with what the model believes;
that expectation must reach `MIN_EXPECTED`, else there is no short answer. A wrong one is worse
than none.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from kb.answers.phrases import Word, phrases_of, words_of
from kb.answers.span_weights import WEIGHTS
from kb.answers.typed import AnswerType, Asked, stated_spans, typed_spans
from kb.text import stopwords
from kb.text.simplify import simplified
from kb.text.terms import has_han, normalise, stem

# Expected F1 below which no short answer is given.
MIN_EXPECTED = 0.2
# Phrases compared for the expectation; the others have next to no probability.
_COMPARED = 30
_STATED = frozenset(["number", "percent", "money", "date", "year", "time", "code"])
_PROPER = frozenset(["cap", "nr", "ns", "nt", "nz", "x", "of", "the", "soft"])
_EMPTY = frozenset(str.split("pron the aux of in by be and f de le with that open close soft"))
_FULL = re.compile(r"\d{4}|月")
_LENGTHS = (1, 2, 3, 4, 6, 9, 14, 24, 45)
_PUNCTUATION = re.compile(r"[^\w]+")

Feature = tuple[str, float]


@dataclass(frozen=True, slots=True)
class Phrase:
    """``sentences[sentence][start:end]``, with its features."""

    sentence: int
    start: int
    end: int
    features: tuple[Feature, ...]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A short answer, verbatim in its sentence, and the overlap it is expected to have."""

    sentence: int
    text: str
    expected: float


def propose(asked: Asked, sentences: Sequence[tuple[str, float]]) -> Proposal | None:
    """Return the short answer to a question from sentences and their scores, best first.

    The scores are those of `kb.answers.extractive`, > 0. None where no phrase is likely enough.
    """
    weights = WEIGHTS["zh" if has_han(asked.text) else "en"]
    scored = sorted(_scored(asked, sentences, weights), reverse=True)
    if not scored:
        return None
    peak = scored[0][0]
    total = sum(math.exp(score - peak) for score, *_ in scored)
    best = [
        (math.exp(score - peak) / total, index, sentences[index][0][start:end].strip())
        for score, index, start, end in scored[:_COMPARED]
    ]
    units = [units_of(text) for *_, text in best]
    expected = [
        sum(share * _overlap(own, other) for (share, *_), other in zip(best, units, strict=True))
        for own in units
    ]
    winner = max(range(len(best)), key=lambda i: expected[i])
    if expected[winner] < MIN_EXPECTED:
        return None
    _, index, text = best[winner]
    return Proposal(index, text, expected[winner])


def candidates(asked: Asked, sentences: Sequence[tuple[str, float]]) -> Iterator[Phrase]:
    """Yield the phrases of `sentences` with their features, for fitting."""
    for index, (scene, shared) in enumerate(_scenes(asked, sentences)):
        for first, last, inner in scene.phrases():
            features = (*shared, *scene.left(first), *scene.right(last), *inner)
            yield Phrase(index, scene.words[first].start, scene.words[last].end, features)


def _scored(
    asked: Asked, sentences: Sequence[tuple[str, float]], weights: Mapping[str, float]
) -> Iterator[tuple[float, int, int, int]]:
    """Yield score, sentence, start and end of each phrase; both ends are weighed only once."""

    def weigh(features: Sequence[Feature]) -> float:
        return sum(weights.get(name, 0.0) * value for name, value in features)

    for index, (scene, shared) in enumerate(_scenes(asked, sentences)):
        base = weigh(shared)
        left: dict[int, float] = {}
        right: dict[int, float] = {}
        for first, last, inner in scene.phrases():
            if first not in left:
                left[first] = weigh(scene.left(first))
            if last not in right:
                right[last] = weigh(scene.right(last))
            score = base + left[first] + right[last] + weigh(inner)
            yield score, index, scene.words[first].start, scene.words[last].end


def _scenes(
    asked: Asked, sentences: Sequence[tuple[str, float]]
) -> Iterator[tuple["_Scene", Sequence[Feature]]]:
    top = max((score for _, score in sentences), default=1.0) or 1.0
    for index, (sentence, score) in enumerate(sentences):
        yield (
            _Scene(asked, sentence),
            ((f"sentence {index}", 1.0), ("sentence score", score / top)),
        )


class _Scene:
    """One sentence before one question: what its words share with it, counted once."""

    def __init__(self, asked: Asked, sentence: str) -> None:
        sentence = simplified(sentence)  # keeps offsets
        self.asked = asked
        self.sentence = sentence
        stated = stated_spans(sentence)
        self.words = words_of(sentence, stated)
        self.chinese = has_han(asked.text)
        self.group = _group(asked.kind)
        self.fits = set(typed_spans(sentence, asked.kind)) if asked.kind else set()
        if asked.kind == "number":  # a year is no count where there is another number
            dates = [
                (a, b) for a, b in typed_spans(sentence, "date") if _FULL.search(sentence[a:b])
            ]
            counts = {s for s in self.fits if not any(a <= s[0] and s[1] <= b for a, b in dates)}
            self.fits = counts or self.fits
        self.numbers = {(start, end) for start, end, _ in stated}
        self.titles = set(typed_spans(sentence, "title"))
        self.held = self._held()
        self.mass = [0.0]
        for share in self.held:
            self.mass.append(self.mass[-1] + share)

    def phrases(self) -> Iterator[tuple[int, int, Sequence[Feature]]]:
        """Yield the first and last word of each phrase, and what only both together tell.

        The question's own words are no answer to it.
        """
        for first, last in phrases_of(self.words, sorted(self.fits | self.numbers | self.titles)):
            inner = self._inner(first, last)
            if inner is not None:
                yield first, last, inner

    def _held(self) -> list[float]:
        """Return for each word in [0, 1] how far the question holds it."""
        text = self.asked.text
        if not self.chinese:
            own = {stem(word) for word in re.findall(r"[^\W_]+", text)} - stopwords.ENGLISH
            return [
                float(stem(word.text) in own and word.text not in stopwords.ENGLISH)
                for word in self.words
            ]
        pairs = {text[i : i + 2] for i in range(len(text) - 1)}
        found: list[float] = []
        for word in self.words:
            if not _PUNCTUATION.sub("", word.text) or word.kind in {"de", "be", "in", "by", "le"}:
                found.append(0.0)
            elif len(word.text) == 1:
                found.append(0.5 * (word.text in text))
            else:
                known = [word.text[i : i + 2] in pairs for i in range(len(word.text) - 1)]
                found.append(sum(known) / len(known))
        return found

    def _near(self, position: int, step: int) -> float:
        """Return how near the question's words stand on one side, in [0, about 2]."""
        total, at = 0.0, position
        for distance in range(1, 13):
            at += step
            if not 0 <= at < len(self.words):
                break
            total += self.held[at] / (1 + distance)
        return total

    def left(self, first: int) -> list[Feature]:
        """Return what stands before a phrase that begins with this word, and how it begins."""
        before = self.words[first - 1] if first else None
        kind = before.kind if before else "start"
        found = [(f"left {kind}", 1.0), (f"first {self.words[first].kind}", 1.0)]
        found += [(f"left {kind} {self.group}", 1.0)]
        found += [("near left", self._near(first, -1))]
        if before and self.held[first - 1]:
            found.append(("left held", self.held[first - 1]))
        beside = self._beside(
            self.asked.before, self.sentence[: self.words[first].start], last=True
        )
        found.append(("left as asked", beside))
        if first > 1:
            found.append((f"left2 {self.words[first - 2].kind}", 1.0))
        return found

    def right(self, last: int) -> list[Feature]:
        """Return what stands behind a phrase that ends with this word, and how it ends."""
        after = self.words[last + 1] if last + 1 < len(self.words) else None
        kind = after.kind if after else "end"
        found = [(f"right {kind}", 1.0), (f"last {self.words[last].kind}", 1.0)]
        found += [("near right", self._near(last, 1))]
        if after and self.held[last + 1]:
            found.append(("right held", self.held[last + 1]))
        beside = self._beside(self.asked.after, self.sentence[self.words[last].end :], last=False)
        found.append(("right as asked", beside))
        return found

    def _beside(self, asked: str, here: str, *, last: bool) -> float:
        """Return the share of the two words (characters) beside the asking word that stand here."""
        if self.chinese:
            wanted = [c for c in asked if c.isalnum()]
            wanted = wanted[-3:] if last else wanted[:3]
            window = normalise(here[-6:] if last else here[:6])
            return sum(c in window for c in wanted) / 3
        wanted = [w for w in re.findall(r"[^\W_]+", asked) if w not in stopwords.ENGLISH]
        wanted = wanted[-2:] if last else wanted[:2]
        window = normalise(here[-40:] if last else here[:40])
        near = {stem(word) for word in re.findall(r"[^\W_]+", window)}
        return sum(stem(word) in near for word in wanted) / 2

    def _inner(self, first: int, last: int) -> list[Feature] | None:
        words = self.words[first : last + 1]
        start, end = words[0].start, words[-1].end
        kinds = {word.kind for word in words}
        held = self.mass[last + 1] - self.mass[first]
        n_marks = sum(1 for word in words if not word.text[0].isalnum())
        n_words = len(words) - n_marks
        if n_words == 0 or held > 0.9 * n_words or self._is_whole(first, last):
            return None
        fit = _fit((start, end), self.fits)
        if kinds <= _EMPTY:
            return None
        if self.group == "person" and not self.chinese and n_words == 1 and "cap" not in kinds:
            return None
        if self.group == "told" and kinds <= {"num", "date"}:
            return None
        # A date that was asked for is a date, with a word or two beside it.
        is_near = fit == "exact" or (fit == "holds" and n_words <= 4 and "v" not in kinds)
        if self.group == "stated" and not is_near:
            return None
        if _is_amount(self.asked.kind) and words[-1].kind == "f":
            return None
        size = (end - start) if self.chinese else n_words
        bucket = next((str(limit) for limit in _LENGTHS if size <= limit), "more")
        found = [(f"length {bucket}", 1.0), (f"length {bucket} {self.group}", 1.0)]
        found += [("held", held), ("held share", held / n_words)]
        found += [(f"first {words[0].kind} {self.group}", 1.0)]
        found += [(f"last {words[-1].kind} {self.group}", 1.0)]
        found.append((f"between {self._kind(first - 1)} {self._kind(last + 1)}", 1.0))
        if kinds <= _PROPER:
            found += [("proper", 1.0), (f"proper {self.group}", 1.0)]
        for kind in ("v", "de", "and", "stop", "open", "of", "be", "that", "soft", "ed"):
            if kind in kinds and len(words) > 1:
                found.append((f"has {kind}", 1.0))
        if self.asked.kind:
            found.append((f"{fit} {self.asked.kind}", 1.0))
        elif (stated := _fit((start, end), self.numbers)) != "none":
            found.append((f"{stated} stated", 1.0))
        if (start, end) in self.titles:
            found.append(("title", 1.0))
        found += self._focus(words)
        is_clause = (first == 0 or self.words[first - 1].kind == "stop") and (
            last + 1 == len(self.words) or self.words[last + 1].kind == "stop"
        )
        if is_clause:
            found += [("clause", 1.0), (f"clause {self.group}", 1.0)]
        return found

    def _is_whole(self, first: int, last: int) -> bool:
        """Tell whether a phrase is the sentence, but for the marks at its ends."""
        outside = (*self.words[:first], *self.words[last + 1 :])
        return not any(word.text[0].isalnum() for word in outside)

    def _kind(self, at: int) -> str:
        return self.words[at].kind if 0 <= at < len(self.words) else "edge"

    def _focus(self, words: Sequence[Word]) -> list[Feature]:
        """Tell whether the phrase ends with, or holds, the noun that the question asks about."""
        if not self.asked.endings:
            return []
        if self.chinese:
            text = self.sentence[words[0].start : words[-1].end]
            if text.endswith(self.asked.endings) and text not in self.asked.endings:
                return [("focus last", 1.0)]
            return [("focus in", 1.0)] if any(e in text for e in self.asked.endings) else []
        focus = stem(self.asked.focus)
        stems = [stem(word.text) for word in words]
        if len(stems) > 1 and stems[-1] == focus:
            return [("focus last", 1.0)]
        return [("focus in", 1.0)] if focus in stems else []


def units_of(text: str) -> AbstractSet[tuple[str, int]]:
    """Return what overlap is counted in: characters of Chinese, words of other text, numbered."""
    folded = normalise(text)
    pieces = list(_PUNCTUATION.sub("", folded)) if has_han(folded) else folded.split()
    counts: dict[str, int] = {}
    found: set[tuple[str, int]] = set()
    for piece in pieces:
        if piece in {"a", "an", "the"}:
            continue
        counts[piece] = counts.get(piece, 0) + 1
        found.add((piece, counts[piece]))
    return found


def _overlap(one: AbstractSet[tuple[str, int]], other: AbstractSet[tuple[str, int]]) -> float:
    both = len(one) + len(other)
    return 2 * len(one & other) / both if both else 0.0


def _fit(span: tuple[int, int], typed: AbstractSet[tuple[int, int]]) -> str:
    if span in typed:
        return "exact"
    start, end = span
    if any(start <= a and b <= end for a, b in typed):
        return "holds"
    return "part" if any(a < end and start < b for a, b in typed) else "none"


def _is_amount(kind: AnswerType | None) -> bool:
    """Tell whether a question asks for a number, which no 前 or 后 belongs to, as to a date."""
    return kind in _STATED and kind not in {"date", "year"}


def _group(kind: AnswerType | None) -> str:
    if kind in _STATED:
        return "stated"
    if kind in {"reason", "manner", "definition"}:
        return "told"
    return kind or "thing"
