"""Text in a picture, by PP-OCR (the package `rapidocr`, whose models come with it, offline).

Lines are found in a reduced picture, since that costs time by its area, and read from the full
one. A page that lies on its side or stands on its head is turned first, by the vote of its lines.
Lines that the recogniser itself doubts are left out.

Not done: handwriting (some is read), formulas, lines of a table's grid, text along curves.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ingest.loaders import progress
from ingest.loaders.reading_order import Line, crosses, gutters, in_reading_order
from kb.errors import LimitExceededError, LoadError

_Pixels = NDArray[np.uint8]  # (height, width, 3), blue first, as OpenCV has it
_Boxes = NDArray[np.float32]  # (n, 4, 2): corners as (x, y), clockwise from the text's top left

# Lines are found in a picture of at most this side, in pixels: an A4 page then has 110 dpi.
_DETECTION_SIDE = 1280
_MIN_LINE_HEIGHT = 11.0  # pixels there; smaller lines are looked for again in a larger picture
_LARGE_DETECTION_SIDE = 2240
_MAX_NARROWNESS = 4  # height per width
_MAX_SIDE = 3400  # of the picture that is read: A4 at 300 dpi; the recogniser reduces it anyway
_MIN_SIDE = 12  # no character fits into less
# A longer picture (of a chat, a receipt) is read in pieces of about this height per width.
_LONG, _PIECE = 2.2, 1.5
_CUT_WITHIN = 0.25  # of a piece, from its end, the quietest row is where it is cut
_MIN_CUT_WIDTH = 100  # a narrower one is a line on its side, or no text
_MAX_PIECES = 100  # some seconds each; 160,000 rows of a telephone screen
_QUIET = 0.3  # of the contrast of rows with text
# Lines below it are mostly patterns that are no text; a pattern is most often seen as one sign.
_MIN_CONFIDENCE = 0.5
_SHORT, _MIN_CONFIDENCE_SHORT = 3, 0.8
_LINES_PER_PART = 48  # read at a time; a newspaper's page has hundreds
_TALL = 1.5  # height per width from which a line's box is one of turned text
_N_VOTERS = 9  # lines, the longest, that tell how the page lies
# Between two columns there is at least this much room, in line heights, with at most this much
# of the ink of letters.
_BLANK, _BLANK_INK = 0.25, 0.3
_MIN_WIDTH_FOR_SKEW = 4.0  # heights; the slope of shorter lines says little


@dataclass(frozen=True, slots=True)
class PageText:
    """Lines in reading order; `confidence` in [0, 1] is the mean over all characters.

    It counts also the characters of the lines that were left out; 0 where no line was found.
    """

    lines: tuple[Line, ...]
    confidence: float


def read_picture(picture: Image.Image) -> PageText:
    """Read the text of a picture (mode RGB), which is one page.

    Raises:
        LimitExceededError: it is as long as hundreds of pages.
        LoadError: the recogniser is not installed properly.
        MemoryError: it needs more memory than the process may have.
    """
    if min(picture.size) < _MIN_SIDE:
        return PageText((), 0.0)
    lines: list[Line] = []
    kept: list[Line] = []
    for top, piece in _pieces(picture):
        progress.next_part()
        found = [_moved(line, top) for line in _read_piece(piece)]
        lines += found
        kept += in_reading_order([line for line in found if _is_clear(line)])
    n_chars = sum(len(line.text) for line in lines)
    confidence = sum(line.confidence * len(line.text) for line in lines) / max(n_chars, 1)
    return PageText(tuple(kept), confidence)


def _is_clear(line: Line) -> bool:
    least = _MIN_CONFIDENCE if len(line.text) >= _SHORT else _MIN_CONFIDENCE_SHORT
    return line.confidence >= least


def _moved(line: Line, down: float) -> Line:
    left, top, right, bottom = line.box
    return Line(line.text, line.confidence, (left, top + down, right, bottom + down))


def _pieces(picture: Image.Image) -> list[tuple[int, Image.Image]]:
    """Cut a long picture between its lines, if that can be done: ``(top, piece)``.

    Raises:
        LimitExceededError: that would take hours.
    """
    width, height = picture.size
    if height <= max(_LONG * width, _LARGE_DETECTION_SIDE) or width < _MIN_CUT_WIDTH:
        return [(0, picture)]
    if height > _MAX_PIECES * _PIECE * width:
        raise LimitExceededError(
            f"the picture is {height // width:,} times as high as wide; cut it into pages"
        )
    ink = np.asarray(picture.convert("L"), dtype=np.float32).std(axis=1)
    pieces, top = [], 0
    while top < height:
        bottom = min(top + round(_PIECE * width), height)
        if bottom < height:
            first = bottom - max(round(_CUT_WITHIN * _PIECE * width), 1)
            least = ink[first:bottom].min()
            if least > _QUIET * np.percentile(ink, 90):  # it may lie on its side
                return [(0, picture)]
            # The middle of the quietest rows, so that no line's edge is cut.
            quiet = np.flatnonzero(ink[first:bottom] <= least + 1)
            bottom = first + int(quiet[len(quiet) // 2]) + 1
        pieces.append((top, picture.crop((0, top, width, bottom))))
        top = bottom
    return pieces


def _read_piece(picture: Image.Image) -> list[Line]:
    if min(picture.size) < _MIN_SIDE:
        return []
    scale = min(_MAX_SIDE / max(picture.size), 1.0)
    pixels = _pixels(picture, scale)
    engine = _engine()
    try:
        boxes = _find_lines(engine, picture) * scale
        if not len(boxes):
            return []
        pixels, boxes = _upright(engine, pixels, boxes)
        boxes = _split_at_gutters(engine, pixels, boxes)
        texts, confidences = _recognise(engine, pixels, boxes)
    except Exception as exc:
        # Each library under rapidocr has an error of its own for want of memory.
        if "alloc" in str(exc) or "Insufficient memory" in str(exc):
            raise MemoryError from exc
        raise
    return [
        Line(" ".join(text.split()), float(confidence), box)
        for text, confidence, box in zip(texts, confidences, _levelled(boxes / scale), strict=True)
    ]


@cache
def _engine() -> Any:
    """Return the recogniser; its import and models take a second or two, once a process."""
    try:
        import cv2
        from rapidocr import RapidOCR
    except ImportError as exc:
        raise LoadError(f"OCR needs the package {exc.name!r}, which is not installed") from exc
    cv2.setNumThreads(1)
    return RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.use_preprocess_img": False,  # it would reduce the picture that is read
            "Global.text_score": 0.0,  # `read_picture` has its own bound
            # Several parsers may run at a time.
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
        }
    )


def _pixels(picture: Image.Image, scale: float) -> _Pixels:
    if scale < 1:
        size = (round(picture.width * scale) or 1, round(picture.height * scale) or 1)
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])


def _find_lines(engine: Any, picture: Image.Image) -> _Boxes:
    """Return the boxes of lines in the picture's own pixels."""
    boxes = np.zeros((0, 4, 2), dtype=np.float32)
    for side in (_DETECTION_SIDE, _LARGE_DETECTION_SIDE):
        scale = min(side / max(picture.size), 1.0)
        pixels = _widened(_pixels(picture, scale))
        found = engine(pixels, use_det=True, use_cls=False, use_rec=False).boxes
        if found is None:
            break
        boxes = np.asarray(found, dtype=np.float32)
        heights = np.minimum(*_sides(boxes))
        boxes = boxes / scale
        if scale == 1 or median(heights.tolist()) >= _MIN_LINE_HEIGHT:
            break
    return boxes


def _widened(pixels: _Pixels) -> _Pixels:
    """Give a narrow picture a margin; the detector enlarges what is narrow, whatever its height."""
    height, width = pixels.shape[:2]
    margin = max(height // _MAX_NARROWNESS - width, 0)
    if not margin:
        return pixels
    paper = np.median(pixels, axis=(0, 1)).astype(np.uint8)
    return np.concatenate([pixels, np.broadcast_to(paper, (height, margin, 3))], axis=1)


def _sides(boxes: _Boxes) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return widths and heights, along the text and across it."""
    widths = np.linalg.norm(boxes[:, 1] - boxes[:, 0], axis=1)
    heights = np.linalg.norm(boxes[:, 3] - boxes[:, 0], axis=1)
    return widths, heights


def _upright(engine: Any, pixels: _Pixels, boxes: _Boxes) -> tuple[_Pixels, _Boxes]:
    """Turn the page by a quarter or half, if its longest lines are turned."""
    widths, heights = _sides(boxes)
    order = np.argsort(-np.maximum(widths, heights))[:_N_VOTERS]
    longest, is_tall = boxes[order], (heights >= _TALL * widths)[order]
    # Of boxes of the minority nothing can be learnt about the page.
    lies = bool(is_tall.sum() * 2 > len(is_tall))
    crops = engine.crop_text_regions(pixels, longest[is_tall == lies])  # tall ones come lying
    if not lies and not _stand_on_their_heads(engine, crops):
        return pixels, boxes
    turned = [np.ascontiguousarray(crop[::-1, ::-1]) for crop in crops]
    _, as_they_are = _recognise_crops(engine, crops)
    _, upside_down = _recognise_crops(engine, turned)
    is_upside_down = float(np.mean(upside_down)) > float(np.mean(as_they_are))
    quarters = int(lies) + 2 * is_upside_down  # counter-clockwise
    return _turned(pixels, boxes, quarters)


def _stand_on_their_heads(engine: Any, crops: Sequence[_Pixels]) -> bool:
    _, classified = engine.cls_and_rotate(list(crops))
    votes = [label == "180" for label, _ in classified.cls_res]
    return 2 * votes.count(True) >= len(votes)


def _turned(pixels: _Pixels, boxes: _Boxes, quarters: int) -> tuple[_Pixels, _Boxes]:
    for _ in range(quarters):
        width = pixels.shape[1]
        pixels = np.rot90(pixels)
        # What was at the right is at the top; the top right corner becomes the top left.
        boxes = np.roll(np.stack([boxes[..., 1], width - boxes[..., 0]], axis=-1), -1, axis=1)
    return np.ascontiguousarray(pixels), np.ascontiguousarray(boxes, dtype=np.float32)


def _split_at_gutters(engine: Any, pixels: _Pixels, boxes: _Boxes) -> _Boxes:
    """Part boxes in which lines of two columns grew together, as narrow gutters make them do."""
    for x in gutters(_unread(boxes)):
        parts: list[NDArray[np.float32]] = []
        for box, line in zip(boxes, _unread(boxes), strict=True):
            cut = _blank_near(engine, pixels, box, line, x) if crosses(line, x) else None
            parts += [box] if cut is None else _halves(box, cut)
        boxes = np.stack(parts)
    return boxes


def _unread(boxes: _Boxes) -> list[Line]:
    return [Line("unread", 1.0, box) for box in _levelled(boxes)]


def _blank_near(
    engine: Any, pixels: _Pixels, box: NDArray[np.float32], line: Line, x: float
) -> float | None:
    """Return where, as a share of its width, a line's box is blank about `x`; None if nowhere."""
    (crop,) = engine.crop_text_regions(pixels, box[None])
    ink = np.convolve(crop.mean(axis=2).std(axis=0), np.ones(3) / 3, mode="same")
    height, width = crop.shape[:2]
    middle = (x - line.box[0]) / (line.box[2] - line.box[0]) * width
    first = max(round(middle - height), 0)
    paper, full = np.percentile(ink, [10, 90])  # paper has noise
    is_blank = ink[first : round(middle + height)] <= paper + _BLANK_INK * (full - paper)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_blank, [False]]).astype(np.int8)))
    runs = edges.reshape(-1, 2)  # (first, behind the last)
    if not len(runs):
        return None
    start, end = max(runs.tolist(), key=lambda run: run[1] - run[0])
    return float(first + (start + end) / 2) / width if end - start >= _BLANK * height else None


def _halves(box: NDArray[np.float32], share: float) -> list[NDArray[np.float32]]:
    top, bottom = box[0] + share * (box[1] - box[0]), box[3] + share * (box[2] - box[3])
    return [np.stack([box[0], top, bottom, box[3]]), np.stack([top, box[1], box[2], bottom])]


def _recognise(
    engine: Any, pixels: _Pixels, boxes: _Boxes
) -> tuple[Sequence[str], Sequence[float]]:
    crops = engine.crop_text_regions(pixels, boxes)
    widths, heights = _sides(boxes)
    tall = np.flatnonzero(heights >= _TALL * widths).tolist()
    if tall:  # a line in the margin may run up or down
        turned, _ = engine.cls_and_rotate([crops[i] for i in tall])
        for i, crop in zip(tall, turned, strict=True):
            crops[i] = crop
    return _recognise_crops(engine, crops)


def _recognise_crops(
    engine: Any, crops: Sequence[_Pixels]
) -> tuple[Sequence[str], Sequence[float]]:
    texts: list[str] = []
    confidences: list[float] = []
    for first in range(0, len(crops), _LINES_PER_PART):
        progress.next_part()
        recognised = engine.recognize_txt(list(crops[first : first + _LINES_PER_PART]))
        texts += recognised.txts
        confidences += recognised.scores
    return texts, confidences


def _levelled(boxes: _Boxes) -> list[tuple[float, float, float, float]]:
    """Return (left, top, right, bottom) of boxes after the page's skew is taken out."""
    widths, heights = _sides(boxes)
    along = (boxes[:, 1] - boxes[:, 0])[widths >= _MIN_WIDTH_FOR_SKEW * heights]
    angle = median(np.arctan2(along[:, 1], along[:, 0]).tolist()) if len(along) else 0.0
    cos, sin = math.cos(angle), math.sin(angle)
    corners = boxes @ np.array([[cos, -sin], [sin, cos]], dtype=np.float32)
    least, most = corners.min(axis=1).tolist(), corners.max(axis=1).tolist()
    return [(*low, *high) for low, high in zip(least, most, strict=True)]
