"""Titles in text that has no marked headings: "第三章 住宿费", "二、价格", "CHAPTER IV".

Only these forms, since they hardly occur by chance; a line that merely looks like a title is
left alone.
"""

import re
from itertools import pairwise

from ingest.loaders.base import MAX_TITLE_CHARS
from kb.records import Heading

_LEVELS = {"卷": 1, "部": 1, "编": 1, "編": 1, "篇": 1, "章": 2, "回": 2, "节": 3, "節": 3, "、": 4}
_CHAPTER = re.compile(
    r"^[ \t\u3000]*(?:第[〇零一二三四五六七八九十百千两\d]{1,7}([卷部编編篇章回节節])"
    r"(?=[ \t\u3000:：]|[^。，；！？\n]{0,20}$)[^。；！？\n]{0,40}"
    r"|[一二三四五六七八九十]{1,3}(、)[^。，；：！？\n]{1,30}"
    r"|(?:CHAPTER|Chapter|PART|Part|BOOK|Book) (?:[IVXLC]{1,8}|\d{1,3})[.:]?"
    r"(?: ?[–—-]? ?[A-Z“\"][^.!?;\n]{0,60})?)$",
    re.MULTILINE,
)
_CONTENTS_LINE = re.compile(r"(?:[.．·…_]{2,}|\t)\s*\d+\s*$")


def find_chapters(text: str) -> tuple[Heading, ...]:
    """Return the titles in `text` in order.

    Lines of a table of contents are none, nor are those of a list ("一、", "二、" one after the
    other without text between them).
    """
    matches = list(_CHAPTER.finditer(text))
    listed: set[int] = set()
    for i, (match, following) in enumerate(pairwise(matches)):
        between = text[match.end() : following.start()]
        if match[2] and following[2] and not between.strip():
            listed |= {i, i + 1}
    headings = []
    for i, match in enumerate(matches):
        if i not in listed and not _CONTENTS_LINE.search(match[0]):
            mark = match[1] or match[2]
            title = " ".join(match[0].split())
            level = _LEVELS[mark] if mark else 1
            headings.append(Heading(match.start(), level, title[:MAX_TITLE_CHARS]))
    return tuple(headings)
