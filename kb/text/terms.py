"""Turn text into the terms that full text stores and looks up.

One tokenisation serves documents and questions. Text is NFKC-normalised and case-folded, then cut
by script:

- Latin and other alphabetic scripts: words, without accents. Numbers lose their thousands
  separators. Identifiers (``max_new_tokens``, ``getUserName``, ``LX-PO-2023``) give the whole
  and its parts. English words are stemmed (Snowball).
- Han, in its simplified form (`kb.text.simplify`): every character, every pair of neighbours, every
  dictionary word (jieba's) of three or more characters, and the value of a written number
  (``十八`` gives ``18``). Pairs alone find most; single characters find paraphrases; see
  `kb.storage.fulltext` for when they are looked up.
- Numbers with their unit, and dates: `kb.text.quantities`.
- Kana, Hangul and the Southeast Asian scripts that write no spaces: pairs.

Questions drop what only gives them their form (`kb.text.stopwords`) unless nothing else remains.
Very common terms are dropped later, by the full text, which knows the frequencies.

Terms hold no white space and no ASCII other than letters, digits and ``_ . -``: that is what the
FTS5 table takes as part of a word. Other ASCII is written full-width (``c＋＋``).
"""

import functools
import math
import re
import threading
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kb.records import MAX_QUESTION_CHARS
from kb.text import stopwords
from kb.text.numbers import CHINESE_NUMBER, canonical, chinese_to_int
from kb.text.quantities import quantities
from kb.text.simplify import simplified

# Chosen among 20, 50 and 150 by how well small mixed bases tell what they can answer.
PRIOR_CHUNKS = 150
# Pinned in a knowledge base's row; change it whenever `index_terms` gives other terms.
FULLTEXT = "terms/2+jieba-0.42+snowball-3+opencc"

_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Written without spaces: kana, bopomofo, Hangul; Thai, Lao, Myanmar, Khmer.
_UNSPACED = (
    "\u3040-\u30ff\u31f0-\u31ff\u3100-\u312f\u31a0-\u31bf\u1100-\u11ff\uac00-\ud7af"
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)
# Vowel signs and other marks that `\w` leaves out though they stand inside words.
_MARKS = "\u0300-\u036f\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0900-\u0963\u0966-\u0dff"
_LETTER = rf"(?:[^\W_{_HAN}{_UNSPACED}]|[{_MARKS}])"
_RUN = re.compile(
    rf"(?P<han>[{_HAN}]+)|(?P<unspaced>[{_UNSPACED}]+)"
    rf"|(?P<number>[0-9]{{1,3}}(?:,[0-9]{{3}})+(?:\.[0-9]+)?(?!{_LETTER}))"
    rf"|(?P<word>{_LETTER}+(?:(?:_+|[.'’\-]){_LETTER}+)*(?:\+\+|[#])?)"
)
_PARTS = re.compile(r"[._\-]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_ACCENTS = re.compile("[\u0300-\u036f]")
_WIDE = str.maketrans({"+": "＋", "#": "＃"})
_HAN_ONLY = re.compile(rf"[{_HAN}]+$")
_ANY_HAN = re.compile(rf"[{_HAN}]")
_QUANTITY = re.compile(
    "(?!几何|几乎|幾何|幾乎)[几幾哪].?$|多[久长長大高远遠深重宽寬快](?:时间|時間)?$"
)
_MAX_TERM = 64  # longer "words" are base64, hashes and rulers of dashes


@dataclass(frozen=True, slots=True)
class TermStats:
    """How many chunks of the searched bases hold each term of a question.

    `frequencies` holds content words, their pairs and what full text looks up; no absent ones.
    Statistics of several bases add up.
    """

    n_chunks: int = 0
    frequencies: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "TermStats") -> "TermStats":
        merged = Counter(self.frequencies)
        merged.update(other.frequencies)
        return TermStats(self.n_chunks + other.n_chunks, dict(merged))

    def frequency(self, word: str) -> int:
        """Return how many chunks hold `word`, at most, where it is no term of its own."""
        if word not in self.frequencies and len(word) > 1 and not word.isascii():
            return min(self.frequencies.get(pair, 0) for pair in pairs(word))
        return self.frequencies.get(word, 0)

    def rarity(self, word: str) -> float:
        """Return how much `word` says, > 0: its inverse document frequency.

        Smoothed by `PRIOR_CHUNKS` chunks of general text, so that in a base of a few chunks an
        everyday word that happens to be absent does not pass for the subject.
        """
        frequency = self.frequency(word) + PRIOR_CHUNKS * common_share(word)
        return math.log(1 + (self.n_chunks + PRIOR_CHUNKS) / (frequency + 0.5))

    def known_share(self, words: Sequence[str]) -> float:
        """Return the share of `words`, each by its rarity, that some chunk holds; 1 for none."""
        total = sum(map(self.rarity, words))
        known = sum(self.rarity(word) for word in words if self.frequency(word))
        return known / total if total else 1.0


def index_terms(text: str) -> str:
    """Return the terms of `text`, joined by spaces, as FTS5 stores them."""
    return " ".join(_terms(text))


def query_terms(question: str) -> list[str]:
    """Return the distinct terms of `question` that are worth looking up, in order.

    Empty only if the question has no letter and no digit. Of a question of more than
    `MAX_QUESTION_CHARS` the beginning counts.
    """
    question = question[:MAX_QUESTION_CHARS]
    return _distinct(_content_terms(question)) or _distinct(_terms(question))


def content_words(question: str) -> list[str]:
    """Return the distinct words of `question` that say what it is about, in order.

    Unlike `query_terms`, Chinese gives words, not pairs: one entry for one idea, as
    `kb.refusal.support` counts them. Neighbouring characters that the dictionary knows no word for
    count as one word, mostly a name. Words that ask for a quantity (``几天``) are left out.
    """
    return list(_content_words(question))


def name_words(question: str) -> set[str]:
    """Return those content words that an answer cannot do without: names, codes, numbers.

    A number counts from two digits on; a Latin word in a Chinese question always, in another
    one where it is written with a capital that does not just begin a sentence.
    """
    return {word for word, is_name in _content_words(question).items() if is_name}


def common_share(word: str) -> float:
    """Return about which share of passages in general text hold the content word `word`.

    Tells an everyday word from a subject where a base of a few chunks cannot: in (0, 0.9].
    Chinese from the dictionary's counts, for passages of some 250 words.
    """
    if is_han(word):
        word = simplified(word)  # the dictionary's own form
        tokenizer = _segmenter()
        share = tokenizer.FREQ.get(word, 0) / tokenizer.total
        return min(0.9, 1 - math.exp(-250 * share)) or 2e-5
    if word.isalpha():
        return 0.06 if word in _common_stems() else 0.002
    return 0.005


def pairs(word: str) -> list[str]:
    """Return the pairs of neighbouring characters of `word`."""
    return [word[i : i + 2] for i in range(len(word) - 1)]


def is_han(word: str) -> bool:
    """Tell whether `word` is of Han characters, as all of a Chinese content word are."""
    return _HAN_ONLY.match(word) is not None


def has_han(text: str) -> bool:
    """Tell whether `text` holds any Han character: what decides between Chinese and English."""
    return _ANY_HAN.search(text) is not None


def normalise(text: str) -> str:
    """Return `text` in the form in which terms are compared: NFKC, case-folded, simplified."""
    return _fold(text).casefold()


def is_single(term: str) -> bool:
    """Tell whether `term` is one character of an unspaced script: common, and of vague meaning."""
    return len(term) == 1 and not term.isascii()


@functools.lru_cache(maxsize=1 << 17)
def stem(word: str) -> str:
    """Return the Snowball stem of an English word, any other term as it is.

    Slow, being plain Python, for a word not seen before.
    """
    return _stemmer()(word) if word.isascii() and word.isalpha() else word


def _fold(text: str) -> str:
    return simplified(unicodedata.normalize("NFKC", text))


def _runs(folded: str) -> Iterator[tuple[str, str]]:
    for match in _RUN.finditer(folded):
        yield match.lastgroup or "", match.group()


def _terms(text: str) -> Iterator[str]:
    folded = _fold(text)
    yield from quantities(folded)
    for kind, run in _runs(folded):
        if kind == "han":
            yield from run
            yield from pairs(run)
            yield from _long_words(run)
            yield from _values(run)
        elif kind == "unspaced":
            yield from pairs(run) if len(run) > 1 else run
        else:
            yield from _word_terms(run)


def _content_terms(text: str) -> Iterator[str]:
    folded = _fold(text)
    yield from quantities(folded)
    for kind, run in _runs(folded):
        if kind == "han":
            yield from _content_han(run)
        elif kind == "unspaced":
            yield from pairs(run) if len(run) > 1 else run
        elif _word(run) not in stopwords.ENGLISH:
            yield from _word_terms(run)


def _content_words(question: str) -> dict[str, bool]:
    """Return the content words in order, each with whether it is a name or number."""
    words: dict[str, bool] = {}
    is_first = True
    runs = list(_runs(_fold(question[:MAX_QUESTION_CHARS])))
    is_chinese = any(kind == "han" for kind, _ in runs)
    for kind, run in runs:
        if kind == "han":
            words.update(dict.fromkeys(_han_words(run), False))
        elif kind == "unspaced":
            words[run] = False
        elif (whole := _word(run)) and whole not in stopwords.ENGLISH:
            inner_capital = any(c.isupper() for c in run[1:])
            is_name = (
                is_chinese or inner_capital or (run[0].isupper() and not is_first)
                if run[0].isalpha() and not any(c.isdigit() for c in run)
                else sum(c.isdigit() for c in run) > 1 or not run.isdigit()
            )
            words[stem(whole)] = words.get(stem(whole), False) or is_name
        is_first = False
    return words


def _han_words(run: str) -> Iterator[str]:
    singles = ""
    for word in [*segment(run), "的"]:  # the stop word at the end flushes
        if len(word) == 1 and word not in stopwords.CHINESE:
            singles += word
            continue
        if singles:
            yield singles
            singles = ""
        if word not in stopwords.CHINESE and not _QUANTITY.match(word):
            yield word


def _content_han(run: str) -> Iterator[str]:
    """Yield what `_terms` yields for `run`, without what lies wholly inside stop words."""
    is_stop: list[bool] = []
    for word in segment(run):
        is_stop += [word in stopwords.CHINESE] * len(word)
    for i, pair in enumerate(pairs(run)):
        if not (is_stop[i] and is_stop[i + 1]):
            yield pair
    yield from (word for word in _long_words(run) if word not in stopwords.CHINESE)
    yield from _values(run)
    yield from (c for c, stop in zip(run, is_stop, strict=True) if not stop)


def _long_words(run: str) -> Iterator[str]:
    """Yield every dictionary word of three or more characters, overlapping ones too."""
    frequencies = _segmenter().FREQ  # holds every prefix of a word too, as 0
    for start in range(len(run) - 2):
        end = start + 3
        while end <= len(run) and (word := run[start:end]) in frequencies:
            if frequencies[word]:
                yield word
            end += 1


def _values(run: str) -> Iterator[str]:
    for match in CHINESE_NUMBER.finditer(run):
        value = chinese_to_int(match.group())
        if value is not None:
            yield str(value)


@functools.lru_cache(maxsize=1 << 16)
def _word_terms(run: str) -> tuple[str, ...]:
    """Return the terms of one alphabetic run; cached, since a text repeats its words."""
    return tuple(_make_word_terms(run))


def _make_word_terms(run: str) -> Iterator[str]:
    whole = _word(run)
    if not whole or len(whole) > _MAX_TERM:
        return
    yield stem(whole)
    parts = [_word(part) for piece in _PARTS.split(run) for part in _CAMEL.split(piece) if part]
    # "3.5" and "1.2.3" stay whole: their parts mean nothing.
    if len(parts) > 1 and not all(part.isdigit() for part in parts):
        for part in parts:
            if part and len(part) <= _MAX_TERM:
                yield stem(part)


def _word(run: str) -> str:
    """Fold one alphabetic run: case, accents, possessive, apostrophes, separators."""
    word = run.casefold()
    if word[0].isdigit():
        word = canonical(word) if "," in word else word
    if not word.isascii():
        word = _ACCENTS.sub("", unicodedata.normalize("NFKD", word)).replace("’", "'")
    word = word.removesuffix("'s").replace("'", "")
    return word.translate(_WIDE)


def segment(run: str, *, guess: bool = False) -> list[str]:
    """Cut a run of Han characters into words; `guess` joins what may be an unknown name."""
    return list(_segmenter().cut(run, HMM=guess))


@functools.cache
def _segmenter() -> Any:
    """Load jieba's dictionary, without its cache: that is a file of marshalled code in a folder
    that others can write to. Takes a moment once; jieba's own logger stays silent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # jieba 0.42 has invalid escapes and may use pkg_resources
        import jieba  # here: most commands never need it

    tokenizer = jieba.Tokenizer()
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return tokenizer


@functools.cache
def _common_stems() -> frozenset[str]:
    return frozenset(map(stem, stopwords.EVERYDAY_ENGLISH))


@functools.cache
def _stemmer() -> Callable[[str], str]:
    # The class itself, not snowballstemmer.stemmer(): that may be another version, in C.
    # Untyped, and loaded only when a first English word comes.
    from snowballstemmer.english_stemmer import EnglishStemmer  # type: ignore[import-untyped]

    stemmer = EnglishStemmer()
    lock = threading.Lock()  # a stemmer keeps the word it works on

    def stem_word(word: str) -> str:
        with lock:
            return str(stemmer.stemWord(word))

    return stem_word


def _distinct(terms: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(terms))
