"""Bytes to text, without ever guessing in silence.

In this order: a byte order mark; strict UTF-8; what the file itself declares (HTML, XML); then
GB 18030, Big5, UTF-16 without a mark and Western single bytes, scored by how common their
characters are. A scored result is reported as guessed, and a text that no candidate explains
clearly better than the others is refused: a failed file can be converted, mojibake is found by
nobody.

Line ends become "\\n", U+FEFF is removed and very long white space shortened; everything else is
kept. NUL has no place in text and breaks tools that end strings there: a few of them in UTF-8
(a log after a power cut) are replaced by one line end per run, many are refused.

Not done: Japanese, Korean and Cyrillic encodings other than Unicode are refused unless declared.
"""

import codecs
import re
from collections import Counter

from ingest.common_characters import weight
from kb.errors import UndecodableTextError

# Longer runs of white space are cut to this many characters: no text means anything by them,
# and a chunk, which never ends inside white space, must not grow without bound.
MAX_WHITE_SPACE = 400
_LONG_SPACE = re.compile(rf"\s{{{MAX_WHITE_SPACE + 1},}}")

# UTF-32 first: its little-endian mark begins with the one of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What labels mean in practice, as browsers read them: https://encoding.spec.whatwg.org
_ALIASES = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "cp936": "gb18030",
    "iso8859-1": "cp1252",
    "ascii": "cp1252",
    "iso8859-9": "cp1254",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "cp950": "big5hkscs",
}
_SHOWN_AS = {"big5hkscs": "big5"}  # Big5 with what Hong Kong adds
_CHINESE = ("gb18030", "big5hkscs")
# Mean weight of the characters: right decodings of real text have about 2 to 3, wrong ones at
# most about 1. The margin is to the next best candidate.
_MIN_SCORE = 1.5
_MIN_MARGIN = 0.5
_SHORT_BYTES = 64
_SHORT_SCORE = 2.5
_MAX_NUL_SHARE = 0.1
_MAX_CONTROL_SHARE = 0.02
_WESTERN_SCORE = 3.0  # passing the pattern is as good as being Chinese

_NULS = re.compile("\0+")
_CONTROL = re.compile("[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f]")  # not \a \b \t \n \v \f \r ESC
_INSIDE_LATIN_WORD = re.compile(r"(?<=[A-Za-z])[^\x00-\x7f](?=[A-Za-z])")

# The letters beyond ASCII of one language each: German, French, Spanish, Portuguese, Italian,
# the Nordic ones, Dutch. A line whose letters fit none of them is in some other encoding.
_WESTERN_ALPHABETS = (
    "äöüßéèà",
    "àâçéèêëîïôùûüœ",
    "áéíóúñü",
    "áâãàçéêíóôõúü",
    "àèéìíòóù",
    "åäöøæéüáíóúýþð",
    "ëïéèöüó",
)
_WESTERN_RUN = re.compile(r"[^\x00-\x7f]+")
_MAX_WESTERN_RUN = 4  # "äöüß" in a list of letters; in words two at most
_WESTERN_SIGNS = frozenset("’‘“”„–—…•€§°«»®©²³\xa0")


def decode(data: bytes, *, declared: str | None = None) -> tuple[str, str, bool]:
    """Decode the bytes of a text file.

    Args:
        data: the whole file.
        declared: the encoding that the file itself names, if it does; a label that is unknown
            or does not fit the bytes is ignored.

    Returns:
        The text, the name of its encoding, and whether that was guessed.

    Raises:
        UndecodableTextError: the bytes are no text, or fit no encoding clearly.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _clean(_decode_marked(data[len(mark) :], encoding)), encoding, False
    text = _try(data, "utf-8")
    declared_text, encoding = _try_declared(data, declared)
    if text is not None and not _holds_controls(text):
        # "UTF-8" by chance: a few GBK characters can be valid UTF-8, never the other way round.
        if declared_text is not None and _score(declared_text) > max(_score(text), _MIN_SCORE):
            return _clean(declared_text), _SHOWN_AS.get(encoding, encoding), False
        if len(data) <= _SHORT_BYTES and (chinese := _as_short_chinese(data, text)):
            return _clean(chinese), "gb18030", True
        return _clean(text), "utf-8", False
    if declared_text is not None and _holds_controls(declared_text):
        declared_text = None
    # A wrong declaration shows in Chinese: nearly all bytes are some character of GB 18030.
    if declared_text is None or (encoding in _CHINESE and _score(declared_text) < _MIN_SCORE):
        found = _guess(data, is_utf8=text is not None)
        if found is not None:
            return _clean(found[0]), _SHOWN_AS.get(found[1], found[1]), True
    if declared_text is not None:
        return _clean(declared_text), _SHOWN_AS.get(encoding, encoding), False
    if text is not None and text.count("\0") <= _MAX_NUL_SHARE * len(data):
        without_nuls = _NULS.sub("\n", text)
        if not _holds_controls(without_nuls):
            return _clean(without_nuls), "utf-8", False
    raise _undecodable(data)


def _clean(text: str) -> str:
    text = text.replace("\ufeff", "").replace("\r\n", "\n").replace("\r", "\n")
    return _LONG_SPACE.sub(lambda match: match.group()[:MAX_WHITE_SPACE], text)


def _decode_marked(data: bytes, encoding: str) -> str:
    text = _try(data, encoding)
    if text is None or _holds_controls(text):
        raise UndecodableTextError(
            f"the file begins as {encoding.upper()} but does not go on so; save it as UTF-8"
        )
    return text


def _try(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return None


def _try_declared(data: bytes, declared: str | None) -> tuple[str | None, str]:
    if not declared or data.isascii():
        return None, ""
    try:
        encoding = codecs.lookup(declared.strip()).name
    except (LookupError, ValueError):
        return None, ""
    encoding = _ALIASES.get(encoding, encoding)
    if encoding.startswith("utf"):  # without a mark: decided by the bytes
        return None, ""
    return _try(data, encoding), encoding


def _as_short_chinese(data: bytes, text: str) -> str | None:
    """Return what a few characters are in GB 18030 if UTF-8 makes them letters of far alphabets.

    One pair of Chinese characters in ten is valid UTF-8: "一些" would be Cyrillic.
    """
    if data.isascii() or max(text) >= "\u0800":
        return None
    chinese = _try(data, "gb18030")
    return chinese if chinese is not None and _score(chinese) >= _SHORT_SCORE else None


def _holds_controls(text: str) -> bool:
    """Tell whether there is a NUL or so many control characters that this is no text."""
    return "\0" in text or len(_CONTROL.findall(text)) > _MAX_CONTROL_SHARE * len(text)


def _guess(data: bytes, *, is_utf8: bool) -> tuple[str, str] | None:
    """Return the text and encoding of the best candidate; None if none is good or stands out."""
    encodings = ["utf-16-le", "utf-16-be"]
    if not is_utf8:
        encodings += ["gb18030", "big5hkscs", "cp1252"]
    candidates: list[tuple[float, str, str]] = []
    for encoding in encodings:
        if (text := _try(data, encoding)) is not None and not _holds_controls(text):
            candidates.append((_score_as(encoding, text), encoding, text))
    candidates.sort(reverse=True)
    best, second = ([score for score, _, _ in candidates] + [-5.0, -5.0])[:2]
    if best >= _MIN_SCORE:
        _, encoding, text = candidates[0]
        return (text, encoding) if best - second >= _MIN_MARGIN else None
    return None if is_utf8 else _mixed_lines(data)


def _score_as(encoding: str, text: str) -> float:
    if encoding == "cp1252":
        return _WESTERN_SCORE if _looks_western(text) else -5.0
    return _score_utf16(text) if encoding.startswith("utf-16") else _score(text)


def _score(text: str) -> float:
    """Return the mean weight of the characters beyond ASCII; 0 where there are none.

    A Chinese character inside a Latin word is an accented letter decoded wrongly.
    """
    counts = Counter(text)
    inside = Counter(_INSIDE_LATIN_WORD.findall(text))
    total, n_chars = 0.0, 0
    for character, n in counts.items():
        if character > "\x7f":
            n_inside = inside[character]
            total += weight(character) * (n - n_inside) - 2.0 * n_inside
            n_chars += n
    return total / n_chars if n_chars else 0.0


def _score_utf16(text: str) -> float:
    """Return the mean weight of all characters; other alphabets and kana count as common."""
    total = 0.0
    for character, n in Counter(text).items():
        if character.isascii():
            total += n * (2.0 if character.isprintable() or character in "\t\n\r" else -5.0)
        elif "\xc0" <= character <= "\u052f" or "\u3041" <= character <= "\u30ff":
            total += n * 2.0
        else:
            total += n * weight(character)
    return total / max(len(text), 1)


def _looks_western(text: str) -> bool:
    """Tell whether all that is not ASCII are signs and letters, mostly in words.

    The letters of each line must belong to one language.
    """
    n_runs = n_in_words = n_high = 0
    for line in text.splitlines():
        letters: set[str] = set()
        for match in _WESTERN_RUN.finditer(line):
            run = match[0]
            before, after = line[: match.start()][-1:], line[match.end() :][:1]
            if len(run) > _MAX_WESTERN_RUN or not _are_western_signs(run, after):
                return False
            if run[-1].isupper() and before.islower() and after.islower():
                return False  # "pÖt"
            found = {character.lower() for character in run if character.isalpha()}
            letters |= found
            n_high += len(run)
            n_runs += bool(found)
            n_in_words += bool(found) and (before.isalpha() or after.isalpha())
        if not any(letters <= set(alphabet) for alphabet in _WESTERN_ALPHABETS):
            return False
    return 2 * n_in_words >= n_runs and n_high <= len(text) / 5 + 2


def _are_western_signs(run: str, after: str) -> bool:
    signs = {character for character in run if not character.isalpha()} - _WESTERN_SIGNS
    return not signs or (signs <= set("¡¿£") and after.isalnum())


def _mixed_lines(data: bytes) -> tuple[str, str] | None:
    """Read a file that programs of both kinds appended to, line by line."""
    lines, foreign = [], []
    for line in data.split(b"\n"):
        text = _try(line, "utf-8")
        if text is None:
            if (text := _try(line, "gb18030")) is None:
                return None
            foreign.append(text)
        lines.append(text)
    text = "\n".join(lines)
    if _score("".join(foreign)) < _MIN_SCORE or _score(text) < _MIN_SCORE or _holds_controls(text):
        return None
    return text, "utf-8+gb18030"


def _undecodable(data: bytes) -> UndecodableTextError:
    n_controls = len(re.findall(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f]", data[:65536]))
    if n_controls > _MAX_CONTROL_SHARE * min(len(data), 65536):
        return UndecodableTextError(
            "the file holds binary data, not text; give it the extension of its real format"
        )
    return UndecodableTextError(
        "the text encoding cannot be told: it is not UTF-8, and none of GB18030, Big5, UTF-16 "
        "and Windows-1252 fits clearly; save the file as UTF-8"
    )
