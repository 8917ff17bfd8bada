"""Traditional Chinese characters as simplified ones, so that each finds the other.

Character by character, with OpenCC's table: lengths and offsets stay as they are. Phrases
(`滑鼠`, `鼠标`) are words of their own, which this does not match; and where a traditional
character has several simplified ones, both sides take the first.
"""

import functools
from importlib.resources import files


def simplified(text: str) -> str:
    """Return `text` with every traditional character that has a simplified form replaced."""
    return text if text.isascii() else text.translate(_table())


@functools.cache
def _table() -> dict[int, str]:
    """Read the table, without importing its package, which would read all its other tables."""
    path = files("opencc") / "dictionary" / "TSCharacters.txt"
    table = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        traditional, _, alternatives = line.partition("\t")
        first = alternatives.split(" ")[0]
        if len(traditional) == len(first) == 1 and traditional != first:
            table[ord(traditional)] = first
    return table
