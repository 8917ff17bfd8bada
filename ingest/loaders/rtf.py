r"""Rich Text Format (.rtf): text in any of its encodings, headings, tables by row.

RTF is a stream of control words and bytes. A byte beyond ASCII (``\'b9``) is in the code page of
the current font (Chinese fonts have 936), else of the document; pairs of such bytes make one
Chinese character, so bytes are gathered and decoded together. ``\u`` gives Unicode directly,
followed by a substitute that is skipped.

Headings are paragraphs with an outline level, their own or their style's, or a style named
"heading 1". Left out: headers and footers, footnotes, comments, pictures, embedded objects, field
codes, and hidden text, which is counted; text in the colour of the page is read.
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ingest.loaders.base import LoadedText, ParseLimits, TextBuilder, check_cells
from ingest.loaders.chapters import find_chapters
from ingest.loaders.table import rows_as_lines
from ingest.loaders.whitespace import n_visible, squeeze
from kb.errors import CorruptFileError, LimitExceededError

_TOKEN = re.compile(
    rb"\\(?:([a-zA-Z]{1,32})(-?\d{1,9})? ?|'([0-9a-fA-F]{2})|([^a-zA-Z']))"
    rb"|([{}])|[\r\n]+|([^\\{}\r\n]+)"
)
_MAX_DEPTH = 1000
_SKIPPED = frozenset(
    b"fonttbl colortbl stylesheet info pict object objdata themedata colorschememapping datastore "
    b"latentstyles listtable listoverridetable rsidtbl generator xmlnstbl header headerl headerr "
    b"headerf footer footerl footerr footerf footnote annotation atnid atnauthor fldinst "
    b"nonshppict bkmkstart bkmkend filetbl revtbl private tc xe pn pgptbl userprops".split()
)
_CHARACTERS = {
    b"tab": "\t",
    b"line": "\n",
    b"emdash": "—",
    b"endash": "–",
    b"lquote": "‘",
    b"rquote": "’",
    b"ldblquote": "“",
    b"rdblquote": "”",
    b"bullet": "•",
    b"emspace": " ",
    b"enspace": " ",
}
_SYMBOLS = {b"~": " ", b"_": "-", b"\n": "\n", b"\r": "\n", b"\t": "\t"}
_LITERAL = (b"\\", b"{", b"}")
# Character sets of fonts, as code pages that Python knows.
_CHARSETS = {
    77: "mac_roman",
    128: "cp932",
    129: "cp949",
    134: "gb18030",
    136: "big5hkscs",
    161: "cp1253",
    162: "cp1254",
    163: "cp1258",
    177: "cp1255",
    178: "cp1256",
    186: "cp1257",
    204: "cp1251",
    222: "cp874",
    238: "cp1250",
}
_PAGES = {936: "gb18030", 950: "big5hkscs", 10000: "mac_roman", 65001: "utf-8"}
_STYLE_NAME = re.compile(r"(?:heading|标题) ?([1-9])", re.IGNORECASE)
_BODY_LEVEL = 9
_HIDDEN = "hidden text"


@dataclass(frozen=True, slots=True)
class _State:
    """What a group inherits from the one around it."""

    is_skipped: bool = False
    is_hidden: bool = False
    font: int = -1
    n_substitutes: int = 1


@dataclass(slots=True)
class _Paragraph:
    level: int | None = None
    is_in_table: bool = False


@dataclass(slots=True)
class _Styles:
    """The two tables at the head of a file: code pages by font, outline levels by style."""

    pages: dict[int, str] = field(default_factory=dict)
    levels: dict[int, int] = field(default_factory=dict)


def load(data: bytes, limits: ParseLimits) -> LoadedText:
    data = data.lstrip(b"\xef\xbb\xbf \t\r\n\0")
    if not data.startswith(b"{\\rtf"):
        raise CorruptFileError("the file is not an RTF document, whatever its name says")
    builder = TextBuilder(limits.max_text_chars)
    reader = _Reader(builder, limits, _default_page(data))
    is_complete = reader.read(data)
    loaded = builder.build()
    if not loaded.headings:
        loaded = replace(loaded, headings=find_chapters(loaded.text))
    return loaded if is_complete else replace(loaded, notes=("the file is cut off at its end",))


class _Reader:
    def __init__(self, builder: TextBuilder, limits: ParseLimits, page: str) -> None:
        self._builder = builder
        self._limits = limits
        self._page = page
        self._styles = _Styles()
        self._state = _State()
        self._stack: list[_State] = []
        self._paragraph = _Paragraph()
        self._text: list[str] = []
        self._bytes = bytearray()
        self._n_skip = 0  # what stands in for a Unicode character
        self._row: list[str] = []
        self._rows: list[list[str]] = []
        self._n_cells = 0

    def read(self, data: bytes) -> bool:
        """Read the whole file; return whether all its groups are closed."""
        position = 0
        while match := _TOKEN.search(data, position):
            position = match.end()
            word, number, code, symbol, brace, plain = match.groups()
            if brace == b"{":
                position = self._open(data, position)
            elif brace:
                self._close()
                if not self._stack:
                    break
            elif word == b"bin":
                position += max(int(number or 0), 0)
            elif self._state.is_skipped:
                continue
            elif word:
                self._control(word.lower(), None if number is None else int(number))
            elif code:
                self._add_bytes(bytes.fromhex(code.decode()))
            elif symbol in _LITERAL:
                self._add_bytes(symbol)
            elif symbol:
                self._add_text(_SYMBOLS.get(symbol, ""))
            elif plain:
                self._add_bytes(plain)
        is_complete = not self._stack
        self._end_paragraph()
        self._end_table()
        return is_complete

    def _open(self, data: bytes, position: int) -> int:
        """Enter a group; return where to go on, behind the tables that are read as a whole."""
        if len(self._stack) >= _MAX_DEPTH:
            raise LimitExceededError("the RTF document nests groups too deeply")
        self._n_skip = 0
        self._stack.append(self._state)
        while data[position : position + 1] in (b"\r", b"\n"):
            position += 1
        match = _TOKEN.match(data, position)
        if match is None or self._state.is_skipped:
            return position
        word = (match[1] or b"").lower()
        if word in (b"fonttbl", b"stylesheet"):
            end = _group_end(data, position)
            table = data[position:end]
            if word == b"fonttbl":
                self._styles.pages.update(_font_pages(table))
            else:
                self._styles.levels.update(_style_levels(table))
            self._state = replace(self._state, is_skipped=True)
            return end
        if match[4] == b"*" or word in _SKIPPED:
            self._state = replace(self._state, is_skipped=True)
        return position

    def _close(self) -> None:
        self._flush_bytes()
        self._n_skip = 0
        if self._stack:
            self._state = self._stack.pop()

    def _control(self, word: bytes, number: int | None) -> None:
        if word == b"u" and number is not None:
            self._flush_bytes()
            self._add_text(chr(number % 0x10000))
            self._n_skip = self._state.n_substitutes
        elif word == b"uc":
            self._state = replace(self._state, n_substitutes=min(max(number or 0, 0), 9))
        elif word == b"f" and number is not None:
            self._flush_bytes()
            self._state = replace(self._state, font=number)
        elif word in (b"v", b"deleted"):
            self._flush_bytes()
            self._state = replace(self._state, is_hidden=number != 0)
        elif word == b"plain":
            self._flush_bytes()
            self._state = replace(self._state, is_hidden=False)
        elif word == b"pard":
            self._paragraph = _Paragraph()
        elif word == b"s" and number is not None:
            self._paragraph.level = self._styles.levels.get(number)
        elif word == b"outlinelevel" and number is not None:
            self._paragraph.level = number if 0 <= number < _BODY_LEVEL else None
        elif word in (b"intbl", b"itap"):
            self._paragraph.is_in_table = number != 0
        elif word in (b"par", b"sect", b"page"):
            self._end_paragraph()
        elif word in (b"cell", b"nestcell"):
            self._end_cell()
        elif word == b"row":
            self._end_row()
        elif word in _CHARACTERS:
            self._add_text(_CHARACTERS[word])

    def _add_bytes(self, data: bytes) -> None:
        n_cut = min(self._n_skip, len(data))
        self._n_skip -= n_cut
        if self._state.is_hidden:
            self._builder.hidden[_HIDDEN] += sum(map(len, data[n_cut:].split()))
        else:
            self._bytes += data[n_cut:]

    def _add_text(self, text: str) -> None:
        self._flush_bytes()
        if self._state.is_hidden:
            self._builder.hidden[_HIDDEN] += n_visible(text)
        else:
            self._text.append(text)

    def _flush_bytes(self) -> None:
        if not self._bytes:
            return
        data = bytes(self._bytes)
        self._bytes.clear()
        pages = (self._styles.pages.get(self._state.font, self._page), self._page, "gb18030")
        self._text.append(_decode(data, pages))

    def _take_text(self) -> str:
        self._flush_bytes()
        text = "".join(self._text)
        self._text = []
        # Characters beyond 16 bits come as two halves.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def _end_paragraph(self) -> None:
        text = self._take_text()
        if self._paragraph.is_in_table:
            self._text = [text, "\n"]  # a cell may hold several paragraphs
            return
        lines = [line for line in map(squeeze, text.split("\n")) if line]
        if not lines:
            return
        self._end_table()
        if self._paragraph.level is not None:
            self._builder.heading(" ".join(lines), self._paragraph.level + 1)
        else:
            self._builder.add("\n".join(lines))

    def _end_cell(self) -> None:
        self._n_cells += 1
        check_cells(self._n_cells, self._limits.max_cells)
        self._row.append(squeeze(self._take_text()))

    def _end_row(self) -> None:
        if rest := squeeze(self._take_text()):
            self._row.append(rest)
        self._rows.append(self._row)
        self._row = []

    def _end_table(self) -> None:
        rows = [*self._rows, self._row] if self._row else self._rows
        self._rows, self._row = [], []
        for i, line in enumerate(rows_as_lines(rows, None)):
            self._builder.add(line, "\n" if i else "\n\n")


def _default_page(data: bytes) -> str:
    match = re.search(rb"\\ansicpg(\d{1,5})", data[:4096])
    if match is None:
        return "mac_roman" if data.startswith(b"{\\rtf1\\mac") else "cp1252"
    return _code_page(int(match[1]))


def _code_page(number: int) -> str:
    name = _PAGES.get(number, f"cp{number}")
    try:
        codecs.lookup(name)
    except LookupError:
        return "cp1252"
    return name


def _decode(data: bytes, pages: tuple[str, ...]) -> str:
    for page in pages:
        try:
            return data.decode(page)
        except UnicodeDecodeError:
            continue
    return data.decode(pages[0], "replace")


def _group_end(data: bytes, position: int) -> int:
    """Return where the group that began before `position` is closed."""
    depth = 1
    for match in re.compile(rb"\\[\\{}]|[{}]").finditer(data, position):
        depth += {b"{": 1, b"}": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    return len(data)


def _font_pages(table: bytes) -> Iterator[tuple[int, str]]:
    for font in re.finditer(rb"\\f(\d{1,5})(?!\d)([^{};]*)", table):
        if charset := re.search(rb"\\fcharset(\d{1,3})", font[2]):
            page = _CHARSETS.get(int(charset[1]))
            if page:
                yield int(font[1]), page


def _style_levels(table: bytes) -> Iterator[tuple[int, int]]:
    for style in re.finditer(rb"\{\s*\\s(\d{1,5})(?!\d)([^{};]*)", table):
        outline = re.search(rb"\\outlinelevel(\d)", style[2])
        name = _STYLE_NAME.fullmatch(
            re.sub(rb"\\[a-z]+-?\d* ?|[\r\n]", b"", style[2]).decode("latin-1").strip()
        )
        if outline and int(outline[1]) < _BODY_LEVEL:
            yield int(style[1]), int(outline[1])
        elif name:
            yield int(style[1]), int(name[1]) - 1
