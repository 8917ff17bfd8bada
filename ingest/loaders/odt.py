"""OpenDocument text (.odt): headings with their levels, paragraphs, lists, tables by row.

Left out: headers and footers, comments, footnotes' numbers, deleted text that change tracking
keeps, pictures, formulas; text that a style of the document's own hides, which is counted.
Automatic numbers are not in the file and not made. Where a document has no headings, chapter
titles in the text count.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from zipfile import BadZipFile, ZipFile

from lxml import etree

from ingest.loaders.archive import check_archive, read_xml
from ingest.loaders.base import LoadedText, ParseLimits, TextBuilder, check_cells
from ingest.loaders.chapters import find_chapters
from ingest.loaders.table import rows_as_lines
from ingest.loaders.whitespace import n_visible, squeeze
from kb.errors import CorruptFileError, EncryptedFileError

_KIND = "an OpenDocument text (.odt)"
_SKIPPED = re.compile(
    r"annotation(-end)?|tracked-changes|forms|(sequence|variable|user-field)-decls|object"
    r"|table-of-content|alphabetical-index|title|desc|note-citation|ruby-text"
)
_TINY = re.compile(r"(?:0(?:\.\d+)?|1(?:\.0+)?)(?:pt|%)")
_WHITE = re.compile("#f[5-9a-f]f[5-9a-f]f[5-9a-f]", re.IGNORECASE)
_WHITE_TEXT = "white text"
_MAX_REPEATED = 1000  # cells that a file says are alike; blank ones fill whole sheets
_MAX_SPACES = 100


def load(data: bytes, limits: ParseLimits) -> LoadedText:
    check_archive(data, "content.xml", _KIND, limits)
    builder = TextBuilder(limits.max_text_chars)
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            if "META-INF/manifest.xml" in archive.namelist():
                manifest = read_xml(archive, "META-INF/manifest.xml")
                if next(manifest.iter("{*}encryption-data"), None) is not None:
                    raise EncryptedFileError(
                        "the file needs a password; save a copy without one and ingest that"
                    )
            content = read_xml(archive, "content.xml")
    except (BadZipFile, OSError) as exc:
        raise CorruptFileError(f"the file is damaged: {_KIND} could not be unpacked") from exc
    body = content.find("{*}body/{*}text")
    if body is None:
        raise CorruptFileError(f"the file is another OpenDocument format, not {_KIND}")
    _remove_hidden(body, _hidden_styles(content), builder)
    _Reader(builder, limits).read(body)
    loaded = builder.build()
    return loaded if loaded.headings else replace(loaded, headings=find_chapters(loaded.text))


class _Reader:
    """Writes the blocks below an element to a builder; nesting is bounded by the XML parser."""

    def __init__(self, builder: TextBuilder, limits: ParseLimits) -> None:
        self._builder = builder
        self._limits = limits
        self._n_cells = 0
        self._list_depth = 0
        self._is_tight = False

    def read(self, element: etree._Element) -> None:
        for child in element:
            name = _name(child)
            if name == "h":
                self._builder.heading(_text(child), _number(child, "outline-level"))
                self._is_tight = False
            elif name == "p":
                self._add(_text(child))
                for frame in child.iter("{*}text-box"):
                    # A box inside a box is read with that one.
                    if next(frame.iterancestors("{*}p", "{*}h")) is child:
                        self.read(frame)
            elif name == "list":
                self._read_list(child)
            elif name == "table":
                self._read_table(child)
            elif not _SKIPPED.fullmatch(name):
                self.read(child)  # sections, indexes, groups

    def _add(self, text: str, *, is_tight: bool = False) -> None:
        for line in text.split("\n"):
            if line := squeeze(line):
                self._builder.add(line, "\n" if is_tight else "\n\n")
                is_tight = True
        self._is_tight = is_tight

    def _read_list(self, element: etree._Element) -> None:
        self._list_depth += 1
        indent = "  " * (self._list_depth - 1)
        for item in element:
            marker = f"{indent}- "
            for child in item:
                if _name(child) == "list":
                    self._read_list(child)
                elif _name(child) == "h":
                    self.read(item)
                    break
                elif text := squeeze(_text(child)):
                    is_tight = self._is_tight and self._list_depth > 0
                    self._builder.add(marker + text, "\n" if is_tight else "\n\n")
                    self._is_tight = True
                    marker = f"{indent}  "
        self._list_depth -= 1

    def _read_table(self, element: etree._Element) -> None:
        rows = [row for row in element.iter("{*}table-row") if _table_of(row) is element]
        n_header = sum(_name(row.getparent()) == "table-header-rows" for row in rows)
        grid = [list(self._cells(row)) for row in rows]
        lines = rows_as_lines(self._repeat_downwards(grid), n_header or None)
        for i, line in enumerate(lines):
            self._builder.add(line, "\n" if i else "\n\n")
        self._is_tight = False

    def _cells(self, row: etree._Element) -> Iterator[tuple[str, int]]:
        """Yield text and height of each cell; those that a merged one covers are blank."""
        for cell in row:
            if _name(cell) not in ("table-cell", "covered-table-cell"):
                continue
            parts = [squeeze(_text(part)) for part in cell.iter("{*}p", "{*}h")]
            text = " ".join(filter(None, parts)) if _name(cell) == "table-cell" else ""
            n_repeated = min(_number(cell, "number-columns-repeated"), _MAX_REPEATED)
            self._n_cells += n_repeated
            check_cells(self._n_cells, self._limits.max_cells)
            height = min(_number(cell, "number-rows-spanned"), _MAX_REPEATED)
            yield from [(text, height)] * n_repeated

    def _repeat_downwards(self, grid: list[list[tuple[str, int]]]) -> list[list[str]]:
        rows = [[text for text, _ in row] for row in grid]
        n_repeated = 0
        for i, row in enumerate(grid):
            for j, (text, height) in enumerate(row):
                if not text or height == 1:
                    continue
                n_repeated += height
                check_cells(n_repeated, self._limits.max_cells)
                for below in rows[i + 1 : i + height]:
                    if j < len(below) and not below[j]:
                        below[j] = text
        return rows


def _table_of(row: etree._Element) -> etree._Element | None:
    return next(row.iterancestors("{*}table"), None)


def _remove_hidden(
    body: etree._Element, hidden_styles: dict[str, str], builder: TextBuilder
) -> None:
    """Take text in those styles out, and count it; white text in tables and boxes stays."""
    if not hidden_styles:
        return
    for element in list(body.iter("{*}p", "{*}h", "{*}span", "{*}a")):
        why = hidden_styles.get(_attribute(element, "style-name"))
        coloured = element.iterancestors("{*}table-cell", "{*}text-box", "{*}custom-shape")
        if why is None or (why == _WHITE_TEXT and next(coloured, None) is not None):
            continue
        builder.hidden[why] += n_visible("".join(map(str, element.itertext())))
        tail = element.tail
        element.clear()
        element.tail = tail


def _hidden_styles(content: etree._Element) -> dict[str, str]:
    """Return why text in a style of the document's own cannot be seen, by the style's name."""
    found = {}
    for style in content.iterfind("{*}automatic-styles/{*}style"):
        shown = {
            etree.QName(key).localname: value
            for kind in ("text", "paragraph")
            for properties in style.iterfind(f"{{*}}{kind}-properties")
            for key, value in properties.attrib.items()
        }
        has_background = shown.get("background-color", "transparent") != "transparent"
        name = _attribute(style, "name")
        if shown.get("display") == "none":
            found[name] = "hidden text"
        elif _TINY.fullmatch(shown.get("font-size", "")):
            found[name] = "text in a tiny font"
        elif _WHITE.fullmatch(shown.get("color", "")) and not has_background:
            found[name] = _WHITE_TEXT
    return found


def _text(element: etree._Element) -> str:
    """Return the text of a paragraph, with line breaks; text boxes are read on their own."""
    parts = [element.text or ""]
    for child in element:
        name = _name(child)
        if name == "s":
            parts.append(" " * min(_number(child, "c"), _MAX_SPACES))
        elif name == "tab":
            parts.append("\t")
        elif name == "line-break":
            parts.append("\n")
        elif name == "note":
            parts.append(f" ({squeeze(_text(child))}) ")
        elif name != "text-box" and not _SKIPPED.fullmatch(name):
            parts.append(_text(child))
        parts.append(child.tail or "")
    return "".join(parts)


def _number(element: etree._Element, attribute: str) -> int:
    value = _attribute(element, attribute)
    return max(int(value), 1) if value.isdecimal() else 1


def _attribute(element: etree._Element, name: str) -> str:
    return next((str(v) for k, v in element.attrib.items() if str(k).endswith(f"}}{name}")), "")


def _name(element: etree._Element | None) -> str:
    """Return an element's name without its namespace; "" for comments and the like."""
    return etree.QName(element).localname if element is not None and _is_element(element) else ""


def _is_element(node: etree._Element) -> bool:
    return isinstance(node.tag, str)
