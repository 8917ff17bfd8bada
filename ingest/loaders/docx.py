"""Word documents (.docx) by `unstructured`: paragraphs, lists with their numbers, tables.

`unstructured` does well here: it counts automatic numbers ("第三条" is often nowhere in the
file), tells headers and footers from the body and keeps merged cells. What it does not tell is
a heading's level when the style is the author's own, so outline levels are read with
python-docx. Where a document has no headings at all, chapter titles in the text count.

Left out: text boxes, footnotes, comments, text in pictures; pages, which Word does not store;
text that nobody sees (`ingest/loaders/docx_hidden.py`), which is counted.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import replace

from docx import Document
from docx.document import Document as DocumentObject
from docx.opc.exceptions import OpcError
from docx.oxml.ns import qn
from lxml.etree import XMLSyntaxError

from ingest.loaders.archive import DAMAGED, check_archive
from ingest.loaders.base import LoadedText, ParseLimits, TextBuilder, check_cells
from ingest.loaders.chapters import find_chapters
from ingest.loaders.docx_hidden import remove_hidden
from ingest.loaders.html import table_lines
from ingest.loaders.unstructured_offline import Element, partition_docx
from kb.errors import CorruptFileError

_KIND = "a Word document (.docx)"
_HEADING_STYLE = re.compile(r"(?:heading|标题)\s*(\d)", re.IGNORECASE)
_BODY_LEVEL = 9  # Word's outline levels are 0 to 8; 9 is body text
_MAX_NUMBER_CHARS = 20
_LOOK_AHEAD = 10  # headings
_LABEL = re.compile(r"[(（]?[\w一二三四五六七八九十百]{1,4}[.)、）．]|第.{1,6}[条章节款项]")


def load(data: bytes, limits: ParseLimits) -> LoadedText:
    check_archive(data, "word/document.xml", _KIND, limits)
    try:
        document = Document(io.BytesIO(data))
        hidden = remove_hidden(document)
        if hidden:
            stripped = io.BytesIO()
            document.save(stripped)
            data = stripped.getvalue()
        headings = _find_headings(document)
        # No language detection: it is slow, and wrong on short Chinese.
        elements = partition_docx(file=io.BytesIO(data), languages=[""])
    except (OpcError, XMLSyntaxError, AttributeError, IndexError, TypeError, *DAMAGED) as exc:
        raise CorruptFileError("the Word document is damaged and cannot be read") from exc
    loaded = replace(_build(elements, headings, limits), hidden=hidden)
    if loaded.headings:
        return loaded
    return replace(loaded, headings=find_chapters(loaded.text))


def _find_headings(document: DocumentObject) -> list[tuple[str, int]]:
    """Return ``(text, level from 1)`` of the paragraphs with an outline level, in order.

    A title (style "Title") stands above headings of level 1.
    """
    levels = {style.style_id: _style_level(style) for style in document.styles}
    found: list[tuple[str, int]] = []
    for paragraph in document.paragraphs:
        text = _flat(paragraph.text)
        own = paragraph._p.xpath("./w:pPr/w:outlineLvl/@w:val")
        level = int(own[0]) if own and own[0].isdecimal() else levels.get(paragraph._p.style)
        if text and level is not None and level < _BODY_LEVEL:
            found.append((text, level + 1))
    lowest = min((level for _, level in found), default=1)
    return [(text, level - lowest + 1) for text, level in found]


def _style_level(style: object) -> int | None:
    """Return a style's outline level, -1 for a title, None for other text."""
    seen = 0
    current = style
    while current is not None and seen < 20:  # styles may be based on each other in a circle
        name = getattr(current, "name", None) or ""
        if match := _HEADING_STYLE.fullmatch(name.strip()):
            return int(match[1]) - 1
        if name == "Title":
            return -1
        level = current.element.find(f"{qn('w:pPr')}/{qn('w:outlineLvl')}")  # type: ignore[attr-defined]
        if level is not None and (level.get(qn("w:val")) or "").isdecimal():
            return int(level.get(qn("w:val")))
        current = getattr(current, "base_style", None)
        seen += 1
    return None


def _build(
    elements: list[Element], headings: list[tuple[str, int]], limits: ParseLimits
) -> LoadedText:
    builder = TextBuilder(limits.max_text_chars)
    marginal: set[str] = set()  # headers and footers come once per section
    following = 0  # index of the next heading
    was_item = False
    n_cells = 0
    for element in elements:
        text = element.text.strip()
        if not text:
            continue
        is_item = element.category == "ListItem"
        if element.category in ("Header", "Footer"):
            if text not in marginal:
                builder.add(text)
            marginal.add(text)
        elif element.category == "Table":
            html = element.metadata.text_as_html or ""
            n_cells += html.count("<td") + html.count("<th")
            check_cells(n_cells, limits.max_cells)
            for i, line in enumerate(table_lines(html, limits) if html else [text]):
                builder.add(line, "\n" if i else "\n\n")
        elif (found := _match(text, headings, following)) is not None:
            builder.heading(text, headings[found][1])
            following = found + 1
        elif is_item:
            builder.add(_item(element, text), "\n" if was_item else "\n\n")
        else:
            builder.add("\n".join(_lines(text)))
        was_item = is_item
    return builder.build()


def _match(text: str, headings: list[tuple[str, int]], following: int) -> int | None:
    """Return the index of the heading that `text` is; some may have been passed over.

    The element's text may begin with the automatic number that the paragraph's has not.
    """
    text = _flat(text)
    for i in range(following, min(following + _LOOK_AHEAD, len(headings))):
        heading = headings[i][0]
        if text.endswith(heading) and len(text) <= len(heading) + _MAX_NUMBER_CHARS:
            return i
    return None


def _item(element: Element, text: str) -> str:
    indent = "  " * (element.metadata.category_depth or 0)
    text = " ".join(_lines(text))
    return f"{indent}{text}" if _LABEL.match(text) else f"{indent}- {text}"


def _lines(text: str) -> Iterator[str]:
    return (" ".join(line.split()) for line in text.split("\n") if line.strip())


def _flat(text: str) -> str:
    return " ".join(text.split())
