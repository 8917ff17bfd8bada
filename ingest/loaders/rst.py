"""reStructuredText: kept as it is, but for the lines that only adorn section titles.

Levels follow the order in which kinds of adornment appear, as the format says. Nothing is
rendered and no directive is obeyed: an ``include`` stays a line of text.
"""

import re

from ingest.decode import decode
from ingest.loaders.base import MAX_TITLE_CHARS, LoadedText, ParseLimits, check_text_chars
from kb.records import Heading

_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1{2,}\s*$")


def load(data: bytes, limits: ParseLimits) -> LoadedText:
    text, encoding, is_guessed = decode(data)
    check_text_chars(len(text), limits.max_text_chars)
    text, headings = _read_sections(text)
    return LoadedText(text, headings, (), encoding, is_guessed)


def _read_sections(text: str) -> tuple[str, tuple[Heading, ...]]:
    lines = text.split("\n")
    dropped: set[int] = set()
    titles: dict[int, tuple[str, bool]] = {}  # line -> its adornment
    for i in range(1, len(lines)):
        under = _ADORNMENT.match(lines[i])
        title = lines[i - 1]
        if not under or not title.strip() or _ADORNMENT.match(title) or i - 1 in dropped:
            continue
        over = _ADORNMENT.match(lines[i - 2]) if i >= 2 and i - 2 not in dropped else None
        has_overline = over is not None and over[1] == under[1]
        starts_block = i == 1 or not lines[i - 2].strip() or i - 2 in dropped
        is_long_enough = len(lines[i].rstrip()) >= min(len(title.strip()), 4)
        if has_overline or (starts_block and title[0] > " " and is_long_enough):
            titles[i - 1] = (under[1], has_overline)
            dropped |= {i, i - 2} if has_overline else {i}
    kinds: list[tuple[str, bool]] = []
    headings: list[Heading] = []
    kept: list[str] = []
    offset = 0
    for i, line in enumerate(lines):
        if i in dropped:
            continue
        if i in titles:
            if titles[i] not in kinds:
                kinds.append(titles[i])
            title = " ".join(line.split())[:MAX_TITLE_CHARS]
            headings.append(Heading(offset, kinds.index(titles[i]) + 1, title))
        kept.append(line)
        offset += len(line) + 1
    return "\n".join(kept), tuple(headings)
