"""Split text into sentences, for both languages. Offsets only; nothing is changed."""

import re

_CLOSING = "”’」』）)》】\"'"
# A full stop ends an English sentence only before white space and not after an initial, a list
# number or a common abbreviation; Chinese marks always do, but for 《谁？》， where more follows.
_END = re.compile(
    rf"(?>[。！？!?；…]+[{_CLOSING}]*)(?![，、：])"
    rf"|(?<![\s.(][A-Z])(?<!^[A-Z])(?<!Mr)(?<!Mrs)(?<!Ms)(?<!Dr)(?<!St)(?<!No)(?<!vs)(?<!Inc)"
    rf"(?<!Ltd)(?<!e\.g)(?<!i\.e)(?<!etc)(?<![\n ]\d)(?<![\n ]\d\d)(?<!^\d)\."
    rf"[{_CLOSING}]*(?=\s|$|[A-Z][a-z]+ )"
    r"|\n+"
)
# A line break inside a paragraph of wrapped text goes on in the middle of a sentence: the line
# before is long, and the next one begins neither a list item nor a row nor a field.
_WRAPPED_WIDTH = 50
_CONTINUES = re.compile(r"[ \t]*(?:[a-z(]|[\u3400-\u9fff](?![^\n]{0,20}[:：]))[^|\n]*(?:\n|$)")


_PART = re.compile(r"[？?；;\n]+|(?:^|(?<=[：:，,。 ？?；;]))(?:[一二三四五]、|\d[.)、]\s)")


def split_questions(text: str) -> list[str]:
    """Return the questions that `text` asks, one if it does not plainly ask several.

    Cut at question marks, semicolons and numbers of a list; words that announce a list (they
    end with a colon) are left out.
    """
    parts = [part.strip(" ，,。") for part in _PART.split(text)]
    parts = [part for part in parts if part and not part.endswith(("：", ":"))]
    return parts if len(parts) > 1 else [text]


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Return the ``(start, end)`` of the sentences of `text`, in order, without outer space.

    Rows of a table, list items and headings are sentences of their own; lines of a wrapped
    paragraph are not. Everything but white space belongs to exactly one sentence.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _END.finditer(text):
        if match.group() == "\n" and _is_wrap(text, match.end()):
            continue
        _add(spans, text, start, match.end())
        start = match.end()
    _add(spans, text, start, len(text))
    return spans


def _is_wrap(text: str, line_start: int) -> bool:
    """Tell whether the line break before `line_start` only wraps a line."""
    line = text[text.rfind("\n", 0, line_start - 1) + 1 : line_start - 1]
    if "|" in line or line.lstrip().startswith("#"):
        return False
    width = sum(2 if ord(character) > 0x2E7F else 1 for character in line)
    return width >= _WRAPPED_WIDTH and _CONTINUES.match(text, line_start) is not None


def _add(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    left = start + len(piece) - len(piece.lstrip())
    right = left + len(piece.strip())
    if left < right:
        spans.append((left, right))
