"""Office files, books and mails that the loader tests read, made on the spot."""

import io
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from zipfile import ZipFile

from openpyxl import Workbook
from pptx import Presentation

from tests.ingest.files_samples import zip_of

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_SECTOR = 512
_END, _FREE = 0xFFFFFFFE, 0xFFFFFFFF


def pptx(build: Callable[[Any], None]) -> bytes:
    """Return a presentation that `build` adds slides to."""
    presentation = Presentation()
    build(presentation)
    out = io.BytesIO()
    presentation.save(out)
    return out.getvalue()


def xlsx(build: Callable[[Any], None]) -> bytes:
    """Return a workbook whose first sheet is named 表 until `build` changes it."""
    workbook = Workbook()
    workbook.active.title = "表"
    build(workbook)
    out = io.BytesIO()
    workbook.save(out)
    return out.getvalue()


def xls(cells: Mapping[tuple[int, int], str | float]) -> bytes:
    """Return a bare workbook of Excel 2.1, which xlrd reads like any other, in code page 936."""

    def record(kind: int, body: bytes) -> bytes:
        return struct.pack("<HH", kind, len(body)) + body

    records = [record(0x0009, struct.pack("<HH", 2, 0x10)), record(0x0042, struct.pack("<H", 936))]
    for (row, column), value in cells.items():
        head = struct.pack("<HH", row, column) + b"\0\0\0"
        if isinstance(value, str):
            text = value.encode("gbk")
            records.append(record(0x0004, head + bytes([len(text)]) + text))
        else:
            records.append(record(0x0003, head + struct.pack("<d", value)))
    return b"".join([*records, record(0x000A, b"")])


def odt(body: str, **members: bytes) -> bytes:
    """Return an OpenDocument text with this body."""
    namespaces = " ".join(
        f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
        for name in ("office", "text", "table", "drawing")
    )
    content = (
        f"<office:document-content {namespaces}><office:body><office:text>{body}"
        "</office:text></office:body></office:document-content>"
    )
    return zip_of({"content.xml": content.encode(), **members})


def epub(
    chapters: Sequence[str], *, title: str = "设备手册", contents: Sequence[str] = ()
) -> bytes:
    """Return a book of these XHTML bodies; `contents` names them in its table of contents."""
    items = "".join(f'<item id="c{i}" href="text/c{i}.xhtml"/>' for i in range(len(chapters)))
    spine = "".join(f'<itemref idref="c{i}"/>' for i in range(len(chapters)))
    points = "".join(
        f"<navPoint><navLabel><text>{name}</text></navLabel>"
        f'<content src="text/c{i}.xhtml#top"/></navPoint>'
        for i, name in enumerate(contents)
    )
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<metadata><dc:title>{title}</dc:title></metadata><manifest>{items}"
        '<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/></manifest>'
        f"<spine>{spine}</spine></package>"
    )
    container = '<container><rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></container>'
    return zip_of(
        {
            "META-INF/container.xml": container.encode(),
            "OPS/book.opf": package.encode(),
            "OPS/toc.ncx": f"<ncx><navMap>{points}</navMap></ncx>".encode(),
        }
        | {
            f"OPS/text/c{i}.xhtml": (
                '<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html>'
                f"<html><head><title/></head><body>{chapter}</body></html>"
            ).encode()
            for i, chapter in enumerate(chapters)
        }
    )


def changed(data: bytes, member: str, old: str, new: str) -> bytes:
    """Return the archive with a piece of one member replaced."""
    with ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert old.encode() in members[member]
    members[member] = members[member].replace(old.encode(), new.encode())
    return zip_of(members)


def msg(texts: Mapping[str, bytes], attachments: Sequence[Mapping[str, bytes]] = ()) -> bytes:
    """Return an Outlook message of these streams, by property and type, as "0037001F"."""
    sent = struct.pack("<IIQ", 0x00390040, 6, 133_445_088_000_000_000)  # 2023-11-15 08:00 UTC
    root: dict[str, Any] = {f"__substg1.0_{name}": data for name, data in texts.items()}
    root["__properties_version1.0"] = bytes(32) + sent
    for i, streams in enumerate(attachments):
        folder: dict[str, Any] = {f"__substg1.0_{name}": data for name, data in streams.items()}
        folder["__properties_version1.0"] = bytes(8)
        root[f"__attach_version1.0_#{i:08X}"] = folder
    return compound_file(root)


def compound_file(root: Mapping[str, Any]) -> bytes:
    """Return an OLE container of streams (bytes) and folders (mappings of the same kind)."""
    entries: list[list[Any]] = [
        ["Root Entry", 5, b"", _FREE, _FREE]
    ]  # name, kind, data, right, child

    def add(children: Mapping[str, Any], parent: int) -> None:
        previous = 0
        for name, value in children.items():
            is_folder = isinstance(value, Mapping)
            entries.append([name, 1 if is_folder else 2, b"" if is_folder else value, _FREE, _FREE])
            number = len(entries) - 1
            entries[previous or parent][3 if previous else 4] = number
            previous = number
            if is_folder:
                add(value, number)

    add(root, 0)
    sectors: list[bytes] = []
    chain: list[int] = []
    directory = b""
    for name, kind, data, right, child in entries:
        # Streams of less than 4,096 bytes would have to be in a container of their own.
        padded = data.ljust(4096, b"\0") if kind == 2 else b""
        start = len(sectors) if padded else (_END if kind != 1 else 0)
        pieces = [padded[i : i + _SECTOR] for i in range(0, len(padded), _SECTOR)]
        sectors += [piece.ljust(_SECTOR, b"\0") for piece in pieces]
        chain += [start + i + 1 for i in range(len(pieces) - 1)] + [_END] * bool(pieces)
        encoded = name.encode("utf-16-le") + b"\0\0"
        fields = (len(encoded), kind, 1, _FREE, right, child, b"", 0, 0, 0, start, len(padded))
        directory += encoded.ljust(64, b"\0") + struct.pack("<HBBIII16sIQQIQ", *fields)
    n_directory = -(-len(directory) // _SECTOR)
    first = len(sectors)
    directory = directory.ljust(n_directory * _SECTOR, b"\0")
    sectors += [directory[i : i + _SECTOR] for i in range(0, len(directory), _SECTOR)]
    chain += [first + i + 1 for i in range(n_directory - 1)] + [_END]
    n_tables = 1
    while n_tables * 128 < len(chain) + n_tables:
        n_tables += 1
    table_at = len(sectors)
    chain += [0xFFFFFFFD] * n_tables
    table = struct.pack(f"<{len(chain)}I", *chain).ljust(n_tables * _SECTOR, b"\xff")
    fields = (0x3E, 3, 0xFFFE, 9, 6, 0, n_tables, first, 0, 4096, _END, 0, _END, 0)
    header = OLE + struct.pack("<16x5H6x9I", *fields)
    places = [table_at + i for i in range(n_tables)]
    header += struct.pack("<109I", *places, *[_FREE] * (109 - n_tables))
    return header + b"".join(sectors) + table
