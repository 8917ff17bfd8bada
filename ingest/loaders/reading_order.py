"""Boxes of recognised text into the lines that a reader sees, in the order of reading.

A page is read row by row, but for columns of prose, which are read one after the other. A gutter
counts only where both sides look like prose: wide, full lines. So the columns of a table, short
and ragged, stay in their rows. A line across the gutter (a title) ends the columns above it.

Reference: the recursive XY cut (Nagy and Seth, ICPR 1984), with gutters found by what crosses
them and the guard against tables added.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

_MIN_COLUMN_ROWS = 4  # fewer lines side by side are a heading or a signature
_MIN_COLUMN_WIDTH = 8  # line heights; columns of figures are narrower
_MIN_FILL = 0.6  # what a usual line of prose covers of its column
_MIN_SHARED = 0.3  # of the lower column's height must stand beside the other
_MAX_CROSSING = 0.35  # of the height may be lines across the gutter: title, figure, footnote
_SAME_ROW = 0.5  # of the lower box's height must overlap


@dataclass(frozen=True, slots=True)
class Line:
    """Recognised text; `box` is (left, top, right, bottom), y grows downwards.

    `confidence` is the recogniser's own, in [0, 1], higher is better.
    """

    text: str
    confidence: float
    box: tuple[float, float, float, float]

    @property
    def height(self) -> float:
        return self.box[3] - self.box[1]


def in_reading_order(lines: Sequence[Line]) -> list[Line]:
    """Return whole rows in reading order; what stands in one row is joined by a space."""
    lines = [line for line in lines if line.text.strip()]
    gutter = _gutter(lines)
    if gutter is None:
        return [_joined(row) for row in _rows(lines)]
    before, crossing, after = _sides(lines, gutter)
    ordered: list[Line] = []
    top = -math.inf
    for bar in [*_rows(crossing), None]:
        bottom = math.inf if bar is None else median(_middle(line) for line in bar)
        for side in (before, after):
            ordered += in_reading_order([line for line in side if top <= _middle(line) < bottom])
        if bar is not None:
            ordered.append(_joined(bar))
        top = bottom
    return ordered


def gutters(lines: Sequence[Line]) -> list[float]:
    """Return the x of every gutter between columns of prose; titles may cross them."""
    gutter = _gutter(lines)
    if gutter is None:
        return []
    before, _, after = _sides(lines, gutter)
    return [*gutters(before), gutter, *gutters(after)]


def crosses(line: Line, x: float) -> bool:
    """Tell whether a line stands on both sides of `x`, and not only by its margin."""
    return line.box[0] < x - line.height and x + line.height < line.box[2]


def _sides(lines: Sequence[Line], x: float) -> tuple[list[Line], list[Line], list[Line]]:
    """Return what stands before `x`, what crosses it and what stands after it."""
    sides: tuple[list[Line], list[Line], list[Line]] = ([], [], [])
    for line in lines:
        is_after = line.box[0] + line.box[2] > 2 * x
        sides[1 if crosses(line, x) else 2 * is_after].append(line)
    return sides


def _gutter(lines: Sequence[Line]) -> float | None:
    """Return the x of the clearest gutter between two columns of prose, if there is one."""
    if len(lines) < 2 * _MIN_COLUMN_ROWS:
        return None
    edges = sorted({edge for line in lines for edge in (line.box[0], line.box[2])})
    height = sum(line.height for line in lines)
    candidates = []
    for left, right in pairwise(edges):
        x = (left + right) / 2
        before, crossing, after = _sides(lines, x)
        crossed = sum(line.height for line in crossing)
        if min(len(before), len(after)) >= _MIN_COLUMN_ROWS and crossed <= _MAX_CROSSING * height:
            touched = sum(line.height for line in lines if line.box[0] < x < line.box[2])
            candidates.append((crossed, touched, left - right, x))
    # The fewest lines across first, then the fewest that touch it, then the widest.
    return next((x for *_, x in sorted(candidates) if _is_between_columns(lines, x)), None)


def _is_between_columns(lines: Sequence[Line], x: float) -> bool:
    before, _, after = _sides(lines, x)
    sides = (before, after)
    if not all(_is_prose(side) for side in sides):
        return False
    tops = [min(line.box[1] for line in side) for side in sides]
    bottoms = [max(line.box[3] for line in side) for side in sides]
    shared = min(bottoms) - max(tops)
    lower = min(bottom - top for top, bottom in zip(tops, bottoms, strict=True))
    return shared >= _MIN_SHARED * lower


def _is_prose(lines: Sequence[Line]) -> bool:
    rows = _rows(lines)
    if len(rows) < _MIN_COLUMN_ROWS:
        return False
    width = max(line.box[2] for line in lines) - min(line.box[0] for line in lines)
    if width < _MIN_COLUMN_WIDTH * median(line.height for line in lines):
        return False
    # Without the room between the cells of a table.
    return median(sum(one.box[2] - one.box[0] for one in row) for row in rows) >= _MIN_FILL * width


def _rows(lines: Sequence[Line]) -> list[list[Line]]:
    """Group lines that stand side by side; rows from the top, lines from the left."""
    rows: list[list[Line]] = []
    for line in sorted(lines, key=_middle):
        last = rows[-1][-1] if rows else None
        if last is not None and _are_side_by_side(last, line):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [sorted(row, key=lambda line: line.box[0]) for row in rows]


def _are_side_by_side(a: Line, b: Line) -> bool:
    overlap = min(a.box[3], b.box[3]) - max(a.box[1], b.box[1])
    return overlap >= _SAME_ROW * min(a.height, b.height)


def _joined(row: Sequence[Line]) -> Line:
    if len(row) == 1:
        return row[0]
    n_chars = sum(len(line.text) for line in row)
    return replace(
        row[0],
        text=" ".join(line.text for line in row),
        confidence=sum(line.confidence * len(line.text) for line in row) / n_chars,
        box=(
            min(line.box[0] for line in row),
            min(line.box[1] for line in row),
            max(line.box[2] for line in row),
            max(line.box[3] for line in row),
        ),
    )


def _middle(line: Line) -> float:
    return (line.box[1] + line.box[3]) / 2
