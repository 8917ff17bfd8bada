"""Cut a text into chunks whose boundaries depend only on nearby text.

Every place where a chunk could begin has a *strength* (a heading begins there, a paragraph, a
line, a sentence, ...) and a hash of the 16 characters on each side. A place is a cut if its
(strength, hash) is the greatest within less than `MIN_WIDTH` on both sides; of equals the first
wins. Pieces wider than `MAX_WIDTH` are cut again at their greatest place that leaves
`MIN_WIDTH` on both sides. So an edit moves only the cuts around it: the chunks before and after
keep their text, and their embeddings are found again by content.

Width counts a wide (CJK) character as 2, any other as 1, a run of white space as 1 and what
cannot begin a chunk (combining marks, joined emoji) as 0. Every chunk is `MIN_WIDTH` to
`MAX_WIDTH` wide, unless the whole text is narrower. Chunks begin with a character that is not
white space: white space belongs to the chunk before it.

There is no overlap between chunks, and no model is asked where a subject ends.

Reference: Bjørner, Blass and Gurevich, "Content-dependent chunking for differential
compression, the local maximum approach", J. Comput. Syst. Sci. 76 (2010) 154-203. Deviations:
strengths before hashes, ties go to the first, and the second cut of wide pieces.
"""

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from kb.records import Heading, Span

# The default embedder reads 256 tokens, about 1,000 characters of English; chunks are about
# 2 * MIN_WIDTH wide on average, so that most are read to their end.
MIN_WIDTH = 400
MAX_WIDTH = 1200
CONTEXT = 16  # characters hashed on each side
# Pieces without any distinct place (one character repeated) are cut again from left to right
# in windows of this width, which bounds the work.
_WINDOW = 8 * MAX_WIDTH

SPLITTER = f"local-maximum/1 min={MIN_WIDTH} max={MAX_WIDTH} context={CONTEXT}"

# Strengths, strongest last. A heading of level n has _HEADING + 1 - n, at least _HEADING - 3.
_PUNCTUATION = 0  # before closing punctuation
_INSIDE_WORD = 1
_WIDE_CHARACTER = 2
_WHITE_SPACE = 3
_CLAUSE = 4
_PROTECTED_LINE = 5  # inside a code fence or between two table rows
_SENTENCE = 6
_LINE = 7
_PARAGRAPH = 8
_HEADING = 12

# Traits of a character, as bits.
_WIDE = 1
_SPACE = 2
_NEWLINE = 4
_GLUE = 8  # no cut before it
_JOINER = 16  # no cut before or after it
_END = 32  # ends a sentence, no space needed
_LATIN_END = 64  # ends a sentence if a space follows
_CLOSER = 128
_CLAUSE_END = 256
_LATIN_CLAUSE_END = 512
_LOWER = 1024
_WORD = 2048
_QUOTE = 4096
_KNOWN = 1 << 15

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint32]
Priorities = npt.NDArray[np.uint64]


def split(text: str, headings: Sequence[Heading]) -> list[Span]:
    """Tile `text` with spans of about 400 to 1,200 width units.

    Args:
        text: any text; "\\n", "\\r\\n" and other line ends are understood.
        headings: ordered by `start`.

    Returns:
        Spans in order, without gap or overlap; none for an empty text. Each has the heading
        path, joined with " > ", that is in force at its first character that is not blank.
    """
    if not text:
        return []
    cuts = [0, *_cuts(text, headings), len(text)]
    paths = _heading_paths(text, cuts[:-1], headings)
    return [
        Span(start, end, path) for start, end, path in zip(cuts, cuts[1:], paths, strict=False)
    ]


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


def _cuts(text: str, headings: Sequence[Heading]) -> list[int]:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    traits = _traits(codes)
    is_space = (traits & _SPACE) != 0
    is_cuttable = (traits & (_SPACE | _GLUE | _JOINER)) == 0
    is_cuttable[1:] &= (traits[:-1] & _JOINER) == 0
    width = np.where(is_cuttable, 1 + (traits & _WIDE), 0).astype(np.int64)
    width[is_space] = 1
    width[1:][is_space[1:] & is_space[:-1]] = 0
    at = np.concatenate(([0], np.cumsum(width)))  # (n + 1,) width before each offset
    total = int(at[-1])
    if total < 2 * MIN_WIDTH:
        return []

    is_cuttable[0] = False
    places = np.flatnonzero(is_cuttable)
    strengths = _strengths(text, traits, places, headings)
    priorities = (strengths.astype(np.uint64) << np.uint64(58)) | (
        _hashes(codes)[places] >> np.uint64(6)
    )
    positions = at[places]
    is_cut = _is_local_maximum(positions, priorities, total)
    return _cut_wide_pieces(positions, priorities, np.flatnonzero(is_cut), total, places)


def _hashes(codes: Codes) -> Priorities:
    """Hash the `CONTEXT` characters on each side of every offset; (n,)."""
    padded = np.zeros(len(codes) + 2 * CONTEXT, np.uint64)
    padded[CONTEXT : CONTEXT + len(codes)] = codes
    hashes = padded * np.uint64(0x9E3779B97F4A7C15)
    size = 1
    while size < 2 * CONTEXT:  # join windows of `size` to windows of twice the size
        hashes = hashes[:-size] * np.uint64(0xD6E8FEB86659FD93) + hashes[size:]
        hashes ^= hashes >> np.uint64(32)
        hashes *= np.uint64(0xFF51AFD7ED558CCD)
        hashes ^= hashes >> np.uint64(29)
        size *= 2
    return hashes[: len(codes)]


def _is_local_maximum(
    positions: Ints, priorities: Priorities, total: int
) -> npt.NDArray[np.bool_]:
    """Tell which places are greater than all to the left and no less than all to the right."""
    index = np.arange(len(positions))
    first = np.searchsorted(positions, positions - MIN_WIDTH, side="right")
    last = np.searchsorted(positions, positions + MIN_WIDTH, side="left")
    is_maximum = (positions >= MIN_WIDTH) & (positions <= total - MIN_WIDTH)
    # A range of n is covered by two ranges of the greatest power of two that is at most n.
    maxima = priorities  # maxima[i] is the greatest of priorities[i : i + size]
    size = 1
    while is_maximum.any() and size < len(positions):
        n_left, n_right = index - first, last - index - 1
        chosen = np.flatnonzero(is_maximum & (n_left >= size) & (n_left < 2 * size))
        greatest = np.maximum(maxima[first[chosen]], maxima[chosen - size])
        is_maximum[chosen] = priorities[chosen] > greatest
        chosen = np.flatnonzero(is_maximum & (n_right >= size) & (n_right < 2 * size))
        greatest = np.maximum(maxima[chosen + 1], maxima[last[chosen] - size])
        is_maximum[chosen] = priorities[chosen] >= greatest
        if size > max(int(n_left.max()), int(n_right.max())):
            break
        if len(maxima) <= size:
            break
        maxima = np.maximum(maxima[:-size], maxima[size:])
        size *= 2
    return is_maximum


def _cut_wide_pieces(
    positions: Ints, priorities: Priorities, cuts: Ints, total: int, places: Ints
) -> list[int]:
    edges = [0, *positions[cuts].tolist(), total]
    more: list[int] = []
    wide = [(a, b) for a, b in zip(edges, edges[1:], strict=False) if b - a > MAX_WIDTH]
    while wide:
        start, end = wide.pop()
        low = np.searchsorted(positions, start + MIN_WIDTH, side="left")
        high = np.searchsorted(positions, min(end - MIN_WIDTH, start + _WINDOW), side="right")
        best = int(low + np.argmax(priorities[low:high]))
        more.append(best)
        middle = int(positions[best])
        wide += [(a, b) for a, b in ((start, middle), (middle, end)) if b - a > MAX_WIDTH]
    return sorted(places[[*cuts.tolist(), *more]].tolist())


def _strengths(
    text: str, traits: npt.NDArray[np.uint16], places: Ints, headings: Sequence[Heading]
) -> npt.NDArray[np.uint8]:
    here, before = traits[places], traits[places - 1]
    is_spaced = (before & _SPACE) != 0
    previous = _previous_solid(traits)[places]  # offset of the last character not white space
    breaks_before = np.concatenate(([0], np.cumsum((traits & _NEWLINE) != 0)))
    breaks = breaks_before[places] - breaks_before[previous + 1]
    last = np.where(previous >= 0, traits[previous], 0)

    ends, latin_ends = _sentence_ends(traits)
    is_sentence_end = (previous >= 0) & (ends[previous] | (latin_ends[previous] & is_spaced))
    is_clause_end = ((last & _CLAUSE_END) != 0) | (((last & _LATIN_CLAUSE_END) != 0) & is_spaced)

    strengths = np.full(len(places), _INSIDE_WORD, np.uint8)
    is_inside_word = ((last & _WORD) != 0) & ((here & _WORD) != 0)
    strengths[~is_inside_word] = _WIDE_CHARACTER
    strengths[is_spaced] = _WHITE_SPACE
    strengths[is_clause_end] = _CLAUSE
    strengths[is_sentence_end] = _SENTENCE
    # A line that goes on in lower case, or after a comma, was broken by width alone.
    is_soft = (((here & _LOWER) != 0) | is_clause_end) & ~is_sentence_end
    strengths[(breaks == 1) & ~is_soft] = _LINE
    strengths[breaks >= 2] = _PARAGRAPH
    is_closing = (here & (_CLOSER | _END | _LATIN_END | _CLAUSE_END | _LATIN_CLAUSE_END)) != 0
    strengths[is_closing & ~is_spaced] = _PUNCTUATION
    _protect(text, places, breaks, strengths)
    _raise_headings(text, places, breaks, strengths, headings)
    return strengths


def _previous_solid(traits: npt.NDArray[np.uint16]) -> Ints:
    """For each offset, the offset of the last character before it that is not white space."""
    solid = np.where((traits & _SPACE) == 0, np.arange(len(traits)), -1)
    return np.concatenate(([-1], np.maximum.accumulate(solid)[:-1]))


def _sentence_ends(
    traits: npt.NDArray[np.uint16],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Tell which characters end a sentence, closing brackets and quotes behind it included."""
    ends = (traits & _END) != 0
    latin_ends = (traits & _LATIN_END) != 0
    is_closer = (traits & _CLOSER) != 0
    is_latin_closer = (traits & (_CLOSER | _QUOTE)) != 0
    for _ in range(2):
        ends[1:] |= is_closer[1:] & ends[:-1]
        latin_ends[1:] |= is_latin_closer[1:] & latin_ends[:-1]
    return ends, latin_ends | ends


def _protect(
    text: str, places: Ints, breaks: Ints, strengths: npt.NDArray[np.uint8]
) -> None:
    return


def _raise_headings(
    text: str,
    places: Ints,
    breaks: Ints,
    strengths: npt.NDArray[np.uint8],
    headings: Sequence[Heading],
) -> None:
    if not headings:
        return
    lines = np.flatnonzero(breaks > 0)
    starts = np.array([heading.start for heading in headings])
    levels = np.array([heading.level for heading in headings])
    # A heading stays with what follows it.
    following = np.searchsorted(places[lines], starts, side="right")
    following = lines[following[following < len(lines)]]
    strengths[following] = np.minimum(strengths[following], _WHITE_SPACE)
    first = np.searchsorted(places, starts, side="left")
    found = first < len(places)
    strengths[first[found]] = _HEADING + 1 - np.clip(levels[found], 1, 4)


_table = np.zeros(0x110000, np.uint16)  # traits of the characters met so far, 0 for the others


def _traits(codes: Codes) -> npt.NDArray[np.uint16]:
    traits = _table[codes]
    if not traits.all():
        for code in np.unique(codes[traits == 0]).tolist():
            _table[code] = _traits_of(chr(code))
        traits = _table[codes]
    return traits


def _traits_of(character: str) -> int:
    traits = _KNOWN
    category = unicodedata.category(character)
    if unicodedata.east_asian_width(character) in "WF":
        traits |= _WIDE
    if character.isspace():
        traits |= _SPACE
    if character in "\n\r\v\f\x85\u2028\u2029":
        traits |= _NEWLINE
    if category.startswith("M") or "\udc00" <= character <= "\udfff" or _is_glue(character):
        traits |= _GLUE
    if character == "\u200d":
        traits |= _JOINER
    if (character in "。！？；…｡!?;" and traits & _WIDE) or character in "。！？；…｡":
        traits |= _END
    if character in ".!?":
        traits |= _LATIN_END
    if category in ("Pe", "Pf") or character in "”’」』":
        traits |= _CLOSER
    if character in "，、：､":
        traits |= _CLAUSE_END
    if character in ",:;":
        traits |= _LATIN_CLAUSE_END
    if character in "\"'":
        traits |= _QUOTE
    if category == "Ll":
        traits |= _LOWER
    if category[0] in "LN" and not traits & _WIDE:
        traits |= _WORD
    return traits


def _is_glue(character: str) -> bool:
    """Tell whether a character modifies the one before it: jamo, skin tones."""
    return "\u1160" <= character <= "\u11ff" or "\U0001f3fb" <= character <= "\U0001f3ff"
