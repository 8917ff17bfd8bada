"""Tell passages that say the same from passages that only look alike.

Two texts are duplicates if they differ in layout only: case, width, white space, punctuation. So a
page that was saved twice is shown once, but two rows of a price list, two years of one report, or
a rule and its denial are all shown. One changed word can be the one that was asked for, therefore
nothing is done about texts that are nearly the same or of which one holds the other.
"""

import re
import unicodedata
from dataclasses import dataclass, field

from kb.text.terms import normalise

# Punctuation that can be the difference: 5%, a question, the point of 1.5, the sign of -5.
_TELLING = re.compile(r"[%‰?]|[-\u2212.,:/](?=\d)")
# White space tells something only between two characters of a spaced script.
_SPACED = r"[^\W\u2e80-\u9fff]"
_NO_GAP = re.compile(rf"(?<!{_SPACED}) | (?!{_SPACED})")


@dataclass(slots=True)
class SeenTexts:
    """The texts that were let through so far, numbered from 0."""

    _numbers: dict[str, int] = field(default_factory=dict)

    def duplicate_of(self, text: str) -> int | None:
        """Return the number of the text that says the same, None if there is none."""
        return self._numbers.get(_without_layout(text))

    def add(self, text: str) -> None:
        """Remember a text that was let through, which no earlier one is a duplicate of."""
        self._numbers[_without_layout(text)] = len(self._numbers)


def _without_layout(text: str) -> str:
    folded = normalise(text)
    kept = {match.start() for match in _TELLING.finditer(folded)}
    said = "".join(c if i in kept or not _is_layout(c) else " " for i, c in enumerate(folded))
    return _NO_GAP.sub("", " ".join(said.split()))


def _is_layout(character: str) -> bool:
    """Tell punctuation, spaces and control characters from letters, digits and symbols."""
    category = unicodedata.category(character)
    return category[0] in "PZ" or category in {"Cc", "Cf"}
