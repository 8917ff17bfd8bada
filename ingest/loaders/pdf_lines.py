"""Lines of PDF pages back into paragraphs, by their text alone.

A page's text comes as the lines one sees. A line is joined to the next if it is about as wide
as those around it and its sentence goes on; what is not clear stays a line break.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ingest.loaders.whitespace import WIDE

_HYPHEN = "\ufffe"  # what pdfium writes for a hyphen at a line's end, the line break included
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u00ad\ufeff\ufffd\uffff]")
# Forms that exist for old encodings only; fonts map ordinary characters to them.
_COMPATIBILITY = re.compile("[\ufb00-\ufb06\u2e80-\u2fdf\uf900-\ufaff]")
_WIDE_END = re.compile(rf"[{WIDE}]$")
_WIDE_START = re.compile(rf"^[{WIDE}]")
_SENTENCE_END = re.compile(r"[。！？；：.!?;:…]['\"”’」』）)\]》]*$")
_ITEM = re.compile(  # bullets, "1.", "(2)", "第三条", "一、", "A."
    r"(?:[-–—•●○◆■□▪*·※]|[(（]?(?:\d{1,3}|[一二三四五六七八九十]{1,3}|[a-zA-Z])[.、)）．](?!\d)"
    r"|第[一二三四五六七八九十百千零\d]+[条章节編编篇]|注[：:]|[图表]\s*\d)"
)
_MIN_JOINED_WIDTH = 30  # shorter lines are cells, labels and titles
# How wide a line is that was broken for want of room, against the full lines near it.
_FULL = 0.85
_FULL_BEFORE_LOWER_CASE = 0.6  # the break itself is evidence then
_LEAST_FULL = 0.75  # of the widest lines of the page
_SURE = 1.0
_NEAR = 4  # lines on each side
_NUMBER = re.compile(r"[-+(]?[\d.,]*\d[%)]?")
_ADDRESS = re.compile(r"[@/_]")
_RUNNING_LINES = 2  # at each end of a page
_MAX_RUNNING_CHARS = 200
_PAGE_WORDS = re.compile(r"page|seite|第|页|頁|共|of|[^\w]|\d", re.IGNORECASE)
_MIN_HEADER_CHARS = 8
_MAX_PAGE_OFFSET = 2000  # printed page number against the page's index


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Joined lines; `line` is the index of the first."""

    line: int
    text: str


def clean(text: str) -> str:
    """Return a page's text without hyphenation, control characters and odd forms."""
    text = re.sub(rf"{_HYPHEN}(?=[^\W\d_])(?=.)", _dehyphenate, text) if _HYPHEN in text else text
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace(_HYPHEN, "-")
    text = _CONTROL.sub("", text)
    text = _COMPATIBILITY.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    return "\n".join(" ".join(line.split()) for line in text.split("\n"))


def _dehyphenate(match: re.Match[str]) -> str:
    following = match.string[match.end()]
    return "" if following.islower() else "-"


def drop_running_lines(pages: list[list[str]]) -> list[list[str]]:
    """Keep headers and footers that come on many pages on the first only, page numbers nowhere."""
    seen: Counter[tuple[str, int | None]] = Counter()
    for number, lines in enumerate(pages):
        for i in _edges(lines):
            seen.update(_running_keys(lines[i], number))
    needed = max(3, 0.3 * len(pages))
    running = {key for key, n in seen.items() if n >= needed}
    shown: set[tuple[str, int | None]] = set()
    kept = []
    for number, lines in enumerate(pages):
        dropped = set()
        for i in _edges(lines):
            keys = running & _running_keys(lines[i], number)
            if keys & shown or any(_is_bare_number(rest) for rest, _ in keys):
                dropped.add(i)
            shown |= keys
        kept.append([line for i, line in enumerate(lines) if i not in dropped])
    return kept


def _edges(lines: list[str]) -> list[int]:
    return sorted({*range(len(lines))[:_RUNNING_LINES], *range(len(lines))[-_RUNNING_LINES:]})


def _running_keys(line: str, page: int) -> set[tuple[str, int | None]]:
    """Return the line itself and, where a number in it may be the page's, the line without it."""
    keys: set[tuple[str, int | None]] = {(line, None)}
    if len(line) > _MAX_RUNNING_CHARS:
        return keys
    for match in re.finditer(r"\d{1,5}", line):
        rest = line[: match.start()] + "\0" + line[match.end() :]
        n_words = len(_PAGE_WORDS.sub("", rest))
        offset = int(match[0]) - page
        # "Record 2" on page 2 is content: other words must be many enough to be a header.
        if abs(offset) <= _MAX_PAGE_OFFSET and (n_words == 0 or n_words >= _MIN_HEADER_CHARS):
            keys.add((rest, offset))
    return keys


def _is_bare_number(rest: str) -> bool:
    return "\0" in rest and not _PAGE_WORDS.sub("", rest)


def join_lines(lines: list[str], alone: Collection[int]) -> Iterator[Paragraph]:
    """Yield paragraphs; the lines with the indexes `alone` are not joined to others."""
    widths = [_width(line) for line in lines]
    usual = sorted(widths)[len(widths) * 9 // 10] if widths else 0
    first, parts = 0, lines[:1]
    for i, line in enumerate(lines[1:], start=1):
        if not (i in alone or i - 1 in alone):
            near = sorted(widths[max(i - 1 - _NEAR, 0) : i + _NEAR])
            # Not the widest one: it may be a title across two columns.
            full_width = max(near[-3:][0], round(_LEAST_FULL * usual), _MIN_JOINED_WIDTH)
            if _goes_on(lines[i - 1], line, widths[i - 1] / full_width):
                parts += [_glue(lines[i - 1], line), line]
                continue
        yield Paragraph(first, "".join(parts))
        first, parts = i, [line]
    if lines:
        yield Paragraph(first, "".join(parts))


def goes_on_across_pages(last: str, first: str) -> bool:
    """Tell whether the last paragraph of a page goes on in the first line of the next."""
    return _width(last) >= _MIN_JOINED_WIDTH and _goes_on(last, first, 0.0, _SURE)


def _goes_on(line: str, following: str, fullness: float, certainty: float = 0.0) -> bool:
    """Tell whether the sentence of `line` goes on in `following`.

    `fullness` is the line's width over that of a full one; `certainty` replaces it where widths
    say nothing.
    """
    if not line or _SENTENCE_END.search(line) or _ITEM.match(following):
        return False
    if _is_row(line) or _is_row(following):
        return False
    if following[0].islower():
        return max(fullness, certainty) >= _FULL_BEFORE_LOWER_CASE
    n_wide = bool(_WIDE_END.search(line)) + bool(_WIDE_START.match(following))
    if n_wide == 2:
        return max(fullness, certainty) >= _FULL
    return fullness >= _FULL and (n_wide == 1 or (_is_prose(line) and _is_prose(following)))


def _glue(line: str, following: str) -> str:
    if _WIDE_END.search(line) or _WIDE_START.match(following) or line.endswith(("-", "–", "/")):
        return ""
    # An address or path that is broken by the page's width, but not two of them.
    is_address = _ADDRESS.search(line.rsplit(None, 1)[-1]) is not None
    return "" if is_address and not _ADDRESS.search(following.split(None, 1)[0]) else " "


def _is_row(line: str) -> bool:
    """Tell whether a line is a table's: at least two of its words are numbers."""
    return sum(bool(_NUMBER.fullmatch(word)) for word in line.split()) >= 2


def _is_prose(line: str) -> bool:
    words = line.split()
    n_numeric = sum(any(map(str.isdigit, word)) for word in words)
    return len(words) >= 4 and n_numeric <= len(words) / 4


def _width(line: str) -> int:
    return sum(2 if character >= "\u2e80" else 1 for character in line)
