"""PDF with a text layer, read by pypdfium2; the start of every page is kept.

Lines broken by the page's width are joined again (`ingest/loaders/pdf_lines.py`), running
headers and page numbers appear once. Headings come from the document's outline, or are the
chapter titles found in the text.

Not done: OCR; a file that holds only pictures is refused, a page of a file with text that holds
only pictures is noted, pictures beside text are ignored.
Tables have no marked cells in PDF; their rows come as lines.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_raw

from ingest.loaders.base import LoadedText, ParseLimits, TextBuilder
from ingest.loaders.chapters import find_chapters
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
_PICTURES = (pdfium_raw.FPDF_PAGEOBJ_IMAGE, pdfium_raw.FPDF_PAGEOBJ_PATH)
_PICTURE_DEPTH = 3  # forms inside forms
_SHOWN_PAGES = 20  # page numbers in a note


def load(data: bytes, limits: ParseLimits) -> LoadedText:
    if b"%PDF-" not in data[:_HEADER_WITHIN]:
        raise CorruptFileError("the file is not a PDF, whatever its name says")
    try:
        document = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as exc:
        raise _open_error(exc) from exc
    with document:
        n_pages = len(document)
        if n_pages > limits.max_pages:
            raise LimitExceededError(
                f"the PDF has {n_pages:,} pages, more than {limits.max_pages:,}; split it"
            )
        hidden: Counter[str] = Counter()
        found = [_read_lines(document, i, hidden) for i in range(n_pages)]
        pages = [lines or [] for lines in found]
        pictures = [i for i in range(n_pages) if not pages[i] and _has_pictures(document, i)]
        if not any(pages):
            if None in found:
                raise CorruptFileError("the PDF is damaged: its pages cannot be read")
            if pictures:
                raise UnsupportedFormatError(
                    "the PDF holds only images; OCR is not built in yet, "
                    "so run it through an OCR program first"
                )
            return LoadedText("", pages=(0,) * n_pages, hidden=hidden)
        titles = list(_outline(document))
    unread = [i for i, lines in enumerate(found) if lines is None]
    pages = drop_running_lines(pages)
    loaded = _build(pages, _find_titles(pages, titles), limits)
    return replace(loaded, notes=tuple(_notes(pictures, unread)), hidden=hidden)


def _open_error(exc: pdfium.PdfiumError) -> EncryptedFileError | CorruptFileError:
    if getattr(exc, "err_code", None) == pdfium_raw.FPDF_ERR_PASSWORD:
        return EncryptedFileError(
            "the PDF needs a password; save a copy without one and ingest that"
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


def _has_pictures(document: pdfium.PdfDocument, index: int) -> bool:
    try:
        page = document[index]
        return any(True for _ in page.get_objects(filter=_PICTURES, max_depth=_PICTURE_DEPTH))
    except pdfium.PdfiumError:
        return False


def _notes(pictures: list[int], unread: list[int]) -> Iterator[str]:
    """Say which pages (by index) are not in the text, and why."""
    if pictures:
        verb = "holds" if len(pictures) == 1 else "hold"
        yield f"{_pages(pictures)} {verb} only pictures, which are not read: there is no OCR yet"
    if unread:
        verb = "is" if len(unread) == 1 else "are"
        yield f"{_pages(unread)} {verb} damaged and cannot be read"


def _pages(indexes: list[int]) -> str:
    shown = ", ".join(str(i + 1) for i in indexes[:_SHOWN_PAGES])
    more = f" and {len(indexes) - _SHOWN_PAGES:,} more" if len(indexes) > _SHOWN_PAGES else ""
    return f"page{'s' if len(indexes) > 1 else ''} {shown}{more}"


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
