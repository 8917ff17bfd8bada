"""PowerPoint presentations (.pptx, .pptm, .ppsx) by python-pptx: a page per slide.

A slide's title is its heading; without one, the first short line is. Then text boxes in the
order in which they were drawn, groups opened, tables by row, the text of diagrams (SmartArt) and
the speaker's notes. Hidden slides are read and flagged.

Left out: charts, pictures, comments, what only the master slides hold. Text in the colour of its
background, which may come from a master or a picture, is read.
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any
from zipfile import BadZipFile
from zlib import error as ZlibError

from lxml.etree import XMLSyntaxError
from pptx.exc import PythonPptxError
from pptx.package import Package

from ingest.loaders.archive import check_archive, parse_xml
from ingest.loaders.base import LoadedText, ParseLimits, TextBuilder, check_cells
from ingest.loaders.table import rows_as_lines
from ingest.loaders.whitespace import squeeze
from kb.errors import CorruptFileError, LimitExceededError
from kb.records import Flag

_KIND = "a PowerPoint presentation (.pptx)"
_MAX_TITLE_CHARS = 80  # of a first line that stands in for a missing title
_MAX_GROUPS = 100  # groups inside groups
_SHOWN_SLIDES = 20


def load(data: bytes, limits: ParseLimits) -> LoadedText:
    check_archive(data, "ppt/presentation.xml", _KIND, limits)
    builder = TextBuilder(limits.max_text_chars)
    hidden = []
    n_cells = 0
    try:
        # pptx.Presentation() does the same, but refuses shows (.ppsx) by their content type.
        slides = Package.open(io.BytesIO(data)).main_document_part.presentation.slides
        if len(slides) > limits.max_pages:
            raise LimitExceededError(
                f"the presentation has {len(slides):,} slides, more than {limits.max_pages:,}"
            )
        for number, slide in enumerate(slides, start=1):
            builder.page()
            n_cells += _add_slide(builder, slide)
            check_cells(n_cells, limits.max_cells)
            if slide.element.get("show") in ("0", "false"):
                hidden.append(number)
    except (
        PythonPptxError,
        BadZipFile,
        ZlibError,
        EOFError,
        OSError,
        XMLSyntaxError,
        AttributeError,
        LookupError,
        NotImplementedError,
        TypeError,
        ValueError,
    ) as exc:
        raise CorruptFileError("the presentation is damaged and cannot be read") from exc
    return replace(builder.build(), flags=tuple(_flags(hidden)))


def _add_slide(builder: TextBuilder, slide: Any) -> int:
    """Append one slide; return how many table cells it has."""
    shapes = list(_flat_shapes(slide.shapes))
    title = next((shape for shape in shapes if _is_title(shape)), None)
    has_heading = title is not None
    if title is not None:
        # What was drawn before the title follows it, but for a date, which belongs to no part.
        shapes.sort(key=lambda shape: 1 + (shape is not title) if _place(shape) != "dt" else 0)
    n_cells = 0
    for shape in shapes:
        if title is not None and shape is title:
            builder.heading(title.text_frame.text, 1)
        elif getattr(shape, "has_table", False):
            n_cells += len(shape.table.rows) * len(shape.table.columns)
            _add_lines(builder, _table_lines(shape.table))
        elif getattr(shape, "has_text_frame", False):
            lines = list(_text_lines(shape.text_frame))
            if lines and not has_heading and len(lines[0]) <= _MAX_TITLE_CHARS:
                builder.heading(lines.pop(0), 1)
                has_heading = True
            _add_lines(builder, lines)
    for relation in slide.part.rels.values():
        if relation.reltype.endswith("/diagramData") and not relation.is_external:
            _add_lines(builder, _diagram_lines(relation.target_part.blob))
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        lines = list(_text_lines(slide.notes_slide.notes_text_frame))
        _add_lines(builder, [f"Notes: {lines[0]}", *lines[1:]] if lines else [])
    return n_cells


def _add_lines(builder: TextBuilder, lines: Iterable[str]) -> None:
    for i, line in enumerate(lines):
        builder.add(line, "\n" if i else "\n\n")


def _flat_shapes(shapes: Any) -> Iterator[Any]:
    """Yield shapes in order, those of groups in the place of the group."""
    waiting = [iter(shapes)]
    while waiting:
        shape = next(waiting[-1], None)
        if shape is None:
            waiting.pop()
        elif shape.element.tag.endswith("}grpSp"):
            if len(waiting) > _MAX_GROUPS:
                raise LimitExceededError("the presentation nests groups too deeply")
            waiting.append(iter(shape.shapes))
        else:
            yield shape


def _is_title(shape: Any) -> bool:
    return _place(shape) in ("title", "ctrTitle") and bool(shape.text_frame.text.strip())


def _place(shape: Any) -> str:
    """Return what the layout has the shape for, as "title" or "dt" (a date); "" if nothing."""
    kinds = shape.element.xpath("./p:nvSpPr/p:nvPr/p:ph/@type")
    return str(kinds[0]) if kinds else ""


def _text_lines(frame: Any) -> Iterator[str]:
    """Yield the lines of a text; those of deeper levels are indented."""
    for paragraph in frame.paragraphs:
        for line in paragraph.text.replace("\v", "\n").split("\n"):
            if line := squeeze(line):
                yield "  " * paragraph.level + line


def _table_lines(table: Any) -> Iterator[str]:
    rows: list[list[str]] = []
    origins: dict[tuple[int, int], str] = {}  # cells that a merged one covers downwards
    for i, row in enumerate(table.rows):
        line = []
        for j, cell in enumerate(row.cells):
            text = origins.get((i, j), "") if cell.is_spanned else cell.text_frame.text
            if cell.is_merge_origin:
                origins |= {(i + down, j): text for down in range(1, cell.span_height)}
                if i == 0:  # a header names every column it spans
                    origins |= {(i, j + right): text for right in range(1, cell.span_width)}
            line.append(text)
        rows.append(line)
    is_header = bool(table.first_row) and len(rows) > 1 and all(cell.strip() for cell in rows[0])
    return rows_as_lines(rows, 1 if is_header else None)


def _diagram_lines(data: bytes) -> Iterator[str]:
    for point in parse_xml(data).iterfind("{*}ptLst/{*}pt/{*}t"):
        for paragraph in point.iterfind("{*}p"):
            if line := squeeze("".join(part.text or "" for part in paragraph.iter("{*}t"))):
                yield line


def _flags(hidden: list[int]) -> Iterator[Flag]:
    if hidden:
        shown = ", ".join(map(str, hidden[:_SHOWN_SLIDES]))
        more = f" and {len(hidden) - _SHOWN_SLIDES:,} more" if len(hidden) > _SHOWN_SLIDES else ""
        verb = "slide {} is" if len(hidden) == 1 else "slides {} are"
        text = f"{verb.format(shown + more)} hidden in the presentation; the text is included"
        yield Flag("hidden_part", text)
