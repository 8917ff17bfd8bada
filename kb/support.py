"""Estimate the chance that passages answer a question. Refusal rests on this number only.

The rule looks at what a question asks about, not at how well a passage ranked. For each of the
best hits it measures

- coverage: the share of the question's content words, weighted by rarity, that stand in the
  passage and, counted again, in two neighbouring sentences of it;
- evidence: the same sum without dividing, since four rare words of a long question in one place
  are no accident though they are half of it;
- whether a name or number is missing;
- the cosine, where the embedder knows the question's script

and puts them into one logistic function. It does not see whether a passage on the right subject
says what is asked: on adversarial questions (SQuAD 2.0) it is little better than chance.

The constants were fitted on half of `zh_unans`, `zh_para` and of bases of 12 to 1,000 documents
drawn from `zh_cmrc`, `zh_hant_drcd`, `en_squad` and `en_hotpot`, with the documents of half of
the questions left out.
"""

import math
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from kb.fusion import knows_scripts
from kb.records import EmbedderSpec, Hit
from kb.sentences import split_questions, split_sentences
from kb.terms import TermStats, content_words, index_terms, is_han, name_words, pairs

# `kb eval` on zh_unans: refuses 84 % of the unanswerable questions and 3 % of the others; 0.4
# would refuse about 90 % and 5 %. Lower, since small bases are asked in other words.
DEFAULT_SUPPORT_THRESHOLD = 0.3

# Hits that are looked at: an answer below rank 3 is no reason to answer.
TOP_HITS = 3
# What the characters of a Chinese word count for where the word itself is absent.
PARTIAL_CREDIT = 0.3
# Longest stretch of a passage that is judged: a huge table must not take seconds.
MAX_PASSAGE_CHARS = 8_000

# Weights of the logistic function, fitted as the module says.
_BIAS = -7.27
_COVERAGE = 6.76
_LOG_EVIDENCE = 2.22
_LACKS_NAME = -2.24
_LACKS_NUMBER = -2.37
# On top of a missing name, for codes ("BX500"); set by judgement, the sets hold too few.
_LACKS_CODE = -2.5
_COSINE = 8.19
_HAS_COSINE = -2.55
# The more chunks there are, the more of any question some chunk covers by chance.
_LOG_CHUNKS = -0.30

_PARTS = re.compile(r"[._\-]+")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one passage holds of a question.

    `coverage` is a share in [0, 1] of the question's total rarity, `evidence` a sum of rarities,
    >= 0. `lacks_...` say that one of the question is not there; a code has letters and digits.
    `cosine` is None where it says nothing.
    """

    coverage: float
    evidence: float
    lacks_name: bool
    lacks_code: bool
    lacks_number: bool
    cosine: float | None


def support(
    question: str,
    hits: Sequence[Hit],
    *,
    stats: TermStats | None = None,
    spec: EmbedderSpec | None = None,
) -> float:
    """Return the estimated chance in [0, 1] that `hits` answer `question`.

    0 without hits, and for a question without content words ("what is it?").

    Args:
        question: the user's words.
        hits: best first; the first `TOP_HITS` count.
        stats: frequencies of the question's words; without them the general ones are used.
        spec: the embedder of the hits' base; without it cosines are ignored.
    """
    stats = stats or TermStats()
    parts = question_parts(question)
    chances = [_support(part, hits, stats, spec) for part in parts]
    if len(parts) > 1:  # enough if the parts are answered one by one
        return max(_support(question, hits, stats, spec), sum(chances) / len(chances))
    return chances[0]


def question_parts(question: str) -> list[str]:
    """Return the questions in `question` that can be looked up alone, or the whole."""
    parts = [part for part in split_questions(question) if content_words(part)]
    return parts if len(parts) > 1 else [question]


def _support(
    question: str, hits: Sequence[Hit], stats: TermStats, spec: EmbedderSpec | None
) -> float:
    rarities = {word: stats.rarity(word) for word in content_words(question)}
    if not rarities:
        return 0.0
    names = name_words(question)
    use_cosine = spec is not None and knows_scripts(question, spec.scripts)
    return max(
        (
            _chance(weigh(hit, rarities, names, use_cosine=use_cosine), stats.n_chunks)
            for hit in hits[:TOP_HITS]
        ),
        default=0.0,
    )


def weigh(
    hit: Hit, rarities: Mapping[str, float], names: set[str], *, use_cosine: bool
) -> Evidence:
    """Measure one passage against the question's words (`rarities`, > 0 each)."""
    text = hit.chunk.text[:MAX_PASSAGE_CHARS]
    heading = set(index_terms(hit.chunk.heading).split())
    sentences = [set(index_terms(text[a:b]).split()) for a, b in split_sentences(text)]
    terms = heading.union(*sentences)
    held = {word: word_match(word, terms) for word in rarities}
    total = sum(rarities.values())
    covered = sum(rarities[word] * share for word, share in held.items())
    nearby = max(
        (
            sum(
                rarities[word] * word_match(word, heading.union(*sentences[i : i + 2]))
                for word in rarities
                if held[word]
            )
            for i in range(len(sentences))
        ),
        default=0.0,
    )
    missing = [word for word in names if held[word] < 1]
    return Evidence(
        coverage=(covered + nearby) / (2 * total),
        evidence=nearby,
        lacks_name=any(not word.isdigit() for word in missing),
        lacks_code=any(_is_code(word) for word in missing),
        lacks_number=any(word.isdigit() for word in missing),
        cosine=hit.channels.dense if use_cosine else None,
    )


def word_match(word: str, terms: AbstractSet[str]) -> float:
    """Return in [0, 1] how far `terms` (of `kb.terms.index_terms`) hold a content word."""
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


def _chance(found: Evidence, n_chunks: int) -> float:
    logit = (
        _BIAS
        + _COVERAGE * found.coverage
        + _LOG_EVIDENCE * math.log1p(found.evidence)
        + _LACKS_NAME * found.lacks_name
        + _LACKS_CODE * found.lacks_code
        + _LACKS_NUMBER * found.lacks_number
        + _LOG_CHUNKS * math.log(max(n_chunks, 1))
    )
    if found.cosine is not None:
        logit += _HAS_COSINE + _COSINE * found.cosine
    return 1 / (1 + math.exp(-logit))
