"""Turn text into the terms that full text stores and looks up.

One tokenisation serves documents and questions. Text is NFKC-normalised and case-folded, then cut
by script:

- Latin and other alphabetic scripts: words, without accents. Numbers lose their thousands
  separators. Identifiers (``max_new_tokens``, ``getUserName``, ``LX-PO-2023``) give the whole
  and its parts. English words are stemmed.
- Han, kana, Hangul and the Southeast Asian scripts that write no spaces: character bigrams, and
  for Han also the dictionary words of three or more characters that jieba finds (a two-character
  word is a bigram already). The last character of a run stands alone as well, so that a prefix
  query for one character finds it anywhere.

Questions drop stop words (`kb.stopwords`) unless nothing else remains; the words around a dropped
Chinese word form no bigram across it. Very common terms are dropped later, by the full text,
which knows the frequencies (`kb.storage.fulltext`).

Terms hold no white space and no ASCII other than letters, digits and ``_ . -``: that is what the
FTS5 table takes as part of a word. Other ASCII is written full-width (``c＋＋``).
"""

import functools
import re
import unicodedata
import warnings
from collections.abc import Iterator
from typing import Any

from kb import stopwords

# Pinned in a knowledge base's row; change it whenever `index_terms` gives other terms.
FULLTEXT = "terms/1+jieba-0.42"

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
_MAX_TERM = 64  # longer "words" are base64, hashes and rulers of dashes


def index_terms(text: str) -> str:
    """Return the terms of `text` in order, joined by spaces, as FTS5 stores them."""
    return " ".join(_terms(text))


def query_terms(question: str) -> list[str]:
    """Return the distinct terms of `question` that are worth looking up, in order.

    A single Han character that stands alone is returned as it is; full text looks it up as a
    prefix. Empty only if the question has no letter and no digit.
    """
    kept = _distinct(_content_terms(question))
    return kept or _distinct(_terms(question))


def content_words(question: str) -> list[str]:
    """Return the distinct words of `question` that are not stop words, in order.

    Unlike `query_terms`, Chinese gives segmented words and no bigrams: one entry for one idea,
    as `kb.support` counts them.
    """
    words: list[str] = []
    for kind, run in _runs(question):
        if kind == "han":
            words.extend(word for word in _segment(run) if word not in stopwords.CHINESE)
        elif kind == "unspaced":
            words.append(run)
        else:
            whole = _word(run)
            if whole and whole not in stopwords.ENGLISH:
                words.append(_stem(whole))
    return _distinct(words)


def normalise(text: str) -> str:
    """Return `text` in the form in which terms are compared: NFKC, case-folded."""
    return unicodedata.normalize("NFKC", text).casefold()


def _runs(text: str) -> Iterator[tuple[str, str]]:
    for match in _RUN.finditer(unicodedata.normalize("NFKC", text)):
        yield match.lastgroup or "", match.group()


def _terms(text: str) -> Iterator[str]:
    for kind, run in _runs(text):
        if kind == "han":
            yield from _han_terms(run)
            yield run[-1]
        elif kind == "unspaced":
            yield from _bigrams(run)
            yield run[-1]
        else:
            yield from _word_terms(run)


def _content_terms(text: str) -> Iterator[str]:
    for kind, run in _runs(text):
        if kind == "han":
            for part in _content_runs(run):
                yield from (_han_terms(part) if len(part) > 1 else (part,))
        elif kind == "unspaced":
            yield from (_bigrams(run) if len(run) > 1 else (run,))
        elif _word(run) not in stopwords.ENGLISH:
            yield from _word_terms(run)


def _content_runs(run: str) -> Iterator[str]:
    """Cut a Han run at its stop words."""
    part = ""
    for word in _segment(run):
        if word not in stopwords.CHINESE:
            part += word
        elif part:
            yield part
            part = ""
    if part:
        yield part


def _han_terms(run: str) -> Iterator[str]:
    yield from _bigrams(run)
    if len(run) > 2:
        for word in _segmenter().cut_for_search(run, HMM=False):
            if len(word) > 2:
                yield word


def _bigrams(run: str) -> Iterator[str]:
    for i in range(len(run) - 1):
        yield run[i : i + 2]


def _word_terms(run: str) -> Iterator[str]:
    whole = _word(run)
    if not whole or len(whole) > _MAX_TERM:
        return
    yield _stem(whole)
    parts = [_word(part) for piece in _PARTS.split(run) for part in _CAMEL.split(piece)]
    # "3.5" and "1.2.3" stay whole: their parts mean nothing.
    if len(parts) > 1 and not all(part.isdigit() for part in parts):
        for part in parts:
            if part and len(part) <= _MAX_TERM:
                yield _stem(part)


def _word(run: str) -> str:
    """Fold one alphabetic run: case, accents, possessive, apostrophes, separators."""
    word = run.casefold()
    if word[0].isdigit():
        word = word.replace(",", "")
    if not word.isascii():
        word = _ACCENTS.sub("", unicodedata.normalize("NFKD", word)).replace("’", "'")
    word = word.removesuffix("'s").replace("'", "")
    return word.translate(_WIDE)


def _stem(word: str) -> str:
    return word


def _segment(run: str) -> list[str]:
    return list(_segmenter().cut(run, HMM=False))


@functools.cache
def _segmenter() -> Any:
    """Load jieba's dictionary, without its cache: that is a file of marshalled code in a folder
    that others can write to. Takes about 0.8 s once; jieba's own logger stays silent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # jieba 0.42 has invalid escapes and may use pkg_resources
        import jieba  # here: most commands never need it

    tokenizer = jieba.Tokenizer()
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return tokenizer


def _distinct(terms: Iterator[str] | list[str]) -> list[str]:
    return list(dict.fromkeys(terms))
