"""Delimited tables (CSV, TSV): a line of text per row, each value with its column's header.

The delimiter is the one that gives the most even rows. Rows may be ragged, cells may hold line
breaks in quotes. Titles above the header are kept as they are. Nothing is computed or typed.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import islice

from ingest.decode import decode
from ingest.loaders.base import LoadedText, ParseLimits, TextBuilder, check_cells
from ingest.loaders.table import is_header_like, rows_as_lines

_DELIMITERS = (",", ";", "\t", "|", "，")
_SAMPLE_CHARS = 65536
_SAMPLE_ROWS = 50
_SEPARATOR_LINE = re.compile(r"sep=(.)\n", re.IGNORECASE)  # what Excel writes and reads


def load(data: bytes, limits: ParseLimits) -> LoadedText:
    text, encoding, is_guessed = decode(data)
    # One global number for all readers; the default of 131,072 is too little for a long cell.
    csv.field_size_limit(max(len(text), csv.field_size_limit()))
    start = 0
    if match := _SEPARATOR_LINE.match(text):
        delimiter, start = match[1], match.end()
    else:
        delimiter = _find_delimiter(text[:_SAMPLE_CHARS])
    rows = list(_read(text[start:], delimiter, limits))
    builder = TextBuilder(limits.max_text_chars)
    n_titles = _count_titles(rows)
    for row in rows[:n_titles]:
        builder.add(" ".join(filter(None, row)), "\n")
    table = rows[n_titles:]
    n_header_rows = int(bool(table) and is_header_like(table[0], may_have_gaps=True))
    for line in rows_as_lines(table, n_header_rows):
        builder.add(line, "\n")
    loaded = builder.build()
    return LoadedText(loaded.text, encoding=encoding, encoding_guessed=is_guessed)


def _read(text: str, delimiter: str, limits: ParseLimits) -> Iterator[list[str]]:
    n_cells = 0
    for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
        n_cells += len(row)
        check_cells(n_cells, limits.max_cells)
        while row and not row[-1].strip():
            row.pop()
        if row:
            yield row


def _find_delimiter(sample: str) -> str:
    """Return the delimiter whose rows are most alike; a comma where none stands out."""
    best, best_score = ",", 0.0
    for delimiter in _DELIMITERS:
        reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)
        widths = [len(row) for row in islice(reader, _SAMPLE_ROWS) if row]
        if not widths or max(widths) == 1:
            continue
        usual = max(set(widths), key=lambda width: (widths.count(width), width))
        score = widths.count(usual) / len(widths) * (usual > 1) + 0.01 * min(usual, 9)
        if usual > 1 and score > best_score:
            best, best_score = delimiter, score
    return best


def _count_titles(rows: Sequence[Sequence[str]]) -> int:
    """Count the leading rows with a single cell, where the rows below have more."""
    for i, row in enumerate(rows[:5]):
        if sum(bool(cell.strip()) for cell in row) > 1:
            return i
    return 0
