"""Tell passages that say the same from passages that only look alike.

Two texts are duplicates if they hold the same numbers in the same order and nearly the same runs of
characters. So a page that was saved twice is shown once, but two rows of a price list, or two
years of one report, are both shown.
"""

import re
import zlib
from dataclasses import dataclass, field

from kb.terms import normalise

# Share of the distinct shingles that two texts must have in common (Jaccard). One changed word
# of a hundred changes 5 % of the shingles; a changed sentence in a passage of ten far more.
SAME_SHARE = 0.85
SHINGLE_CHARS = 5
# The smallest hashes of a text's shingles: two duplicates share at least one (Broder 1997, "On
# the resemblance and containment of documents"), so that only few pairs are compared in full.
SKETCH_SIZE = 12

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_BETWEEN_WORDS = re.compile(r"[\W_]+")


@dataclass(slots=True)
class SeenTexts:
    """The texts that were let through so far."""

    _by_hash: dict[int, list[tuple[tuple[str, ...], set[int]]]] = field(default_factory=dict)

    def is_new(self, text: str) -> bool:
        """Remember `text` and return True, or return False if a remembered one says the same."""
        folded = normalise(text)
        numbers = tuple(_NUMBER.findall(folded))
        shingles = _shingles(_BETWEEN_WORDS.sub(" ", folded).strip())
        sketch = sorted(shingles)[:SKETCH_SIZE]
        for key in sketch:
            for seen_numbers, seen in self._by_hash.get(key, ()):
                if seen_numbers == numbers and _share(shingles, seen) >= SAME_SHARE:
                    return False
        for key in sketch:
            self._by_hash.setdefault(key, []).append((numbers, shingles))
        return True


def _shingles(text: str) -> set[int]:
    """Return hashes of all runs of characters; the whole text if it is shorter than one."""
    last = max(len(text) - SHINGLE_CHARS, 0)
    return {zlib.crc32(text[i : i + SHINGLE_CHARS].encode()) for i in range(last + 1)}


def _share(one: set[int], other: set[int]) -> float:
    common = len(one & other)
    return common / (len(one) + len(other) - common)
