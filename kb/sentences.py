"""Split text into sentences, for both languages. Offsets only; nothing is changed."""

import re

_CLOSING = "”’」』）)》】\"'"
# A full stop ends an English sentence only before white space and not after an initial, a list
# number or a common abbreviation; Chinese marks always do. A line break does too: rows of a
# table, list items and headings are sentences of their own.
_END = re.compile(
    rf"[。！？!?；…]+[{_CLOSING}]*"
    rf"|(?<![\s.(][A-Z])(?<!^[A-Z])(?<!Mr)(?<!Mrs)(?<!Ms)(?<!Dr)(?<!St)(?<!No)(?<!vs)(?<!Inc)"
    rf"(?<!Ltd)(?<!e\.g)(?<!i\.e)(?<!etc)(?<![\n ]\d)(?<![\n ]\d\d)(?<!^\d)\."
    rf"[{_CLOSING}]*(?=\s|$|[A-Z][a-z]+ )"
    r"|\n+"
)


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Return the ``(start, end)`` of the sentences of `text`, in order, without outer space.

    Everything but white space belongs to exactly one sentence.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _END.finditer(text):
        _add(spans, text, start, match.end())
        start = match.end()
    _add(spans, text, start, len(text))
    return spans


def _add(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    left = start + len(piece) - len(piece.lstrip())
    right = left + len(piece.strip())
    if left < right:
        spans.append((left, right))
