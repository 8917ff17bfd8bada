"""White space that layout put into text: what to keep of it, and what never was there."""

import re

# CJK ideographs, kana, full-width forms and CJK punctuation: written without spaces.
WIDE = r"\u2e80-\u303f\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff\uff01-\uff60\U00020000-\U0003ffff"

_BREAK_BETWEEN_WIDE = re.compile(rf"(?<=[{WIDE}])[^\S\n]*\n\s*(?=[{WIDE}])")
# Soft hyphen, grapheme joiner, direction marks, zero-width spaces and joiners, operators, BOM.
ZERO_WIDTH = "\u00ad\u034f\u061c\u180e\u200b-\u200f\u2060-\u2064\u206a-\u206f\ufeff"
# Soft hyphens, zero-width spaces and word joiners; joiners inside emoji and Indic words stay, and
# so do long runs, which `ingest/loaders/screen.py` looks at.
_INVISIBLE = re.compile(f"(?<![{ZERO_WIDTH}])[\u00ad\u200b\u2060\ufeff]{{1,2}}(?![{ZERO_WIDTH}])")


def n_visible(text: str) -> int:
    """Return how many characters are no white space."""
    return sum(map(len, text.split()))


def squeeze(text: str) -> str:
    """Make one line of `text`: runs of white space become one space.

    A line break between two wide characters becomes nothing: it was put there by an editor.
    """
    text = _BREAK_BETWEEN_WIDE.sub("", _INVISIBLE.sub("", text))
    return " ".join(text.split())
