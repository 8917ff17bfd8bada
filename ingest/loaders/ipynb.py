"""Jupyter notebooks (.ipynb): the cells in order, their text output included.

Text cells are Markdown, whose headings count. Left out: pictures and other output that is not
text, what errors printed, metadata.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from json import JSONDecodeError
from typing import Any

from ingest.decode import decode
from ingest.loaders.base import LoadedText, ParseLimits, TextBuilder, check_text_chars
from ingest.loaders.json import parse
from ingest.loaders.markdown import find_headings
from kb.errors import CorruptFileError

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def load(data: bytes, limits: ParseLimits) -> LoadedText:
    source, encoding, is_guessed = decode(data)
    check_text_chars(len(source), limits.max_text_chars)
    try:
        notebook = parse(source)
    except JSONDecodeError as exc:
        raise CorruptFileError(
            f"the notebook is damaged: no valid JSON at line {exc.lineno}, column {exc.colno}"
        ) from exc
    builder = TextBuilder(limits.max_text_chars)
    for cell in _cells(notebook):
        text = _joined(cell.get("source", cell.get("input")))
        kind = cell.get("cell_type")
        if kind == "markdown":
            builder.append(LoadedText(text, find_headings(text)))
        elif kind == "heading":  # before version 4
            level = str(cell.get("level", 1))
            builder.heading(text, int(level) if level.isdecimal() else 1)
        else:
            builder.add(text)
        for output in _outputs(cell):
            builder.add(output)
    return replace(builder.build(), encoding=encoding, encoding_guessed=is_guessed)


def _cells(notebook: Any) -> Iterator[dict[str, Any]]:
    """Yield the cells of a notebook of version 3 or 4."""
    sheets = notebook.get("worksheets") if isinstance(notebook, dict) else None
    holders = sheets if isinstance(sheets, list) else [notebook]
    lists = [holder.get("cells") for holder in holders if isinstance(holder, dict)]
    if not any(isinstance(cells, list) for cells in lists):
        raise CorruptFileError("the file is not a Jupyter notebook: it has no cells")
    for cells in lists:
        yield from (cell for cell in cells or () if isinstance(cell, dict))


def _outputs(cell: dict[str, Any]) -> Iterator[str]:
    outputs = cell.get("outputs")
    for output in outputs if isinstance(outputs, list) else ():
        if not isinstance(output, dict) or output.get("output_type") in ("error", "pyerr"):
            continue
        shown = output.get("data")
        found = shown.get("text/plain") if isinstance(shown, dict) else output.get("text")
        if text := _COLOURS.sub("", _joined(found)):
            yield text


def _joined(lines: Any) -> str:
    """Return a text that may be stored as a list of lines."""
    if isinstance(lines, list):
        lines = "".join(line for line in lines if isinstance(line, str))
    return lines.replace("\r\n", "\n") if isinstance(lines, str) else ""
