"""Pictures of text (PNG, JPEG, TIFF, BMP, WebP, GIF), read by OCR; a TIFF may have many pages.

Of a moving picture the first frame is read. The format is told by the content, not the name.
"""

import struct
import warnings
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, ImageStat, UnidentifiedImageError

from ingest.loaders import ocr
from ingest.loaders.base import LoadedText, ParseLimits, TextBuilder
from ingest.loaders.chapters import find_chapters
from ingest.loaders.ocr_notes import confidence_notes, pages_named
from ingest.loaders.pdf_lines import drop_running_lines, join_lines
from kb.errors import CorruptFileError, LimitExceededError, UnsupportedFormatError

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF")
_MOVING = ("PNG", "WEBP", "GIF")
# An A3 page at 600 dpi has 70 million; more would take the parser's memory.
_MAX_PIXELS = 100_000_000
_DRAFT_SIDE = 4000  # a JPEG is decoded at half its size or less, but not below this
# What Pillow raises on damaged pictures.
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, struct.error)
_TIFF_KIND, _THUMBNAIL = 254, 1
_LIGHT = 128  # of 255
_SQUARE = 1.3  # faxes have twice as many dots across as down


def load(data: bytes, limits: ParseLimits) -> LoadedText:
    if limits.max_ocr_pages == 0:
        raise UnsupportedFormatError("pictures are read by OCR, which max_ocr_pages = 0 turns off")
    # Pillow warns of damage that it can live with and of sizes, which are checked here.
    with warnings.catch_warnings(action="ignore"), _open(data) as image:
        return _load(image, limits)


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError as exc:
        raise CorruptFileError("the file is no picture, or a damaged one") from exc
    except Image.DecompressionBombError as exc:
        raise _too_large() from exc
    except _DAMAGE as exc:
        raise CorruptFileError("the picture is damaged") from exc


def _load(image: Image.Image, limits: ParseLimits) -> LoadedText:
    kind, n_frames = image.format, getattr(image, "n_frames", 1)
    has_pages = kind == "TIFF"
    n_pages = n_frames if has_pages else 1
    notes = []
    if n_pages > limits.max_ocr_pages:
        left_out = list(range(limits.max_ocr_pages, n_pages))
        notes.append(f"{pages_named(left_out)} not read: max_ocr_pages is {limits.max_ocr_pages}")
        n_pages = limits.max_ocr_pages
    if n_frames > 1 and kind in _MOVING:
        notes.append(f"only the first of {n_frames} frames is read")
    read = [ocr.read_picture(page) for page in _pages(image, n_pages)]
    pages = drop_running_lines([[line.text for line in page.lines] for page in read])
    builder = TextBuilder(limits.max_text_chars)
    for lines in pages:
        builder.page()
        for i, paragraph in enumerate(join_lines(lines, ())):
            builder.add(paragraph.text, "\n" if i else "")
    loaded = builder.build()
    confidences = {i: page.confidence for i, page in enumerate(read) if page.lines}
    # A file whose every page is blank is empty, which the report says anyway.
    blank = [i for i, page in enumerate(read) if not page.lines] if confidences else []
    if blank:
        notes.append(f"OCR found no text on {pages_named(blank)}")
    return LoadedText(
        loaded.text,
        find_chapters(loaded.text),
        loaded.pages if has_pages else (),
        notes=(*confidence_notes(confidences), *notes),
    )


def _pages(image: Image.Image, n_pages: int) -> Iterator[Image.Image]:
    """Yield the pages as RGB, the right way up and with square pixels."""
    for i in range(n_pages):
        try:
            page = _page(image, i)
        except _DAMAGE as exc:
            where = f"page {i + 1} of the picture" if n_pages > 1 else "the picture"
            raise CorruptFileError(f"{where} is damaged or cut off") from exc
        if page is not None:
            yield _square(image, _on_paper(page))


def _page(image: Image.Image, index: int) -> Image.Image | None:
    """Return one page, upright; None for the small copy that some programs put beside it."""
    if index:
        image.seek(index)
    if _is_thumbnail(image):
        return None
    if image.width * image.height > _MAX_PIXELS:
        raise _too_large()
    image.draft("RGB", (_DRAFT_SIDE, _DRAFT_SIDE))  # of JPEG only
    image.load()
    return ImageOps.exif_transpose(image)


def _is_thumbnail(image: Image.Image) -> bool:
    tags = getattr(image, "tag_v2", {})
    return bool(tags.get(_TIFF_KIND, 0) & _THUMBNAIL)


def _on_paper(image: Image.Image) -> Image.Image:
    """Return the picture as RGB; what shines through is the opposite of what is drawn."""
    if image.mode.startswith(("I", "F")):  # more than 8 bits a pixel
        values = np.nan_to_num(np.asarray(image, dtype=np.float32))
        values -= values.min()
        scaled = values * (255 / max(float(values.max()), 1e-9))
        return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    alpha = image.getchannel("A")
    drawn = ImageStat.Stat(image.convert("L"), mask=alpha)
    is_light = drawn.count[0] > 0 and drawn.mean[0] > _LIGHT
    paper = Image.new("RGBA", image.size, "black" if is_light else "white")
    return Image.alpha_composite(paper, image).convert("RGB")


def _square(source: Image.Image, picture: Image.Image) -> Image.Image:
    across, down = map(float, source.info.get("dpi", (1, 1)))  # fractions of Pillow's own
    if not (across > 0 and down > 0) or 1 / _SQUARE < across / down < _SQUARE:
        return picture
    if across > down:
        return picture.resize((picture.width, round(picture.height * min(across / down, 4))))
    return picture.resize((round(picture.width * min(down / across, 4)), picture.height))


def _too_large() -> LimitExceededError:
    return LimitExceededError(
        f"the picture has more than {_MAX_PIXELS:,} pixels; save it smaller and ingest that"
    )
