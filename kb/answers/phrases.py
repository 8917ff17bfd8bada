"""Cut a sentence into words of a few classes, and propose the phrases that could be an answer.

Chinese is cut by jieba, whose dictionary also tells names, places, times and verbs; English by
white space, with short lists of function words and what capitals and endings tell. The classes
are coarse: they serve `kb.answers.spans`, which weighs what stands before, in and behind a phrase.

Not done: parsing. A phrase is a run of words within a clause, or a whole clause or two.
"""

import functools
import importlib.resources
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kb.text.terms import normalise, segment

# Longest phrase within a clause, in words, and longest stretch of clauses, in characters.
MAX_WORDS = 12
MAX_CLAUSE_CHARS = 90
# Words of a sentence that are looked at: bounds the time for a table flattened to one line.
MAX_SENTENCE_WORDS = 160

_TOKEN = re.compile(
    r"(?P<han>[\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+)"
    r"|(?P<number>[$€£¥]?\d+(?:[.,:]\d+)*(?:%|％|(?:st|nd|rd|th|s)\b)?)"
    r"|(?P<word>[^\W\d_](?:\w|(?<=\w)[.'’\-&/](?=\w))*\.?)"
    r"|(?P<open>[《“「『〈（(\[【\"«‘])|(?P<close>[》”」』〉）)\]】»’])"
    r"|(?P<hard>[，。；：！？,;:!?…\n|]|\.(?=\s|$)|[-–—]{2,}|[–—])|(?P<soft>[、·•・/\-~～])"
    r"|(?P<other>\S)"
)

_ZH_CLASSES = {
    "be": "是 为 為 即 乃 系 係 指 亦为",
    "in": "在 于 於 至 到 从 從 自 往 向 位于 位於 起 距 离",
    "by": "由 被 受 让 讓 给 給 将 將 把 以 用 与 與 跟 同 对 對 据 依",
    "name": "叫 称 稱 名为 名為 称为 稱為 叫做 命名 命名为 取名 名叫 又名 俗称 俗稱 简称 簡稱 "
    "别名 別名 "
    "原名 全名 称作 稱作 名 作 做 成为 成為 任 担任 擔任",
    "de": "的 之 地 得",
    "and": "和 及 或 以及 并 並 暨 而 且",
    "le": "了 过 過 着 著",
    "why": "因为 因為 由于 由於 为了 為了 因 因此 所以 以便 导致 導致 使得 使",
    "f": "也 都 还 還 就 才 再 又 则 則 而且 但 但是 其 该 該 此 这 這 那 他 她 它 他们 他們 "
    "她们 它们 "
    "所 等 等等 并且 不 没有 沒有 没 未 已 曾 均 亦 仍 只 最 很 更 有 可 可以 能 会 會 要 被 中 上 "
    "下 内 內 里 裡 后 後 前 时 時 间 間 期间 期間",
}
_EN_CLASSES = {
    "the": "a an the",
    "of": "of",
    "in": "in at on from to into near within during between since until after before through "
    "over under across around above below toward towards onto upon",
    "by": "by",
    "with": "with as for about against without than like such including",
    "and": "and or but nor",
    "be": "is was are were be been being became become becomes 's",
    "name": "named called known titled dubbed termed nicknamed renamed",
    "why": "because due so therefore thus",
    "that": "that which who whom whose where when while if though although whether",
    "pron": "he she it they we you i him her them his its their our my your this these those "
    "there one some any all each both many most more other another nobody "
    "someone everybody anyone nothing something",
    "aux": "have has had having will would do does did can could may might must should shall "
    "not also only then very just even still often",
}
_CLASS_OF = {
    word: name
    for classes in (_ZH_CLASSES, _EN_CLASSES)
    for name, words in classes.items()
    for word in words.split()
}
# jieba's tags by their beginnings, longest first.
_TAGS = (
    ("nr", "nr"),
    ("ns", "ns"),
    ("nt", "nt"),
    ("nz", "nz"),
    ("v", "v"),
    ("t", "t"),
    ("m", "m"),
    ("q", "q"),
    ("a", "a"),
    ("d", "d"),
    ("p", "by"),
    ("c", "and"),
    ("u", "f"),
    ("r", "f"),
    ("y", "f"),
    ("f", "f"),
)
_SURNAMES = frozenset(
    "王李张張刘劉陈陳杨楊黄黃赵趙吴吳周徐孙孫马馬朱胡郭何林罗羅高郑鄭梁谢謝宋唐许許韩韓冯馮邓鄧曹彭"
    "曾肖萧蕭田董袁潘蒋蔣蔡余杜叶葉程苏蘇魏吕呂丁任沈姚卢盧姜崔钟鐘谭譚陆陸汪范石廖贾賈夏韦韋付方"
    "白邹鄒孟熊秦邱江尹薛闫段雷侯龙龍史陶黎贺賀顾顧毛郝龚龔邵万萬钱錢严嚴戴莫孔向汤湯"
)
# A phrase does not begin or end with these.
_NO_START = frozenset(["de", "le", "and", "of", "stop", "close", "soft", "other", "hard", "q"])
_NO_END = frozenset(
    [
        "and",
        "by",
        "in",
        "be",
        "the",
        "of",
        "with",
        "open",
        "soft",
        "other",
        "hard",
        "that",
        "aux",
        "name",
    ]
)
_CLAUSE_STARTS = frozenset(
    ["start", "stop", "be", "in", "by", "why", "name", "v", "with", "that", "and", "ed", "le"]
)


@dataclass(frozen=True, slots=True)
class Word:
    """A word or mark of a sentence, ``sentence[start:end]``, and its class."""

    start: int
    end: int
    text: str
    kind: str


def words_of(sentence: str, stated: Sequence[tuple[int, int, str]] = ()) -> list[Word]:
    """Return the words and marks of `sentence` in order; `Word.text` is normalised.

    `stated` are spans that are one word each, with their class (dates, quantities), in order and
    apart from one another.
    """
    found: list[Word] = []
    position = 0
    for start, end, kind in (*stated, (len(sentence), len(sentence), "")):
        found += _cut(sentence, position, start)
        if start < end:
            found.append(Word(start, end, normalise(sentence[start:end]), kind))
        position = end
        if len(found) >= MAX_SENTENCE_WORDS:
            break
    return found[:MAX_SENTENCE_WORDS]


def _cut(sentence: str, position: int, limit: int) -> list[Word]:
    found: list[Word] = []
    for match in _TOKEN.finditer(sentence, position, limit):
        group, text, start = match.lastgroup or "other", match.group(), match.start()
        if group == "han":
            for piece in _joined(segment(text, guess=True)):
                found.append(Word(start, start + len(piece), piece, _han_class(piece)))
                start += len(piece)
        elif group == "word" and text.endswith(".") and not _is_abbreviation(text):
            found.append(Word(start, match.end() - 1, normalise(text[:-1]), _word_class(text[:-1])))
            found.append(Word(match.end() - 1, match.end(), ".", "stop"))
        else:
            kind = {"number": "num", "hard": "stop"}.get(group, group)
            if kind == "word":
                kind = _word_class(text)
            found.append(Word(start, match.end(), normalise(text), kind))
    return found


def phrases_of(
    words: Sequence[Word], typed: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Yield candidates as ``(first, last)`` indexes of words, each once.

    `typed` are spans of characters (dates, numbers) that are candidates whatever words they cut.
    """
    seen: set[tuple[int, int]] = set()
    ends = {word.end: i for i, word in enumerate(words)}
    starts = {word.start: i for i, word in enumerate(words)}
    for start, end in typed:
        if start in starts and end in ends and starts[start] <= ends[end]:
            seen.add((starts[start], ends[end]))
    for first, word in enumerate(words):
        if word.kind in _NO_START:
            continue
        depth = 0
        before = words[first - 1].kind if first else "start"
        for last in range(first, min(len(words), first + 60)):
            kind = words[last].kind
            depth += (kind == "open") - (kind == "close")
            is_long = last - first >= MAX_WORDS
            if depth < 0:
                break
            if kind == "stop":
                # On into the next clause only for stretches of whole clauses.
                if before not in _CLAUSE_STARTS or words[last].end - word.start > MAX_CLAUSE_CHARS:
                    break
                if last > first and not depth:
                    seen.add((first, last - 1))
                continue
            crossed = any(w.kind == "stop" for w in words[first:last])
            if depth or kind in _NO_END or is_long or crossed:
                if is_long and before not in _CLAUSE_STARTS:
                    break
                continue
            seen.add((first, last))
        else:
            end = len(words) - 1
            if words[end].kind == "stop":
                end -= 1
            is_short = words[end].end - word.start <= MAX_CLAUSE_CHARS
            if before in _CLAUSE_STARTS and not depth and is_short and end >= first:
                seen.add((first, end))
    yield from sorted(seen)


def _joined(pieces: Sequence[str]) -> Iterator[str]:
    """Join single characters that no class knows: mostly an unknown name, of up to 4."""
    run = ""
    for piece in pieces:
        if len(piece) == 1 and _han_class(piece) in {"n", "nr"} and len(run) < 4:
            run += piece
            continue
        if run:
            yield run
            run = ""
        if len(piece) == 1 and _han_class(piece) in {"n", "nr"}:
            run = piece
        else:
            yield piece
    if run:
        yield run


def _han_class(word: str) -> str:
    known = _CLASS_OF.get(word)
    if known:
        return known
    tag = _tags().get(word)
    if tag is None:
        if word[0] in _SURNAMES and 2 <= len(word) <= 3:
            return "nr"
        return "x" if len(word) > 1 else "n"
    return tag


def _word_class(text: str) -> str:
    word = normalise(text)
    known = _CLASS_OF.get(word)
    if known and not (text[0].isupper() and text.isupper() and len(text) > 2):
        return known
    if text[0].isupper() or any(c.isupper() for c in text[1:]):
        return "cap"
    if any(c.isdigit() for c in text):
        return "num"
    for ending in ("ed", "ing", "ly"):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            return ending
    return "w"


def _is_abbreviation(text: str) -> bool:
    return (len(text) <= 3 and text[0].isupper()) or text.count(".") > 1


@functools.cache
def _tags() -> dict[str, str]:
    """Return the classes of jieba's dictionary; nouns are not listed but as "n"."""
    found: dict[str, str] = {}
    path = importlib.resources.files("jieba").joinpath("dict.txt")
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            word, _, tag = line.rstrip("\n").split(" ")
            found[word] = next((kind for start, kind in _TAGS if tag.startswith(start)), "n")
    return found
