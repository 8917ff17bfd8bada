"""Where a chunk may begin, and how well: the strengths that `ingest/splitter.py` cuts by.

A *place* is an offset at which a chunk may begin. Its strength tells what begins there, its
hash is made of the characters around it; both depend only on nearby text, except that a place
inside a closed code fence is protected. Everything is computed for a whole block of text at
once: numpy over code points, no loop over characters.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kb.records import Heading

CONTEXT = 16  # characters hashed on each side of a place
# Longest line that an indented paragraph stays with; less than a chunk, so that it is seen whole.
_MAX_HEAD_CHARS = 150
# A block is looked at from so far before it: more than a head, its indent and a blank line.
_LOOK_BACK = 400

# Strengths, strongest last. A heading of level n has HEADING + 1 - n, at least HEADING - 3.
PUNCTUATION = 0  # before closing punctuation
INSIDE_WORD = 1
WIDE_CHARACTER = 2
WHITE_SPACE = 3
CLAUSE = 4
PROTECTED_LINE = 5  # inside a code fence or between two table rows
SENTENCE = 6
LINE = 7  # also a paragraph that is indented below a line of its own, which names it
INDENTED = 8  # a paragraph that is indented
PARAGRAPH = 9
HEADING = 13

# Traits of a character, as bits.
_WIDE = 1
_SPACE = 2
_NEWLINE = 4
_GLUE = 8  # no place before it
_JOINER = 16  # no place behind it
_END = 32  # ends a sentence, no space needed
_LATIN_END = 64  # ends a sentence if white space follows
_CLOSER = 128
_CLAUSE_END = 256
_LATIN_CLAUSE_END = 512
_LOWER = 1024
_WORD = 2048
_QUOTE = 4096
_DIGIT = 8192
_KNOWN = 1 << 15

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Strengths = npt.NDArray[np.uint8]
_Codes = npt.NDArray[np.uint32]
_Traits = npt.NDArray[np.uint16]

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})(?![^\n]*`)[^\n]*$", re.MULTILINE)
_TABLE_ROW = re.compile(r"(?<=\n)[ \t]*\|")
_UNDERLINE = re.compile(r" {0,3}(?:=+|-+)[ \t]*(?:\n|$)")


@dataclass(frozen=True, slots=True)
class Places:
    """The places of one block of text, ordered by offset; all arrays are (N,).

    `positions` are widths before the offsets, counted from the block's start; `total` is the
    width of the block. `priorities` order places by strength, then hash.
    """

    offsets: Ints
    positions: Ints
    priorities: Hashes
    total: int


@dataclass(frozen=True, slots=True)
class Layout:
    """What is known of the whole text before it is looked at in blocks.

    `heading_starts` and `heading_levels` are parallel; a heading stays with the line at
    `after_headings`. `rows` are the starts of table rows that follow a row. Fence ``i`` holds
    the offsets above ``fences[2 * i]`` and below ``fences[2 * i + 1]``.
    """

    heading_starts: Ints
    heading_levels: Ints
    after_headings: Ints
    rows: Ints
    fences: Ints


def survey(text: str, headings: Sequence[Heading]) -> Layout:
    """Find what needs a look at whole lines: headings, table rows and closed code fences."""
    starts = [_skip_space(text, heading.start) for heading in headings]
    return Layout(
        heading_starts=np.array(starts, np.int64),
        heading_levels=np.array([heading.level for heading in headings], np.int64),
        after_headings=np.array(
            sorted({_after_heading(text, start) for start in starts}), np.int64
        ),
        rows=np.array(_following_rows(text), np.int64),
        fences=np.array(_fences(text), np.int64),
    )


def _skip_space(text: str, offset: int) -> int:
    while offset < len(text) and text[offset].isspace():
        offset += 1
    return offset


def _after_heading(text: str, start: int) -> int:
    """Return where the text below a heading begins, behind a setext underline."""
    end = text.find("\n", start) + 1 or len(text)
    if underline := _UNDERLINE.match(text, end):
        end = underline.end()
    return _skip_space(text, end)


def _following_rows(text: str) -> list[int]:
    rows: list[int] = []
    for match in _TABLE_ROW.finditer(text):
        line_start = text.rfind("\n", 0, match.start() - 1) + 1
        if text[line_start : match.start()].lstrip(" \t").startswith("|"):
            rows.append(match.end() - 1)
    return rows


def _fences(text: str) -> list[int]:
    bounds: list[int] = []
    opening: re.Match[str] | None = None
    for match in _FENCE.finditer(text):
        if opening is None:
            opening = match
        elif match[1].startswith(opening[1]) and match[0].strip() == match[1]:
            bounds += [_skip_space(text, opening.start()), match.end()]
            opening = None
    return bounds


def find_places(text: str, start: int, end: int, layout: Layout) -> Places:
    """Find the places of ``text[start:end]`` behind `start`.

    A chunk begins at `start`, so `start` is 0 or a place itself; hashes look back over it.
    Offsets are those of `text`.
    """
    first = max(start - _LOOK_BACK, 0)
    codes = np.frombuffer(text[first:end].encode("utf-32-le", "surrogatepass"), dtype="<u4")
    hashes = _hashes(codes)[start - first :]
    all_traits = _traits(codes)
    traits = all_traits[start - first :]

    is_place = (traits & (_SPACE | _GLUE)) == 0
    is_place[1:] &= (traits[:-1] & _JOINER) == 0
    widths = np.where(is_place, 1 + (traits & _WIDE), 0).astype(np.int64)
    is_space = (traits & _SPACE) != 0
    widths[is_space] = 1
    widths[1:][is_space[1:] & is_space[:-1]] = 0
    positions = np.concatenate(([0], np.cumsum(widths)))
    is_place[0] = False
    local = np.flatnonzero(is_place)
    strengths = _strengths(all_traits, local + start - first)
    offsets = local + start
    _protect(offsets, strengths, layout)
    priorities = (strengths.astype(np.uint64) << np.uint64(58)) | (hashes[local] >> np.uint64(6))
    return Places(offsets, positions[local], priorities, int(positions[-1]))


def _hashes(codes: _Codes) -> Hashes:
    """Hash the `CONTEXT` characters on each side of every offset; (n,)."""
    padded = np.zeros(len(codes) + 2 * CONTEXT, np.uint64)
    padded[CONTEXT : CONTEXT + len(codes)] = codes
    hashes = padded * np.uint64(0x9E3779B97F4A7C15)  # all products are modulo 2 ** 64
    size = 1
    while size < 2 * CONTEXT:  # join two windows of `size` into one of twice the size
        hashes = hashes[:-size] * np.uint64(0xD6E8FEB86659FD93) + hashes[size:]
        hashes ^= hashes >> np.uint64(32)
        hashes *= np.uint64(0xFF51AFD7ED558CCD)
        hashes ^= hashes >> np.uint64(29)
        size *= 2
    return hashes[: len(codes)]


def _strengths(traits: _Traits, places: Ints) -> Strengths:
    here = traits[places]
    previous = _previous_solid(traits)[places]  # last character that is not white space
    is_spaced = previous < places - 1
    last = np.where(previous >= 0, traits[previous], 0)
    n_breaks = np.concatenate(([0], np.cumsum((traits & _NEWLINE) != 0)))
    breaks = n_breaks[places] - n_breaks[previous + 1]

    ends, latin_ends = _sentence_ends(traits)
    is_end = (previous >= 0) & (ends[previous] | (latin_ends[previous] & is_spaced))
    is_clause = ((last & _CLAUSE_END) != 0) | (((last & _LATIN_CLAUSE_END) != 0) & is_spaced)
    is_in_word = ((last & here & _WORD) != 0) & ~is_spaced
    is_closing = (here & (_CLOSER | _END | _LATIN_END | _CLAUSE_END | _LATIN_CLAUSE_END)) != 0
    # A line that goes on in lower case or after a comma was broken because it was full.
    is_soft = (((here & _LOWER) != 0) | is_clause) & ~is_end

    strengths = np.full(len(places), WIDE_CHARACTER, np.uint8)
    strengths[is_in_word] = INSIDE_WORD
    strengths[is_spaced] = WHITE_SPACE
    strengths[is_clause] = CLAUSE
    strengths[is_end] = SENTENCE
    strengths[(breaks == 1) & ~is_soft] = LINE
    strengths[breaks >= 2] = PARAGRAPH
    indents = _indents(traits)
    strengths[(breaks >= 2) & (indents[places] > 0)] = INDENTED
    strengths[(breaks >= 2) & _is_body(traits, places, previous, n_breaks, indents)] = LINE
    strengths[is_closing & ~is_spaced] = PUNCTUATION
    strengths[(previous >= 0) & (breaks == 0) & _list_numbers(traits)[previous]] = WIDE_CHARACTER
    return strengths


def _indents(traits: _Traits) -> Ints:
    """For each offset, the number of characters before it on its line."""
    offsets = np.arange(len(traits))
    newlines = np.where((traits & _NEWLINE) != 0, offsets, -1)
    return offsets - 1 - np.concatenate(([-1], np.maximum.accumulate(newlines)[:-1]))


def _is_body(traits: _Traits, places: Ints, previous: Ints, n_breaks: Ints, indents: Ints) -> Bools:
    """Tell which places begin a paragraph that is indented below a line of its own; (p,).

    Such a line names what follows: a setting and its description, a signature and its body.

        .. data:: TIMEOUT
                                        <- no place
            Seconds to wait.            <- here is one
    """
    before = _previous_solid(traits)
    is_first_on_line = n_breaks[:-1] > n_breaks[before + 1]
    is_first_on_line[before < 0] = True
    is_first_on_line &= (traits & _SPACE) == 0
    first_on_line = np.maximum.accumulate(np.where(is_first_on_line, np.arange(len(traits)), 0))
    head = first_on_line[np.maximum(previous, 0)]
    # A blank line, or nothing, stands before the head.
    is_alone = (before[head] < 0) | (n_breaks[head] - n_breaks[before[head] + 1] >= 2)
    is_near = places - head <= _MAX_HEAD_CHARS
    return (previous >= 0) & is_alone & is_near & (indents[places] > indents[head])


def _previous_solid(traits: _Traits) -> Ints:
    """For each offset, the last one before it that is not white space; -1 for none."""
    solid = np.where((traits & _SPACE) == 0, np.arange(len(traits)), -1)
    return np.concatenate(([-1], np.maximum.accumulate(solid)[:-1]))


def _sentence_ends(traits: _Traits) -> tuple[Bools, Bools]:
    """Tell which characters end a sentence; up to two closing brackets or quotes belong to it.

    The second array holds for an end that white space follows.
    """
    ends = (traits & _END) != 0
    latin_ends = (traits & _LATIN_END) != 0
    latin_ends &= ~_list_numbers(traits)
    is_closer = (traits & _CLOSER) != 0
    is_latin_closer = (traits & (_CLOSER | _QUOTE)) != 0
    for _ in range(2):
        ends[1:] |= is_closer[1:] & ends[:-1]
        latin_ends[1:] |= is_latin_closer[1:] & latin_ends[:-1]
    return ends, latin_ends


def _list_numbers(traits: _Traits) -> Bools:
    """Tell which full stops belong to a number of at most three digits, as in "12. Next"."""
    is_digit = (traits & _DIGIT) != 0
    is_space = (traits & _SPACE) != 0
    is_number = np.zeros(len(traits), np.bool_)
    is_run = ((traits & _LATIN_END) != 0) & _shifted(is_digit, 1, False)
    for n_digits in (1, 2, 3):
        is_number |= is_run & _shifted(is_space, n_digits + 1, True)
        is_run &= _shifted(is_digit, n_digits + 1, False)
    return is_number


def _shifted(flags: Bools, distance: int, fill: bool) -> Bools:
    """For each offset, the flag `distance` before it; `fill` before the beginning."""
    return np.concatenate((np.full(distance, fill), flags))[: len(flags)]


def _protect(offsets: Ints, strengths: Strengths, layout: Layout) -> None:
    """Keep code and tables together and headings with their text; then mark the headings."""
    is_inside = np.searchsorted(layout.fences, offsets, side="left") % 2 == 1
    is_inside &= ~np.isin(offsets, layout.fences[::2])
    is_line = strengths >= LINE
    strengths[is_inside & is_line] = PROTECTED_LINE
    strengths[is_inside & ~is_line] = np.minimum(strengths[is_inside & ~is_line], WHITE_SPACE)
    rows = _index(offsets, layout.rows)
    strengths[rows] = np.minimum(strengths[rows], PROTECTED_LINE)
    after = _index(offsets, layout.after_headings)
    strengths[after] = np.minimum(strengths[after], WHITE_SPACE)
    at = np.searchsorted(offsets, layout.heading_starts)
    is_here = at < len(offsets)
    is_here[is_here] = offsets[at[is_here]] == layout.heading_starts[is_here]
    strengths[at[is_here]] = HEADING + 1 - np.clip(layout.heading_levels[is_here], 1, 4)


def _index(offsets: Ints, wanted: Ints) -> Ints:
    """Return the indexes in `offsets` of those `wanted` that are there."""
    at = np.searchsorted(offsets, wanted)
    is_here = at < len(offsets)
    is_here[is_here] = offsets[at[is_here]] == wanted[is_here]
    return at[is_here]


# The traits of the characters met so far, 0 for the others. Filling it twice is harmless, so
# threads need no lock.
_table = np.zeros(0x110000, np.uint16)


def _traits(codes: _Codes) -> _Traits:
    traits = _table[codes]
    if not traits.all():
        for code in np.unique(codes[traits == 0]).tolist():
            _table[code] = _traits_of(chr(code))
        traits = _table[codes]
    return traits


def _traits_of(character: str) -> int:
    category = unicodedata.category(character)
    is_wide = unicodedata.east_asian_width(character) in "WF"
    tests = (
        (_WIDE, is_wide),
        (_SPACE, character.isspace()),
        (_NEWLINE, character in "\n\r\v\f\x85\u2028\u2029"),
        (_GLUE, category[0] == "M" or category == "Cs" or _joins(character)),
        (_JOINER, character == "\u200d"),
        (_END, character in "。！？；…｡"),
        (_LATIN_END, character in ".!?"),
        (_CLOSER, category in ("Pe", "Pf")),
        (_CLAUSE_END, character in "，、：､"),
        (_LATIN_CLAUSE_END, character in ",:;"),
        (_LOWER, category == "Ll"),
        (_WORD, category[0] in "LN" and not is_wide),
        (_QUOTE, character in "\"'"),
        (_DIGIT, category == "Nd"),
    )
    return sum((bit for bit, holds in tests if holds), start=_KNOWN)


def _joins(character: str) -> bool:
    """Tell whether a character belongs to the one before it: joiner, jamo, skin tone."""
    return (
        character == "\u200d"
        or "\u1160" <= character <= "\u11ff"
        or "\U0001f3fb" <= character <= "\U0001f3ff"
    )
