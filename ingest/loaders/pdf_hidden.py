"""Text of a PDF page that nobody sees, told from text that is meant to be there.

Left out: text drawn invisibly or all transparent, unless a picture lies behind it (a scan that
was made searchable, whose text is wanted); white text, unless something drawn lies behind it;
text outside the visible part of the page; text smaller than a point. Not told: text covered by
something drawn later, text in layers that are switched off, text in the colour of a box.

Every text object is looked at once; characters only on pages where one is suspicious. Together
this takes about a quarter of the time that reading the text takes.
"""

import ctypes
from collections import Counter
from collections.abc import Callable, Iterator
from ctypes import c_double, c_float, c_int, c_uint, c_void_p
from dataclasses import dataclass
from typing import Any

import pypdfium2 as pdfium
import pypdfium2.raw as raw

from ingest.loaders.whitespace import n_visible

INVISIBLE = "text drawn invisibly"
WHITE = "white text"
TINY = "text in a tiny font"
OUTSIDE = "text outside the page"

_WHITE_FROM = 0xF5  # of 255, in each of red, green and blue
_CLEAR_BELOW = 13  # of 255: 5 % opacity
_TINY_PT = 1.0
_MAX_DEPTH = 8  # forms inside forms
_MAX_OBJECTS = 500_000  # on a page; text beyond is kept
_NEAR_PT = 2.0
_SCAN_SHARE = 0.5  # of the page: pictures that cover so much are a scan
# Render modes that paint outlines only, and the one that paints nothing but clips; 3 is invisible.
_STROKES, _CLIPS, _NO_TEXT = (1, 5), 7, -1

_Matrix = tuple[float, float, float, float, float, float]
_Box = tuple[float, float, float, float]  # left, bottom, right, top


def _quick(function: Any, result: Any, *arguments: Any) -> Callable[..., Any]:
    """Return a function of pdfium that takes and gives addresses.

    The ones of pypdfium2 wrap and check each pointer, which takes four times as long.
    """
    address = ctypes.cast(function, c_void_p).value
    assert address is not None
    found: Callable[..., Any] = ctypes.PYFUNCTYPE(result, *arguments)(address)
    return found


_FOUR_OUT = (c_void_p,) * 5
_count = _quick(raw.FPDFPage_CountObjects, c_int, c_void_p)
_get = _quick(raw.FPDFPage_GetObject, c_void_p, c_void_p, c_int)
_count_in_form = _quick(raw.FPDFFormObj_CountObjects, c_int, c_void_p)
_get_in_form = _quick(raw.FPDFFormObj_GetObject, c_void_p, c_void_p, c_int)
_kind = _quick(raw.FPDFPageObj_GetType, c_int, c_void_p)
_mode = _quick(raw.FPDFTextObj_GetTextRenderMode, c_int, c_void_p)
_font_size = _quick(raw.FPDFTextObj_GetFontSize, c_int, c_void_p, c_void_p)
_fill = _quick(raw.FPDFPageObj_GetFillColor, c_int, *_FOUR_OUT)
_stroke = _quick(raw.FPDFPageObj_GetStrokeColor, c_int, *_FOUR_OUT)
_bounds = _quick(raw.FPDFPageObj_GetBounds, c_int, *_FOUR_OUT)
_matrix = _quick(raw.FPDFPageObj_GetMatrix, c_int, c_void_p, c_void_p)
_draw_mode = _quick(raw.FPDFPath_GetDrawMode, c_int, c_void_p, c_void_p, c_void_p)
_object_of = _quick(raw.FPDFText_GetTextObject, c_void_p, c_void_p, c_int)
_char_box = _quick(raw.FPDFText_GetCharBox, c_int, c_void_p, c_int, *_FOUR_OUT[1:])


class _Out:
    """Numbers that pdfium writes; `to` are their addresses."""

    def __init__(self, kind: Any, n: int) -> None:
        self.values = (kind * n)()
        first = ctypes.addressof(self.values)
        self.to = tuple(first + i * ctypes.sizeof(kind) for i in range(n))


@dataclass(frozen=True, slots=True)
class _Level:
    """The objects of a page or of a form on it; `modes` are `_NO_TEXT` for those not text."""

    objects: list[int]
    modes: list[int]
    matrix: _Matrix | None  # from the form to the page


@dataclass(frozen=True, slots=True)
class _Painted:
    """Where something is drawn: pictures, and all that white text can be read on."""

    pictures: list[_Box]
    any: list[_Box]


def visible_text(page: pdfium.PdfPage, textpage: pdfium.PdfTextPage) -> tuple[str, Counter[str]]:
    """Return the text of a page that a reader sees, and how much of what was left out."""
    whole: str = textpage.get_text_range()
    if not whole:
        return whole, Counter()
    levels = list(_levels(page))
    suspects = _suspects(levels)
    crop = _crop(page)
    # Both are made in C; line ends differ where words stand on one another.
    is_all_inside = n_visible(textpage.get_text_bounded(*crop)) >= n_visible(whole)
    if not suspects and is_all_inside:
        return whole, Counter()
    hidden: Counter[str] = Counter()
    kept: list[str] = []
    painted = _painted(levels, suspects)
    for first, n, why in _runs(textpage, suspects, painted, crop, is_all_inside=is_all_inside):
        text = textpage.get_text_range(first, n)
        if why:
            hidden[why] += n_visible(text)
        else:
            kept.append(text)
    return "".join(kept), +hidden


def _levels(page: pdfium.PdfPage) -> Iterator[_Level]:
    address = ctypes.cast(page.raw, c_void_p).value
    waiting: list[tuple[int, _Matrix | None, int]] = [(address or 0, None, 0)]
    n_left = _MAX_OBJECTS
    while waiting and n_left > 0:
        holder, matrix, depth = waiting.pop()
        count, get = (_count_in_form, _get_in_form) if depth else (_count, _get)
        objects = [get(holder, i) for i in range(min(count(holder), n_left))]
        n_left -= len(objects)
        modes = [_mode(item) for item in objects]
        yield _Level(objects, modes, matrix)
        if depth == _MAX_DEPTH or _NO_TEXT not in modes:
            continue
        for item, mode in zip(objects, modes, strict=True):
            if mode == _NO_TEXT and _kind(item) == raw.FPDF_PAGEOBJ_FORM:
                waiting.append((item, _product(_own_matrix(item), matrix), depth + 1))


def _suspects(levels: list[_Level]) -> dict[int, str]:
    """Return the text objects (by address) that may be invisible, and why."""
    found: dict[int, str] = {}
    colour, size = _Out(c_uint, 4), _Out(c_float, 1)
    red, green, blue, alpha = colour.to
    values, sizes, to_size = colour.values, size.values, size.to[0]
    for level in levels:
        for item, mode in zip(level.objects, level.modes, strict=True):
            if mode == _NO_TEXT:
                continue
            if mode == 3:
                found[item] = INVISIBLE
                continue
            read = _fill if mode not in _STROKES else _stroke
            if mode != _CLIPS and read(item, red, green, blue, alpha):
                if values[3] < _CLEAR_BELOW:
                    found[item] = INVISIBLE
                    continue
                if values[0] >= _WHITE_FROM and min(values[1], values[2]) >= _WHITE_FROM:
                    found[item] = WHITE
                    continue
            # Mostly the size stands in the font, else in the matrix.
            if _font_size(item, to_size) and (sizes[0] <= _TINY_PT or level.matrix):
                matrix = _product(_own_matrix(item), level.matrix)
                if sizes[0] * max(map(abs, matrix[:4])) < _TINY_PT:
                    found[item] = TINY
    return found


def _painted(levels: list[_Level], suspects: dict[int, str]) -> _Painted:
    """Find what lies behind text; only where some text needs it."""
    painted = _Painted([], [])
    if not {INVISIBLE, WHITE}.intersection(suspects.values()):
        return painted
    edges = _Out(c_float, 4)
    for level in levels:
        for item, mode in zip(level.objects, level.modes, strict=True):
            if mode != _NO_TEXT:
                continue
            kind = _kind(item)
            is_picture = kind == raw.FPDF_PAGEOBJ_IMAGE
            if not (
                is_picture
                or kind == raw.FPDF_PAGEOBJ_SHADING
                or (kind == raw.FPDF_PAGEOBJ_PATH and _is_coloured(item))
            ):
                continue
            if _bounds(item, *edges.to):
                box = _moved(tuple(edges.values), level.matrix)
                painted.any.append(box)
                if is_picture:
                    painted.pictures.append(box)
    return painted


def _is_coloured(path: int) -> bool:
    """Tell whether a path is filled with something that white text can be read on."""
    modes, colour = _Out(c_int, 2), _Out(c_uint, 4)
    if not _draw_mode(path, *modes.to) or not modes.values[0]:
        return False
    if not _fill(path, *colour.to):
        return True  # a pattern
    red, green, blue, alpha = map(int, colour.values)
    return min(red, green, blue) < _WHITE_FROM and alpha >= _CLEAR_BELOW


def _runs(
    textpage: pdfium.PdfTextPage,
    suspects: dict[int, str],
    painted: _Painted,
    crop: _Box,
    *,
    is_all_inside: bool,
) -> Iterator[tuple[int, int, str]]:
    """Yield ``(first character, how many, why nobody sees them)`` from begin to end.

    White space that belongs to no object goes with the character before it.
    """
    address = ctypes.cast(textpage.raw, c_void_p).value
    area = (crop[2] - crop[0]) * (crop[3] - crop[1])
    covered = sum((box[2] - box[0]) * (box[3] - box[1]) for box in painted.pictures)
    behind = {WHITE: painted.any, INVISIBLE: painted.pictures, TINY: []}
    if covered >= _SCAN_SHARE * area:
        behind[INVISIBLE] = [crop]
    edges = _Out(c_double, 4)
    first, before = 0, ""
    n_chars = textpage.count_chars()
    for i in range(n_chars):
        item = _object_of(address, i)
        if not item:
            continue
        why = suspects.get(item, "")
        if (why or not is_all_inside) and _char_box(address, i, *edges.to):
            left, right, bottom, top = edges.values
            x, y = (left + right) / 2, (bottom + top) / 2
            if not _is_inside(x, y, crop):
                why = OUTSIDE
            elif why and any(_is_inside(x, y, box) for box in behind[why]):
                why = ""
        if why != before:
            if i > first:
                yield first, i - first, before
            first, before = i, why
    yield first, n_chars - first, before


def _is_inside(x: float, y: float, box: _Box) -> bool:
    left, bottom, right, top = box
    return left - _NEAR_PT <= x <= right + _NEAR_PT and bottom - _NEAR_PT <= y <= top + _NEAR_PT


def _own_matrix(item: int) -> _Matrix:
    values = _Out(c_float, 6)
    if not _matrix(item, values.to[0]):
        return (1, 0, 0, 1, 0, 0)
    a, b, c, d, e, f = values.values
    return a, b, c, d, e, f


def _product(inner: _Matrix, outer: _Matrix | None) -> _Matrix:
    if outer is None:
        return inner
    a, b, c, d, e, f = outer
    return (
        inner[0] * a + inner[1] * c,
        inner[0] * b + inner[1] * d,
        inner[2] * a + inner[3] * c,
        inner[2] * b + inner[3] * d,
        inner[4] * a + inner[5] * c + e,
        inner[4] * b + inner[5] * d + f,
    )


def _moved(box: Any, matrix: _Matrix | None) -> _Box:
    left, bottom, right, top = box
    if matrix is None:
        return left, bottom, right, top
    a, b, c, d, e, f = matrix
    points = [(a * x + c * y + e, b * x + d * y + f) for x in (left, right) for y in (bottom, top)]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return min(xs), min(ys), max(xs), max(ys)


def _crop(page: pdfium.PdfPage) -> _Box:
    left, bottom, right, top = page.get_cropbox()
    return min(left, right), min(bottom, top), max(left, right), max(bottom, top)
