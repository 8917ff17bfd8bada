"""HTML as clean text: headings with their levels, paragraphs, lists, code, tables by row.

Read with lxml, not with `unstructured`: on the manuals of Apache httpd, Chinese and English,
`unstructured` joins the lines of code blocks into one, keeps bars of links, adds the texts of
icons and leaves a space in Chinese sentences wherever the source has a line break; and it needs
4 s and 340 MB for its imports.

Left out: scripts, styles, forms, navigation, pictures, and anything beyond the file itself;
nothing is fetched. Text that the page itself hides (`ingest/loaders/html_hidden.py`) is left out
and counted; style sheets in other files are not known, so text hidden by them is read.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from lxml import etree

from ingest.decode import decode
from ingest.loaders.base import LoadedText, ParseLimits, TextBuilder, check_cells
from ingest.loaders.html_hidden import StyleSheet
from ingest.loaders.table import rows_as_lines
from ingest.loaders.whitespace import n_visible, squeeze
from kb.errors import LimitExceededError

_SKIPPED = re.compile(
    r"script|style|noscript|template|svg|math|nav|iframe|object|applet|select|button|textarea"
    r"|audio|video|canvas|map|datalist"
)
_SKIPPED_ROLES = frozenset(("navigation", "search", "banner", "menu"))
_BLOCK = re.compile(
    r"html|body|address|article|aside|blockquote|center|dd|details|dialog|div|dl|dt|fieldset"
    r"|figcaption|figure|footer|form|header|hr|legend|li|main|ol|p|pre|section|summary"
    r"|table|caption|tbody|td|tfoot|th|thead|title|tr|ul|h[1-6]"
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BREAK = "\0"  # a <br>; decoded text holds no NUL
_MAX_TABLES = 100  # inside one another; pages that use them for layout have about ten
_MAX_SPAN = 1000  # cells: as browsers limit colspan
_MAX_INDENT = 10  # nested lists; deeper ones are damage
_MAX_HEADING_CHARS = 300  # longer ones are a paragraph whose tag was not closed
_PERMALINKS = "¶#§🔗 "
_DECLARED = re.compile(
    rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w:.-]+)|<\?xml[^>]{0,100}?encoding\s*=\s*["']([\w:.-]+)""",
    re.IGNORECASE,
)
_DECLARED_WITHIN = 4096  # bytes; browsers look at 1024


@dataclass(frozen=True, slots=True)
class _Block:
    """A heading (`level` from 1) or a text (0); a tight one follows without an empty line."""

    text: str
    level: int = 0
    is_tight: bool = False


@dataclass(slots=True)
class _Cell:
    blocks: list[_Block]
    is_header: bool
    n_columns: int
    n_rows: int


@dataclass(slots=True)
class _Table:
    rows: list[list[_Cell]] = field(default_factory=list)
    head_rows: set[int] = field(default_factory=set)
    is_in_head: bool = False


def load(data: bytes, limits: ParseLimits) -> LoadedText:
    source, encoding, is_guessed = decode(data, declared=declared_encoding(data))
    return replace(read_html(source, limits), encoding=encoding, encoding_guessed=is_guessed)


def read_html(source: str, limits: ParseLimits) -> LoadedText:
    """Return the clean text of a page that is decoded already."""
    reader = _Reader(limits, StyleSheet(source))
    builder = TextBuilder(limits.max_text_chars, hidden=reader.hidden)
    for block in _read(source, reader):
        if block.level:
            builder.heading(block.text, block.level)
        else:
            builder.add(block.text, "\n" if block.is_tight else "\n\n")
    return builder.build()


def declared_encoding(data: bytes) -> str | None:
    """Return the encoding that a page or XML file names itself, if it does."""
    match = _DECLARED.search(data[:_DECLARED_WITHIN])
    return (match[1] or match[2]).decode("ascii") if match else None


def table_lines(source: str, limits: ParseLimits) -> list[str]:
    """Return the rows of a table that another loader has as HTML, one line each."""
    return [block.text for block in _read(source, _Reader(limits, StyleSheet("")))]


def _read(source: str, reader: "_Reader") -> list[_Block]:
    # huge_tree: without it libxml2 drops what is nested deeper than 256 levels. The reader
    # keeps no tree; time, memory and text limits hold.
    parser = etree.HTMLParser(target=reader, encoding="utf-8", huge_tree=True)
    if not source.strip():
        return []
    parser.feed(source.encode("utf-8", "replace"))
    blocks: list[_Block] = parser.close()
    return blocks


class _Reader:
    """Receives the parser's events; `close` returns the blocks in document order."""

    def __init__(self, limits: ParseLimits, sheet: StyleSheet) -> None:
        self.hidden: Counter[str] = Counter()  # characters left out, by reason
        self._limits = limits
        self._sheet = sheet
        self._looks = [sheet.first_look()]  # of open elements
        self._outputs: list[list[_Block]] = [[]]  # the document, then open table cells
        self._tables: list[_Table] = []
        self._cells: list[_Cell] = []
        self._lists: list[int | None] = []  # the number of the last item; None for bullets
        self._inline: list[str] = []
        self._linked: list[str] = []  # the parts of `_inline` that are links
        self._n_links = 0
        self._marker = ""
        self._is_tight = False
        self._title = ""
        self._n_cells = 0
        # Depths of open elements: of one that is skipped, of <pre>, of a heading, of <a>.
        self._skipped = self._pre = self._heading = self._anchor = 0
        self._is_title = False

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if self._skipped or _is_skipped(tag, attributes):
            self._skipped += 1
            return
        look = self._sheet.look(tag, attributes, self._looks[-1])
        self._looks.append(look)
        if look.is_gone:
            return
        if tag == "br":
            self._inline.append(_BREAK)
        elif tag == "a":
            self._anchor += 1
            self._n_links += 1
        elif _BLOCK.fullmatch(tag) and not self._is_inside_heading(tag):
            self._flush()
            self._open(tag, attributes)

    def end(self, tag: str) -> None:
        if self._skipped:
            self._skipped -= 1
            return
        look = self._looks.pop() if len(self._looks) > 1 else self._looks[0]
        if look.is_gone:
            return
        if tag == "a":
            self._anchor = max(self._anchor - 1, 0)
        elif _BLOCK.fullmatch(tag) and not self._is_inside_heading(tag):
            self._flush()
            self._close(tag)

    def data(self, text: str) -> None:
        if self._skipped:
            return
        if hidden := self._looks[-1].hidden:
            self.hidden[hidden] += n_visible(text)
            return
        if self._is_title:
            self._title += text
            return
        self._inline.append(text)
        if self._anchor:
            self._linked.append(text)

    def comment(self, text: str) -> None:
        """Leave comments out."""

    def pi(self, target: str, text: str | None = None) -> None:
        """Leave processing instructions out."""

    def close(self) -> list[_Block]:
        self._flush()
        while self._tables:  # the file ended inside
            self._close("table")
        blocks = self._outputs[0]
        if not any(block.level == 1 for block in blocks) and (title := squeeze(self._title)):
            blocks.insert(0, _Block(title, level=1))
        return blocks

    def _open(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._is_title = tag == "title"
        if tag in _HEADINGS:
            self._heading = _HEADINGS[tag]
        elif tag == "pre":
            self._pre += 1
        elif tag in ("ul", "ol"):
            self._lists.append(0 if tag == "ol" else None)
        elif tag == "li":
            self._marker, self._is_tight = self._next_marker(), True
        elif tag == "dd":
            self._is_tight = True
        elif tag == "table":
            if len(self._tables) == _MAX_TABLES:  # each is copied into the one around it
                raise LimitExceededError("the page nests tables too deeply to be read")
            self._tables.append(_Table())
        elif self._tables:
            self._open_in_table(tag, attributes)

    def _close(self, tag: str) -> None:
        self._is_title = False
        if tag in _HEADINGS:
            self._heading = 0
        elif tag == "pre":
            self._pre = max(self._pre - 1, 0)
        elif tag in ("ul", "ol"):
            self._lists = self._lists[:-1]
            self._marker = ""
        elif tag == "li":
            self._marker = ""
        elif tag in ("td", "th") and self._cells and len(self._outputs) > 1:
            self._outputs.pop()
            self._cells.pop()
        elif tag == "thead" and self._tables:
            self._tables[-1].is_in_head = False
        elif tag == "table" and self._tables:
            self._outputs[-1] += _table_blocks(self._tables.pop(), self._limits)

    def _open_in_table(self, tag: str, attributes: Mapping[str, str]) -> None:
        table = self._tables[-1]
        if tag == "thead":
            table.is_in_head = True
        elif tag == "tr":
            table.rows.append([])
            if table.is_in_head:
                table.head_rows.add(len(table.rows) - 1)
        elif tag in ("td", "th"):
            cell = _Cell(
                [], tag == "th", _span(attributes, "colspan"), _span(attributes, "rowspan")
            )
            self._n_cells += 1
            check_cells(self._n_cells, self._limits.max_cells)
            if not table.rows:
                table.rows.append([])
            table.rows[-1].append(cell)
            self._cells.append(cell)
            self._outputs.append(cell.blocks)

    def _is_inside_heading(self, tag: str) -> bool:
        """Tell whether a block is part of a heading; tables and headings end one left open."""
        return bool(self._heading) and tag not in _HEADINGS and tag != "table"

    def _next_marker(self) -> str:
        indent = "  " * min(len(self._lists) - 1, _MAX_INDENT)
        if not self._lists or self._lists[-1] is None:
            return f"{indent}- "
        self._lists[-1] += 1
        return f"{indent}{self._lists[-1]}. "

    def _flush(self) -> None:
        """End the block that is being read."""
        raw, linked, n_links = "".join(self._inline), "".join(self._linked), self._n_links
        self._inline, self._linked, self._n_links = [], [], 0
        is_tight, self._is_tight = self._is_tight, False
        if not raw.strip(_BREAK + " \t\n\r\xa0"):
            self._is_tight = is_tight  # the first text inside has the item's place
            return
        if self._heading:
            title = squeeze(raw.replace(_BREAK, " ")).rstrip(_PERMALINKS)
            level = self._heading if len(title) <= _MAX_HEADING_CHARS else 0
            self._outputs[-1].append(_Block(title, level=level))
            return
        if n_links > 2 and not _is_wordy(raw, linked) and not self._marker:
            return  # a bar of links
        if self._pre:
            text = raw.replace(_BREAK, "\n").strip("\n")
        else:
            lines = (squeeze(line) for line in raw.split(_BREAK))
            text = "\n".join(line for line in lines if line)
        marker, self._marker = self._marker, ""
        self._outputs[-1].append(_Block(marker + text, is_tight=is_tight))


def _is_skipped(tag: str, attributes: Mapping[str, str]) -> bool:
    return _SKIPPED.fullmatch(tag) is not None or attributes.get("role") in _SKIPPED_ROLES


def _is_wordy(raw: str, linked: str) -> bool:
    """Tell whether there are letters or digits outside the links."""
    return sum(map(str.isalnum, raw)) > sum(map(str.isalnum, linked))


def _span(attributes: Mapping[str, str], name: str) -> int:
    value = attributes.get(name, "1").strip()
    return min(max(int(value), 1), _MAX_SPAN) if value.isdecimal() else 1


def _table_blocks(table: _Table, limits: ParseLimits) -> Iterator[_Block]:
    """Yield a data table's rows as lines; of a table used for layout, what is in its cells."""
    cells = [cell for row in table.rows for cell in row]
    if any(block.level for cell in cells for block in cell.blocks) or all(
        len(row) <= 1 for row in table.rows
    ):
        for cell in cells:
            yield from cell.blocks
        return
    n_header = 0
    for i, row in enumerate(table.rows):
        is_header = len(row) > 1 and all(cell.is_header for cell in row)
        if i != n_header or not (i in table.head_rows or is_header):
            break
        n_header += 1
    grid = _grid(table.rows, limits)
    lines = rows_as_lines(grid, n_header or None)
    for i, line in enumerate(lines):
        yield _Block(line, is_tight=i > 0)


def _grid(rows: list[list[_Cell]], limits: ParseLimits) -> list[list[str]]:
    """Put cells where they stand: a cell over several rows is in each, over columns in the first.

    In header rows a cell over several columns would name only the first of them, so there it is
    in each.
    """
    grid: list[list[str]] = []
    carried: dict[int, tuple[int, str]] = {}  # column -> (rows left, text)
    n_cells = 0
    for row in rows:
        line: list[str] = []
        waiting = list(row)
        while waiting or len(line) in carried:
            column = len(line)
            if column in carried:
                n_left, text = carried.pop(column)
                if n_left > 1:
                    carried[column] = (n_left - 1, text)
                line.append(text)
                continue
            cell = waiting.pop(0)
            text = _cell_text(cell.blocks)
            is_header = all(other.is_header for other in row)
            for i in range(min(cell.n_columns, _MAX_SPAN)):
                shown = text if i == 0 or is_header else ""
                line.append(shown)
                if cell.n_rows > 1:
                    carried[column + i] = (cell.n_rows - 1, shown)
        n_cells += len(line)
        check_cells(n_cells, limits.max_cells)
        grid.append(line)
    return grid


def _cell_text(blocks: list[_Block]) -> str:
    parts = [squeeze(block.text) for block in blocks]
    is_list = len(parts) > 1 and all(part.startswith("- ") for part in parts)
    return ", ".join(part[2:] for part in parts) if is_list else " ".join(parts)
