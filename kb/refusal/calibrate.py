"""Fit a base's threshold of `support`, and its channel weights, on questions made from itself.

No model: a question is part of one sentence of a sampled chunk, with a word from elsewhere in the
base beside it, as people add words of their own. It can be answered. The same question cannot once
the chunk's document is left out of the hits, nor when its longest word is swapped for one from
elsewhere. Half of the chunks fit the threshold, the other half tells what it does.

Such questions repeat the documents' words more than people do, so the threshold stays within
`BOUNDS`, and a channel's weight changes only for a clear gain.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from kb.errors import InvalidInputError
from kb.records import Channel, Hit, KnowledgeBase, Question
from kb.refusal.refusal_curve import auroc, curve
from kb.refusal.support import dense_background, support
from kb.retrieval.fusion import DENSE_WEIGHT, fuse, knows_scripts
from kb.retrieval.retrieve import Retrieval, Retriever
from kb.storage.bases import now, store_calibration
from kb.storage.database import Database
from kb.storage.tables import ChunkRow, DocumentVersionRow
from kb.text.sentences import split_sentences
from kb.text.terms import TermStats, content_words, index_terms, stem

MIN_CHUNKS = 30
MIN_QUESTIONS = 20  # in each half
MAX_CHUNKS = 200  # sampled
# Made questions repeat the documents' words; what people ask lies between these.
BOUNDS = (0.2, 0.45)
# A threshold is changed only if it separates better by so much, or the one there refuses too many.
_CLEAR_THRESHOLD_GAIN = 0.05
# Below it, support does not tell the made questions apart: copies of documents answer for them.
MIN_AUROC = 0.7
# Hits kept for a question: enough that some are left without its document.
_TOP_K = 12
_SENTENCE_CHARS = (12, 240)
_DENSE_WEIGHTS = (0.25, DENSE_WEIGHT, 1.0)
_CLEAR_GAIN = 0.02


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured: the shares on the held-out half, the curve and the channels on both.

    `refusal_precision` is None where nothing was refused.
    """

    threshold: float
    before: float
    target_false_refusals: float
    answerable: int
    unanswerable: int
    false_refusals: float
    refusal_recall: float
    refusal_precision: float | None
    auroc: float
    curve: tuple[tuple[float, float | None, float | None], ...]
    channel_mrr: Mapping[str, float]
    channel_weights: Mapping[str, float] | None
    measured_at: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold,
            "threshold_before": self.before,
            "target_false_refusals": self.target_false_refusals,
            "questions": {"answerable": self.answerable, "unanswerable": self.unanswerable},
            "held_out": {
                "false_refusals": self.false_refusals,
                "refusal_recall": self.refusal_recall,
                "refusal_precision": self.refusal_precision,
                "auroc": self.auroc,
            },
            "curve": [list(point) for point in self.curve],
            "channel_mrr": dict(self.channel_mrr),
            "channel_weights": dict(self.channel_weights) if self.channel_weights else None,
            "measured_at": self.measured_at,
        }


@dataclass(frozen=True, slots=True)
class _Made:
    """A made question: its chunk, the same with a word swapped, and which half it is in."""

    text: str
    swapped: str
    chunk_id: int
    document_id: str
    is_fitted: bool


def calibrate(
    database: Database, retriever: Retriever, base: KnowledgeBase, *, target: float = 0.1
) -> Calibration:
    """Measure `base` and store its threshold, channel weights and curve.

    Args:
        database: where the base is.
        retriever: searches it as questions do.
        base: to be measured.
        target: the share of answerable questions that may be refused, in [0, 0.5].

    Raises:
        InvalidInputError: the target is out of range, the base has too little text, or its
            questions cannot be told apart; nothing was changed.
    """
    if not 0 <= target <= 0.5:
        raise InvalidInputError("target-false-refusals", "must lie between 0 and 0.5")
    made = _make_questions(base, _sampled(database, base))
    supports: dict[tuple[bool, bool], list[float]] = {}  # by (is_fitted, is_answerable)
    for question in made:
        yes = supports.setdefault((question.is_fitted, True), [])
        no = supports.setdefault((question.is_fitted, False), [])
        found = retriever.search(Question(question.text, (base.id,), _TOP_K))
        yes.append(_judge(base, question.text, found))
        no.append(_judge(base, question.text, found, without=question.document_id))
        found = retriever.search(Question(question.swapped, (base.id,), _TOP_K))
        no.append(_judge(base, question.swapped, found))
    area = auroc(supports[False, True], supports[False, False])
    if area is None or area < MIN_AUROC:
        raise InvalidInputError(
            "kb",
            f"questions made from {base.name!r} cannot be told from those that it does not answer; "
            "does it hold copies of the same documents? Nothing was changed",
        )
    threshold = _chosen(supports[True, True], supports[True, False], target, base.support_threshold)
    mrr, weights = _channels(retriever, base, made)
    held_yes, held_no = supports[False, True], supports[False, False]
    false, right = (sum(s < threshold for s in kind) for kind in (held_yes, held_no))
    points = curve(supports[True, True] + held_yes, supports[True, False] + held_no)
    result = Calibration(
        threshold=threshold,
        before=base.support_threshold,
        target_false_refusals=target,
        answerable=len(made),
        unanswerable=2 * len(made),
        false_refusals=round(false / len(held_yes), 4),
        refusal_recall=round(right / len(held_no), 4),
        refusal_precision=round(right / (right + false), 4) if right + false else None,
        auroc=round(area, 4),
        curve=tuple((p.threshold, p.answerable_refused, p.unanswerable_refused) for p in points),
        channel_mrr=mrr,
        channel_weights=weights,
        measured_at=now(),
    )
    with database.write() as session:
        store_calibration(
            session, base, threshold=threshold, channel_weights=weights, report=result.to_dict()
        )
    return result


def left_out(
    hits: Sequence[Hit], stats: TermStats, document_id: str
) -> tuple[tuple[Hit, ...], TermStats]:
    """Return hits and frequencies as if a document were not there, as far as its hits tell."""
    gone = [hit for hit in hits if hit.chunk.document_id == document_id]
    held = Counter(
        term
        for hit in gone
        for term in set(index_terms(f"{hit.chunk.heading}\n{hit.chunk.text}").split())
    )
    left = {term: n - held[term] for term, n in stats.frequencies.items() if n > held[term]}
    copied = {hit.chunk.text for hit in gone}
    kept = tuple(
        hit for hit in hits if hit.chunk.document_id != document_id and hit.chunk.text not in copied
    )
    return kept, TermStats(max(stats.n_chunks - len(gone), 0), left)


def _judge(base: KnowledgeBase, text: str, found: Retrieval, without: str = "") -> float:
    """Return the support of a question as asking gives it, `without` the document of that id."""
    hits, stats = found.hits, found.stats
    if without:
        hits, stats = left_out(hits, stats, without)
    others = [each for each in found.candidates if each.document_id != without]
    background = dense_background(others)
    return support(text, hits, stats=stats, spec=base.embedder, background=background)


def _chosen(
    answerable: Sequence[float], unanswerable: Sequence[float], target: float, current: float
) -> float:
    """Return the threshold that separates best, and refuses at most `target` of the answerable.

    `current` stays unless another is clearly better or it refuses too many.
    """

    def gain(threshold: float) -> float:
        refused = sum(s < threshold for s in unanswerable) / len(unanswerable)
        return refused - sum(s < threshold for s in answerable) / len(answerable)

    candidates = [
        point.threshold
        for point in curve(answerable, unanswerable)
        if BOUNDS[0] <= point.threshold <= BOUNDS[1] and (point.answerable_refused or 0) <= target
    ]
    best = max(candidates, key=lambda t: (gain(t), -abs(t - current)), default=BOUNDS[0])
    refuses = sum(s < current for s in answerable) / len(answerable)
    is_clear = gain(best) >= gain(current) + _CLEAR_THRESHOLD_GAIN
    return best if is_clear or refuses > target else current


def _sampled(database: Database, base: KnowledgeBase) -> list[tuple[int, str, str]]:
    """Return ``(chunk id, document id, text)`` of chunks drawn at random, the same each time."""
    with database.read() as session:
        ids = list(
            session.scalars(
                select(ChunkRow.id).where(ChunkRow.kb_id == base.id).order_by(ChunkRow.id)
            )
        )
        if len(ids) < MIN_CHUNKS:
            raise InvalidInputError(
                "kb",
                f"{base.name!r} has {len(ids)} chunks; calibrating needs at least {MIN_CHUNKS}, "
                "nothing was changed",
            )
        drawn = random.Random(0).sample(ids, min(MAX_CHUNKS, len(ids)))
        rows = session.execute(
            select(ChunkRow, DocumentVersionRow.text)
            .join(DocumentVersionRow, DocumentVersionRow.document_id == ChunkRow.document_id)
            .where(ChunkRow.id.in_(drawn), DocumentVersionRow.is_current)
            .order_by(ChunkRow.id)
        )
        return [(row.id, row.document_id, text[row.start : row.end]) for row, text in rows]


def _make_questions(base: KnowledgeBase, chunks: Sequence[tuple[int, str, str]]) -> list[_Made]:
    rng = random.Random(0)
    drafts = []
    for chunk_id, document_id, text in chunks:
        low, high = _SENTENCE_CHARS
        sentences = [text[a:b] for a, b in split_sentences(text) if low <= b - a <= high]
        rng.shuffle(sentences)
        part = next((p for s in sentences if len(content_words(p := _part(s, rng))) >= 3), None)
        if part is not None:
            drafts.append((chunk_id, document_id, part))
    words = [(document_id, content_words(part)) for _, document_id, part in drafts]
    made = []
    for i, (chunk_id, document_id, part) in enumerate(drafts):
        foreign = [w for other, ws in words if other != document_id for w in ws if w not in part]
        own = max(content_words(part), key=len)
        swapped = _swapped(part, own, rng.choice(foreign)) if foreign else None
        if swapped is not None:
            made.append(
                _Made(f"{part} {rng.choice(foreign)}", swapped, chunk_id, document_id, i % 2 == 0)
            )
    fitted = sum(question.is_fitted for question in made)
    if min(fitted, len(made) - fitted) < MIN_QUESTIONS:
        raise InvalidInputError(
            "kb",
            f"only {len(made)} questions could be made from {base.name!r}, from sentences of at "
            f"least two documents; {2 * MIN_QUESTIONS} are needed, nothing was changed",
        )
    return made


def _part(sentence: str, rng: random.Random) -> str:
    """Return two thirds of a sentence, cut between words; of Chinese, anywhere."""
    words = sentence.split() if sentence.isascii() or " " in sentence else list(sentence)
    size = max(1, 2 * len(words) // 3)
    first = rng.randint(0, len(words) - size)
    joined = (" " if " " in sentence else "").join(words[first : first + size])
    return joined.strip(" ，。、,.;；:：")


def _swapped(part: str, word: str, foreign: str) -> str | None:
    """Return `part` with a content word replaced, None where it stands in another form."""
    if word in part:
        return part.replace(word, foreign)
    tokens = part.split(" ")
    changed = [foreign if stem(t.strip(",.;:()\"'").casefold()) == word else t for t in tokens]
    return " ".join(changed) if changed != tokens else None


def _channels(
    retriever: Retriever, base: KnowledgeBase, made: Sequence[_Made]
) -> tuple[dict[str, float], dict[str, float] | None]:
    """Return how well each channel finds the sources, and weights if others are clearly better.

    Measured on the held-out half, where the embedder knows the script; weights are None to keep
    the general ones.
    """
    asked = [q for q in made if not q.is_fitted and knows_scripts(q.text, base.embedder.scripts)]
    if len(asked) < MIN_QUESTIONS:
        return {}, None
    rankings: dict[Channel, list[list[tuple[int, float]]]] = {}
    channels: tuple[Channel, Channel] = ("dense", "lexical")
    for channel in channels:
        rankings[channel] = [
            [
                (hit.chunk.id, _channel_score(hit, channel))
                for hit in retriever.search(Question(q.text, (base.id,), _TOP_K, channel)).hits
            ]
            for q in asked
        ]

    def mrr(lists: Sequence[Sequence[tuple[int, float]]]) -> float:
        found = [[id_ for id_, _ in ranking] for ranking in lists]
        ranks = [ids.index(q.chunk_id) + 1 if q.chunk_id in ids else 0
                 for q, ids in zip(asked, found, strict=True)]  # fmt: skip
        return round(sum(1 / rank for rank in ranks if rank) / len(ranks), 4)

    def fused(dense: float) -> float:
        weights = {"dense": dense, "lexical": 1.0}
        return mrr(
            [
                fuse({"dense": by_dense, "lexical": by_lexical}, weights)
                for by_dense, by_lexical in zip(rankings["dense"], rankings["lexical"], strict=True)
            ]
        )

    measured = {str(channel): mrr(lists) for channel, lists in rankings.items()}
    by_weight = {dense: fused(dense) for dense in _DENSE_WEIGHTS}
    best = max(by_weight, key=by_weight.__getitem__)
    if by_weight[best] < by_weight[DENSE_WEIGHT] + _CLEAR_GAIN:
        return measured, None
    return measured, {"dense": best, "lexical": 1.0}


def _channel_score(hit: Hit, channel: Channel) -> float:
    score = hit.channels.dense if channel == "dense" else hit.channels.lexical
    return score or 0.0
