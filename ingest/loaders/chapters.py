"""Chapter titles in text that has no marked headings: "第三章 住宿费", "CHAPTER IV".

Only these two forms, since they hardly occur by chance; a line that merely looks like a title
is left alone.
"""

import re

from ingest.loaders.base import MAX_TITLE_CHARS
from kb.records import Heading

_LEVELS = {"卷": 1, "部": 1, "编": 1, "編": 1, "篇": 1, "章": 2, "回": 2, "节": 3, "節": 3}
_CHAPTER = re.compile(
    r"^[ \t\u3000]*(?:第[〇零一二三四五六七八九十百千两\d]{1,7}([卷部编編篇章回节節])"
    r"(?=[ \t\u3000:：]|[^。，；！？\n]{0,20}$)[^。；！？\n]{0,40}"
    r"|(?:CHAPTER|Chapter|PART|Part|BOOK|Book) (?:[IVXLC]{1,8}|\d{1,3})[.:]?"
    r"(?: ?[–—-]? ?[A-Z“\"][^.!?;\n]{0,60})?)$",
    re.MULTILINE,
)
_CONTENTS_LINE = re.compile(r"(?:[.．·…_]{2,}|\t)\s*\d+\s*$")


def find_chapters(text: str) -> tuple[Heading, ...]:
    """Return the chapter titles of `text` in order; lines of a table of contents are none."""
    headings = []
    for match in _CHAPTER.finditer(text):
        title = " ".join(match[0].split())
        if not _CONTENTS_LINE.search(match[0]):
            level = _LEVELS.get(match[1], 2) if match[1] else 1
            headings.append(Heading(match.start(), level, title[:MAX_TITLE_CHARS]))
    return tuple(headings)
