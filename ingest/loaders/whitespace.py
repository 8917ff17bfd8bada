"""White space that layout put into text: what to keep of it, and what never was there."""

import re

# CJK ideographs, kana, full-width forms and CJK punctuation: written without spaces.
WIDE = r"\u2e80-\u303f\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff\uff01-\uff60\U00020000-\U0003ffff"

_BREAK_BETWEEN_WIDE = re.compile(rf"(?<=[{WIDE}])[^\S\n]*\n\s*(?=[{WIDE}])")
# Soft hyphens, zero-width spaces and word joiners; joiners inside emoji and Indic words stay.
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")


def squeeze(text: str) -> str:
    """Make one line of `text`: runs of white space become one space.

    A line break between two wide characters becomes nothing: it was put there by an editor.
    """
    text = _BREAK_BETWEEN_WIDE.sub("", _INVISIBLE.sub("", text))
    return " ".join(text.split())
