"""Sheets of a workbook as text: a heading per sheet, a line per row, tables found by blank rows.

A row reads ``区域: 华东; 7月: 412.6 (第2行)`` or, without Chinese in it, ``... (row 2)``: the
number with which the spreadsheet shows the row, so that a citation leads to it. (Inserting a row
therefore changes the lines below it; appending, which is more common, does not.)

A sheet may hold several tables, one below the other, and titles above them. Merged cells are
repeated where a reader would read them: downwards everywhere, to the right in headers.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ingest.loaders.base import ParseLimits, TextBuilder, check_cells, check_text_chars
from ingest.loaders.table import is_header_like, join_headers, row_as_line
from ingest.loaders.whitespace import WIDE, squeeze
from kb.records import Flag

_WIDE = re.compile(f"[{WIDE}]")
_YEAR = re.compile("(?:19|20)[0-9]{2}")  # a number that may stand in a header
_MAX_TITLES = 5  # rows above a table's header
_MAX_HEADER_ROWS = 4
_MAX_HEADER_SPAN = 1000  # columns


@dataclass(frozen=True, slots=True)
class Merge:
    """A merged range; rows and columns as in `Sheet`, ends included."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(slots=True)
class Sheet:
    """One sheet: ``cells[row][column]`` is text that is not blank; rows from 1, in order."""

    name: str
    is_hidden: bool = False
    cells: dict[int, dict[int, str]] = field(default_factory=dict)
    merges: list[Merge] = field(default_factory=list)
    n_hidden: int = 0  # cells in hidden rows and columns


@dataclass(slots=True)
class CellCount:
    """Counts cells and characters of a whole workbook while it is read."""

    limits: ParseLimits
    n_cells: int = 0
    n_chars: int = 0

    def add(self, text: str) -> None:
        """Count a cell.

        Raises:
            LimitExceededError: that was one too many.
        """
        self.n_cells += 1
        self.n_chars += len(text)
        check_cells(self.n_cells, self.limits.max_cells)
        check_text_chars(self.n_chars, self.limits.max_text_chars)


def add_sheets(builder: TextBuilder, sheets: Iterable[Sheet]) -> tuple[Flag, ...]:
    """Append the sheets that hold text; return flags of what is hidden in the program."""
    flags = []
    for sheet in sheets:
        if not sheet.cells:
            continue
        if sheet.is_hidden:
            flags.append(f"sheet {sheet.name!r} is hidden in the workbook; its text is included")
        elif sheet.n_hidden:
            flags.append(
                f"{sheet.n_hidden:,} cells of sheet {sheet.name!r} are in hidden rows or columns; "
                "their text is included"
            )
        title = f"{sheet.name} (hidden sheet)" if sheet.is_hidden else sheet.name
        builder.heading(title, 1)
        for i, block in enumerate(_blocks(sheet)):
            for j, line in enumerate(block):
                builder.add(line, "\n" if i == 0 or j else "\n\n")
    return tuple(Flag("hidden_part", flag) for flag in flags)


def _blocks(sheet: Sheet) -> Iterator[Iterator[str]]:
    """Yield the lines of each run of rows without a blank one in between."""
    _repeat_downwards(sheet)
    header: dict[int, str] = {}
    run: list[int] = []
    for row in [*sheet.cells, 0]:
        if run and row != run[-1] + 1:
            n_titles = _count_titles(sheet, run)
            table = run[n_titles:]
            n_header = _count_header_rows(sheet, table)
            if n_header:
                header = _header(sheet, table[:n_header])
            elif not _goes_on(sheet, table, header):
                header = {}
            yield _lines(sheet, run, n_titles, n_header, header)
            run = []
        run.append(row)


def _lines(
    sheet: Sheet, run: Sequence[int], n_titles: int, n_header: int, header: dict[int, str]
) -> Iterator[str]:
    for row in run[:n_titles]:
        yield from sheet.cells[row].values()
    table = run[n_titles:]
    is_pairs = not header and len({column for row in table for column in sheet.cells[row]}) == 2
    if n_header:
        yield _numbered(" | ".join(dict.fromkeys(header.values())), table[0])
    for row in table[n_header:]:
        columns = sorted(sheet.cells[row])
        values = [sheet.cells[row][column] for column in columns]
        if is_pairs:
            line = ": ".join(values)
        else:
            # A row with one cell among many columns is a remark on the table, or a subtitle.
            is_remark = len(columns) == 1 and len(header) > 2
            names = [header.get(column, "") for column in columns]
            line = row_as_line([] if is_remark or not header else names, values)
        yield _numbered(line, row)


def _numbered(line: str, row: int) -> str:
    return f"{line} (第{row}行)" if _WIDE.search(line) else f"{line} (row {row})"


def _count_titles(sheet: Sheet, run: Sequence[int]) -> int:
    """Count the leading rows with a single cell, where the rows below have more."""
    for i, row in enumerate(run[: _MAX_TITLES + 1]):
        if len(sheet.cells[row]) > 1:
            return i
    return len(run) if len(run) <= _MAX_TITLES else 0


def _count_header_rows(sheet: Sheet, table: Sequence[int]) -> int:
    """Count the rows that name the columns: one, or as many as merged cells make of it."""
    if len(table) < 2:
        return 0
    first = sheet.cells[table[0]]
    columns = {column for row in table for column in sheet.cells[row]}
    merges = [m for m in sheet.merges if m.top == table[0] and m.left in first]
    n_rows = 1 + any(m.right > m.left for m in merges)
    n_rows = max([n_rows, *(m.bottom - m.top + 1 for m in merges)])
    if 1 < n_rows <= min(_MAX_HEADER_ROWS, len(table) - 1) and all(
        _YEAR.fullmatch(text) or is_header_like([text, ""], may_have_gaps=True)
        for row in table[:n_rows]
        for text in sheet.cells[row].values()
    ):
        return n_rows
    if len(columns) == 2:
        return 0  # names and values
    cells = [first.get(column, "") for column in sorted(columns)]
    is_header = len(columns) > 1 and is_header_like(cells, may_have_gaps=True)
    return int(is_header and len(first) > 1)


def _header(sheet: Sheet, rows: Sequence[int]) -> dict[int, str]:
    """Return the name of each column; merged cells name every column they span."""
    spread = [dict(sheet.cells[row]) for row in rows]
    for merge in sheet.merges:
        for row, names in zip(rows, spread, strict=True):
            if merge.top <= row <= merge.bottom and merge.left in names:
                right = min(merge.right, merge.left + _MAX_HEADER_SPAN)
                for column in range(merge.left + 1, right + 1):
                    names.setdefault(column, names[merge.left])
    columns = sorted({column for names in spread for column in names})
    joined = join_headers([[names.get(column, "") for column in columns] for names in spread])
    return {column: name for column, name in zip(columns, joined, strict=True) if name}


def _goes_on(sheet: Sheet, table: Sequence[int], header: dict[int, str]) -> bool:
    """Tell whether rows below a blank one still fit the columns of the table above it."""
    used = [sheet.cells[row] for row in table]
    return bool(used) and all(len(cells) > 1 and cells.keys() <= header.keys() for cells in used)


def _repeat_downwards(sheet: Sheet) -> None:
    """Put a cell merged over several rows into each of those that hold anything else."""
    tall = sorted((m for m in sheet.merges if m.bottom > m.top), key=lambda m: m.top)
    waiting = iter(tall)
    following = next(waiting, None)
    open_merges: dict[int, tuple[Merge, str]] = {}  # by column; they cannot overlap
    for row, cells in sheet.cells.items():
        while following is not None and following.top <= row:
            text = sheet.cells.get(following.top, {}).get(following.left)
            if text:
                open_merges[following.left] = (following, text)
            following = next(waiting, None)
        open_merges = {
            column: (merge, text)
            for column, (merge, text) in open_merges.items()
            if merge.bottom >= row
        }
        for column, (_, text) in open_merges.items():
            cells.setdefault(column, text)


def cell_text(text: str) -> str:
    """Return a cell's text as one line."""
    return squeeze(text)
