"""Markdown: the text is kept as it is; headings are found outside code fences.

Nothing is rendered: a citation quotes what stands in the file.
"""

import re

from ingest.decode import decode
from ingest.loaders.base import MAX_TITLE_CHARS, LoadedText, ParseLimits, check_text_chars
from kb.records import Heading

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_ATX = re.compile(r" {0,3}(#{1,6})(?=[ \t]|$)")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
# A line that cannot be the text of a setext heading: list, quote, table, rule, indented code.
_NOT_SETEXT_TEXT = re.compile(r"\s*$| {4,}|\t| {0,3}(?:[-*+>|#]|\d+[.)]\s|`{3}|~{3}|<)")
_TITLE = re.compile(r"title:[ \t]*(.+)", re.IGNORECASE)


def load(data: bytes, limits: ParseLimits) -> LoadedText:
    text, encoding, is_guessed = decode(data)
    check_text_chars(len(text), limits.max_text_chars)
    return LoadedText(text, find_headings(text), (), encoding, is_guessed)


def find_headings(text: str) -> tuple[Heading, ...]:
    """Return the ATX and setext headings of a Markdown text, in order.

    The title of a YAML front matter counts as a heading of level 1 at offset 0.
    """
    headings: list[Heading] = []
    offset = _front_matter(text, headings)
    fence = ""
    previous, previous_start = "", offset
    for line in text[offset:].split("\n"):
        match = _FENCE.match(line)
        if fence:
            if match and match[1].startswith(fence) and not match[2].strip():
                fence = ""
        elif match and not (match[1][0] == "`" and "`" in match[2]):
            fence = match[1]
        elif (atx := _ATX.match(line)) is not None:
            _add(headings, offset, len(atx[1]), _atx_title(line[atx.end() :]))
        elif (rule := _SETEXT.match(line)) and not _NOT_SETEXT_TEXT.match(previous):
            _add(headings, previous_start, 1 if rule[1][0] == "=" else 2, previous)
        previous, previous_start = line, offset
        offset += len(line) + 1
    return tuple(headings)


def _front_matter(text: str, headings: list[Heading]) -> int:
    """Read the title of a YAML front matter; return the offset behind it, 0 without one."""
    if not text.startswith("---\n"):
        return 0
    end = re.compile(r"^(---|\.\.\.)[ \t]*$", re.MULTILINE).search(text, 4)
    if end is None:
        return 0
    for line in text[4 : end.start()].split("\n"):
        if title := _TITLE.match(line):
            _add(headings, 0, 1, title[1].strip().strip("\"'"))
            break
    return min(end.end() + 1, len(text))


def _atx_title(rest: str) -> str:
    """Return what stands behind the first hashes, without closing ones."""
    rest = rest.strip()
    title = rest.rstrip("#")
    return title if not title or title[-1] in " \t" else rest


def _add(headings: list[Heading], start: int, level: int, title: str) -> None:
    if title := " ".join(title.split()):
        headings.append(Heading(start, level, title[:MAX_TITLE_CHARS]))
