"""Cut a text into chunks whose boundaries depend only on nearby text.

Every place where a chunk may begin has a strength (a heading begins there, a paragraph, a
line, a sentence, ...) and a hash of the 16 characters on each side: `ingest/places.py`. A place
is a cut if its (strength, hash) is the greatest within less than `MIN_WIDTH` on both sides; of
equals the first wins. Pieces wider than `MAX_WIDTH` are cut again at their greatest place that
leaves `MIN_WIDTH` on both sides. So an edit moves only the cuts around it: the chunks before
and after keep their text, and with it their embeddings.

Width counts a wide (CJK) character as 2, any other as 1, a run of white space as 1 and what
cannot begin a chunk (combining marks, joined emoji) as 0. Chunks are `MIN_WIDTH` to `MAX_WIDTH`
wide; a text that fits into one is not cut. White space belongs to the chunk before it.

There is no overlap between chunks, and no model is asked where a subject ends.

Reference: Bjørner, Blass and Gurevich, "Content-dependent chunking for differential
compression, the local maximum approach", J. Comput. Syst. Sci. 76 (2010) 154-203. Deviations:
strengths before hashes, ties go to the first, and the second cut of wide pieces.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from ingest.places import CONTEXT, Ints, Places, find_places, survey
from kb.records import Heading, Span

# Cuts lie about twice MIN_WIDTH apart on average. The default embedder reads 256 tokens, about
# 1,000 characters of English, so most chunks are read to their end. MAX_WIDTH is 4 * MIN_WIDTH
# since the second cut is what spreads an edit, and few pieces of real text are wider than that.
MIN_WIDTH = 320
MAX_WIDTH = 1280

SPLITTER = f"local-maximum/2 min={MIN_WIDTH} max={MAX_WIDTH} context={CONTEXT}"

# Texts are looked at in blocks of this many characters to bound memory: about 100 bytes each.
_BLOCK_CHARS = 1 << 20
# How far a place looks ahead of itself; more than CONTEXT, to be safe with joined characters.
_MARGIN_CHARS = 64
# A piece without any distinct place, such as one character repeated, is cut from left to right
# in windows of this width, so that the work stays linear.
_WINDOW = 8 * MAX_WIDTH


def split(text: str, headings: Sequence[Heading], *, block_chars: int = _BLOCK_CHARS) -> list[Span]:
    """Tile `text` with spans.

    A sentence inserted, removed or replaced changes one chunk most of the time (1.1 on average)
    and at most 3, but for rare accidents: about 2 in 10,000 random edits of Markdown and
    reStructuredText files changed 4, none more. A changed heading changes the path of all
    chunks below it.

    Args:
        text: any text; all line ends are understood.
        headings: ordered by `start`.
        block_chars: how much is looked at at once; bounds memory, does not change the result.

    Returns:
        Spans in order, without gap or overlap; none for an empty text. No span is blank unless
        the text is. `heading` is the path in force at the span's first character that is not
        white space, titles joined with " > ".
    """
    if not text:
        return []
    starts = [0, *_cuts(text, headings, block_chars)]
    ends = [*starts[1:], len(text)]
    paths = _heading_paths(text, starts, headings)
    return [Span(*span) for span in zip(starts, ends, paths, strict=True)]


def _heading_paths(text: str, starts: list[int], headings: Sequence[Heading]) -> Iterator[str]:
    path: list[Heading] = []
    following = 0
    for start in starts:
        if start == 0:
            start = len(text) - len(text.lstrip())
        while following < len(headings) and headings[following].start <= start:
            heading = headings[following]
            while path and path[-1].level >= heading.level:
                path.pop()
            path.append(heading)
            following += 1
        yield " > ".join(heading.title for heading in path)


def _cuts(text: str, headings: Sequence[Heading], block_chars: int) -> list[int]:
    """Return the offsets at which the chunks behind the first begin.

    Blocks do not change the result: a block begins at a cut, which no place near it outranks,
    and its last cuts are left to the next block, which sees what follows them.
    """
    layout = survey(text, headings)
    cuts: list[int] = []
    start, n_chars = 0, block_chars
    while start < len(text):
        end = min(start + n_chars, len(text))
        places = find_places(text, start, end, layout)
        is_last = end == len(text)
        if start == 0 and is_last and places.total <= MAX_WIDTH:
            return []
        found = _local_maxima(places, end - _MARGIN_CHARS, is_last)
        if not is_last and (len(found) == 0 or places.total <= MAX_WIDTH):
            n_chars *= 2  # nothing certain in this block
            continue
        edges = [0, *places.positions[found].tolist(), *([places.total] if is_last else [])]
        cuts += sorted(
            places.offsets[[*found.tolist(), *_cuts_of_wide_pieces(places, edges)]].tolist()
        )
        if is_last:
            break
        start, n_chars = int(places.offsets[found[-1]]), block_chars
    return cuts


def _local_maxima(places: Places, seen_end: int, is_last: bool) -> Ints:
    """Return the places that outrank all within `MIN_WIDTH` to the left and equal all to the right.

    Places nearer than that to the block's edges are none; in all blocks but the last, neither
    are those whose surroundings reach beyond the offset `seen_end`.
    """
    positions, priorities = places.positions, places.priorities
    is_candidate = (positions >= MIN_WIDTH) & (positions <= places.total - MIN_WIDTH)
    # Neighbours are always nearer than MIN_WIDTH; this alone leaves less than half to look at.
    is_candidate[1:] &= priorities[1:] > priorities[:-1]
    is_candidate[:-1] &= priorities[:-1] >= priorities[1:]
    at = np.flatnonzero(is_candidate)
    first = np.searchsorted(positions, positions[at] - MIN_WIDTH, side="right")
    last = np.searchsorted(positions, positions[at] + MIN_WIDTH, side="left") - 1
    # From here on `at`, `first` and `last` are parallel: a place and the ends of its window.
    is_alive = np.full(len(at), True) if is_last else places.offsets[last] < seen_end
    size, greatest = 1, priorities  # greatest[i] is the maximum of priorities[i : i + size]
    while True:
        at, first, last = at[is_alive], first[is_alive], last[is_alive]
        widest = int(max((at - first).max(initial=0), (last - at).max(initial=0)))
        if size > widest:
            return at
        # The `size` places next to it and the `size` farthest; they meet in the last round.
        is_alive = np.full(len(at), True)
        some = np.flatnonzero(at - first >= size)
        left = np.maximum(greatest[first[some]], greatest[at[some] - size])
        is_alive[some] &= priorities[at[some]] > left
        some = np.flatnonzero(last - at >= size)
        right = np.maximum(greatest[at[some] + 1], greatest[last[some] - size + 1])
        is_alive[some] &= priorities[at[some]] >= right
        greatest = np.maximum(greatest[:-size], greatest[size:])
        size *= 2


def _cuts_of_wide_pieces(places: Places, edges: list[int]) -> list[int]:
    """Cut the pieces between `edges` (widths) down to `MAX_WIDTH`; return indexes of places."""
    cuts: list[int] = []
    wide = list(pairwise(edges))
    while wide:
        start, end = wide.pop()
        if end - start <= MAX_WIDTH:
            continue
        # There is a place in here: a place or a run of white space is at most 2 wide.
        low, high = start + MIN_WIDTH, min(end - MIN_WIDTH, start + _WINDOW)
        first = int(np.searchsorted(places.positions, low, side="left"))
        behind = int(np.searchsorted(places.positions, high, side="right"))
        best = first + int(np.argmax(places.priorities[first:behind]))  # the first of equals
        cuts.append(best)
        middle = int(places.positions[best])
        wide += [(start, middle), (middle, end)]
    return cuts
