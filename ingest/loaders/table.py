"""Tables as text: one line per row, each value with the header of its column.

A row must be understood alone, since a chunk may hold only some rows of a table: a row of a
price list reads ``职级: 经理; 一线城市: 650; 省会城市: 490``.
"""

import re
from collections.abc import Iterator, Sequence

from ingest.loaders.whitespace import squeeze

# A header is short; longer first rows are data.
_MAX_HEADER_CHARS = 60
_NUMBER = re.compile(r"[-+]?[¥$€£]?\s*\d[\d,.\s]*%?")


def rows_as_lines(rows: Sequence[Sequence[str]], n_header_rows: int | None) -> Iterator[str]:
    """Yield a line per row that is not blank; header rows become one line of their own.

    Args:
        rows: cells as text, in the order of columns; rows may differ in length.
        n_header_rows: how many rows the file marks as header; None if it does not say, then
            the first row counts as one if it looks so.
    """
    rows = [[squeeze(cell) for cell in row] for row in rows]
    rows = [row for row in rows if any(row)]
    if not rows:
        return
    if n_header_rows is None:
        if max(map(len, rows)) == 2:
            yield from (": ".join(filter(None, row)) for row in rows)  # names and values
            return
        is_wide_enough = len(rows[0]) >= max(map(len, rows))
        n_header_rows = int(len(rows) > 1 and is_wide_enough and is_header_like(rows[0]))
    header = join_headers(rows[:n_header_rows])
    if header:
        yield " | ".join(dict.fromkeys(filter(None, header)))
    for row in rows[n_header_rows:]:
        yield row_as_line(header, row)


def row_as_line(header: Sequence[str], row: Sequence[str]) -> str:
    """Return the row's values, each behind its header; cells beyond the header stand alone."""
    if not header:
        return " | ".join(filter(None, row))
    names = [*header, *[""] * (len(row) - len(header))]
    cells = (
        f"{name}: {value}" if name and name != value else value
        for name, value in zip(names, row, strict=False)
        if value
    )
    return "; ".join(cells)


def is_header_like(row: Sequence[str], *, may_have_gaps: bool = False) -> bool:
    """Tell whether a first row names columns: short, distinct cells, none a number.

    `may_have_gaps` allows some blank cells, as in an export that begins with a row number.
    """
    names = [cell for cell in row if cell.strip()]
    return (
        len(names) >= (len(row) + 1) // 2 if may_have_gaps else len(names) == len(row) > 1
    ) and (
        all(len(name) <= _MAX_HEADER_CHARS for name in names)
        and len(set(names)) == len(names)
        and not any(_NUMBER.fullmatch(name.strip()) for name in names)
    )


def join_headers(rows: Sequence[Sequence[str]]) -> list[str]:
    """Join header rows column by column: a merged "2023" above "Q1" reads "2023 Q1"."""
    width = max(map(len, rows), default=0)
    columns = ([row[i] for row in rows if i < len(row)] for i in range(width))
    return [" ".join(dict.fromkeys(filter(None, column))) for column in columns]
