"""Old Excel workbooks (.xls) by xlrd: as `ingest/loaders/xlsx.py` reads the new ones.

Left out: comments, charts, pictures, macros. A formula without a stored result reads as 0 or
nothing here, which xlrd cannot tell apart.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import xlrd

from ingest.loaders.base import LoadedText, ParseLimits, TextBuilder
from ingest.loaders.cells import number_text
from ingest.loaders.sheet import CellCount, Merge, Sheet, add_sheets, cell_text
from ingest.loaders.signature import OLE
from kb.errors import CorruptFileError, EncryptedFileError

# The first record of a workbook that is not in a container, by version 2, 3, 4, 5 and later.
_BARE = (b"\x09\x00", b"\x09\x02", b"\x09\x04", b"\x09\x08")
_NUMBERS = (xlrd.XL_CELL_NUMBER, xlrd.XL_CELL_DATE)


def load(data: bytes, limits: ParseLimits) -> LoadedText:
    if data.startswith(b"PK"):
        raise CorruptFileError(
            "the file is a zip archive or new Office document, not an old Excel workbook (.xls); "
            "give it the extension of its real format"
        )
    if not data.startswith((OLE, *_BARE)):
        raise CorruptFileError(
            "the file is not an old Excel workbook (.xls), whatever its name says; "
            "some programs export web pages or CSV under that name"
        )
    builder = TextBuilder(limits.max_text_chars)
    try:
        # What xlrd has to say of odd files would go to standard output.
        book = xlrd.open_workbook(
            file_contents=data, logfile=io.StringIO(), formatting_info=True, on_demand=True
        )
        flags = add_sheets(builder, _sheets(book, CellCount(limits)))
    except xlrd.XLRDError as exc:
        if "encrypted" in str(exc).casefold():
            raise EncryptedFileError(
                "the workbook needs a password; save a copy without one and ingest that"
            ) from exc
        raise CorruptFileError("the Excel workbook is damaged and cannot be read") from exc
    except (
        xlrd.compdoc.CompDocError,
        struct.error,
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as exc:
        raise CorruptFileError("the Excel workbook is damaged and cannot be read") from exc
    return replace(builder.build(), flags=flags)


def _sheets(book: Any, count: CellCount) -> Iterator[Sheet]:
    for index in range(book.nsheets):
        table = book.sheet_by_index(index)
        sheet = Sheet(table.name, is_hidden=bool(table.visibility))
        sheet.merges = [
            Merge(top + 1, left, bottom, right - 1)
            for top, bottom, left, right in table.merged_cells
        ]
        for row in range(table.nrows):
            cells = {}
            for column, cell in enumerate(table.row(row)):
                if text := cell_text(_value(cell, book)):
                    count.add(text)
                    cells[column] = text
            if cells:
                sheet.cells[row + 1] = cells
        book.unload_sheet(index)
        yield sheet


def _value(cell: Any, book: Any) -> str:
    if cell.ctype in _NUMBERS:
        style = book.xf_list[cell.xf_index] if cell.xf_index is not None else None
        found = book.format_map.get(style.format_key) if style else None
        number_format = found.format_str if found else ""
        return number_text(cell.value, number_format, is_1904=bool(book.datemode))
    if cell.ctype == xlrd.XL_CELL_BOOLEAN:
        return "TRUE" if cell.value else "FALSE"
    if cell.ctype == xlrd.XL_CELL_ERROR:
        return str(xlrd.error_text_from_code.get(cell.value, ""))
    return str(cell.value)
