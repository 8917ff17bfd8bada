"""Excel workbooks (.xlsx, .xlsm): every sheet, cell values as stored, formulas by their result.

Read with lxml, row by row: openpyxl in its lean mode tells neither merged cells nor formulas
without a result, and its other mode needs fifty times the file's size in memory.

Formulas are not computed: the result that the program stored is taken, and those without one
are counted in a note. Hidden sheets, rows and columns are read and
flagged; white text is not told from other. Left out: comments, charts, text boxes,
pivot caches, pictures, macros.
"""

import io
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import IO
from zipfile import BadZipFile, ZipFile
from zlib import error as ZlibError

from lxml import etree

from ingest.loaders.archive import check_archive, read_xml
from ingest.loaders.base import LoadedText, ParseLimits, TextBuilder, check_text_chars
from ingest.loaders.cells import BUILTIN_FORMATS, number_text
from ingest.loaders.sheet import CellCount, Merge, Sheet, add_sheets, cell_text
from kb.errors import CorruptFileError

_KIND = "an Excel workbook (.xlsx)"
_WORKBOOK = "xl/workbook.xml"
_REFERENCE = re.compile(r"\$?([A-Z]{1,3})\$?(\d{1,7})")
_MAX_COLUMN = 16_384
_DAMAGED = (
    *(BadZipFile, ZlibError, EOFError, OSError, NotImplementedError),
    *(etree.XMLSyntaxError, ValueError, OverflowError),
)
_TRUE = ("1", "true", "on")


@dataclass(slots=True)
class _Book:
    archive: ZipFile
    texts: list[str]  # shared strings
    formats: list[str]  # by style
    is_1904: bool
    count: CellCount
    n_unknown: int = 0  # formulas without a result


def load(data: bytes, limits: ParseLimits) -> LoadedText:
    check_archive(data, _WORKBOOK, _KIND, limits)
    builder = TextBuilder(limits.max_text_chars)
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            workbook = read_xml(archive, _WORKBOOK)
            relations = _relations(archive)
            book = _Book(
                archive=archive,
                texts=list(_shared_texts(archive, relations, limits)),
                formats=_formats(archive, relations),
                is_1904=_is_1904(workbook),
                count=CellCount(limits),
            )
            flags = add_sheets(builder, _sheets(workbook, relations, book))
    except _DAMAGED as exc:
        raise CorruptFileError("the Excel workbook is damaged and cannot be read") from exc
    notes: tuple[str, ...] = ()
    if book.n_unknown:
        verb = "formula has" if book.n_unknown == 1 else "formulas have"
        notes = (
            f"{book.n_unknown:,} {verb} no stored result and cannot be read; "
            "open and save the file in a spreadsheet program",
        )
    return replace(builder.build(), notes=notes, flags=flags)


def _sheets(
    workbook: etree._Element, relations: Mapping[str, tuple[str, str]], book: _Book
) -> Iterator[Sheet]:
    for element in workbook.iterfind("{*}sheets/{*}sheet"):
        relation = next((v for k, v in element.attrib.items() if k.endswith("}id")), "")
        kind, member = relations.get(relation, ("", ""))
        if kind != "worksheet":
            continue  # a sheet that is a chart or a macro
        is_hidden = element.get("state", "visible") != "visible"
        sheet = Sheet(element.get("name", ""), is_hidden=is_hidden)
        try:
            stream = book.archive.open(member)
        except KeyError as exc:
            raise CorruptFileError(f"the workbook is damaged: it lacks {member!r}") from exc
        with stream:
            _read_sheet(stream, sheet, book)
        yield sheet


def _read_sheet(stream: IO[bytes], sheet: Sheet, book: _Book) -> None:
    number = 0
    hidden: set[int] = set()  # columns
    for element in _elements(stream, ("{*}row", "{*}mergeCell", "{*}col")):
        kind = etree.QName(element).localname
        is_hidden = element.get("hidden") in _TRUE
        if kind == "mergeCell":
            if merge := _merge(element.get("ref", "")):
                sheet.merges.append(merge)
            continue
        if kind == "col":
            if is_hidden:
                last = min(int(element.get("max", 0)), _MAX_COLUMN)
                hidden.update(range(max(int(element.get("min", 1)), 1), last + 1))
            continue
        number = int(element.get("r", number + 1))
        cells: dict[int, str] = {}
        column = 0
        for cell in element.iterfind("{*}c"):
            match = _REFERENCE.fullmatch(cell.get("r", ""))
            column = _column(match[1]) if match else column + 1
            text = cell_text(_value(cell, book))
            if text and column <= _MAX_COLUMN:
                book.count.add(text)
                cells[column] = text
                sheet.n_hidden += is_hidden or column in hidden
        if cells:
            sheet.cells[number] = cells


def _elements(stream: IO[bytes], tags: tuple[str, ...]) -> Iterator[etree._Element]:
    """Yield elements as they end, and forget them."""
    events = etree.iterparse(
        stream, events=("end",), tag=tags, resolve_entities=False, no_network=True
    )
    for _, element in events:
        yield element
        element.clear()
        parent = element.getparent()
        while parent is not None and element.getprevious() is not None:
            del parent[0]


def _value(cell: etree._Element, book: _Book) -> str:
    kind = cell.get("t", "n")
    if kind == "inlineStr":
        return "".join(_plain_texts(cell))
    value: str | None = cell.findtext("{*}v")
    if not value:
        book.n_unknown += cell.find("{*}f") is not None
        return ""
    if kind == "s":
        index = int(value)
        return book.texts[index] if 0 <= index < len(book.texts) else ""
    if kind == "b":
        return "TRUE" if value in _TRUE else "FALSE"
    if kind != "n":
        return value  # a formula's text, an error such as #N/A, a date in ISO form
    try:
        number = float(value)
    except ValueError:
        return value
    style = int(cell.get("s", 0))
    number_format = book.formats[style] if 0 <= style < len(book.formats) else ""
    return number_text(number, number_format, is_1904=book.is_1904)


def _plain_texts(element: etree._Element) -> Iterator[str]:
    """Yield the runs of a text, without the phonetic guides above them."""
    for part in element.iter("{*}t"):
        parent = part.getparent()
        if part.text and (parent is None or etree.QName(parent).localname != "rPh"):
            yield part.text


def _shared_texts(
    archive: ZipFile, relations: Mapping[str, tuple[str, str]], limits: ParseLimits
) -> Iterator[str]:
    member = next((m for kind, m in relations.values() if kind == "sharedStrings"), "")
    if member not in archive.namelist():
        return
    n_chars = 0
    with archive.open(member) as stream:
        for element in _elements(stream, ("{*}si",)):
            text = "".join(_plain_texts(element))
            n_chars += len(text)
            check_text_chars(n_chars, limits.max_text_chars)
            yield text


def _formats(archive: ZipFile, relations: Mapping[str, tuple[str, str]]) -> list[str]:
    """Return the number format of each cell style."""
    member = next((m for kind, m in relations.values() if kind == "styles"), "")
    if member not in archive.namelist():
        return []
    styles = read_xml(archive, member)
    own = {
        element.get("numFmtId", ""): element.get("formatCode", "")
        for element in styles.iterfind("{*}numFmts/{*}numFmt")
    }
    ids = [element.get("numFmtId", "0") for element in styles.iterfind("{*}cellXfs/{*}xf")]
    return [own.get(i) or BUILTIN_FORMATS.get(int(i), "") for i in ids]


def _relations(archive: ZipFile) -> dict[str, tuple[str, str]]:
    """Return ``{id: (kind, member)}`` of what the workbook refers to."""
    folder, name = posixpath.split(_WORKBOOK)
    member = f"{folder}/_rels/{name}.rels"
    found = {}
    for element in read_xml(archive, member).iterfind("{*}Relationship"):
        target = posixpath.normpath(posixpath.join("/", folder, element.get("Target", "")))
        kind = element.get("Type", "").rpartition("/")[2]
        found[element.get("Id", "")] = (kind, target.lstrip("/"))
    return found


def _is_1904(workbook: etree._Element) -> bool:
    properties = workbook.find("{*}workbookPr")
    return properties is not None and properties.get("date1904", "") in _TRUE


def _merge(reference: str) -> Merge | None:
    first, _, last = reference.partition(":")
    start, end = _REFERENCE.fullmatch(first), _REFERENCE.fullmatch(last)
    if not start or not end:
        return None
    return Merge(int(start[2]), _column(start[1]), int(end[2]), _column(end[1]))


def _column(letters: str) -> int:
    """Return a column's number: A is 1, AA is 27."""
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - ord("A") + 1
    return number
