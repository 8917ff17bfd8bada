"""What hides in a text: characters that nobody sees, and passages that speak to a model.

Characters that carry hidden text are left out; what the loaders left out before is counted in
`LoadedText.hidden`. Instructions to a model and marks of roles are flagged and kept: the prompt
treats them as quoted text (`kb/prompt.py`), and a document about such things must be found by
its own words.
"""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ingest.loaders.base import LoadedText
from ingest.loaders.orders import find_orders, find_role_marks
from ingest.loaders.whitespace import ZERO_WIDTH
from kb.records import Flag, FlagKind

_TAG = "\U000e0000-\U000e007f"
_SELECTOR = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
# A letter of a script that has no use for zero-width characters between all of its letters, as
# Arabic, Indic and Tibetan scripts have.
_LETTER = (
    "[^\\W\u0590-\u109f\u1780-\u18af\u1a20-\u1aaf\ua840-\uabff\ufb1d-\ufeff\U00010800-\U00011fff]"
)
_ANY = re.compile(f"[{_TAG}{_SELECTOR}{ZERO_WIDTH}\u202a-\u202e\u2066-\u2069]")
# What is left out is the first group where there is one, else all of the match.
_INVISIBLE = (
    # Emoji of regions (England, Texas) are a black flag, some tags and one that ends them.
    (
        "tag characters",
        re.compile(
            f"\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{{2,6}}\U000e007f()|[{_TAG}]+"
        ),
    ),
    # One of them chooses the form of the character before it; in a row they carry bytes.
    ("variation selectors in a row", re.compile(f"(?<=[{_SELECTOR}])[{_SELECTOR}]+")),
    # One allows or forbids a line break, or joins an emoji; in a row they carry bits.
    ("zero-width characters in a row", re.compile(f"[{ZERO_WIDTH}]{{3,}}")),
)
# A word whose letters are kept apart one by one is seen and not found.
_SPREAD = re.compile(f"(?:{_LETTER}[{ZERO_WIDTH}]{{1,2}}){{3,}}(?={_LETTER})")
_ZERO_WIDTH = re.compile(f"[{ZERO_WIDTH}]+")
# Text from right to left where there are no such letters shows another order than is stored.
_TURNS = re.compile("[\u202b\u202d\u202e\u2067]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff]")
_BETWEEN_LETTERS = "zero-width characters between letters"
_DIRECTION = "direction controls"
_CHARACTERS = frozenset((_BETWEEN_LETTERS, _DIRECTION, *(what for what, _ in _INVISIBLE)))
_PASSES = 4  # what is left out may bring others together
_SHOWN_CHARS = 60  # of a passage that is flagged

_Span = tuple[int, int, str]


def screen(loaded: LoadedText) -> LoadedText:
    """Return the text without characters that carry hidden text, and with its flags."""
    if not loaded.text.isascii() and _ANY.search(loaded.text):
        for _ in range(_PASSES):
            loaded = _without(loaded, _invisible(loaded.text))
    flags = list(loaded.flags)
    for what, n in sorted(loaded.hidden.items()):
        kind: FlagKind = "invisible_characters" if what in _CHARACTERS else "invisible_text"
        of = what if what in _CHARACTERS else f"character{'s' if n > 1 else ''} of {what}"
        flags.append(Flag(kind, f"left out: {n:,} {of}"))
    readable = _ZERO_WIDTH.sub("", loaded.text)
    flags += _flag("instruction", "reads like orders to a language model", find_orders(readable))
    flags += _flag("role_marker", "marks of roles in prompts", find_role_marks(readable))
    return replace(loaded, flags=tuple(flags))


def _flag(kind: FlagKind, what: str, passages: Sequence[str]) -> Iterator[Flag]:
    if passages:
        first = " ".join(passages[0].split())[:_SHOWN_CHARS]
        more = f" and {len(passages) - 1:,} more" if len(passages) > 1 else ""
        yield Flag(kind, f"{what}: “{first}”{more}")


def _invisible(text: str) -> list[_Span]:
    """Return what is left out of `text`, in order, without overlaps: ``(start, end, what)``."""
    spans: list[_Span] = []
    for what, pattern in _INVISIBLE:
        for match in pattern.finditer(text):
            if not match.re.groups or match[1] is None:
                spans.append((match.start(), match.end(), what))
    for word in _SPREAD.finditer(text):
        for match in _ZERO_WIDTH.finditer(text, word.start(), word.end()):
            spans.append((match.start(), match.end(), _BETWEEN_LETTERS))
    if not _RIGHT_TO_LEFT.search(text):
        spans += [(m.start(), m.end(), _DIRECTION) for m in _TURNS.finditer(text)]
    return sorted(spans)


def _without(loaded: LoadedText, spans: list[_Span]) -> LoadedText:
    """Cut spans out of a text; headings and pages stay where they were."""
    if not spans:
        return loaded
    kept: list[str] = []
    starts: list[int] = []
    cut: list[int] = [0]  # before each span, how many characters were cut
    hidden = Counter(loaded.hidden)
    end = 0
    for start, following, what in spans:
        kept.append(loaded.text[end:start])
        starts.append(start)
        cut.append(cut[-1] + following - start)
        hidden[what] += following - start
        end = following
    text = "".join(kept) + loaded.text[end:]

    def moved(offset: int) -> int:
        i = bisect_left(starts, offset)  # spans that begin before it
        inside = max(spans[i - 1][1] - offset, 0) if i else 0
        return offset - cut[i] + inside

    headings = (
        replace(heading, start=moved(heading.start), title=_visible(heading.title))
        for heading in loaded.headings
    )
    return replace(
        loaded,
        text=text,
        headings=tuple(heading for heading in headings if heading.title),
        pages=tuple(map(moved, loaded.pages)),
        hidden=hidden,
    )


def _visible(title: str) -> str:
    return _without(LoadedText(title), _invisible(title)).text.strip()
