"""PDF, read by pypdfium2: the text layer, or OCR of pages without one; pages keep their starts.

Lines broken by the page's width are joined again (`ingest/loaders/pdf_lines.py`), running
headers and page numbers appear once. Headings come from the document's outline, or are the
chapter titles found in the text.

Pages without text that can be used are drawn and read by OCR (`_needs_ocr` decides page by page).

Not done: pictures beside text are ignored; a poor text layer over a scan is taken as it is.
Tables have no marked cells in PDF; their rows come as lines.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_raw

from ingest.loaders import ocr
from ingest.loaders.base import LoadedText, ParseLimits, TextBuilder
from ingest.loaders.chapters import find_chapters
from ingest.loaders.ocr_notes import confidence_notes, pages_named
from ingest.loaders.pdf_hidden import visible_text
from ingest.loaders.pdf_lines import clean, drop_running_lines, goes_on_across_pages, join_lines
from kb.errors import (
    CorruptFileError,
    EncryptedFileError,
    LimitExceededError,
    UnsupportedFormatError,
)

_HEADER_WITHIN = 1024  # bytes; what readers accept before "%PDF-"
_MAX_OUTLINE = 10_000  # entries
_PICTURE_DEPTH = 3  # forms inside forms
# A page with more letters and digits than this has a text layer; a stamp or a page number over a
# scan has fewer.
_FEW_CHARS = 100
_PAGE_SHARE = 0.5  # of the page's area, from which a picture is the page rather than on it
_MAX_UNMAPPED = 0.3  # of the characters may have no meaning outside of the font
_UNMAPPED = ("Co", "Cn")  # Unicode categories: private use, not assigned
# Pages are drawn at 200 dpi, but never with fewer or more pixels than these: some scanners give
# sizes in a unit of their own.
_POINTS_PER_INCH, _DPI = 72, 200
_MIN_SIDE, _MAX_PIXELS = 1600, 25_000_000


def load(data: bytes, limits: ParseLimits) -> LoadedText:
    if b"%PDF-" not in data[:_HEADER_WITHIN]:
        raise CorruptFileError("the file is not a PDF, whatever its name says")
    with _open(data, limits.passwords) as document:
        n_pages = len(document)
        if n_pages > limits.max_pages:
            raise LimitExceededError(
                f"the PDF has {n_pages:,} pages, more than {limits.max_pages:,}; split it"
            )
        hidden: Counter[str] = Counter()
        found = [_read_lines(document, i, hidden) for i in range(n_pages)]
        pages = [lines or [] for lines in found]
        pictures = [i for i in range(n_pages) if _needs_ocr(document, i, found[i])]
        read = {i: _read_by_ocr(document, i) for i in pictures[: limits.max_ocr_pages]}
        for i, page in read.items():
            lines = [line.text for line in page.lines]
            if _n_alphanumeric(lines) > _n_alphanumeric(pages[i]):
                pages[i] = lines
        if not any(pages):
            if None in found:
                raise CorruptFileError("the PDF is damaged: its pages cannot be read")
            if pictures and not read:
                raise UnsupportedFormatError(
                    "the PDF holds only images, and max_ocr_pages = 0 turns OCR off"
                )
        titles = list(_outline(document))
    unread = [i for i, lines in enumerate(found) if lines is None]
    pages = drop_running_lines(pages)
    loaded = _build(pages, _find_titles(pages, titles), limits)
    notes = (
        *confidence_notes({i: page.confidence for i, page in read.items() if page.lines}),
        *_notes(
            [i for i, page in read.items() if not page.lines and not pages[i]],
            pictures[limits.max_ocr_pages :],
            unread,
            limits.max_ocr_pages,
        ),
    )
    return replace(loaded, notes=notes, hidden=hidden)


def _open(data: bytes, passwords: Sequence[str]) -> pdfium.PdfDocument:
    for password in (None, *passwords):
        try:
            return pdfium.PdfDocument(data, password=password)
        except pdfium.PdfiumError as exc:
            error = exc
            if getattr(exc, "err_code", None) != pdfium_raw.FPDF_ERR_PASSWORD:
                break
    raise _open_error(error, passwords) from error


def _open_error(
    exc: pdfium.PdfiumError, passwords: Sequence[str]
) -> EncryptedFileError | CorruptFileError:
    if getattr(exc, "err_code", None) == pdfium_raw.FPDF_ERR_PASSWORD:
        tried = "; none of the setting passwords fits" if passwords else ""
        return EncryptedFileError(
            f"the PDF needs a password{tried}; add it to the setting passwords and ingest with "
            "--retry-failed, or save a copy without one"
        )
    if getattr(exc, "err_code", None) == pdfium_raw.FPDF_ERR_SECURITY:
        return EncryptedFileError("the PDF is locked in a way that cannot be read")
    return CorruptFileError("the PDF is damaged and cannot be opened")


def _read_lines(document: pdfium.PdfDocument, index: int, hidden: Counter[str]) -> list[str] | None:
    """Return the lines of one page that are not blank; None for a page that cannot be read.

    What nobody sees is left out and added to `hidden`.
    """
    try:
        page = document[index]
        textpage = page.get_textpage()
        text, left_out = visible_text(page, textpage)
    except pdfium.PdfiumError:
        return None
    hidden.update(left_out)
    textpage.close()
    page.close()
    return [line for line in clean(text).split("\n") if line]


def _needs_ocr(document: pdfium.PdfDocument, index: int, lines: list[str] | None) -> bool:
    """Tell whether a page has no text layer worth having but something to see."""
    if lines is None:
        return False
    characters = "".join("".join(lines).split())
    n_unmapped = sum(unicodedata.category(character) in _UNMAPPED for character in characters)
    if n_unmapped > _MAX_UNMAPPED * len(characters):
        return True
    if _n_alphanumeric(lines) > _FEW_CHARS:
        return False
    try:
        page = document[index]
        if not characters:  # drawn letters and fonts without a meaning count as well
            return any(True for _ in page.get_objects(max_depth=_PICTURE_DEPTH))
        return _picture_share(page) >= _PAGE_SHARE
    except pdfium.PdfiumError:
        return False


def _n_alphanumeric(lines: list[str]) -> int:
    return sum(character.isalnum() for line in lines for character in line)


def _picture_share(page: pdfium.PdfPage) -> float:
    """Return how much of the page its pictures cover, which may be the strips of one scan."""
    left, bottom, right, top = page.get_bbox()
    covered = 0.0
    images = page.get_objects(filter=(pdfium_raw.FPDF_PAGEOBJ_IMAGE,), max_depth=_PICTURE_DEPTH)
    for image in images:
        x0, y0, x1, y1 = image.get_bounds()
        width, height = min(x1, right) - max(x0, left), min(y1, top) - max(y0, bottom)
        covered += max(width, 0.0) * max(height, 0.0)
    area: float = (right - left) * (top - bottom)
    return covered / max(area, 1.0)


def _read_by_ocr(document: pdfium.PdfDocument, index: int) -> ocr.PageText:
    try:
        page = document[index]
        width, height = page.get_size()
        scale = max(_DPI / _POINTS_PER_INCH, _MIN_SIDE / max(width, height))
        scale = min(scale, math.sqrt(_MAX_PIXELS / (width * height)))
        picture = page.render(scale=scale, rev_byteorder=True).to_pil().convert("RGB")
    except pdfium.PdfiumError:
        return ocr.PageText((), 0.0)
    return ocr.read_picture(picture)


def _notes(
    textless: list[int], left_out: list[int], unread: list[int], max_ocr_pages: int
) -> Iterator[str]:
    """Say which pages (by index) are not in the text, and why."""
    if textless:
        verb = "holds" if len(textless) == 1 else "hold"
        yield f"{pages_named(textless)} {verb} only pictures in which OCR found no text"
    if left_out:
        verb = "needs" if len(left_out) == 1 else "need"
        yield (
            f"{pages_named(left_out)} {verb} OCR, which was not done: "
            f"max_ocr_pages is {max_ocr_pages}"
        )
    if unread:
        verb = "is" if len(unread) == 1 else "are"
        yield f"{pages_named(unread)} {verb} damaged and cannot be read"


def _outline(document: pdfium.PdfDocument) -> Iterator[tuple[int, int, str]]:
    """Yield ``(page index, level from 1, title)`` of the outline's entries that have a page."""
    for bookmark in islice(document.get_toc(), _MAX_OUTLINE):
        target = bookmark.get_dest()
        index = target.get_index() if target else None
        title = " ".join(clean(bookmark.get_title()).split())
        if index is not None and title:
            yield index, bookmark.level + 1, title


def _find_titles(
    pages: list[list[str]], titles: list[tuple[int, int, str]]
) -> dict[tuple[int, int], tuple[int, str]]:
    """Find the lines that the outline names: ``{(page, line): (level, title)}``."""
    found: dict[tuple[int, int], tuple[int, str]] = {}
    for page, level, title in titles:
        for i, line in enumerate(pages[page] if page < len(pages) else ()):
            if (page, i) not in found and _is_title(line, title):
                found[page, i] = (level, title)
                break
    return found


def _is_title(line: str, title: str) -> bool:
    """Tell whether a line is the title; the outline may leave out the section's number."""
    shown, wanted = _bare(line), _bare(title)
    return bool(wanted) and shown.endswith(wanted) and len(shown) <= len(wanted) + 12


def _bare(title: str) -> str:
    folded = unicodedata.normalize("NFKC", title).casefold()
    return "".join(character for character in folded if character.isalnum())


def _build(
    pages: list[list[str]],
    titles: dict[tuple[int, int], tuple[int, str]],
    limits: ParseLimits,
) -> LoadedText:
    builder = TextBuilder(limits.max_text_chars)
    last = ""  # the last paragraph of the page before
    for number, lines in enumerate(pages):
        title_lines = {i for page, i in titles if page == number}
        paragraphs = list(join_lines(lines, title_lines))
        goes_on = bool(paragraphs) and goes_on_across_pages(last, paragraphs[0].text)
        builder.page(separator="\n" if goes_on else "\n\n")
        for i, paragraph in enumerate(paragraphs):
            if paragraph.line in title_lines:
                level, title = titles[number, paragraph.line]
                builder.heading(paragraph.text, level, title)
            else:
                builder.add(paragraph.text, "\n" if i else "")
            last = paragraph.text
    loaded = builder.build()
    if loaded.headings:
        return loaded
    return LoadedText(loaded.text, find_chapters(loaded.text), loaded.pages)
